"""Estimates that know how far each candidate and each job moves them, and their intervals.

A number measured on held-out candidates and jobs would be another with other candidates, and with
other jobs. Leaving out a group of either at a time (the jackknife) tells how far each moves it:

  ψ_g = sqrt((G − 1) / G) (θ_(−g) − mean of θ_(−·)),   Var θ = Σ ψ² of candidates + Σ ψ² of jobs.

Pairs share a candidate or a job, so both sides are drawn anew together (two-way clusters). The
variance of what is a pair's own is in both sums; it is not taken off again, and the jackknife's own
bias is upwards, so that intervals are rather too wide than too narrow. As ψ is kept, any two
estimates over the same data are compared by subtraction.

Reference: Efron and Stein, The Jackknife Estimate of Variance, 1981. Cameron, Gelbach and Miller,
  Robust Inference with Multiway Clustering, 2011. Owen, The Pigeonhole Bootstrap, 2007.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jobrec_jax.schema import streams

LIMIT = 200  # groups of candidates or jobs that training has seen, and of those that it has not


class Interval(NamedTuple):
  """A number with its interval; `n` is the number of lists (or pairs) behind it."""

  value: float
  low: float
  high: float
  n: int


class Estimate(NamedTuple):
  """A number, and how far each group of candidates and of jobs moves it.

  Attributes:
    value: the number.
    candidates: [Gu] jackknife deviations ψ; their sum of squares is the variance over candidates.
    jobs: [Gj] alike for jobs.
    n: the number of lists (or pairs) behind it.
    groups: of candidates and of jobs, how many take part; the others' ψ is 0. (0, 0) for a number
      that is no estimate, and has no interval.
  """

  value: float
  candidates: np.ndarray
  jobs: np.ndarray
  n: int
  groups: tuple[int, int] = (0, 0)

  def __sub__(self, other: 'Estimate') -> 'Estimate':
    """The paired difference: what moves both alike moves it not.

    Raises:
      ValueError: the two are not over the same groups.
    """
    shapes = [(len(e.candidates), len(e.jobs)) for e in (self, other)]
    if shapes[0] != shapes[1]:
      raise ValueError('estimates must be over the same groups of candidates and jobs, got '
                       f'{shapes[0]} and {shapes[1]}: they are of different data')
    return Estimate(self.value - other.value, self.candidates - other.candidates,
                    self.jobs - other.jobs, min(self.n, other.n),
                    tuple(map(max, self.groups, other.groups)))

  @property
  def variances(self) -> list[tuple[float, float]]:
    """(variance, degrees of freedom) of candidates and of jobs, as far as they take part."""
    return [(float(psi @ psi), count - 1.0)
            for psi, count in zip((self.candidates, self.jobs), self.groups) if count]


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
  """The sum of independent variance estimates, and its degrees of freedom.

  df = (Σ v)² / Σ v² / df_v.

  Args:
    parts: (variance, degrees of freedom) of each.

  Returns:
    Both nan where there is no part, or one has no degree of freedom.

  Reference: Satterthwaite, An Approximate Distribution of Estimates of Variance Components, 1946.
  """
  if not parts or min(df for _, df in parts) < 1:
    return np.nan, np.nan
  total = sum(v for v, _ in parts)
  if total == 0:
    return 0.0, min(df for _, df in parts)
  return total, total ** 2 / sum(v ** 2 / df for v, df in parts)


def half_width(variance: float, df: float, level: float) -> float:
  """Half of a t interval; nan without a variance."""
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}')
  return float(stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance))


def interval(estimate: Estimate, level: float = 0.95) -> Interval:
  """The estimate with its t interval over candidates and jobs.

  Args:
    estimate: any.
    level: of the interval, in (0, 1).

  Returns:
    Ends are nan where a side has fewer than two groups.
  """
  half = half_width(*satterthwaite(estimate.variances), level)
  return Interval(estimate.value, estimate.value - half, estimate.value + half, estimate.n)


class Groups(NamedTuple):
  """The group of every candidate and every job of a data set.

  Attributes:
    candidate: [candidates] int.
    job: [jobs] int.
    counts: (Gu, Gj), how many groups there are.
  """

  candidate: np.ndarray
  job: np.ndarray
  counts: tuple[int, int]

  def of(self, candidate: np.ndarray, job: np.ndarray) -> 'Groups':
    """Of pairs [N], the groups of their candidate and job."""
    return Groups(self.candidate[candidate], self.job[job], self.counts)


def make_groups(seen: tuple[np.ndarray, np.ndarray], limit: int = LIMIT) -> Groups:
  """The groups that are left out at a time, the same for whatever is measured on the data.

  Args:
    seen: [candidates] and [jobs] bool, whom training has seen. Those seen and those unseen lie in
      groups apart, so that each are spread over as many as can be.
    limit: groups of each; with fewer entities, everyone is a group of one.
  """
  sides = [_spread(np.asarray(s, bool), limit, name)
           for s, name in zip(seen, ('candidates', 'jobs'))]
  return Groups(*sides, tuple(int(s.max(initial=-1)) + 1 for s in sides))


def _spread(seen: np.ndarray, limit: int, name: str) -> np.ndarray:
  """[n] int, a group for each entity by its index alone."""
  group, rng = np.empty(len(seen), np.int64), streams.rng(0, f'jackknife groups of {name}')
  taken = 0
  for part in (False, True):
    members = np.flatnonzero(seen == part)
    order = np.arange(len(members))
    if len(members) > limit:
      order = rng.permutation(len(members)) % limit
    group[members] = taken + order
    taken += min(limit, len(members))
  return group


class Moments(NamedTuple):
  """Summed moments, and what of them leaves with each group.

  Attributes:
    total: [M].
    candidates: [Gu, M] the share of each group of candidates.
    jobs: [Gj, M] of each group of jobs.
    present: [Gu] and [Gj] bool, which groups take part.
  """

  total: np.ndarray
  candidates: np.ndarray
  jobs: np.ndarray
  present: tuple[np.ndarray, np.ndarray]


def present(groups: Groups) -> tuple[np.ndarray, np.ndarray]:
  """[Gu] and [Gj] bool, which groups some pairs lie in."""
  return tuple(np.bincount(g, minlength=count) > 0
               for g, count in zip((groups.candidate, groups.job), groups.counts))


def jackknife(moments: Moments, statistic: Callable[[np.ndarray], np.ndarray],
              n: int) -> list[Estimate]:
  """Estimates of statistics that depend on candidates and jobs through summed moments.

  Args:
    moments: of everything, and of each group.
    statistic: maps moments [R, M] to [R, S], row by row.
    n: the number of lists (or pairs) behind them.

  Returns:
    S estimates. A group without which a statistic is nan does not move it.
  """
  values = statistic(moments.total[None])[0]
  sides = []
  for share, there in zip((moments.candidates, moments.jobs), moments.present):
    psi = np.zeros((len(share), len(values)))
    count = int(there.sum())
    if count > 1:
      left_out = statistic(moments.total - share[there])
      deviation = left_out - np.nanmean(np.where(np.isnan(left_out).all(0), 0.0, left_out), 0)
      psi[there] = np.sqrt((count - 1) / count) * np.nan_to_num(deviation)
    sides.append(psi)
  counts = tuple(int(there.sum()) for there in moments.present)
  return [Estimate(float(v), u, j, n, counts) for v, u, j in zip(values, *(s.T for s in sides))]


def exact(value: float, n: int, groups: Groups) -> Estimate:
  """A number that is no estimate: no group moves it, and it has no interval."""
  return Estimate(float(value), *map(np.zeros, groups.counts), n)
