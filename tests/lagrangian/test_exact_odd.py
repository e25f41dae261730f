"""Odd lists, each with requirements of its own, as SciPy solves them by bracketing alone."""

import jax
import numpy as np
import pytest
from scipy.optimize.elementwise import bracket_root, find_root
from scipy.special import log_softmax, logsumexp, softmax

from jobrec_jax.lagrangian.exact import OBJECTIVES, _Means, _means, list_chunks, policy, solve_dual

ODD = {  # rng -> scores and q of one list
  'far apart': lambda rng: (rng.uniform(-10, 10, 6), rng.uniform(size=6)),
  'two items': lambda rng: (rng.normal(0, 3, 2), rng.uniform(size=2)),
  'hardly eligible': lambda rng: (rng.normal(0, 3, 8), rng.uniform(0, 0.05, 8)),
  'bimodal': lambda rng: (rng.normal(0, 2, 10), rng.permutation([0.02, 0.98] * 5)),
  'saturated': lambda rng: (rng.normal(0, 2, 10), 1 - 10 ** -rng.uniform(1, 6, 10)),
  'ties': lambda rng: (rng.choice([0.0, 1.0, 2.0], 6), rng.permutation([0.1, 0.5, 0.9] * 2)),
}


def reached(mu, scores, q, objective, T):
  """C of n lists at their multipliers [n], in NumPy; scores and q are [J, n]."""
  b = mu * q
  if objective == 'expected_score':
    pi = softmax((scores + b) / T, axis=0)
  else:
    log_p, d = log_softmax(scores / T, axis=0), b.max(0) - b

    def excess(x, *parts):  # of sum_j p_j / (t + d_j) over 1, where t = exp(x) may be 1e-100
      log_p, d = np.split(np.stack(parts), 2)
      return logsumexp(log_p - np.log(np.exp(x) + d), axis=0)
    root = find_root(excess, (np.full(mu.shape, -700.0), np.full(mu.shape, 1e-9)),
                     args=(*log_p, *d))
    assert root.success.all()
    pi = np.exp(log_p - np.log(np.exp(root.x) + d))
  return (pi * q).sum(0)


def solved_by_scipy(scores, q, tau, objective, T):
  """[M, N] the multiplier of each list [N, J] at each of its requirements [M, N]."""

  def missing(mu, tau, *parts):
    return reached(mu, *np.split(np.stack(parts), 2), objective, T) - tau
  args = (tau, *(np.broadcast_to(x, tau.shape) for x in (*scores.T, *q.T)))
  start = bracket_root(missing, np.full(tau.shape, -1.0), np.full(tau.shape, 1.0), args=args)
  root = find_root(missing, start.bracket, args=args)
  assert root.success.all()
  return root.x


@pytest.mark.parametrize('kind', ODD)
@pytest.mark.parametrize('objective', OBJECTIVES)
@pytest.mark.parametrize('temperature', [1.0, 0.05])
def test_odd_lists_are_solved_as_scipy_does(kind, objective, temperature):
  rng = np.random.default_rng(1)
  scores, q = map(np.array, zip(*(ODD[kind](rng) for _ in range(200))))
  mask = np.ones(q.shape, bool)
  tau = q.min(1) + np.ptp(q, 1) * np.linspace(0.02, 0.98, 11)[:, None]
  found = solve_dual(scores, q, mask, tau, objective=objective, constraint='equality',
                     temperature=temperature, groups=np.arange(200))
  assert found.feasible.all()
  expected = solved_by_scipy(scores, q, tau, objective, temperature)

  def c_at(mu):
    flat = [np.tile(x, (len(mu), 1)).T for x in (scores, q)]
    return reached(mu.ravel(), *flat, objective, temperature).reshape(mu.shape)
  np.testing.assert_allclose(c_at(expected), tau, rtol=0, atol=1e-9)
  np.testing.assert_allclose(c_at(found.multiplier), tau, rtol=0, atol=1e-6)
  # Multipliers agree where C, known to 1e-9, rises enough on both sides to tell them apart.
  step = 1e-4 * np.abs(expected)
  rise = np.minimum(c_at(expected + step) - tau, tau - c_at(expected - step))
  steep = rise > 2e-7
  assert steep.mean() > 0.1
  np.testing.assert_allclose(found.multiplier[steep], expected[steep], rtol=1e-6)


@pytest.mark.parametrize('kind', ODD)
@pytest.mark.parametrize('objective', OBJECTIVES)
@pytest.mark.parametrize('temperature', [1.0, 0.05])
@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
def test_every_requirement_inside_the_range_is_solved(kind, objective, temperature, constraint):
  rng = np.random.default_rng(0)
  for _ in range(20):
    scores, q = (x[None] for x in ODD[kind](rng))
    mask = np.ones(q.shape, bool)
    tau = q.min() + np.ptp(q) * np.linspace(0.02, 0.98, 11)
    found = solve_dual(scores, q, mask, tau, objective=objective, temperature=temperature,
                       constraint=constraint)
    assert found.feasible.all() and np.isfinite(found.multiplier).all()
    pi = policy(scores, q, mask, found.multiplier, objective=objective, temperature=temperature)
    reached = (pi * q).sum(-1)[:, 0]
    bound = found.multiplier[:, 0] != 0
    np.testing.assert_allclose(reached[bound], tau[bound], rtol=0, atol=1e-6)
    assert (reached >= tau - 1e-6).all()
    np.testing.assert_allclose(found.gap, found.multiplier * (found.reached - tau[:, None]),
                               atol=1e-6)


@pytest.mark.parametrize('gap', [2.0, 5.0, 10.0])
def test_slope_has_a_closed_form_where_the_scores_leave_one_item(gap):
  """With p = 1 at q = 0.98 alone, C = 0.02 - 1 / mu below mu = -1 / 0.96, and rises by 1 / mu^2."""
  rng = np.random.default_rng(2)
  q, mu = np.array([[0.02] * 5 + [0.98]]), -1 / np.linspace(0.02, 0.94, 50)[:, None]
  with jax.enable_x64(True):
    for _ in range(5):
      scores = np.append(rng.uniform(-0.1, 0, 5) - gap, 0.0)[None]
      lists, *_ = list_chunks(scores, q, np.ones(q.shape, bool), mu[:, 0])
      means = _means(lists, mu, 0.05, 'info_nce', _Means(*[np.zeros_like(mu)] * 4), mu != 0)
      np.testing.assert_allclose(means.slope, 1 / mu**2, rtol=1e-9)
