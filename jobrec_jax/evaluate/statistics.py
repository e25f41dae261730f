"""Percentile bootstrap intervals over lists, or over clusters of pairs by summed moments."""

from collections.abc import Callable, Iterator
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """How percentile intervals are drawn.

  Attributes:
    seed: of the draws.
    resamples: number of draws.
    level: of the intervals, in (0, 1).

  Raises:
    ValueError: `resamples` or `level` is out of range.

  Reference: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
  """

  seed: int
  resamples: int = 2000
  level: float = 0.95

  def __post_init__(self):
    if self.resamples < 1:
      raise ValueError(f'resamples must be at least 1, got {self.resamples}')
    if not 0 < self.level < 1:
      raise ValueError(f'level must be in (0, 1), got {self.level}')


def bootstrap_sums(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray],
                   how: Bootstrap) -> np.ndarray:
  """Percentile bootstrap of a statistic that depends on its clusters through summed moments.

  Args:
    sums: [G, M], the moments of each cluster; clusters are drawn with replacement.
    statistic: maps summed moments [R, M] to [R, S], row by row.
    how: the draws and the level.

  Returns:
    [3, S] value, low, high; low and high are nan with fewer than two clusters.
  """
  value = statistic(sums.sum(0, keepdims=True))[0]
  g = len(sums)
  if g < 2:
    return np.stack([value, np.full_like(value, np.nan), np.full_like(value, np.nan)])
  draws = [statistic(counts @ sums) for counts in resampled_counts(g, how.seed, how.resamples)]
  tail = (1 - how.level) / 2
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


def bootstrap_means(columns: np.ndarray, how: Bootstrap) -> list[Interval]:
  """The mean of each column over lists, all columns under the same draws.

  Args:
    columns: [N, M], one row for each list; nan (a list without the metric) is left out.
    how: the draws and the level.

  Returns:
    M means with their intervals; nan with n = 0 where no list has a value.
  """
  columns = np.asarray(columns, np.float64)
  if columns.ndim != 2:
    raise ValueError(f'columns must be [N, M], got {columns.shape}')
  there = ~np.isnan(columns)
  intervals: list[Interval | None] = [None] * columns.shape[1]
  patterns, of_column = np.unique(there.T, axis=0, return_inverse=True)
  for i, kept in enumerate(patterns):  # columns that lack the same lists share their draws
    at, n = np.flatnonzero(of_column.ravel() == i), int(kept.sum())
    if n:
      sums = np.concatenate([columns[kept][:, at], np.ones((n, 1))], axis=1)
      estimate = bootstrap_sums(sums, lambda s: s[:, :-1] / s[:, -1:], how)
    else:
      estimate = np.full((3, len(at)), np.nan)
    for column, values in zip(at, estimate.T):
      intervals[column] = Interval(*map(float, values), n)
  return intervals


def bootstrap_mean(values: np.ndarray, how: Bootstrap) -> Interval:
  """The mean over lists with its percentile bootstrap interval.

  Args:
    values: [N], one for each list; nan (a list without the metric) is left out.
    how: the draws and the level.

  Returns:
    The mean over lists and its interval; all nan with n = 0 when no list has a value.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1:
    raise ValueError(f'values must be [N], got {values.shape}')
  return bootstrap_means(values[:, None], how)[0]
