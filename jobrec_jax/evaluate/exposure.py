"""Whom recommendations show: how much of the catalogue, and how evenly."""

import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.ranking import tie_groups
from jobrec_jax.evaluate.statistics import PAIRS, Estimate, Groups, Moments, jackknife

NEVER = 1e-300  # the chance that a list misses a job that it always shows


def in_top(scores: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
  """The chance that each item is among the top k of its list, over random tie-breaking.

  Args:
    scores: [N, J]; higher ranks first.
    mask: [N, J] bool, False where a list is padded.
    k: cut-off.

  Returns:
    [N, J], 0 where masked.
  """
  groups = tie_groups(scores, mask)
  share = np.clip((k - groups.start) / (groups.end - groups.start), 0, 1)
  found = np.empty(share.shape)
  np.put_along_axis(found, groups.order, share, axis=1)
  return np.where(mask, found, 0.0)


def gini(amounts: np.ndarray) -> np.ndarray:
  """The Gini coefficient of each row, 0 for even amounts and (n − 1) / n where one has all.

    G = Σ_i (2 i − n − 1) x_(i) / (n Σ x),  x ascending.

  Args:
    amounts: [R, n] at least 0; nan does not count.

  Returns:
    [R]; nan where the amounts add up to 0.
  """
  x = np.sort(np.asarray(amounts, np.float64), axis=1)  # nan come last
  n = (~np.isnan(x)).sum(1, keepdims=True)
  weights = 2 * np.arange(1, x.shape[1] + 1) - n - 1
  total = np.nansum(x, axis=1)
  return np.nansum(weights * x, axis=1) / (n[:, 0] * np.where(total > 0, total, np.nan))


def exposure_estimates(lists: RankingLists, scores: np.ndarray, k: int,
                       groups: Groups) -> tuple[Estimate, Estimate]:
  """Catalogue coverage of the top k, and the Gini coefficient of exposure over jobs.

  Coverage is the share of the jobs in these lists that some list recommends; a job's exposure is
  how many do. Both are in expectation over random tie-breaking. A job that is left out leaves the
  catalogue; the places that it held are not filled again. What is a pair's own is not taken off, so
  that intervals are wide rather than narrow.

  Args:
    lists: N of candidates.
    scores: [N, J] of them.
    k: cut-off.
    groups: of the data set's candidates and jobs.
  """
  jobs, column = np.unique(lists.job[lists.mask], return_inverse=True)
  of, size = groups.of(lists.candidate[lists.mask], lists.job[lists.mask]), len(jobs)
  shown = in_top(scores, lists.mask, k)[lists.mask]
  missed = np.log(np.maximum(1 - shown, NEVER))
  sides, there = [], []
  for group, count in zip((of.candidate, of.job), groups.counts):
    cell = group * size + column
    sides.append(np.concatenate([
        np.bincount(cell, weights, count * size).reshape(count, size)
        for weights in (shown, missed, None)], axis=1))
    there.append(np.bincount(group, minlength=count) > 0)
  moments = Moments(sides[0].sum(0), *sides, np.zeros((PAIRS, 3 * size)), tuple(there))

  def statistic(sums: np.ndarray) -> np.ndarray:
    exposed, missed, listed = np.split(sums, 3, axis=1)
    there = listed > 0.5
    covered = (-np.expm1(np.minimum(missed, 0)) * there).sum(1) / there.sum(1)
    return np.stack([covered, gini(np.where(there, np.maximum(exposed, 0.0), np.nan))], axis=1)
  return tuple(jackknife(moments, statistic, len(lists)))
