"""How much of a catalogue is shown, and how evenly, on lists that are counted by hand."""

import numpy as np
import pytest

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.exposure import exposure_estimates, gini, in_top
from jobrec_jax.evaluate.statistics import Groups


def test_ties_share_the_last_places():
  scores = np.array([[3.0, 1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 9.0, 9.0, 9.0]])
  mask = np.array([[True] * 5, [True, True, False, False, False]])
  found = in_top(scores, mask, 3)
  np.testing.assert_allclose(found, [[1, 2 / 3, 2 / 3, 2 / 3, 0], [1, 1, 0, 0, 0]])


@pytest.mark.parametrize('amounts, known', [
    ([[2.0, 2.0, 2.0]], 0.0), ([[0.0, 0.0, 5.0]], 2 / 3), ([[1.0, 2.0, 3.0]], 2 / 9),
    ([[np.nan, 0.0, 4.0]], 0.5), ([[0.0, 0.0, 0.0]], np.nan)])
def test_gini(amounts, known):
  assert gini(np.array(amounts))[0] == pytest.approx(known, nan_ok=True)


def test_a_job_that_ties_for_a_place_is_covered_by_half():
  u, j = np.indices((2, 3))
  lists = RankingLists('preference', u, j, np.zeros(u.shape, bool), np.ones(u.shape, bool))
  groups = Groups(np.arange(2), np.arange(3), (2, 3))
  coverage, _ = exposure_estimates(lists, np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]), 1, groups)
  assert coverage.value == pytest.approx((0.5 + 0.75 + 0.5) / 3)
  assert coverage.candidates[0] ** 2 == pytest.approx(0)  # without either, a third is covered


def test_coverage_and_exposure_with_and_without_every_candidate():
  rng = np.random.default_rng(0)
  u, j = np.indices((6, 8))
  scores = rng.normal(size=(6, 8)) + 2.0 * rng.normal(size=8)
  lists = RankingLists('preference', u, j, np.zeros(u.shape, bool), np.ones(u.shape, bool))
  groups = Groups(np.arange(6), np.arange(8), (6, 8))

  def by_hand(rows):
    count = np.bincount(np.argsort(-scores[rows], axis=1)[:, :2].ravel(), minlength=8)
    return (count > 0).mean(), abs(count[:, None] - count).sum() / (16 * count.sum())
  found = exposure_estimates(lists, scores, 2, groups)
  for estimate, known, i in zip(found, by_hand(np.arange(6)), range(2)):
    left = np.array([by_hand(np.arange(6) != g)[i] for g in range(6)])
    assert estimate.value == pytest.approx(known) and estimate.n == 6
    np.testing.assert_allclose(estimate.candidates,
                               np.sqrt(5 / 6) * (left - left.mean()), atol=1e-12)
    assert len(estimate.jobs) == 8 and (abs(estimate.pairs) < 1e-12).all()
