"""Bootstrap intervals over lists, or over clusters of lists that share a candidate or a job."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CHUNK = 1 << 20  # resampled clusters held in memory at once


class Interval(NamedTuple):
  """An estimate with its percentile bootstrap interval; `n` is the number of lists behind it."""

  value: float
  low: float
  high: float
  n: int


def cluster_sums(moments: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
  """Sums [N, M] moments over clusters: [G, M], one row for each distinct value of `groups` [N]."""
  if groups is None:
    return moments
  if np.shape(groups) != (len(moments),):
    raise ValueError(f'groups must be [{len(moments)}], one for each row, got {np.shape(groups)}')
  index = np.unique(groups, return_inverse=True)[1]
  return np.stack([np.bincount(index, column) for column in moments.T], axis=1)


def bootstrap(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> np.ndarray:
  """Percentile bootstrap of a statistic that depends on its clusters through summed moments.

  Args:
    sums: [G, M], the moments of each cluster; clusters are drawn with replacement.
    statistic: maps summed moments [R, M] to [R, S], row by row.
    seed: of the draws.
    resamples: number of draws.
    level: of the interval, in (0, 1).

  Returns:
    [3, S] value, low, high; low and high are nan with fewer than two clusters.

  Raises:
    ValueError: if `resamples` or `level` is out of range.

  Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
  """
  if resamples < 1:
    raise ValueError(f'resamples must be at least 1, got {resamples}')
  if not 0 < level < 1:
    raise ValueError(f'level must be in (0, 1), got {level}')
  value = statistic(sums.sum(0, keepdims=True))[0]
  g = len(sums)
  if g < 2:
    return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
  rng = np.random.default_rng(seed)
  rows = max(1, CHUNK // g)
  draws = []
  for done in range(0, resamples, rows):
    r = min(rows, resamples - done)
    picks = rng.integers(0, g, (r, g)) + g * np.arange(r)[:, None]
    counts = np.bincount(picks.ravel(), minlength=r * g).reshape(r, g)
    draws.append(statistic(counts.astype(np.float64) @ sums))
  tail = (1 - level) / 2
  low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail], axis=0)
  return np.stack([value, low, high])


def bootstrap_mean(
    values: np.ndarray,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Interval:
  """The mean over lists with its percentile bootstrap interval.

  Args:
    values: [N], one for each list; nan (a list without the metric) is left out.
    seed: of the draws.
    resamples: number of draws.
    level: of the interval.
    groups: [N] the candidate or job that lists share, drawn as one; None draws lists.

  Returns:
    The mean over lists and its interval; all nan with n = 0 when no list has a value.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1:
    raise ValueError(f'values must be [N], got {values.shape}')
  if groups is not None and np.shape(groups) != values.shape:
    raise ValueError(f'groups must be {values.shape} like values, got {np.shape(groups)}')
  keep = ~np.isnan(values)
  n = int(keep.sum())
  if not n:
    return Interval(np.nan, np.nan, np.nan, 0)
  moments = np.stack([values[keep], np.ones(n)], axis=1)
  sums = cluster_sums(moments, None if groups is None else np.asarray(groups)[keep])
  estimate = bootstrap(sums, lambda s: s[:, :1] / s[:, 1:], seed, resamples, level)
  return Interval(*map(float, estimate[:, 0]), n)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> Interval:
  """The mean of a − b over the lists where both exist; a is better where the interval is above 0.

  Args:
    a, b: [N] values of two systems on the very same lists, in the same order.
    seed, resamples, level, groups: as in `bootstrap_mean`.

  Returns:
    The mean difference and its interval.

  Raises:
    ValueError: if the shapes differ.
  """
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if a.shape != b.shape:
    raise ValueError(f'a and b must hold the same lists, got {a.shape} and {b.shape}')
  return bootstrap_mean(a - b, seed, resamples, level, groups)
