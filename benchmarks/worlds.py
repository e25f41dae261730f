"""Tables and the picture of docs/funnel.md: estimators over worlds, from kept rows of a study.

A world is a variant whose market differs; runs of one world differ by their market's seed.
"""

from collections.abc import Mapping, Sequence
import statistics
from typing import Any, NamedTuple

from scipy.stats import t as student

from benchmarks.pictures import BLUE, GREY, STYLE
from jobrec_jax.censoring.estimators import ESTIMATORS

Results = Mapping[str, Any]
HIDDEN = '-hidden'
SPLIT = 'uniform test pairs'


class Measure(NamedTuple):
  """What a table shows of its systems: a metric, and the perspective that its rows name."""

  perspective: str
  metric: str


RANK_Q = Measure('qualification', 'Spearman with Q within a candidate')
RANK_P = Measure('preference', 'Spearman with P within a candidate')
MEAN_Q = Measure('qualification', 'error of logit Q, mean')
MIXED_Q = Measure('policy', 'correlation with P given Q')
MIXED_P = Measure('policy', 'correlation with Q given P, within candidates')
MEASURES = (RANK_Q, RANK_P, MEAN_Q, MIXED_Q, MIXED_P)
EXPERT = {'qualification': 'qualification expert', 'preference': 'preference expert'}
MISTAKES = 'naive', 'conflated'
ROBUST = 'DR', 'DR-JL', 'MRDR', 'self-normalised DR', 'targeted DR'
WHOLE = 'funnel likelihood'


def differ_in(results: Results) -> set[str]:
  """The settings in which the variants of a study differ from each other."""
  changes = [*results['changes'].values()]
  return {key for of in changes for key in of if any(
      key not in other or other[key] != of[key] for other in changes)}


def is_of_worlds(results: Results) -> bool:
  """Whether the variants of a study differ in their market."""
  return any(key.startswith('market.') for key in differ_in(results))


def kept_rows(results: Results) -> list[Mapping[str, Any]]:
  """The rows that the tables read, of every variant."""
  wanted = {m.metric for m in MEASURES}
  return [r for r in results['values'] if r['split'] == SPLIT and r['metric'] in wanted]


def table(results: Results, measure: Measure, hidden: bool) -> str:
  """A row for each system, a column for each world: mean ± standard deviation over markets."""
  worlds = [w for w in results['variants'] if w.endswith(HIDDEN) == hidden]
  heads = [w.removesuffix(HIDDEN).replace('-', ', ') for w in worlds]
  lines = [f'| {measure.metric} | {" | ".join(heads)} |', '|---|' + '---:|' * len(worlds)]
  for system in systems(results, measure):
    cells = []
    for world in worlds:
      found = [*by_market(results, world, system, measure).values()]
      spread = f' ± {statistics.stdev(found):.3f}' if len(found) > 1 else ''
      cells.append(f'{statistics.mean(found):.3f}{spread}'.replace('-', '−') if found else '')
    lines.append(f'| {system} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def assumptions() -> str:
  """What each estimator takes an unseen outcome for, and when its loss is unbiased."""
  lines = ['| estimator | what it does | unbiased where |', '|---|---|---|']
  lines += [f'| {name} | {estimator.does} | {estimator.assumes} |'
            for name, estimator in ESTIMATORS.items()]
  return '\n'.join(lines)


def against(results: Results) -> str:
  """How far the experts, the funnel's likelihood and the best doubly robust are ahead of mistakes.

  Paired by market, with 95% intervals of Student's t over markets, each of which has candidates,
  jobs and labels of its own.
  """
  rows = [(f'{EXPERT[measure.perspective]} − {m}', measure, EXPERT[measure.perspective], m)
          for measure in (RANK_P, RANK_Q) for m in MISTAKES]
  rows += [(f'{WHOLE} − {m}', RANK_P, WHOLE, m) for m in MISTAKES]
  rows += [(f'{WHOLE} − {m}', RANK_Q, WHOLE, m) for m in (*MISTAKES, 'applicants alone')]
  rows += [(f'best doubly robust − {m}', RANK_Q, '', m) for m in (*MISTAKES, 'applicants alone')]
  worlds = [*results['variants']]
  lines = ['| Spearman within a candidate | of | ' + ' | '.join(worlds) + ' |',
           '|---|---|' + '---:|' * len(worlds)]
  for name, measure, ours, other in rows:
    cells = [_difference(results, world, ours or best_robust(results, world), other, measure)
             for world in worlds]
    lines.append(f"| {name} | {'P' if measure is RANK_P else 'Q'} | {' | '.join(cells)} |")
  return '\n'.join(lines)


def best_robust(results: Results, world: str) -> str:
  """The doubly robust estimator that ranks best in a world, in the mean over markets."""
  return max(ROBUST, key=lambda s: statistics.mean(by_market(results, world, s, RANK_Q).values()))


def _difference(results: Results, world: str, ours: str, other: str, measure: Measure) -> str:
  a, b = (by_market(results, world, s, measure) for s in (ours, other))
  return over_markets([a[k] - b[k] for k in a])


def over_markets(found: Sequence[float]) -> str:
  """A mean, one number a market, with the 95% interval of Student's t over markets."""
  if len(found) < 2:
    return f'{found[0]:+.3f}'.replace('-', '−')
  mean, half = t_interval(found)
  return f'{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]'.replace('-', '−')


def t_interval(found: Sequence[float]) -> tuple[float, float]:
  """The mean of at least two numbers, and half its 95% interval by Student's t."""
  n = len(found)
  return statistics.mean(found), student.ppf(0.975, n - 1) * statistics.stdev(found) / n ** 0.5


def systems(results: Results, measure: Measure) -> list[str]:
  """Names of the systems that a measure knows, the experts first."""
  letter = 'Q' if measure in (RANK_Q, MEAN_Q, MIXED_Q) else 'P'
  perspective = 'qualification' if letter == 'Q' else 'preference'
  names = dict.fromkeys(r['system'] for r in results['values'] if r['metric'] == measure.metric
                        and r['perspective'] == measure.perspective)
  first = EXPERT[perspective]
  return [first, *(n for n in names if n not in EXPERT.values() and ',' not in n
                   and not n.startswith('true '))]


def by_market(results: Results, world: str, system: str, measure: Measure) -> dict[int, float]:
  """A system's value on each market of a world."""
  return {r['data_seed']: r['value'] for r in results['values']
          if (r['variant'], r['system'], r['perspective'], r['metric'])
          == (world, system, *measure) and r['value'] is not None}


LEFT, TOP, WIDTH, ROW, GAP = 150, 64, 180, 22, 40  # of panels


def picture(results: Results) -> str:
  """A panel for each world, a line for each system: Spearman with Q within a candidate.

  Filled where nothing is hidden, open with hidden causes.
  """
  worlds = [w for w in results['variants'] if not w.endswith(HIDDEN)]
  names = systems(results, RANK_Q)
  at = {(n, w): statistics.mean(found) for n in names for w in results['variants']
        if (found := [*by_market(results, w, n, RANK_Q).values()])}
  low = min(at.values()) // 0.1 * 0.1
  panels = [w for shown in ('uniform', 'recommender') for w in worlds if w.endswith(shown)]
  columns = len(panels) // 2
  tall = TOP + len(names) * ROW + 40
  wide = LEFT + columns * (WIDTH + GAP)
  caption = "Spearman's correlation with true Q within a candidate; open: hidden causes"
  parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {2 * tall}" role="img" '
           'aria-labelledby="title">',
           '<title id="title">How well each estimator ranks a candidate\'s jobs by their true '
           'eligibility, by world</title>', f'<style>{STYLE} .head {{ font-weight: 600; }}</style>']
  for i, world in enumerate(panels):
    left, top = LEFT + i % columns * (WIDTH + GAP), i // columns * tall + TOP
    parts += _panel(world, names, at, left, top, low, labelled=i % columns == 0)
  parts.append(f'<text x="{wide / 2:g}" y="{2 * tall - 6}" text-anchor="middle">{caption}</text>')
  return '\n'.join([*parts, '</svg>', ''])


def _panel(world: str, names: Sequence[str], at: Mapping[tuple[str, str], float], left: float,
           top: float, low: float, labelled: bool) -> list[str]:
  doubt, shown = world.split('-')
  floor = top + len(names) * ROW

  def x(value: float) -> float:
    return round(left + (value - low) / (1 - low) * WIDTH, 1)
  parts = [f'<text class="head" x="{left}" y="{top - 34}">self-censoring: {doubt}</text>',
           f'<text x="{left}" y="{top - 16}">shown by '
           f'{"chance" if shown == "uniform" else "a recommender"}</text>']
  ticks = [low + k * (1 - low) / 2 for k in range(3)]
  for tick in ticks:
    parts += [f'<path d="M{x(tick)} {top - 6} V{floor - 8}" stroke="{GREY}" '
              'stroke-opacity="0.25"/>',
              f'<text x="{x(tick)}" y="{floor + 12}" text-anchor="middle">{tick:.2f}</text>']
  for k, name in enumerate(names):
    y = top + k * ROW + 4
    if labelled:
      parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{_short(name)}</text>')
    for where, fill in ((world + HIDDEN, 'none'), (world, BLUE)):
      if (name, where) in at:
        parts.append(f'<circle cx="{x(at[name, where])}" cy="{y}" r="5" fill="{fill}" '
                     f'stroke="{BLUE}" stroke-width="1.5"/>')
  return parts


def _short(name: str) -> str:
  return {'logistic regression with words': 'words', 'qualification expert': 'expert'}.get(
      name, name)
