"""A comparison in words: what differs in settings, and a table of what differs in results."""

from collections.abc import Sequence
import csv
import io
from pathlib import Path
import statistics

from jobrec_jax.pipeline.compare import (
    Member,
    as_systems,
    compare_systems,
    differing,
    load_run,
    requirements_of,
    without_seeds,
)
from jobrec_jax.pipeline.measures.subject import PREFERENCE, QUALIFICATION
from jobrec_jax.report.compared import OTHER, UNREACHED, ComparedRow, sampled
from jobrec_jax.report.results import CANARY, CEILING, Table, format_number, to_markdown
from jobrec_jax.schema.files import write_text


def compare_report(folders: Sequence[str], level: float = 0.95, everything: bool = False,
                   csv_file: str | None = None) -> str:
  """Compares run folders with the first, see `compare_systems`.

  Args:
    folders: of finished runs; those that differ in their seeds alone are one system.
    level: of the intervals.
    everything: all common rows.
    csv_file: where the rows are written, too.

  Returns:
    Markdown.
  """
  systems = as_systems([load_run(f) for f in folders])
  names = list(systems)
  settings = differing([without_seeds(runs[0].settings) for runs in systems.values()])
  members = {n: [r.member for r in runs] for n, runs in systems.items()}
  rows = compare_systems(members, names[0], level, everything)
  if csv_file:
    write_csv(csv_file, rows)
  about = Table('Settings that differ', ('setting', *names),
                tuple((k, *map(str, v)) for k, v in settings.items()))
  runs = Table('Runs', ('system', 'runs', 'training seeds', 'data seeds'), tuple(
      (n, f'{len(r)}', ', '.join(map(str, sorted({x.member.seed for x in r}))),
       ', '.join(map(str, sorted({x.member.data_seed for x in r})))) for n, r in systems.items()))
  shown = rows if everything else [r for r in rows if r.verdict not in (OTHER, UNREACHED)]
  tables = [comparison_table(shown, names[0], name, level) for name in names[1:]]
  notes = (standing(names[0], members[names[0]]), note(rows, level),
           untested(rows, [m for own in members.values() for m in own], everything))
  return '\n'.join([*map(to_markdown, (about, runs, *tables)), *filter(None, notes)])


def standing(name: str, members: Sequence[Member]) -> str:
  """How far a system's preference expert has come, in a line; '' where its rows have no other to
  show beside it."""
  values: dict[str, list[float]] = {}
  for member in members:
    own = [(r, e.value) for r, e in zip(member.rows, member.estimates)
           if (r.perspective, r.metric, r.tau, r.against) == ('preference', 'ndcg@5', None, None)]
    for row, value in own:
      if row.split == own[0][0].split:
        values.setdefault(row.system, []).append(value)
        split = row.split
  mean = {system: statistics.mean(v) for system, v in values.items()}
  rivals = [s for s in mean if not s.startswith((PREFERENCE, QUALIFICATION, CANARY))
            and CEILING not in s]
  strongest = max(rivals, key=mean.__getitem__, default=None)
  others = [f'strongest rival, {strongest}, {format_number(mean[strongest])}'] if rivals else []
  others += [f'{s} {format_number(mean[s])}' for s in mean if CEILING in s]
  if PREFERENCE not in mean or not others:
    return ''
  return (f'Preference ndcg@5 of {name}, {split}: {PREFERENCE} {format_number(mean[PREFERENCE])}; '
          f'{"; ".join(others)}.')


def untested(rows: Sequence[ComparedRow], members: Sequence[Member], everything: bool) -> str:
  """Which rows were not tested, and why, in a line; '' where all were.

  Args:
    rows: of the comparison.
    members: all runs of it.
    everything: whether the tables show these rows.
  """
  grids = [list(asked.values()) for m in members if (asked := requirements_of(m))]
  low, high = max((g[0] for g in grids), default=1), min((g[-1] for g in grids), default=0)
  same = (f'policy.taus between {low:.3f} and {high:.3f} asks all for the same' if low < high
          else 'these do not overlap, so that no τ of policy.taus is likely to bind all')
  why = {OTHER: f'each run has a grid of requirements of its own; {same}',
         UNREACHED: 'in some run the policy never gets as eligible'}
  left = [r for r in rows if r.verdict in why]
  if not left:
    return ''
  text = f'{len(left)} row{"s" * (len(left) > 1)} not tested'
  text += ':' if everything else ', which --all shows:'
  for verdict in dict.fromkeys(r.verdict for r in left):
    metrics = '; '.join(dict.fromkeys(r.short for r in left if r.verdict == verdict))
    text += f' {verdict} ({why[verdict]})' + ('.' if everything else f': {metrics}.')
  return text


def comparison_table(rows: Sequence[ComparedRow], reference: str, name: str,
                     level: float) -> Table:
  """One system beside the reference."""
  base = {r.metric: r for r in rows if r.system == reference}
  body = tuple((r.metric, value(base[r.metric]), value(r), difference(r), p_value(r.p_holm),
                r.verdict) for r in rows if r.system == name)
  return Table(f'{name} against {reference}',
               ('metric', reference, name, f'difference [{level:.0%}]', 'p, Holm', 'verdict'), body)


def value(row: ComparedRow) -> str:
  """'0.895 ± 0.012', the standard deviation over runs where there are several."""
  spread = '' if row.sd != row.sd else f' ± {format_number(row.sd)}'
  return format_number(row.mean) + spread


def difference(row: ComparedRow) -> str:
  text = format_number(row.diff)
  if row.low == row.low:
    text += f' [{format_number(row.low)}, {format_number(row.high)}]'
  return text


def p_value(p: float) -> str:
  return '–' if p != p else '< 0.001' if p < 0.001 else f'{p:.3f}'


def note(rows: Sequence[ComparedRow], level: float) -> str:
  """What the intervals know, and what they do not."""
  tested = [r for r in rows if r.p == r.p]
  seeds, data = (min((getattr(r, n) for r in tested), default=0) for n in ('n_seeds',
                                                                           'n_data_seeds'))
  text = (f'Intervals over {sampled(rows)}; verdicts at {1 - level:.0%}, Holm-corrected for '
          f'{len(tested)} tests.')
  if tested and seeds < 2 and data < 2:
    text += ' One training seed: another may turn a verdict.'
  if tested and data < 2:
    text += ' One data seed: they hold for this market and its training data.'
  elif tested and data == 2:
    text += ' Two data seeds show little; take three or more.'
  return text


def write_csv(path: str | Path, rows: Sequence[ComparedRow]) -> None:
  """Writes the rows of a comparison."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(ComparedRow._fields)
  writer.writerows(rows)
  write_text(path, text.getvalue())
