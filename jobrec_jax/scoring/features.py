"""What the frozen experts say of pairs, computed once and kept."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.tokens import BUCKETS, BlockEncoder, bucket, trim
from jobrec_jax.models.jobrec import PAD, ExpertOutputs, JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.scoring.kept_states import BlockStates, encode_blocks
from jobrec_jax.sharding import layout, shard_batch

PyTree = Any


@dataclasses.dataclass(frozen=True)
class ExpertFeatures:
  """The experts' output for pairs of any leading shape [...].

  Attributes:
    hidden: [..., E, D] float32 readout states.
    preference, qualification: [...] float32 logits s_pref and s_qual.
  """

  hidden: np.ndarray
  preference: np.ndarray
  qualification: np.ndarray

  def __getitem__(self, index) -> 'ExpertFeatures':
    return ExpertFeatures(self.hidden[index], self.preference[index], self.qualification[index])


@functools.partial(jax.jit, static_argnums=0)
def _score(model: JobRec, params: PyTree, lists: PyTree) -> ExpertOutputs:
  return model.apply({'params': params}, lists['candidate'], lists['job'], lists['alignment'])


@functools.partial(jax.jit, static_argnums=0)
def _score_kept(model: JobRec, params: PyTree, lists: PyTree, candidates: States, index: jax.Array,
                jobs: States) -> ExpertOutputs:
  """Lists of which both sides were encoded before; their jobs are rows `index` [B, J] of `jobs`."""
  return model.apply({'params': params}, candidates, lists['candidate'] != PAD, jobs, index,
                     lists['job'] != PAD, lists['alignment'], method='score_pairs')


class FeatureExtractor:
  """Scores any set of pairs with one compiled program for each bucket of lengths.

  Pairs are grouped by candidate into lists of `items` jobs, so that each list encodes its
  candidate once; `batch` lists run at a time. Repeated pairs are scored once. With exact attention
  texts are padded to one of three lengths (`BUCKETS`), not all to the longest. With factored
  attention every job is encoded once, whatever the number of its candidates, and no block that
  `states` has on disk is encoded at all.

  Args:
    model: the experts.
    params: their parameters.
    blocks: the token blocks of the dataset that pairs index.
    mesh: the mesh to run on; `batch` must divide by its data and fsdp axes.
    items: jobs in a list of the program.
    batch: lists in a call of the program.
    states: factored attention: where block states are kept; None to keep them for a call alone.

  Raises:
    ValueError: there are several processes.
  """

  def __init__(self, model: JobRec, params: PyTree, blocks: BlockEncoder, mesh: jax.sharding.Mesh,
               items: int = 20, batch: int = 16, states: BlockStates | None = None):
    if jax.process_count() > 1:
      raise ValueError('pairs are scored in one process that drives all devices, got '
                       f'{jax.process_count()} processes')
    self._states = states
    self._model, self._params, self._blocks, self._mesh = model, params, blocks, mesh
    self._items, self._batch = items, batch

  def with_blocks(self, blocks: BlockEncoder) -> 'FeatureExtractor':
    """The same program over another dataset's blocks of the same lengths."""
    other = object.__new__(FeatureExtractor)
    other.__dict__ = self.__dict__ | {'_blocks': blocks}
    return other

  def __call__(self, candidate: np.ndarray, job: np.ndarray, name: str = '') -> ExpertFeatures:
    """Features of the pairs (candidate, job), index arrays of the same shape [...]."""
    pairs, inverse = np.unique(np.stack([candidate.ravel(), job.ravel()], 1), axis=0,
                               return_inverse=True)
    chunks = list(self._chunks(pairs))
    out = None
    with layout(self._mesh):
      score = self._scorer(*map(np.unique, pairs.T))
      for done, (share, rows, kept) in enumerate(chunks, 1):
        jobs = pairs[rows, 1]
        lists = trim(self._blocks.candidate_lists(pairs[rows[:, 0], 0], jobs), share)
        said = jax.device_get(score(shard_batch(lists, self._mesh), jobs))
        if out is None:
          out = [np.empty((len(pairs), *x.shape[2:]), np.float32)
                 for x in (said.hidden, said.scores)]
        out[0][rows[kept]], out[1][rows[kept]] = said.hidden[kept], said.scores[kept]
        if name and done % 10 == 0:
          logging.info('%s: %d of %d batches of lists scored', name, done, len(chunks))
    hidden, scores = (x[inverse.ravel()] for x in out)
    shape = candidate.shape
    return ExpertFeatures(hidden.reshape(*shape, *hidden.shape[1:]),
                          scores[:, 0].reshape(shape), scores[:, 1].reshape(shape))

  def _scorer(self, candidates: np.ndarray,
              jobs: np.ndarray) -> Callable[[PyTree, np.ndarray], ExpertOutputs]:
    """(lists, their jobs) -> outputs; where attention is factored, `jobs` are encoded here."""
    model, params = self._model, self._params
    if model.config.attention == 'exact':
      return lambda lists, _: _score(model, params, lists)
    if self._states is not None:
      self._states.encode(self._blocks.candidates[candidates], 'candidate')
    # Whole batches, so that every catalogue runs the same program.
    size = self._batch * max(1, self._items // 4)
    padded = np.resize(jobs, -(-len(jobs) // size) * size)
    parts = [self._encode(self._blocks.jobs[padded[start:start + size]], 'job')
             for start in range(0, len(padded), size)]
    kept = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *parts)
    return lambda lists, wanted: _score_kept(
        model, params, lists, self._encode(lists['candidate'], 'candidate'),
        shard_batch(np.searchsorted(jobs, wanted), self._mesh), kept)

  def _encode(self, tokens: np.ndarray | jax.Array, side: str) -> States:
    if self._states is None:
      return encode_blocks(self._model, self._params, tokens, side)
    everywhere = jax.sharding.NamedSharding(self._mesh, jax.sharding.PartitionSpec())
    return jax.device_put(self._states(jax.device_get(tokens), side), everywhere)

  def _chunks(self, pairs: np.ndarray) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """(share of the block lengths, rows [batch, items] of pairs, which of them count) by bucket."""
    if self._model.config.attention == 'exact':
      share = np.maximum(bucket(self._blocks.candidates)[pairs[:, 0]],
                         bucket(self._blocks.jobs)[pairs[:, 1]])
    else:
      share = np.full(len(pairs), BUCKETS[-1])  # every entity is read once: little to save
    for s in np.unique(share):
      wanted = np.flatnonzero(share == s)
      rows, slots = self._rows(pairs[wanted])
      for start in range(0, len(rows), self._batch):
        part = rows[start:start + self._batch]
        kept = np.zeros((self._batch, self._items), bool)
        kept[:len(part)] = slots[start:start + self._batch]
        yield float(s), wanted[np.resize(part, kept.shape)], kept

  def _rows(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted pairs -> rows of one candidate each, padded by repeating the row's first pair."""
    _, starts = np.unique(pairs[:, 0], return_index=True)
    ends = np.append(starts[1:], len(pairs))
    rows, slots = [], []
    for start, end in zip(starts, ends):
      for first in range(start, end, self._items):
        index = np.arange(first, first + self._items)
        slots.append(index < end)
        rows.append(np.where(index < end, index, first))
    return np.stack(rows), np.stack(slots)
