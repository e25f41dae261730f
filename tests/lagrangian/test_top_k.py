"""The requirement on the k best, against every choice of k items of small lists."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.lagrangian.top_k import mean_of_best, solve_top_k


def lists(seed, n=40, items=7):
  rng = np.random.default_rng(seed)
  mask = np.arange(items) < rng.integers(2, items + 1, n)[:, None]
  return rng.normal(0, 2, (n, items)), rng.uniform(size=(n, items)), mask


@pytest.mark.parametrize('decimals', [8, 0])  # with 0, most scores tie
def test_the_mean_of_the_best_is_the_expected_one_at_k(decimals):
  scores, q, mask = lists(0)
  scores = scores.round(decimals)
  for k in (1, 3, 9):
    np.testing.assert_allclose(mean_of_best(scores, q, mask, k),
                               1 - violation_rate_at_k(scores, q, mask, k), atol=1e-12)


def test_several_scores_of_the_same_lists():
  scores, q, mask = lists(1)
  both = mean_of_best(np.stack([scores, -scores]), q, mask, 3)
  assert both.shape == (2, 40)
  np.testing.assert_array_equal(both[1], mean_of_best(-scores, q, mask, 3))


@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
def test_the_requirement_is_met_by_no_more_than_one_lists_step(constraint):
  scores, q, mask = lists(2)
  least, most = solve_top_k(scores, q, mask, np.zeros(0), 3).attainable
  tau = least + (most - least) * np.linspace(0.01, 1, 23)
  found = solve_top_k(scores, q, mask, tau, 3, constraint=constraint)
  step = np.ptp(q) / len(q)
  asked = np.maximum(tau, found.free) if constraint == 'inequality' else tau
  assert np.isfinite(found.multiplier).all()
  assert (found.reached >= asked - 1e-12).all() and (found.reached <= asked + step).all()
  assert (np.diff(found.multiplier) >= 0).all()
  if constraint == 'inequality':
    assert (found.multiplier[tau <= found.free] == 0).all()
  else:
    assert (found.multiplier[tau < found.free - step] < 0).all()


def test_no_choice_of_items_with_that_eligibility_has_a_better_mean_score():
  scores, q, mask = lists(3, n=5, items=5)
  mask[:] = True
  found = solve_top_k(scores, q, mask, np.array([0.55, 0.7]), 2)
  pairs = list(itertools.combinations(range(5), 2))
  a, b = (np.array([[x[i, list(p)].mean() for p in pairs] for i in range(5)]) for x in (scores, q))
  one = np.kron(np.eye(5), np.ones(len(pairs)))
  for mu, reached in zip(found.multiplier, found.reached):
    best = linprog(-a.ravel(), A_ub=[-b.ravel()], b_ub=[-5 * reached], A_eq=one, b_eq=np.ones(5))
    mine = mean_of_best(scores + mu * q, scores, mask, 2).sum()
    assert mine == pytest.approx(-best.fun, abs=1e-9)


def test_what_no_choice_reaches_is_infeasible_and_said_so():
  scores, q, mask = lists(4)
  found = solve_top_k(scores, q, mask, np.array([0.1, 0.999]), 2)
  assert found.multiplier[0] == 0 and np.isnan(found.multiplier[1])


def test_scores_far_apart_and_tied_q_are_solved():
  scores, q, mask = lists(5)
  for a, b in ((1e6 * scores, q), (scores, q.round(0)), (0 * scores, q), (scores, 1e-6 * q)):
    least, most = solve_top_k(a, b, mask, np.zeros(0), 2).attainable
    tau = least + (most - least) * np.array([0.3, 0.6, 0.9])
    found = solve_top_k(a, b, mask, tau, 2)
    assert (found.reached >= tau - 1e-9 * (most - least)).all()


@pytest.mark.parametrize(('change', 'words'), [
    ({'k': 0}, 'k must be at least 1'), ({'constraint': 'both'}, 'inequality or equality'),
    ({'tau': np.array([np.nan])}, 'finite'), ({'mask': np.zeros((40, 7), bool)}, 'with an item')])
def test_bad_arguments_are_refused(change, words):
  scores, q, mask = lists(6)
  arguments = {'scores': scores, 'q': q, 'mask': mask, 'tau': np.array([0.5]), 'k': 2}
  with pytest.raises(ValueError, match=words):
    solve_top_k(**arguments | change)
