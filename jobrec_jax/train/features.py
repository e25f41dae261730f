"""What the frozen experts say of pairs, computed once and kept."""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.attention import States
from jobrec_jax.models.jobrec import PAD, ExpertOutputs, JobRec
from jobrec_jax.train.sharding import layout, shard_batch

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
def _encode_jobs(model: JobRec, params: PyTree, tokens: jax.Array) -> States:
  return model.apply({'params': params}, tokens, 'job', method='encode')


@functools.partial(jax.jit, static_argnums=0)
def _score_kept(model: JobRec, params: PyTree, lists: PyTree, index: jax.Array,
                kept: States) -> ExpertOutputs:
  """Lists whose jobs are rows `index` [B, J] of kept states; their candidates are read here."""
  variables = {'params': params}
  left = model.apply(variables, lists['candidate'], 'candidate', method='encode')
  right = jax.tree.map(lambda x: x[:, :, index], kept)
  return model.apply(variables, left, lists['candidate'] != PAD, right, lists['job'] != PAD,
                     lists['alignment'], method='score_pairs')


class FeatureExtractor:
  """Scores any set of pairs with one compiled program.

  Pairs are grouped by candidate into lists of `items` jobs, so that each list encodes its
  candidate once; `batch` lists run at a time. Repeated pairs are scored once. With factored
  attention every job is encoded once, whatever the number of its candidates.

  Args:
    model: the experts.
    params: their parameters.
    blocks: the token blocks of the dataset that pairs index.
    mesh: the mesh to run on; `batch` must divide by its data and fsdp axes.
    items: jobs in a list of the program.
    batch: lists in a call of the program.
  """

  def __init__(self, model: JobRec, params: PyTree, blocks: BlockEncoder, mesh: jax.sharding.Mesh,
               items: int = 20, batch: int = 16):
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
    rows, slots = self._rows(pairs)  # [rows, items] index into pairs; slots that count
    parts = []
    with layout(self._mesh):
      score = self._scorer(np.unique(pairs[:, 1]))
      for start in range(0, len(rows), self._batch):
        chunk = np.resize(rows[start:start + self._batch], (self._batch, self._items))
        jobs = pairs[chunk, 1]
        lists = self._blocks.candidate_lists(pairs[chunk[:, 0], 0], jobs)
        out = jax.device_get(score(shard_batch(lists, self._mesh), jobs))
        kept = slots[start:start + self._batch]
        parts.append((out.hidden[:len(kept)][kept], out.scores[:len(kept)][kept]))
        done = start + len(kept)
        if name and (done // self._batch) % 10 == 0:
          logging.info('%s: %d of %d lists encoded', name, done, len(rows))
    # Rows are filled in the order of the pairs, so the kept slots are the pairs in order.
    hidden, scores = (np.concatenate(p)[inverse.ravel()] for p in zip(*parts))
    shape = candidate.shape
    return ExpertFeatures(hidden.reshape(*shape, *hidden.shape[1:]),
                          scores[:, 0].reshape(shape), scores[:, 1].reshape(shape))

  def _scorer(self, jobs: np.ndarray) -> Callable[[PyTree, np.ndarray], ExpertOutputs]:
    """(lists, their jobs) -> outputs; where attention is factored, `jobs` are encoded here."""
    model, params = self._model, self._params
    if model.config.attention == 'exact':
      return lambda lists, _: _score(model, params, lists)
    # Whole batches, so that every catalogue runs the same program.
    size = self._batch * max(1, self._items // 4)
    padded = np.resize(jobs, -(-len(jobs) // size) * size)
    parts = [_encode_jobs(model, params, self._blocks.jobs[padded[start:start + size]])
             for start in range(0, len(padded), size)]
    kept = jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *parts)
    return lambda lists, wanted: _score_kept(
        model, params, lists, shard_batch(np.searchsorted(jobs, wanted), self._mesh), kept)

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
