"""Rows of a table in a file of any usual kind: CSV, JSON lines, JSON, Parquet, RecBole's files.

| ending, in any case | what it holds |
|---|---|
| .csv, .tsv, .txt | text with a header row; the delimiter is the one that finds the columns |
| .jsonl, .ndjson | a JSON object on a line |
| .json | an array of JSON objects |
| .parquet | columns of plain values or lists |
| .inter, .user, .item | RecBole's: tab-separated, a header of name:type |

A byte order mark and line ends of any kind are no part of the text. Cells may be as long as memory
allows. What our export escapes in RecBole's files is read as it was.
"""

from collections.abc import Collection, Iterator
import csv
import decimal
import io
import json
from pathlib import Path
import sys
from typing import Any, NamedTuple

from jobrec_jax.data.files.recbole import plain_cell
from jobrec_jax.schema.files import decode_json, expanded, open_file, read_json, read_text

DELIMITERS = ',;\t|'
RECBOLE = ('.inter', '.user', '.item')
JSON = ('.jsonl', '.ndjson', '.json')
ENDINGS = ('.csv', '.tsv', '.txt', *JSON, '.parquet', *RECBOLE)
csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a long text is no fault: it is in memory anyway


class Table(NamedTuple):
  """A table in memory.

  Attributes:
    path: where it lies, for errors.
    columns: names of its columns.
    rows: (place of the row in the file, its cells in the order of `columns`). A cell is text, or
      what JSON and Parquet hold; one that is absent is None.
  """

  path: Path
  columns: tuple[str, ...]
  rows: Iterator[tuple[str, list[Any]]]


def read_table(path: str | Path, needed: Collection[str] = ()) -> Table:
  """Opens a table; its rows are read as they are asked for.

  Args:
    path: the file.
    needed: columns that it must have.

  Raises:
    ValueError: with the file and, where there is one, the line: another ending, a bad byte, a row
      of another length, a name twice or a needed column that is missing. Rows raise it, too.
  """
  path = expanded(path)
  ending = path.suffix.lower()
  if ending not in ENDINGS:
    raise ValueError(f'{path}: must end in one of {", ".join(ENDINGS)}, got {path.suffix!r}')
  if ending in JSON:
    table = _json_table(path, ending)
  elif ending == '.parquet':
    table = _parquet_table(path)
  else:
    table = _text_table(path, ending, needed)
  twice = sorted({c for c in table.columns if table.columns.count(c) > 1})
  missing = [c for c in needed if c not in table.columns]
  if twice or missing:
    raise ValueError(f'{path}: must have the columns {sorted(needed)}, each once; missing '
                     f'{missing}, twice {twice}, got {list(table.columns)}')
  return table


def _text_table(path: Path, ending: str, needed: Collection[str]) -> Table:
  text = read_text(path)
  if ending in RECBOLE:
    delimiters = '\t'
  else:
    delimiters = '\t,;|' if ending == '.tsv' else DELIMITERS

  def reader(delimiter: str):
    quoted = csv.QUOTE_NONE if ending in RECBOLE else csv.QUOTE_MINIMAL
    return csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True,
                      quoting=quoted)

  def header(delimiter: str) -> list[str]:
    try:
      return next(reader(delimiter), [])
    except csv.Error:
      return []
  found = max(delimiters, key=lambda d: (len(set(needed) & set(header(d))), len(header(d))))
  names = header(found)
  if not names:
    raise ValueError(f'{path}:1: must start with a header row, got an empty line or file')
  columns, kinds = names, None
  if ending in RECBOLE:
    columns, kinds = zip(*(n.partition(':')[::2] for n in names))
  rows = reader(found)
  next(rows)

  def cells() -> Iterator[tuple[str, list[str]]]:
    while True:
      line = rows.line_num + 1
      try:
        row = next(rows, None)
      except csv.Error as error:
        raise ValueError(f'{path}:{line}: must be well quoted text, got: {error}') from error
      if row is None:
        return
      if not row:
        continue
      if len(row) != len(columns):
        raise ValueError(f'{path}:{line}: must have {len(columns)} cells, got {len(row)}')
      yield f'{path}:{line}', row if kinds is None else [*map(plain_cell, row, kinds)]
  return Table(path, tuple(columns), cells())


def _json_table(path: Path, ending: str) -> Table:
  """Columns are the keys of all objects, in the order in which they come first."""
  if ending == '.json':
    values = read_json(path)
    if not isinstance(values, list):
      raise ValueError(f'{path}: must be a JSON array of objects, got {type(values).__name__}')
    objects = [(f'{path}[{i}]', value) for i, value in enumerate(values)]
  else:
    objects = [(f'{path}:{line}', _decoded(path, line, text))
               for line, text in enumerate(read_text(path).split('\n'), 1) if text.strip()]
  columns: dict[str, None] = {}
  for place, value in objects:
    if not isinstance(value, dict):
      raise ValueError(f'{place}: must be a JSON object, got {type(value).__name__}')
    columns |= dict.fromkeys(value)
  return Table(path, tuple(columns),
               ((place, [value.get(c) for c in columns]) for place, value in objects))


def _decoded(path: Path, line: int, text: str) -> Any:
  try:
    return decode_json(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path}:{line}: must be JSON, got: {error.msg}') from error
  except ValueError as error:
    raise ValueError(f'{path}:{line}: must be JSON, got: {error}') from error


def _parquet_table(path: Path) -> Table:
  import pyarrow  # here, for it takes half a second to import
  from pyarrow import parquet
  with open_file(path) as file:
    try:
      table = parquet.ParquetFile(file).read()  # names that come twice included
      columns = [_plain(column.to_pylist()) if pyarrow.types.is_decimal(column.type) else
                 column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
      raise ValueError(f'{path}: must be a Parquet file, got: '
                       f'{" ".join(str(error).split())}') from error
  return Table(path, tuple(table.column_names),
               ((f'{path}[{i}]', list(row)) for i, row in enumerate(zip(*columns))))


def _plain(cells: list[decimal.Decimal | None]) -> list[int | float | None]:
  """Decimals, which databases write, as the integers or floats they are."""
  return [cell if cell is None else int(cell) if cell == int(cell) else float(cell)
          for cell in cells]
