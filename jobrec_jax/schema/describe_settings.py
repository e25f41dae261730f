"""What settings are for, read from the comments and docstrings beside them in the code."""

import ast
from collections.abc import Iterator
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from jobrec_jax.schema.settings import hints

WIDTH = 100  # of the lines of a text
ATTRIBUTES = re.compile(r'^  (\w+(?:, \w+)*): (.*(?:\n {4,}.*)*)', re.M)


class Described(NamedTuple):
  """A setting.

  Attributes:
    key: with its sections, such as 'policy.temperature'.
    default: its value where nothing is said.
    allowed: its range or its words; '' where the type alone bounds it.
    text: its comment, or what the docstring of its class says of it; else what the class is.
  """

  key: str
  default: Any
  allowed: str
  text: str


def settings_with(cls: type, word: str) -> str:
  """The settings whose key or text holds a word, in any case, for a terminal.

  Args:
    cls: a tree of dataclasses with a default for every field.
    word: what is looked for.

  Raises:
    ValueError: none holds it.
  """
  found = [d for d in described(cls) if word.lower() in f'{d.key} {d.text}'.lower()]
  if not found:
    raise ValueError(f'WORD must be part of the name or the comment of a setting, got {word!r}, '
                     'which is in none')
  return '\n'.join(f"{d.key} = {d.default!r}{d.allowed and f'   {d.allowed}'}\n"
                   + textwrap.fill(d.text, WIDTH, initial_indent='    ', subsequent_indent='    ')
                   for d in found)


def described(cls: type, prefix: str = '') -> Iterator[Described]:
  """Every setting of a tree of dataclasses, in its order."""
  texts = {}
  for base in reversed(cls.__mro__):
    if dataclasses.is_dataclass(base):
      texts |= texts_of(base)
  values = cls()
  for name, kind in hints(cls).items():
    if dataclasses.is_dataclass(kind):
      yield from described(kind, f'{prefix}{name}.')
    else:
      text = texts.get(name) or inspect.cleandoc(cls.__doc__ or '').split('\n\n')[0]
      yield Described(prefix + name, getattr(values, name), _allowed(kind), ' '.join(text.split()))


def texts_of(cls: type) -> dict[str, str]:
  """What one class says of its own fields: comments above and behind them, else its docstring.

  A comment above several fields, with no line between them, is of all.
  """
  source = textwrap.dedent(inspect.getsource(cls))
  lines = source.splitlines()
  comments = {t.start[0]: t.string.lstrip('# ') for t in
              tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
  attributes = inspect.cleandoc(cls.__doc__ or '').partition('Attributes:')[2].split('\n\n')[0]
  found = {name: text for names, text in ATTRIBUTES.findall(attributes)
           for name in names.split(', ')}
  last, ended = '', 0  # the comment above the field before, and the line where that ends
  for node in ast.parse(source).body[0].body:
    if not isinstance(node, ast.AnnAssign):
      continue
    first = node.lineno
    while lines[first - 2].lstrip().startswith('#'):
      first -= 1
    above = ' '.join(comments[i] for i in range(first, node.lineno))
    behind = comments.get(node.end_lineno, '')
    last = above or (last if ended == node.lineno - 1 and not behind else '')
    ended = node.end_lineno
    text = ' '.join(filter(None, (last, behind)))
    if text:
      found[node.target.id] = text
  return found


def _allowed(kind: Any) -> str:
  """The range or the words of a field's type."""
  base, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
  words = [base, *get_args(base)]
  literal = next((get_args(w) for w in words if get_origin(w) is Literal), ())
  return ', '.join([*map(str, marks), *(['one of ' + ', '.join(map(repr, literal))]
                                        if literal else [])])
