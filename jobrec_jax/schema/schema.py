"""The alignment schema: a declarative table of what faces what in a domain.

`Schema -> Layer -> AlignedField`, beside the attributes each side carries. Prompts, rule-based
eligibility, explanations, validation and the baselines' features are all derived from it.
"""

from collections.abc import Collection, Mapping
import dataclasses
import functools
import hashlib
import math
from typing import Literal

from jobrec_jax.schema.comparators import Comparator
from jobrec_jax.schema.settings import check
from jobrec_jax.schema.words import fold, order

Value = int | float | bool | str | tuple[str, ...] | None
Kind = Literal['number', 'integer', 'boolean', 'category', 'set', 'text']
_TYPES = {'number': (int, float), 'integer': int, 'boolean': bool, 'category': str, 'set': tuple,
          'text': str}
Perspective = Literal['preference', 'qualification', 'both']
PERSPECTIVES = ('preference', 'qualification')
_TITLES, _TITLE_KINDS = ('title', 'job_title', 'name'), ('category', 'text')


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
    synonyms: (written, meant) words of a `category` or of members of a `set`.

  Raises:
    ValueError: an unknown kind, values or synonyms of a kind that has none, two values or synonyms
      that `words.fold` makes one, no number between low and high, or a name that is empty or 'id',
      which is the record's own.
  """

  name: str
  kind: Kind
  values: tuple[str, ...] = ()
  low: float | None = None
  high: float | None = None
  words: str = ''
  required: bool = False
  rendered: bool = True
  synonyms: tuple[tuple[str, str], ...] = ()

  def __post_init__(self):
    try:
      check(self)
    except ValueError as error:
      raise ValueError(f'attribute {self.name}: {error}') from error
    if self.name.strip() in ('', 'id'):
      raise ValueError("attribute: name must be one that is not empty and not 'id', which is the "
                       f"record's own, got {self.name!r}")
    if None not in (self.low, self.high) and self.low > self.high:
      raise ValueError(f'attribute {self.name}: low must be at most high, got {self.low} and '
                       f'{self.high}')
    words, numbers = self.kind in ('category', 'set'), self.kind in ('number', 'integer')
    for key, allowed, kinds in (('values', words, 'category or set'),
                                ('synonyms', words, 'category or set'),
                                ('low', numbers, 'number or integer'),
                                ('high', numbers, 'number or integer')):
      if getattr(self, key) not in ((), None) and not allowed:
        raise ValueError(f'attribute {self.name}: {key} must be left out unless kind is {kinds}, '
                         f'got kind {self.kind!r}')
    if len(self._known) != len(self.values):
      raise ValueError(f'attribute {self.name}: values must differ in more than case, spaces and '
                       f'dashes, got {self.values}')
    meant = dict(self.synonyms)
    if len({fold(w) for w in meant}) != len(self.synonyms):
      raise ValueError(f'attribute {self.name}: a synonym must have one meaning, got '
                       f'{len(self.synonyms)} for {len({fold(w) for w in meant})} words')
    if self.values and not self._known.keys() >= set(map(fold, meant.values())):
      strange = next(m for m in meant.values() if fold(m) not in self._known)
      raise ValueError(f'attribute {self.name}: synonyms must mean one of its values, '
                       f'got {strange!r}')

  @functools.cached_property
  def _known(self) -> dict[str, str]:
    return {fold(value): value for value in self.values}

  @functools.cached_property
  def _meant(self) -> dict[str, str]:
    return {fold(written): meant for written, meant in self.synonyms} | self._known

  def canonical(self, value: Value) -> Value:
    """The value as prompts, hashes and caches have it, whatever way people write it.

    Known words and synonyms become what they mean. A set holds each member once: in the order of
    `values`, or in alphabetical order where it is open. All else is as it came.
    """
    if self.kind == 'category' and isinstance(value, str):
      return self._meant.get(fold(value), value) if self._meant else value
    if self.kind == 'set' and isinstance(value, tuple) and all(isinstance(m, str) for m in value):
      members = order([self._meant.get(fold(m), m) for m in value] if self._meant else value)
      rank = {v: i for i, v in enumerate(self.values)}
      return tuple(sorted(members, key=lambda m: rank.get(m, len(rank)))) if rank else members
    return value

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
    against: perspectives to which a met field speaks against, such as the preference of one who
      has far more experience than is asked for.
    hard: whether it is a requirement; None for what its layer says.
    weight: in the rule score.

  Raises:
    ValueError: a perspective is none, `against` names one that it does not speak to, or the weight
      is not positive.
  """

  name: str
  candidate: tuple[str, ...]
  job: str
  comparator: Comparator
  perspective: Perspective
  against: tuple[str, ...] = ()
  hard: bool | None = None
  weight: float = 1.0

  def __post_init__(self):
    try:
      check(self)
    except ValueError as error:
      raise ValueError(f'field {self.name}: {error}') from error
    spoken = [p for p in PERSPECTIVES if self.speaks_to(p)]
    if not set(self.against) <= set(spoken):
      raise ValueError(f'field {self.name}: against must name some of {spoken}, '
                       f'got {self.against!r}')
    if not 0 < self.weight < math.inf:
      raise ValueError(f'field {self.name}: weight must be a positive number, '
                       f'got {self.weight!r}')

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

  Attributes:
    name: of the domain.
    candidate, job: the attributes of each side.
    layers: what of them faces what.
    title: the attribute of jobs that people know them by; '' for one that is called so. No model
      learns which it is: no fingerprint holds it.

  Raises:
    ValueError: a field names an attribute that its side does not have or whose kind its comparator
      cannot compare, a name is used twice, or the title is no category or text of jobs.
  """

  name: str
  candidate: tuple[Attribute, ...]
  job: tuple[Attribute, ...]
  layers: tuple[Layer, ...]
  title: str = dataclasses.field(default='', repr=False)

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
      self._check_kinds(field)
    titles = [a.name for a in self.job if a.kind in _TITLE_KINDS]
    if self.title != '' and self.title not in titles:
      raise ValueError(f'schema {self.name}: title must name a category or text of jobs, {titles}, '
                       f'got {self.title!r}')

  def _check_kinds(self, field: AlignedField) -> None:
    kinds = [self.attribute('candidate', name).kind for name in field.candidate]
    job = self.attribute('job', field.job)
    takes = getattr(field.comparator, 'takes', None)
    if takes is not None and not takes(kinds, job.kind):
      pairs = f'{", ".join(kinds)} with {job.kind}'
      raise ValueError(f'schema {self.name}, field {field.name}: its comparator must compare '
                       f'{pairs}, got {type(field.comparator).__name__}; the table in '
                       'jobrec_jax.schema.comparators says which kinds each compares')

  def attribute(self, side: str, name: str) -> Attribute:
    """Raises KeyError: the side has no such attribute."""
    return self._by_name[side][name]

  @functools.cached_property
  def _by_name(self) -> dict[str, dict[str, Attribute]]:
    return {side: {a.name: a for a in getattr(self, side)} for side in ('candidate', 'job')}

  def title_of(self, job: Entity) -> str:
    """What people know a job by: its title, or its id where it has none."""
    named = [a.name for a in self.job if a.name in _TITLES and a.kind in _TITLE_KINDS]
    name = self.title or next(iter(named), '')
    return str(job[name]) if name and job[name] else job.id

  def is_hard(self, field: AlignedField) -> bool:
    """Whether an unmet field is a requirement that is not kept."""
    if field.hard is not None:
      return field.hard
    return next(layer.hard for layer in self.layers if field in layer.fields)

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
    """Returns `entity` with its values as `Attribute.canonical` has them.

    Raises:
      ValueError: with place, attribute, what was allowed and what came.
    """
    where = f'{place}: ' if place else ''
    known = self._by_name[side]
    unknown = sorted(set(entity.attributes) - set(known))
    if unknown:
      raise ValueError(f'{where}{side} {entity.id!r} has unknown attributes {unknown}; '
                       f'schema {self.name} has {sorted(known)}')
    changed = {}
    for name, attribute in known.items():
      value = entity[name]
      plain = attribute.canonical(value)
      if problem := attribute.problem(plain):
        raise ValueError(f'{where}{side} {entity.id!r}: {name} {problem}')
      if plain != value:
        changed[name] = plain
    return Entity(entity.id, {**entity.attributes, **changed}) if changed else entity

  def fingerprint(self) -> str:
    """A hash of the whole table: checkpoints carry it, so that no model meets another schema."""
    return hashlib.sha256(repr(self).encode()).hexdigest()[:16]
