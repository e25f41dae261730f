"""Tables of a study in Markdown, from its kept rows alone: for results.md, README and docs.

Rows are those of a study's results.json, as plain mappings with None for what is no number.
"""

from collections.abc import Collection, Mapping, Sequence
import math
import statistics
from typing import Any

from jobrec_jax.report.compared import BETTER, OTHER, SAME, WORSE
from jobrec_jax.report.findings import WITHIN
from jobrec_jax.report.results import CANARY, CEILING, Table, interval_text

Row = Mapping[str, Any]
MARKS = {BETTER: ' ▲', WORSE: ' ▼', OTHER: ' (τ)'}
EXPERTS = ('preference expert', 'qualification expert', 'preference expert, narratives blanked')
CHANCE = 'canary: constant'
PAIRS = 'uniform test pairs'
FOLLOWS = 0.1  # a score that correlates less with its truth is no estimate of it
ACROSS = ', candidates of a job', ', jobs of a candidate'  # of preference, of qualification


def differences(results: Mapping[str, Any]) -> str:
  """A row for each variant, a column for each metric: the reference's mean ± standard deviation,
  then each variant's difference to it, marked where it is told apart (Holm-corrected)."""
  compared = results['compared']
  metrics = list(dict.fromkeys(r['short'] for r in compared))
  at = {(r['system'], r['short']): r for r in compared}
  names = list(dict.fromkeys(r['system'] for r in compared))
  lines = [f"| variant | {' | '.join(metrics)} |", f"|---|{'---:|' * len(metrics)}"]
  for name in names:
    cells = [mean_and_sd(at[name, m]) if name == names[0] else difference(at[name, m])
             for m in metrics]
    lines.append(f"| {name} | {' | '.join(cells)} |")
  return '\n'.join(lines)


def told_apart(results: Mapping[str, Any]) -> str:
  """A line for each difference that is told apart, with its interval and corrected p."""
  lines = []
  for r in results['compared']:
    if r['verdict'] in (BETTER, WORSE):
      interval = ', '.join(f'{r[end]:.3f}'.replace('-', '−') for end in ('low', 'high'))
      p = '< 0.001' if r['p_holm'] < 0.001 else f"{r['p_holm']:.3f}"
      lines.append(f"- {r['system']} is {r['verdict']} in {r['metric']}: "
                   f"{difference(r)[:6]} [{interval}], p {p}")
  return '\n'.join(lines) or 'No variant is told apart from the first.'


def purposes(results: Mapping[str, Any]) -> str:
  """What each variant is for."""
  lines = ['| variant | |', '|---|---|']
  return '\n'.join(lines + [f'| {name} | {purpose} |'
                            for name, purpose in results['variants'].items()])


def mean_and_sd(row: Row) -> str:
  """'0.895 ± 0.012'; '–' where a run has no value."""
  if row['mean'] is None:
    return '–'
  spread = '' if row['sd'] is None else f" ± {row['sd']:.3f}"
  return f"{row['mean']:.3f}{spread}".replace('-', '−')


def difference(row: Row) -> str:
  """'−0.012 ▼', marked where it is told apart; '=' where both stand on the same results, the mean
  where there is no difference."""
  if row['diff'] is None:
    return mean_and_sd(row)
  if row['verdict'] == SAME:
    return '='
  sign = '−' if row['diff'] < 0 else '+'
  return f"{sign}{abs(row['diff']):.3f}{MARKS.get(row['verdict'], '')}"


def over_runs(rows: Sequence[Row], **where: Any) -> str:
  """'0.895 ± 0.012' of the rows that agree with `where`, one a run; '' without any.

  Raises:
    ValueError: a run has several.
  """
  found = [r for r in rows if all(r[k] == v for k, v in where.items())]
  if len({(r['data_seed'], r['seed']) for r in found}) != len(found):
    raise ValueError(f'{where} must be one row a run, got {len(found)}')
  return mean_and_spread([r['value'] for r in found if r['value'] is not None])


def mean_and_spread(values: Sequence[float]) -> str:
  """'0.895 ± 0.012', '0.895' where all are the same, '' without any."""
  if not values:
    return ''
  varies = len(set(values)) > 1  # what does not train is the same at every training seed
  spread = f' ± {statistics.stdev(values):.3f}' if varies else ''
  return f'{statistics.mean(values):.3f}{spread}'.replace('-', '−')


def ranking(rows: Sequence[Row], metric: str = 'ndcg@5') -> str:
  """A metric of every system that has it, for both perspectives, from the values of one variant."""
  return _ranking(rows, metric, ('', ''), 'preference | qualification')


def across(rows: Sequence[Row], metric: str = 'ndcg@5') -> str:
  """The same along the other axis."""
  return _ranking(rows, metric, ACROSS, 'preference, candidates of a job | '
                                        'qualification, jobs of a candidate')


def ahead(rows: Sequence[Row], metric: str = 'ndcg@5') -> str:
  """By how much the expert of each perspective is ahead of each rival, along both axes.

  Args:
    rows: 'systems' of a study's results.
    metric: of these.
  """
  split = rows[0]['split']
  columns = [(p, f'{split}{axis}') for p, other in zip(('preference', 'qualification'), ACROSS)
             for axis in ('', other)]
  lines = ['| the expert less | preference | along the other axis | qualification | along the '
           'other axis |', '|---|---:|---:|---:|---:|']
  at = {(r['system'], r['perspective'], r['split']): r['ahead'] for r in rows
        if r['metric'] == metric and r['ahead']}
  names = [n for n in dict.fromkeys(name for name, *_ in at) if n not in EXPERTS
           and CEILING not in n and not n.startswith(CANARY)]
  for name in reversed(names):
    cells = [_signed(at.get((name, *column))) for column in columns]
    lines.append(f'| {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def _signed(interval: Sequence[float | None] | None) -> str:
  """'+0.050 [+0.028, +0.072]'."""
  if interval is None or None in interval:
    return ''
  mean, low, high = (f'{x:+.3f}'.replace('-', '−') for x in interval)
  return f'{mean} [{low}, {high}]'


def _ranking(rows: Sequence[Row], metric: str, axes: tuple[str, str], head: str) -> str:
  plain, split = {'metric': metric, 'tau': None}, rows[0]['split']
  lines = [f'| system | {head} |', '|---|---:|---:|']
  names = dict.fromkeys(r['system'] for r in rows if r['metric'] == metric and r['tau'] is None)
  rivals = [name for name in names if name not in EXPERTS and CEILING not in name
            and not name.startswith(CANARY) and name != 'policy']  # the strongest stands last
  shown = (*EXPERTS, *reversed(rivals), CHANCE)
  by_title = {name.removeprefix(f'{CANARY} '): (name, name) for name in shown}
  by_title['the truth (ceiling)'] = 'true P (ceiling)', 'true Q (ceiling)'
  for title, systems in by_title.items():
    cells = [over_runs(rows, system=system, perspective=p, split=f'{split}{axis}', **plain)
             for system, p, axis in zip(systems, ('preference', 'qualification'), axes)]
    if any(cells):
      lines.append(f'| {title} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def systems(rows: Sequence[Row], seconds: Mapping[str, float],
            marked: Collection[str] = ()) -> list[Table]:
  """Every system × what is measured of it, a table for each split: mean over runs with interval.

  Args:
    rows: 'systems' of a study's results; measures are columns as they come.
    seconds: system -> what its stages took, the mean over runs.
    marked: systems that get a †.
  """
  tables = []
  for split in dict.fromkeys(r['split'] for r in rows):
    at = {(r['system'], f"{r['perspective']} {r['metric']}"): r for r in rows
          if r['split'] == split}
    columns = list(dict.fromkeys(column for _, column in at))
    body = tuple((f'{name} †' if name in marked else name,
                  *(_interval(at.get((name, column))) for column in columns),
                  f'{seconds[name]:.1f}' if name in seconds else '')
                 for name in dict.fromkeys(name for name, _ in at))
    tables.append(Table(split, ('system', *columns, 'seconds'), body))
  return tables


def _interval(row: Row | None) -> str:
  if row is None:
    return ''
  return interval_text(*(math.nan if row[k] is None else row[k] for k in ('value', 'low', 'high')))


def policy(rows: Sequence[Row]) -> str:
  """What each requirement of the grid brings; each run has a grid of its own."""
  lines = ["| requirement | τ | C, stage 2's lists | C, held-out lists | true C, held-out | true "
           'eligibility of the top 5 | preference NDCG@5 |', '|---|---:|---:|---:|---:|---:|---:|']
  split = rows[0]['split']
  where = (('stage 2 lists', 'policy', 'predicted C'), ('held-out lists', 'policy', 'predicted C'),
           ('held-out lists', 'policy', 'true C'), (split, 'policy', 'true eligibility@5'),
           (split, 'preference', 'ndcg@5'))
  for requirement in dict.fromkeys(r['requirement'] for r in rows if r['requirement']):
    at = [r for r in rows if r['requirement'] == requirement]
    cells = [over_runs(at, split=s, perspective=p, metric=m) for s, p, m in where]
    tau = statistics.mean({(r['data_seed'], r['seed']): r['tau'] for r in at}.values())
    name = requirement.removeprefix('requirement ').replace('no requirement', 'none')
    lines.append(f'| {" | ".join([name, f"{tau:.3f}" if tau else "", *cells])} |')
  return '\n'.join(lines)


def kept(rows: Sequence[Row]) -> str:
  """True preference of the top five at equal true eligibility, of the policy and of the bound."""
  lines = ['| of the way from P to Q | true eligibility | true preference of the policy | of the '
           'truth |', '|---|---:|---:|---:|']
  metrics = dict.fromkeys(r['metric'] for r in rows if r['metric'].endswith(' of the way'))
  for metric in (m for m in metrics if m.startswith('true preference')):
    e = metric.replace('preference', 'eligibility')
    own = [r for r in rows if r['system'] == 'policy' and r['metric'] == metric]
    reached = [r for r in own if r['value'] is not None]
    cell = (over_runs(own, metric=metric) if len(reached) == len(own)
            else f'reached by {len(reached)} of {len(own)} runs')
    bounds = [over_runs([r for r in rows if r['system'] != 'policy'], metric=m)
              for m in (e, metric)]
    share = metric.split(' at ')[1].removesuffix(' of the way')
    lines.append(f'| {share} | {bounds[0]} | {cell} | {bounds[1]} |')
  return '\n'.join(lines)


def losses(rows: Sequence[Row]) -> str:
  """What the policy and plug-ins lose of preference against the truth's own frontier."""
  lines = ['| loss of true preference@5 at equal true eligibility | mean ± sd over runs |',
           '|---|---:|']
  found = [r for r in rows if r['metric'] == 'loss of true preference@5']
  for system in dict.fromkeys(r['system'] for r in found):
    own = [r for r in found if r['system'] == system]
    reached = [r for r in own if r['value'] is not None]
    cell = over_runs(reached) if len(reached) == len(own) else (
        f'reached by {len(reached)} of {len(own)} runs')
    lines.append(f'| {system} | {cell} |')
  return '\n'.join(lines)


def surplus(rows: Sequence[Row]) -> str:
  """The expected surplus of rankings, and what they miss of the most that the truths allow."""
  lines = ['| ranked by | expected surplus@5 | regret |', '|---|---:|---:|']
  found = [r for r in rows if r['metric'].endswith('expected surplus@5')]
  for key in dict.fromkeys((r['system'], r['requirement']) for r in found):
    own = [r for r in found if (r['system'], r['requirement']) == key]
    cells = [over_runs(own, metric=f'{start}expected surplus@5') for start in ('', 'regret of ')]
    lines.append(f'| {", ".join(part for part in key if part)} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def calibration(rows: Sequence[Row]) -> str:
  """How far p_qual is from the share of eligible pairs, over all of them and job by job."""
  return _matrix(rows, {'calibration error': 'calibration error',
                        'by job': 'calibration error by job'})


def separation(rows: Sequence[Row]) -> str:
  """How far each system follows its own truth, and a line of `separated`, of both perspectives.

  Where a run of a system hardly follows its own truth (`FOLLOWS`), attenuation says nothing.
  """
  lines = ['| | preference: P | Q given P | by attenuation | P and Q given the score | '
           'qualification: Q | P given Q | by attenuation | P and Q given the score |',
           '|---|' + '---:|' * 8]
  found = [r for r in rows if r['split'] == PAIRS and r['value'] is not None]
  for system in dict.fromkeys(r['system'] for r in found if ' given ' in r['metric']):
    cells = []
    for own, within in (('P', WITHIN), ('Q', '')):
      told = zip(*separated(found, system, own))
      cells += [over_runs(found, system=system, metric=f'correlation with {own}{within}'),
                *(['' if any(map(math.isnan, column)) else mean_and_spread(column)
                   for column in told] or [''] * 3)]
    lines.append(f'| {system} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def separated(rows: Sequence[Row], system: str, own: str) -> list[tuple[float, float, float]]:
  """How far a system follows the other truth given its own, 'P' or 'Q', what of that attenuation
  alone would give, and what both truths have in common given its score, for each run; see
  `deconflation_rows`."""
  other, within = ('Q', WITHIN) if own == 'P' else ('P', '')
  value = [{(r['data_seed'], r['seed']): r['value'] for r in rows if r['system'] == of and
            r['metric'] == f'correlation with {truth}{within}'}
           for of, truth in ((system, own), (system, other), ('true P', 'Q'))]
  told = []
  for run in value[0]:
    a, b, c = (of[run] for of in value)
    rest = math.sqrt((1 - a * a) * (1 - c * c))
    told.append(((b - a * c) / rest, c * (1 / a - a) / rest if a > FOLLOWS else math.nan,
                 (c - a * b) / math.sqrt((1 - a * a) * (1 - b * b))))
  return told


def errors(rows: Sequence[Row], own: str) -> str:
  """Rank correlations with the own truth, 'P' or 'Q', and the errors of its logit by part."""
  return _matrix(rows, {
      **{f'Spearman within a {of}': f'Spearman with {own} within a {of}'
         for of in ('candidate', 'job')},
      'error of the logit, mean': f'error of logit {own}, mean',
      **{f'variance of {of}': f'error of logit {own}, variance of {of}'
         for of in ('candidates', 'jobs', 'pairs')}})


def _matrix(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
  """A line for each system, a column for each of some metrics of uniform pairs, by their titles."""
  found = [r for r in rows if r['split'] == PAIRS and r['metric'] in columns.values()]
  lines = [f'| | {" | ".join(columns)} |', f"|---|{'---:|' * len(columns)}"]
  for system in dict.fromkeys(r['system'] for r in found):
    cells = [over_runs(found, system=system, metric=metric) for metric in columns.values()]
    lines.append(f'| {system} | {" | ".join(cells)} |')
  return '\n'.join(lines)
