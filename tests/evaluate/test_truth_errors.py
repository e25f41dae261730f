"""Rank correlations and parts of errors, against SciPy and against what is drawn."""

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.evaluate import truth_errors
from jobrec_jax.evaluate.statistics import Groups, interval
from jobrec_jax.evaluate.truth_errors import spearman, variance_parts


@pytest.mark.parametrize('levels', [2, 4, 1000])
def test_rank_correlation_with_and_without_every_item(levels, monkeypatch):
  monkeypatch.setattr(truth_errors, 'AT_ONCE', 200)  # a few lists at a time
  rng = np.random.default_rng(levels)
  x, y = rng.integers(0, levels, (2, 7, 9)) * 0.37
  whole, without = spearman(x, y)
  for n in range(len(x)):
    def by_scipy(keep, n=n):
      a, b = x[n][keep], y[n][keep]
      return np.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else stats.spearmanr(a, b)[0]
    assert whole[n] == pytest.approx(by_scipy(np.ones(9, bool)), nan_ok=True)
    for i in range(9):
      assert without[n, i] == pytest.approx(by_scipy(np.arange(9) != i), nan_ok=True)


def test_a_constant_score_has_no_rank_correlation():
  whole, without = spearman(np.ones((1, 4)), np.arange(4.0)[None])
  assert np.isnan(whole).all() and np.isnan(without).all()


def grid(candidates, jobs):
  u, j = (x.ravel() for x in np.indices((candidates, jobs)))
  return u, j, Groups(u, j, (candidates, jobs))


def drawn(rng, candidates, jobs, spread=(1.0, 0.5, 0.7)):
  a, b, c = spread
  return (a * rng.normal(size=(candidates, 1)) + b * rng.normal(size=jobs)
          + c * rng.normal(size=(candidates, jobs)) + 0.3)


def test_parts_of_a_whole_grid_are_those_of_the_analysis_of_variance():
  rng = np.random.default_rng(0)
  e = drawn(rng, 6, 9)
  u, j, groups = grid(6, 9)
  mean, candidate, job, pair = (x.value for x in variance_parts(e.ravel(), groups, u, j))
  rest = e - e.mean(1, keepdims=True) - e.mean(0) + e.mean()
  within = (rest ** 2).sum() / (5 * 8)
  assert mean == pytest.approx(e.mean()) and pair == pytest.approx(within)
  assert candidate == pytest.approx(e.mean(1).var(ddof=1) - within / 9)
  assert job == pytest.approx(e.mean(0).var(ddof=1) - within / 6)


def test_parts_are_unbiased_on_grids_with_gaps_and_their_intervals_hold():
  rng = np.random.default_rng(1)
  truth = np.array([0.3, 1.0, 0.25, 0.49])
  found, held = [], 0
  for _ in range(60):
    e = drawn(rng, 25, 20)
    u, j, _ = grid(25, 20)
    keep = rng.random(len(u)) < 0.8
    groups = Groups(u[keep], j[keep], (25, 20))
    parts = variance_parts(e.ravel()[keep], groups, u[keep], j[keep])
    found.append([x.value for x in parts])
    held += np.array([interval(x).low <= t <= interval(x).high for x, t in zip(parts, truth)])
  error = np.std(found, axis=0) / np.sqrt(60)
  np.testing.assert_array_less(abs(np.mean(found, 0) - truth), 3 * error)
  assert (held >= 50).all()


def test_every_candidate_and_job_is_left_out():
  e = drawn(np.random.default_rng(2), 5, 4)
  u, j, groups = grid(5, 4)
  found = variance_parts(e.ravel(), groups, u, j)
  for side, count in (('candidates', 5), ('jobs', 4)):
    index = u if side == 'candidates' else j
    for part in range(4):
      left = []
      for g in range(count):
        keep = index != g
        some = variance_parts(e.ravel()[keep], groups._replace(
            candidate=u[keep], job=j[keep]), u[keep], j[keep])
        left.append(some[part].value)
      np.testing.assert_allclose(getattr(found[part], side), np.sqrt((count - 1) / count)
                                 * (np.array(left) - np.mean(left)), atol=1e-10)


def test_one_job_has_no_parts():
  u, j, groups = grid(3, 1)
  mean, *parts = variance_parts(np.arange(3.0), groups, u, j)
  assert mean.value == 1 and all(np.isnan(x.value) for x in parts)
