"""How long token blocks may be: lengths that follow the texts of the train and validation splits.

A block pads every text to the longest, so one long text must not decide. The length of candidates'
and jobs' blocks is the least that holds `SHARE` of these texts; the alignment's holds all that were
looked at, for a verdict that is cut is lost. All are rounded up, and have a cap. The validation
split counts too, for a tokenizer that is trained on few texts has learnt them by heart: it reads
them in fewer tokens than any it has not seen.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import tokenizers

from jobrec_jax.data.dataset import SPLITS, Dataset
from jobrec_jax.data.tokens import BlockFormat
from jobrec_jax.schema.align import align, fields_with_verdicts
from jobrec_jax.schema.render import render_alignment, render_entity

SHARE = {'candidate': 0.99, 'job': 0.99, 'alignment': 1.0}
CAP = {'candidate': 512, 'job': 512, 'alignment': 128}  # what a list of ten still takes in memory
_MULTIPLE = {'candidate': 8, 'job': 8, 'alignment': 4}
_TEXTS = 4096  # of a block that are looked at: some forty lie beyond a share of 0.99


class Length(NamedTuple):
  """Of one block.

  Attributes:
    block: 'candidate', 'job' or 'alignment'.
    length: the most tokens it may have.
    texts, longest, cut: how many texts were looked at, the most tokens of one, and how many have
      more than `length`.
  """

  block: str
  length: int
  texts: int
  longest: int
  cut: int

  def in_words(self) -> str:
    return (f'{self.block} blocks hold {self.length} tokens; {self.cut} of {self.texts} texts '
            f'({self.cut / max(1, self.texts):.1%}) are longer, the longest has {self.longest}')


def choose_lengths(dataset: Dataset, tokenizer: tokenizers.Tokenizer, form: BlockFormat,
                   seed: int = 0) -> tuple[BlockFormat, tuple[Length, ...]]:
  """The format with a length for each block that has none yet, and what the texts say of each.

  Args:
    dataset: of which the train and the validation split are read.
    tokenizer: of the text.
    form: blocks of length 0 get one.
    seed: of the draw of texts that are looked at.
  """
  found = []
  for block, tokens in _lengths(dataset, tokenizer, form, np.random.default_rng(seed)).items():
    longest = int(tokens.max(initial=1))
    length = getattr(form, block)
    if not length:
      quantile = np.quantile(tokens, SHARE[block], method='higher') if len(tokens) else longest
      multiple = _MULTIPLE[block]
      length = min(CAP[block], int(-(-quantile // multiple) * multiple))
    found.append(Length(block, length, len(tokens), longest, int((tokens > length).sum())))
  chosen = {length.block: length.length for length in found}
  if form.verdicts == 'vectors' and not form.alignment:
    judged = fields_with_verdicts(dataset.schema.without(form.without_layers))
    chosen['alignment'] = max(1, len(judged))  # a code for each verdict
  return dataclasses.replace(form, **chosen), tuple(found)


def _lengths(dataset: Dataset, tokenizer: tokenizers.Tokenizer, form: BlockFormat,
             rng: np.random.Generator) -> dict[str, np.ndarray]:
  """Of each block of text the tokens of some texts."""
  log, schema = dataset.interactions, dataset.schema.without(form.without_layers)
  log = log.where(np.isin(log.split, [SPLITS.index(name) for name in ('train', 'validation')]))
  texts = {side: [render_entity(schema, side, entities[i], form.layout)
                  for i in rng.permutation(np.unique(getattr(log, side)))[:_TEXTS]]
           for side, entities in (('candidate', dataset.candidates), ('job', dataset.jobs))}
  if not form.bare and form.verdicts != 'vectors':
    texts['alignment'] = [
        render_alignment(align(schema, dataset.candidates[log.candidate[row]],
                               dataset.jobs[log.job[row]]), form.verdicts)
        for row in rng.permutation(len(log))[:_TEXTS]]
  return {block: np.array([len(e) for e in tokenizer.encode_batch(of, add_special_tokens=False)],
                          np.int64) for block, of in texts.items()}
