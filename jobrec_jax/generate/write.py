"""Reasons for pairs, written by a run's experts with their writer."""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.tokens import PAD, BlockEncoder
from jobrec_jax.generate.automaton import Automaton, Vocabulary, automaton, stacked
from jobrec_jax.generate.claims import Sayable, pattern, pieces, sayable
from jobrec_jax.generate.decode import Texts, Writing, decode
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.models.writer import PairStates, Start, read_pairs, words_of
from jobrec_jax.schema.schema import PERSPECTIVES, Schema
from jobrec_jax.scoring.experts import Experts

PyTree = Any
TURNS = 160  # of a reason, at most: three claims, two of them with quotes
BATCH = 32  # pairs that are written about at a time


@dataclasses.dataclass(frozen=True)
class WrittenReason:
  """What was written of a pair.

  Attributes:
    text: as it came.
    whole: whether it came to its end; else it was cut.
    tokens: how many.
  """

  text: str
  whole: bool
  tokens: int


@dataclasses.dataclass(frozen=True)
class ReasonWriter:
  """Writes reasons of the pairs of a data set.

  Scores are what they are: nothing that scores is touched.

  Attributes:
    experts: whose decoder reads the pairs.
    lora: of the writer.
    params: the writer's.
    schema: of the pairs.
  """

  experts: Experts
  lora: LoraConfig
  params: PyTree
  schema: Schema

  @functools.cached_property
  def writing(self) -> Writing:
    model = self.experts.model
    config = dataclasses.replace(model.config.decoder, lora=self.lora)
    return Writing(model, config, self.experts.params, self.params)

  @functools.cached_property
  def vocabulary(self) -> Vocabulary:
    return Vocabulary(self.experts.tokenizer, words_of(self.experts.model))

  def write(self, dataset: Dataset, candidate: np.ndarray, job: np.ndarray, perspective: str,
            grammar: bool = True, temperature: float = 0.0, key: jax.Array | None = None,
            turns: int = TURNS, beams: int = 1) -> list[WrittenReason]:
    """Reasons of pairs.

    Args:
      dataset: their records.
      candidate, job: [N] indices into it.
      perspective: one of the experts'.
      grammar: whether only what is true can be written; a pair of which nothing can be said has
        the empty reason.
      temperature, key, beams: see `decode`; with a key each batch has its own.
      turns: of a reason, at most.

    Returns:
      N reasons.
    """
    blocks = self.experts.blocks(dataset)
    out = [WrittenReason('', True, 0)] * len(candidate)
    made = [self.language(dataset, *pair, perspective)[1] for pair in zip(candidate, job)
            ] if grammar else [None] * len(candidate)
    rows = np.array([i for i, a in enumerate(made) if a is not None or not grammar], int)
    for number, at in enumerate(np.split(rows, range(BATCH, len(rows), BATCH))):
      if not len(at):
        continue
      filled = np.resize(at, BATCH)
      tables = stacked([made[i] for i in filled]) if grammar else None
      pairs, start = self.read(blocks, candidate[filled], job[filled], perspective)
      own = None if key is None else jax.random.fold_in(key, number)
      texts = decode(self.writing, pairs, start, tables, turns, temperature, own, beams=beams)
      for i, reason in zip(at, self.reasons(texts)):
        out[i] = reason
    return out

  def reasons(self, texts: Texts) -> Iterator[WrittenReason]:
    """The texts of [B, 1] pairs."""
    tokens, whole = jax.device_get((texts.tokens[:, 0], texts.whole[:, 0]))
    for row, done in zip(tokens, whole):
      row = row[row != PAD]
      yield WrittenReason(self.vocabulary.text(row), bool(done), len(row))

  def language(self, dataset: Dataset, candidate: int, job: int,
               perspective: str) -> tuple[tuple[Sayable, ...], Automaton | None]:
    """What may be said of a pair, and the automaton of it; None where nothing may."""
    said = sayable(self.schema, dataset.candidates[candidate], dataset.jobs[job], perspective)
    if not said:
      return said, None
    return said, automaton(pattern(said), pieces(said), self.vocabulary)

  def read(self, blocks: BlockEncoder, candidate: np.ndarray, job: np.ndarray,
           perspective: str) -> tuple[PairStates, Start]:
    """The states of pairs [B], as lists of one job, and what their texts begin with."""
    lists = widened(blocks.candidate_lists(candidate, job[:, None]), self.experts)
    e = PERSPECTIVES.index(perspective)
    w = self.writing
    return _read(w.model, w.config, w.params, w.writer, lists, e)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _read(model, config, params: PyTree, writer: PyTree, lists: PyTree,
          expert: int) -> tuple[PairStates, Start]:
  module = Writing(model, config, params, writer).module
  pairs = read_pairs(model, params, lists)
  start = module.apply({'params': writer}, model, params, pairs.scores, lists.get('numbers'),
                       method='start')
  return pairs.of(expert), start.of(expert)


def widened(lists: dict[str, np.ndarray], experts: Experts) -> dict[str, np.ndarray]:
  """Blocks of the greatest lengths that there are, so that one program serves all."""
  form = experts.form
  sizes = {'candidate': form.candidate, 'job': form.job}
  return {name: np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, sizes[name] - x.shape[-1])],
                       constant_values=PAD) if name in sizes else x for name, x in lists.items()}

