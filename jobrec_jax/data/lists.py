"""Lists that are drawn once and hashed, for evaluation and for stage 2."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import Dataset, Interactions, Truth
from jobrec_jax.schema.files import load_arrays, save_arrays

_ARRAYS = ('candidate', 'job', 'relevance', 'mask')
# Whose lists a perspective is ranked by first: jobs of a candidate, candidates of a job.
CENTRES = {'preference': 'candidate', 'qualification': 'job'}
UNSEEN = 50  # new candidates whose mean C says more than that of those whom training knows


@dataclasses.dataclass(frozen=True)
class RankingLists:
  """N lists of up to J pairs.

  Attributes:
    perspective: 'preference' or 'qualification', whose truth the relevance is.
    candidate, job: [N, J] int32 indices of each pair.
    relevance: [N, J] bool, which pairs are positives.
    mask: [N, J] bool, False where a short list is padded.
    centre: 'candidate' where a list holds jobs of a candidate, 'job' where it holds candidates of a
      job; '' for the perspective's own in `CENTRES`.
  """

  perspective: str
  candidate: np.ndarray
  job: np.ndarray
  relevance: np.ndarray
  mask: np.ndarray
  centre: str = ''

  def __post_init__(self):
    object.__setattr__(self, 'centre', self.centre or CENTRES.get(self.perspective, 'candidate'))

  def __len__(self) -> int:
    return len(self.candidate)

  def fingerprint(self) -> str:
    content = b''.join(np.ascontiguousarray(getattr(self, name)).tobytes() for name in _ARRAYS)
    return hashlib.sha256(content).hexdigest()[:16]


def save_lists(path: str | Path, lists: Mapping[str, RankingLists]) -> None:
  """Writes lists by name as one .npz file."""
  arrays = {f'{name}|{key}': getattr(x, key) for name, x in lists.items() for key in _ARRAYS}
  arrays |= {f'{name}|{key}': np.array(getattr(x, key)) for name, x in lists.items()
             for key in ('perspective', 'centre')}
  save_arrays(path, arrays)


def load_lists(path: str | Path) -> dict[str, RankingLists]:
  """What `save_lists` wrote.

  Raises:
    ValueError: the file is no such file.
  """
  arrays = load_arrays(path)
  try:
    return {name: RankingLists(str(arrays[f'{name}|perspective']),
                               *(arrays[f'{name}|{key}'] for key in _ARRAYS),
                               str(arrays[f'{name}|centre']))
            for name in dict.fromkeys(key.split('|')[0] for key in arrays)}
  except KeyError as error:
    raise ValueError(f'{path}: must hold lists, got no array {error}') from error


def pools_by(key: np.ndarray, value: np.ndarray, keep: np.ndarray) -> dict[int, np.ndarray]:
  """The kept values of each key that occurs at all."""
  order = np.argsort(key, kind='stable')
  order = order[keep[order]]
  keys, starts = np.unique(key[order], return_index=True)
  pools = dict(zip(keys.tolist(), np.split(value[order], starts[1:])))
  return {k: pools.get(k, value[:0]) for k in np.unique(key).tolist()}


def policy_lists(dataset: Dataset, split: str, items: int, count: int, seed: int,
                 jobs: np.ndarray | None = None,
                 wanted: Mapping[int, np.ndarray] | None = None) -> RankingLists:
  """Stage 2's lists: an applied job and up to items - 1 jobs without an application in any split.

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
    wanted: the applications, by candidate; None for `applications` of the split.

  Raises:
    ValueError: no candidate of the split applied to some of the catalogue and not to all of it, or
      `items` is below 2.
  """
  if items < 2:
    raise ValueError(f'policy.list_length must be at least 2, got {items}')
  jobs = catalogue_of(dataset, split) if jobs is None else jobs
  wanted = applications(dataset, split, jobs) if wanted is None else wanted
  taken = _applied(dataset.interactions, jobs)
  if not wanted:
    raise ValueError(f'the {split} split must hold candidates who applied to some of the '
                     f'{len(jobs)} jobs of the catalogue and not to all, got none')
  count = min(count, sum(map(len, wanted.values())))
  items = min(items, len(jobs) - min(len(taken[u]) for u in wanted) + 1)
  rng = np.random.default_rng(seed)
  order = rng.permutation(sorted(wanted))
  candidate = np.resize(order, count).astype(np.int32)
  job = np.empty((count, items), np.int32)
  relevance, mask = np.zeros((2, count, items), bool)
  for row, u in enumerate(candidate):
    positive = rng.choice(wanted[u])
    others = rng.permutation(np.setdiff1d(jobs, taken[u]))[:items - 1]
    listed = np.sort(np.append(others, positive))
    job[row] = np.resize(listed, items)
    mask[row, :len(listed)] = True
    relevance[row] = mask[row] & (job[row] == positive)
  return RankingLists('preference', np.repeat(candidate[:, None], items, 1), job, relevance, mask)


def applications(dataset: Dataset, split: str | Sequence[str],
                 jobs: np.ndarray) -> dict[int, np.ndarray]:
  """The jobs of a catalogue to which each candidate of a split, or of several, applied.

  Candidates who applied to none of it in the split, or to all of it in any, are left out: they have
  nothing to choose.
  """
  taken = _applied(dataset.interactions, jobs)
  found: dict[int, np.ndarray] = {}
  for name in (split,) if isinstance(split, str) else split:
    for u, pool in _applied(dataset.interactions.of(name), jobs).items():
      found[u] = np.union1d(found.get(u, pool), pool)
  return {u: pool for u, pool in found.items() if len(pool) and len(taken[u]) < len(jobs)}


def _applied(log: Interactions, jobs: np.ndarray) -> dict[int, np.ndarray]:
  """The jobs of a catalogue to which each candidate of a log applied, each once."""
  wanted = (log.preference == 1) & np.isin(log.job, jobs)
  return {u: np.unique(pool) for u, pool in pools_by(log.candidate, log.job, wanted).items()}


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


def unseen_candidates(dataset: Dataset) -> np.ndarray:
  """Candidates whom training does not know, and on whom nothing is measured in the end.

  They are validation's and those that calibration is fitted to, but for those of whom training has
  rows, as where splits are by time.
  """
  half, _ = calibration_halves(dataset)
  return np.setdiff1d(np.union1d(candidates_of(dataset, 'validation'), half),
                      candidates_of(dataset, 'train'))


class Stage2(NamedTuple):
  """What stage 2's lists are drawn from.

  Attributes:
    jobs: the catalogue.
    wanted: the applications that the lists hold, by candidate.
    whose: these, in words.
  """

  jobs: np.ndarray
  wanted: dict[int, np.ndarray]
  whose: str


def stage_2_of(dataset: Dataset) -> Stage2:
  """Candidates whom training does not know, where `UNSEEN` of them applied to something.

  Experts tell the jobs of those they learned from further apart, so that a multiplier that keeps a
  requirement on their lists moves others too far. Fewer would say less of the mean: then, and where
  all are known, lists are of the train split.
  """
  jobs, people = warm_jobs(dataset), set(unseen_candidates(dataset).tolist())
  found = applications(dataset, ('validation', 'calibration'), jobs)
  wanted = {u: pool for u, pool in found.items() if u in people}
  if len(wanted) >= UNSEEN:
    return Stage2(jobs, wanted, 'applications of candidates whom training does not know')
  jobs = catalogue_of(dataset, 'train')
  return Stage2(jobs, applications(dataset, 'train', jobs), 'applications in the train split')


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
                seed: int = 0, centre: str = '') -> RankingLists:
  """The full ranking of a grid of pairs, relevance being the latent outcomes.

  [U, J] by candidate, [J, U] by job; '' for the perspective's own axis. Each list has its own
  seeded order: in one order for all, position would stand for the popularity of an entity.
  """
  centre = centre or CENTRES[perspective]
  u, j = np.meshgrid(candidates, jobs, indexing='ij')
  outcome = truth.wants if perspective == 'preference' else truth.eligible
  if centre == 'job':
    u, j = u.T, j.T
  order = np.argsort(np.random.default_rng(seed).random(u.shape), axis=1)
  u, j = (np.take_along_axis(x, order, axis=1).astype(np.int32) for x in (u, j))
  return RankingLists(perspective, u, j, outcome[u, j], np.ones(u.shape, bool), centre)


def labelled_lists(dataset: Dataset, split: str, perspective: str,
                   centre: str = '') -> RankingLists:
  """The labelled pairs of a split, one list for each candidate or job; '' for the perspective's.

  Lists without a positive or without a negative rank nothing and are left out.

  Raises:
    ValueError: no list is left.
  """
  centre, log = centre or CENTRES[perspective], dataset.interactions.of(split)
  log = log.where(getattr(log, perspective) >= 0)
  label = getattr(log, perspective) == 1
  key = getattr(log, centre)
  rows = [np.flatnonzero(key == k) for k in np.unique(key)]
  rows = [r for r in rows if 0 < label[r].sum() < len(r)]
  if not rows:
    raise ValueError(f'split {split} has no {perspective} list with both a positive and a negative')
  width = max(map(len, rows))
  mask = np.arange(width) < np.array([len(r) for r in rows])[:, None]
  index = np.stack([np.resize(r[np.lexsort((log.job[r], log.candidate[r]))], width) for r in rows])
  return RankingLists(perspective, log.candidate[index], log.job[index], label[index] & mask, mask,
                      centre)
