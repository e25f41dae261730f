"""Comparators: how one candidate value faces one job value.

Each is a frozen dataclass with `compare(candidate, job) -> Comparison`. A missing value on either
side gives `unknown`, never a guess. A margin is in the field's own unit: how far above (positive)
or below (negative) the requirement.
"""

import dataclasses
from typing import Literal, Protocol

Verdict = Literal['met', 'unmet', 'unknown']


@dataclasses.dataclass(frozen=True)
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


class Comparator(Protocol):
  """What a comparator offers. `candidate` holds one value for each named candidate attribute."""

  def compare(self, candidate: tuple, job) -> Comparison: ...


@dataclasses.dataclass(frozen=True)
class AtLeast:
  """candidate >= job, for numbers; margin = candidate - job."""

  unit: str = ''

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    # Two decimals is the precision of every published number; a float's tail is not a margin.
    margin = round(float(value) - float(job), 2)
    return Comparison('met' if margin >= 0 else 'unmet', margin)


@dataclasses.dataclass(frozen=True)
class OrdinalAtLeast:
  """candidate's level is not below the job's; margin in levels."""

  levels: tuple[str, ...]
  unit: str = 'levels'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value not in self.levels or job not in self.levels:
      return UNKNOWN
    margin = self.levels.index(value) - self.levels.index(job)
    return Comparison('met' if margin >= 0 else 'unmet', float(margin))


@dataclasses.dataclass(frozen=True)
class AnyMemberOf:
  """At least one of the candidate's values is among the job's; values equal to `none` do not count."""

  none: str = 'None'

  def compare(self, candidate: tuple, job) -> Comparison:
    if job is None or all(v is None for v in candidate):
      return UNKNOWN
    shared = [v for v in candidate if v is not None and v != self.none and v in job]
    if shared:
      return Comparison('met', None, shared[0])
    return UNKNOWN if any(v is None for v in candidate) else Comparison('unmet')


@dataclasses.dataclass(frozen=True)
class SetCoverage:
  """The share of the job's set that the candidate's holds; margin = share - needed, in [-1, 1]."""

  needed: float = 0.5

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or not job:
      return UNKNOWN
    shared = len(set(value) & set(job))
    share = shared / len(set(job))
    return Comparison('met' if share >= self.needed else 'unmet', round(share - self.needed, 4),
                      f'{shared} of {len(set(job))}')


@dataclasses.dataclass(frozen=True)
class Contains:
  """The job's value is one of the candidate's set."""

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return Comparison('met' if job in value else 'unmet')


@dataclasses.dataclass(frozen=True)
class CompatibleMode:
  """Both name the same mode, or either names `anything`."""

  anything: str = 'No Preference'

  def compare(self, candidate: tuple, job) -> Comparison:
    (value,) = candidate
    if value is None or job is None:
      return UNKNOWN
    return Comparison('met' if value == job or self.anything in (value, job) else 'unmet')


@dataclasses.dataclass(frozen=True)
class Semantic:
  """Free text against free text: left to the language model, so there is no verdict."""

  def compare(self, candidate: tuple, job) -> Comparison:
    return Comparison(None)
