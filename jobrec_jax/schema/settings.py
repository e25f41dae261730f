"""Settings as frozen dataclasses, whose fields say once what they may hold.

  @dataclasses.dataclass(frozen=True)
  class OptimizerConfig:
    steps: Annotated[int, at_least(1)] = 300
    rule: Literal['adam', 'sgd'] = 'adam'

    def __post_init__(self):
      check(self)

`check` refuses a wrong type, a number that is not finite or out of range, and a word that is not
among those of a `Literal`. `build` makes a tree of such dataclasses from a mapping and puts the
dotted key in front of every error.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import functools
import math
import sys
import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Range:
  """The numbers from `low` to `high`; an open end does not belong to them."""

  low: float = -math.inf
  high: float = math.inf
  open_low: bool = False
  open_high: bool = False

  def __contains__(self, x: float) -> bool:
    above = self.low < x if self.open_low else self.low <= x
    return above and (x < self.high if self.open_high else x <= self.high)

  def __str__(self) -> str:
    if self.high == math.inf:
      return f'{"above" if self.open_low else "at least"} {self.low:g}'
    left, right = '(' if self.open_low else '[', ')' if self.open_high else ']'
    return f'in {left}{self.low:g}, {self.high:g}{right}'


def at_least(low: float) -> Range:
  return Range(low)


def above(low: float) -> Range:
  return Range(low, open_low=True)


def within(low: float, high: float, open_low: bool = False, open_high: bool = False) -> Range:
  return Range(low, high, open_low, open_high)


@functools.cache
def hints(cls: type) -> dict[str, Any]:
  """The types of a dataclass's fields, `Annotated` ones with what they are annotated with."""
  known = get_type_hints(cls, include_extras=True)
  return {f.name: known[f.name] for f in dataclasses.fields(cls)}


def check(settings: Any) -> None:
  """Checks every field of a dataclass against its type.

  Raises:
    ValueError: with the field, what was allowed and what came.
  """
  for name, kind in hints(type(settings)).items():
    problem = _problem(getattr(settings, name), kind)
    if problem:
      raise ValueError(f'{name} must be {problem}')


def _problem(value: Any, kind: Any) -> str | None:
  """What `kind` allows and what came instead, or None where the value is allowed."""
  origin, given = get_origin(kind), f', got {value!r}'
  if origin is Annotated:
    base, *marks = get_args(kind)
    (allowed,) = marks
    found = _problem(value, base)
    many = get_origin(base) is tuple
    inside = not found and all(x in allowed for x in (value if many else [value]))
    if inside:
      return None
    word = _WORDS.get(get_args(base)[0] if many else base, base)
    return f'{"numbers, each " if many else ""}{word} {allowed}{given}'
  if origin is Literal:
    words = get_args(kind)
    return None if value in words and type(value) in map(type, words) else (
        f'one of {words}{given}')
  if origin is tuple:
    inner = get_args(kind)
    if not isinstance(value, tuple):
      return f'a tuple{given}'
    each = inner[:1] * len(value) if inner[1:] == (...,) else inner
    if len(each) != len(value):
      return f'a tuple of {len(each)}{given}'
    wrong = [p for x, k in zip(value, each) if (p := _problem(x, k))]
    return f'a tuple, each {wrong[0]} in {value!r}' if wrong else None
  if origin in (Union, types.UnionType):
    problems = [_problem(value, k) for k in get_args(kind)]
    return None if None in problems else problems[0]
  if kind is type(None):
    return None if value is None else f'None{given}'
  return _scalar_problem(value, kind)


_WORDS = {int: 'an integer', float: 'a finite number', str: 'text', bool: 'True or False'}


def _scalar_problem(value: Any, kind: type) -> str | None:
  if kind is float:
    fits = (isinstance(value, int | float) and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max)  # neither inf, nan nor an integer beyond
  elif kind is int:
    fits = isinstance(value, int) and not isinstance(value, bool)
  else:
    fits = isinstance(value, kind)
  return None if fits else f'{_WORDS.get(kind, kind.__name__)}, got {value!r}'


def build(cls: type[T], values: Mapping[str, Any], prefix: str = '') -> T:
  """A dataclass from a mapping, with the dataclasses in it from mappings of their own.

  Args:
    cls: a frozen dataclass that checks itself.
    values: a value for some of the fields; lists become tuples. Fields without one keep their
      default.
    prefix: the dotted key of `values` with a dot behind it, for errors.

  Raises:
    ValueError: an unknown key, with the nearest that exists, or a value that is not allowed.
  """
  known = hints(cls)
  made = {}
  for name, value in values.items():
    if name not in known:
      near = difflib.get_close_matches(name, known, 1)
      raise ValueError(f'{prefix}{name} is no setting' + (f'; did you mean {prefix}{near[0]}?'
                                                          if near else f' among {list(known)}'))
    kind = known[name]
    if dataclasses.is_dataclass(kind):
      if not isinstance(value, Mapping):
        raise ValueError(f'{prefix}{name} must be a section of settings, got {value!r}')
      made[name] = build(kind, value, f'{prefix}{name}.')
    else:
      made[name] = _converted(value, kind)
  try:
    return cls(**made)
  except ValueError as error:
    raise ValueError(f'{prefix}{error}') from error


def _converted(value: Any, kind: Any) -> Any:
  """Lists as tuples and whole numbers as floats, where the field is of that type."""
  base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
  if isinstance(value, list | tuple):
    inner = get_args(base)
    each = inner[0] if inner else None
    return tuple(_converted(x, each) for x in value)
  if base is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  return value


def as_mapping(settings: Any) -> dict[str, Any]:
  """The inverse of `build`: nested dictionaries of plain values, tuples as they are."""
  return {name: as_mapping(value) if dataclasses.is_dataclass(value) else value
          for name in hints(type(settings)) for value in [getattr(settings, name)]}


def override(settings: T, changes: Mapping[str, Any]) -> T:
  """Settings with some values changed.

  Args:
    settings: a frozen dataclass that checks itself, with others in it.
    changes: dotted key -> value, such as {'experts.beta': 0.5}.

  Raises:
    ValueError: an unknown key, or a value that is not allowed.
  """
  values = as_mapping(settings)
  for key, value in changes.items():
    *sections, name = key.split('.')
    section = values
    for i, part in enumerate(sections):
      section = section.setdefault(part, {})
      if not isinstance(section, dict):
        raise ValueError(f"{'.'.join(sections[:i + 1])} must be a section of settings to hold "
                         f'{key}, got the value {section!r}')
    section[name] = value
  return build(type(settings), values)
