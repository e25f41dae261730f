"""Reason first: what a writer says of a pair stands before the experts judge it. An ablation.

  candidate | job | verdicts, n tokens on preference, n tokens on qualification | readouts

The writer is one of experts that judge first, and writes freely, as models that reason do: no
grammar keeps it to what is true.
"""

from collections.abc import Callable, Sequence
import functools
import itertools

from absl import logging
import numpy as np
import tokenizers

from jobrec_jax.data.components import Components
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.pairs import PairAligner
from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat, padded
from jobrec_jax.generate.write import ReasonWriter
from jobrec_jax.schema.schema import PERSPECTIVES, Entity

_TOLD = 4096  # pairs between two lines of progress


class Chains:
  """The chains of all pairs of a data set, and of other records as they are asked for.

  Args:
    writer: who writes.
    dataset: whose pairs have chains.
    tokens: [candidates, jobs, E n] int32, `PAD` behind a chain's end.
  """

  def __init__(self, writer: ReasonWriter, dataset: Dataset, tokens: np.ndarray):
    self._writer, self._dataset, self._tokens = writer, dataset, tokens

  @property
  def length(self) -> int:
    """E n, tokens of a chain at most."""
    return self._tokens.shape[-1]

  def of(self, dataset: Dataset) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of pairs [N], [N] of a data set: their chains [N, E n].

    Records that stand where they stood and are as they were have theirs already.
    """
    old = self._dataset
    people, jobs = (_same(*sides) for sides in (
        (old.candidates, dataset.candidates), (old.jobs, dataset.jobs)))

    def chains(candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
      out = np.full((len(candidate), self.length), PAD, np.int32)
      known = people[candidate] & jobs[job]
      out[known] = self._tokens[candidate[known], job[known]]
      if not known.all():
        out[~known] = write_chains(self._writer, dataset, candidate[~known], job[~known],
                                   self.length // len(PERSPECTIVES))
      return out
    return chains


def _same(old: Sequence[Entity], new: Sequence[Entity]) -> np.ndarray:
  """[new] bool, which records are the old ones of the same places."""
  return np.array([i < len(old) and old[i] == x for i, x in enumerate(new)], bool)


def write_chains(writer: ReasonWriter, dataset: Dataset, candidate: np.ndarray, job: np.ndarray,
                 tokens: int) -> np.ndarray:
  """[N, E n] int32: the first n = `tokens` tokens on each perspective, one behind the other."""
  parts = []
  for perspective in PERSPECTIVES:
    texts = []
    for at in np.split(np.arange(len(candidate)), range(_TOLD, len(candidate), _TOLD)):
      texts += [w.text for w in writer.write(dataset, candidate[at], job[at], perspective,
                                             grammar=False, turns=tokens)]
      logging.info('chain: %d of %d pairs written of %s', len(texts), len(candidate), perspective)
    parts.append([ids[:tokens] for ids in writer.vocabulary.encode(texts)])
  return padded([[*itertools.chain(*of)] for of in zip(*parts)], len(PERSPECTIVES) * tokens)


class ReasonedBlocks(BlockEncoder):
  """Blocks in which a chain stands behind the verdicts of every pair.

  The form's alignment has room for both. See `BlockEncoder`.
  """

  def __init__(self, dataset: Dataset, tokenizer: tokenizers.Tokenizer, form: BlockFormat,
               components: Components | None = None, *, chains: Chains):
    self._chains = chains
    super().__init__(dataset, tokenizer, form, components)

  def _pair_with(self, dataset: Dataset, aligner: PairAligner) -> None:
    super()._pair_with(dataset, aligner)
    self._chain_of = self._chains.of(dataset)

  @functools.cached_property
  def alignment_length(self) -> int:
    verdicts = BlockEncoder.alignment_length.func(self)
    return min(self._form.alignment, verdicts + self._chains.length)

  def _fill(self, out: np.ndarray, candidate: np.ndarray, job: np.ndarray) -> None:
    super()._fill(out[:, :out.shape[1] - self._chains.length], candidate, job)
    chain = self._chain_of(candidate, job)
    place = (out != PAD).sum(1)[:, None] + np.arange(chain.shape[1])
    row, at = np.nonzero(chain != PAD)
    out[row, place[row, at]] = chain[row, at]
