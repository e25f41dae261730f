"""The alignment schema: a declarative table of what faces what in a domain.

`Schema -> Layer -> AlignedField`, beside the attributes each side carries. Prompts, rule-based
eligibility, explanations, validation and the baselines' features are all derived from it.
"""

from collections.abc import Collection, Mapping
import dataclasses
import hashlib
import math
from typing import Literal, get_args

from jobrec_jax.schema.comparators import Comparator

Value = int | float | bool | str | tuple[str, ...] | None
Kind = Literal['number', 'integer', 'boolean', 'category', 'set', 'text']
_TYPES = {'number': (int, float), 'integer': int, 'boolean': bool, 'category': str, 'set': tuple,
          'text': str}
Perspective = Literal['preference', 'qualification', 'both']
PERSPECTIVES = ('preference', 'qualification')


@dataclasses.dataclass(frozen=True)
class Entity:
  """A candidate or a job: an id that no model reads, and attributes. `None` is a missing value."""

  id: str
  attributes: Mapping[str, Value]

  def __getitem__(self, name: str) -> Value:
    return self.attributes.get(name)


@dataclasses.dataclass(frozen=True)
class Attribute:
  """A column of one side.

  Attributes:
    name: the column's name.
    kind: the type of its values.
    values: the allowed values of a `category` or of the members of a `set`; empty for any.
    low, high: the closed range of a `number` or `integer`, in the attribute's own unit.
    words: how prompts name it; '' for the name with spaces.
    required: whether every row must have a value.
    rendered: whether the prompt shows it.
  """

  name: str
  kind: Kind
  values: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None
  words: str = ''
  required: bool = False
  rendered: bool = True

  def __post_init__(self):
    if self.kind not in get_args(Kind):
      raise ValueError(
          f'attribute {self.name}: kind must be one of {get_args(Kind)}, got {self.kind!r}')

  @property
  def label(self) -> str:
    return self.words or self.name.replace('_', ' ')

  def problem(self, value: Value) -> str | None:
    """What is wrong with `value`, in words, or None."""
    if value is None:
      return 'is required and missing' if self.required else None
    wrong = not isinstance(value, _TYPES[self.kind])
    if wrong or (isinstance(value, bool) and self.kind != 'boolean'):
      return f'must be {"an" if self.kind == "integer" else "a"} {self.kind}, got {value!r}'
    if self.kind in ('number', 'integer'):
      if value != value:
        return 'must be a number, got nan'
      low = -math.inf if self.low is None else self.low
      high = math.inf if self.high is None else self.high
      if not low <= value <= high:
        return f'must lie in [{low}, {high}], got {value!r}'
    members = value if self.kind == 'set' else (value,)
    if self.kind == 'set' and not all(isinstance(m, str) for m in members):
      return f'must be a set of words, got {value!r}'
    if self.kind in ('set', 'category') and self.values:
      unknown = [m for m in members if m not in self.values]
      if unknown:
        return f'allows {", ".join(self.values)}; got {", ".join(map(repr, unknown))}'
    return None


@dataclasses.dataclass(frozen=True)
class AlignedField:
  """One row of the table: candidate attributes against one job attribute.

  Attributes:
    name: how verdicts and explanations call it.
    candidate: the candidate's attributes (several for `any member of` and texts).
    job: the job's attribute.
    comparator: how the two are compared; see `comparators`.
    perspective: which truth it speaks to.
  """

  name: str
  candidate: tuple[str, ...]
  job: str
  comparator: Comparator
  perspective: Perspective

  def __post_init__(self):
    if self.perspective not in get_args(Perspective):
      raise ValueError(f'field {self.name}: perspective must be one of {get_args(Perspective)}, '
                       f'got {self.perspective!r}')

  def attributes(self, side: str) -> tuple[str, ...]:
    """The names of the attributes that it compares on `side`."""
    return self.candidate if side == 'candidate' else (self.job,)

  def speaks_to(self, perspective: str) -> bool:
    return self.perspective in (perspective, 'both')


@dataclasses.dataclass(frozen=True)
class Layer:
  """A named group of aligned fields; `hard` where the employer states them as requirements."""

  name: str
  fields: tuple[AlignedField, ...]
  hard: bool = False


@dataclasses.dataclass(frozen=True)
class Schema:
  """A domain: the attributes of each side and the layers that align them.

  Raises:
    ValueError: a field names an attribute that its side does not have, or a name is used twice.
  """

  name: str
  candidate: tuple[Attribute, ...]
  job: tuple[Attribute, ...]
  layers: tuple[Layer, ...]

  def __post_init__(self):
    for side in ('candidate', 'job'):
      names = [a.name for a in getattr(self, side)]
      if len(set(names)) != len(names):
        raise ValueError(f'schema {self.name}: a {side} attribute is listed twice in {names}')
    for what, names in (('field', [f.name for f in self.fields]),
                        ('layer', [l.name for l in self.layers])):
      if len(set(names)) != len(names):
        raise ValueError(f'schema {self.name}: a {what} name is used twice in {names}')
    for field in self.fields:
      for side in ('candidate', 'job'):
        used = field.attributes(side)
        known = {a.name for a in getattr(self, side)}
        if not known.issuperset(used):
          raise ValueError(f'schema {self.name}, field {field.name}: no {side} attribute named '
                           f'{sorted(set(used) - known)}; there are {sorted(known)}')

  @property
  def fields(self) -> tuple[AlignedField, ...]:
    return tuple(field for layer in self.layers for field in layer.fields)

  def attributes(self, side: Literal['candidate', 'job']) -> tuple[Attribute, ...]:
    return self.candidate if side == 'candidate' else self.job

  def without(self, layers: Collection[str]) -> 'Schema':
    """The table without these layers, for texts that leave them out.

    The attributes that they alone use are no longer rendered. What another layer uses stays, under
    that layer.

    Raises:
      ValueError: an unknown name, or no layer would be left.
    """
    if not layers:
      return self
    kept = tuple(l for l in self.layers if l.name not in layers)
    if not kept or len(kept) + len(set(layers)) > len(self.layers):
      raise ValueError('tokenizer.without_layers must be some and not all of '
                       f'{[l.name for l in self.layers]}, the layers of schema {self.name}, '
                       f'got {tuple(layers)}')

    def shown(side: str) -> tuple[Attribute, ...]:
      of = {part: {name for l in part for f in l.fields for name in f.attributes(side)}
            for part in (self.layers, kept)}
      gone = of[self.layers] - of[kept]
      return tuple(dataclasses.replace(a, rendered=False) if a.name in gone else a
                   for a in self.attributes(side))
    return dataclasses.replace(self, candidate=shown('candidate'), job=shown('job'), layers=kept)

  def validate(self, side: Literal['candidate', 'job'], entity: Entity, place: str = '') -> Entity:
    """Returns `entity` unchanged, or raises a ValueError that names place, attribute and range."""
    where = f'{place}: ' if place else ''
    known = {a.name: a for a in self.attributes(side)}
    unknown = sorted(set(entity.attributes) - set(known))
    if unknown:
      raise ValueError(f'{where}{side} {entity.id!r} has unknown attributes {unknown}; '
                       f'schema {self.name} has {sorted(known)}')
    for name, attribute in known.items():
      problem = attribute.problem(entity[name])
      if problem:
        raise ValueError(f'{where}{side} {entity.id!r}: {name} {problem}')
    return entity

  def fingerprint(self) -> str:
    """A hash of the whole table: checkpoints carry it, so that no model meets another schema."""
    return hashlib.sha256(repr(self).encode()).hexdigest()[:16]
