"""The range of requirements that bounded scores can meet, against brute force."""

import itertools

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from jobrec_jax.lagrangian.attainable import attainable_range, check_attainable


def problem(seed, n, items, spread=3.0):
  rng = np.random.default_rng(seed)
  low = spread * rng.normal(size=(n, items))
  high = low + spread * rng.exponential(size=(n, items))
  mask = rng.random((n, items)) < 0.8
  mask[:, 0] = True
  return low, high, rng.random((n, items)), mask


def corners(low, high, q, mask, temperature):
  """Least and greatest over all 2^J assignments of one list."""
  low, high, q = low[mask], high[mask], q[mask]
  values = [softmax(np.where(up, high, low) / temperature) @ q
            for up in itertools.product([False, True], repeat=len(q))]
  return min(values), max(values)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('temperature', [1.0, 0.3])
def test_equals_brute_force_over_corners(seed, temperature):
  lists = problem(seed, 4, 7)
  expected = np.mean([corners(*one, temperature) for one in zip(*lists)], axis=0)
  np.testing.assert_allclose(attainable_range(*lists, temperature), expected, rtol=1e-12)


def test_equals_a_numerical_optimiser_over_the_whole_box():
  low, high, q, _ = problem(11, 1, 6, spread=1.0)
  bounds = list(zip(low[0], high[0]))
  expected = [sign * minimize(lambda s, sign=sign: sign * softmax(s) @ q[0],
                              (low[0] + high[0]) / 2, bounds=bounds).fun for sign in (1, -1)]
  np.testing.assert_allclose(attainable_range(low, high, q, np.ones_like(q, bool)), expected,
                             atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_no_score_inside_the_box_leaves_the_range(seed, at):
  low, high, q, mask = problem(seed, 3, 8)
  s = np.where(mask, low + at * (high - low), -np.inf)
  least, greatest = attainable_range(low, high, q, mask)
  inside = (softmax(s, axis=1) * q).sum(axis=1).mean()
  assert least - 1e-12 <= inside <= greatest + 1e-12


def test_equal_bounds_give_one_point_and_wide_bounds_the_extremes_of_q():
  low, _, q, mask = problem(3, 5, 9)
  expected = np.mean([softmax(l[m]) @ v[m] for l, v, m in zip(low, q, mask)])
  np.testing.assert_allclose(attainable_range(low, low, q, mask), [expected] * 2, rtol=1e-12)
  extremes = [np.mean([f(v[m]) for v, m in zip(q, mask)]) for f in (np.min, np.max)]
  # exp(+-1e4) overflows and underflows unless the sums are kept in logs.
  np.testing.assert_allclose(attainable_range(low - 1e4, low + 1e4, q, mask), extremes, rtol=1e-12)


def test_masked_items_do_not_matter_and_any_sign_of_q_is_exact():
  low, high, q, mask = problem(4, 5, 6)
  expected = attainable_range(low, high, q, mask)
  junk = [np.where(mask, a, np.nan) for a in (low, high, q)]
  np.testing.assert_allclose(attainable_range(*junk, mask), expected, rtol=1e-12)
  shifted = attainable_range(low, high, q - 5, mask)
  np.testing.assert_allclose(shifted, np.array(expected) - 5, rtol=1e-12)
  assert attainable_range(low, high, np.full_like(q, 0.3), mask) == pytest.approx((0.3, 0.3))


def test_check_names_tau_and_the_range():
  assert check_attainable(0.25, (0.25, 0.75)) is None
  for tau in (0.24995, 0.75005):  # rounded to four digits
    assert check_attainable(tau, (0.25, 0.75)) is None
  for tau in (0.2, 0.2498, 0.7502, 0.76, float('nan')):
    with pytest.raises(ValueError, match=rf'tau must lie in \[0\.25, 0\.75\].* got {tau:g}'):
      check_attainable(tau, (0.25, 0.75))


def test_refuses():
  low, high, q, mask = problem(0, 2, 3)
  with pytest.raises(ValueError, match='alike'):
    attainable_range(low, high[:1], q, mask)
  with pytest.raises(ValueError, match='low_scores <= high_scores'):
    attainable_range(high + 1, low, q, mask)
  with pytest.raises(ValueError, match='1 of 2 have none'):
    attainable_range(low, high, q, np.array([[True] * 3, [False] * 3]))
  with pytest.raises(ValueError, match='temperature must be above 0'):
    attainable_range(low, high, q, mask, 0.0)
