"""A comparison in words: what differs in settings, and a table of what differs in results."""

from collections.abc import Sequence
import csv
import io
from pathlib import Path

from jobrec_jax.pipeline.compare import (
    as_systems,
    compare_systems,
    differing,
    load_run,
    without_seeds,
)
from jobrec_jax.report.compared import OTHER, UNREACHED, ComparedRow, sampled
from jobrec_jax.report.results import Table, format_number, to_markdown
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
  rows = compare_systems({n: [r.member for r in runs] for n, runs in systems.items()}, names[0],
                         level, everything)
  if csv_file:
    write_csv(csv_file, rows)
  about = Table('Settings that differ', ('setting', *names),
                tuple((k, *map(str, v)) for k, v in settings.items()))
  runs = Table('Runs', ('system', 'runs', 'training seeds', 'data seeds'), tuple(
      (n, f'{len(r)}', ', '.join(map(str, sorted({x.member.seed for x in r}))),
       ', '.join(map(str, sorted({x.member.data_seed for x in r})))) for n, r in systems.items()))
  tables = [comparison_table(rows, names[0], name, level) for name in names[1:]]
  return '\n'.join([*map(to_markdown, (about, runs, *tables)), note(rows, level)])


UNTESTED = {  # why, by verdict
    OTHER: 'each run has a grid of requirements of its own; where all runs reach them (their logs '
           'say what C can be), policy.taus names the same for all',
    UNREACHED: 'in some run the policy never gets as eligible'}


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
  given = {r.verdict for r in rows}
  return '\n'.join([text, *(f'{verdict}: {why}.' for verdict, why in UNTESTED.items()
                            if verdict in given)])


def write_csv(path: str | Path, rows: Sequence[ComparedRow]) -> None:
  """Writes the rows of a comparison."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(ComparedRow._fields)
  writer.writerows(rows)
  write_text(path, text.getvalue())
