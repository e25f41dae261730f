"""One rule for what a cell means, whichever file it stands in.

| kind | text | also, in JSON and Parquet |
|---|---|---|
| number, integer | digits; an integer may be written 12.0 | a number |
| boolean, and labels | true, false, yes, no, y, n, t, f, 1, 0, 1.0, 0.0 in any case | true, false, 1, 0 |
| category, text | as it is | a number, as its digits |
| set | members with the separator between, each in quotes where it holds that; or a list as JSON or Python write it | an array |
| id | as it is; 17.0 is 17 | a number |

An empty cell is a missing value, and so are NA, N/A, NaN and null where a number or a boolean is
expected, and the words that a schema file calls missing.
"""  # noqa: E501

import ast
from collections.abc import Collection
import csv
import json
import math
import re
from typing import Any

from jobrec_jax.data.files.tables import ALLOWED, parse_scalar
from jobrec_jax.schema.schema import Attribute, Value

YES = frozenset(('true', 'yes', 'y', 't', '1', '1.0'))
NO = frozenset(('false', 'no', 'n', 'f', '0', '0.0'))
_MISSING = frozenset(('na', 'n/a', 'nan', 'null', '<na>'))
_WHOLE = re.compile(r'([+-]?\d+)\.0+')


def value_of(attribute: Attribute, cell: Any, separator: str = ';',
             missing: Collection[str] = ()) -> Value:
  """The value of a cell.

  Args:
    attribute: its column's.
    cell: text, or what JSON and Parquet hold.
    separator: between the members of a set.
    missing: words that stand for a missing value.

  Raises:
    ValueError: with the attribute, what was allowed and what came.
  """
  if cell is None or cell == '' or (isinstance(cell, str) and cell.strip() in missing) or (
      isinstance(cell, float) and math.isnan(cell)):
    return None
  kind = attribute.kind
  if kind == 'set':
    return _members(attribute, cell, separator)
  if kind in ('category', 'text'):
    if isinstance(cell, str):
      return cell
    if isinstance(cell, int | float):
      return _digits(cell)
    raise _wrong(attribute, cell)
  if isinstance(cell, str) and cell.strip().casefold() in _MISSING:
    return None
  if kind == 'boolean':
    value = truth(cell)
  elif isinstance(cell, str):
    value = parse_scalar(kind, cell.strip())
  elif isinstance(cell, bool) or not isinstance(cell, int | float) or not math.isfinite(cell):
    value = None
  elif kind == 'integer':
    value = int(cell) if cell == int(cell) else None
  else:
    value = float(cell)
  if value is None:
    raise _wrong(attribute, cell)
  return value


def truth(cell: Any) -> bool | None:
  """What yes and no are written as; None for anything else."""
  word = (_digits(cell) if isinstance(cell, int | float) else str(cell)).strip().casefold()
  return True if word in YES else False if word in NO else None


def id_of(cell: Any) -> str:
  """An id as text; '' where there is none."""
  if isinstance(cell, str):
    whole = _WHOLE.fullmatch(cell.strip())
    return whole[1] if whole else cell
  return '' if cell is None else _digits(cell) if isinstance(cell, int | float) else str(cell)


def record_id(cell: Any) -> str:
  """`id_of` a record; '' where the cell holds what names none: yes or no, bytes, a list, nan."""
  none = isinstance(cell, bool | bytes | list | tuple | dict) or cell != cell
  return '' if none else id_of(cell)


def _digits(number: float) -> str:
  if isinstance(number, bool):
    return 'true' if number else 'false'
  return str(int(number)) if math.isfinite(number) and number == int(number) else str(number)


def _members(attribute: Attribute, cell: Any, separator: str) -> tuple[str, ...]:
  if isinstance(cell, str):
    text = cell.strip()
    cell = _listed(text) if text[:1] == '[' and text[-1:] == ']' else _separated(text, separator)
  if not isinstance(cell, list | tuple):
    raise _wrong(attribute, cell)
  members = [m if isinstance(m, str) else _digits(m) if isinstance(m, int | float) else None
             for m in cell]
  if None in members:
    raise _wrong(attribute, cell)
  return tuple(m for m in members if m != '')


def _listed(text: str) -> Any:
  """A list as JSON or Python write it."""
  try:
    return json.loads(text)
  except (ValueError, RecursionError):
    try:
      return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
      return text  # of no list: the caller says so


def _separated(text: str, separator: str) -> list[str]:
  if len(separator) == 1 and '"' in text:
    try:
      (row,) = csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True)
      return [m.strip() for m in row]
    except (ValueError, csv.Error):  # quotes that belong to the members
      pass
  return [m.strip() for m in text.split(separator)]


def _wrong(attribute: Attribute, cell: Any) -> ValueError:
  allowed = {'set': 'list of words', **ALLOWED}.get(attribute.kind, attribute.kind)
  return ValueError(f'{attribute.name} must be {"an" if allowed == "integer" else "a"} {allowed}, '
                    f'got {str(cell)[:80]!r}')
