"""RecBole's atomic files in and out: NAME.inter, NAME.user and NAME.item.

Tab-separated text in UTF-8, one record on a line, a header of `name:type`:

| file | columns |
|---|---|
| NAME.inter | user_id:token, item_id:token, preference:float, qualification:float, split:token, exposure:float |
| NAME.user, NAME.item | user_id:token or item_id:token, then the schema's attributes |

| kind of attribute | type | cell |
|---|---|---|
| number, integer | float | its digits |
| boolean | token | `True` or `False` |
| category, text | token | the string |
| set | token_seq | the members with a space between; of no member: one space |
| missing | as above | empty |

RecBole reads a missing float as the column's mean, hence an unobserved label is -1 and not empty:
`val_interval: {preference: "[0,1]"}` leaves such rows out, `threshold: {preference: 1}` makes
labels. Strings are escaped so that RecBole's loader sees whole cells and tells them apart:

| in a string | written |
|---|---|
| a control character, `"`, `%`, and the space in a set's member | `%` and two hexadecimal digits |
| the whole string is a word that pandas takes as missing (`None`, `NA`, `nan`, ...) | its first character so |
| the whole string is empty | `%` |

The reader takes what the writer writes and refuses any cell that RecBole would read otherwise.
"""  # noqa: E501

from collections.abc import Iterator
from pathlib import Path
import re

import numpy as np

from jobrec_jax.data.dataset import SPLITS, Dataset, Interactions
from jobrec_jax.data.files.tables import (
  ALLOWED,
  Cells,
  InteractionRows,
  check_header,
  parse_entities,
  parse_scalar,
  read_lines,
  scalar_text,
  wrong_kind,
)
from jobrec_jax.schema.files import replacing
from jobrec_jax.schema.schema import Attribute, Entity, Schema, Value

SUFFIXES = {'candidate': '.user', 'job': '.item'}
ID_COLUMNS = {'candidate': 'user_id', 'job': 'item_id'}
TYPES = {'number': 'float', 'integer': 'float', 'boolean': 'token', 'category': 'token',
         'text': 'token', 'set': 'token_seq'}
INTER_COLUMNS = ('user_id:token', 'item_id:token', 'preference:float', 'qualification:float',
                 'split:token', 'exposure:float')
MISSING_WORDS = frozenset((
    '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '-nan', '1.#IND', '1.#QNAN', '<NA>',
    'N/A', 'NA', 'NULL', 'NaN', 'None', 'n/a', 'nan', 'null'))

_CODES = {code: f'%{code:02X}' for code in (*range(32), 127, ord('"'), ord('%'))}
_MEMBER_CODES = {**_CODES, ord(' '): '%20'}
_ESCAPED = re.compile(r'%([0-7][0-9A-F])')
_LABELS = {str(value) + zeros: value for value in (-1, 0, 1) for zeros in ('', '.0')}


def _escape(text: str, codes: dict[int, str] = _CODES) -> str:
  if text in MISSING_WORDS:
    return f'%{ord(text[0]):02X}{text[1:].translate(codes)}'
  return text.translate(codes) or '%'


def _unescape(text: str, codes: dict[int, str] = _CODES) -> str:
  plain = '' if text == '%' else _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
  if _escape(plain, codes) != text:
    raise ValueError(f'must be written {_escape(plain, codes)[:80]!r}, got {text[:80]!r}')
  return plain


def plain_cell(cell: str, kind: str) -> str | list[str]:
  """What a cell of anyone's atomic file says: what only our writer writes so is what it wrote.

  Args:
    cell: as it stands in the file. `100% wool` and `a%20b` are no cells of ours, and stay.
    kind: the type in the header, such as 'token'; a 'token_seq' with escapes is its members.
  """
  def plain(text: str, codes: dict[int, str]) -> str:
    try:
      return _unescape(text, codes)
    except ValueError:
      return text
  if '%' not in cell:
    return cell
  if kind != 'token_seq':
    return plain(cell, _CODES)
  members = [plain(member, _MEMBER_CODES) for member in cell.split(' ')]
  return cell if members == cell.split(' ') else members


def _cell(attribute: Attribute, value: Value) -> str:
  if value is None:
    return ''
  if isinstance(value, str):
    return _escape(value)
  if isinstance(value, tuple):
    return ' '.join(_escape(member, _MEMBER_CODES) for member in value) or ' '
  return scalar_text(attribute.name, value)


def _parse(attribute: Attribute, cell: str) -> Value:
  if cell == '':
    return None
  if attribute.kind in ('category', 'text', 'set'):
    try:
      if attribute.kind != 'set':
        return _unescape(cell)
      return () if cell == ' ' else tuple(
          _unescape(member, _MEMBER_CODES) for member in cell.split(' '))
    except ValueError as error:
      raise ValueError(f'{attribute.name} {error}') from error
  value = parse_scalar(attribute.kind, cell)
  if value is None:
    raise wrong_kind(attribute, ALLOWED.get(attribute.kind, attribute.kind), cell)
  return value


def _columns(schema: Schema, side: str) -> list[str]:
  """The header's cells, the id first."""
  names = [a.name for s in SUFFIXES for a in schema.attributes(s)]
  taken = {column.split(':')[0] for column in INTER_COLUMNS}
  bad = [n for n in names if n in taken or names.count(n) > 1 or not re.fullmatch(r'[^\s:"]+', n)]
  if bad:
    raise ValueError(f'schema {schema.name}: RecBole needs names without spaces, colons or '
                     f'quotes, on one side alone and none of {sorted(taken)}; got {bad}')
  return [f'{ID_COLUMNS[side]}:token',
          *(f'{a.name}:{TYPES[a.kind]}' for a in schema.attributes(side))]


def _rows(path: Path, required: list[str],
          optional: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
  """(line, cells by name) of each row under a header that is checked."""
  lines = read_lines(path)
  _, header = next(lines, (1, ''))
  try:
    columns = check_header(f'{path}:1', header.split('\t'), required, optional)
  except ValueError as error:
    raise ValueError(f'{error}; data.source=tables reads any columns, as a schema file says') from (
        error)
  names = [column.split(':')[0] for column in columns]
  for number, line in lines:
    cells = line.split('\t')
    if len(cells) != len(names):
      raise ValueError(f'{path}:{number}: must have {len(names)} cells, got {len(cells)}')
    yield number, dict(zip(names, cells))


def read_entities(path: Path, schema: Schema, side: str) -> tuple[Entity, ...]:
  """The records of NAME.user or NAME.item; raises as `read_atomic`."""
  identity, *columns = _columns(schema, side)
  needed = {a.name for a in schema.attributes(side) if a.required}
  required = [identity, *(c for c in columns if c.split(':')[0] in needed)]
  rows = _rows(path, required, [c for c in columns if c not in required])
  return parse_entities(path, rows, schema, side, ID_COLUMNS[side], Cells(_parse, _unescape))


def _read_interactions(path: Path, candidates: tuple[Entity, ...],
                       jobs: tuple[Entity, ...]) -> Interactions:
  known = {'user_id': {_escape(e.id): i for i, e in enumerate(candidates)},
           'item_id': {_escape(e.id): i for i, e in enumerate(jobs)},
           'preference': _LABELS, 'qualification': _LABELS,
           'split': {name: i for i, name in enumerate(SPLITS)}}
  rows = InteractionRows()
  for line, row in _rows(path, list(INTER_COLUMNS), []):
    values = [known[name].get(row[name]) for name in known]
    exposure = parse_scalar('number', row['exposure'])
    if None in values or exposure is None or not 0 < exposure <= 1:
      name = next((n for n, value in zip(known, values) if value is None), 'exposure')
      allowed = {'user_id': f'one of {len(candidates)} users', 'split': f'one of {SPLITS}',
                 'item_id': f'one of {len(jobs)} items', 'exposure': 'a number in (0, 1]'}
      raise ValueError(f'{path}:{line}: {name} must be {allowed.get(name, "-1, 0 or 1")}, '
                       f'got {row[name][:80]!r}')
    rows.append((*values, exposure))
  return rows.finish(path, 2)


def read_atomic(folder: str | Path, name: str, schema: Schema) -> Dataset:
  """Reads NAME.inter, NAME.user and NAME.item, as `write_atomic` writes them.

  A column that the schema does not require may be absent: its values are missing.

  Args:
    folder, name: where they lie and what they are called.
    schema: the attributes, their types and ranges.

  Raises:
    ValueError: with file:line, what was allowed and what came.
  """
  paths = {suffix: Path(folder) / (name + suffix) for suffix in (*SUFFIXES.values(), '.inter')}
  candidates, jobs = (read_entities(paths[SUFFIXES[side]], schema, side) for side in SUFFIXES)
  return Dataset(schema, candidates, jobs, _read_interactions(paths['.inter'], candidates, jobs))


def _log_rows(dataset: Dataset) -> Iterator[tuple[str, ...]]:
  log = dataset.interactions
  users, items = ([_escape(e.id) for e in entities]
                  for entities in (dataset.candidates, dataset.jobs))
  exposures, exposure = np.unique(log.exposure, return_inverse=True)
  exposures = [str(e) for e in exposures]  # the shortest digits that its 32 bits need
  columns = (log.candidate, log.job, log.preference, log.qualification, log.split, exposure)
  for u, j, preference, qualification, split, e in zip(*(c.tolist() for c in columns)):
    yield (users[u], items[j], str(preference), str(qualification), SPLITS[split], exposures[e])


def write_atomic(dataset: Dataset, folder: str | Path, name: str) -> None:
  """Writes NAME.inter, NAME.user and NAME.item, so that `read_atomic` gives `dataset` back.

  RecBole loads them from `data_path/NAME`, so let `folder` end in `name`. Notes are not written.

  Args:
    dataset: what to write.
    folder: made if absent; files of these names in it are replaced, each at once.
    name: RecBole's name of the data set.

  Raises:
    ValueError: a value cannot be written, or RecBole could not tell the schema's columns apart.
  """
  if Path(name).name != name:
    raise ValueError(f'name must be that of a file, without its ending, got {name!r}')
  folder = Path(folder)
  columns = {side: _columns(dataset.schema, side) for side in SUFFIXES}
  folder.mkdir(parents=True, exist_ok=True)
  for side, entities in (('candidate', dataset.candidates), ('job', dataset.jobs)):
    attributes = dataset.schema.attributes(side)
    with replacing(folder / (name + SUFFIXES[side])) as file:
      print(*columns[side], sep='\t', file=file)
      for e in entities:
        print(_escape(e.id), *(_cell(a, e[a.name]) for a in attributes), sep='\t', file=file)
  with replacing(folder / f'{name}.inter') as file:
    print(*INTER_COLUMNS, sep='\t', file=file)
    for row in _log_rows(dataset):
      print(*row, sep='\t', file=file)
