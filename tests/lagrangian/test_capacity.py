"""Policies under capacities of jobs: a general solver and the KKT conditions."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from jobrec_jax.lagrangian.capacity import solve_with_capacity
from jobrec_jax.lagrangian.exact import OBJECTIVES, solve_dual

L, J, N = 8, 4, 6


def market(seed=0, lists=L, shown=J, items=N):
  rng = np.random.default_rng(seed)
  item = np.stack([rng.permutation(items)[:shown] for _ in range(lists)])
  # Everyone likes the first items, so that capacity binds.
  scores = rng.normal(size=(lists, shown)) - item
  return scores, rng.uniform(size=(lists, shown)), np.ones((lists, shown), bool), item


def value(objective, pi, scores):
  if objective == 'expected_score':
    return ((pi * scores).sum(-1) + scipy.special.entr(pi).sum(-1)).mean()
  return scipy.special.xlogy(scipy.special.softmax(scores, axis=-1), pi).sum(-1).mean()


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_known_answer_of_a_general_solver(objective):
  scores, q, mask, item = market()
  capacity, tau = np.full(N, 2.0), 0.65
  found = solve_with_capacity(scores, q, mask, item, capacity, tau, objective=objective)
  assert found.feasible and found.violated == ()
  assert found.multiplier > 0 and (found.prices > 0).any() and (found.prices == 0).any()
  load = np.zeros((N, L * J))
  load[item.ravel(), np.arange(L * J)] = 1

  def gradient(x):
    if objective == 'expected_score':
      slope = scores.ravel() - np.log(x) - 1
    else:
      slope = scipy.special.softmax(scores, axis=-1).ravel() / x
    return -slope / L
  best = scipy.optimize.minimize(
      lambda x: -value(objective, x.reshape(L, J), scores), np.full(L * J, 1 / J), jac=gradient,
      bounds=[(1e-9, 1)] * (L * J), method='SLSQP',
      constraints=[
          scipy.optimize.LinearConstraint(np.kron(np.eye(L), np.ones(J)), 1, 1),
          scipy.optimize.LinearConstraint(q.ravel()[None] / L, tau, np.inf),
          scipy.optimize.LinearConstraint(load, -np.inf, capacity)],
      options={'ftol': 1e-15, 'maxiter': 2000})
  assert abs(found.primal + best.fun) < 1e-6
  assert abs(found.dual - found.primal) < 1e-6
  np.testing.assert_allclose(found.load, load @ best.x, atol=1e-3)


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_the_kkt_conditions_at_scale(objective):
  scores, q, mask, item = market(1, 300, 10, 25)
  mask[:20, 7:] = False
  capacity = np.random.default_rng(0).uniform(10, 20, 25)
  found = solve_with_capacity(scores / 5, q, mask, item, capacity, 0.6, objective=objective)
  assert found.feasible
  assert found.reached >= 0.6 - 1e-8 and (found.load <= capacity + 1e-5).all()
  assert abs(found.multiplier * (found.reached - 0.6)) < 1e-6
  np.testing.assert_allclose(found.prices * (capacity - found.load) / 300, 0, atol=1e-6)
  assert abs(found.load.sum() - 300) < 1e-6


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_with_room_for_all_it_is_the_plain_dual(objective):
  scores, q, mask, item = market(2)
  roomy = solve_with_capacity(scores, q, mask, item, np.full(N, 100.0), 0.6, objective=objective)
  plain = solve_dual(scores, q, mask, np.array([0.6]), objective=objective)
  assert abs(roomy.multiplier - plain.multiplier[0, 0]) < 1e-5
  assert (roomy.prices == 0).all()
  assert abs(roomy.primal - plain.primal[0, 0]) < 1e-7


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_what_cannot_be_met_is_named(objective):
  scores, q, mask, item = market(3)
  crowded = solve_with_capacity(scores, q, mask, item, np.full(N, 1.0), 0.0, objective=objective)
  assert not crowded.feasible  # six places for eight lists
  assert all(name.startswith('capacity of item') and lack > 0 for name, lack in crowded.violated)
  high = solve_with_capacity(scores, q, mask, item, np.full(N, 8.0), 0.99, objective=objective)
  assert not high.feasible and high.violated[0][0] == 'requirement'


def test_refuses():
  scores, q, mask, item = market()
  with pytest.raises(ValueError, match=r'capacity must be .* above 0'):
    solve_with_capacity(scores, q, mask, item, np.zeros(N), 0.5, objective='info_nce')
  with pytest.raises(ValueError, match=r'item must be \(8, 4\) in \[0, 3\)'):
    solve_with_capacity(scores, q, mask, item, np.ones(3), 0.5, objective='info_nce')
