"""What the cells of a foreign column look like: kind, range, words, separator, missing words."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
import dataclasses
import datetime
import math
import re
from typing import Any

from jobrec_jax.data.files.tables import parse_scalar
from jobrec_jax.data.tables import hints
from jobrec_jax.data.tables.cells import truth, value_of
from jobrec_jax.schema.schema import Attribute
from jobrec_jax.schema.words import fold

CLOSED = 12  # so many words or fewer are written out as the values of a column
SEPARATORS = (';', '|', '\n', ',', '/')
_OF_LISTS = SEPARATORS[:3]  # of the others only where words come again: they stand in prose, too
_SENTENCE = 5  # so many words in the mean are a text
_SENTINELS = ('-1', '-9', '-99', '-999')  # numbers that stand for a missing one
_CODE = re.compile(r'0\d+')
_ALMOST = re.compile(r'[^\w\s]{0,2}\s*[+-]?\d[\d.,\s]*\s*[^\d\s]{0,8}')
_DAY = re.compile(r'\d{1,4}[./-]\d{1,2}[./-]\d{1,4}\b.*')
_ADDRESS = re.compile(r'\S+@\S+|https?://\S+|\+?[\d\s()/-]{7,}')


@dataclasses.dataclass(frozen=True)
class Guess:
  """What a column is taken for.

  Attributes:
    column: its name in the file.
    attribute: None where it is left out.
    separator: between the members of a set.
    missing: words that stand for a missing value.
    why: what was seen, or what is needed, in a few words.
    words: those of its values, folded.
  """

  column: str
  attribute: Attribute | None
  separator: str = ';'
  missing: tuple[str, ...] = ()
  why: str = ''
  words: frozenset[str] = frozenset()


def filled(cells: Iterable[Any]) -> list[Any]:
  """The cells that are not empty."""
  return [c for c in cells if c is not None and c != '' and not (isinstance(c, float) and c != c)]


def guess(column: str, name: str, cells: Sequence[Any], separator: str = '',
          people: bool = False) -> Guess:
  """What a column of candidates or jobs is.

  Args:
    column: its name in the file.
    name: that of its attribute.
    cells: all of it.
    separator: between members, where the file itself says that it holds sets.
    people: whether rows are people, whose names are no attribute.

  Returns:
    A guess whose attribute, separator and missing words read every one of the cells.
  """
  there = filled(cells)
  if not there:
    return Guess(column, None, why='empty in every row')
  missing = tuple(sorted({c.strip() for c in there if isinstance(c, str)
                          and c.strip().casefold() in hints.UNKNOWN}))
  rest = [c for c in there if not (isinstance(c, str) and c.strip() in missing)]
  found = (_plain(column, name, rest) or _set(column, name, rest, separator)
           or _words(column, name, rest, people))
  if found.attribute is None:
    return found
  found = dataclasses.replace(found, missing=tuple(dict.fromkeys((*missing, *found.missing))))
  if len(there) < len(cells):
    found = dataclasses.replace(found, why=f'{found.why}; {len(cells) - len(there)} empty')
  return _checked(found, cells)


def _checked(found: Guess, cells: Sequence[Any]) -> Guess:
  """The guess, or none where a cell would be refused."""
  for cell in cells:
    try:
      value = value_of(found.attribute, cell, found.separator, found.missing)
      problem = found.attribute.problem(found.attribute.canonical(value))
    except ValueError as error:
      problem = str(error)
    if problem:
      return Guess(found.column, None, why=f'left out: {problem:.80}')
  return found


def _plain(column: str, name: str, rest: Sequence[Any]) -> Guess | None:
  """Numbers, booleans, and what no attribute can hold."""
  if not rest:
    return Guess(column, None, why='holds nothing but words for missing values')
  if any(not isinstance(c, str | int | float | list | tuple) for c in rest) or all(
      isinstance(c, str) and _DAY.fullmatch(c.strip()) for c in rest):
    dates = all(isinstance(c, datetime.date | str) for c in rest)
    return Guess(column, None, why='dates: to compare them write days as a number' if dates else
                 f'holds {type(next(c for c in rest if not isinstance(c, str))).__name__} values')
  if any(isinstance(c, list | tuple) for c in rest):
    return None
  if len({str(c).strip() for c in rest}) == 1 and len(rest) > 1:
    return Guess(column, None, why=f'{str(rest[0])[:40]!r} in every row')
  truths = [truth(c) for c in rest]
  if None not in truths and len(set(truths)) == 2:
    return Guess(column, Attribute(name, 'boolean'), why=f'{sum(truths)} of {len(rest)} yes')
  return _numbers(column, name, rest)


def _numbers(column: str, name: str, rest: Sequence[Any]) -> Guess | None:
  texts = [c.strip() if isinstance(c, str) else c for c in rest]
  strange = Counter(c for c in texts if _number(c) is None)
  if strange and (len(strange) > 2 or sum(strange.values()) > 0.3 * len(rest)):
    almost = all(isinstance(c, str) and _ALMOST.fullmatch(c) for c in texts)
    codes = all(isinstance(c, str) and c.isalnum() for c in texts)
    return Guess(column, None, why='numbers with signs or decimal commas: write 3.5') if (
        almost and not codes) else None
  kept = [c for c in texts if _number(c) is not None]
  if any(isinstance(c, str) and _CODE.fullmatch(c) for c in kept) or not all(
      isinstance(c, str) for c in strange):
    return None  # 01234 is a code
  marks = [m for m in _SENTINELS if m in kept]
  if len(marks) == 1 and sum(_number(c) < 0 for c in kept) == kept.count(marks[0]):
    strange[marks[0]] = kept.count(marks[0])
    kept = [c for c in kept if c != marks[0]]
  values = [_number(c) for c in kept]
  whole = all(v == int(v) for v in values)
  low, high = outwards(min(values), max(values), whole)
  why = f'{min(values):g} to {max(values):g}'
  return Guess(column, Attribute(name, 'integer' if whole else 'number', low=low, high=high),
               missing=tuple(strange), why=why)


def _number(cell: Any) -> float | None:
  if isinstance(cell, bool):
    return None
  if isinstance(cell, str):
    return parse_scalar('number', cell)
  return cell if isinstance(cell, int | float) and math.isfinite(cell) else None


def outwards(low: float, high: float, whole: bool) -> tuple[float, float]:
  """A round range about another: to a digit of what it spans, from 0 where that lies near."""
  if 0 <= low <= high / 2:
    low = 0.0
  step = 10.0 ** math.floor(math.log10(max(high - low, abs(high) / 10, 1 if whole else 1e-9)))
  ends = math.floor(low / step) * step, math.ceil(high / step) * step
  return tuple(int(e) if e == int(e) else round(e, 9) for e in ends)


def _set(column: str, name: str, rest: Sequence[Any], given: str) -> Guess | None:
  """Lists, or words with a separator between them that come again."""
  lists = [c for c in rest if isinstance(c, list | tuple)
           or (c.strip()[:1] == '[' and c.strip()[-1:] == ']' if isinstance(c, str) else False)]
  if len(lists) == len(rest) or given:
    return _members(column, name, rest, given or ';', 'lists')
  if lists or not all(isinstance(c, str) for c in rest):
    return None
  for separator in SEPARATORS:
    parts = [[m.strip() for m in c.split(separator) if m.strip()] for c in rest]
    holds = sum(len(p) > 1 for p in parts)
    members = [m for p in parts for m in p]
    if holds < max(1, 0.2 * len(rest)) or sum(len(m.split()) for m in members) > 3 * len(members):
      continue
    if separator in _OF_LISTS or len(set(map(fold, members))) <= 0.6 * len(members):
      return _members(column, name, rest, separator, f'{separator!r} in {holds} of {len(rest)}')
  return None


def _members(column: str, name: str, rest: Sequence[Any], separator: str, seen: str) -> Guess:
  kind = Attribute(name, 'set')
  try:
    members = [m for c in rest for m in value_of(kind, c, separator) or ()]
  except ValueError as error:
    return Guess(column, None, why=f'left out: {error}')
  counted = _spellings(members)
  values = _in_order(counted) if len(counted) <= CLOSED else ()
  return Guess(column, Attribute(name, 'set', values), separator,
               why=f'{seen}; {len(counted)} words', words=frozenset(map(fold, counted)))


def _words(column: str, name: str, rest: Sequence[Any], people: bool) -> Guess:
  """A category, a text, or what differs in every row and says nothing."""
  if not all(isinstance(c, str | int | float) for c in rest):
    return Guess(column, None, why='lists in some rows alone')
  texts = [c.strip() if isinstance(c, str) else str(c) for c in rest]
  different = _spellings(texts)
  words = sum(len(t.split()) for t in texts) / len(texts)
  if words >= _SENTENCE or (words >= 3 and len(different) > max(CLOSED, 0.4 * len(texts))):
    return Guess(column, Attribute(name, 'text'), why='long')
  if all(_ADDRESS.fullmatch(t) for t in texts):
    return Guess(column, None, why='addresses say nothing')
  if len(different) > 0.8 * len(texts) > 1 and people and hints.says(column, hints.PERSONAL):
    return Guess(column, None, why='names say nothing')
  if len(different) > 0.8 * len(texts) and len(texts) > CLOSED:
    if not any(' ' in t for t in texts):
      return Guess(column, None, why='differs in every row, as ids do')
    return Guess(column, Attribute(name, 'text'), why='differs in every row')
  values = _in_order(different) if len(different) <= CLOSED else ()
  return Guess(column, Attribute(name, 'category', values), why=f'{len(different)} words',
               words=frozenset(map(fold, different)))


def _spellings(words: Iterable[str]) -> list[str]:
  """Of words that fold alike the most frequent spelling."""
  first: dict[str, str] = {}
  for word, _ in Counter(words).most_common():
    first.setdefault(fold(word), word)
  return list(first.values())


def _in_order(words: Iterable[str]) -> tuple[str, ...]:
  """From the least to the greatest where the words are known to have an order; else by name."""
  rank = ladder(words)
  return tuple(sorted(words, key=rank or natural))


def ladder(words: Iterable[str]) -> Callable[[str], int] | None:
  """The rank of each word, where all belong to one known order."""
  known = {fold(w) for w in words}
  for steps in hints.LADDERS:
    if len(known) > 1 and known <= set(steps):
      return lambda word, steps=steps: steps.index(fold(word))
  return None


def natural(word: str) -> list[tuple[bool, float, str]]:
  """A key under which 'grade 9' stands before 'grade 10'."""
  return [(not part.isdecimal(), float(part) if part.isdecimal() else 0, part)
          for part in re.findall(r'\d{1,15}|\D+|\d+', fold(word))]
