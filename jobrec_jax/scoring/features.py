"""What the frozen experts say of pairs: scores, the policy's lambda, or hidden states."""

from collections.abc import Callable, Iterator
import contextlib
import copy
import dataclasses
import functools
import math
from typing import Annotated, Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax import processes
from jobrec_jax.data.tokens import BUCKETS, PAD, BlockEncoder, bucket
from jobrec_jax.models.jobrec import ExpertOutputs, JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.schema.files import expanded
from jobrec_jax.schema.progress import TimeLeft
from jobrec_jax.schema.settings import at_least, check
from jobrec_jax.scoring.batches import ahead, calls, distinct, ladder, lists_of
from jobrec_jax.scoring.experts import ExpertFeatures, Experts, PairScores
from jobrec_jax.scoring.kept_states import BlockStates, encode_blocks
from jobrec_jax.scoring.policy import Policy, compiled_lambda
from jobrec_jax.sharding import layout, shard_batch

PyTree = Any
WORTH = 1 << 15  # pairs of shorter jobs whose own program saves what compiling it costs
_AHEAD = 2  # batches that the host prepares before the device asks for them
_PROGRAMS: set[tuple] = set()  # model, mesh and shapes of what this process has compiled


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
  """How pairs are scored; none of it changes what they score."""

  list_length: Annotated[int, at_least(1)] = 20  # jobs that share one reading of a candidate
  batch: Annotated[int, at_least(1)] = 16  # at most this many lists are scored at a time
  states: str = ''  # 'factored' attention: a folder that keeps block states; '': none

  def __post_init__(self):
    check(self)


@functools.partial(jax.jit, static_argnums=0)
def _score(model: JobRec, params: PyTree, lists: PyTree) -> ExpertOutputs:
  return model.apply({'params': params}, lists['candidate'], lists['job'], lists['alignment'],
                     lists.get('numbers'))


@functools.partial(jax.jit, static_argnums=0)
def _score_kept(model: JobRec, params: PyTree, lists: PyTree, candidates: States,
                jobs: States) -> ExpertOutputs:
  """Lists of which both sides were encoded before.

  Their candidates are rows `lists['candidate_row']` [B] of `candidates`, their jobs rows
  `lists['job_row']` [B, J] of `jobs`.
  """
  shared = jax.tree.map(lambda x: x[:, :, lists['candidate_row']], candidates)
  return model.apply({'params': params}, shared, lists['candidate'] != PAD, jobs,
                     lists['job_row'], lists['job'] != PAD, lists['alignment'],
                     lists.get('numbers'), method='score_pairs')


class Readout(NamedTuple):
  """What leaves the device beside the scores: lambda of a policy's head, or hidden states.

  The experts' program is the same for all; a head has a small one of its own.
  """

  head: PolicyHead | None = None
  params: PyTree = None
  hidden: bool = False

  def __call__(self, outputs: ExpertOutputs) -> dict[str, jax.Array]:
    out = {'scores': outputs.scores}
    if self.head is not None:
      out['lam'] = compiled_lambda(self.head, self.params, outputs.hidden)
    if self.hidden:
      out['hidden'] = outputs.hidden
    return out


class _Batch(NamedTuple):
  """Lists of a fixed number, on the device, and where their pairs stand.

  Attributes:
    lists: blocks by name, and with factored attention rows of states.
    kept: [B, J] bool, False at padding.
    pairs: [kept.sum()] indices of the distinct pairs.
    candidates: with factored attention, states of the batch's distinct candidates, or their
      tokens [U, L] where they are still to be encoded.
  """

  lists: PyTree
  kept: np.ndarray
  pairs: np.ndarray
  candidates: States | np.ndarray | None


class PairScorer:
  """Scores any set of pairs in a stream, with a few compiled programs.

  Repeated pairs are scored once. Pairs are grouped by candidate into lists of `list_length` jobs,
  so that each list reads its candidate once, and lists into batches of a few fixed sizes. With
  exact attention jobs are padded to one of `BUCKETS` of the longest, where enough are as short.
  With factored attention every job is encoded once, and not again while the same jobs are asked
  for; no block that `states` has on disk is encoded at all.

  A thread prepares batches while the device computes; results are fetched while the next batch
  runs. Beside what is returned, a call holds a few dozen bytes for each pair. Inside
  `processes.dividing` every process scores its part of the pairs, and all get all of them.

  Args:
    experts: the model, its parameters and its lengths.
    blocks: the token blocks of the dataset that pairs index.
    mesh: the mesh to run on; batches are rounded up to whole lists for its data and fsdp axes.
    settings: sizes of the lists and batches, and where block states are kept.

  Attributes:
    blocks, settings: as given.
    states: the block states on disk, or None.

  Raises:
    ValueError: the mesh spans processes, or states are to be kept and attention is not factored.
  """

  def __init__(self, experts: Experts, blocks: BlockEncoder, mesh: jax.sharding.Mesh,
               settings: ScoringConfig = ScoringConfig()):
    if mesh.is_multi_process:
      raise ValueError('pairs are scored by one process, on devices of its own, got a mesh over '
                       f'those of {jax.process_count()}')
    attention = experts.model.config.attention
    if settings.states and attention != 'factored':
      raise ValueError("features.states: allowed with model.attention='factored', whose blocks are "
                       f'read alone, got {settings.states!r} with {attention!r}')
    self.blocks, self.settings = blocks, settings
    self._model, self._mesh, self._allowed = experts.model, mesh, experts.form
    self._params = _replicated(experts.params, mesh)
    self.states = BlockStates(expanded(settings.states), self._model, self._params,
                              settings.batch) if settings.states else None
    self._sizes = ladder(settings.batch, mesh)
    self._encoded = {}  # the jobs that were encoded last
    # Where there are no candidates yet, one program serves whoever comes.
    self._lengths = ((0, 0, 0) if len(blocks.candidates) else
                     (experts.form.candidate, 0, experts.form.alignment))
    self._fit_lengths()

  def with_blocks(self, blocks: BlockEncoder) -> 'PairScorer':
    """A scorer of another dataset's blocks, or of other candidates.

    Blocks are padded at least as long as before, so that it shares programs.
    """
    other = copy.copy(self)
    other.blocks = blocks
    other._fit_lengths()
    if blocks.jobs is not self.blocks.jobs:
      other._encoded = {}
    return other

  def _fit_lengths(self) -> None:
    """Makes room for the blocks."""
    candidate, job, alignment = self._lengths
    if alignment < self._allowed.alignment:
      alignment = max(alignment, self.blocks.alignment_length)
    self._lengths = (max(candidate, self.blocks.candidates.shape[1]),
                     max(job, self.blocks.jobs.shape[1]), alignment)

  def scores(self, candidate: np.ndarray, job: np.ndarray, name: str = '') -> PairScores:
    """Scores of the pairs (candidate, job), index arrays of the same shape [...].

    Args:
      candidate, job: indices into the blocks.
      name: what the log calls this; '' logs no progress.

    Raises:
      ValueError: an index is out of range, or a score is not finite.
    """
    out = self._run(candidate, job, name, Readout())
    return PairScores(out['scores'][..., 0], out['scores'][..., 1])

  def policy_scores(self, policy: Policy, candidate: np.ndarray, job: np.ndarray,
                    name: str = '') -> PairScores:
    """As `scores`, with lambda [..., K] at each knot of the policy, whose head runs on the device.

    `Policy.at` reads any requirement from them.
    """
    out = self._run(candidate, job, name, Readout(policy.head, policy.params))
    return PairScores(out['scores'][..., 0], out['scores'][..., 1], out['lam'])

  def features(self, candidate: np.ndarray, job: np.ndarray, name: str = '') -> ExpertFeatures:
    """As `scores`, with the hidden states of all pairs: E * D numbers for each."""
    out = self._run(candidate, job, name, Readout(hidden=True))
    return ExpertFeatures(out['hidden'], out['scores'][..., 0], out['scores'][..., 1])

  def _run(self, candidate: np.ndarray, job: np.ndarray, name: str,
           readout: Readout) -> dict[str, np.ndarray]:
    """What `readout` gives of every pair, by name: [..., more axes] float32."""
    codes = self._codes(candidate, job)
    pairs, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    config = self._model.config
    E = len(config.experts)
    sizes = {'scores': (E,)}
    if readout.head is not None:
      sizes['lam'] = (readout.head.outputs,)
    if readout.hidden:
      sizes['hidden'] = (E, config.decoder.width)
    out = {key: np.empty((len(codes), *size), np.float32) for key, size in sizes.items()}

    mine = processes.part(len(pairs))
    own, place = pairs[mine], first[mine]

    def keep(batch: _Batch, said: dict[str, jax.Array]) -> None:
      for key, x in jax.device_get(said).items():
        rows = x[batch.kept]
        self._check_finite(key, rows, own[batch.pairs])
        out[key][place[batch.pairs]] = rows

    lists, scored, waiting, told = 0, 0, None, ''
    left = TimeLeft(len(own))
    with layout(self._mesh):
      score = self._program(own)
      readout = readout._replace(params=_replicated(readout.params, self._mesh))
      with contextlib.closing(ahead(self._batches(own), _AHEAD)) as batches:
        for done, batch in enumerate(processes.made(batches), 1):
          if name and self._is_new(batch):
            logging.info('%s: compiling for job blocks of %d tokens', name,
                         batch.lists['job'].shape[-1])
          said = readout(score(batch))  # returns before it is computed
          if waiting is not None:
            keep(*waiting)
            scored += len(waiting[0].pairs)
            told = left(scored)
          waiting, lists = (batch, said), lists + len(batch.kept)
          if name and done % 10 == 0:
            logging.info('%s: %d lists of %d jobs scored, of %d pairs%s', name, lists,
                         self.settings.list_length, len(own), told)
      if waiting is not None:
        keep(*waiting)
    if processes.divides():
      for x in out.values():
        x[first] = processes.pooled(x[place], len(pairs))
    if len(pairs) < len(codes):
      repeats = np.flatnonzero(first[inverse] != np.arange(len(codes)))
      for x in out.values():
        x[repeats] = x[first[inverse[repeats]]]
    return {key: x.reshape(*candidate.shape, *x.shape[1:]) for key, x in out.items()}

  def _is_new(self, batch: _Batch) -> bool:
    """Whether no batch like this one has been scored in this process, so that it compiles."""
    shapes = tuple((name, x.shape) for name, x in sorted(batch.lists.items()))
    program = self._model, self._mesh, shapes
    if program in _PROGRAMS:
      return False
    _PROGRAMS.add(program)
    return True

  def _codes(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] int64, a number for each pair: candidate * jobs + job."""
    if candidate.shape != job.shape:
      raise ValueError('candidate and job must be index arrays of one shape, got '
                       f'{candidate.shape} and {job.shape}')
    for side, x, count in (('candidate', candidate, len(self.blocks.candidates)),
                           ('job', job, len(self.blocks.jobs))):
      if x.size and not 0 <= x.min() <= x.max() < count:
        raise ValueError(f'{side} indices must lie in [0, {count}), got {x.min()} to {x.max()}')
    return candidate.ravel().astype(np.int64) * len(self.blocks.jobs) + job.ravel()

  def _check_finite(self, key: str, rows: np.ndarray, codes: np.ndarray) -> None:
    bad = ~np.isfinite(rows.reshape(len(rows), -1)).all(1)
    if bad.any():
      u, j = divmod(int(codes[bad.argmax()]), len(self.blocks.jobs))
      raise ValueError(f'{key} must be finite, got {rows[bad.argmax()].ravel()[:8].tolist()} for '
                       f'candidate {u} and job {j}; do the parameters hold numbers that are not?')

  def _program(self, pairs: np.ndarray) -> Callable[[_Batch], ExpertOutputs]:
    """batch -> outputs; where attention is factored, the jobs of `pairs` are encoded here."""
    model, params = self._model, self._params
    if model.config.attention == 'exact':
      return lambda batch: _score(model, params, batch.lists)
    if not len(pairs):  # nothing to encode, and no batch to score
      return lambda batch: ExpertOutputs(None, None)
    kept = self._encode_jobs(distinct(pairs % len(self.blocks.jobs), len(self.blocks.jobs)))
    if self.states is not None:
      candidates = distinct(pairs // len(self.blocks.jobs), len(self.blocks.candidates))
      self.states.encode(self._candidate_tokens(candidates), 'candidate')

    def score(batch: _Batch) -> ExpertOutputs:
      states = batch.candidates
      if not isinstance(states, States):
        states = encode_blocks(model, params, states, 'candidate')
      return _score_kept(model, params, batch.lists, states, kept)
    return score

  def _encode_jobs(self, jobs: np.ndarray) -> States:
    """States of at least these jobs, in the order of `_encoded['jobs']`."""
    kept = self._encoded
    if not kept or not np.isin(jobs, kept['jobs']).all():
      kept.clear()
      sizes = ladder(self.settings.batch * max(1, self.settings.list_length // 4), self._mesh)
      size = min((s for s in sizes if s >= len(jobs)), default=sizes[0])
      padded = np.resize(jobs, -(-len(jobs) // size) * size)  # whole batches: one program
      parts = [self._states_of(self.blocks.jobs[padded[start:start + size]], 'job')
               for start in range(0, len(padded), size)]
      states = parts[0] if len(parts) == 1 else jax.tree.map(
          lambda *x: jnp.concatenate(x, axis=2), *parts)
      kept |= {'jobs': jobs, 'states': states}
    return kept['states']

  def _states_of(self, tokens: np.ndarray, side: str) -> States:
    if self.states is None:
      return encode_blocks(self._model, self._params, tokens, side)
    return _replicated(self.states(tokens, side), self._mesh)

  def _candidate_tokens(self, candidate: np.ndarray) -> np.ndarray:
    return _widened(self.blocks.candidates[candidate], self._lengths[0])

  def _batches(self, pairs: np.ndarray) -> Iterator[_Batch]:
    """Runs on the host's thread: whatever a batch needs before the device may begin."""
    slots = np.arange(self.settings.list_length)
    factored = self._model.config.attention == 'factored'
    for width, wanted in self._by_width(pairs):
      start, length = lists_of(pairs[wanted] // len(self.blocks.jobs), len(slots))
      for at, size in calls(len(start), self._sizes):
        rows = np.resize(np.arange(at, min(at + size, len(start))), size)
        real = slots < length[rows][:, None]
        # Lists and batches are filled up with what stands first in them.
        index = wanted[start[rows][:, None] + np.where(real, slots, 0)]
        real[len(start) - at:] = False
        candidate, job = np.divmod(pairs[index], len(self.blocks.jobs))
        lists = self.blocks.candidate_lists(candidate[:, 0], job)
        lists |= {'candidate': self._candidate_tokens(candidate[:, 0]),
                  'job': _widened(lists['job'][..., :width], width),
                  'alignment': lists['alignment'][..., :self._lengths[2]]}
        states = None
        if factored:
          states, lists['candidate_row'] = self._candidates_of(candidate[:, 0])
          lists['job_row'] = np.searchsorted(self._encoded['jobs'], job).astype(np.int32)
        yield _Batch(shard_batch(lists, self._mesh), real, index[real], states)

  def _by_width(self, pairs: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(length of the job blocks, the pairs [n] whose jobs are padded to it), shortest first."""
    longest = self.blocks.jobs.shape[1]
    if self._model.config.attention == 'factored':  # every job is read once: little to save
      yield longest, np.arange(len(pairs))
      return
    which = np.searchsorted(BUCKETS, bucket(self.blocks.jobs)).astype(np.uint8)
    which = which[pairs % len(which)]
    low = 0
    for i, share in enumerate(BUCKETS):
      wanted = np.flatnonzero((low <= which) & (which <= i))
      last = share == BUCKETS[-1]
      if len(wanted) >= WORTH or (last and len(wanted)):
        yield self._lengths[1] if last else math.ceil(share * longest), wanted
        low = i + 1

  def _candidates_of(self, candidate: np.ndarray) -> tuple[States | np.ndarray, np.ndarray]:
    """Each of a batch's candidates once, in one of few numbers, and which is whose: [B] int32."""
    each, row = np.unique(candidate, return_inverse=True)
    size = min(s for s in self._sizes if s >= len(each))
    tokens = self._candidate_tokens(np.resize(each, size))
    return (tokens if self.states is None else self._states_of(tokens, 'candidate'),
            row.astype(np.int32))


def _widened(tokens: np.ndarray, length: int) -> np.ndarray:
  """Blocks [..., L] with padding behind them: [..., length]."""
  out = np.full((*tokens.shape[:-1], length), PAD, np.int32)
  out[..., :tokens.shape[-1]] = tokens
  return out


def _replicated(tree: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
  """Leaves that lie on the mesh as they are; others, of the host or one device, on all of it."""
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

  def place(x: np.ndarray | jax.Array) -> jax.Array:
    sharding = getattr(x, 'sharding', None)
    there = isinstance(sharding, jax.sharding.NamedSharding) and sharding.mesh == mesh
    return x if there else jax.device_put(x, everywhere)
  return jax.tree.map(place, tree)
