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
  """Cells as text, the first column naming the row."""

  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]


def write_results(directory: str | Path, rows: Iterable[ResultRow]) -> None:
  """Writes `results.json`, a list of rows with null for nan, and `results.md`, tables of them.

  Args:
    directory: made where it does not exist.
    rows: all results, in the order in which systems and metrics are to be shown.
  """
  rows, directory = list(rows), Path(directory)
  write_rows(directory / 'results.json', map(_to_json, rows))
  tables = result_tables(rows)
  write_text(directory / 'results.md', '\n'.join(['# Results\n', *map(to_markdown, tables)]))


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
      tables.append(_pivot(f'{split}: {perspective}', 'system', chosen,
                           lambda r: r.system, lambda r: r.metric))
    for system in _distinct(r.system for r in policy if r.split == split):
      chosen = sorted((r for r in policy if (r.split, r.system) == (split, system)),
                      key=lambda r: r.tau)
      tables.append(_pivot(f'{split}: {system} over τ', 'τ', chosen, lambda r: f'{r.tau:.4g}',
                           lambda r: r.metric if r.perspective == 'policy'
                           else f'{r.perspective} {r.metric}'))
    for perspective in _distinct(r.perspective for r in paired if r.split == split):
      chosen = [r for r in paired if (r.split, r.perspective) == (split, perspective)]
      tables.append(_pivot(f'{split}: {perspective}, paired differences', 'systems', chosen,
                           _pair_name, lambda r: r.metric))
  return tables


def to_markdown(table: Table) -> str:
  """A heading and a pipe table, numbers to the right."""
  def line(cells):
    return '| ' + ' | '.join(c.replace('|', '\\|') for c in cells) + ' |'
  rule = '|' + '|'.join(['---', *['---:'] * (len(table.header) - 1)]) + '|'
  return '\n'.join([f'## {table.title}\n', line(table.header), rule, *map(line, table.rows), ''])


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


def _pair_name(row: ResultRow) -> str:
  at = '' if row.tau is None else f' (τ {row.tau:.4g})'
  return f'{row.system} − {row.against}{at}'


def _cell(row: ResultRow) -> str:
  if not (math.isfinite(row.low) and math.isfinite(row.high)):
    return format_number(row.value)
  low, high = format_number(row.low), format_number(row.high)
  return f'{format_number(row.value)} [{low}, {high}]'


def _distinct(values: Iterable[str]) -> list[str]:
  return list(dict.fromkeys(values))


def _pivot(title, corner, rows, name_of, column_of) -> Table:
  """Rows by name, columns by metric, both in order of appearance; the last column counts lists."""
  cells, counts = {}, {}
  for r in rows:
    key = name_of(r), column_of(r)
    if key in cells:
      raise ValueError(f'two results for {key[0]!r}, {key[1]!r} in "{title}"')
    cells[key] = _cell(r)
    counts.setdefault(key[0], set()).add(int(r.n))
  columns = _distinct(column_of(r) for r in rows)
  body = tuple(
      (name, *(cells.get((name, c), '') for c in columns),
       '–'.join(f'{n:,}' for n in sorted({min(counts[name]), max(counts[name])})))
      for name in _distinct(name_of(r) for r in rows))
  return Table(title, (corner, *columns, 'n'), body)
