"""What families of rankings keep at a given eligibility, by hand and by moving each number."""

import numpy as np
import pytest

from jobrec_jax.evaluate.tradeoff import kept_preference


def kept(x, y, *e):
  return kept_preference(np.array([x]), np.array([y]), np.array([e]))[0]


def test_between_neighbours_the_line_counts():
  x, y = [0.2, 0.4, 0.8], [0.9, 0.8, 0.4]
  np.testing.assert_allclose(kept(x, y, 0.3, 0.4, 0.5, 0.8), [0.85, 0.8, 0.7, 0.4])


def test_a_family_that_begins_above_keeps_its_beginning():
  np.testing.assert_allclose(kept([0.5, 0.7], [0.6, 0.5], 0.1, 0.5), [0.6, 0.6])
  np.testing.assert_allclose(kept([0.5], [0.6], 0.1), [0.6])


def test_what_is_out_of_reach_has_no_value():
  assert np.isnan(kept([0.2, 0.6], [0.9, 0.8], 0.61)).all()
  assert np.isnan(kept([0.5], [0.6], 0.51)).all()


def test_one_that_turns_back_counts_where_it_keeps_most():
  """The last two are asked for more and bring less of both."""
  x, y = [0.2, 0.6, 0.4, 0.1], [0.9, 0.7, 0.3, 0.2]
  np.testing.assert_allclose(kept(x, y, 0.3, 0.5), [0.85, 0.75])
  rising = [0.1, 0.2, 0.6], [0.1, 0.9, 0.5]  # preference first rises, too
  np.testing.assert_allclose(kept(*rising, 0.05, 0.4), [0.9, 0.7])


def test_rows_are_families_of_their_own():
  x, y = np.array([[0.0, 1.0], [0.5, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
  e = np.array([[0.25, 0.5], [0.75, 0.2]])
  np.testing.assert_allclose(kept_preference(x, y, e), [[0.75, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize('e', [0.3, 0.35, 0.55])
def test_small_moves_follow_the_delta_method(e):
  x, y, step = np.array([0.2, 0.4, 0.8]), np.array([0.9, 0.8, 0.4]), 1e-6
  rng = np.random.default_rng(0)
  dx, dy, de = rng.normal(size=3), rng.normal(size=3), rng.normal()
  k = 0 if e < 0.4 else 1
  t, b = (e - x[k]) / (x[k + 1] - x[k]), (y[k + 1] - y[k]) / (x[k + 1] - x[k])
  psi = (1 - t) * (dy[k] - b * dx[k]) + t * (dy[k + 1] - b * dx[k + 1]) + b * de
  (moved,) = kept(x + step * dx, y + step * dy, e + step * de)
  assert (moved - kept(x, y, e)[0]) / step == pytest.approx(psi, rel=1e-4)
