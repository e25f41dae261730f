"""Estimates that know how far each candidate and each job moves them, and their intervals.

A number measured on held-out candidates and jobs would be another with other candidates, and with
other jobs. Leaving out a group of either at a time (the jackknife) tells how far each moves it:

  ψ_g = sqrt((G − 1) / G) (θ_(−g) − mean of θ_(−·)),
  Var θ = Σ ψ² of candidates + Σ ψ² of jobs − Σ ψ² of pairs.

Pairs share a candidate or a job, so both sides are drawn anew together (two-way clusters). What is
a pair's own is in both sums and taken off once; for this pairs lie in groups at random, whose sum
of squares has the same expectation as that of all pairs. The jackknife's own bias is upwards. As ψ
is kept, any two estimates over the same data are compared by subtraction.

Reference: Efron and Stein, The Jackknife Estimate of Variance, 1981. Cameron, Gelbach and Miller,
  Robust Inference with Multiway Clustering, 2011. Owen, The Pigeonhole Bootstrap, 2007.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jobrec_jax.schema import streams

LIMIT = 200  # groups of candidates or jobs that training has seen, and of those that it has not
ROUNDING = 1e-12  # of a number of size 1
PAIRS = 256  # groups of pairs: their sum of squares is right to 9%


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
    pairs: [Gp] alike for pairs, whose variance is in both of the others.
  """

  value: float
  candidates: np.ndarray
  jobs: np.ndarray
  n: int
  groups: tuple[int, int] = (0, 0)
  pairs: np.ndarray = np.zeros(PAIRS)

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
                    tuple(map(max, self.groups, other.groups)), self.pairs - other.pairs)

  @property
  def variance(self) -> tuple[float, float]:
    """The variance over candidates and jobs, and its degrees of freedom; nan where there is none.

    What moves all pairs of a candidate, or of a job, is in the sum of pairs, too, and not theirs.
    The variance is at least that of either side alone.
    """
    if 0 in self.groups:
      return np.nan, np.nan
    gu, gj = self.groups
    u, j, pairs = (float(x @ x) for x in (self.candidates, self.jobs, self.pairs))
    if max(u, j) <= (ROUNDING * max(abs(self.value), 1.0)) ** 2:  # nothing moves it
      return 0.0, min(gu, gj) - 1.0
    own = min(max(pairs - u / gj - j / gu, 0.0), u, j)
    return satterthwaite([(u, gu - 1.0), (j, gj - 1.0), (-own, PAIRS - 1.0)])


def satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
  """The sum of independent variance estimates, and its degrees of freedom.

  df = (Σ v)² / (Σ v² / df_v).

  Args:
    parts: (variance, degrees of freedom) of each; one that is taken off is negative.

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


def interval(estimate: Estimate, level: float = 0.95,
             within: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
  """The estimate with its t interval over candidates and jobs.

  Args:
    estimate: any.
    level: of the interval, in (0, 1).
    within: the least and greatest value that the number can have: there the interval ends.

  Returns:
    Ends are nan where a side has fewer than two groups.
  """
  half = half_width(*estimate.variance, level)
  low, high = np.clip((estimate.value - half, estimate.value + half), *within)
  return Interval(estimate.value, float(low), float(high), estimate.n)


class Groups(NamedTuple):
  """The group of every candidate and every job of a data set.

  Attributes:
    candidate: [candidates] int; of pairs [N].
    job: [jobs] int; of pairs [N].
    counts: (Gu, Gj), how many groups there are.
  """

  candidate: np.ndarray
  job: np.ndarray
  counts: tuple[int, int]

  @property
  def pair(self) -> np.ndarray:
    """[N] int, of pairs, a group below `PAIRS` at random for each two groups."""
    code = self.candidate.astype(np.uint64) * np.uint64(self.counts[1]) + self.job.astype(np.uint64)
    return (streams.split_mix(code) % np.uint64(PAIRS)).astype(np.int64)

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
    pairs: [Gp, M] of each group of pairs.
    present: [Gu] and [Gj] bool, which groups take part.
  """

  total: np.ndarray
  candidates: np.ndarray
  jobs: np.ndarray
  pairs: np.ndarray
  present: tuple[np.ndarray, np.ndarray]


def summed(columns: Iterable[np.ndarray], groups: Groups) -> Moments:
  """Moments of pairs.

  Args:
    columns: M of [N].
    groups: [N] of the pairs' candidates and jobs.
  """
  columns, counts = list(columns), (*groups.counts, PAIRS)
  by_group = groups.candidate, groups.job, groups.pair
  sides = [np.stack([np.bincount(g, c, count) for c in columns], axis=1)
           for g, count in zip(by_group, counts)]
  return Moments(sides[0].sum(0), *sides, present(groups))


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
  sides, everyone = [], np.ones(len(moments.pairs), bool)
  for share, there in zip((moments.candidates, moments.jobs, moments.pairs),
                          (*moments.present, everyone)):
    psi = np.zeros((len(share), len(values)))
    count = int(there.sum())
    if count > 1:
      left_out = statistic(moments.total - share[there])
      deviation = left_out - np.nanmean(np.where(np.isnan(left_out).all(0), 0.0, left_out), 0)
      psi[there] = np.sqrt((count - 1) / count) * np.nan_to_num(deviation)
    sides.append(psi)
  counts = tuple(int(there.sum()) for there in moments.present)
  return [Estimate(float(v), u, j, n, counts, pairs)
          for v, u, j, pairs in zip(values, *(s.T for s in sides))]


def exact(value: float, n: int, groups: Groups) -> Estimate:
  """A number that is no estimate: no group moves it, and it has no interval."""
  return Estimate(float(value), *map(np.zeros, groups.counts), n)
