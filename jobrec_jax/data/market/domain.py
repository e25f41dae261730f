"""A domain of the simulated labour market, as a table: how attributes are drawn, and what counts.

A domain is a schema, a vocabulary and the entries below; the simulator reads the table and knows
no domain. `load_domain(name)` finds the module of that name in `jobrec_jax.data.market.domains`.

  ability, fields of work, taste -> attributes and text          (sources)
  what a candidate wishes for    -> logit P                      (wishes, taste)
  what an employer requires      -> logit Q                      (requirements, evidence)
"""

from collections.abc import Mapping
import dataclasses
import functools
import importlib
import itertools
import pkgutil
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import expit

from jobrec_jax.data.market import domains, notes
from jobrec_jax.data.market.grammar import Grammar, Style, write
from jobrec_jax.schema.comparators import Same
from jobrec_jax.schema.schema import Attribute, Schema, Value
from jobrec_jax.schema.words import fold

REQUIRED = 5, 8  # twelfths of its field's skills that a job requires: fewest, most
INTERESTS = 1, 2  # a candidate's fields of work: fewest, most
# logit P(a candidate has a skill of their own fields): at mean ability, and its rise with ability.
KNOWN = -0.6, 0.5
KNOWN_ELSEWHERE = 0.02  # P(a candidate has a skill of another field)
# A project's grade before it is rounded: its mean, its rise with ability, its own deviation.
GRADE = 2, 0.9, 0.5
BEST_GRADE = 4


class Latents(NamedTuple):
  """What lies behind the attributes of n entities of one side.

  Attributes:
    ability: [n] standard normal; zero for jobs.
    fields: [n, F] bool, the fields of work one is interested in, or the one that a job is in.
    skills: [n, S] bool, skills that a candidate has or a job requires.
    leanings: [n, axes] int, statements for the first pole of each taste.
    grades: [n, projects] int in 0 to 4, how well each project went; all 0 for jobs.
  """

  ability: np.ndarray
  fields: np.ndarray
  skills: np.ndarray
  leanings: np.ndarray
  grades: np.ndarray


class Context(NamedTuple):
  """What a source may look at: the domain, the latents, the attributes drawn before it."""

  domain: 'Domain'
  attribute: Attribute
  side: str
  latents: Latents
  drawn: Mapping[str, np.ndarray]
  style: Style


class Source(Protocol):
  """How an attribute is drawn. Codes are numbers, indices of values, or [n, values] bool sets."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray: ...

  def values(self, codes: np.ndarray, c: Context) -> list[Value]: ...


class _Coded:
  """Codes that are indices into the attribute's values."""

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return [c.attribute.values[k] for k in codes.tolist()]


class _Members:
  """Codes that are sets: [n, values] bool."""

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return members(codes, c.attribute.values)


def members(codes: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, ...]]:
  """The names of each row's members; codes are [n, names] bool."""
  row, column = np.nonzero(codes)
  bounds = np.searchsorted(row, np.arange(len(codes) + 1)).tolist()
  named = [names[k] for k in column.tolist()]
  return [tuple(named[a:b]) for a, b in itertools.pairwise(bounds)]


@dataclasses.dataclass(frozen=True)
class Choice(_Coded):
  """One of the attribute's values, with odds `p`; for some only, where `otherwise` is given.

  A share of the candidates draws, or those whose ordinal attribute `given[0]` is at least
  `given[1]`; the rest have the value `otherwise`.
  """

  p: tuple[float, ...] = ()
  otherwise: str | None = None
  share: float = 1.0
  given: tuple[str, int] | None = None

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    n, values = len(c.latents.ability), c.attribute.values
    odds = np.array(self.p or (1.0,) * len(values))
    codes = rng.choice(len(values), size=n, p=odds / odds.sum())
    if self.otherwise is not None:
      drawn = rng.random(n) < self.share
      if self.given:
        drawn &= c.drawn[self.given[0]] >= self.given[1]
      codes = np.where(drawn, codes, values.index(self.otherwise))
    return codes


@dataclasses.dataclass(frozen=True)
class Amount:
  """A number: base + ability * a + per * (code of an earlier attribute) + noise * N(0, 1)."""

  low: float
  high: float
  base: float
  ability: float = 0.0
  per: tuple[str, float] | None = None
  noise: float = 0.0

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    x = self.base + self.ability * c.latents.ability
    if self.per:
      x = x + self.per[1] * c.drawn[self.per[0]]
    x = np.clip(x + self.noise * rng.normal(size=len(x)), self.low, self.high)
    return np.round(x, 0 if c.attribute.kind == 'integer' else 2)

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return (codes.astype(int) if c.attribute.kind == 'integer' else codes).tolist()


@dataclasses.dataclass(frozen=True)
class Spread(Amount):
  """A number, uniform over [low, high]; whole for an integer attribute, else to two decimals."""

  base: float = 0.0

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    n = len(c.latents.ability)
    if c.attribute.kind == 'integer':
      return rng.integers(int(self.low), int(self.high) + 1, n).astype(float)
    return rng.uniform(self.low, self.high, n).round(2)


@dataclasses.dataclass(frozen=True)
class Coin:
  """True with probability p."""

  p: float

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    return rng.random(len(c.latents.ability)) < self.p

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return codes.tolist()


@dataclasses.dataclass(frozen=True)
class Subset(_Members):
  """From `least` to `most` of the attribute's values, all subsets of a size alike."""

  least: int
  most: int

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    n, size = len(c.latents.ability), len(c.attribute.values)
    count = rng.integers(self.least, self.most + 1, size=(n, 1))
    return np.argsort(np.argsort(rng.random((n, size)), axis=1), axis=1) < count


@dataclasses.dataclass(frozen=True)
class Skills:
  """The skills of the latents, as a set of words."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    return c.latents.skills

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    at = sorted(range(len(c.domain.skills)), key=lambda k: fold(c.domain.skills[k]))
    return members(codes[:, at], tuple(c.domain.skills[k] for k in at))  # as `canonical` orders


@dataclasses.dataclass(frozen=True)
class Fields(_Members):
  """The fields of work of the latents; the attribute's values are the domain's fields."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    return c.latents.fields


@dataclasses.dataclass(frozen=True)
class Field(_Coded):
  """The one field of work of a job."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    return np.argmax(c.latents.fields, axis=1)


@dataclasses.dataclass(frozen=True)
class Narrative:
  """The text that shows taste, and nothing else does."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    return c.domain.grammar.draw_narratives(rng, c.side, c.latents.leanings, c.style)

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return write(c.domain.grammar.narrative_tables[c.side], codes)


@dataclasses.dataclass(frozen=True)
class SmallTalk:
  """A sentence that says nothing of taste or ability."""

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    n = len(c.latents.ability)
    size = len(c.domain.grammar.small_talk_tables[c.side])
    return rng.integers(size, size=(n, 1)).astype(np.int32)

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return write(c.domain.grammar.small_talk_tables[c.side], codes)


@dataclasses.dataclass(frozen=True)
class Project:
  """The text that shows how well work number `k` went, and nothing else does."""

  k: int

  def draw(self, rng: np.random.Generator, c: Context) -> np.ndarray:
    known = c.latents.skills
    # A skill that one has, or any where one has none: the greatest of random keys among them.
    skill = np.argmax(rng.random(known.shape) + known, axis=1)
    return c.domain.grammar.draw_projects(rng, skill, c.latents.grades[:, self.k], c.style)

  def values(self, codes: np.ndarray, c: Context) -> list[Value]:
    return write(c.domain.project_table, codes)


@dataclasses.dataclass(frozen=True)
class Requirement:
  """What an unmet field takes from logit Q, before the scale of the market.

  Attributes:
    field: an aligned field of the schema.
    weight: what it takes: all of it where the field is unmet, or, with `per`, this much for each
      `per` units that are missing, up to `cap` of them.
    spared_by: another field, whose every unit to spare, up to `spare_cap`, makes up for `spare`
      units here: requirements that offset each other.
  """

  field: str
  weight: float
  per: float | None = None
  cap: float = 1.0
  spared_by: str | None = None
  spare: float = 0.0
  spare_cap: float = 0.0


@dataclasses.dataclass(frozen=True)
class Domain:
  """A whole domain.

  Attributes:
    schema: its alignment schema.
    grammar: its words.
    fields: each field of work and its skills, equally many.
    candidate, job: a source for every attribute, in an order in which `drawn` is known.
    requirements: what an employer weighs; see `Requirement`.
    wishes: weight in logit P of each aligned field that is met (of a set: of the share covered).
    optional: candidates' attributes that may be blank.
    projects: how many graded works a candidate has.
    prefixes: of candidates' and jobs' ids.

  Raises:
    ValueError: an attribute has no source, or a field is not in the schema.
  """

  schema: Schema
  grammar: Grammar
  fields: Mapping[str, tuple[str, ...]]
  candidate: Mapping[str, Source]
  job: Mapping[str, Source]
  requirements: tuple[Requirement, ...]
  wishes: Mapping[str, float]
  optional: tuple[str, ...]
  projects: int = 3
  prefixes: tuple[str, str] = ('S', 'J')

  def __post_init__(self):
    for side in ('candidate', 'job'):
      names = {a.name for a in self.schema.attributes(side)}
      if names != set(getattr(self, side)):
        raise ValueError(f'domain {self.schema.name}: every {side} attribute needs one source; '
                         f'different: {sorted(names ^ set(getattr(self, side)))}')
    known = {f.name: f for f in self.schema.fields}
    named = [*self.wishes, *(r.field for r in self.requirements),
             *(r.spared_by for r in self.requirements if r.spared_by)]
    if not known.keys() >= set(named):
      raise ValueError(f'domain {self.schema.name}: no aligned field '
                       f'{sorted(set(named) - known.keys())}; there are {sorted(known)}')
    if len({len(skills) for skills in self.fields.values()}) != 1:
      raise ValueError(f'domain {self.schema.name}: all fields of work need equally many skills')
    for field in self.schema.fields:
      if isinstance(field.comparator, Same):
        ours, theirs = (self.attribute(side, field.attributes(side)[0]).values
                        for side in ('candidate', 'job'))
        if ours != theirs:
          raise ValueError(f'domain {self.schema.name}, field {field.name}: both sides need the '
                           f'same values, got {ours} and {theirs}')

  @functools.cached_property
  def skills(self) -> tuple[str, ...]:
    return tuple(s for skills in self.fields.values() for s in skills)

  @functools.cached_property
  def project_table(self) -> tuple[str, ...]:
    return self.grammar.project_table(self.skills)

  def attribute(self, side: str, name: str) -> Attribute:
    return next(a for a in self.schema.attributes(side) if a.name == name)


def draw_latents(rng: np.random.Generator, domain: Domain, side: str, n: int) -> Latents:
  """Ability, fields of work, skills, tastes and grades of n entities."""
  F, per = len(domain.fields), len(domain.skills) // len(domain.fields)
  leanings = domain.grammar.draw_leanings(rng, n)
  if side == 'job':
    field = rng.permutation(np.arange(n) % F)
    order = np.argsort(np.argsort(rng.random((n, per)), axis=1), axis=1)
    fewest, most = (per * twelfths // 12 for twelfths in REQUIRED)
    required = order < rng.integers(fewest, most + 1, size=(n, 1))
    fields = field[:, None] == np.arange(F)
    skills = np.repeat(fields, per, axis=1) & np.tile(required, (1, F))
    return Latents(np.zeros(n), fields, skills, leanings, np.zeros((n, domain.projects), int))
  ability = rng.normal(size=n)
  fields = (np.argsort(np.argsort(rng.random((n, F)), axis=1), axis=1)
            < rng.integers(INTERESTS[0], INTERESTS[1] + 1, size=(n, 1)))
  # Each field of interest brings many of its skills; the able know more of them.
  at_home = expit(KNOWN[0] + KNOWN[1] * ability)[:, None]
  known = np.where(np.repeat(fields, per, axis=1), at_home, KNOWN_ELSEWHERE)
  mean, rise, own = GRADE
  grades = mean + rise * ability[:, None] + own * rng.normal(size=(n, domain.projects))
  return Latents(ability, fields, rng.random((n, F * per)) < known, leanings,
                 np.clip(np.round(grades), 0, BEST_GRADE).astype(int))


def names() -> tuple[str, ...]:
  """The domains there are."""
  return tuple(sorted(m.name for m in pkgutil.iter_modules(domains.__path__)))


@functools.cache
def load_domain(name: str, texts: str = 'sentences') -> Domain:
  """The domain of that name, with texts of 'sentences' or of 'notes'.

  Raises:
    ValueError: there is none.
  """
  if name not in names():
    raise ValueError(f'domain must be one of {names()}, got {name!r}')
  domain = importlib.import_module(f'{domains.__name__}.{name}').DOMAIN
  if texts == 'notes':
    return dataclasses.replace(
        domain, grammar=importlib.import_module(f'{notes.__name__}.{name}').GRAMMAR)
  return domain
