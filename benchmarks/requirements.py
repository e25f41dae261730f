"""Tables of docs/requirement.md: what a requirement binds, from kept rows of a study.

A variant's policy keeps its requirement in one sense; each run has a grid of its own.
"""

from collections.abc import Callable, Mapping, Sequence
import statistics
from typing import Any

from benchmarks.worlds import differ_in, over_markets
from jobrec_jax.report.findings import WITHIN
from jobrec_jax.report.study_tables import EXPERTS, separated

Results = Mapping[str, Any]
Row = Mapping[str, Any]
LISTS, DRAWN = 'held-out lists', 'jobs drawn for test candidates'
LOSS, REGRET = 'loss of true preference@5', 'regret of expected surplus@5'
KEEPERS = 'policy', 'plug-in p_pref + μ p_qual'
RANKERS = 'factorization machine with words', 'preference expert', 'true P (ceiling)'
KNOWN = 'correlation with P' + WITHIN


def is_of_requirements(results: Results) -> bool:
  """Whether variants differ in what tau binds."""
  return bool(differ_in(results) & {'policy.top_k', 'policy.eligibility'})


def is_of_candidates(results: Results) -> bool:
  """Whether variants differ in how many candidates the log has."""
  return 'market.candidates' in differ_in(results)


def kept_rows(results: Results) -> list[Row]:
  """The rows that the tables read: of variants beside the first, the policy's alone."""
  first = next(iter(results['variants']))
  if is_of_candidates(results):
    split = results['values'][0]['split']
    return [r for r in results['values'] if (r['split'] == split and (
        (r['metric'] == LOSS and r['system'] in KEEPERS) or
        ((r['metric'], r['perspective']) == ('ndcg@5', 'preference') and r['system'] in RANKERS)))
            or (r['system'] in (EXPERTS[0], 'true P')
                and r['metric'] in (KNOWN, KNOWN.replace('P', 'Q')))]
  return [r for r in results['values']
          if (r['system'] == 'policy' and ((r['split'], r['metric']) == (LISTS, 'true C')
                                          or r['metric'] in (LOSS, REGRET)))
          or (r['variant'] == first and (r['split'] == DRAWN or r['metric'] == REGRET))]


def truth(results: Results) -> str:
  """True C less tau at each requirement, on held-out lists like stage 2's.

  Of the requirement whose mean is greatest, with an interval over markets.
  """
  count = max(int(r['requirement'].split()[1]) for r in _at_requirements(results))
  lines = [f'| true C − τ | {" | ".join(f"{k} of {count}" for k in range(1, count + 1))} '
           '| greatest mean |', '|---|' + '---:|' * (count + 1)]
  for variant in results['variants']:
    gaps = [[(r['data_seed'], r['value'] - r['tau']) for r in _at_requirements(results)
             if r['variant'] == variant and r['requirement'].split()[1] == str(k)]
            for k in range(1, count + 1)]
    worst = max(gaps, key=lambda gap: abs(statistics.mean(x for _, x in gap)))
    means = [statistics.mean(x for market, x in worst if market == m)
             for m in dict.fromkeys(market for market, _ in worst)]
    cells = [_signed([x for _, x in gap]) for gap in gaps]
    lines.append(f'| {variant} | {" | ".join(cells)} | {over_markets(means)} |')
  return '\n'.join(lines)


def spread(results: Results) -> str:
  """By how much the gaps of `truth` vary: means of markets, and training seeds in their market.

  Standard deviations, the least and the greatest of all requirements; nothing where there is one
  market, or one seed.
  """
  lines = ['| sd of true C − τ | between markets | between training seeds of a market |',
           '|---|---:|---:|']
  for variant in results['variants']:
    gaps: dict[str, dict[int, list[float]]] = {}
    for r in _at_requirements(results):
      if r['variant'] == variant:
        own = gaps.setdefault(r['requirement'], {}).setdefault(r['data_seed'], [])
        own.append(r['value'] - r['tau'])
    markets = [statistics.stdev(map(statistics.mean, of.values())) for of in gaps.values()
               if len(of) > 1]
    seeds = [statistics.mean(map(statistics.variance, of.values())) ** 0.5 for of in gaps.values()
             if min(map(len, of.values())) > 1]
    lines.append(f'| {variant} | {_range(markets)} | {_range(seeds)} |')
  return '\n'.join(lines)


def _range(values: Sequence[float]) -> str:
  return f'{min(values):.3f} to {max(values):.3f}' if values else ''


def trade(results: Results) -> str:
  """What a policy loses of preference, and of expected surplus, whatever its tau binds."""
  lines = ['| variant | loss of true preference@5 | regret of surplus with no requirement | least '
           'regret of its requirements |', '|---|---:|---:|---:|']
  for variant in results['variants']:
    own = [r for r in results['values'] if r['variant'] == variant and r['system'] == 'policy']
    loss = [r['value'] for r in own if r['metric'] == LOSS]
    regret = [r for r in own if r['metric'] == REGRET]
    free = [r['value'] for r in regret if r['requirement'] == 'no requirement']
    by_run: dict[tuple, list[float]] = {}
    for r in regret:
      by_run.setdefault((r['data_seed'], r['seed']), []).append(r['value'])
    cells = map(_mean, (loss, free, [min(x) for x in by_run.values()]))
    lines.append(f'| {variant} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def regrets(results: Results) -> str:
  """The regret of expected surplus of rankings without a requirement, in the first variant."""
  first = next(iter(results['variants']))
  rows = [r for r in results['values'] if r['variant'] == first and r['metric'] == REGRET]
  lines = ['| ranked by | regret of expected surplus@5 |', '|---|---:|']
  for key in dict.fromkeys((r['system'], r['requirement']) for r in rows):
    own = [r['value'] for r in rows if (r['system'], r['requirement']) == key]
    lines.append(f'| {", ".join(part for part in key if part)} | {_mean(own)} |')
  return '\n'.join(lines)


def log(results: Results) -> str:
  """C by belief, by the log and in truth, on jobs drawn for test candidates; first variant."""
  first = next(iter(results['variants']))
  rows = [r for r in results['values'] if (r['variant'], r['split']) == (first, DRAWN)]
  names = 'predicted C', 'estimated C', 'true C'
  lines = ['| requirement | believed | estimated by the log | true | estimated − true |',
           '|---|---:|---:|---:|---:|']
  for requirement in dict.fromkeys(r['requirement'] for r in rows if r['requirement']):
    by_run = {name: {(r['data_seed'], r['seed']): r['value'] for r in rows
                     if (r['requirement'], r['metric']) == (requirement, name)} for name in names}
    apart = [by_run['estimated C'][run] - x for run, x in by_run['true C'].items()]
    cells = [*(_mean([*by_run[name].values()]) for name in names), _signed(apart)]
    lines.append(f"| {requirement.removeprefix('requirement ')} | {' | '.join(cells)} |")
  return '\n'.join(lines)


def propensities(results: Results) -> str:
  """How far the estimated chance to apply is right, and how many outcomes its weights leave."""
  first = next(iter(results['variants']))
  rows = [r for r in results['values'] if (r['variant'], r['split'], r['requirement']) == (
      first, DRAWN, '')]
  lines = ['| chance to apply | mean ± sd over runs |', '|---|---:|']
  for metric in dict.fromkeys(r['metric'] for r in rows):
    lines.append(f"| {metric} | {_mean([r['value'] for r in rows if r['metric'] == metric])} |")
  return '\n'.join(lines)


def candidates(results: Results) -> str:
  """What is lost of preference, how well it is ranked and how well told from qualification, by the
  number of candidates."""
  expert = EXPERTS[0]
  columns = {**{f'loss, {system}': (LOSS, system) for system in KEEPERS},
             **{f'NDCG@5, {system}': ('ndcg@5', system) for system in RANKERS},
             f'correlation with P, {expert}': (KNOWN, expert)}
  heads = [*columns, 'Q given P', 'by attenuation']
  lines = [f'| candidates | {" | ".join(heads)} |', '|---:|' + '---:|' * len(heads)]
  for variant in results['variants']:
    rows = [r for r in results['values'] if r['variant'] == variant]
    cells = [_mean([r['value'] for r in rows if (r['metric'], r['system']) == column])
             for column in columns.values()]
    followed, attenuated, _ = zip(*separated(rows, expert, 'P'))
    cells += [_mean(followed), _mean(attenuated)]
    lines.append(f"| {int(variant):,} | {' | '.join(cells)} |")
  return '\n'.join(lines)


TABLES: dict[str, Callable[[Results], str]] = {
    'truth': truth, 'spread': spread, 'trade': trade, 'regrets': regrets, 'log': log,
    'propensities': propensities}


def _at_requirements(results: Results) -> list[Row]:
  return [r for r in results['values'] if (r['split'], r['metric']) == (LISTS, 'true C')
          and r['requirement'].startswith('requirement ')]


def _number(x: float, sign: bool = False) -> str:
  return f'{x:+.3f}'.replace('-', '−') if sign else f'{x:.3f}'.replace('-', '−')


def _mean(values: Sequence[float]) -> str:
  spread = f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
  return f'{_number(statistics.mean(values))}{spread}'


def _signed(values: Sequence[float]) -> str:
  spread = f' ± {statistics.stdev(values):.3f}' if len(values) > 1 else ''
  return f'{_number(statistics.mean(values), True)}{spread}'
