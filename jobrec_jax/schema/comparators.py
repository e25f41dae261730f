"""Comparators: how one candidate value faces one job value.

Each is a frozen dataclass with `compare(candidate, job) -> Comparison`. A missing value on either
side gives `unknown`, never a guess. A margin is in the field's own unit: how far above (positive)
or below (negative) the requirement. Words are equal where `words.fold` makes them so.

| name in a schema file | class | candidate's kind | job's kind |
|---|---|---|---|
| at_least | AtLeast | number, integer | number, integer |
| at_least | OrdinalAtLeast | category | category of the same values, in ascending order |
| at_most | AtMost | number, integer | number, integer |
| within | Within | number, integer | number, integer |
| same | Same | category, boolean, integer | the same kind |
| any_of | AnyMemberOf | category, of one attribute or several | set |
| contains | Contains | set | category |
| covers | SetCoverage | set | set |
| near | Near | category | category |
| text | Semantic | text, of one attribute or several | text |
"""

from collections.abc import Sequence
import dataclasses
import functools
from typing import ClassVar, Literal, Protocol, get_args, runtime_checkable

from jobrec_jax.schema.words import fold, folded

Verdict = Literal['met', 'unmet', 'unknown']
NUMBERS = ('number', 'integer')
_DIGITS = 9  # decimals of a margin: what is behind them is how floats are rounded


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
  """The outcome of one comparator.

  Attributes:
    verdict: None for semantic fields, which carry text instead.
    margin: distance to the requirement in the field's unit; None where there is no distance.
    words: the comparison in a few words, e.g. '6 of 10'; '' where verdict and margin say it all.
  """

  verdict: Verdict | None
  margin: float | None = None
  words: str = ''


UNKNOWN = Comparison('unknown')
MET = Comparison('met')
UNMET = Comparison('unmet')
TEXT = Comparison(None)

_KEPT = 1 << 16  # the same values meet in many pairs of a catalogue


def _by_margin(margin: float, words: str = '') -> Comparison:
  """Met where `margin` is not negative. The sum turns a rounded -0.0 into 0.0."""
  return Comparison('met' if margin >= 0 else 'unmet', margin + 0.0, words)


@functools.lru_cache(_KEPT)
def _at_least(value: float, needed: float) -> Comparison:
  return _by_margin(round(float(value) - float(needed), _DIGITS))


@functools.lru_cache(_KEPT)
def _shares(shared: int, total: int, needed: float) -> Comparison:
  return _by_margin(round(shared / total - needed, 4), f'{shared} of {total}')


@runtime_checkable
class Comparator(Protocol):
  """What a comparator offers. `candidate` holds one value for each named candidate attribute.

  `takes(kinds of the candidate's attributes, kind of the job's)` says whether it can compare them;
  one without it compares anything.
  """

  def compare(self, candidate: tuple, job) -> Comparison: ...


class _OfNumbers:
  """A comparator of one number with another."""

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return len(candidate) == 1 and candidate[0] in NUMBERS and job in NUMBERS


@dataclasses.dataclass(frozen=True)
class AtLeast(_OfNumbers):
  """candidate >= job, for numbers; margin = candidate - job."""

  unit: str = ''

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return _at_least(value, job)


@dataclasses.dataclass(frozen=True)
class AtMost(_OfNumbers):
  """candidate <= job, for numbers; margin = job - candidate."""

  unit: str = ''

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return _at_least(job, value)


@dataclasses.dataclass(frozen=True)
class Within(_OfNumbers):
  """|candidate - job| <= by, for numbers; margin = by - |candidate - job|.

  Raises:
    ValueError: `by` is negative.
  """

  by: float
  unit: str = ''

  def __post_init__(self):
    if not self.by >= 0:
      raise ValueError(f'within: by must be a number of at least 0, got {self.by!r}')

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return _at_least(self.by, abs(float(value) - float(job)))


@dataclasses.dataclass(frozen=True)
class OrdinalAtLeast:
  """candidate's level is not below the job's; margin in levels."""

  levels: tuple[str, ...]
  unit: str = 'levels'

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return tuple(candidate) == ('category',) and job == 'category'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value not in self.levels or job not in self.levels:
      return UNKNOWN
    return _by_margin(float(self.levels.index(value) - self.levels.index(job)))


@dataclasses.dataclass(frozen=True)
class Same:
  """Both are the same; a category is met by `anything` of either side, too, where that is given."""

  anything: str = ''
  kinds: ClassVar = ('category', 'boolean', 'integer')

  @classmethod
  def takes(cls, candidate: Sequence[str], job: str) -> bool:
    return tuple(candidate) == (job,) and job in cls.kinds

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    if not isinstance(value, str):
      return MET if value == job else UNMET
    keys = fold(value), fold(job)
    free = bool(self.anything) and fold(self.anything) in keys
    return MET if free or keys[0] == keys[1] else UNMET


@dataclasses.dataclass(frozen=True)
class AnyMemberOf:
  """At least one of the candidate's values is among the job's; `none` is no value of either."""

  none: str = 'None'

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return set(candidate) == {'category'} and job == 'set'

  def compare(self, candidate: tuple, job) -> Comparison:
    if job is None:
      return UNKNOWN
    wanted = folded(job)
    for value in candidate:
      if value is not None and value != self.none and fold(value) in wanted:
        return Comparison('met', None, value)
    # A missing value might have been the one that fits.
    return UNKNOWN if None in candidate else UNMET


SIDES = Literal['job', 'candidate', 'smaller']


@dataclasses.dataclass(frozen=True)
class SetCoverage:
  """How much of one set the other holds; margin = |candidate & job| / |of| - needed, in [-1, 1].

  An empty set that is counted is an unstated requirement: unknown.

  Attributes:
    needed: the least share that is met.
    of: whose set is counted: the 'job's requirements, the 'candidate's wishes, or the 'smaller'.

  Raises:
    ValueError: `needed` lies outside of [0, 1], or `of` is none of these.
  """

  needed: float = 0.5
  of: SIDES = 'job'

  def __post_init__(self):
    if not 0 <= self.needed <= 1:
      raise ValueError(f'covers: needed must lie in [0, 1], got {self.needed!r}')
    if self.of not in get_args(SIDES):
      raise ValueError(f'covers: of must be one of {get_args(SIDES)}, got {self.of!r}')

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return tuple(candidate) == ('set',) and job == 'set'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    has, needs = folded(value), folded(job)
    counted = {'job': len(needs), 'candidate': len(has)}
    total = counted.get(self.of, min(counted.values()))
    return _shares(len(needs & has), total, self.needed) if total else UNKNOWN


@dataclasses.dataclass(frozen=True)
class Contains:
  """The job's value is one of the candidate's set."""

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return tuple(candidate) == ('set',) and job == 'category'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return MET if fold(job) in folded(value) else UNMET


@dataclasses.dataclass(frozen=True)
class Near:
  """Two places, dates or other words lie near each other; margin = by - distance(candidate, job).

  Attributes:
    by: the greatest distance that is met.
    distances: (one, other, distance); either way round alike, and 0 from a word to itself. A pair
      that is not listed is unknown.
    unit: of the distances.

  Raises:
    ValueError: distances are none of (one, other, distance), a distance is negative, or a pair has
      two of them.
  """

  by: float
  distances: tuple[tuple[str, str, float], ...]
  unit: str = ''

  def __post_init__(self):
    if not self.by >= 0:
      raise ValueError(f'near: by must be a number of at least 0, got {self.by!r}')
    wrong = [row for row in self.distances if len(row) != 3]
    if wrong:
      raise ValueError('near: distances must be triples of one, other and distance, got '
                       f'{wrong[0]!r}')
    for one, other, distance in self.distances:
      if not distance >= 0:
        raise ValueError('near: distances must be numbers of at least 0, got '
                         f'{distance!r} from {one!r} to {other!r}')
      if self._table[frozenset((fold(one), fold(other)))] != distance:
        raise ValueError(f'near: a pair must have one distance, got {one!r} and {other!r} twice')

  @functools.cached_property
  def _table(self) -> dict[frozenset[str], float]:
    return {frozenset((fold(a), fold(b))): d for a, b, d in self.distances}

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return tuple(candidate) == ('category',) and job == 'category'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    pair = frozenset((fold(value), fold(job)))
    distance = 0.0 if len(pair) == 1 else self._table.get(pair)
    return UNKNOWN if distance is None else _at_least(self.by, distance)


@dataclasses.dataclass(frozen=True)
class Semantic:
  """Free text against free text: left to the language model, so there is no verdict."""

  @staticmethod
  def takes(candidate: Sequence[str], job: str) -> bool:
    return set(candidate) == {'text'} and job == 'text'

  def compare(self, candidate: tuple, job) -> Comparison:
    return TEXT


# Names in schema files. Where a name has several classes, the kinds of the attributes decide.
NAMES: dict[str, tuple[type, ...]] = {
    'at_least': (AtLeast, OrdinalAtLeast), 'at_most': (AtMost,), 'within': (Within,),
    'same': (Same,), 'any_of': (AnyMemberOf,), 'contains': (Contains,), 'covers': (SetCoverage,),
    'near': (Near,), 'text': (Semantic,)}
