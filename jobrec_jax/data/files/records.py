"""Records as JSON: a candidate from a file, a catalogue of jobs from JSON or CSV."""

from collections.abc import Iterable, Iterator
import json
import math
from pathlib import Path
from typing import Any

from jobrec_jax.data.files.paper_csv import read_entities
from jobrec_jax.data.files.tables import read_lines
from jobrec_jax.schema.files import decode_json, read_json, write_json
from jobrec_jax.schema.schema import Entity, Schema


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


def read_entity_json(path: str | Path, schema: Schema, side: str) -> Entity:
  """Reads one record: a JSON object with attributes by name and, if wanted, an `id`.

  Args:
    path: the file. A set is an array of strings; null or an absent key is a missing value.
    schema: the domain's table.
    side: 'candidate' or 'job'; also the id where none is given.

  Raises:
    ValueError: with path and key, what was allowed and what came.
  """
  return parse_entity(read_json(path), schema, side, str(path), side)


def read_entity_lines(path: str | Path, schema: Schema, side: str) -> Iterator[tuple[int, Entity]]:
  """Reads records one by one from JSON lines, each an object with attributes by name and an `id`.

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


def read_catalogue(path: str | Path, schema: Schema) -> tuple[Entity, ...]:
  """Reads the jobs to recommend from.

  Args:
    path: a .json file with an array of objects as in `read_entity_json` (a job without an id is
      called 'job-0' by its index), or any other file as CSV in the published item layout.
    schema: the domain's table.

  Raises:
    ValueError: with path, index (JSON) or line (CSV) and key, what was allowed and what came.
  """
  if Path(path).suffix != '.json':
    return read_entities(path, schema, 'job')[0]
  values = read_json(path)
  if not isinstance(values, list) or not values:
    raise ValueError(f'{path}: must be a JSON array of at least one job, got '
                     f'{"an empty one" if values == [] else type(values).__name__}')
  jobs: dict[str, Entity] = {}
  for i, value in enumerate(values):
    job = parse_entity(value, schema, 'job', f'{path}[{i}]', f'job-{i}')
    if job.id in jobs:
      raise ValueError(f'{path}[{i}]: id must be unique, got {job.id!r} again')
    jobs[job.id] = job
  return tuple(jobs.values())


def write_entities(path: str | Path, entities: Iterable[Entity]) -> None:
  """Writes a JSON array that `read_catalogue` reads back."""
  write_json(path, [{'id': e.id, **e.attributes} for e in entities], indent=1)
