"""Lists: drawn on the fly for training, drawn once and hashed for evaluation and stage 2."""

from collections.abc import Iterable, Mapping
import dataclasses
import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jobrec_jax.data.dataset import Dataset, Interactions, Truth
from jobrec_jax.schema.files import load_arrays, save_arrays

_ARRAYS = ('candidate', 'job', 'relevance', 'mask')
Negatives = Literal['exposed', 'uniform']


@dataclasses.dataclass(frozen=True)
class RankingLists:
  """N lists of up to J pairs. Candidate-centred for preference, job-centred for qualification.

  Attributes:
    perspective: 'preference' or 'qualification'.
    candidate, job: [N, J] int32 indices of each pair.
    relevance: [N, J] bool, which pairs are positives.
    mask: [N, J] bool, False where a short list is padded.
  """

  perspective: str
  candidate: np.ndarray
  job: np.ndarray
  relevance: np.ndarray
  mask: np.ndarray

  def __len__(self) -> int:
    return len(self.candidate)

  def fingerprint(self) -> str:
    content = b''.join(np.ascontiguousarray(getattr(self, name)).tobytes() for name in _ARRAYS)
    return hashlib.sha256(content).hexdigest()[:16]


def save_lists(path: str | Path, lists: Mapping[str, RankingLists]) -> None:
  """Writes lists by name as one .npz file."""
  arrays = {f'{name}|{key}': getattr(x, key) for name, x in lists.items() for key in _ARRAYS}
  arrays |= {f'{name}|perspective': np.array(x.perspective) for name, x in lists.items()}
  save_arrays(path, arrays)


def load_lists(path: str | Path) -> dict[str, RankingLists]:
  """What `save_lists` wrote.

  Raises:
    ValueError: the file is no such file.
  """
  arrays = load_arrays(path)
  try:
    return {name: RankingLists(str(arrays[f'{name}|perspective']),
                               *(arrays[f'{name}|{key}'] for key in _ARRAYS))
            for name in dict.fromkeys(key.split('|')[0] for key in arrays)}
  except KeyError as error:
    raise ValueError(f'{path}: must hold lists, got no array {error}') from error


def negatives_policy(interactions: Interactions, asked: Negatives) -> Negatives:
  """The policy that is asked for; 'uniform' where nothing was shown and not applied to."""
  return asked if (interactions.preference == 0).any() else 'uniform'


class LabelledLists:
  """Training lists of the labelled pairs of one candidate, or of one job.

  A positive and up to n negatives with the same centre, drawn without replacement: the contrast. A
  centre that has negatives alone gets lists of these, without a contrast, for they tell as much of
  its base rate. Only what has a label is listed: whoever did not apply is never rejected, and what
  was not shown is never turned down.

  Each item has a weight with which the cross-entropy is that of the log: centre c with A_c
  positives and R_c negatives has A_c lists, in each of which the positive counts 1 and each of n_c
  negatives R_c / (A_c n_c). Without them, lists of 1 + n would give every centre the base rate
  1 / (1 + n), and a logit that is off by log(A_c / R_c) + log n_c.

  Args:
    interactions: the log of a split.
    perspective: 'preference' (exposed pairs) or 'qualification' (applicants).
    centre: 'candidate' or 'job', what the pairs of a list share.
    negatives: the greatest n; no list is longer than the centre with most negatives allows.
    weights: [N] of each row of the log in the cross-entropy, mean 1; None for ones.

  Attributes:
    anchors: [lists] rows of the log, the first of each list.

  Raises:
    ValueError: the split holds no positive.
  """

  def __init__(self, interactions: Interactions, perspective: str, centre: str, negatives: int,
               weights: np.ndarray | None = None):
    self._log, self._label = interactions, getattr(interactions, perspective)
    self._weights = np.ones(len(interactions)) if weights is None else weights
    self._centre = getattr(interactions, centre)
    positives = np.flatnonzero(self._label == 1)
    if not len(positives):
      raise ValueError(_NOTHING[perspective])
    self._pool = _pools(self._centre, np.arange(len(interactions)), self._label == 0)
    self.negatives = _at_most(negatives, (len(self.pool(row)) for row in positives))
    self._positives = np.bincount(self._centre[positives], minlength=self._centre.max() + 1)
    bare = [pool[:self._lists_of(len(pool))] for c, pool in self._pool.items()
            if not self._positives[c]]
    self.anchors = np.concatenate([positives, *bare])
    # So that the weights of a list have the mean 1 over lists, whatever their number.
    self._share = len(self.anchors) / np.count_nonzero(self._label >= 0)

  def _lists_of(self, negatives: int) -> int:
    """How many lists a centre of negatives alone has."""
    return -(-negatives // (1 + self.negatives))

  def __len__(self) -> int:
    return len(self.anchors)

  def contrasted(self) -> bool:
    """Whether some positive has a negative."""
    return any(self._positives[c] and len(pool) for c, pool in self._pool.items())

  def pool(self, anchor: int) -> np.ndarray:
    """The rows of the negatives that share a row's centre."""
    return self._pool[int(self._centre[anchor])]

  def draw(self, anchor: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One list: candidate, job, mask, weight [1 + n], and whether its first is a positive, []."""
    pool, label = self.pool(anchor), bool(self._label[anchor] == 1)
    if label:
      rows, mask = _draw(rng, anchor, pool, self.negatives)
    else:  # any of the pool may stand first
      first, *others = rng.permutation(pool)[:1 + self.negatives]
      rows, mask = _draw(rng, first, others, self.negatives)
    counts = np.ones(len(rows))
    if label:
      counts[1:] = len(pool) / max(1, self._positives[self._centre[anchor]] * (mask.sum() - 1))
    else:
      counts[:] = len(pool) / (self._lists_of(len(pool)) * mask.sum())
    weight = np.where(mask, counts * self._weights[rows] * self._share, 0)
    return {'candidate': self._log.candidate[rows], 'job': self._log.job[rows], 'mask': mask,
            'weight': weight.astype(np.float32), 'label': np.bool_(label)}


_NOTHING = {
    'preference': 'the split holds no application: there is nothing to learn preference from',
    'qualification': 'the split holds no accepted applicant: nothing to learn qualification from'}


class SampledLists:
  """Training lists of one candidate where nobody knows what was shown: contrast alone.

  An applied job, and n that stand for the catalogue: training jobs without an application, drawn
  with equal probability, so that their logQ correction is a constant that the softmax cancels. They
  have no label, so that the weights of the cross-entropy are 0.

  Args, attributes and errors as of `LabelledLists`.
  """

  def __init__(self, interactions: Interactions, negatives: int):
    self._log = interactions
    self.anchors = np.flatnonzero(interactions.preference == 1)
    if not len(self.anchors):
      raise ValueError(_NOTHING['preference'])
    jobs = np.unique(interactions.job)
    wanted = _pools(interactions.candidate, interactions.job, interactions.preference == 1)
    self._pool = {u: np.setdiff1d(jobs, taken) for u, taken in wanted.items() if len(taken)}
    self.negatives = _at_most(negatives, map(len, self._pool.values()))

  def __len__(self) -> int:
    return len(self.anchors)

  def contrasted(self) -> bool:
    """Whether some positive has a negative."""
    return any(map(len, self._pool.values()))

  def pool(self, anchor: int) -> np.ndarray:
    """The jobs to which the row's candidate did not apply."""
    return self._pool[int(self._log.candidate[anchor])]

  def draw(self, anchor: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One list, as of `LabelledLists`."""
    jobs, mask = _draw(rng, self._log.job[anchor], self.pool(anchor), self.negatives)
    return {'candidate': np.full(len(jobs), self._log.candidate[anchor]), 'job': jobs, 'mask': mask,
            'weight': np.zeros(len(jobs), np.float32), 'label': np.bool_(True)}


TrainingLists = LabelledLists | SampledLists


def preference_lists(interactions: Interactions, negatives: int, policy: Negatives,
                     centre: str = 'candidate') -> TrainingLists:
  """Lists of applied jobs among others: 'exposed', shown and not applied to, or 'uniform' ones.

  Raises:
    ValueError: the split holds no application.
  """
  if policy == 'uniform':
    return SampledLists(interactions, negatives)
  return LabelledLists(interactions, 'preference', centre, negatives)


def fixed_lists(source: TrainingLists, count: int, seed: int) -> dict[str, np.ndarray] | None:
  """Lists that are drawn once, to measure by: [count] of what `draw` returns.

  Anchors take turns in a seeded order, each time with other negatives, so that the measure costs
  the same however few they are.

  Returns:
    The lists; None where no positive has a negative, so that there is nothing to measure.
  """
  if not source.contrasted():
    return None
  rng = np.random.default_rng(seed)
  order = np.resize(rng.permutation(len(source)), count)
  drawn = [source.draw(source.anchors[i], rng) for i in order]
  return {name: np.stack([d[name] for d in drawn]) for name in drawn[0]}


def _at_most(negatives: int, pools: Iterable[int]) -> int:
  return max(1, min(negatives, max(pools)))


def _pools(key: np.ndarray, value: np.ndarray, keep: np.ndarray) -> dict[int, np.ndarray]:
  """The kept values of each key that occurs at all."""
  order = np.argsort(key, kind='stable')
  order = order[keep[order]]
  keys, starts = np.unique(key[order], return_index=True)
  pools = dict(zip(keys.tolist(), np.split(value[order], starts[1:])))
  return {k: pools.get(k, value[:0]) for k in np.unique(key).tolist()}


def _draw(rng: np.random.Generator, first, pool, n: int) -> tuple[np.ndarray, np.ndarray]:
  """`first`, then up to n of the pool without replacement; a short list repeats `first`, masked."""
  taken = rng.permutation(pool)[:n]
  items = np.full(1 + n, first, np.int32)
  items[1:1 + len(taken)] = taken
  return items, np.arange(1 + n) <= len(taken)


def policy_lists(dataset: Dataset, split: str, items: int, count: int, seed: int,
                 jobs: np.ndarray | None = None) -> RankingLists:
  """Stage 2's lists: an applied job and up to items - 1 training jobs without an application.

  Candidates take turns in a seeded order, so that the lists spread evenly over them. Items stand in
  the order of their index, so that the position tells nothing. A candidate who applied to so many
  jobs that others are short gets a shorter, masked list, one who applied to all of them none.

  Args:
    dataset: the data.
    split: the split, or kind of test, whose candidates and applications are used.
    items: J, the most jobs in a list; fewer where the catalogue has no more.
    count: N, the most lists; no more than there are applications.
    seed: of candidates, positives and negatives.
    jobs: the catalogue to draw from; None for `catalogue_of` the split.

  Raises:
    ValueError: no candidate of the split applied to some of the catalogue and not to all of it, or
      `items` is below 2.
  """
  if items < 2:
    raise ValueError(f'policy.list_length must be at least 2, got {items}')
  jobs = catalogue_of(dataset, split) if jobs is None else jobs
  wanted = applications(dataset, split, jobs)
  if not wanted:
    raise ValueError(f'the {split} split must hold candidates who applied to some of the '
                     f'{len(jobs)} jobs of the catalogue and not to all, got none')
  count = min(count, sum(map(len, wanted.values())))
  items = min(items, len(jobs) - min(map(len, wanted.values())) + 1)
  rng = np.random.default_rng(seed)
  order = rng.permutation(sorted(wanted))
  candidate = np.resize(order, count).astype(np.int32)
  job = np.empty((count, items), np.int32)
  relevance, mask = np.zeros((2, count, items), bool)
  for row, u in enumerate(candidate):
    positive = rng.choice(wanted[u])
    others = rng.permutation(np.setdiff1d(jobs, wanted[u]))[:items - 1]
    listed = np.sort(np.append(others, positive))
    job[row] = np.resize(listed, items)
    mask[row, :len(listed)] = True
    relevance[row] = mask[row] & (job[row] == positive)
  return RankingLists('preference', np.repeat(candidate[:, None], items, 1), job, relevance, mask)


def applications(dataset: Dataset, split: str, jobs: np.ndarray) -> dict[int, np.ndarray]:
  """The jobs of a catalogue to which each candidate of a split applied.

  Candidates who applied to none of it, or to all, are left out: they have nothing to choose.
  """
  log = dataset.interactions.of(split)
  wanted = _pools(log.candidate, log.job, (log.preference == 1) & np.isin(log.job, jobs))
  return {u: pool for u, pool in wanted.items() if 0 < len(pool) < len(jobs)}


def warm_jobs(dataset: Dataset) -> np.ndarray:
  """Indices of the jobs that the train split has seen."""
  return np.unique(dataset.interactions.of('train').job)


def catalogue_of(dataset: Dataset, split: str) -> np.ndarray:
  """The jobs that a split's lists are drawn from: those that training sees.

  Where nobody of the split applied to some of these and not to all, as where whole groups of jobs
  are left out of training, they are the split's own.
  """
  jobs = warm_jobs(dataset)
  return jobs if applications(dataset, split, jobs) else np.unique(
      dataset.interactions.of(split).job)


def candidates_of(dataset: Dataset, split: str) -> np.ndarray:
  return np.unique(dataset.interactions.of(split).candidate)


def calibration_halves(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
  """The calibration split's candidates: those that calibration is fitted to, and those held back.

  Certificates need candidates that no fit has used. They take turns in the order of their index,
  so that the halves are the same in every run over this data set.
  """
  candidates = candidates_of(dataset, 'calibration')
  return candidates[::2], candidates[1::2]


def uniform_lists(eligible: np.ndarray, candidates: np.ndarray, jobs: np.ndarray, items: int,
                  seed: int) -> RankingLists:
  """One list a candidate, of jobs drawn uniformly, with every label; nobody needs to have applied.

  Items stand in the order of their index, as in `policy_lists`.

  Args:
    eligible: [candidates, jobs] bool of the whole market, the relevance.
    candidates: [N] whose lists.
    jobs: the catalogue to draw from.
    items: J, the most jobs in a list; fewer where the catalogue has no more.
    seed: of the draw.

  Raises:
    ValueError: `items` is below 1.
  """
  if items < 1:
    raise ValueError(f'policy.list_length must be at least 1, got {items}')
  items, rng = min(items, len(jobs)), np.random.default_rng(seed)
  job = np.sort([rng.permutation(jobs)[:items] for _ in candidates], axis=1).astype(np.int32)
  candidate = np.repeat(candidates[:, None], items, 1).astype(np.int32)
  return RankingLists('preference', candidate, job, eligible[candidate, job],
                      np.ones(job.shape, bool))


def truth_lists(truth: Truth, perspective: str, candidates: np.ndarray, jobs: np.ndarray,
                seed: int = 0) -> RankingLists:
  """The full ranking of a grid of pairs, relevance being the latent outcomes.

  Candidate-centred [U, J] for preference, job-centred [J, U] for qualification. Each list has its
  own seeded order: in one order for all, position would stand for the popularity of an entity.
  """
  u, j = np.meshgrid(candidates, jobs, indexing='ij')
  outcome = truth.wants if perspective == 'preference' else truth.eligible
  if perspective == 'qualification':
    u, j = u.T, j.T
  order = np.argsort(np.random.default_rng(seed).random(u.shape), axis=1)
  u, j = (np.take_along_axis(x, order, axis=1).astype(np.int32) for x in (u, j))
  return RankingLists(perspective, u, j, outcome[u, j], np.ones(u.shape, bool))


class Grid(NamedTuple):
  """Every pair of some candidates and some jobs.

  Attributes:
    candidates, jobs: the entities of its rows [U] and columns [J].
    truth: [U, J] of its pairs.
    taken: [U, J] bool, pairs that no list may hold; None for none.
  """

  candidates: np.ndarray
  jobs: np.ndarray
  truth: Truth
  taken: np.ndarray | None = None


def sampled_lists(grid: Grid, perspective: str, length: int, seed: int) -> RankingLists:
  """One positive and up to length - 1 negatives for each candidate (or job), in a random order.

  Relevance is the latent outcome. For catalogues where ranking everything costs too much: drawn
  once, stored, and given to every system alike.

  Args:
    grid: the pairs there are.
    perspective: 'preference' (candidate-centred) or 'qualification' (job-centred).
    length: of a list; shorter ones are masked.
    seed: of the draw.

  Raises:
    ValueError: no list has both a positive and a negative.
  """
  rng = np.random.default_rng(seed)
  outcome = grid.truth.wants if perspective == 'preference' else grid.truth.eligible
  free = np.ones(outcome.shape, bool) if grid.taken is None else ~grid.taken
  if perspective == 'qualification':
    outcome, free = outcome.T, free.T
  centres, items = (grid.candidates, grid.jobs)[::1 if perspective == 'preference' else -1]
  rows = []
  for k in range(len(centres)):
    positive, negative = (np.flatnonzero(free[k] & (outcome[k] == x)) for x in (True, False))
    if len(positive) and len(negative):
      chosen = np.append(rng.permutation(negative)[:length - 1], rng.choice(positive))
      rows.append((k, rng.permutation(chosen)))
  if not rows:
    raise ValueError(f'no {perspective} list has both a positive and a negative')
  width = max(len(chosen) for _, chosen in rows)
  mask = np.arange(width) < np.array([len(chosen) for _, chosen in rows])[:, None]
  at = np.stack([np.resize(chosen, width) for _, chosen in rows])
  k = np.array([k for k, _ in rows])[:, None]
  pair = np.broadcast_to(centres[k], at.shape).astype(np.int32), items[at].astype(np.int32)
  return RankingLists(perspective, *pair[::1 if perspective == 'preference' else -1],
                      outcome[k, at] & mask, mask)


def labelled_lists(dataset: Dataset, split: str, perspective: str) -> RankingLists:
  """The labelled pairs of a split, one list for each candidate (preference) or job (qualification).

  Lists without a positive or without a negative rank nothing and are left out.

  Raises:
    ValueError: no list is left.
  """
  log = dataset.interactions.of(split)
  log = log.where(getattr(log, perspective) >= 0)
  label = getattr(log, perspective) == 1
  key = log.candidate if perspective == 'preference' else log.job
  rows = [np.flatnonzero(key == k) for k in np.unique(key)]
  rows = [r for r in rows if 0 < label[r].sum() < len(r)]
  if not rows:
    raise ValueError(f'split {split} has no {perspective} list with both a positive and a negative')
  width = max(map(len, rows))
  mask = np.arange(width) < np.array([len(r) for r in rows])[:, None]
  index = np.stack([np.resize(r[np.lexsort((log.job[r], log.candidate[r]))], width) for r in rows])
  return RankingLists(perspective, log.candidate[index], log.job[index], label[index] & mask, mask)
