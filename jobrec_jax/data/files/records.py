"""Records from files of any usual kind: a candidate, many of them, a catalogue of jobs.

| file | how it is read |
|---|---|
| any kind that `tables.rows` knows | as a user's own table, where a schema file says how those are written |
| .json, .jsonl | objects with attributes by name, as `experiments.export` writes them |
| .csv with `job_id` or `student_id` | the published layout |
| .item, .user | RecBole's atomic files |
| any other table | a column for each attribute, by its name, and `id` |
"""  # noqa: E501

from collections.abc import Iterable, Iterator
import difflib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from jobrec_jax.data.files import recbole
from jobrec_jax.data.files.paper_csv import ID_COLUMNS, IGNORED_COLUMNS, read_entities
from jobrec_jax.data.files.tables import read_lines
from jobrec_jax.data.tables.cells import record_id
from jobrec_jax.data.tables.definition import SideTable
from jobrec_jax.data.tables.reader import entity_of
from jobrec_jax.data.tables.rows import JSON, RECBOLE, Table, read_table
from jobrec_jax.schema.files import decode_json, expanded, read_json, write_json
from jobrec_jax.schema.schema import Entity, Schema


class Records(NamedTuple):
  """What a file holds.

  Attributes:
    entities: its records, in their order.
    notes: what was not read, in words.
  """

  entities: tuple[Entity, ...]
  notes: tuple[str, ...]


def parse_entity(value: Any, schema: Schema, side: str, place: str,
                 default_id: str = '') -> Entity:
  """The record that a JSON object holds: attributes by name, and an `id`.

  Args:
    value: what the JSON held. A set is an array of strings; null or an absent key is missing.
    schema, side: the attributes and their ranges.
    place: the file, with the line or the index, named in errors.
    default_id: the id where there is none.

  Raises:
    ValueError: with place and key, what was allowed and what came.
  """
  if not isinstance(value, dict):
    raise ValueError(f'{place}: must be a JSON object with the attributes of a {side}, '
                     f'got {type(value).__name__}')
  name = value.get('id', default_id)
  if not isinstance(name, str) or not name:
    raise ValueError(f'{place}: id must be a string that is not empty, '
                     f'got {name if isinstance(name, str | int | None) else type(name).__name__!r}')
  given = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != 'id'}
  for key, v in given.items():
    if isinstance(v, float) and not math.isfinite(v):  # 1e999
      raise ValueError(f'{place}: {side} {name!r}: {key} must be a finite number, got {v}')
  try:
    entity = schema.validate(side, Entity(name, given), place)
  except RecursionError as error:
    raise ValueError(f'{place}: lists or objects lie too deep in each other') from error
  return Entity(name, {a.name: entity[a.name] for a in schema.attributes(side)})


def entity_json(entity: Entity, schema: Schema, side: str) -> str:
  """The JSON object that `parse_entity` reads back; a missing value is an absent key.

  Raises:
    ValueError: a number is not finite.
  """
  names = [a.name for a in schema.attributes(side)]
  values = {name: value for name in names if (value := entity[name]) is not None}
  return json.dumps({'id': entity.id, **values}, ensure_ascii=False, allow_nan=False)


def read_entity_lines(path: str | Path, schema: Schema, side: str) -> Iterator[tuple[int, Entity]]:
  """Reads our own JSON lines one by one, each an object with attributes by name and an `id`.

  Args:
    path: the file.
    schema, side: as of `parse_entity`.

  Yields:
    The number of the line, from 1, and its record.

  Raises:
    ValueError: with path, line and key, what was allowed and what came; an id comes again.
  """
  seen = set()
  for line, text in read_lines(path):
    try:
      value = decode_json(text)
    except ValueError as error:
      raise ValueError(f'{path}:{line}: must be JSON, got: {error}') from error
    entity = parse_entity(value, schema, side, f'{path}:{line}')
    if entity.id in seen:
      raise ValueError(f'{path}:{line}: id must be unique, got {entity.id!r} again')
    seen.add(entity.id)
    yield line, entity


def read_entity(path: str | Path, schema: Schema, side: str, table: SideTable | None = None,
                name: str = '') -> Entity:
  """Reads one record.

  Args:
    path: a .json file with an object, whose `id` may be left out; or any file of `read_records`.
    schema, side, table: as of `read_records`.
    name: the id of the record to take; '' where the file holds one alone.

  Raises:
    ValueError: as `read_records`; there is no such record, or there are several and no name.
  """
  path = expanded(path)
  found = None
  if path.suffix.lower() == '.json' and isinstance(value := read_json(path), dict):
    found = Table(path, tuple(value), iter([(str(path), list(value.values()))]))
  by_id = {entity.id: entity for entity in _records(path, found, schema, side, table, [])}
  if name in by_id:
    return by_id[name]
  if name or len(by_id) != 1:
    some = ', '.join(repr(i) for i in list(by_id)[:5]) + (', ...' if len(by_id) > 5 else '')
    raise ValueError(f'{path}: must hold {f"the {side} {name!r}" if name else f"one {side}"}, got '
                     f'{len(by_id)}: {some}' + ('' if name else '; name one by its id'))
  return next(iter(by_id.values()))


def read_records(path: str | Path, schema: Schema, side: str,
                 table: SideTable | None = None) -> Records:
  """Reads a file of records: candidates, or the jobs to recommend from.

  Args:
    path: see the module's table.
    schema, side: the attributes and their ranges.
    table: how the user's own tables are written, where the data came from such.

  Raises:
    ValueError: with the file and, where there is one, line and column, what was allowed and what
      came; an id comes again, or there is no record.
  """
  notes: list[str] = []
  return Records(tuple(iter_records(path, schema, side, table, notes)), tuple(notes))


def iter_records(path: str | Path, schema: Schema, side: str, table: SideTable | None,
                 notes: list[str]) -> Iterator[Entity]:
  """`read_records`, one record after another; what is not read is added to `notes`."""
  yield from _records(expanded(path), None, schema, side, table, notes)


def _records(path: Path, found: Table | None, schema: Schema, side: str, table: SideTable | None,
             notes: list[str]) -> Iterator[Entity]:
  ending = path.suffix.lower()
  if table is None and ending in RECBOLE:
    yield from recbole.read_entities(path, schema, side)
    return
  found = read_table(path) if found is None else found
  if table is None and ending not in JSON and ID_COLUMNS[side] in found.columns:
    entities, said = read_entities(path, schema, side)
    notes += said
    yield from entities
    return
  columns, identity = _columns(found, schema, side, table, notes)
  seen = set()
  for i, (place, row) in enumerate(found.rows):
    cells = dict(zip(found.columns, row))
    name = f'{side}-{i}' if place != str(path) else side
    if identity:
      came = cells[identity]
      name = record_id(came)
      if not name or name in seen:
        raise ValueError(f'{place}: {identity} must be unique and text or a number, got '
                         f'{str(came)[:80]!r}{" again" if name else ""}')
    seen.add(name)
    values = {n: cells[c] for n, c in columns.items()}
    if table is None and ending in JSON:
      given = {k: v for k, v in values.items() if v is not None}
      yield parse_entity({'id': name, **given}, schema, side, place)
    else:
      yield entity_of(schema, side, table or _BY_NAME, name, values, place)
  if not seen:
    raise ValueError(f'{path}: must hold at least one {side}, got none')


_BY_NAME = SideTable('', 'id', {}, {}, {})


def _columns(found: Table, schema: Schema, side: str, table: SideTable | None,
             notes: list[str]) -> tuple[dict[str, str], str]:
  """The column of each attribute that the file has, and that of the ids; '' without one."""
  names = [a.name for a in schema.attributes(side)]
  ids = dict.fromkeys((*((table.id,) if table else ()), 'id', ID_COLUMNS[side],
                       recbole.ID_COLUMNS[side]))
  identity = next((i for i in ids if i in found.columns), '')
  columns = {}
  for name in names:
    own = table.columns.get(name, name) if table else name
    column = next((c for c in (own, name) if c in found.columns), None)
    if column is not None:
      columns[name] = column
  is_json = found.path.suffix.lower() in JSON
  if not identity and not is_json:
    raise ValueError(f'{found.path}: must have a column with ids, {" or ".join(ids)}, got '
                     f'{list(found.columns)}')
  left = [c for c in found.columns if c not in (*columns.values(), identity, *IGNORED_COLUMNS)]
  if left and (table is None or not columns):
    near = difflib.get_close_matches(left[0], names, 1)
    raise ValueError(f'{found.path}: columns must be attributes of a {side} or {identity or "id"}, '
                     f'got {left} among {list(found.columns)}'
                     + (f'; did you mean {near[0]!r}?' if near else f'; attributes are {names}'))
  if left:
    notes.append(f'{found.path.name}: {len(left)} columns are not read: {", ".join(left)}')
  absent = [n for n in names if n not in columns]
  if absent and not is_json:
    notes.append(f'{found.path.name}: no column for {", ".join(absent)}; taken as missing')
  return columns, identity


def write_entities(path: str | Path, entities: Iterable[Entity]) -> None:
  """Writes a JSON array that `read_records` reads back."""
  write_json(path, [{'id': e.id, **e.attributes} for e in entities], indent=1)
