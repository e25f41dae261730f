"""Which of some foreign tables holds candidates, which jobs and which their interactions."""

from collections import Counter
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools
import re
from typing import Any

from jobrec_jax.data.tables import hints
from jobrec_jax.data.tables.cells import id_of

KNOWN = 0.8  # the least share of a column's rows whose ids another table must have
UNIQUE = 0.9  # the least share of rows that differ in a column of ids
_FRACTION = re.compile(r'[+-]?\d*\.\d+([eE][+-]?\d+)?')


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A table that was read.

  Attributes:
    file: its name.
    columns: all cells of each column.
    separators: of the columns that the file itself calls lists.
  """

  file: str
  columns: Mapping[str, Sequence[Any]]
  separators: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def stem(self) -> str:
    return self.file.rpartition('.')[0]

  @functools.cached_property
  def ids(self) -> dict[str, Counter]:
    """By column, how often each of its cells stands there, read as an id; no lists."""
    return {c: Counter(map(id_of, cells)) for c, cells in self.columns.items()
            if not any(isinstance(cell, list | tuple | dict) for cell in cells)}

  @property
  def rows(self) -> int:
    return max((len(cells) for cells in self.columns.values()), default=0)

  def unique(self) -> list[str]:
    """The columns that could be its ids; measurements differ in every row, too, and are none."""
    return [c for c, seen in self.ids.items() if len(seen) >= UNIQUE * self.rows > 0
            and not any(map(_FRACTION.fullmatch, seen))]


@dataclasses.dataclass(frozen=True)
class Side:
  """A table of candidates or jobs: its column of ids, and that of the interactions."""

  sheet: Sheet
  id: str
  column: str


@dataclasses.dataclass(frozen=True)
class Roles:
  """Which table is which.

  Attributes:
    candidate, job: tables of the two sides.
    log: the interactions.
    sure: whether names said which side is which.
  """

  candidate: Side
  job: Side
  log: Sheet
  sure: bool


def find_roles(sheets: Sequence[Sheet]) -> Roles | None:
  """The three tables: interactions are the one whose columns hold the ids of the two others.

  None where no table holds the ids of two others.
  """
  best: tuple[float, Side, Side, Sheet] | None = None
  for log in sheets:
    others = [s for s in sheets if s is not log]
    for one, other in itertools.combinations(others, 2):
      for (a, left), (b, right) in itertools.product(_named(log, one), _named(log, other)):
        if left.column != right.column and (best is None or a + b > best[0]):
          best = a + b, left, right, log
  if best is None:
    return None
  _, left, right, log = best
  leaning = _person(left) - _person(right)
  if leaning < 0 or (leaning == 0 and left.sheet.rows < right.sheet.rows):
    left, right = right, left
  return Roles(left, right, log, leaning != 0)


def _named(log: Sheet, other: Sheet) -> list[tuple[float, Side]]:
  """Columns of a table that may hold the ids of another one, and how well they fit."""
  found = []
  for key in other.unique():
    known = other.ids[key]
    for column, seen in log.ids.items():
      shared = (seen.keys() & known.keys()) - {''}
      there = sum(seen[value] for value in shared)
      if there < KNOWN * log.rows or log.rows == 0:
        continue
      reached = len(shared) / len(known)
      repeats = len(seen) < UNIQUE * log.rows
      alike = max(hints.likeness(column, key), hints.likeness(column, other.stem))
      found.append((there / log.rows + reached + alike + repeats + (column == key),
                    Side(other, key, column)))
  return found


def _person(side: Side) -> int:
  """Positive where names speak of people, negative where they speak of jobs."""
  names = (side.sheet.stem, side.id, side.column)
  asks = any(hints.says(c, hints.LEAST) for c in side.sheet.columns)
  return sum(hints.says(n, hints.CANDIDATES) - hints.says(n, hints.JOBS) for n in names) - asks


def two_sides(sheets: Sequence[Sheet]) -> tuple[Sheet | None, Sheet | None]:
  """Candidates and jobs by their names alone, where no table of interactions was found."""
  def person(sheet: Sheet) -> int:
    return _person(Side(sheet, '', ''))
  ranked = sorted(sheets, key=lambda s: (-person(s), -s.rows))
  first = ranked[0] if ranked and (len(ranked) > 1 or person(ranked[0]) >= 0) else None
  rest = [s for s in ranked if s is not first]
  return first, min(rest, key=person, default=None)
