"""Estimates over training seeds and data seeds, and how many tests at once are kept honest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jobrec_jax.evaluate.statistics import Estimate, half_width, satterthwaite
from jobrec_jax.evaluate.values import probability


class Combined(NamedTuple):
  """A mean over runs.

  Attributes:
    value: the mean.
    low, high: its interval; nan where nothing tells how far chance moves it.
    p: of the t test that the true value is 0; nan where there is no interval.
    seeds: whether the spread over training seeds is in it.
  """

  value: float
  low: float
  high: float
  p: float
  seeds: bool


class _OverSeeds(NamedTuple):
  """The runs of one data seed: their mean as an estimate, and the variance over training seeds."""

  mean: Estimate
  variances: list[tuple[float, float]]  # of training seeds; empty with one

  @property
  def variance(self) -> tuple[float, float]:
    return satterthwaite([self.mean.variance, *self.variances])


def combine(estimates: Sequence[Sequence[Estimate]], level: float = 0.95,
            against: Sequence[Sequence[Estimate]] | None = None) -> Combined:
  """The mean over D data seeds of the mean over training seeds, with its interval and test.

  Within a data seed, V = V_data + V_seed: V_data of the mean of ψ over its runs (candidates and
  jobs are the same for all of them), V_seed = s² / S of their S values. Over data seeds, whose
  markets are drawn anew, the means themselves show their variance, training data included:
  V = max(their s², mean V) / D, with D − 1 degrees of freedom where s² is the greater, else those
  of the V together (Satterthwaite). Where s² is the greater two data seeds show next to nothing.

  Args:
    estimates: of each data seed its runs', e.g. paired differences of two systems.
    level: of the interval.
    against: the rival's, of the same data seeds in the same order, where its runs are not paired
      with these: both systems' training seeds then add their variance.

  Returns:
    Value, interval and p. With one training seed for a data seed, and one data seed, they hold for
    these trained models alone (`seeds` is False).

  Raises:
    ValueError: there is no estimate, or the two are not of as many data seeds.
  """
  if not estimates or not all(estimates):
    raise ValueError('combine needs an estimate of each data seed, got none')
  by_data = [_over_seeds(of_one) for of_one in estimates]
  if against is not None:
    if len(against) != len(estimates):
      raise ValueError(f'against must be of {len(estimates)} data seeds, got {len(against)}')
    by_data = [_OverSeeds(a.mean - b.mean, a.variances + b.variances)
               for a, b in zip(by_data, map(_over_seeds, against))]
  means = np.array([d.mean.value for d in by_data])
  variance, df = _over_data(means, [d.variance for d in by_data])
  value, half = float(means.mean()), half_width(variance, df, level)
  seeds = len(means) > 1 or all(d.variances for d in by_data)
  return Combined(value, value - half, value + half, two_sided(value, variance, df), seeds)


def _over_seeds(estimates: Sequence[Estimate]) -> _OverSeeds:
  values = np.array([e.value for e in estimates])
  candidates, jobs, pairs = (np.mean([getattr(e, side) for e in estimates], 0)
                             for side in ('candidates', 'jobs', 'pairs'))
  groups = tuple(max(e.groups[i] for e in estimates) for i in (0, 1))
  n = min(e.n for e in estimates)
  mean = Estimate(float(values.mean()), candidates, jobs, n, groups, pairs)
  s = len(values)
  return _OverSeeds(mean, [(float(values.var(ddof=1)) / s, s - 1.0)] if s > 1 else [])


def _over_data(means: np.ndarray, within: list[tuple[float, float]]) -> tuple[float, float]:
  """The variance of the mean over data seeds, and its degrees of freedom."""
  d = len(means)
  variance, df = satterthwaite(within)
  variance /= d ** 2
  if d == 1:
    return variance, df
  between = float(means.var(ddof=1)) / d
  return (variance, df) if variance >= between else (between, d - 1.0)  # nan is not greater


def two_sided(value: float, variance: float, df: float) -> float:
  """The p-value of a t test against 0; 1 where value and variance are 0, nan without a variance."""
  if variance == 0:
    return float(value == 0)
  return float(2 * stats.t.sf(abs(value) / np.sqrt(variance), df))


def holm(p: Sequence[float]) -> np.ndarray:
  """p-values adjusted for their number: all below α are wrong together with probability α at most.

  Sorted, p_(i) becomes max over k ≤ i of (m − k + 1) p_(k), at most 1.

  Args:
    p: [m] p-values; nan (no test) is not counted and stays.

  Raises:
    ValueError: another p lies outside of [0, 1].

  Reference: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
  """
  p = np.asarray(p, np.float64)
  probability('p', p, ~np.isnan(p))
  adjusted, tested = np.full(p.shape, np.nan), np.flatnonzero(~np.isnan(p))
  order = tested[np.argsort(p[tested], kind='stable')]
  steps = p[order] * np.arange(len(order), 0, -1)
  adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
  return adjusted
