"""A first schema file for foreign tables: what their columns look like, each guess with a comment.

  print(describe('my_data'))

Nothing is known of the files but what they hold. The text is a schema file that `read_definition`
takes where candidates, jobs and interactions were found; what could not be guessed stands there as
a comment that says what is needed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
from typing import Any

from jobrec_jax.data.tables.alignment import Facing, align, widened
from jobrec_jax.data.tables.decisions import Line, decisions
from jobrec_jax.data.tables.kinds import Guess, guess
from jobrec_jax.data.tables.roles import Roles, Sheet, find_roles, two_sides
from jobrec_jax.data.tables.rows import ENDINGS, RECBOLE, read_table
from jobrec_jax.schema.document import SIDES
from jobrec_jax.schema.files import expanded, read_text

_HEAD = '''\
# A first schema file, guessed from what the files hold. Check every line; docs/your_data.md says
# what the keys mean. A column without a line here is not read.
'''
_LAYERS = '''\
# What faces what, in layers that prompts show one by one: rename and divide them as you like. In a
# layer with hard = true the fields are requirements. perspective: 'preference' for what candidates
# want, 'qualification' for what employers ask, 'both' where you cannot tell.
'''
_WIDTH = 100


def describe(folder: str | Path) -> str:
  """The text of a first schema file for the tables in a folder.

  Raises:
    ValueError: it is no folder, or holds no table.
  """
  folder = expanded(folder)
  if not folder.is_dir():
    raise ValueError(f'{folder}: must be a folder with tables, got '
                     f'{"a file" if folder.exists() else "nothing"}')
  sheets, notes = _read(folder)
  if not sheets:
    raise ValueError(f'{folder}: must hold tables that end in one of {", ".join(ENDINGS)}, got '
                     f'{"; ".join(notes) or "none"}')
  roles = find_roles(sheets)
  tables = ({'candidate': roles.candidate.sheet, 'job': roles.job.sheet} if roles else
            dict(zip(SIDES, two_sides(sheets))))
  ids = {'candidate': roles.candidate.id, 'job': roles.job.id} if roles else {}
  guesses = {side: _columns(side, sheet, ids.get(side)) if sheet else []
             for side, sheet in tables.items()}
  fields = align(guesses['candidate'], guesses['job'])
  guesses = dict(zip(SIDES, widened(guesses['candidate'], guesses['job'], fields)))
  used = {s.file for s in (*tables.values(), roles.log if roles else None) if s}
  notes += [f'{s.file} is not used; it has {", ".join(map(_text, s.columns))}'
            for s in sheets if s.file not in used]
  name = _attribute_name(folder.resolve().name, set())
  parts = [_HEAD + ''.join(f'# {_comment(note)}\n' for note in notes) + f'name = {_value(name)}\n',
           *(_side(side, tables[side], guesses[side]) for side in SIDES), _layers(fields),
           _tables(roles)]
  return '\n'.join(parts)


def _read(folder: Path) -> tuple[list[Sheet], list[str]]:
  """The tables of a folder, and notes on what is none."""
  sheets, notes = [], []
  for path in sorted(folder.iterdir()):
    if path.suffix.lower() not in ENDINGS or not path.is_file() or path.name.startswith('.'):
      continue
    try:
      table = read_table(path)
      rows = [row for _, row in table.rows]
    except ValueError as error:
      notes.append(f'{path.name} is not read: {str(error).removeprefix(str(folder)).strip("/")}')
      continue
    columns = dict(zip(table.columns, map(list, zip(*rows))))
    if len(table.columns) < 2 or not rows:
      notes.append(f'{path.name} is no table of two columns or more with rows')
    else:
      sheets.append(Sheet(path.name, columns, _separators(path)))
  return sheets, notes


def _separators(path: Path) -> dict[str, str]:
  """Columns that RecBole's header calls sequences of tokens, which have spaces between."""
  if path.suffix.lower() not in RECBOLE:
    return {}
  header = read_text(path).partition('\n')[0].rstrip('\r').split('\t')
  return {name: ' ' for name, _, kind in (h.partition(':') for h in header) if kind == 'token_seq'}


def _columns(side: str, sheet: Sheet, key: str | None) -> list[Guess]:
  taken: set[str] = set()
  found = []
  for column, cells in sheet.columns.items():
    if column != key:
      name = _attribute_name(column, taken)
      taken.add(name)
      found.append(guess(column, name, cells, sheet.separators.get(column, ''),
                         side == 'candidate'))
  return found


def _attribute_name(column: str, taken: set[str]) -> str:
  """A name as a key: words with '_' between; 'id' is no attribute's."""
  words = re.findall(r'\w+', re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', column).lower())
  name = '_'.join(words) or 'column'
  count = 1
  while (made := name if count == 1 else f'{name}_{count}') in {*taken, 'id'}:
    count += 1
  return made


def _side(side: str, sheet: Sheet | None, guesses: Sequence[Guess]) -> str:
  lines = [f'[{side}]' + (f'   # {_comment(sheet.file)}, {sheet.rows} rows' if sheet else '')]
  for g in guesses:
    if g.attribute is None:
      lines.append(f'# {_comment(g.column)}: {_comment(g.why)}')
    else:
      lines += _attribute(g)
  if all(g.attribute is None for g in guesses):
    lines.append("# needed, a line for each column: NAME = {kind = 'category', column = 'COLUMN'}")
  return '\n'.join(lines) + '\n'


def _attribute(g: Guess) -> list[str]:
  a = g.attribute
  table: dict[str, Any] = {'kind': a.kind}
  if a.name != g.column:
    table['column'] = g.column
  table |= {k: getattr(a, k) for k in ('low', 'high') if getattr(a, k) is not None}
  if a.kind == 'set' and g.separator != ';':
    table['separator'] = g.separator
  if g.missing:
    table['missing'] = list(g.missing)
  if a.values:
    table['values'] = list(a.values)
  closed = '; new ones are refused' if a.values else ''
  return _entry(a.name, table, g.why + closed)


def _layers(fields: Sequence[Facing]) -> str:
  blocks = [_LAYERS]
  groups = {'requirements': ('at_least', 'at_most'), 'words': ('same', 'any_of', 'contains',
                                                               'covers'), 'texts': ('text',)}
  for layer, compares in groups.items():
    inside = [f for f in fields if f.compare in compares]
    if inside:
      blocks.append(f'[layers.{layer}]\n' + ''.join('\n'.join(_field(f)) + '\n' for f in inside))
  if not fields:
    blocks.append("[layers.fit]\n# NAME = {candidate = 'ATTRIBUTE', job = 'ATTRIBUTE', "
                  "compare = 'same', perspective = 'both'}\n# is needed: no column of candidates "
                  'looks like one of jobs\n')
  return '\n'.join(blocks).replace('.\n\n[', '.\n[', 1)


def _field(f: Facing) -> list[str]:
  ours = f.candidate[0] if len(f.candidate) == 1 else list(f.candidate)
  table = {'candidate': ours, 'job': f.job, 'compare': f.compare, **f.more, 'perspective': 'both'}
  return _entry(f.name, table, f.why)


def _tables(roles: Roles | None) -> str:
  if roles is None:
    return ("# [tables.candidates], [tables.jobs] and [tables.interactions] are needed: each with "
            "a file, the\n# first two with an id, the last with candidate and job, columns of such "
            'ids. No file has columns\n# that hold the ids of two others.\n')
  lines: list[str] = []
  sides = {'candidates': roles.candidate, 'jobs': roles.job}
  for table, side in sides.items():
    note = '' if roles.sure else '   # or the other way round: who chooses first?'
    lines += [f'[tables.{table}]{note}', *_entry('file', side.sheet.file),
              *_entry('id', side.id, _twice(side.sheet, side.id)), '']
  lines += ['[tables.interactions]', *_entry('file', roles.log.file),
            *_entry('candidate', roles.candidate.column), *_entry('job', roles.job.column)]
  decided = decisions(roles)
  for line in decided:
    if line.key == 'funnel':
      lines += [f'# {_comment(line.note)}', *(f'funnel.{k} = {_value(v)}'
                                              for k, v in line.value.items())]
      continue
    entry = _entry(line.key, _label(line), line.note)
    if not line.sure:
      entry = [f'# {part.removeprefix("# ")}' for part in '\n'.join(entry).split('\n')]
    lines += entry
  rest = [c for c in roles.log.columns if c not in (roles.candidate.column, roles.job.column)
          and not any(_names(line, c) for line in decided)]
  if rest:
    lines.append(f'# not read: {", ".join(map(_text, rest))}')
  known = any(d.sure and d.key in ('preference', 'qualification', 'funnel') for d in decided)
  if not known:  # a schema without tables is a schema file, too; one without decisions is none
    lines = [line and f'# {line.removeprefix("# ")}' for line in '\n'.join(lines).split('\n')]
  return '\n'.join(lines) + '\n'


def _label(line: Line) -> Any:
  """A label whose words are the usual ones is its column's name."""
  table = line.value
  return table['column'] if isinstance(table, dict) and table.get('yes') == [] else table


def _names(line: Line, column: str) -> bool:
  return column in (line.value, line.value.get('column') if isinstance(line.value, dict) else '')


def _twice(sheet: Sheet, key: str) -> str:
  again = sheet.rows - len(sheet.ids[key]) + ('' in sheet.ids[key])
  return f'{again} rows are empty there or repeat an id: remove them' if again else ''


def _entry(key: str, value: Any, note: str = '') -> list[str]:
  """Lines of a key and its value, the comment behind them or, where that is too long, above."""
  text = f'{_key(key)} = {_value(value)}'
  if len(text) > _WIDTH and isinstance(value, Mapping) and isinstance(value[[*value][-1]], list):
    last = value[[*value][-1]]  # an array may have lines; a table may not
    text = text.removesuffix(f'{_value(last)}}}') + _wrapped(last) + '}'
  comment = f'# {_comment(note)}' if note else ''
  if not comment or len(text) + 3 + len(comment) <= _WIDTH:
    return [f'{text}   {comment}'.rstrip()]
  return [comment, text]


def _wrapped(values: Sequence[Any]) -> str:
  """An array over several lines, no value divided."""
  lines = ['[', '  ']
  for i, value in enumerate(values):
    text = _value(value) + (',' if i + 1 < len(values) else '')
    if len(lines[-1]) + len(text) + 1 > _WIDTH and lines[-1].strip():
      lines.append('  ')
    lines[-1] += text if lines[-1] == '  ' else f' {text}'
  return '\n'.join(lines) + ']'


def _key(name: str) -> str:
  return name if re.fullmatch(r'[A-Za-z0-9_-]+', name) else _text(name)


def _value(value: Any) -> str:
  """A value as TOML has it."""
  if isinstance(value, Mapping):
    return '{' + ', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items()) + '}'
  if isinstance(value, list | tuple):
    return '[' + ', '.join(map(_value, value)) + ']'
  return _text(value) if isinstance(value, str) else repr(value)


def _text(text: str) -> str:
  """A string of TOML: in single quotes where nothing must be escaped."""
  if "'" not in text and text.isprintable():
    return f"'{text}'"
  escaped = text.replace('\\', '\\\\').replace('"', '\\"')
  return '"' + ''.join(c if c.isprintable() else f'\\U{ord(c):08x}' for c in escaped) + '"'


def _comment(text: str) -> str:
  """One line without control characters."""
  return ''.join(c if c.isprintable() else ' ' for c in text)
