"""Single records in: a candidate from a JSON file, a catalogue of jobs from JSON or CSV."""

from collections.abc import Iterable
import json
from pathlib import Path
from typing import Any

from jobrec_jax.data.published import read_entities
from jobrec_jax.schema.schema import Entity, Schema


def _constant(name: str):
  raise ValueError(f'{name} is not a JSON value')


def _read_json(path: str | Path) -> Any:
  try:
    return json.loads(Path(path).read_text(encoding='utf-8'), parse_constant=_constant)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path}:{error.lineno}: must be JSON, got: {error.msg}') from error
  except OSError as error:
    raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path}: must be JSON in UTF-8, got: {error}') from error


def _entity(value: Any, schema: Schema, side: str, place: str, default_id: str) -> Entity:
  if not isinstance(value, dict):
    raise ValueError(f'{place}: must be a JSON object with the attributes of a {side}, '
                     f'got {type(value).__name__}')
  name = value.get('id', default_id)
  if not isinstance(name, str) or not name:
    raise ValueError(f'{place}: id must be a string that is not empty, got {name!r}')
  given = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != 'id'}
  schema.validate(side, Entity(name, given), place)
  return Entity(name, {a.name: given.get(a.name) for a in schema.attributes(side)})


def read_entity_json(path: str | Path, schema: Schema, side: str) -> Entity:
  """Reads one record: a JSON object with attributes by name and, if wanted, an `id`.

  Args:
    path: the file. A set is an array of strings; null or an absent key is a missing value.
    schema: the domain's table.
    side: 'candidate' or 'job'; also the id where none is given.

  Raises:
    ValueError: with path and key, what was allowed and what came.
  """
  return _entity(_read_json(path), schema, side, str(path), side)


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
  values = _read_json(path)
  if not isinstance(values, list) or not values:
    raise ValueError(f'{path}: must be a JSON array of at least one job, got '
                     f'{"an empty one" if values == [] else type(values).__name__}')
  jobs: dict[str, Entity] = {}
  for i, value in enumerate(values):
    job = _entity(value, schema, 'job', f'{path}[{i}]', f'job-{i}')
    if job.id in jobs:
      raise ValueError(f'{path}[{i}]: id must be unique, got {job.id!r} again')
    jobs[job.id] = job
  return tuple(jobs.values())


def write_entities(path: str | Path, entities: Iterable[Entity]) -> None:
  """Writes a JSON array that `read_catalogue` reads back."""
  path = Path(path)
  temporary = path.with_name(f'.{path.name}')
  temporary.write_text(json.dumps([{'id': e.id, **e.attributes} for e in entities], indent=1))
  temporary.replace(path)
