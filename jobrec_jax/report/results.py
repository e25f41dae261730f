"""Results as tidy rows: written for programs (results.json) and for people (results.md)."""

from collections.abc import Iterable, Sequence
import dataclasses
import math
from pathlib import Path
import re
from typing import NamedTuple

from jobrec_jax.schema.files import read_json, write_rows, write_text

# Of the ranking metrics these are shown to people; results.json holds all of them.
MAIN_RANKING = ('recall@1', 'recall@5', 'ndcg@5', 'ndcg@10')
# Better where it is greater.
HIGHER = re.compile(r'(recall|ndcg)@\d+|mrr|true (eligibility|preference)@\d+|expected surplus@\d+'
                    r'|true claims|readable|causal recall|faithfulness|right judgements')
LOWER = re.compile(r'mean_rank|violation@\d+|calibration error( by job)?|(loss|regret) of .*'
                   r'|contradictions')
RANGES = {(0.0, 1.0): re.compile(r'((recall|ndcg|violation|true eligibility|true preference)@\d+'
                                 r'|mrr|calibration error|catalogue coverage|Gini|popularity'
                                   r'|true claims|contradictions|readable|causal recall'
                                   r'|right judgements'
                                 r'|(predicted|true) C\b|expected true).*'),
          (-1.0, 1.0): re.compile('(correlation|Spearman) .*'),
          (0.0, math.inf): re.compile(r'(regret of )?expected surplus@\d+'),
          (1.0, math.inf): re.compile('mean_rank')}
YES_NO = re.compile(r'monotone .*|τ in the interval of C')
CEILING, CANARY = '(ceiling)', 'canary:'  # how systems are named that know the truth, or nothing


@dataclasses.dataclass(frozen=True)
class ResultRow:
  """One number and its interval.

  Attributes:
    system: what was measured.
    tau: the eligibility asked for; None where none was.
    split: of the data.
    perspective: 'preference', 'qualification' or 'policy'.
    metric: e.g. 'ndcg@5'.
    value, low, high: the estimate and its interval; nan where there is none.
    n: the number of lists (or pairs) behind it.
    against: None, or a rival: the numbers are then those of the paired difference
      `system` − `against`.
  """

  system: str
  tau: float | None
  split: str
  perspective: str
  metric: str
  value: float
  low: float
  high: float
  n: int
  against: str | None = None


class Table(NamedTuple):
  """Cells as text, the first column naming the row.

  Attributes:
    title, header, rows: what it shows.
    best: (row, column) of the best value of each column, where that means something.
    level: (row, column) of those that were compared with the best and not told from it.
  """

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  best: frozenset[tuple[int, int]] = frozenset()
  level: frozenset[tuple[int, int]] = frozenset()


def range_of(metric: str) -> tuple[float, float]:
  """The least and greatest value that a metric can have."""
  return next((ends for ends, names in RANGES.items() if names.fullmatch(metric)),
              (-math.inf, math.inf))


def write_results(directory: str | Path, rows: Iterable[ResultRow],
                  first: Sequence[str] = ()) -> None:
  """Writes `results.json`, a list of rows with null for nan, and `results.md`, tables of them.

  Args:
    directory: made where it does not exist.
    rows: all results, in the order in which systems and metrics are to be shown.
    first: sentences before the tables.
  """
  rows, directory = list(rows), Path(directory)
  write_rows(directory / 'results.json', map(_to_json, rows))
  sentences = ['\n'.join(f'- {line}' for line in first) + '\n'] if first else []
  parts = ['# Results\n', *sentences, *map(to_markdown, result_tables(rows))]
  write_text(directory / 'results.md', '\n'.join(parts))


def read_results(path: str | Path) -> list[ResultRow]:
  """Reads a `results.json` back; null becomes nan again.

  Raises:
    ValueError: naming the file and the row, if a row's keys are not those of `ResultRow`.
  """
  fields = [f.name for f in dataclasses.fields(ResultRow)]
  rows = []
  for i, record in enumerate(read_json(path)):
    if set(record) != set(fields):
      raise ValueError(f'{path}: row {i} must have the keys {fields}, got {sorted(record)}')
    numbers = {k: math.nan if record[k] is None else record[k] for k in ('value', 'low', 'high')}
    rows.append(ResultRow(**(record | numbers)))
  return rows


def result_tables(rows: Sequence[ResultRow]) -> list[Table]:
  """Everything a person wants to see, split by split.

  First systems × main metrics for each perspective, then for each system that was given
  requirements its metrics over tau, then paired differences.

  Args:
    rows: in the order of display.

  Returns:
    The tables; cells read 'value [low, high]'.
  """
  rows = [r for r in rows if r.metric in MAIN_RANKING or not re.match(r'(recall|ndcg)@', r.metric)]
  plain = [r for r in rows if r.against is None and r.tau is None]
  policy = [r for r in rows if r.against is None and r.tau is not None]
  paired = [r for r in rows if r.against is not None]
  tables = []
  for split in _distinct(r.split for r in rows):
    for perspective in _distinct(r.perspective for r in plain if r.split == split):
      chosen = [r for r in plain if (r.split, r.perspective) == (split, perspective)]
      tables.append(_marked(_pivot(f'{split}: {perspective}', 'system', chosen,
                                   lambda r: r.system, lambda r: r.metric), chosen, paired))
    for system in _distinct(r.system for r in policy if r.split == split):
      chosen = sorted((r for r in policy if (r.split, r.system) == (split, system)),
                      key=lambda r: r.tau)
      tables.append(_pivot(over_tau(split, system), 'τ', chosen, lambda r: f'{r.tau:.4g}',
                           lambda r: r.metric if r.perspective == 'policy'
                           else f'{r.perspective} {r.metric}'))
    for perspective in _distinct(r.perspective for r in paired if r.split == split):
      chosen = [r for r in paired if (r.split, r.perspective) == (split, perspective)]
      tables.append(_pivot(differences(split, perspective), 'systems', chosen, pair_name,
                           lambda r: r.metric))
  return tables


def over_tau(split: str, system: str = 'policy') -> str:
  """The title of a table over requirements."""
  return f'{split}: {system} over τ'


def differences(split: str, perspective: str) -> str:
  """The title of a table of paired differences."""
  return f'{split}: {perspective}, paired differences'


def pair_name(row: ResultRow) -> str:
  """The name of a row of paired differences."""
  at = '' if row.tau is None else f' (τ {row.tau:.4g})'
  return f'{row.system} − {row.against}{at}'


def to_markdown(table: Table) -> str:
  """A heading and a pipe table, numbers to the right; the best in bold, `≈` those level with it."""
  def line(cells):
    return '| ' + ' | '.join(c.replace('|', '\\|') for c in cells) + ' |'

  def cell(i, j, text):
    if (i, j) in table.best:
      value, *interval = text.split(' ', 1)
      return ' '.join([f'**{value}**', *interval])
    return f'{text} ≈' if (i, j) in table.level else text
  rule = '|' + '|'.join(['---', *['---:'] * (len(table.header) - 1)]) + '|'
  rows = [line([cell(i, j, c) for j, c in enumerate(row)]) for i, row in enumerate(table.rows)]
  return '\n'.join([f'## {table.title}\n', line(table.header), rule, *rows, ''])


def to_latex(table: Table) -> str:
  r"""A `tabular` with the rules of booktabs, numbers to the right, the best in bold; the title is a
  comment above it. It needs \usepackage{booktabs} and, as any table with ≈ or −, UTF-8."""
  special = {c: f'\\{c}' for c in '&%$#_{}'} | {
      '\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}',
      '−': '$-$', '≈': r'$\approx$', '±': r'$\pm$', '–': '--', '†': r'$\dagger$', '∞': r'$\infty$'}

  def cell(i, j, text):
    words = ''.join(special.get(c, c) for c in text)
    if (i, j) in table.best:
      value, *interval = words.split(' ', 1)
      return ' '.join([rf'\textbf{{{value}}}', *interval])
    return rf'{words} $\approx$' if (i, j) in table.level else words

  def line(cells):
    return ' & '.join(cells) + r' \\'
  head = [cell(-1, j, c) for j, c in enumerate(table.header)]
  rows = [line([cell(i, j, c) for j, c in enumerate(row)]) for i, row in enumerate(table.rows)]
  columns = 'l' + 'r' * (len(head) - 1)
  return '\n'.join([f'% {table.title}', rf'\begin{{tabular}}{{{columns}}}', r'\toprule',
                    line(head), r'\midrule', *rows, r'\bottomrule', r'\end{tabular}', ''])


def format_number(value: float) -> str:
  """Three decimals below ten, two above; '–' for nan."""
  if not math.isfinite(value):
    return '–'
  text = f'{value:.3f}' if abs(value) < 10 else f'{value:.2f}'
  return text.replace('-', '−')


def _to_json(row: ResultRow) -> dict:
  record = dataclasses.asdict(row)
  for name in ('tau', 'value', 'low', 'high'):
    number = record[name]
    record[name] = float(number) if number is not None and math.isfinite(number) else None
  return record | {'n': int(row.n)}


def interval_text(value: float, low: float, high: float) -> str:
  """'0.412 [0.400, 0.430]', or the value alone where it has no interval."""
  if not (math.isfinite(low) and math.isfinite(high)):
    return format_number(value)
  return f'{format_number(value)} [{format_number(low)}, {format_number(high)}]'


def _marked(table: Table, rows: Sequence[ResultRow], paired: Sequence[ResultRow]) -> Table:
  """The table with the best of each column, and those whose paired interval holds 0.

  Systems that know the truth or nothing at all are passed over.
  """
  at = {row[0]: i for i, row in enumerate(table.rows)}
  best, level = set(), set()
  for column, metric in enumerate(table.header):
    sign = 1 if HIGHER.fullmatch(metric) else -1 if LOWER.fullmatch(metric) else 0
    there = [r for r in rows if r.metric == metric and sign and math.isfinite(r.value)
             and CEILING not in r.system and not r.system.startswith(CANARY)]
    if len(there) < 2:
      continue
    first = max(there, key=lambda r: sign * r.value)
    best.add((at[first.system], column))
    for d in paired:
      same = (d.split, d.perspective, d.metric, d.tau) == (
          first.split, first.perspective, metric, None)
      if same and first.system in (d.system, d.against) and d.low <= 0 <= d.high:
        other = d.against if d.system == first.system else d.system
        level |= {(at[other], column)} if other in at else set()
  return table._replace(best=frozenset(best), level=frozenset(level))


def _distinct(values: Iterable[str]) -> list[str]:
  return list(dict.fromkeys(values))


def _pivot(title, corner, rows, name_of, column_of) -> Table:
  """Rows by name, columns by metric, both in order of appearance; the last column counts lists."""
  cells, counts = {}, {}
  for r in rows:
    key = name_of(r), column_of(r)
    if key in cells:
      raise ValueError(f'two results for {key[0]!r}, {key[1]!r} in "{title}"')
    cells[key] = (('yes' if r.value else 'no') if YES_NO.fullmatch(r.metric)
                  else interval_text(r.value, r.low, r.high))
    counts.setdefault(key[0], set()).add(int(r.n))
  columns = _distinct(column_of(r) for r in rows)
  body = tuple(
      (name, *(cells.get((name, c), '') for c in columns),
       '–'.join(f'{n:,}' for n in sorted({min(counts[name]), max(counts[name])})))
      for name in _distinct(name_of(r) for r in rows))
  return Table(title, (corner, *columns, 'n'), body)
