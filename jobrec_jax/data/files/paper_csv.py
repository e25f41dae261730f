"""The published CSV layout in and out: items, users, and one label file for each split.

| file | columns |
|---|---|
| Final_items.csv, Final_users.csv | `job_id` or `student_id`, then the schema's attributes |
| train.csv, val.csv, test.csv | `user, item, label_pref` and, unread, `score` |
| qual_train.csv, qual_test.csv | `user, item, label_qual` |

Two splits have no published file. `write_published` adds cal.csv, qual_val.csv and qual_cal.csv
for them; where these are absent, the jobs of qual_train.csv are divided by a seeded hash.
"""

import ast
from collections import defaultdict
from collections.abc import Collection, Iterable
import contextlib
import csv
import dataclasses
import io
from pathlib import Path
import re
import sys

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.files.tables import (
  ALLOWED,
  Cells,
  check_header,
  parse_entities,
  parse_scalar,
  scalar_text,
  wrong_kind,
)
from jobrec_jax.data.repair import id_hash
from jobrec_jax.schema.files import read_text, replacing
from jobrec_jax.schema.schema import PERSPECTIVES, Attribute, Entity, Schema, Value
from jobrec_jax.schema.shipped import STUDENTS

ITEMS_FILE = 'Final_items.csv'
USERS_FILE = 'Final_users.csv'
SAMPLE_USERS_FILE = 'users_sample.csv'
ID_COLUMNS = {'candidate': 'student_id', 'job': 'job_id'}
IGNORED_COLUMNS = ('row_id',)  # the row's number: says nothing about the person
IGNORED_LABEL_COLUMNS = ('score',)  # the output of the model that made the labels
LABEL_COLUMNS = {'preference': 'label_pref', 'qualification': 'label_qual'}
LABEL_FILES = {
    ('preference', 'train'): 'train.csv',
    ('preference', 'validation'): 'val.csv',
    ('preference', 'calibration'): 'cal.csv',
    ('preference', 'test'): 'test.csv',
    ('qualification', 'train'): 'qual_train.csv',
    ('qualification', 'validation'): 'qual_val.csv',
    ('qualification', 'calibration'): 'qual_cal.csv',
    ('qualification', 'test'): 'qual_test.csv',
}
UNPUBLISHED_FILES = ('cal.csv', 'qual_val.csv', 'qual_cal.csv')
JOB_SHARES = {'validation': 0.1, 'calibration': 0.2}  # of qual_train.csv's jobs; the rest train

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a long text is no fault: it is in memory anyway

Label = tuple[str, str, int]  # user id, item id, 0 or 1
Labels = dict[tuple[str, str], list[Label]]  # by perspective and split

# Strings, each in quotes of its own, with commas between: no prefixes, no 'a' 'b' that make one.
_ESCAPE = r'\\(?:[\\\'"abfnrtv]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})'
_STRING = '|'.join(rf'{q}(?:[^{q}\\\x00-\x1f]|{_ESCAPE})*{q}' for q in '\'"')
_LIST = re.compile(rf'\[ *(?:(?:{_STRING}) *(?:, *(?:{_STRING}) *)*,? *)?\]', re.ASCII)
_TYPED_NAME = re.compile(r'\w+:(token|float)(_seq)?')


@dataclasses.dataclass
class _Table:
  """The rows of a CSV file, each with the physical line it starts on, and the lines skipped."""

  path: Path
  columns: list[str]
  rows: list[tuple[int, list[str]]]
  skipped: dict[str, list[int]]

  def notes(self) -> tuple[str, ...]:
    return tuple(f'{self.path.name}: skipped {len(lines)} {what}, the first on line {lines[0]}'
                 for what, lines in self.skipped.items())


def _read_table(path: str | Path, required: Collection[str], optional: Collection[str]) -> _Table:
  """Reads a CSV file; raises a ValueError with file:line on a bad header or a ragged row."""
  table = _Table(Path(path), [], [], defaultdict(list))
  reader = csv.reader(io.StringIO(read_text(table.path), newline=''), strict=True)
  while True:
    line = reader.line_num + 1
    try:
      cells = next(reader, None)
    except csv.Error as error:
      raise ValueError(f'{path}:{line}: must be well quoted CSV, got: {error}') from error
    if cells is None:
      break
    if not table.columns:
      table.columns = check_header(f'{path}:{line}', cells, required, optional)
    elif not cells:
      table.skipped['blank lines'].append(line)
    elif cells == table.columns:
      table.skipped['repeated header rows'].append(line)
    elif all(_TYPED_NAME.fullmatch(cell) for cell in cells):
      table.skipped['rows of typed names'].append(line)
    elif len(cells) != len(table.columns):
      raise ValueError(f'{path}:{line}: must have {len(table.columns)} fields, got {len(cells)}')
    else:
      table.rows.append((line, cells))
  if not table.columns:
    raise ValueError(f'{path}:1: must start with a header of {sorted(required)}, got an empty file')
  return table


def _parse(attribute: Attribute, cell: str) -> Value:
  """The typed value of a cell; raises a ValueError that says what was allowed and what came."""
  if cell == '' or attribute.kind in ('category', 'text'):
    return cell or None
  if attribute.kind == 'set':
    if _LIST.fullmatch(cell):
      with contextlib.suppress(ValueError, SyntaxError):  # an escape of no character
        members = tuple(ast.literal_eval(cell))
        ''.join(members).encode()
        return members
    raise wrong_kind(attribute, "Python list of strings such as ['NLP']", cell)
  value = parse_scalar(attribute.kind, cell)
  if value is None:
    raise wrong_kind(attribute, ALLOWED.get(attribute.kind, attribute.kind), cell)
  return value


def read_entities(path: str | Path, schema: Schema,
                  side: str) -> tuple[tuple[Entity, ...], tuple[str, ...]]:
  """Reads the candidates or the jobs of a CSV file in the published layout.

  An empty cell is a missing value, and so is a column that the file lacks and the schema does not
  require. `IGNORED_COLUMNS` are not read.

  Args:
    path: the file; UTF-8, with a header row. Sets are Python list literals.
    schema: its attribute table names the columns, their types, values and ranges.
    side: 'candidate' (id column `student_id`) or 'job' (`job_id`).

  Returns:
    The records in file order, and notes on what was skipped or absent.

  Raises:
    ValueError: with file and line (on which the row starts), what was allowed and what came.
  """
  attributes = {a.name: a for a in schema.attributes(side)}
  id_column = ID_COLUMNS[side]
  required = [id_column, *(a.name for a in attributes.values() if a.required)]
  table = _read_table(path, required, [n for n in (*attributes, *IGNORED_COLUMNS)
                                       if n not in required])
  rows = ((line, dict(zip(table.columns, cells))) for line, cells in table.rows)
  entities = parse_entities(path, rows, schema, side, id_column, Cells(_parse))
  absent = [n for n in attributes if n not in table.columns]
  notes = (f'{table.path.name}: no column {", ".join(absent)}; taken as missing',) if absent else ()
  return entities, table.notes() + notes


def read_labels(path: str | Path, column: str, users: Collection[str], items: Collection[str],
                allow_unknown_users: bool = False) -> tuple[list[Label], tuple[str, ...]]:
  """Reads a label file: one row for each labelled pair.

  Args:
    path: the file.
    column: the label's column, `label_pref` or `label_qual`.
    users, items: the known ids.
    allow_unknown_users: whether rows may name users that are not in `users`.

  Returns:
    (user id, item id, 0 or 1) in file order, and notes on what was skipped.

  Raises:
    ValueError: with file:line, on an unknown id, a label other than 0 or 1, or a pair labelled
      twice and differently (an identical repetition is skipped and noted).
  """
  table = _read_table(path, ('user', 'item', column), IGNORED_LABEL_COLUMNS)
  at = [table.columns.index(name) for name in ('user', 'item', column)]
  labels: dict[tuple[str, str], tuple[int, int]] = {}
  for line, cells in table.rows:
    user, item, label = (cells[i] for i in at)
    if not user or not (allow_unknown_users or user in users):
      raise ValueError(f'{path}:{line}: user must be one of the {len(users)} known candidates '
                       f'(or allow_unknown_users), got {user!r}')
    if item not in items:
      raise ValueError(f'{path}:{line}: item must be one of the {len(items)} known jobs, '
                       f'got {item!r}')
    if label not in ('0', '1'):
      raise ValueError(f'{path}:{line}: {column} must be 0 or 1, got {label!r}')
    first = labels.setdefault((user, item), (int(label), line))
    if first[0] != int(label):
      raise ValueError(f'{path}:{line}: {column} of {user}, {item} must be {first[0]} as on line '
                       f'{first[1]}, got {label}')
    if first[1] != line:
      table.skipped['identical repetitions of a pair'].append(line)
  return [(*pair, label) for pair, (label, _) in labels.items()], table.notes()


def _divide_by_job(place: str | Path, rows: list[Label], seed: int) -> dict[str, list[Label]]:
  """Train, validation and calibration rows, no job in two of them."""
  jobs = sorted({item for _, item, _ in rows}, key=lambda job: (id_hash(seed, job), job))
  if 0 < len(jobs) < 3:
    raise ValueError(f'{place}: must name at least 3 jobs, one each to train, validate and '
                     f'calibrate on; got {jobs}')
  home, start = {}, 0
  for split, share in JOB_SHARES.items():
    end = start + max(1, round(share * len(jobs)))
    home |= dict.fromkeys(jobs[start:end], split)
    start = end
  parts = {split: [] for split in ('train', *JOB_SHARES)}
  for row in rows:
    parts[home.get(row[1], 'train')].append(row)
  return parts


def _interactions(labels: Labels, candidates: Iterable[Entity],
                  jobs: Iterable[Entity]) -> Interactions:
  """One row for each pair and split, with the labels of both perspectives."""
  merged: dict[tuple[int, str, str], list[int]] = {}
  for (perspective, split), rows in labels.items():
    for user, item, label in rows:
      key = (SPLITS.index(split), user, item)
      both = merged.setdefault(key, [UNOBSERVED, UNOBSERVED])
      both[PERSPECTIVES.index(perspective)] = label
  users = {e.id: i for i, e in enumerate(candidates)}
  items = {e.id: i for i, e in enumerate(jobs)}
  rows = [(users[u], items[i], *both, split) for (split, u, i), both in merged.items()]
  candidate, job, preference, qualification, split = np.asarray(rows, np.int32).reshape(-1, 5).T
  return Interactions(candidate, job, preference.astype(np.int8), qualification.astype(np.int8),
                      split.astype(np.int8), np.ones(len(rows), np.float32))


def read_published(folder: str | Path, seed: int = 0, users_file: str | None = None,
                   allow_unknown_users: bool = False, schema: Schema = STUDENTS) -> Dataset:
  """Reads a folder in the published layout.

  A pair that both label files of a split name becomes one interaction with both labels. A pair
  that several splits hold stays in each: the audit reports it.

  Args:
    folder: the folder; see the module's table.
    seed: divides the jobs of qual_train.csv (70% train, 10% validation, 20% calibration, at least
      one each) where no qual_val.csv or qual_cal.csv stands beside it, and deals the negatives.
    users_file: name of the users' file; by default Final_users.csv, else users_sample.csv.
    allow_unknown_users: keep users that only the labels name, with all attributes missing.
    schema: its attributes are the columns.

  Returns:
    The dataset; exposure is unknown, hence 1.

  Raises:
    ValueError: with file:line, what was allowed and what came.
  """
  folder = Path(folder)
  if users_file is None:
    users_file = USERS_FILE if (folder / USERS_FILE).exists() else SAMPLE_USERS_FILE
  jobs, job_notes = read_entities(folder / ITEMS_FILE, schema, 'job')
  candidates, candidate_notes = read_entities(folder / users_file, schema, 'candidate')
  notes = [*job_notes, *candidate_notes]
  users, items = {e.id for e in candidates}, {e.id for e in jobs}

  labels: Labels = {}
  divided = any((folder / name).exists() for name in ('qual_val.csv', 'qual_cal.csv'))
  for (perspective, split), name in LABEL_FILES.items():
    labels[perspective, split] = []
    if name not in UNPUBLISHED_FILES or (folder / name).exists():
      labels[perspective, split], skipped = read_labels(
          folder / name, LABEL_COLUMNS[perspective], users, items, allow_unknown_users)
      notes += skipped
  if not divided:
    place = folder / LABEL_FILES['qualification', 'train']
    for split, rows in _divide_by_job(place, labels['qualification', 'train'], seed).items():
      labels['qualification', split] = rows

  nothing = {a.name: None for a in schema.candidate}
  strangers = dict.fromkeys(u for rows in labels.values() for u, _, _ in rows if u not in users)
  if strangers:
    candidates += tuple(Entity(user, nothing) for user in strangers)
    notes.append(f'{users_file}: lacks {len(strangers)} users that labels name, the first '
                 f'{next(iter(strangers))}; kept with all attributes missing')
  return Dataset(schema, candidates, jobs, _interactions(labels, candidates, jobs), tuple(notes))


def _cell(attribute: Attribute, value: Value) -> str:
  if value is None or isinstance(value, str):
    return value or ''
  if isinstance(value, tuple):
    ''.join(value).encode()  # repr() would hide what UTF-8 cannot hold
    return repr(list(value))
  return scalar_text(attribute.name, value)


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
  with replacing(path) as file:
    writer = csv.writer(file)  # its default \r\n has a lone \r in a text quoted too
    writer.writerow(header)
    writer.writerows(rows)


def write_published(dataset: Dataset, folder: str | Path) -> None:
  """Writes `dataset` in the published layout, so that `read_published` gives it back.

  Not in the layout, hence not written: `exposure`, notes, rows without any label, and the `score`
  column, which is a model's output. An empty text reads back as missing.

  Args:
    dataset: what to write.
    folder: made if absent; files of the layout in it are replaced, each at once.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for side, name, entities in (('job', ITEMS_FILE, dataset.jobs),
                               ('candidate', USERS_FILE, dataset.candidates)):
    attributes = dataset.schema.attributes(side)
    _write_csv(folder / name, (ID_COLUMNS[side], *(a.name for a in attributes)),
               ((e.id, *(_cell(a, e[a.name]) for a in attributes)) for e in entities))
  for (perspective, split), name in LABEL_FILES.items():
    part = dataset.interactions.of(split)
    label = getattr(part, perspective)
    part, label = part.where(label != UNOBSERVED), label[label != UNOBSERVED]
    _write_csv(folder / name, ('user', 'item', LABEL_COLUMNS[perspective]),
               ((dataset.candidates[u].id, dataset.jobs[i].id, str(y))
                for u, i, y in zip(part.candidate, part.job, label)))
