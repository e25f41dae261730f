"""Runs over training seeds and data seeds, and Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.evaluate.comparison import combine, holm
from jobrec_jax.evaluate.statistics import Estimate, interval


def estimate(value, candidates=(0.1, -0.1), jobs=(0.05, 0.0, -0.05)):
  return Estimate(value, np.array(candidates), np.array(jobs), 10, (len(candidates), len(jobs)))


def test_one_run_is_its_own_interval_and_says_that_seeds_are_not_in_it():
  one = estimate(0.2)
  found = combine([[one]], 0.9)
  assert found[:3] == pytest.approx(interval(one, 0.9)[:3]) and not found.seeds
  variance = 0.02 + 0.005
  df = variance ** 2 / (0.02 ** 2 / 1 + 0.005 ** 2 / 2)
  assert found.p == pytest.approx(2 * stats.t.sf(0.2 / np.sqrt(variance), df))


def test_training_seeds_add_their_variance_and_average_the_datas():
  a, b = estimate(0.1, (0.2, 0.0)), estimate(0.3, (0.0, 0.2))
  found = combine([[a, b]])
  data = (0.01 + 0.01, 1), (0.005, 2)  # of the mean of ψ
  seed = 0.02 / 2, 1
  variance = sum(v for v, _ in (*data, seed))
  df = variance ** 2 / sum(v ** 2 / d for v, d in (*data, seed))
  assert found.value == pytest.approx(0.2) and found.seeds
  half = stats.t.ppf(0.975, df) * np.sqrt(variance)
  assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))


def test_systems_with_seeds_of_their_own_both_add_variance():
  a, b = [estimate(v) for v in (0.1, 0.3, 0.2)], [estimate(v) for v in (0.0, 0.1)]
  found = combine([a], against=[b])
  variance = 0.01 / 3 + 0.005 / 2  # what candidates and jobs move, they move alike
  df = variance ** 2 / ((0.01 / 3) ** 2 / 2 + (0.005 / 2) ** 2 / 1)
  assert found.value == pytest.approx(0.15)
  assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, df) * np.sqrt(variance))
  with pytest.raises(ValueError, match='2 data seeds, got 1'):
    combine([a, a], against=[b])


def test_data_seeds_show_the_greater_of_two_variances():
  near = [[estimate(v)] for v in (0.20, 0.21, 0.22)]
  found = combine(near)
  df = 3 * 0.025 ** 2 * 3 / (3 * (0.02 ** 2 + 0.005 ** 2 / 2))
  half = stats.t.ppf(0.975, df) * np.sqrt(0.025 / 3)
  assert found.high - found.value == pytest.approx(half) and found.seeds
  far = [[estimate(v)] for v in (0.0, 0.5, 1.0)]
  found = combine(far)
  half = stats.t.ppf(0.975, 2) * np.sqrt(0.25 / 3)
  assert found.high - found.value == pytest.approx(half)


def test_equal_runs_are_not_different_and_without_a_variance_nothing_is():
  same = estimate(0.3) - estimate(0.3)
  assert combine([[same, same]])[:4] == (0, 0, 0, 1)
  alone = Estimate(0.3, np.zeros(2), np.zeros(3), 10, (0, 0))
  assert np.isnan(combine([[alone]]).p) and np.isnan(combine([[alone]]).low)
  with pytest.raises(ValueError, match='got none'):
    combine([[]])


def test_holm_by_hand():
  found = holm([0.01, 0.04, np.nan, 0.03, 0.5])
  np.testing.assert_allclose(found, [0.04, 0.09, np.nan, 0.09, 0.5])
  np.testing.assert_allclose(holm([0.6, 0.7]), [1.0, 1.0])
  assert holm([]).size == 0
