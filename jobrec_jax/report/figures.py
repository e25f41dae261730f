"""The figures of a report. Each function returns a matplotlib Figure for a wide or narrow page."""

from collections.abc import Mapping, Sequence
import textwrap
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

from jobrec_jax.evaluate.control import ControlRow
from jobrec_jax.evaluate.eligibility import Reliability
from jobrec_jax.evaluate.frontier import FrontierPoint
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.report.canvas import (
    BACK,
    MARKERS,
    PALETTE,
    SOFT,
    clean,
    legend,
    panels,
    ramp,
)


class TradeoffPoint(NamedTuple):
  """A policy's true eligibility and preference on the same lists; tau None where none was asked."""

  tau: float | None
  eligibility: Interval
  preference: Interval


class Estimate(NamedTuple):
  """A named number with its interval, of a group that is drawn in one colour."""

  name: str
  group: str
  interval: Interval


def estimates(rows: Mapping[str, Sequence[Estimate]], groups: Mapping[str, str], label: str,
              marks: Mapping[str, float], narrow: bool = False) -> Figure:
  """Numbers with intervals, one below the other, a panel for each kind.

  Args:
    rows: for each panel its numbers, from top to bottom.
    groups: name -> colour, in the order of their markers.
    label: of the horizontal axis.
    marks: for each panel where a dashed line stands, e.g. at chance or at 0.
    narrow: whether the page is.
  """
  lines = max(map(len, rows.values()))
  figure, axes_list = panels(len(rows), narrow, 5.2, 1.0 + (0.32 if narrow else 0.24) * lines)
  for axes, (title, of) in zip(axes_list, rows.items()):
    for i, (group, colour) in enumerate(groups.items()):
      at = [k for k, r in enumerate(of) if r.group == group]
      if at:
        values = [of[k].interval for k in at]
        axes.errorbar([v.value for v in values], at, xerr=_bars(values), linestyle='none',
                      color=colour, marker=MARKERS[i], markersize=5,
                      elinewidth=1.4, label=group)
    if title in marks:
      axes.axvline(marks[title], color=SOFT, linewidth=0.9, linestyle='--', zorder=0)
    axes.set_yticks(range(len(of)), [textwrap.fill(r.name, 20) if narrow else r.name for r in of])
    axes.set_ylim(len(of) - 0.4, -0.6)
    axes.set_title(textwrap.fill(title, 24) if narrow else title, fontsize=10, loc='left')
    axes.set_xlabel(label)
    axes.margins(x=0.06)
    axes.locator_params(axis='x', nbins=3 if narrow else 6)  # so that labels stay apart
    clean(axes)
  if len(groups) > 1:
    legend(figure, narrow)
  return figure


def training_curves(rows: Sequence[Mapping], metrics: Mapping[str, str],
                    narrow: bool = False) -> Figure:
  """One panel for each stage: its losses against steps, faint as measured and smoothed on top.

  Args:
    rows: dicts with 'stage', 'step' and metrics.
    metrics: key -> how it is called.
    narrow: whether the page is.

  Raises:
    ValueError: if no row has one of the metrics.
  """
  stages: dict[str, dict[str, list]] = {}
  for row in rows:
    for metric in metrics.keys() & row.keys():
      stages.setdefault(str(row['stage']), {}).setdefault(metric, []).append(
          (row['step'], row[metric]))
  if not stages:
    raise ValueError(f'no row has one of {list(metrics)}')
  figure, axes_list = panels(len(stages), narrow)
  for axes, (stage, found) in zip(axes_list, stages.items()):
    for i, (metric, name) in enumerate(metrics.items()):
      if metric in found:
        step, value = np.asarray(sorted(found[metric]), np.float64).T
        axes.plot(step, value, color=PALETTE[i], alpha=0.3, linewidth=1)
        axes.plot(step, _smooth(value), color=PALETTE[i], linewidth=1.8, label=name)
    axes.set_title(stage, fontsize=10, loc='left')
    axes.set_xlabel('step')
    axes.set_ylabel('loss (nats)')
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    clean(axes)
  legend(figure, narrow)
  return figure


def policy_curves(history: Mapping[str, np.ndarray], taus: np.ndarray,
                  narrow: bool = False) -> Figure:
  """Stage 2 over epochs, a line for each requirement: C, which it should reach, and mu.

  Args:
    history: 'eligibility' and 'multiplier', [epochs, K].
    taus: [K] the requirements, ascending.
    narrow: whether the page is.
  """
  figure, (reached, multiplier) = panels(2, narrow)
  epochs = np.arange(1, len(history['eligibility']) + 1)
  step = max(1, -(-len(taus) // 12))
  for k, (tau, color) in enumerate(zip(taus, ramp(len(taus)))):
    reached.plot(epochs, history['eligibility'][:, k], color=color, linewidth=1.3)
    multiplier.plot(epochs, history['multiplier'][:, k], color=color, linewidth=1.3)
    reached.axhline(tau, xmin=0.97, color=color, linewidth=2.6, clip_on=False)
    if k % step == 0 or k == len(taus) - 1:
      reached.annotate(f'{tau:.3f}', (1.01, tau), xycoords=('axes fraction', 'data'), color=color,
                       fontsize=8, va='center')
  reached.set_title('C for each τ', fontsize=10, loc='left')
  reached.set_ylabel('predicted eligibility C')
  multiplier.set_title('multiplier μ for each τ', fontsize=10, loc='left')
  multiplier.set_ylabel('μ (linear to 1, then log)')
  multiplier.set_yscale('symlog', linthresh=1.0)
  multiplier.set_ylim(bottom=min(0.0, float(np.min(history['multiplier']))))
  for axes in (reached, multiplier):
    axes.set_xlabel('epoch')
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    clean(axes)
  return figure


def preference_against_eligibility(
    series: Mapping[str, Sequence[TradeoffPoint]], lines: Mapping[str, np.ndarray],
    preference_label: str = 'preference, NDCG@5', narrow: bool = False) -> Figure:
  """What each system gives the candidate against how eligible its recommendations truly are.

  Args:
    series: for each system its points, joined in the order of tau; the ends are labelled with it.
    lines: for each bound [N, 2] (eligibility, preference).
    preference_label: of the vertical axis.
    narrow: whether the page is.

  Returns:
    The figure; bars are the points' intervals.
  """
  figure, (axes,) = panels(1, narrow, 6.0, 4.4 if not narrow else 5.4)
  for (name, line), style in zip(lines.items(), ('-', '--', ':')):
    axes.plot(*np.asarray(line).T, color=SOFT, linewidth=1.3, linestyle=style, label=name, zorder=0)
  for i, (name, points) in enumerate(series.items()):
    points = sorted(points, key=lambda p: -np.inf if p.tau is None else p.tau)
    x, y = [p.eligibility for p in points], [p.preference for p in points]
    color = PALETTE[i % len(PALETTE)]
    axes.errorbar(
        [v.value for v in x], [v.value for v in y], xerr=_bars(x), yerr=_bars(y), color=color,
        marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1.4, elinewidth=0.8,
        ecolor=(color, 0.4), linestyle='-' if len(points) > 1 else 'none', label=name)
    named = [p for p in (points[0], points[-1]) if p.tau is not None]
    for p, (dx, dy) in zip(named, ((-6, 6), (6, -10))):  # the points between lie close together
      axes.annotate(f'τ {p.tau:.3g}', (p.eligibility.value, p.preference.value), color=color,
                    xytext=(dx, dy), textcoords='offset points', fontsize=9,
                    ha='right' if dx < 0 else 'left')
  axes.set_xlabel('true eligibility of the five recommended')
  axes.set_ylabel(preference_label)
  axes.margins(x=0.08, y=0.08)
  clean(axes)
  legend(figure, narrow, 2)
  return figure


def families(curves: Mapping[str, np.ndarray], bound: str, marked: str,
             narrow: bool = False) -> Figure:
  """Rankings by one parameter, a line for each family, and the bound that none passes.

  Args:
    curves: for each family [N, 2] (eligibility, preference) of the five recommended.
    bound: the family that is drawn as one.
    marked: the family whose points are shown.
    narrow: whether the page is.
  """
  figure, (axes,) = panels(1, narrow, 6.0, 4.4 if not narrow else 5.8)
  axes.plot(*curves[bound].T, color=SOFT, linewidth=1.6, label=bound, zorder=0)
  others = [name for name in curves if name not in (bound, marked)]
  for i, name in enumerate((marked, *others)):
    points = {'marker': MARKERS[i], 'markersize': 6, 'zorder': 4} if name == marked else {}
    axes.plot(*curves[name].T, color=PALETTE[i % len(PALETTE)], linewidth=1.4,
              linestyle='-' if name == marked else ('--', ':', '-.')[i % 3], label=name, **points)
  axes.set_xlabel('eligibility of the five recommended (probability)')
  axes.set_ylabel('preference (probability)')
  clean(axes)
  legend(figure, narrow, 2)
  return figure


def reached_against_asked(rows: Sequence[ControlRow], narrow: bool = False) -> Figure:
  """Eligibility reached against the eligibility asked for; on the diagonal it is what was asked.

  Args:
    rows: one for each requirement.
    narrow: whether the page is.

  Returns:
    The figure: predicted C on stage 2's lists and, with intervals, predicted and true eligibility
    on held-out lists.
  """
  rows = sorted(rows, key=lambda r: r.tau)
  tau = np.array([r.tau for r in rows])
  figure, (axes,) = panels(1, narrow, 5.6, 4.4)
  # Side by side, so that intervals at the same tau do not hide each other.
  shift = 0.09 * (np.diff(tau).min() if len(tau) > 1 else 0.0)
  axes.plot(tau, [r.reached for r in rows], color=PALETTE[-1], marker='D', markersize=4,
            linestyle='none', label="predicted, stage 2's lists")
  _points(axes, tau - shift, [r.heldout for r in rows], 0, 'predicted, held-out lists')
  known = [(t, r.true) for t, r in zip(tau, rows) if r.true is not None]
  if known:
    _points(axes, np.array([t for t, _ in known]) + shift, [v for _, v in known], 1,
            'true, held-out lists')
  low, high = axes.get_xlim()
  axes.plot([low, high], [low, high], color=SOFT, linewidth=0.9, linestyle='--', zorder=0,
            label='as asked')
  axes.set_xlim(low, high)
  axes.set_xlabel('eligibility asked for, τ (probability)')
  axes.set_ylabel('eligibility reached (probability)')
  clean(axes)
  legend(figure, narrow, 2)
  return figure


def frontier(points: Mapping[str, Sequence[FrontierPoint]], exact: Mapping[str, np.ndarray],
             narrow: bool = False) -> Figure:
  """J against C of every system, a panel for each kind of lists; no policy lies above the line.

  Args:
    points: for each kind of lists its points; those of 'exact dual' are left to the line.
    exact: for each kind of lists [N, 2] (C, J) of the exact dual.
    narrow: whether the page is.
  """
  figure, axes_list = panels(len(points), narrow, 4.9, 3.6)
  for axes, (name, rows) in zip(axes_list, points.items()):
    axes.plot(*exact[name].T, color=SOFT, linewidth=1.3, label='exact dual', zorder=0)
    systems = dict.fromkeys(r.system for r in rows if r.system != 'exact dual')
    for i, system in enumerate(systems):
      c, J = np.array([(r.reached, r.value) for r in rows if r.system == system]).T
      # The first stands out where others lie on top of it.
      axes.plot(c, J, color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)],
                markersize=5 if i else 8, fillstyle='full' if i else 'none', linestyle='none',
                label=system)
    axes.set_title(name, fontsize=10, loc='left')
    axes.set_xlabel('predicted eligibility C (probability)')
    axes.set_ylabel('objective J (nats)')
    clean(axes)
  if len(figure.axes[0].get_legend_handles_labels()[1]) <= 8:
    legend(figure, narrow)
  return figure


def certified_eligibility(taus: np.ndarray, series: Mapping[str, Mapping[str, np.ndarray]],
                          chosen: Mapping[str, float | None], level: float,
                          narrow: bool = False) -> Figure:
  """Predicted, true and certified eligibility over tau, a panel for each loss.

  Args:
    taus: [M] ascending.
    series: for each loss its lines by name, [M] mean eligibility.
    chosen: by loss, the least certified tau; None where none is.
    level: the eligibility that is certified from there on.
    narrow: whether the page is.

  Returns:
    The figure; the certified line begins where the certificate does.
  """
  figure, axes_list = panels(len(series), narrow, sharey=True)
  for axes, (loss, lines) in zip(axes_list, series.items()):
    axes.axhline(level, color=SOFT, linewidth=0.9, linestyle='--', zorder=0, label='asked')
    for i, (name, values) in enumerate(lines.items()):
      axes.plot(taus, values, color=PALETTE[i], marker=MARKERS[i], markersize=4, linewidth=1.4,
                label=name)
    first = chosen[loss]
    if first is not None:
      axes.plot([first, taus[-1]], [level, level], color=PALETTE[2], marker='|', markersize=9,
                linewidth=2.4, label='certified, at least')
    axes.set_title(loss if first is not None else f'{loss}: none certified', fontsize=10,
                   loc='left')
    axes.set_xlabel('eligibility asked for, τ (probability)')
    clean(axes)
  axes_list[0].set_ylabel('eligibility (probability)')
  legend(figure, narrow)
  return figure


def reliability_diagram(bins: Reliability, p: np.ndarray, narrow: bool = False) -> Figure:
  """Observed share of eligible pairs against p_qual, and beside it how often each p_qual occurs.

  Args:
    bins: from `evaluate.eligibility.reliability`.
    p: [N] the predictions themselves.
    narrow: whether the page is.

  Returns:
    The figure; axes end at the next tenth above the largest value drawn.
  """
  figure, (curve, counts) = panels(2, narrow)
  limit = max(np.max(p), np.max(bins.observed), np.max(bins.predicted))
  limit = min(1.0, np.ceil(10 * limit + 1e-9) / 10)
  curve.plot([0, limit], [0, limit], color=SOFT, linewidth=0.9, linestyle='--')
  curve.annotate('calibrated', (0.97 * limit, 0.97 * limit), color=SOFT, fontsize=9, ha='right',
                 xytext=(-8, 0), textcoords='offset points')
  curve.plot(bins.predicted, bins.observed, color=PALETTE[0], marker='o', markersize=5,
             linewidth=1.4)
  curve.set_ylim(-0.02 * limit, 1.02 * limit)
  curve.set_ylabel('observed eligibility (share)')
  counts.hist(p, bins=np.linspace(0, limit, 31), color=PALETTE[0], alpha=0.6)
  counts.set_ylabel('pairs')
  for axes in (curve, counts):
    axes.set_xlim(-0.02 * limit, 1.02 * limit)
    axes.set_xlabel('predicted eligibility, p_qual (probability)')
    clean(axes)
  return figure


class Separation(NamedTuple):
  """An expert's correlations with both truths: plain, and each given the other.

  Attributes:
    expert: its name.
    plain, given: with P and with Q.
    perfect: where the own truth itself stands, plain: the truths correlate.
  """

  expert: str
  plain: tuple[Interval, Interval]
  given: tuple[Interval, Interval]
  perfect: tuple[float, float]


def separation(experts: Sequence[Separation], narrow: bool = False) -> Figure:
  """De-conflation: arrows from plain to partial correlations with P (across) and Q (up).

  Args:
    experts: that of preference should end on the horizontal axis, that of qualification on the
      vertical one.
    narrow: whether the page is.
  """
  figure, (axes,) = panels(1, narrow, 5.6, 4.6 if not narrow else 4.4)
  for line in (axes.axhline, axes.axvline):
    line(0, color=SOFT, linewidth=1.1)
  axes.plot(*np.transpose([e.perfect for e in experts]), linestyle='none', marker='x', color=SOFT,
            markersize=6, label='the truths themselves, plain')
  for i, e in enumerate(experts):
    (x0, y0), (x1, y1) = e.plain, e.given
    for (x, y), fill, words in (((x0, y0), BACK, 'plain'),
                                ((x1, y1), PALETTE[i], 'given the other')):
      axes.errorbar([x.value], [y.value], xerr=_bars([x]), yerr=_bars([y]), color=PALETTE[i],
                    marker=MARKERS[i], markersize=7, markerfacecolor=fill, elinewidth=1.2,
                    linestyle='none', label=f'{e.expert}, {words}')
    axes.annotate('', (x1.value, y1.value), (x0.value, y0.value), arrowprops={
        'arrowstyle': '->', 'color': PALETTE[i], 'linewidth': 1.5, 'shrinkA': 5, 'shrinkB': 5})
  low = min(-0.1, *(v.low for e in experts for v in (*e.plain, *e.given)))
  axes.set_xlim(low, 1.05)
  axes.set_ylim(low, 1.05)
  axes.set_xlabel('correlation with P, what the candidate wants')
  axes.set_ylabel('correlation with Q, what the employer accepts')
  clean(axes)
  legend(figure, narrow, 2)
  return figure


def _smooth(values: np.ndarray) -> np.ndarray:
  """A running mean over about a twentieth of the values, over fewer at the ends."""
  reach = max(len(values) // 40, min(2, len(values) // 8))
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
