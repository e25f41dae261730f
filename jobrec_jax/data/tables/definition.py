"""A schema file: a TOML file that says what a user's data mean and how their tables are written.

Beside the schema (see `schema.document`), an attribute may name its `column` (else it is that of
its own name), a `separator` of lists (else ';'), and words that are `missing` values; `synonyms`
and `distances` may name a table. `[tables]` says where the rest is:

  [tables.candidates]
  file = 'people.csv'
  id = 'person'

  [tables.jobs]
  file = 'posts.csv'
  id = 'post'

  [tables.interactions]
  file = 'applications.csv'
  candidate = 'person'
  job = 'post'
  preference = 'applied'                                   # a column of yes and no
  qualification = {column = 'outcome', yes = ['hired'], no = ['rejected']}
  split = 'time'
  time = 'date'

A Python file is one, too, that has the same as a dictionary SCHEMA_FILE, or a `Schema` SCHEMA.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import runpy
import tomllib
from typing import Any, Literal, NamedTuple

from jobrec_jax.data.tables.rows import read_table
from jobrec_jax.schema.document import (
    KEYS,
    OPTIONAL,
    SIDES,
    checked,
    known_keys,
    parse_schema,
)
from jobrec_jax.schema.files import digest, expanded, read_text
from jobrec_jax.schema.schema import Schema

TABLES = ('candidates', 'jobs', 'interactions')
_CELL_KEYS = ('column', 'separator', 'missing')  # of an attribute, which no schema holds


@dataclasses.dataclass(frozen=True)
class SideTable:
  """How the table of candidates or of jobs is written.

  Attributes:
    file: its name, below the folder of the data.
    id: the column of the ids.
    columns, separators: of attributes by name, where they are not their own name and ';'.
    missing: of attributes by name, words that stand for a missing value beside an empty cell.
  """

  file: str
  id: str
  columns: dict
  separators: dict
  missing: dict


@dataclasses.dataclass(frozen=True)
class Label:
  """A column of yes and no, and the words of both; empty for the usual ones."""

  column: str
  yes: tuple[str, ...] = ()
  no: tuple[str, ...] = ()

  def __post_init__(self):
    if bool(self.yes) != bool(self.no) or set(self.yes) & set(self.no):
      raise ValueError('yes and no must both be given and share no word, or neither, got '
                       f'{self.yes} and {self.no}')


@dataclasses.dataclass(frozen=True)
class Funnel:
  """A column with the stage that a pair reached: `stages` from the first to the last.

  A pair that reached `preference` was wanted; of these, one that reached `qualification` was
  accepted, and the others were not, unless the stage is one of `pending`, where nobody knows yet.
  """

  column: str
  stages: tuple[str, ...]
  preference: str
  qualification: str = ''
  pending: tuple[str, ...] = ()

  def __post_init__(self):
    named = [self.preference, *([self.qualification] if self.qualification else []), *self.pending]
    if len(set(self.stages)) != len(self.stages) or not set(named) <= set(self.stages):
      raise ValueError('stages must differ and hold what preference, qualification and pending '
                       f'name, got {self.stages} and {named}')
    if self.qualification and (self.stages.index(self.qualification)
                               <= self.stages.index(self.preference)):
      raise ValueError(f'qualification must be a stage behind {self.preference!r}, '
                       f'got {self.qualification!r}')


@dataclasses.dataclass(frozen=True)
class LogTable:
  """How the table of interactions is written: names of its columns, and how it is divided.

  Attributes:
    file: its name, below the folder of the data.
    candidate, job: columns of the ids.
    preference, qualification: what candidates and employers decided; a missing cell is not known.
      `preference = true` where every row is an application, and no column says so.
    funnel: both, as the stage that a pair reached.
    shown: column of yes and no; pairs that were not shown are left out.
    exposure: column of the probability with which a pair was shown; 1 without it.
    split: 'candidates' divides people, and jobs as `data.cold_jobs` says; 'time' puts the latest
      rows last; 'group' keeps the rows of a group together; 'column' takes a column's words.
    time, group, fold: the columns that these ask for; `fold` holds train, validation, calibration
      or test.
    applicants_only: splits in which qualification is known of applicants alone, though the table
      says more: a funnel that is closed by hand.
    unknown: what to do with rows of ids that the other tables lack: 'refuse' or 'skip' them.
  """

  file: str
  candidate: str
  job: str
  preference: Label | Literal[True] | None = None
  qualification: Label | None = None
  funnel: Funnel | None = None
  shown: Label | None = None
  exposure: str = ''
  split: Literal['candidates', 'time', 'group', 'column'] = 'candidates'
  time: str = ''
  group: str = ''
  fold: str = ''
  applicants_only: tuple[Literal['train', 'validation', 'calibration', 'test'], ...] = ()
  unknown: Literal['refuse', 'skip'] = 'refuse'

  def __post_init__(self):
    needs = {'time': 'time', 'group': 'group', 'column': 'fold'}.get(self.split)
    if needs and not getattr(self, needs):
      raise ValueError(f'{needs} must name a column where split is {self.split!r}, got none')
    if self.funnel is None and self.preference is None and self.qualification is None:
      raise ValueError('preference, qualification or funnel must say what was decided, got none')
    if self.applicants_only and self.funnel is None and self.preference is None:
      raise ValueError('applicants_only must come with preference or funnel, which say who '
                       f'applied, got {self.applicants_only} without them')
    if self.funnel is not None and (self.preference or self.qualification):
      raise ValueError('funnel says what preference and qualification say; give it or them, not '
                       'both')

  @property
  def said(self) -> tuple[str, ...]:
    """The columns that say what was decided."""
    return tuple(x.column for x in (self.preference, self.qualification, self.funnel)
                 if x not in (None, True))


class Definition(NamedTuple):
  """What a schema file says.

  Attributes:
    schema: of the data.
    sides: tables of 'candidate' and 'job'; empty where the file has no [tables].
    log: the table of interactions; None without [tables].
    mapping: of tables, as plain values, for hashes: it changes what is read.
  """

  schema: Schema
  sides: Mapping[str, SideTable]
  log: LogTable | None
  mapping: Mapping[str, Any]


def read_definition(path: str | Path) -> Definition:
  """Reads a schema file.

  Args:
    path: a .toml or a .py file. What it names beside itself lies in its folder or below.

  Raises:
    ValueError: with the file and the key, what was allowed and what came.
  """
  path = expanded(path)
  return _definition(path, digest(path), *(_stamp(p) for p in [path]))


def read_schema(path: str | Path) -> Schema:
  """The schema of a schema file; raises as `read_definition`."""
  return read_definition(path).schema


def _stamp(path: Path) -> tuple[int, int]:
  """When anything beside the file changed last: tables of synonyms are read with it."""
  times = [p.stat().st_mtime_ns for p in path.parent.iterdir() if p.is_file()]
  return max(times), len(times)


@functools.lru_cache(8)  # settings are built again and again
def _definition(path: Path, content: str, stamp: tuple[int, int]) -> Definition:
  del content, stamp  # they are part of the cache's key alone
  document = _document(path)
  if isinstance(document, Schema):
    return Definition(document, {}, None, {})
  try:
    known_keys(document, (*KEYS, *OPTIONAL, 'tables'), KEYS)
    plain = {k: v for k, v in document.items() if k not in (*SIDES, 'tables')}
    cells: dict[str, dict[str, dict]] = {}
    for side in SIDES:
      plain[side], cells[side] = _attributes(document[side], side, path)
    plain['layers'] = _with_distances(plain['layers'], path)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
  schema = parse_schema(plain, str(path))
  if 'tables' not in document:
    return Definition(schema, {}, None, {})
  mapping = {'tables': document['tables'], 'cells': cells}
  return Definition(schema, *read_mapping(mapping, str(path)), mapping)


def read_mapping(mapping: Mapping[str, Any],
                 place: str) -> tuple[dict[str, SideTable], LogTable | None]:
  """How tables are written, from `Definition.mapping`: `sides` and `log` as there.

  Args:
    mapping: of tables; empty where no schema file says.
    place: where it comes from, named in errors.

  Raises:
    ValueError: with place and key, what was allowed and what came.
  """
  if not mapping:
    return {}, None
  try:
    known_keys(mapping, ('tables', 'cells'), ('tables', 'cells'))
    tables, cells = mapping['tables'], mapping['cells']
    known_keys(tables, TABLES, TABLES, 'tables')
    sides = {side: _side(tables[f'{side}s'], f'tables.{side}s', cells[side]) for side in SIDES}
    return sides, _log(tables['interactions'])
  except ValueError as error:
    raise ValueError(f'{place}: {error}') from error


def _document(path: Path) -> Any:
  if path.suffix.lower() == '.py':
    try:
      known = runpy.run_path(str(path))
    except Exception as error:  # of whatever kind: the file is the user's
      raise ValueError(f'{path}: must be Python that runs, got {type(error).__name__}: '
                       f'{" ".join(str(error).split())}') from error
    found = known.get('SCHEMA', known.get('SCHEMA_FILE'))
    if not isinstance(found, Schema | dict):
      raise ValueError(f'{path}: must hold a Schema SCHEMA or a dictionary SCHEMA_FILE, got '
                       f'{type(found).__name__}')
    return found
  if path.suffix.lower() != '.toml':
    raise ValueError(f'{path}: must be a .toml or a .py file, got {path.suffix!r}')
  try:
    return tomllib.loads(read_text(path))
  except (tomllib.TOMLDecodeError, RecursionError) as error:
    raise ValueError(f'{path}: must be TOML, got: {error}') from error


def _attributes(tables: Any, side: str, path: Path) -> tuple[Any, dict[str, dict]]:
  """The attributes as a schema has them, and how their cells are written."""
  if not isinstance(tables, Mapping):
    return tables, {}
  plain, cells = {}, {}
  for name, table in tables.items():
    if not isinstance(table, Mapping):
      raise ValueError(f'{side}.{name}: must be a table, got {table!r:.80}')
    plain[name] = {k: v for k, v in table.items() if k not in _CELL_KEYS}
    synonyms = table.get('synonyms')
    if isinstance(synonyms, str) or (isinstance(synonyms, Mapping) and 'file' in synonyms):
      plain[name]['synonyms'] = _synonyms(synonyms, path, f'{side}.{name}.synonyms')
    cells[name] = {k: table[k] for k in _CELL_KEYS if k in table}
    for key, value in cells[name].items():
      fits = (isinstance(value, str) and (value or key != 'separator') if key != 'missing' else
              isinstance(value, Sequence) and not isinstance(value, str)
              and all(isinstance(v, str) for v in value))
      if not fits:
        allowed = 'an array of words' if key == 'missing' else 'text'
        raise ValueError(f'{side}.{name}.{key} must be {allowed}, got {value!r:.80}')
  return plain, cells


def _beside(name: Any, path: Path, place: str) -> Path:
  """A file that a schema file names: in its folder, or below."""
  inside = path.parent.resolve()
  found = (inside / name).resolve() if isinstance(name, str) else None
  if found is None or not found.is_relative_to(inside):
    raise ValueError(f'{place} must name a file in the folder of the schema file, got {name!r:.80}')
  return found


def _synonyms(given: Any, path: Path, place: str) -> dict[str, str]:
  """Words by what they are written as, from a table: of two columns, or of those that are named.

  {file = 'skills_en.csv', written = 'altLabels', meant = 'preferredLabel', separator = '\\n'}
  """
  about = {'file': given} if isinstance(given, str) else dict(given)
  known_keys(about, ('file', 'written', 'meant', 'separator'), ('file',), place)
  named = [about[k] for k in ('written', 'meant') if k in about]
  table = read_table(_beside(about['file'], path, place), named)
  if not named and len(table.columns) != 2:
    raise ValueError(f'{place}: written and meant must name columns of {table.path}, which has '
                     f'{list(table.columns)}, not two')
  written, meant = (table.columns.index(c) for c in (named if named else table.columns))
  separator = about.get('separator')
  out: dict[str, str] = {}
  for _, row in table.rows:
    cell, word = str(row[written] or ''), str(row[meant] or '')
    for text in cell.split(separator) if separator else [cell]:
      if text.strip() and word:
        out.setdefault(text.strip(), word)  # a word of several meanings keeps its first
  return out


def _with_distances(layers: Any, path: Path) -> Any:
  """The layers with the tables of distances that their fields name."""
  if not isinstance(layers, Mapping):
    return layers
  out = {}
  for layer, fields in layers.items():
    out[layer] = fields
    if isinstance(fields, Mapping):
      out[layer] = {
          name: field if not (isinstance(field, Mapping)
                              and isinstance(field.get('distances'), str))
          else {**field, 'distances': _distances(field['distances'], path,
                                                 f'layers.{layer}.{name}.distances')}
          for name, field in fields.items()}
  return out


def _distances(name: str, path: Path, place: str) -> list[list[Any]]:
  table = read_table(_beside(name, path, place))
  if len(table.columns) != 3:
    raise ValueError(f'{place}: {table.path} must have three columns, one, other and distance, '
                     f'got {list(table.columns)}')
  out = []
  for where, (one, other, distance) in table.rows:
    try:
      out.append([str(one), str(other), float(distance)])
    except (TypeError, ValueError) as error:
      raise ValueError(f'{where}: a distance must be a number, got {distance!r:.80}') from error
  return out


def _side(table: Any, place: str, cells: Mapping[str, dict]) -> SideTable:
  known_keys(table, ('file', 'id'), ('file', 'id'), place)
  return checked(SideTable, {
      **table, 'columns': {n: c['column'] for n, c in cells.items() if 'column' in c},
      'separators': {n: c['separator'] for n, c in cells.items() if 'separator' in c},
      'missing': {n: tuple(c['missing']) for n, c in cells.items() if 'missing' in c}}, place)


def _log(table: Any) -> LogTable:
  place = 'tables.interactions'
  known_keys(table, [f.name for f in dataclasses.fields(LogTable)], ('file', 'candidate', 'job'),
             place)
  values = dict(table)
  for key in ('preference', 'qualification', 'shown'):
    if key in values and not (key == 'preference' and values[key] is True):
      given = values[key]
      known = {'column': given} if isinstance(given, str) else given
      known_keys(known, ('column', 'yes', 'no'), ('column',), f'{place}.{key}')
      values[key] = checked(Label, known, f'{place}.{key}')
  if 'funnel' in values:
    keys = [f.name for f in dataclasses.fields(Funnel)]
    known_keys(values['funnel'], keys, keys[:3], f'{place}.funnel')
    values['funnel'] = checked(Funnel, values['funnel'], f'{place}.funnel')
  return checked(LogTable, values, place)

