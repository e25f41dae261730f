"""Values as people write them: which spellings mean the same, and one order for members of a set.

fold('  Scikit–Learn ') == fold('scikit learn'): Unicode's compatibility forms, case, white space,
and dashes between letters make no difference. What is shown stays as it was written.
"""

from collections.abc import Iterable
import functools
import re
import unicodedata

_BETWEEN = re.compile(r'(?<=\w)[-\u2010-\u2015\u2212](?=\w)')  # dashes between letters or digits
# Marks of direction, which turn round what stands behind them.
_BIDI = '\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'
_CONTROL = ('Cc', 'Cs', 'Zl', 'Zp')
_KEPT = 1 << 16  # the same words meet in many pairs of a catalogue


@functools.lru_cache(_KEPT)
def fold(text: str) -> str:
  """The key under which spellings of the same word are equal: NFKC, case, white space, dashes.

  A text without any letter, digit or sign folds to itself, so that no two such values meet.
  """
  plain = unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', text).casefold())
  return ' '.join(_BETWEEN.sub(' ', plain).split()) or text


def order(members: Iterable[str]) -> tuple[str, ...]:
  """Each member once, whatever its spelling, in alphabetical order of what they fold to."""
  first: dict[str, str] = {}
  for member in sorted(members):
    first.setdefault(fold(member), member)
  return tuple(first[key] for key in sorted(first))


@functools.lru_cache(_KEPT)
def folded(members: tuple[str, ...]) -> frozenset[str]:
  """The members of a set, as they are compared."""
  return frozenset(map(fold, members))


def quoted(text: str, apart: str = ',;"') -> str:
  """A value as it stands among others: in one line, and quoted where it holds any of `apart`.

  As in CSV files, quotes within are doubled: 'a, b' becomes '"a, b"'. An empty value is '""'.
  """
  plain = ' '.join(text.split())
  if plain and not any(c in plain for c in apart):
    return plain
  return '"' + plain.replace('"', '""') + '"'


def printable(text: str, keep: str = '') -> str:
  """The text as a terminal may show it: control characters and marks of direction as escapes.

  Args:
    text: any.
    keep: characters that stay, such as line feeds of a table.
  """
  return ''.join(c if c in keep or not (c in _BIDI or unicodedata.category(c) in _CONTROL)
                 else ascii(c)[1:-1] for c in text)
