"""A user's three tables, as their schema file describes them, as a data set.

  candidates, jobs -> records          columns that no attribute names are counted and left out
  interactions     -> log and splits   a pair that comes again counts once, as far as it came
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.market.splits import Splits
from jobrec_jax.data.tables.cells import id_of, record_id, truth, value_of
from jobrec_jax.data.tables.definition import (
    Definition,
    Funnel,
    Label,
    LogTable,
    SideTable,
    read_definition,
)
from jobrec_jax.data.tables.rows import Table, read_table
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import expanded
from jobrec_jax.schema.schema import Entity, Schema


@dataclasses.dataclass(frozen=True)
class Division:
  """How rows without a split of their own are divided.

  Attributes:
    seed: of what is drawn.
    shares: of candidates, groups or rows in train, validation, calibration and test; sum 1.
    cold_jobs, warm_test: see `Splits.draw`.
  """

  seed: int
  shares: tuple[float, ...]
  cold_jobs: float = 0.0
  warm_test: float = 0.0


def read_tables(folder: str | Path, schema_file: str | Path, division: Division) -> Dataset:
  """Reads the tables that a schema file describes.

  Args:
    folder: where they lie, below which the files' names are looked up.
    schema_file: see `definition`.
    division: of the rows, where the tables have no split.

  Returns:
    The data set, with notes on columns that were left out, rows that were skipped and pairs that
    came again.

  Raises:
    ValueError: with file, line and column, what was allowed and what came.
  """
  defined = read_definition(schema_file)
  if defined.log is None:
    raise ValueError(f'{schema_file}: must have [tables] where data.source is tables, got none')
  folder, notes = expanded(folder), []
  candidates, jobs = (read_entities(_inside(folder, table.file), defined, side, notes)
                      for side, table in defined.sides.items())
  log = read_log(_inside(folder, defined.log.file), defined.log, candidates, jobs, division, notes)
  return Dataset(defined.schema, candidates, jobs, log, tuple(notes))


def _inside(folder: Path, name: str) -> Path:
  path = folder / name
  if not path.resolve().is_relative_to(folder.resolve()):
    raise ValueError(f'tables: file must lie in data.folder {folder} or below, got {name!r}')
  return path


def read_entities(path: Path, defined: Definition, side: str,
                  notes: list[str]) -> tuple[Entity, ...]:
  """The records of one side; what was left out is added to `notes`."""
  table, schema = defined.sides[side], defined.schema
  attributes = schema.attributes(side)
  column_of = {a.name: table.columns.get(a.name, a.name) for a in attributes}
  needed = [table.id, *(column_of[a.name] for a in attributes
                        if a.required or a.name in table.columns)]
  found = read_table(path, needed)
  at = {c: i for i, c in enumerate(found.columns)}
  _note_columns(found, {table.id, *column_of.values()}, column_of, notes)
  entities: list[Entity] = []
  seen: dict[str, str] = {}
  for place, row in found.rows:
    name = record_id(row[at[table.id]])
    if not name or name in seen:
      raise ValueError(f'{place}: {table.id} must be unique and text or a number, got '
                       + (f'{name!r}, which stands in {seen[name]}' if name else
                          repr(str(row[at[table.id]] or ''))[:80]))
    seen[name] = place
    entities.append(entity_of(schema, side, table, name, {
        n: row[at[c]] for n, c in column_of.items() if c in at}, place))
  if not entities:
    raise ValueError(f'{path}: must hold at least one {side}, got none')
  return tuple(entities)


def entity_of(schema: Schema, side: str, table: SideTable, name: str, cells: Mapping[str, Any],
              place: str) -> Entity:
  """The record of a row.

  Args:
    schema, side: the attributes and their ranges.
    table: how cells are written.
    name: the record's id.
    cells: of attributes by name; one that is absent is missing.
    place: of the row, named in errors.

  Raises:
    ValueError: with the place and the attribute, what was allowed and what came.
  """
  values = {}
  for attribute in schema.attributes(side):
    try:
      values[attribute.name] = value_of(
          attribute, cells.get(attribute.name), table.separators.get(attribute.name, ';'),
          table.missing.get(attribute.name, ()))
    except ValueError as error:
      raise ValueError(f'{place}: {side} {name!r}: {error}') from error
  return schema.validate(side, Entity(name, values), place)


def _note_columns(found: Table, used: set[str], column_of: Mapping[str, str],
                  notes: list[str]) -> None:
  left = [c for c in found.columns if c not in used]
  if left:
    notes.append(f'{found.path.name}: {len(left)} columns are not read: {", ".join(left)}')
  absent = [n for n, c in column_of.items() if c not in found.columns]
  if absent:
    notes.append(f'{found.path.name}: no column for {", ".join(absent)}; taken as missing')


class _Row(NamedTuple):
  """A row of the log before it has a split; `order` is its time or group, as it is compared."""

  candidate: int
  job: int
  preference: int
  qualification: int
  exposure: float
  order: Any
  place: str


def read_log(path: Path, table: LogTable, candidates: Sequence[Entity], jobs: Sequence[Entity],
             division: Division, notes: list[str]) -> Interactions:
  """The log of a table of interactions, divided; what was skipped is added to `notes`."""
  rows = _merged(_log_rows(path, table, candidates, jobs, notes), path, notes)
  if not rows:
    raise ValueError(f'{path}: must hold at least one interaction that was shown, got none')
  candidate, job, preference, qualification, exposure, order, _ = zip(*rows)
  log = Interactions(np.array(candidate, np.int32), np.array(job, np.int32),
                     np.array(preference, np.int8), np.array(qualification, np.int8),
                     np.zeros(len(rows), np.int8), np.array(exposure, np.float32))
  split = split_of(table.split, log, order, (len(candidates), len(jobs)), division)
  unused = int((split < 0).sum())
  if unused:
    notes.append(f'{path.name}: {unused} rows belong to no split: candidates that training does '
                 'not see, with jobs that only the test sees')
  hidden = np.isin(split, [SPLITS.index(s) for s in table.applicants_only])
  hidden &= (log.preference != 1) & (log.qualification != UNOBSERVED)
  if hidden.any():
    notes.append(f'{path.name}: qualification of {int(hidden.sum())} pairs that were not wanted is '
                 f'hidden in {", ".join(table.applicants_only)}')
  qualification = np.where(hidden, UNOBSERVED, log.qualification).astype(np.int8)
  log = dataclasses.replace(log, split=split, qualification=qualification)
  return log.where((split >= 0) & ((log.preference >= 0) | (log.qualification >= 0)))


def _log_rows(path: Path, table: LogTable, candidates: Sequence[Entity], jobs: Sequence[Entity],
              notes: list[str]) -> list[_Row]:
  order = {'time': table.time, 'group': table.group, 'column': table.fold}.get(table.split, '')
  needed = [table.candidate, table.job, *table.said, *([table.shown.column] if table.shown else []),
            *(c for c in (table.exposure, order) if c)]
  found = read_table(path, needed)
  at = {c: i for i, c in enumerate(found.columns)}
  used = {*needed, *filter(None, (table.time, table.group, table.fold))}
  left = [c for c in found.columns if c not in used]
  if left:
    notes.append(f'{path.name}: {len(left)} columns are not read: {", ".join(left)}')
  index = {table.candidate: {e.id: i for i, e in enumerate(candidates)},
           table.job: {e.id: i for i, e in enumerate(jobs)}}
  rows, strangers, hidden = [], 0, 0
  for place, row in found.rows:
    pair = [index[c].get(record_id(row[at[c]])) for c in (table.candidate, table.job)]
    if None in pair:
      column = (table.candidate, table.job)[pair.index(None)]
      if table.unknown == 'refuse':
        raise ValueError(f'{place}: {column} must be one of {len(index[column])} known ids (or '
                         f"unknown = 'skip'), got {id_of(row[at[column]])[:80]!r}")
      strangers += 1
      continue
    try:
      if table.shown and not _label(table.shown, row[at[table.shown.column]]):
        hidden += 1
        continue
      rows.append(_Row(*pair, *decisions(table, row, at), _exposure(table, row, at),
                       _order(table, row[at[order]]) if order else None, place))
    except ValueError as error:
      raise ValueError(f'{place}: {error}') from error
  for count, what in ((strangers, 'name an id that no other table has'),
                      (hidden, 'were not shown')):
    if count:
      notes.append(f'{path.name}: {count} rows that {what} are left out')
  return rows


def decisions(table: LogTable, row: Sequence[Any], at: Mapping[str, int]) -> tuple[int, int]:
  """Preference and qualification of a row whose columns lie `at`: 1, 0 or UNOBSERVED each."""
  if table.funnel:
    return _reached(table.funnel, row[at[table.funnel.column]])
  first, second = (UNOBSERVED if x is None else 1 if x is True else _label(x, row[at[x.column]])
                   for x in (table.preference, table.qualification))
  return first, second


def _label(label: Label, cell: Any) -> int:
  """1, 0, or UNOBSERVED for an empty cell."""
  text = '' if cell is None else id_of(cell).strip()
  if text == '' or text.casefold() in ('na', 'n/a', 'nan', 'null', 'none'):
    return UNOBSERVED
  if label.yes:
    if text in label.yes or text in label.no:
      return int(text in label.yes)
    raise ValueError(f'{label.column} must be one of {(*label.yes, *label.no)} or empty, '
                     f'got {text[:80]!r}')
  found = truth(cell)
  if found is None:
    raise ValueError(f'{label.column} must be yes or no, true or false, 1 or 0, or empty, got '
                     f'{text[:80]!r}; name its words: {{column, yes, no}}')
  return int(found)


def _reached(funnel: Funnel, cell: Any) -> tuple[int, int]:
  stage = '' if cell is None else id_of(cell).strip()
  if stage not in funnel.stages:
    raise ValueError(f'{funnel.column} must be one of {funnel.stages}, got {stage[:80]!r}')
  at = funnel.stages.index
  wanted = at(stage) >= at(funnel.preference)
  if not wanted or not funnel.qualification:
    return int(wanted), UNOBSERVED
  accepted = at(stage) >= at(funnel.qualification)
  return 1, UNOBSERVED if stage in funnel.pending and not accepted else int(accepted)


def _exposure(table: LogTable, row: Sequence[Any], at: Mapping[str, int]) -> float:
  if not table.exposure:
    return 1.0
  cell = row[at[table.exposure]]
  try:
    value = float(cell)
  except (TypeError, ValueError):
    value = 0.0
  if not 0 < np.float32(value) <= 1:
    raise ValueError(f'{table.exposure} must be a number in (0, 1], got {str(cell)[:80]!r}')
  return value


def _order(table: LogTable, cell: Any) -> Any:
  """What a row is divided by: a time as a number, a group as text, the index of a split."""
  text = id_of(cell).strip()
  if table.split == 'group' and text:
    return text
  if table.split == 'column':
    if text in SPLITS:
      return SPLITS.index(text)
    raise ValueError(f'{table.fold} must be one of {SPLITS}, got {text[:80]!r}')
  if isinstance(cell, datetime.date):
    text = cell.isoformat()
  for parse in (float, lambda t: _instant(datetime.datetime.fromisoformat(t))):
    try:
      value = parse(text)
    except ValueError:
      continue
    if value == value:
      return value
  column = table.group if table.split == 'group' else table.time
  raise ValueError(f'{column} must be a number or an ISO date, with a time of day or without, '
                   f'got {text[:80]!r}')


def _instant(when: datetime.datetime) -> float:
  """Seconds; a time without a zone is taken as UTC."""
  return (when if when.tzinfo else when.replace(tzinfo=datetime.UTC)).timestamp()


def _merged(rows: list[_Row], path: Path, notes: list[str]) -> list[_Row]:
  """One row for each pair: the furthest that it came, and its last time, group or split."""
  by_pair: dict[tuple[int, int], _Row] = {}
  for row in rows:
    old = by_pair.get((row.candidate, row.job))
    if old is not None:
      row = row._replace(preference=max(old.preference, row.preference),
                         qualification=max(old.qualification, row.qualification),
                         order=row.order if row.order is None or isinstance(row.order, str)
                         else max(old.order, row.order))
    by_pair[row.candidate, row.job] = row
  if len(by_pair) < len(rows):
    notes.append(f'{path.name}: {len(rows) - len(by_pair)} rows repeat a pair; each pair counts '
                 'once, as far as it came')
  return list(by_pair.values())


def split_of(rule: str, log: Interactions, order: Sequence[Any], sizes: tuple[int, int],
             division: Division) -> np.ndarray:
  """[N] int8 index into `SPLITS` of each row, -1 for those that no split may use.

  Args:
    rule: 'candidates', 'time', 'group' or 'column', see `LogTable`.
    log: the rows.
    order: [N] their times, groups or splits.
    sizes: how many candidates and jobs there are.
    division: of the data.

  Raises:
    ValueError: the shares leave a split empty.
  """
  if rule == 'column':
    return np.array(order, np.int8)
  if rule == 'candidates':
    drawn = Splits.draw(division.seed, *sizes, division.shares, division.cold_jobs,
                        division.warm_test)
    return drawn.split_of(log.candidate, log.job)
  if rule == 'time':
    rank = np.unique(np.array(order, np.float64), return_inverse=True)[1]
  else:
    names, at = np.unique(np.array(order, str), return_inverse=True)
    rank = streams.rng(division.seed, 'groups').permutation(len(names))[at]
  # Rows of one time or group stay together: a cut lies where a new one starts.
  behind = np.cumsum(np.bincount(rank)) / len(rank)
  middle = behind - np.bincount(rank) / len(rank) / 2
  split = np.searchsorted(np.cumsum(division.shares)[:-1], middle, side='right')[rank]
  empty = [s for i, s in enumerate(SPLITS) if not (split == i).any()]
  if empty:
    raise ValueError(f'data.shares must leave no split empty, but {len(behind)} {rule}s with '
                     f'{division.shares} leave {", ".join(empty)} empty')
  return split.astype(np.int8)
