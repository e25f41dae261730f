"""The figures of a report. Each function returns a matplotlib Figure; `save` writes it as PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from jobrec_jax.evaluate.control import ControlRow
from jobrec_jax.evaluate.eligibility import Reliability
from jobrec_jax.evaluate.frontier import FrontierPoint
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.schema.files import replacing

# Distinct in colour and in lightness for every common kind of colour vision.
PALETTE = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#555555')
MARKERS = 'os^DvP*X'  # one more than colours, so that pairs repeat late
GREY = '#777777'


class TradeoffPoint(NamedTuple):
  """A policy's true eligibility and preference on the same lists; tau None where none was asked."""

  tau: float | None
  eligibility: Interval
  preference: Interval


def save(figure: Figure, path: str | Path) -> None:
  """Writes `figure` as PNG, whole, making the folder where it does not exist."""
  with replacing(path, 'wb') as file:
    FigureCanvasAgg(figure).print_figure(file, dpi=160, format='png')


def training_curves(
    rows: Sequence[Mapping],
    metric: str = 'train/loss',
    label: str = 'training loss (nats)',
) -> Figure:
  """One panel for each stage: a metric against steps, raw in faint and smoothed on top.

  Args:
    rows: dicts with 'stage', 'step' and metrics; those without `metric` are passed over.
    metric: the key to draw.
    label: of its axis, with the unit.

  Returns:
    The figure.

  Raises:
    ValueError: if no row has the metric.
  """
  stages: dict[str, list] = {}
  for row in rows:
    if metric in row:
      stages.setdefault(str(row['stage']), []).append((row['step'], row[metric]))
  if not stages:
    raise ValueError(f'no row has {metric!r}')
  figure = _figure(1 + 3.2 * len(stages), 3.2)
  panels = figure.subplots(1, len(stages), squeeze=False)[0]
  for axes, (stage, points) in zip(panels, stages.items()):
    step, value = np.asarray(sorted(points), np.float64).T
    axes.plot(step, value, color=PALETTE[0], alpha=0.25, linewidth=1)
    axes.plot(step, _smooth(value), color=PALETTE[0], linewidth=1.8)
    axes.set_title(stage, fontsize=10, loc='left')
    axes.set_xlabel('step')
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _clean(axes)
  panels[0].set_ylabel(label)
  return figure


def preference_against_eligibility(
    series: Mapping[str, Sequence[TradeoffPoint]],
    preference_label: str = 'preference, NDCG@5',
) -> Figure:
  """What each system gives the candidate against how eligible its recommendations truly are.

  Args:
    series: for each system its points, joined in the order of tau and labelled with it.
    preference_label: of the vertical axis.

  Returns:
    The figure; bars are the points' intervals.
  """
  figure = _figure(7.6, 4.4)
  axes = figure.subplots()
  for i, (name, points) in enumerate(series.items()):
    points = sorted(points, key=lambda p: -np.inf if p.tau is None else p.tau)
    x, y = [p.eligibility for p in points], [p.preference for p in points]
    color = PALETTE[i % len(PALETTE)]
    axes.errorbar(
        [v.value for v in x], [v.value for v in y], xerr=_bars(x), yerr=_bars(y), color=color,
        marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1.4, elinewidth=0.7,
        linestyle='-' if len(points) > 1 else 'none', label=name)
    for p in points:
      if p.tau is not None:
        axes.annotate(f'τ {p.tau:.3g}', (p.eligibility.value, p.preference.value), color=color,
                      xytext=(5, 5), textcoords='offset points', fontsize=8)
  axes.set_xlabel('true eligibility of what is recommended (probability)')
  axes.set_ylabel(preference_label)
  axes.margins(x=0.08, y=0.08)
  figure.legend(loc='outside right upper', frameon=False, fontsize=9)
  _clean(axes)
  return figure


def reached_against_asked(rows: Sequence[ControlRow]) -> Figure:
  """Eligibility reached against the eligibility asked for; on the diagonal it is what was asked.

  Args:
    rows: one for each requirement.

  Returns:
    The figure: predicted C on stage 2's lists and, with intervals, predicted and true eligibility
    on held-out lists.
  """
  rows = sorted(rows, key=lambda r: r.tau)
  tau = np.array([r.tau for r in rows])
  figure = _figure(5.4, 4.6)
  axes = figure.subplots()
  # Side by side, so that intervals at the same tau do not hide each other.
  shift = 0.09 * (np.diff(tau).min() if len(tau) > 1 else 0.0)
  axes.plot(tau, [r.reached for r in rows], color=PALETTE[-1], marker='D', markersize=4,
            linestyle='none', label="predicted, stage 2's lists")
  held = [r.heldout for r in rows]
  _points(axes, tau - shift, held, 0, 'predicted, held-out lists')
  known = [(t, r.true) for t, r in zip(tau, rows) if r.true is not None]
  if known:
    _points(axes, np.array([t for t, _ in known]) + shift, [v for _, v in known], 1,
            'true, held-out lists')
  low, high = axes.get_xlim()
  axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle='--', zorder=0,
            label='as asked')
  axes.set_xlim(low, high)
  axes.set_xlabel('eligibility asked for, τ (probability)')
  axes.set_ylabel('eligibility reached (probability)')
  axes.legend(frameon=False, fontsize=9)
  _clean(axes)
  return figure


def frontier(points: Mapping[str, Sequence[FrontierPoint]],
             exact: Mapping[str, np.ndarray]) -> Figure:
  """J against C of every system, a panel for each kind of lists; no policy lies above the line.

  Args:
    points: for each kind of lists its points; those of 'exact dual' are left to the line.
    exact: for each kind of lists [N, 2] (C, J) of the exact dual.

  Returns:
    The figure.
  """
  figure = _figure(1.6 + 3.8 * len(points), 4.0)
  panels = figure.subplots(1, len(points), squeeze=False)[0]
  for axes, (name, rows) in zip(panels, points.items()):
    axes.plot(*exact[name].T, color=GREY, linewidth=1.2, label='exact dual', zorder=0)
    systems = dict.fromkeys(r.system for r in rows if r.system != 'exact dual')
    for i, system in enumerate(systems):
      c, J = np.array([(r.reached, r.value) for r in rows if r.system == system]).T
      # The first stands out where others lie on top of it.
      axes.plot(c, J, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)],
                markersize=5 if i else 8, fillstyle='full' if i else 'none', linestyle='none',
                label=system)
    axes.set_title(name, fontsize=10, loc='left')
    axes.set_xlabel('predicted eligibility C (probability)')
    _clean(axes)
  panels[0].set_ylabel('objective J (nats)')
  handles, labels = panels[0].get_legend_handles_labels()
  if len(labels) <= 8:
    figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
  return figure


def certified_eligibility(taus: np.ndarray, predicted: Mapping[str, np.ndarray],
                          true: Mapping[str, np.ndarray], chosen: Mapping[str, float | None],
                          level: float) -> Figure:
  """Predicted, true and certified eligibility over tau, a panel for each loss.

  Args:
    taus: [M] ascending.
    predicted, true: by loss, [M] mean eligibility.
    chosen: by loss, the least certified tau; None where none is.
    level: the eligibility that is certified from there on.

  Returns:
    The figure; the certified line begins where the certificate does.
  """
  figure = _figure(1.6 + 3.4 * len(predicted), 3.8)
  panels = figure.subplots(1, len(predicted), squeeze=False, sharey=True)[0]
  for axes, loss in zip(panels, predicted):
    axes.axhline(level, color=GREY, linewidth=0.8, linestyle='--', zorder=0, label='asked')
    for i, (name, values) in enumerate((('predicted', predicted), ('true', true))):
      axes.plot(taus, values[loss], color=PALETTE[i], marker=MARKERS[i], markersize=4,
                linewidth=1.4, label=name)
    first = chosen[loss]
    if first is not None:
      axes.plot([first, taus[-1]], [level, level], color=PALETTE[2], marker='|', markersize=9,
                linewidth=2.4, label='certified, at least')
    axes.set_title(loss if first is not None else f'{loss}: none certified', fontsize=10,
                   loc='left')
    axes.set_xlabel('eligibility asked for, τ (probability)')
    _clean(axes)
  panels[0].set_ylabel('eligibility (probability)')
  handles = {label: handle for axes in panels
             for handle, label in zip(*axes.get_legend_handles_labels())}
  figure.legend(handles.values(), handles, loc='outside lower center', ncols=4, frameon=False,
                fontsize=9)
  return figure


def reliability_diagram(bins: Reliability, p: np.ndarray) -> Figure:
  """Observed share of eligible pairs against p_qual, and below how often each p_qual occurs.

  Args:
    bins: from `evaluate.eligibility.reliability`.
    p: [N] the predictions themselves.

  Returns:
    The figure; axes end at the next tenth above the largest value drawn.
  """
  figure = _figure(4.6, 5.2)
  top, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  limit = max(np.max(p), np.max(bins.observed), np.max(bins.predicted))
  limit = min(1.0, np.ceil(10 * limit + 1e-9) / 10)
  top.plot([0, limit], [0, limit], color=GREY, linewidth=0.8, linestyle='--')
  top.annotate('calibrated', (0.97 * limit, 0.97 * limit), color=GREY, fontsize=8, ha='right',
               xytext=(-8, 0), textcoords='offset points')
  top.plot(bins.predicted, bins.observed, color=PALETTE[0], marker='o', markersize=5, linewidth=1.4)
  top.set_xlim(-0.02 * limit, 1.02 * limit)
  top.set_ylim(-0.02 * limit, 1.02 * limit)
  top.set_ylabel('observed eligibility (share)')
  below.hist(p, bins=np.linspace(0, limit, 31), color=PALETTE[0], alpha=0.6)
  below.set_xlabel('predicted eligibility, p_qual (probability)')
  below.set_ylabel('pairs')
  for axes in (top, below):
    _clean(axes)
  return figure


def _figure(width: float, height: float) -> Figure:
  return Figure(figsize=(width, height), layout='constrained', facecolor='white')


def _clean(axes: Axes) -> None:
  axes.spines[['top', 'right']].set_visible(False)
  axes.grid(color='#dddddd', linewidth=0.6)
  axes.set_axisbelow(True)
  axes.tick_params(labelsize=9)


def _smooth(values: np.ndarray) -> np.ndarray:
  """A running mean over about a twentieth of the values, over fewer at the ends."""
  reach = len(values) // 40
  total = np.cumsum(np.pad(values, (1, 0)))
  at = np.arange(len(values))
  low, high = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(values))
  return (total[high] - total[low]) / (high - low)


def _bars(intervals: Sequence[Interval]) -> np.ndarray:
  """[2, T] lengths below and above the value, 0 where there is no interval."""
  bars = [(v.value - v.low, v.high - v.value) for v in intervals]
  return np.maximum(np.nan_to_num(np.array(bars, np.float64)), 0).T


def _points(axes: Axes, x: np.ndarray, intervals: Sequence[Interval], i: int, label: str) -> None:
  axes.errorbar(x, [v.value for v in intervals], yerr=_bars(intervals), color=PALETTE[i],
                marker=MARKERS[i], markersize=5, linestyle='none', elinewidth=1.2, capsize=2,
                label=label)
