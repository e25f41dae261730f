"""Rows that tell whether a requirement was reached, and the hypervolume."""

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.evaluate.control import control_rows, hypervolume, is_monotone, tau_grid
from jobrec_jax.evaluate.statistics import Estimate, interval


def test_tau_grid_leaves_a_tenth_at_each_end():
  np.testing.assert_allclose(tau_grid(0.2, 0.7, 5), [0.25, 0.35, 0.45, 0.55, 0.65])


@pytest.mark.parametrize('arguments, match', [
    ((0.5, 0.5, 3), 'range'), ((0.1, 0.5, 1), 'count'), ((0.1, 0.5, 3, 0.5), 'margin')])
def test_tau_grid_names_what_is_wrong(arguments, match):
  with pytest.raises(ValueError, match=match):
    tau_grid(*arguments)


def estimate(value, candidates, jobs=0.0, n=400):
  """Candidates and jobs each move it, by so much in all."""
  return Estimate(value, np.append(candidates, 0.0), np.array([jobs, 0.0]), n, (20, 20))


def test_control_rows_tell_reached_from_missed():
  taus, trained = [0.2, 0.4], [estimate(0.2, 0.001), estimate(0.3, 0.001)]
  heldout = [estimate(0.202, 0.005), estimate(0.3, 0.005)]
  true = [estimate(e.value + 0.05, 0.005) for e in heldout]
  first, second = control_rows(taus, trained, heldout, 0.95, true)
  assert first.gap == pytest.approx(0) and first.covered
  assert second.gap == pytest.approx(0.1) and not second.covered
  assert second.heldout == interval(heldout[1]) and second.heldout.high < 0.4
  assert second.true == interval(true[1])
  assert control_rows(taus, trained, heldout, 0.95)[0].true is None


@pytest.mark.parametrize('tau, inside', [(0.35, False), (0.4, True), (0.45, False)])
def test_a_requirement_lies_inside_of_the_interval_from_both_sides(tau, inside):
  heldout, trained = estimate(0.4, [0.005, 0.0]), estimate(tau, [0.0, 0.001])
  (row,) = control_rows([tau], [trained], [heldout], 0.95)
  assert (row.heldout.low < 0.4 < row.heldout.high) and row.covered == inside


@pytest.mark.parametrize('alike, inside', [(0.0, True), (0.05, False)])
def test_both_lists_are_samples_and_jobs_move_both(alike, inside):
  """Candidates of either add their variance; what jobs move in both is no reason for a gap."""
  heldout = estimate(0.43, [0.01, 0.0], alike if not inside else 0.0)
  trained = estimate(0.4, [0.0, 0.012 if inside else 0.0], alike)
  (row,) = control_rows([0.4], [trained], [heldout], 0.95)
  assert row.covered == inside
  assert (row.heldout.low < 0.4) != inside  # the held-out lists alone say otherwise


def test_control_rows_need_one_row_for_each_requirement():
  with pytest.raises(ValueError, match='heldout must be 2 estimates, got 3'):
    control_rows([0.1, 0.2], [estimate(0.1, 0.1)] * 2, [estimate(0.1, 0.1)] * 3, 0.95)


def test_monotone():
  assert is_monotone([0.1, 0.1, 0.4]) and not is_monotone([0.1, 0.3, 0.29])
  assert not is_monotone([0.1, np.nan, 0.2])


def test_hypervolume_of_known_areas():
  assert hypervolume(np.array([[3.0, 2.0]]), (1.0, 1.0)) == 2.0
  # An L of two rectangles; one dominated point; one below the reference.
  points = np.array([[3.0, 1.0], [1.0, 3.0], [0.5, 0.5], [9.0, -1.0]])
  assert hypervolume(points, (0.0, 0.0)) == 5.0
  assert hypervolume(np.zeros((0, 2)), (0.0, 0.0)) == 0.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 6), st.integers(-2, 6)), max_size=6))
def test_hypervolume_counts_dominated_unit_cells(points):
  cells = {(x, y) for a, b in points for x in range(a) for y in range(b)}
  assert hypervolume(np.array(points).reshape(-1, 2), (0, 0)) == len(cells)


def test_hypervolume_rejects_nan():
  with pytest.raises(ValueError, match='finite'):
    hypervolume(np.array([[np.nan, 1.0]]), (0.0, 0.0))
