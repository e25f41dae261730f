"""The exact frontier, and the policies beside it."""

import numpy as np
import pytest
from scipy.special import softmax

from jobrec_jax.evaluate.frontier import (
    FrontierLists,
    exact_frontier,
    frontier_points,
    frontier_volume,
)
from jobrec_jax.lagrangian.exact import solve_dual


@pytest.fixture(scope='module')
def lists():
  rng = np.random.default_rng(0)
  mask = np.ones((30, 8), bool)
  mask[:5, 6:] = False
  return FrontierLists(rng.normal(size=(30, 8)) * 2, rng.uniform(size=(30, 8)), mask,
                       rng.integers(0, 6, 30))


@pytest.mark.parametrize('objective', ['expected_score', 'info_nce'])
def test_points_beside_the_exact_solution(lists, objective):
  tilted = [('tilt', tau, lists.preference + slope * lists.q)
            for tau, slope in ((0.55, 1.0), (0.7, 4.0))]
  noisy = ('noisy', 0.7, tilted[1][2] + np.random.default_rng(1).normal(size=(30, 8)))
  points = frontier_points([*tilted, noisy], lists, 0.75, objective=objective)
  assert [(p.system, p.tau) for p in points] == [
      ('tilt', 0.55), ('tilt', 0.7), ('noisy', 0.7), ('exact dual', 0.55), ('exact dual', 0.7)]
  pi = softmax(np.where(lists.mask, tilted[0][2], -np.inf), axis=-1)
  first = points[0]
  np.testing.assert_allclose(first.reached, (pi * lists.q).sum(-1).mean())
  np.testing.assert_allclose(first.info_nce,
                             -np.log(pi[np.arange(30), lists.positive]).mean())
  assert all(p.regret > -1e-9 for p in points)
  if objective == 'expected_score':  # a tilt by mu q is the exact solution at its own C
    assert points[0].regret < 1e-6 and points[1].regret < 1e-6
  assert points[2].regret > 0.01
  best = solve_dual(lists.preference, lists.q, lists.mask, np.array([0.7]), objective=objective)
  np.testing.assert_allclose((points[-1].reached, points[-1].value),
                             (best.reached[0, 0], best.primal[0, 0]), rtol=1e-6)
  volume = frontier_volume(points[-2:], lists, objective=objective)
  worse = points[-1]._replace(reached=points[-1].reached - 0.01, value=points[-1].value - 0.1)
  assert frontier_volume([*points[-2:], worse], lists, objective=objective) == volume > 0


@pytest.mark.parametrize('T', [0.5, 1.0])
def test_volume_is_above_what_the_uniform_policy_reaches(lists, T):
  """Of one policy it is one rectangle; entropies by hand."""
  scores = lists.preference + 2 * lists.q
  (point,) = frontier_points([('tilt', 0.5, scores)], lists, 0.75, objective='expected_score',
                             temperature=T)[:1]
  count = lists.mask.sum(1)
  J, C = ((np.where(lists.mask, x, 0).sum(1) / count).mean()
          for x in (lists.preference, lists.q))
  J += (T * np.log(count)).mean()
  pi = softmax(np.where(lists.mask, scores / T, -np.inf), axis=-1)
  entropy = -(pi * np.log(np.where(pi > 0, pi, 1))).sum(1)
  assert point.value == pytest.approx(((pi * lists.preference).sum(1) + T * entropy).mean())
  volume = frontier_volume([point], lists, objective='expected_score', temperature=T)
  assert volume == pytest.approx((point.value - J) * (point.reached - C)) and volume > 0


def test_where_no_requirement_costs_anything_regret_is_no_share(lists):
  free = lists.preference
  (noisy, *_) = frontier_points([('noisy', 0.1, free + 1.0 * lists.q)], lists, 0.1,
                                objective='expected_score')
  assert np.isnan(noisy.regret) and np.isfinite(noisy.value)


def test_a_requirement_out_of_reach_has_no_exact_point(lists):
  points = frontier_points([('free', 0.99, lists.preference)], lists, 0.7,
                           objective='expected_score')
  assert [p.system for p in points] == ['free'] and abs(points[0].regret) < 1e-9


@pytest.mark.parametrize('objective', ['expected_score', 'info_nce'])
def test_no_policy_lies_above_the_exact_frontier(lists, objective):
  curve = exact_frontier(lists, 0.3, 0.8, objective=objective)
  np.testing.assert_allclose(curve[:, 0], np.linspace(0.3, 0.8, 60), atol=1e-8)
  assert (np.diff(curve[:, 1], 2) < 1e-9).all()  # concave
  rng = np.random.default_rng(2)
  systems = [('any', 0.5, lists.preference + rng.uniform(0, 6) * lists.q
              + rng.normal(size=lists.q.shape)) for _ in range(50)]
  for p in frontier_points(systems, lists, 0.7, objective=objective)[:50]:
    assert p.value <= np.interp(p.reached, *curve.T) + 1e-3
