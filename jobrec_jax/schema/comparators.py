"""Comparators: how one candidate value faces one job value.

Each is a frozen dataclass with `compare(candidate, job) -> Comparison`. A missing value on either
side gives `unknown`, never a guess. A margin is in the field's own unit: how far above (positive)
or below (negative) the requirement.
"""

import dataclasses
import functools
from typing import Literal, Protocol

Verdict = Literal['met', 'unmet', 'unknown']


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

# The same values meet in many pairs of a catalogue, so align() asks the caches below.
_KEPT = 1 << 16
_frozen = functools.lru_cache(_KEPT)(frozenset)


def _by_margin(margin: float, words: str = '') -> Comparison:
  """Met where `margin` is not negative. The sum turns a rounded -0.0 into 0.0."""
  return Comparison('met' if margin >= 0 else 'unmet', margin + 0.0, words)


@functools.lru_cache(_KEPT)
def _at_least(value: float, needed: float) -> Comparison:
  # Two decimals is the precision of every published number; a float's tail is not a margin.
  return _by_margin(round(float(value) - float(needed), 2))


@functools.lru_cache(_KEPT)
def _covers(shared: int, total: int, needed: float) -> Comparison:
  return _by_margin(round(shared / total - needed, 4), f'{shared} of {total}')


class Comparator(Protocol):
  """What a comparator offers. `candidate` holds one value for each named candidate attribute."""

  def compare(self, candidate: tuple, job) -> Comparison: ...


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """candidate >= job, for numbers; margin = candidate - job, both to two decimals."""

  unit: str = ''

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return _at_least(value, job)


@dataclasses.dataclass(frozen=True)
class OrdinalAtLeast:
  """candidate's level is not below the job's; margin in levels."""

  levels: tuple[str, ...]
  unit: str = 'levels'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value not in self.levels or job not in self.levels:
      return UNKNOWN
    return _by_margin(float(self.levels.index(value) - self.levels.index(job)))


@dataclasses.dataclass(frozen=True)
class AnyMemberOf:
  """At least one of the candidate's values is among the job's; `none` is no value of either."""

  none: str = 'None'

  def compare(self, candidate: tuple, job) -> Comparison:
    if job is None:
      return UNKNOWN
    for value in candidate:
      if value is not None and value != self.none and value in job:
        return Comparison('met', None, value)
    # A missing value might have been the one that fits.
    return UNKNOWN if None in candidate else UNMET


@dataclasses.dataclass(frozen=True)
class SetCoverage:
  """The share of the job's set that the candidate's holds; margin = share - needed, in [-1, 1].

  An empty set of the job's is an unstated requirement: unknown.
  """

  needed: float = 0.5

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or not job:
      return UNKNOWN
    needed = _frozen(job)
    return _covers(len(needed & _frozen(value)), len(needed), self.needed)


@dataclasses.dataclass(frozen=True)
class Contains:
  """The job's value is one of the candidate's set."""

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return MET if job in value else UNMET


@dataclasses.dataclass(frozen=True)
class CompatibleMode:
  """Both name the same mode, or either names `anything`."""

  anything: str = 'No Preference'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return MET if value == job or self.anything in (value, job) else UNMET


@dataclasses.dataclass(frozen=True)
class Semantic:
  """Free text against free text: left to the language model, so there is no verdict."""

  def compare(self, candidate: tuple, job) -> Comparison:
    return TEXT
