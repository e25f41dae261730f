"""Bootstrap intervals of means, of lists and of clusters."""

import re

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.evaluate import statistics
from jobrec_jax.evaluate.statistics import (
    Bootstrap,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_sums,
)


def test_agrees_with_scipy():
  values = np.random.default_rng(0).exponential(size=200)
  got = bootstrap_mean(values, Bootstrap(1, 10_000))
  reference = stats.bootstrap((values,), np.mean, method='percentile', n_resamples=10_000,
                              rng=np.random.default_rng(2)).confidence_interval
  assert got.value == pytest.approx(values.mean()) and got.n == 200
  # Two sets of draws: their end points differ by a few hundredths of the standard error.
  se = values.std() / np.sqrt(200)
  assert abs(got.low - reference.low) < 0.15 * se and abs(got.high - reference.high) < 0.15 * se


def test_interval_covers_the_mean_as_often_as_it_says():
  rng = np.random.default_rng(3)
  samples = rng.exponential(size=(400, 100))
  hits = [i.low <= 1.0 <= i.high
          for i in (bootstrap_mean(s, Bootstrap(seed, 400)) for seed, s in enumerate(samples))]
  # Skewed samples of 100 cover a little less than 95%; 400 repetitions have an error of about 1.2%.
  assert 0.89 <= np.mean(hits) <= 0.98


def test_clusters_are_drawn_as_one():
  rng = np.random.default_rng(4)
  groups = np.repeat(np.arange(40), 5)
  alone, clustered = [], []
  for seed in range(200):
    values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
    a = bootstrap_mean(values, Bootstrap(seed, 300))
    sums = np.stack([np.bincount(groups, values), np.bincount(groups)], 1)
    value, low, high = bootstrap_sums(sums, lambda s: s[:, :1] / s[:, 1:], Bootstrap(seed, 300))
    assert a.value == pytest.approx(value.item()) and a.n == 200
    alone.append(a.low <= 0 <= a.high)
    clustered.append(low <= 0 <= high)
  assert np.mean(clustered) > 0.87 and np.mean(alone) < 0.75


def test_unequal_clusters_keep_the_mean_over_lists():
  sums = np.array([[3.0, 3.0], [5.0, 1.0]])  # three lists of 1.0, and one of 5.0
  got = bootstrap_sums(sums, lambda s: s[:, :1] / s[:, 1:], Bootstrap(0))
  np.testing.assert_array_equal(got.ravel(), [2.0, 1.0, 5.0])


def test_lists_without_a_value_are_left_out():
  values = np.array([1.0, np.nan, 3.0, np.nan])
  assert bootstrap_mean(values, Bootstrap(0)) == bootstrap_mean(values[[0, 2]], Bootstrap(0))
  assert bootstrap_mean(values, Bootstrap(0)).n == 2
  empty = bootstrap_mean(np.full(3, np.nan), Bootstrap(0))
  assert empty.n == 0 and np.isnan(empty.value)


def test_one_list_has_no_interval():
  got = bootstrap_mean(np.array([0.5]), Bootstrap(0))
  assert got.value == 0.5 and np.isnan(got.low) and np.isnan(got.high)


def test_seed_decides_and_chunks_do_not_matter(monkeypatch):
  values = np.random.default_rng(5).normal(size=50)
  whole = bootstrap_mean(values, Bootstrap(7))
  assert whole == bootstrap_mean(values, Bootstrap(7))
  assert whole != bootstrap_mean(values, Bootstrap(8))
  monkeypatch.setattr(statistics, 'CHUNK', 120)
  np.testing.assert_allclose(bootstrap_mean(values, Bootstrap(7)), whole, rtol=1e-12)


@pytest.mark.parametrize('bad, match', [
    ({'level': 1.0}, r'level must be in \(0, 1\), got 1.0'),
    ({'level': 0.0}, r'level must be in \(0, 1\), got 0.0'),
    ({'resamples': 0}, 'resamples must be at least 1, got 0')])
def test_bad_arguments_are_named(bad, match):
  with pytest.raises(ValueError, match=match):
    Bootstrap(0, **bad)


@pytest.mark.parametrize('function, shape', [(bootstrap_mean, (3, 1)), (bootstrap_means, (3,))])
def test_bad_shapes_are_named(function, shape):
  with pytest.raises(ValueError, match=r'must be \[N.*got ' + re.escape(str(shape))):
    function(np.zeros(shape), Bootstrap(0))
