"""A schema as a document of plain values, as TOML and JSON hold it: read and written.

  name = 'cooks'

  [candidate]
  years = {kind = 'integer', low = 0, high = 60}
  likes = {kind = 'set'}

  [job]
  min_years = {kind = 'integer', low = 0, high = 60, words = 'years'}
  kitchen = {kind = 'category', values = ['French', 'Thai']}

  [layers.experience]
  hard = true
  years = {candidate = 'years', job = 'min_years', compare = 'at_least', unit = 'years', perspective = 'qualification'}

Keys of an attribute are the fields of `Attribute`, with `synonyms` as a table {written = 'meant'}.
A layer holds its fields by name, beside `hard`; keys of a field are the fields of `AlignedField`,
and of the comparator that `compare` names. `title`, beside `name`, may say which attribute of jobs
people know them by.
"""  # noqa: E501

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
from typing import Any

from jobrec_jax.schema.comparators import NAMES, Comparator, OrdinalAtLeast
from jobrec_jax.schema.schema import AlignedField, Attribute, Layer, Schema
from jobrec_jax.schema.settings import build, check

SIDES = ('candidate', 'job')
KEYS = ('name', *SIDES, 'layers')
OPTIONAL = ('title',)
_FIELD = (*SIDES, 'compare', 'perspective', 'against', 'hard', 'weight')


def parse_schema(document: Mapping[str, Any], place: str) -> Schema:
  """The schema that a document describes.

  Args:
    document: see the module's example.
    place: where it comes from, named in errors.

  Raises:
    ValueError: with place and key, what was allowed and what came.
  """
  try:
    known_keys(document, (*KEYS, *OPTIONAL), KEYS)
    name = document['name']
    if not isinstance(name, str) or not name:
      raise ValueError(f'name must be text that is not empty, got {name!r:.80}')
    sides = {side: _attributes(document[side], side) for side in SIDES}
    layers = document['layers']
    if not isinstance(layers, Mapping) or not layers:
      raise ValueError(f'layers must be a table of at least one layer, got {layers!r:.80}')
    return Schema(name, *(tuple(sides[side].values()) for side in SIDES),
                  tuple(_layer(*layer, sides) for layer in layers.items()),
                  document.get('title', ''))
  except ValueError as error:
    raise ValueError(f'{place}: {error}') from error


def known_keys(table: Any, allowed: Sequence[str], required: Sequence[str] = (),
               prefix: str = '') -> None:
  """Checks the keys of a table.

  Raises:
    ValueError: it is none, a key is unknown (the error names the nearest), or one is missing.
  """
  where = f'{prefix}: ' if prefix else ''
  if not isinstance(table, Mapping):
    raise ValueError(f'{where}must be a table, got {table!r:.80}')
  for key in table:
    if key not in allowed:
      near = difflib.get_close_matches(str(key), allowed, 1)
      raise ValueError(f'{where}keys must be among {list(allowed)}, got {key!r}'
                       + (f'; did you mean {near[0]!r}?' if near else ''))
  missing = [key for key in required if key not in table]
  if missing:
    raise ValueError(f'{where}must have the keys {missing}, got {sorted(table)}')


def _attributes(tables: Any, side: str) -> dict[str, Attribute]:
  if not isinstance(tables, Mapping) or not tables:
    raise ValueError(f'{side} must be a table of at least one attribute, got {tables!r:.80}')
  return {name: _attribute(table, name, side) for name, table in tables.items()}


def _attribute(table: Any, name: str, side: str) -> Attribute:
  prefix = f'{side}.{name}'
  keys = [f.name for f in dataclasses.fields(Attribute) if f.name != 'name']
  known_keys(table, keys, ('kind',), prefix)
  values = dict(table)
  if 'synonyms' in values:
    if not isinstance(values['synonyms'], Mapping):
      raise ValueError(f"{prefix}.synonyms must be a table {{written = 'meant'}}, "
                       f"got {values['synonyms']!r:.80}")
    values['synonyms'] = tuple(values['synonyms'].items())
  return checked(Attribute, {'name': name, **values}, prefix)


def checked(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
  """A dataclass from plain values, each of which is checked against the type of its field."""
  try:
    made = build(cls, values)
    check(made)
  except ValueError as error:
    raise ValueError(f'{prefix}: {error}') from error
  except TypeError as error:  # a key that it needs is missing, or a value of another type
    raise ValueError(f'{prefix}: must have the keys {[f.name for f in dataclasses.fields(cls)]} '
                     f'with values of their types, got {dict(values)!r:.120}') from error
  return made


def _layer(name: str, table: Any, sides: Mapping[str, Mapping[str, Attribute]]) -> Layer:
  if not isinstance(table, Mapping) or not isinstance(table.get('hard', False), bool):
    raise ValueError(f'layers.{name} must be a table of fields by name, with hard true or false if '
                     f'given, got {table!r:.80}')
  fields = [_field(*item, f'layers.{name}.{item[0]}', sides)
            for item in table.items() if item[0] != 'hard']
  return Layer(name, tuple(fields), table.get('hard', False))


def _field(name: str, table: Any, place: str,
           sides: Mapping[str, Mapping[str, Attribute]]) -> AlignedField:
  parameters = {f.name for classes in NAMES.values() for c in classes
                for f in dataclasses.fields(c)}
  required = (*SIDES, 'compare', 'perspective')
  known_keys(table, [*_FIELD, *sorted(parameters)], required, place)
  own = {key: table[key] for key in _FIELD if key in table and key != 'compare'}
  if isinstance(own['candidate'], str):
    own['candidate'] = [own['candidate']]
  if isinstance(own.get('against'), str):
    own['against'] = [own['against']]
  attributes = {}
  for side, names in (('candidate', own['candidate']), ('job', [own['job']])):
    if not isinstance(names, Sequence) or not names or any(
        not isinstance(n, str) or n not in sides[side] for n in names):
      raise ValueError(f'{place}.{side} must name attributes among {list(sides[side])}, '
                       f'got {names!r:.80}')
    attributes[side] = [sides[side][n] for n in names]
  comparator = _comparator(table['compare'], {k: v for k, v in table.items() if k not in _FIELD},
                           attributes['candidate'], attributes['job'][0], place)
  return checked(AlignedField, {'name': name, **own, 'comparator': comparator}, place)


def _comparator(name: Any, parameters: dict[str, Any], candidate: Sequence[Attribute],
                job: Attribute, place: str) -> Comparator:
  kinds = [a.kind for a in candidate], job.kind
  fitting = [n for n, classes in NAMES.items() if any(c.takes(*kinds) for c in classes)]
  if name not in fitting:
    raise ValueError(f'{place}: compare must be one of {fitting}, which compare '
                     f'{", ".join(kinds[0])} with {kinds[1]}, got {name!r:.80}')
  cls = next(c for c in NAMES[name] if c.takes(*kinds))
  if cls is OrdinalAtLeast and 'levels' not in parameters:
    if not job.values or candidate[0].values != job.values:
      raise ValueError(f'{place}: levels must list the categories in ascending order, or both '
                       'attributes must have the same values in that order, got '
                       f'{candidate[0].values} and {job.values}')
    parameters = {'levels': job.values, **parameters}
  return checked(cls, parameters, place)


def schema_document(schema: Schema) -> dict[str, Any]:
  """The document that `parse_schema` reads back; what has its default is left out.

  Raises:
    ValueError: a comparator has no name in documents.
  """
  return {'name': schema.name, **({'title': schema.title} if schema.title else {}),
          **{side: {a.name: _written(a, ('name',)) for a in schema.attributes(side)}
             for side in SIDES},
          'layers': {layer.name: ({'hard': True} if layer.hard else {})
                     | {f.name: _written_field(f) for f in layer.fields}
                     for layer in schema.layers}}


def _written_field(field: AlignedField) -> dict[str, Any]:
  cls = type(field.comparator)
  name = next((n for n, classes in NAMES.items() if cls in classes), None)
  if name is None:
    raise ValueError(f'field {field.name}: comparator must be one of those in '
                     f'jobrec_jax.schema.comparators to be written, got {cls.__name__}')
  return _written(field, ('name', 'comparator')) | {'compare': name} | _written(field.comparator)


def _written(made: Any, without: Sequence[str] = ()) -> dict[str, Any]:
  """The fields of a dataclass that do not have their default, as plain values."""
  out = {}
  for f in dataclasses.fields(made):
    value = getattr(made, f.name)
    if f.name in without or value == f.default:
      continue
    if f.name == 'synonyms':
      out[f.name] = dict(value)
    else:
      out[f.name] = _plain(value)
  return out


def _plain(value: Any) -> Any:
  return [_plain(v) for v in value] if isinstance(value, tuple) else value
