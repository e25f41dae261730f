"""Bootstrap intervals over lists, or over clusters of lists that share a candidate or a job."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jobrec_jax.schema import streams

CHUNK = 1 << 16  # resampled clusters in work at once: they fit a cache


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
  draws = [statistic(counts @ sums) for counts in resampled_counts(g, seed, resamples)]
  tail = (1 - level) / 2
  low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail], axis=0)
  return np.stack([value, low, high])


def resampled_counts(g: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
  """[R, G] float64 in chunks, how often each of G clusters is drawn in each resample."""
  rng = streams.rng(seed, 'bootstrap')
  rows = max(1, CHUNK // g)
  for done in range(0, resamples, rows):
    r = min(rows, resamples - done)
    picks = rng.integers(0, g, (r, g)) + g * np.arange(r)[:, None]
    yield np.bincount(picks.ravel(), minlength=r * g).reshape(r, g).astype(np.float64)


def bootstrap_means(
    columns: np.ndarray,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    groups: np.ndarray | None = None,
) -> list[Interval]:
  """The mean of each column over lists, all columns under the same draws.

  Args:
    columns: [N, M], one row for each list; nan (a list without the metric) is left out.
    seed: of the draws.
    resamples: number of draws.
    level: of the intervals.
    groups: [N] the candidate or job that lists share, drawn as one; None draws lists.

  Returns:
    M means with their intervals; nan with n = 0 where no list has a value.
  """
  columns = np.asarray(columns, np.float64)
  if columns.ndim != 2:
    raise ValueError(f'columns must be [N, M], got {columns.shape}')
  if groups is not None and np.shape(groups) != (len(columns),):
    raise ValueError(f'groups must be [{len(columns)}], one for each list, got {np.shape(groups)}')
  there = ~np.isnan(columns)
  intervals: list[Interval | None] = [None] * columns.shape[1]
  patterns, of_column = np.unique(there.T, axis=0, return_inverse=True)
  for i, kept in enumerate(patterns):  # columns that lack the same lists share their draws
    at, n = np.flatnonzero(of_column.ravel() == i), int(kept.sum())
    if n:
      moments = np.concatenate([columns[kept][:, at], np.ones((n, 1))], axis=1)
      sums = cluster_sums(moments, None if groups is None else np.asarray(groups)[kept])
      estimate = bootstrap(sums, lambda s: s[:, :-1] / s[:, -1:], seed, resamples, level)
    else:
      estimate = np.full((3, len(at)), np.nan)
    for column, values in zip(at, estimate.T):
      intervals[column] = Interval(*map(float, values), n)
  return intervals


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
  return bootstrap_means(values[:, None], seed, resamples, level, groups)[0]


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
