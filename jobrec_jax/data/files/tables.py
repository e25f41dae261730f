"""What the readers and writers of data files share: places of errors, cells, whole-file writes."""

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
import math
from pathlib import Path
import re
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import SPLITS, Interactions, pair_code
from jobrec_jax.schema.files import open_file
from jobrec_jax.schema.schema import Attribute, Entity, Schema, Value

ALLOWED = {'boolean': 'boolean, True or False'}  # how errors call a kind that its name leaves open

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?', re.ASCII)
_INTEGER = re.compile(r'([+-]?\d{1,309})(\.0*)?', re.ASCII)


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
  """The lines of a UTF-8 file, each ended by a line feed, with their numbers from 1.

  Raises:
    ValueError: with path and line: a bad byte, or a last line that does not end.
  """
  try:
    with open_file(path) as file:
      for number, line in enumerate(file, 1):
        if not line.endswith(b'\n'):
          raise ValueError(f'{path}:{number}: must end in a line feed; the file may be cut')
        try:
          yield number, line.decode().removesuffix('\n')
        except UnicodeDecodeError as error:
          raise ValueError(f'{path}:{number}: must be UTF-8, '
                           f'got byte {line[error.start]:#04x}') from error
  except OSError as error:
    raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error


def check_header(place: str, columns: list[str], required: Collection[str],
                 optional: Collection[str]) -> list[str]:
  """Returns `columns`, or raises a ValueError that names those unknown, missing or repeated."""
  allowed = [*required, *optional]
  unknown = [c for c in columns if c not in allowed]
  missing = [c for c in required if c not in columns]
  if unknown or missing or len(set(columns)) != len(columns):
    raise ValueError(f'{place}: columns must be among {allowed}, each once, with '
                     f'{sorted(required)}; unknown {unknown}, missing {missing}, got {columns}')
  return columns


def parse_scalar(kind: str, cell: str) -> int | float | bool | None:
  """The value of a cell of kind 'number', 'integer' or 'boolean'; None where it holds none."""
  if kind == 'number' and _NUMBER.fullmatch(cell) and math.isfinite(float(cell)):
    return float(cell)
  if kind == 'integer' and (match := _INTEGER.fullmatch(cell)):
    return int(match[1])
  if kind == 'boolean' and cell in ('True', 'False'):
    return cell == 'True'
  return None


def scalar_text(name: str, value: int | float | bool) -> str:
  """The cell that `parse_scalar` reads back; raises a ValueError where the value is not finite."""
  try:
    if math.isfinite(value):
      return str(value)
  except OverflowError:
    pass
  raise ValueError(f'{name} must be a finite number to be written, got {str(value)[:20]}')


def wrong_kind(attribute: Attribute, allowed: str, cell: str) -> ValueError:
  article = 'an' if allowed == 'integer' else 'a'
  return ValueError(f'{attribute.name} must be {article} {allowed}, got {cell[:80]!r}')


class Cells(NamedTuple):
  """What a format's cells hold; a bad one raises a ValueError that says what was allowed.

  Attributes:
    value: of an attribute and its cell, the value.
    id: of an id's cell, the id.
  """

  value: Callable[[Attribute, str], Value]
  id: Callable[[str], str] = str


def parse_entities(path: str | Path, rows: Iterable[tuple[int, dict[str, str]]], schema: Schema,
                   side: str, id_column: str, cells: Cells) -> tuple[Entity, ...]:
  """The records of a table's rows.

  Args:
    path: named in errors.
    rows: (line, cells by column); a column that is not there is a missing value.
    schema, side: the attributes and their ranges.
    id_column: the column with the id, which is unique and not empty.
    cells: how they are read.

  Raises:
    ValueError: with path:line, what was allowed and what came.
  """
  entities, seen = [], {}
  for line, row in rows:
    name = row[id_column]
    try:
      name = cells.id(name)
      values = {a.name: cells.value(a, row.get(a.name, '')) for a in schema.attributes(side)}
    except ValueError as error:
      raise ValueError(f'{path}:{line}: {side} {name!r}: {error}') from error
    if not name or name in seen:
      raise ValueError(f'{path}:{line}: {id_column} must be unique and not empty, got {name!r}'
                       + (f', which stands on line {seen[name]}' if name else ''))
    seen[name] = line
    entities.append(schema.validate(side, Entity(name, values), f'{path}:{line}'))
  if not entities:
    raise ValueError(f'{path}:1: must hold at least one {side}, got a header alone')
  return tuple(entities)


class InteractionRows:
  """Interactions that grow row by row, in the compact types of `Interactions`."""

  def __init__(self):
    self._columns = [array(code) for code in 'iibbbf']
    self._rows = []

  def append(self, row: tuple[int, int, int, int, int, float]) -> None:
    """Appends (candidate, job, preference, qualification, split, exposure)."""
    self._rows.append(row)
    if len(self._rows) == 10_000:
      self._flush()

  def _flush(self) -> None:
    for column, values in zip(self._columns, zip(*self._rows)):
      column.extend(values)
    self._rows.clear()

  def finish(self, path: str | Path, first_line: int) -> Interactions:
    """All rows.

    Args:
      path: named in errors.
      first_line: the line of the first row; each row is one line.

    Raises:
      ValueError: with path:line, where a split holds a pair again or an exposure is none.
    """
    self._flush()
    log = Interactions(*(np.array(c) for c in self._columns))
    # Only in its own precision is it known whether an exposure is 0.
    bad = ~((log.exposure > 0) & (log.exposure <= 1))
    if bad.any():
      row = int(bad.argmax())
      raise ValueError(f'{path}:{row + first_line}: exposure must lie in (0, 1], '
                       f'got {log.exposure[row]}')
    pair = pair_code(log.candidate, log.job)
    _, first = np.unique(pair * len(SPLITS) + log.split, return_index=True)
    if len(first) < len(log):
      again = np.ones(len(log), bool)
      again[first] = False
      row = int(again.argmax())
      earlier = int(((pair == pair[row]) & (log.split == log.split[row])).argmax())
      raise ValueError(f'{path}:{row + first_line}: a split must hold a pair once, got that of '
                       f'line {earlier + first_line} again')
    return log
