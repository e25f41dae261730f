"""How eligible a policy's recommendations are, and how far predicted eligibility can be trusted."""

import functools
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.ranking import tie_groups
from jobrec_jax.evaluate.statistics import (
    PAIRS,
    Estimate,
    Groups,
    Moments,
    jackknife,
    present,
)
from jobrec_jax.evaluate.values import probability


def policy_probabilities(
    scores: np.ndarray, mask: np.ndarray, temperature: float = 1.0
) -> np.ndarray:
  """The policy over each list, π_j = exp(s_j / T) / Σ_i exp(s_i / T).

  Args:
    scores: [N, J] policy scores s.
    mask: [N, J] bool, False where a list is padded.
    temperature: T > 0.

  Returns:
    [N, J] float64, 0 where masked; rows sum to 1 (to 0 in a list without items).

  Raises:
    ValueError: if T is not positive or an unmasked score is not finite.
  """
  if not temperature > 0:
    raise ValueError(f'temperature must be positive, got {temperature}')
  scores, mask = np.asarray(scores, np.float64), np.asarray(mask, bool)
  bad = mask & ~np.isfinite(scores)
  if bad.any():
    row, item = np.argwhere(bad)[0]
    raise ValueError(f'scores must be finite, got {scores[row, item]} in list {row} at item {item}')
  top = np.max(scores, axis=1, keepdims=True, where=mask, initial=-np.finfo(np.float64).max)
  weight = np.where(mask, np.exp((np.where(mask, scores, top) - top) / temperature), 0.0)
  return weight / np.maximum(weight.sum(1, keepdims=True), 1.0)


def expected_eligibility(pi: np.ndarray, q: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """C of each list, Σ_j π_j q_j: predicted where q is p_qual, true where q is the true Q.

  Args:
    pi: [N, J] policy probabilities.
    q: [N, J] probability that the employer finds the candidate eligible.
    mask: [N, J] bool, False where a list is padded.

  Returns:
    [N] float64; nan for a list without items.

  Raises:
    ValueError: if an unmasked q is no probability.
  """
  mask = np.asarray(mask, bool)
  total = np.sum(np.multiply(pi, probability('q', q, mask), dtype=np.float64), axis=1, where=mask)
  return np.where(mask.any(1), total, np.nan)


def violation_rate_at_k(
    scores: np.ndarray, eligible: np.ndarray, mask: np.ndarray, k: int
) -> np.ndarray:
  """The share of the top k that is not eligible, in expectation over random tie-breaking.

  Args:
    scores: [N, J] policy scores; higher ranks first.
    eligible: [N, J] bool, or the probability Q of being eligible.
    mask: [N, J] bool, False where a list is padded.
    k: cut-off; a shorter list is judged on all of its items.

  Returns:
    [N] float64 in [0, 1]; nan for a list without items.

  Raises:
    ValueError: if k is below 1, an unmasked score is nan or an unmasked `eligible` no probability.
  """
  if k < 1:
    raise ValueError(f'k must be at least 1, got {k}')
  mask = np.asarray(mask, bool)
  violation = np.where(mask, 1 - probability('eligible', eligible, mask), 0.0)
  expected = tie_groups(scores, mask).mean(violation)
  length = mask.sum(1)
  return expected[:, :k].sum(1) / np.where(length > 0, np.minimum(length, k), np.nan)


class Reliability(NamedTuple):
  """Bins of equal mass, in ascending order of prediction, empty ones left out. Arrays are [bins].

  Attributes:
    predicted: the mean prediction in a bin.
    observed: the mean outcome.
    count: the number of pairs.
    share: the share of all weight; the same as count / N where pairs weigh alike.
  """

  predicted: np.ndarray
  observed: np.ndarray
  count: np.ndarray
  share: np.ndarray


def _bins(p, y, weights, groups, bins) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Equal-mass bins of each group: [N] the bin of each pair, [N, 4] its (w p, w y, w, 1), and [B]
  the group of each bin.

  Pairs with the same prediction share a bin (that of their middle), so that the order of the rows
  means nothing; a constant prediction has one bin.
  """
  p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
  weights = np.ones_like(p) if weights is None else np.asarray(weights, np.float64)
  groups = np.asarray(groups)
  if p.ndim != 1 or not len(p) or not p.shape == y.shape == weights.shape == groups.shape:
    raise ValueError('p, y, weights and groups must be [N] alike with N > 0, got '
                     f'{p.shape}, {y.shape}, {weights.shape} and {groups.shape}')
  for name, values in (('p', p), ('y', y)):
    probability(name, values)
  if bins < 1:
    raise ValueError(f'bins must be at least 1, got {bins}')
  if not (np.isfinite(weights) & (weights > 0)).all():
    raise ValueError(f'weights must be positive, got {weights.min()} to {weights.max()}')

  moments = np.stack([weights * p, weights * y, weights, np.ones_like(p)], axis=1)
  group = np.unique(groups, return_inverse=True)[1]
  order = np.lexsort((p, group))
  p, weights, group = p[order], weights[order], group[order]
  new_value = np.r_[True, (p[1:] != p[:-1]) | (group[1:] != group[:-1])]
  tied = np.add.reduceat(weights, np.flatnonzero(new_value))  # one for each (group, value)
  of_value = group[new_value]
  total = np.bincount(of_value, tied)
  before = np.cumsum(total) - total
  middle = (np.cumsum(tied) - tied / 2 - before[of_value]) / total[of_value]
  cell = of_value * bins + np.clip((bins * middle).astype(int), 0, bins - 1)
  cells, cell = np.unique(cell, return_inverse=True)
  bin_of = np.empty(len(p), np.int64)
  bin_of[order] = cell[np.cumsum(new_value) - 1]
  return bin_of, moments, cells // bins


def _bin_sums(p, y, weights, groups, bins) -> tuple[np.ndarray, np.ndarray]:
  """Sums of (w p, w y, w, 1) over equal-mass bins of each group, and the group of each bin."""
  bin_of, moments, group = _bins(p, y, weights, groups, bins)
  return np.stack([np.bincount(bin_of, m) for m in moments.T], axis=1), group


def reliability(
    p: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, bins: int = 15
) -> Reliability:
  """Mean prediction against mean outcome in bins of equal mass.

  Args:
    p: [N] predicted probabilities.
    y: [N] outcomes, 0 or 1, or their true probabilities.
    weights: [N] positive, e.g. inverse propensities that stand for uniform pairs; None weighs all
      pairs alike.
    bins: how many; fewer come back where predictions tie.

  Returns:
    The bins.

  Raises:
    ValueError: if shapes differ, a probability is outside [0, 1], or a weight is not positive.
  """
  sums, _ = _bin_sums(p, y, weights, np.zeros(np.shape(p), int), bins)
  wp, wy, w, count = sums.T
  return Reliability(wp / w, wy / w, count.astype(int), w / w.sum())


def calibration_error(
    p: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, bins: int = 15
) -> float:
  """Expected calibration error, Σ_b share_b |mean p in b − mean y in b|, bins of equal mass.

  With outcomes 0 or 1 the noise of a bin's mean alone gives about sqrt(bins / N) / 2; true
  probabilities have no such floor.

  Args:
    p, y, weights, bins: as in `reliability`.

  Returns:
    The error, in [0, 1].

  Reference: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015.
  """
  r = reliability(p, y, weights, bins)
  return float(np.sum(r.share * np.abs(r.predicted - r.observed)))


def calibration_error_by_group(
    p: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray | None = None,
    bins: int = 5,
) -> np.ndarray:
  """`calibration_error` of each group alone, e.g. each job: overall calibration hides their biases.

  Args:
    p, y, weights: [N], as in `reliability`.
    groups: [N], e.g. job indices.
    bins: in each group; 1 gives |mean p − mean y|.

  Returns:
    [G] errors, in the order of `np.unique(groups)`.
  """
  sums, group = _bin_sums(p, y, weights, groups, bins)
  return (np.bincount(group, np.abs(sums[:, 0] - sums[:, 1]))
          / np.bincount(group, sums[:, 2]))


def calibration_estimates(p: np.ndarray, y: np.ndarray, groups: Groups,
                          job: np.ndarray) -> tuple[Estimate, Estimate]:
  """`calibration_error`, and the mean over jobs of `calibration_error_by_group`, as estimates.

  Bins stay as they are while candidates and jobs are left out.

  Args:
    p, y: [N], as in `reliability`.
    groups: [N] of the pairs' candidates and jobs.
    job: [N] the job of each pair.

  Returns:
    The error over all pairs (`n` counts pairs), and by job (`n` counts jobs).
  """
  found = []
  for of, bins in ((np.zeros(len(p), int), 15), (job, 5)):
    bin_of, moments, group = _bins(p, y, None, of, bins)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    whole = _binned((moments[:, 0] - moments[:, 1], moments[:, 2]), bin_of, groups)
    found += jackknife(whole, functools.partial(_mean_error, starts),
                       len(p) if len(starts) == 1 else len(starts))
  return tuple(found)


def _binned(columns: tuple[np.ndarray, ...], bin_of: np.ndarray, groups: Groups) -> Moments:
  """Sums of columns by bin: as many columns as bins, one after another."""
  bins = bin_of.max() + 1
  sides = [np.concatenate([np.bincount(g * bins + bin_of, c, count * bins).reshape(count, bins)
                           for c in columns], axis=1)
           for g, count in zip((groups.candidate, groups.job, groups.pair),
                               (*groups.counts, PAIRS))]
  return Moments(sides[0].sum(0), *sides, present(groups))


def _mean_error(starts: np.ndarray, sums: np.ndarray) -> np.ndarray:
  """[R, 2 B] sums of w (p − y) and w by bin to [R, 1], the mean over what is left of the groups
  whose bins start at `starts`."""
  gap, weight = np.split(sums, 2, axis=1)
  weight = np.add.reduceat(weight, starts, axis=1)
  error = np.add.reduceat(np.abs(gap), starts, axis=1) / np.where(weight > 0.5, weight, np.nan)
  return np.nanmean(error, axis=1, keepdims=True)
