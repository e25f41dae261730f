"""Figures hold the values that they were given."""

import sys

import numpy as np
import pytest

from jobrec_jax.baselines.rivals import RIVALS
from jobrec_jax.evaluate.control import ControlRow
from jobrec_jax.evaluate.eligibility import reliability
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.report.canvas import save
from jobrec_jax.report.figures import (
  Estimate,
  Separation,
  TradeoffPoint,
  certified_eligibility,
  estimates,
  families,
  policy_curves,
  preference_against_eligibility,
  reached_against_asked,
  reliability_diagram,
  separation,
  training_curves,
)

LOSSES = {'train/loss': 'whole', 'train/bce': 'cross-entropy'}


def around(value):
  return Interval(value, value - 0.1, value + 0.05, 20)


def test_training_has_a_panel_for_each_stage_with_raw_and_smoothed_lines():
  rng = np.random.default_rng(0)
  loss = rng.normal(size=200)
  rows = [{'stage': s, 'step': i, 'train/loss': loss[i]} for s in ('1A', '1B') for i in range(200)]
  rows += [{'stage': '1B', 'step': i, 'train/bce': loss[i]} for i in range(20)]
  panels = training_curves([*rows, {'stage': '3', 'step': 0, 'validation/mrr': 0.1}], LOSSES).axes
  assert [a.get_title(loc='left') for a in panels] == ['1A', '1B']
  assert len(panels[0].lines) == 2 and len(panels[1].lines) == 4
  raw, smooth = (line.get_ydata() for line in panels[0].lines)
  np.testing.assert_array_equal(raw, loss)
  # 200 values: a running mean over five on each side, over what there is at the ends.
  np.testing.assert_allclose(smooth[[0, 50, 199]],
                             [loss[:6].mean(), loss[45:56].mean(), loss[194:].mean()])


def test_training_without_the_metric_is_refused():
  with pytest.raises(ValueError, match='train/loss'):
    training_curves([{'stage': '1A', 'step': 0, 'train/other': 1.0}], LOSSES)


def test_stage_2_has_a_line_for_each_requirement_in_both_panels():
  taus = np.array([0.3, 0.4, 0.5], np.float32)
  history = {'eligibility': taus - np.exp(-np.arange(9))[:, None],
             'multiplier': np.cumsum(np.ones((9, 3)), 0)}
  reached, multiplier = policy_curves(history, taus).axes
  for axes, name in ((reached, 'eligibility'), (multiplier, 'multiplier')):
    drawn = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 9]
    np.testing.assert_array_equal(drawn, history[name].T)
  assert [t.get_text() for t in reached.texts] == ['0.300', '0.400', '0.500']
  assert len({line.get_color() for line in multiplier.lines}) == 3


def test_tradeoff_joins_points_by_tau_and_labels_its_ends():
  points = [TradeoffPoint(t, around(t), around(1 - t)) for t in (0.5, 0.2, 0.3)]
  bound = np.array([[0.2, 0.9], [0.6, 0.8]])
  figure = preference_against_eligibility(
      {'learned': points, 'bm25': [TradeoffPoint(None, around(0.3), around(0.3))]},
      {'bound': bound})
  (axes,) = figure.axes
  assert sorted(t.get_text() for t in axes.texts) == ['τ 0.2', 'τ 0.5']
  np.testing.assert_array_equal(axes.lines[0].get_xydata(), bound)
  learned, bm25 = axes.containers
  np.testing.assert_allclose(learned.lines[0].get_xdata(orig=False), [0.2, 0.3, 0.5])
  assert bm25.lines[0].get_linestyle() == 'None'
  horizontal = learned.lines[2][0].get_segments()[0]
  np.testing.assert_allclose(horizontal[:, 0], [0.1, 0.25])
  assert [t.get_text() for t in figure.legends[0].get_texts()] == ['bound', 'learned', 'bm25']


@pytest.mark.parametrize('narrow', [False, True])
def test_names_of_all_rivals_fit_below_the_tradeoff(narrow):
  names = ('policy', 'preference expert', 'qualification expert', *RIVALS, 'true P (ceiling)')
  figure = preference_against_eligibility(
      {name: [TradeoffPoint(None, around(0.3), around(0.3))] for name in names},
      {"truth's bound, P + μ Q": np.eye(2), 'exact dual, s_pref + μ p_qual': np.eye(2)},
      narrow=narrow)
  figure.draw_without_rendering()
  box = figure.legends[0].get_window_extent()
  assert len(figure.legends[0].get_texts()) == len(names) + 2
  assert box.x0 >= 0 and box.x1 <= figure.bbox.width


def test_estimates_stand_in_their_order_and_colour():
  rows = {'p': [Estimate('a', 'x', around(0.5)), Estimate('b', 'y', around(0.4))],
          'q': [Estimate('c', 'y', around(0.1))]}
  first, second = estimates(rows, {'x': '#0072b2', 'y': '#d55e00'}, 'NDCG@5', {'p': 0.3}).axes
  assert [t.get_text() for t in first.get_yticklabels()] == ['a', 'b']
  assert first.get_ylim()[0] > first.get_ylim()[1]  # the first on top
  a, b = first.containers
  (c,) = second.containers
  assert a.lines[0].get_color() != b.lines[0].get_color() == c.lines[0].get_color()
  np.testing.assert_array_equal(first.lines[-1].get_xdata(), [0.3, 0.3])
  tall = estimates(rows, {'x': '#0072b2', 'y': '#d55e00'}, 'NDCG@5', {}, True)
  assert tall.get_size_inches()[0] < 4
  assert [a.get_subplotspec().colspan.start for a in tall.axes] == [0, 0]


def test_arrows_lead_from_plain_to_partial():
  expert = Separation('preference', (around(0.6), around(0.3)), (around(0.5), around(0.1)),
                      (1.0, 0.2))
  (axes,) = separation([expert]).axes
  (crosses,) = (line for line in axes.lines if line.get_marker() == 'x')
  assert list(zip(*crosses.get_data())) == [(1.0, 0.2)]
  plain, given = axes.containers
  assert (plain.lines[0].get_xdata()[0], plain.lines[0].get_ydata()[0]) == (0.6, 0.3)
  assert (given.lines[0].get_xdata()[0], given.lines[0].get_ydata()[0]) == (0.5, 0.1)
  (arrow,) = axes.texts
  assert (arrow.xy, arrow.xyann) == ((0.5, 0.1), (0.6, 0.3))


def test_families_are_lines_and_one_has_points():
  curves = {name: np.array([[0.5, 0.9 - i / 10], [0.7, 0.6 - i / 10]])
            for i, name in enumerate(('the bound', 'policy', 'plug-in', 'filter'))}
  (axes,) = families(curves, 'the bound', 'policy').axes
  drawn = {line.get_label(): line for line in axes.lines}
  assert set(drawn) == set(curves)
  for name, line in drawn.items():
    np.testing.assert_array_equal(np.transpose(line.get_data()), curves[name])
    assert (line.get_marker() == 'None') == (name != 'policy')
  assert len({line.get_color() for line in axes.lines}) == 4


def test_reached_draws_true_eligibility_only_where_known():
  rows = [ControlRow(t, t, 0.0, around(t), True, around(t - 0.1)) for t in (0.2, 0.4)]
  with_truth = reached_against_asked(rows).axes[0]
  without = reached_against_asked([r._replace(true=None) for r in rows]).axes[0]
  assert len(with_truth.containers) == 2 and len(without.containers) == 1
  np.testing.assert_allclose(with_truth.containers[1].lines[0].get_ydata(orig=False), [0.1, 0.3])


def test_certified_eligibility_is_drawn_from_the_chosen_tau_on():
  taus = np.array([0.4, 0.5, 0.6])
  lines = {'whole distribution': taus, 'top 5': taus + 0.1}
  series = {name: {'predicted': x, 'true': x - 0.05} for name, x in lines.items()}
  figure = certified_eligibility(taus, series, {'whole distribution': None, 'top 5': 0.5}, 0.5)
  whole, top = figure.axes
  assert 'none certified' in whole.get_title(loc='left') and len(whole.lines) == 3
  np.testing.assert_allclose(top.lines[-1].get_xydata(), [[0.5, 0.5], [0.6, 0.5]])
  assert [t.get_text() for t in figure.legends[0].get_texts()] == [
      'asked', 'predicted', 'true', 'certified, at least']


def test_reliability_counts_every_pair():
  p = np.random.default_rng(1).beta(1, 9, 400)
  top, below = reliability_diagram(reliability(p, p), p).axes
  np.testing.assert_allclose(top.lines[1].get_xdata(), top.lines[1].get_ydata())
  assert sum(bar.get_height() for bar in below.patches) == 400
  assert top.get_xlim()[1] >= p.max()


def test_save_writes_a_png_without_pyplot(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'matplotlib.pyplot', None)  # importing it now fails
  path = tmp_path / 'new' / 'figure.png'
  rows = [{'stage': '1A', 'step': i, 'train/loss': 1.0} for i in range(3)]
  save(lambda narrow: training_curves(rows, LOSSES, narrow), path.parent, 'figure')
  assert path.read_bytes().startswith(b'\x89PNG\r\n')
