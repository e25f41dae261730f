"""Eligibility, violations and calibration error against plain loops."""

import itertools

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from scipy.special import softmax

from jobrec_jax.evaluate.eligibility import (
  calibration_error,
  calibration_error_by_group,
  calibration_estimates,
  expected_eligibility,
  policy_probabilities,
  reliability,
  violation_rate_at_k,
)
from jobrec_jax.evaluate.statistics import Groups


def test_policy_is_a_softmax_over_the_real_items():
  rng = np.random.default_rng(0)
  scores = 30 * rng.normal(size=(4, 6))
  mask = rng.random((4, 6)) < 0.7
  mask[:, 0], mask[3] = True, False
  scores[0, ~mask[0]] = np.nan
  pi = policy_probabilities(scores, mask, temperature=0.5)
  for n in range(3):
    np.testing.assert_allclose(pi[n, mask[n]], softmax(scores[n, mask[n]] / 0.5), atol=1e-15)
  assert (pi[~mask] == 0).all()


def test_expected_eligibility_of_limits():
  scores, q = np.array([[0.0, 1.0, 2.0]] * 2), np.array([[0.1, 0.2, 0.9]] * 2)
  mask = np.array([[True, True, True], [True, True, False]])
  cold = expected_eligibility(policy_probabilities(scores, mask, 1e-3), q, mask)
  hot = expected_eligibility(policy_probabilities(scores, mask, 1e6), q, mask)
  np.testing.assert_allclose(cold, [0.9, 0.2], atol=1e-6)
  np.testing.assert_allclose(hot, [0.4, 0.15], atol=1e-6)
  assert np.isnan(expected_eligibility(np.zeros((1, 3)), q[:1], np.zeros((1, 3), bool)))


def test_policy_rejects_bad_scores_and_temperatures():
  with pytest.raises(ValueError, match='nan in list 1 at item 0'):
    policy_probabilities(np.array([[0.0], [np.nan]]), np.ones((2, 1), bool))
  with pytest.raises(ValueError, match='temperature'):
    policy_probabilities(np.zeros((1, 1)), np.ones((1, 1), bool), 0.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.3, 1.0]), st.booleans()),
                min_size=1, max_size=5), st.integers(1, 6))
def test_violation_rate_is_the_mean_over_tie_breakings(items, k):
  scores, eligible, mask = (np.array([[i[c] for i in items]]) for c in range(3))
  real = np.flatnonzero(mask[0])
  got = violation_rate_at_k(scores, eligible, mask, k)[0]
  if not len(real):
    assert np.isnan(got)
    return
  rates = [np.mean([1 - eligible[0, i] for i in order[:k]])
           for order in itertools.permutations(real)
           if all(scores[0, a] >= scores[0, b] for a, b in itertools.pairwise(order))]
  np.testing.assert_allclose(got, np.mean(rates), atol=1e-12)


def test_calibration_error_equals_a_loop_over_sorted_bins():
  rng = np.random.default_rng(1)
  p = rng.random(600)
  y = rng.random(600) < p ** 2
  order = np.argsort(p)
  expected = sum(abs(p[b].mean() - y[b].mean()) * len(b) / 600 for b in np.split(order, 15))
  assert calibration_error(p, y) == pytest.approx(expected)


def test_true_probabilities_are_calibrated_and_shifted_ones_are_off_by_the_shift():
  p = np.random.default_rng(2).uniform(0.2, 0.7, 5000)
  assert calibration_error(p, p) == pytest.approx(0)
  assert calibration_error(p, p + 0.25) == pytest.approx(0.25)


def test_bins_hold_equal_mass_and_ties_share_a_bin():
  p = np.random.default_rng(3).random(300)
  r = reliability(p, p, bins=10)
  np.testing.assert_array_equal(r.count, 30)
  np.testing.assert_allclose(r.predicted, np.sort(p).reshape(10, 30).mean(1))
  constant = reliability(np.full(100, 0.4), np.arange(100) < 30)
  assert constant.count.tolist() == [100]
  np.testing.assert_allclose([constant.predicted[0], constant.observed[0]], [0.4, 0.3])
  # An order of the rows that sorts outcomes within a tie must not matter.
  tied, y = np.repeat([0.2, 0.6], 50), np.random.default_rng(4).random(100) < 0.5
  shuffle = np.random.default_rng(5).permutation(100)
  assert calibration_error(tied, y) == pytest.approx(calibration_error(tied[shuffle], y[shuffle]))


def test_weights_stand_for_repeated_pairs():
  rng = np.random.default_rng(6)
  p, y, times = rng.random(40), rng.random(40), rng.integers(1, 5, 40)
  weighted = reliability(p, y, times, 6)
  repeated = reliability(*np.repeat([p, y], times, axis=1), bins=6)
  for name in ('predicted', 'observed', 'share'):
    np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name))
  assert weighted.count.sum() == 40


def test_by_group_equals_each_group_alone():
  rng = np.random.default_rng(7)
  p, y, w = rng.random((3, 500))
  groups = rng.choice([3, 11, 12, 40], 500)
  expected = [calibration_error(p[groups == g], y[groups == g], w[groups == g], 4)
              for g in (3, 11, 12, 40)]
  np.testing.assert_allclose(calibration_error_by_group(p, y, groups, w, 4), expected)


def test_biases_of_jobs_that_cancel_overall_show_by_group():
  rng = np.random.default_rng(8)
  jobs = np.repeat(np.arange(2), 3000)
  p = np.tile(rng.uniform(0.3, 0.7, 3000), 2)
  y = p + np.where(jobs == 0, 0.2, -0.2)
  assert calibration_error(p, y) < 0.02
  np.testing.assert_allclose(calibration_error_by_group(p, y, jobs), 0.2)


@pytest.mark.parametrize('change, match', [
    ({'p': np.array([0.1, 1.2])}, 'p must be'), ({'y': np.array([np.nan, 0.0])}, 'y must be'),
    ({'weights': np.array([1.0, 0.0])}, 'weights'), ({'bins': 0}, 'bins'),
    ({'y': np.zeros(3)}, 'alike')])
def test_bad_arguments_are_named(change, match):
  with pytest.raises(ValueError, match=match):
    calibration_error(**({'p': np.array([0.1, 0.2]), 'y': np.array([0.0, 1.0])} | change))


def test_calibration_estimates_leave_out_candidates_and_jobs_from_bins_that_stay():
  rng = np.random.default_rng(7)
  u, j = (x.ravel() for x in np.indices((20, 6)))
  p, y = rng.random(120), rng.random(120)
  whole, by_job = calibration_estimates(p, y, Groups(u, j, (20, 6)), j)
  assert whole.value == pytest.approx(calibration_error(p, y)) and whole.n == 120
  assert by_job.value == pytest.approx(calibration_error_by_group(p, y, j).mean())
  assert by_job.n == 6 and by_job.groups == whole.groups == (20, 6)
  bins = np.empty(120, int)
  bins[np.argsort(p)] = np.arange(120) // 8
  job_bins = np.empty(120, int)
  for job in range(6):
    job_bins[j == job] = np.argsort(np.argsort(p[j == job])) // 4

  def error(keep, cells):
    gaps = [abs((p - y)[keep & (cells == b)].sum()) for b in np.unique(cells[keep])]
    return sum(gaps) / keep.sum()
  for index, psi, job_psi in ((u, whole.candidates, by_job.candidates),
                              (j, whole.jobs, by_job.jobs)):
    left_out, job_left_out = [], []
    for e in range(index.max() + 1):
      keep = index != e
      left_out.append(error(keep, bins))
      job_left_out.append(np.mean([error(keep & (j == job), job_bins)
                                   for job in np.unique(j[keep])]))
    for found, values in ((psi, left_out), (job_psi, job_left_out)):
      g = len(values)
      np.testing.assert_allclose(
          found, np.sqrt((g - 1) / g) * (values - np.mean(values)), atol=1e-12)
