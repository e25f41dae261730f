"""Bootstrap intervals of means and of paired differences, of lists and of clusters."""

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.evaluate import statistics
from jobrec_jax.evaluate.statistics import bootstrap_mean, paired_difference


def test_agrees_with_scipy():
  values = np.random.default_rng(0).exponential(size=200)
  got = bootstrap_mean(values, seed=1, resamples=10_000)
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
          for i in (bootstrap_mean(s, seed, resamples=400) for seed, s in enumerate(samples))]
  # Skewed samples of 100 cover a little less than 95%; 400 repetitions have an error of about 1.2%.
  assert 0.89 <= np.mean(hits) <= 0.98


def test_clusters_are_drawn_as_one():
  rng = np.random.default_rng(4)
  groups = np.repeat(np.arange(40), 5)
  alone, clustered = [], []
  for seed in range(200):
    values = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=200)
    a = bootstrap_mean(values, seed, resamples=300)
    c = bootstrap_mean(values, seed, resamples=300, groups=groups)
    assert a.value == pytest.approx(c.value) and a.n == c.n == 200
    alone.append(a.low <= 0 <= a.high)
    clustered.append(c.low <= 0 <= c.high)
  assert np.mean(clustered) > 0.87 and np.mean(alone) < 0.75


def test_unequal_clusters_keep_the_mean_over_lists():
  values, groups = np.array([1.0, 1.0, 1.0, 5.0]), np.array(['a', 'a', 'a', 'b'])
  got = bootstrap_mean(values, 0, groups=groups)
  assert got.value == 2.0 and (got.low, got.high) == (1.0, 5.0)


def test_lists_without_a_value_are_left_out():
  values = np.array([1.0, np.nan, 3.0, np.nan])
  assert bootstrap_mean(values, 0) == bootstrap_mean(values[[0, 2]], 0)
  assert bootstrap_mean(values, 0).n == 2
  empty = bootstrap_mean(np.full(3, np.nan), 0)
  assert empty.n == 0 and np.isnan(empty.value)


def test_one_list_has_no_interval():
  got = bootstrap_mean(np.array([0.5]), 0)
  assert got.value == 0.5 and np.isnan(got.low) and np.isnan(got.high)


def test_seed_decides_and_chunks_do_not_matter(monkeypatch):
  values = np.random.default_rng(5).normal(size=50)
  whole = bootstrap_mean(values, 7)
  assert whole == bootstrap_mean(values, 7) and whole != bootstrap_mean(values, 8)
  monkeypatch.setattr(statistics, 'CHUNK', 120)
  np.testing.assert_allclose(bootstrap_mean(values, 7), whole, rtol=1e-12)


def test_pairing_removes_what_lists_share():
  rng = np.random.default_rng(6)
  shared = rng.normal(size=300)
  a, b = shared + 0.1 + 0.1 * rng.normal(size=300), shared + 0.1 * rng.normal(size=300)
  a[0], b[1] = np.nan, np.nan
  got = paired_difference(a, b, 0)
  assert got.n == 298 and got.value == pytest.approx(np.nanmean(a - b))
  assert 0 < got.low < got.value < got.high and got.high - got.low < 0.05


@pytest.mark.parametrize('bad, match', [
    ({'level': 1.0}, 'level'), ({'resamples': 0}, 'resamples'),
    ({'groups': np.zeros(2)}, 'groups')])
def test_bad_arguments_are_named(bad, match):
  with pytest.raises(ValueError, match=match):
    bootstrap_mean(np.arange(3.0), 0, **bad)


def test_different_lists_are_not_paired():
  with pytest.raises(ValueError, match='same lists'):
    paired_difference(np.zeros(3), np.zeros(4), 0)
