"""The exact dual against general solvers and the KKT conditions."""

from hypothesis import example, given, settings, strategies as st
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from jobrec_jax.lagrangian import exact
from jobrec_jax.lagrangian.attainable import attainable_range
from jobrec_jax.lagrangian.exact import (
    OBJECTIVES,
    list_chunks,
    policy,
    solve_dual,
    value as value_of,
)

L, J = 5, 4


def lists(seed=0, shape=(L, J), spread=2.0):
  rng = np.random.default_rng(seed)
  return (spread * rng.normal(size=shape), rng.uniform(size=shape), np.ones(shape, bool))


def value(objective, pi, scores, temperature=1.0):
  """[L] J of each list's policy."""
  if objective == 'expected_score':
    return (pi * scores).sum(-1) + temperature * scipy.special.entr(pi).sum(-1)
  p = scipy.special.softmax(scores / temperature, axis=-1)
  return scipy.special.xlogy(p, pi).sum(-1)


def by_scipy(objective, scores, q, tau, temperature, equality):
  """The policy [L, J] that SciPy's general solver finds, from the uniform one."""
  shape = scores.shape

  def pi_of(x):
    return x.reshape(shape)

  def cost(x):
    return -value(objective, pi_of(x), scores, temperature).mean()

  def gradient(x):
    pi = pi_of(x)
    if objective == 'expected_score':
      slope = scores - temperature * (np.log(pi) + 1)
    else:
      slope = scipy.special.softmax(scores / temperature, axis=-1) / pi
    return -slope.ravel() / shape[0]

  constraints = [
      scipy.optimize.LinearConstraint(np.kron(np.eye(shape[0]), np.ones(shape[1])), 1, 1),
      scipy.optimize.LinearConstraint(q.ravel()[None] / shape[0], tau, tau if equality else np.inf)]
  found = scipy.optimize.minimize(
      cost, np.full(scores.size, 1 / shape[1]), jac=gradient, bounds=[(1e-9, 1)] * scores.size,
      constraints=constraints, method='SLSQP', options={'ftol': 1e-15, 'maxiter': 2000})
  return pi_of(found.x)


@pytest.mark.parametrize('objective', OBJECTIVES)
@pytest.mark.parametrize('tau, constraint', [
    (0.3, 'equality'), (0.6, 'equality'), (0.6, 'inequality'), (0.1, 'inequality')])
def test_known_answers_of_a_general_solver(objective, tau, constraint):
  scores, q, mask = lists()
  found = solve_dual(scores, q, mask, np.array([tau]), objective=objective, constraint=constraint,
                     temperature=0.7)
  wanted = by_scipy(objective, scores, q, tau, 0.7, constraint == 'equality')
  assert abs(found.primal[0, 0] - value(objective, wanted, scores, 0.7).mean()) < 1e-6
  pi = policy(scores, q, mask, found.multiplier[0, 0], objective=objective, temperature=0.7)
  np.testing.assert_allclose(pi, wanted, atol=1e-4)  # J is flat in pi: 1e-4 here is 1e-8 there
  assert abs(found.primal[0, 0] - value(objective, pi, scores, 0.7).mean()) < 1e-9
  np.testing.assert_allclose(value_of(pi, scores, mask, objective=objective, temperature=0.7),
                             value(objective, pi, scores, 0.7), rtol=1e-12)


def test_a_linear_program_in_the_limit_of_no_entropy():
  """With T -> 0 the best policy solves max E[pi a] with E[pi q] >= tau, a linear program."""
  scores, q, mask = lists(3)
  tau = 0.7
  found = solve_dual(scores, q, mask, np.array([tau]), objective='expected_score',
                     temperature=1e-7, tolerance=1e-6)
  lp = scipy.optimize.linprog(
      -scores.ravel() / L, A_ub=-q.ravel()[None] / L, b_ub=[-tau],
      A_eq=np.kron(np.eye(L), np.ones(J)), b_eq=np.ones(L))
  assert found.feasible.all()
  assert abs(found.dual[0, 0] + lp.fun) < 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(OBJECTIVES)),
       st.sampled_from(['inequality', 'equality']), st.floats(0.02, 0.98), st.floats(0.1, 5.0))
@example(51847, 'expected_score', 'equality', 0.0234375, 0.109375)  # a pi underflows
def test_the_kkt_conditions(seed, objective, constraint, place, temperature):
  scores, q, mask = lists(seed, (7, 5), 3.0)
  mask[0, 3:] = mask[1, 1:] = False
  low, high = (np.where(mask, q, fill).__getattribute__(end)(1).mean()
               for fill, end in ((np.inf, 'min'), (-np.inf, 'max')))
  tau = low + place * (high - low)
  found = solve_dual(scores, q, mask, np.array([tau]), objective=objective, constraint=constraint,
                     temperature=temperature)
  assert found.feasible.all()
  np.testing.assert_allclose(found.attainable[0], (low, high), atol=1e-12)
  mu = found.multiplier[0, 0]
  pi = policy(scores, q, mask, mu, objective=objective, temperature=temperature)
  assert (pi >= 0).all() and (pi[~mask] == 0).all()
  np.testing.assert_allclose(pi.sum(1), 1, atol=1e-9)
  reached = (pi * q).sum(1).mean()
  assert abs(reached - found.reached[0, 0]) < 1e-9
  if constraint == 'inequality':
    assert mu >= 0 and reached >= tau - 1e-8 and abs(mu * (reached - tau)) < 1e-6 * (1 + mu)
  else:
    assert abs(reached - tau) < 1e-8
  # Stationary: within a list dJ/dpi_j + mu q_j is the same for every item; less, at the smallest
  # normal number, for one whose pi is smaller still.
  least = np.maximum(pi, np.finfo(np.float64).tiny)
  if objective == 'expected_score':
    slope = scores - temperature * np.log(least) + mu * q
  else:
    p = scipy.special.softmax(np.where(mask, scores / temperature, -np.inf), axis=-1)
    slope = p / least + mu * q
  held = mask & (pi == least)
  spread = np.where(mask, slope, -np.inf).max(1) - np.where(held, slope, np.inf).min(1)
  assert spread.max() < 1e-6 * (1 + abs(mu) + abs(scores).max())
  assert abs(found.gap[0, 0]) < 1e-6 * (1 + abs(mu))


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_no_other_policy_is_better(objective):
  scores, q, mask = lists(1, (40, 6))
  found = solve_dual(scores, q, mask, np.array([0.6]), objective=objective)
  rng = np.random.default_rng(0)
  met = 0
  for _ in range(2000):
    pi = rng.dirichlet(np.ones(6) * rng.uniform(0.2, 3), 40) * np.exp(rng.uniform(0, 8) * q)
    pi /= pi.sum(1, keepdims=True)
    if (pi * q).sum(1).mean() >= 0.6:
      met += 1
      assert value(objective, pi, scores).mean() <= found.dual[0, 0] + 1e-12
  assert met > 500


def test_groups_may_have_names():
  scores, q, mask = lists(2, (6, 3))
  index = np.array([1, 0, 2, 2, 0, 1])
  by_index, by_name = (list_chunks(scores, q, mask, np.array([0.5]), groups)
                       for groups in (index, np.array(['a', 'b', 'c'])[index]))
  np.testing.assert_array_equal(by_index[0].group, by_name[0].group)
  assert by_index[2] == by_name[2] == 3


def test_groups_lists_and_a_population():
  scores, q, mask = lists(2, (30, 6))
  tau = np.array([0.55, 0.65])
  groups = np.arange(30) % 3
  together = solve_dual(scores, q, mask, tau, objective='expected_score', groups=groups)
  for g in range(3):
    alone = solve_dual(scores[groups == g], q[groups == g], mask[groups == g], tau,
                       objective='expected_score')
    np.testing.assert_allclose(together.multiplier[:, g], alone.multiplier[:, 0], rtol=1e-6)
    np.testing.assert_allclose(together.primal[:, g], alone.primal[:, 0], rtol=1e-9)
  population = solve_dual(scores, q, mask, tau, objective='expected_score')
  each = solve_dual(scores, q, mask, np.array([0.4]), objective='expected_score',
                    groups=np.arange(30))
  assert each.feasible.any()
  ok = each.feasible[0]
  assert (each.reached[0, ok] >= 0.4 - 1e-9).all()
  # One multiplier for all is never worse than one for each group at the same tau.
  assert (population.primal[:, 0] >= together.primal.mean(1) - 1e-9).all()
  different = solve_dual(scores, q, mask, np.array([[0.5, 0.6, 0.7]]), objective='expected_score',
                         groups=groups)
  np.testing.assert_allclose(different.reached[0][different.multiplier[0] > 0],
                             np.array([0.5, 0.6, 0.7])[different.multiplier[0] > 0], atol=1e-9)


@pytest.mark.parametrize('objective', OBJECTIVES)
def test_chunks_that_do_not_divide_change_nothing(objective, monkeypatch):
  """The last chunk is filled up with lists that were counted already; they must weigh nothing."""
  scores, q, mask = lists(3, (11, 6))
  groups, tau = np.arange(11) % 2, np.array([0.55, 0.65])
  arguments = {'objective': objective, 'groups': groups}
  whole = solve_dual(scores, q, mask, tau, **arguments)
  monkeypatch.setattr(exact, '_CHUNK', 4 * 6)
  parts = solve_dual(scores, q, mask, tau, **arguments)
  for name in ('multiplier', 'reached', 'primal', 'dual', 'attainable'):
    np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-6, atol=1e-9)


def test_what_cannot_be_met_is_said_to_be_infeasible():
  scores, q, mask = lists(4)
  low, high = q.min(1).mean(), q.max(1).mean()
  tau = np.array([low - 0.01, high + 0.01, 2.0])
  for objective in OBJECTIVES:
    at_least = solve_dual(scores, q, mask, tau, objective=objective)
    assert at_least.feasible[:, 0].tolist() == [True, False, False]
    assert np.isnan(at_least.multiplier[1:]).all() and at_least.multiplier[0, 0] == 0
    equal = solve_dual(scores, q, mask, tau, objective=objective, constraint='equality')
    assert not equal.feasible.any()
    np.testing.assert_allclose(equal.attainable, [[low, high]])
  # What every policy reaches is what bounded scores reach when the bound is wide.
  wide = attainable_range(scores - 1e3, scores + 1e3, q, mask)
  np.testing.assert_allclose(wide, (low, high), atol=1e-9)
  flat = solve_dual(scores, np.full_like(q, 0.5), mask, np.array([0.4, 0.5, 0.6]),
                    objective='info_nce')
  assert flat.feasible[:, 0].tolist() == [True, True, False]


def test_extremes_stay_finite():
  scores, q, mask = lists(5, (50, 20), spread=40.0)
  q = q ** 8
  low, high = q.min(1).mean(), q.max(1).mean()
  tau = low + (high - low) * np.array([1e-4, 0.01, 0.5, 0.99, 0.9999])
  for objective in OBJECTIVES:
    for constraint in ('inequality', 'equality'):
      found = solve_dual(scores, q, mask, tau, objective=objective, constraint=constraint)
      assert np.isfinite(found.reached).all() and np.isfinite(found.primal).all()
      assert (np.diff(found.multiplier[found.feasible]) >= 0).all()
      assert found.feasible[1:4].all()


def test_refuses():
  scores, q, mask = lists()
  solve = {'objective': 'expected_score'}
  with pytest.raises(ValueError, match=r'objective must be one of .*got'):
    solve_dual(scores, q, mask, np.array([0.5]), objective='accuracy')
  with pytest.raises(ValueError, match='constraint must be inequality or equality'):
    solve_dual(scores, q, mask, np.array([0.5]), constraint='at_least', **solve)
  with pytest.raises(ValueError, match='alike'):
    solve_dual(scores[:2], q, mask, np.array([0.5]), **solve)
  with pytest.raises(ValueError, match='5 of 5 have none'):
    solve_dual(scores, q, ~mask, np.array([0.5]), **solve)
  with pytest.raises(ValueError, match='finite where the mask'):
    solve_dual(scores * np.nan, q, mask, np.array([0.5]), **solve)
  with pytest.raises(ValueError, match='temperature must be above 0'):
    solve_dual(scores, q, mask, np.array([0.5]), temperature=0, **solve)
  with pytest.raises(ValueError, match=r'groups must be \[5\]'):
    solve_dual(scores, q, mask, np.array([0.5]), groups=np.array([0, 2, 2, 0, 0]), **solve)
  with pytest.raises(ValueError, match=r'tau must be finite and \[M\]'):
    solve_dual(scores, q, mask, np.array([[0.5, 0.5]]), **solve)


def test_a_policy_that_equals_an_end_to_rounding_is_led_to_the_middle():
  """Of two items mu is known: pi_1 = 0.6 where 0.5 mu = T log(0.6 / 0.4) + a_0 - a_1."""
  found = solve_dual(np.array([[4.0, 2.0]]), np.array([[0.2, 0.7]]), np.ones((1, 2), bool),
                     np.array([0.5]), objective='expected_score', temperature=0.05)
  np.testing.assert_allclose(found.multiplier, (0.05 * np.log(1.5) + 2) / 0.5, rtol=1e-9)
