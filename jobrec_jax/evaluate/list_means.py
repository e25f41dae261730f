"""Means over lists as estimates: what leaves with the owner of a list, and with its items."""

from collections.abc import Callable, Sequence

import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.statistics import PAIRS, Estimate, Groups, Moments, jackknife


class ListMeans:
  """Means of metrics over lists, added some lists at a time.

  Leaving out whom a list is of takes the list away; leaving out an item changes the metric of every
  list that holds it. Where a group holds several items of a list, their changes add up. What is a
  pair's own is how its leaving differs from that of the list's other pairs: whatever all pairs of a
  list share is the list's.

  Args:
    groups: of the data set's candidates and jobs.
  """

  def __init__(self, groups: Groups):
    self._groups = groups
    self._values: dict[str, list[np.ndarray]] = {}
    self._shares: dict[str, list[np.ndarray]] = {}  # [Gu, 2], [Gj, 2], [Gp, 2] of sum and count
    self._present = [np.zeros(count, bool) for count in groups.counts]

  def add(self, lists: RankingLists, values: dict[str, np.ndarray],
          without: dict[str, np.ndarray]) -> None:
    """Adds lists.

    Args:
      lists: N of them.
      values: [N] by metric; nan (a list without the metric) is left out.
      without: [N, J] by metric, without each item; nan where no metric is left.
    """
    groups, counts = self._groups.of(lists.candidate, lists.job), (*self._groups.counts, PAIRS)
    own, item, sides = groups.candidate, groups.job, [0, 1]  # candidates own lists of jobs
    if lists.centre == 'job':
      own, item, sides = item, own, [1, 0]
    own, item, pair = own[:, 0], item[lists.mask], groups.pair[lists.mask]
    for side, group in zip(sides, (own, item)):
      self._present[side][group] = True
    for name, value in values.items():
      there, kept = ~np.isnan(value), without[name]
      left = ~np.isnan(kept)
      change = np.where(there, value, 0.0)[:, None] - np.where(left, kept, 0.0)
      fewer = there[:, None].astype(np.float64) - left
      taken = {sides[0]: (own, np.where(there, value, 0.0), there.astype(np.float64)),
               sides[1]: (item, change[lists.mask], fewer[lists.mask]),
               2: (pair, *(_centred(x, lists.mask)[lists.mask] for x in (change, fewer)))}
      shares = self._shares.setdefault(name, [np.zeros((g, 2)) for g in counts])
      for side, (group, *columns) in taken.items():
        for c, column in enumerate(columns):
          shares[side][:, c] += np.bincount(group, column, counts[side])
      self._values.setdefault(name, []).append(value)

  @property
  def values(self) -> dict[str, np.ndarray]:
    """[N] of every list, by metric."""
    return {name: np.concatenate(parts) for name, parts in self._values.items()}

  def estimates(self) -> dict[str, Estimate]:
    """The mean of each metric; nan with n = 0 where no list has a value."""
    return {name: self.statistic([name], lambda m: m)[0] for name in self._values}

  def statistic(self, names: Sequence[str],
                of_means: Callable[[np.ndarray], np.ndarray]) -> list[Estimate]:
    """Estimates of what follows from the means of several metrics.

    Args:
      names: of M metrics.
      of_means: maps means [R, M] to statistics [R, S], row by row.

    Returns:
      S estimates; `n` is the least number of lists behind a mean.
    """
    total = self._total(names)
    shares = (np.concatenate([self._shares[name][side] for name in names], axis=1)
              for side in range(3))
    moments = Moments(total, *shares, tuple(self._present))
    return jackknife(moments, lambda m: of_means(_means(m)), int(total[1::2].min()))

  def _total(self, names: Sequence[str]) -> np.ndarray:
    """[2 M] the sum and the count of each metric, one after another."""
    values = (np.concatenate(self._values[name]) for name in names)
    return np.array([x for v in values for x in (np.nansum(v), (~np.isnan(v)).sum())], np.float64)


def _means(moments: np.ndarray) -> np.ndarray:
  """[R, 2 M] sums and counts to means [R, M]; nan where nothing is counted."""
  count = moments[:, 1::2]
  return moments[:, ::2] / np.where(count > 0.5, count, np.nan)


def _centred(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """[N, J] without the mean of each list's real items."""
  mean = np.sum(x, axis=1, where=mask, keepdims=True) / np.maximum(mask.sum(1, keepdims=True), 1)
  return x - mean
