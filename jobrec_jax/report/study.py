"""The page of a study: variants compared over training seeds, in sentences, tables and figures."""

from collections.abc import Sequence
import math
from pathlib import Path

from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.report import glossary
from jobrec_jax.report.canvas import PALETTE, Picture, save
from jobrec_jax.report.compared import (
    BASELINE,
    BETTER,
    OPEN,
    SAME,
    SIGNS,
    TESTED,
    WORSE,
    ComparedRow,
)
from jobrec_jax.report.figures import Estimate, estimates
from jobrec_jax.report.findings import Finding
from jobrec_jax.report.html import Section, write_report
from jobrec_jax.report.results import Table, format_number, interval_text

COLOURS = dict(zip(TESTED, (PALETTE[0], PALETTE[1], PALETTE[-1])))


def write_page(path: str | Path, title: str, rows: Sequence[ComparedRow],
               purposes: Sequence[tuple[str, str]], facts: Sequence[tuple[str, str]] = (),
               extra: Sequence[Section] = ()) -> None:
  """Writes one HTML file for a study, and its figures into `figures/` beside it.

  Args:
    path: of the HTML file.
    title: of the page.
    rows: every variant × metric, in the order in which they are shown.
    purposes: of each variant, why it is there, a line.
    facts: (label, value) pairs, e.g. ('training seeds', '5').
    extra: further sections before the glossary, e.g. failures, costs, provenance.
  """
  sections = [
      Section('What came out', findings=study_findings(rows)),
      Section('Variants', terms=tuple(purposes)),
      Section('Differences to the baseline',
              'Variant minus baseline, with intervals. Where an interval lies beside the dashed '
              'line, the two are told apart before any correction; p is corrected for the number '
              'of comparisons.', pictures=forest(rows, Path(path).parent / 'figures'),
              tables=difference_tables(rows)),
      *extra, Section('Glossary', terms=glossary.STUDY + glossary.RUN)]
  write_report(path, title, facts, sections)


def study_findings(rows: Sequence[ComparedRow]) -> list[Finding]:
  """A sentence for each variant: where it is better, where worse, where nothing can be told."""
  found = []
  baseline = next((r.system for r in rows if r.verdict == BASELINE), BASELINE)
  for system in dict.fromkeys(r.system for r in rows if r.verdict != BASELINE):
    own = [r for r in rows if r.system == system]
    told = {v: [r for r in own if r.verdict == v] for v in TESTED}
    parts = [f'{v} on {"; ".join(f"{r.short} by {_change(r)}" for r in told[v])}'
             for v in (BETTER, WORSE) if told[v]]
    if told[OPEN]:
      count = f'{len(told[OPEN])} other measure{"s" * (len(told[OPEN]) > 1)}'
      parts.append(f'not told apart on {count}' if parts else 'not told apart on any measure')
    if not parts:
      parts.append('nothing is tested')
    shown = next((r for v in TESTED for r in told[v]), own[0])
    verdict = ('open' if bool(told[BETTER]) == bool(told[WORSE])
               else 'yes' if told[BETTER] else 'no')
    found.append(Finding(f'{system} against {baseline}: {", and ".join(parts)}.',
                         (difference_title(shown.short), system), verdict))
  return found


def forest(rows: Sequence[ComparedRow], folder: Path) -> list[Picture]:
  """A figure for each metric: every variant's difference with its interval, 0 dashed."""
  pictures = []
  for i, metric in enumerate(dict.fromkeys(r.short for r in rows)):
    drawn = [Estimate(r.system, r.verdict, Interval(r.diff, r.low, r.high, r.n_seeds))
             for r in rows if r.short == metric and r.verdict in TESTED]
    if drawn:
      def draw(narrow, metric=metric, drawn=drawn):
        return estimates({metric: drawn}, COLOURS, 'difference to the baseline', {metric: 0.0},
                         narrow)
      pictures.append(save(draw, folder, f'difference_{i + 1}',
                           f'{metric}: difference of each variant to the baseline.'))
  return pictures


def difference_title(metric: str) -> str:
  return f'{metric}: differences'


def difference_tables(rows: Sequence[ComparedRow]) -> list[Table]:
  """For each metric every variant's mean, difference, p and verdict; nothing where all stand on
  the baseline's results."""
  tables = []
  for metric in dict.fromkeys(r.short for r in rows):
    of = [r for r in rows if r.short == metric]
    if all(r.verdict in (BASELINE, SAME) for r in of):
      continue
    body = tuple((r.system, _mean(r), interval_text(r.diff, r.low, r.high), _p(r.p_holm),
                  f'{SIGNS.get(r.verdict, "")} {r.verdict}'.strip()) for r in of)
    tables.append(Table(difference_title(metric),
                        ('variant', 'mean ± sd', 'difference', 'p (Holm)', 'verdict'), body))
  return tables


def _mean(row: ComparedRow) -> str:
  return format_number(row.mean) + (f' ± {format_number(row.sd)}' if math.isfinite(row.sd) else '')


def _change(row: ComparedRow) -> str:
  return f'{interval_text(row.diff, row.low, row.high)} (p {_p(row.p_holm)})'


def _p(p: float) -> str:
  return '–' if not math.isfinite(p) else '< 0.001' if p < 0.001 else f'{p:.3f}'
