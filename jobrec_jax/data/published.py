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
from collections.abc import Collection, Iterable, Mapping
import csv
import dataclasses
import hashlib
import io
import os
from pathlib import Path
import re

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.schema.schema import PERSPECTIVES, Attribute, Entity, Schema, Value
from jobrec_jax.schema.students import STUDENTS

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

Label = tuple[str, str, int]  # user id, item id, 0 or 1
Labels = dict[tuple[str, str], list[Label]]  # by perspective and split

_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?', re.ASCII)
_INTEGER = re.compile(r'([+-]?\d{1,18})(\.0*)?', re.ASCII)
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


def _text(path: Path) -> str:
  try:
    data = path.read_bytes()
  except OSError as error:
    raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data[:error.start].count(b'\n') + 1
    raise ValueError(f'{path}:{line}: must be UTF-8, got byte {data[error.start]:#04x}') from error


def _read_table(path: str | Path, required: Collection[str], optional: Collection[str]) -> _Table:
  """Reads a CSV file; raises a ValueError with file:line on a bad header or a ragged row."""
  table = _Table(Path(path), [], [], defaultdict(list))
  reader = csv.reader(io.StringIO(_text(table.path), newline=''), strict=True)
  while True:
    line = reader.line_num + 1
    try:
      cells = next(reader, None)
    except csv.Error as error:
      raise ValueError(f'{path}:{line}: must be well quoted CSV, got: {error}') from error
    if cells is None:
      break
    if not table.columns:
      table.columns = _check_header(f'{path}:{line}', cells, required, optional)
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


def _check_header(place: str, columns: list[str], required: Collection[str],
                  optional: Collection[str]) -> list[str]:
  allowed = [*required, *optional]
  unknown = [c for c in columns if c not in allowed]
  missing = [c for c in required if c not in columns]
  if unknown or missing or len(set(columns)) != len(columns):
    raise ValueError(f'{place}: columns must be among {allowed}, each once, with '
                     f'{sorted(required)}; unknown {unknown}, missing {missing}, got {columns}')
  return columns


def _parse(attribute: Attribute, cell: str) -> Value:
  """The typed value of a cell; raises a ValueError that says what was allowed and what came."""
  if cell == '':
    return None
  if attribute.kind == 'number' and _NUMBER.fullmatch(cell) and np.isfinite(float(cell)):
    return float(cell)
  if attribute.kind == 'integer' and (match := _INTEGER.fullmatch(cell)):
    return int(match[1])
  if attribute.kind == 'boolean' and cell in ('True', 'False'):
    return cell == 'True'
  if attribute.kind in ('category', 'text'):
    return cell
  if attribute.kind == 'set':
    try:
      members = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
      members = None
    if isinstance(members, list) and all(isinstance(m, str) for m in members):
      return tuple(members)
  allowed = {'set': "Python list of strings such as ['NLP']", 'boolean': 'boolean, True or False'}
  raise ValueError(f'{attribute.name} must be a {allowed.get(attribute.kind, attribute.kind)}, '
                   f'got {cell[:80]!r}')


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
  if not table.rows:
    raise ValueError(f'{path}:1: must hold at least one {side}, got a header alone')
  entities, seen = [], {}
  for line, cells in table.rows:
    row = dict(zip(table.columns, cells))
    name = row[id_column]
    if not name or name in seen:
      raise ValueError(f'{path}:{line}: {id_column} must be unique and not empty, got {name!r}'
                       + (f', which stands on line {seen[name]}' if name else ''))
    seen[name] = line
    try:
      values = {n: _parse(a, row.get(n, '')) for n, a in attributes.items()}
    except ValueError as error:
      raise ValueError(f'{path}:{line}: {side} {name!r}: {error}') from error
    entities.append(schema.validate(side, Entity(name, values), f'{path}:{line}'))
  absent = [n for n in attributes if n not in table.columns]
  notes = (f'{table.path.name}: no column {", ".join(absent)}; taken as missing',) if absent else ()
  return tuple(entities), table.notes() + notes


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


def _hash(seed: int, *names: str) -> int:
  digest = hashlib.blake2b('\0'.join((str(seed), *names)).encode(), digest_size=8).digest()
  return int.from_bytes(digest, 'little')


def _divide_by_job(place: str | Path, rows: list[Label], seed: int) -> dict[str, list[Label]]:
  """Train, validation and calibration rows, no job in two of them."""
  jobs = sorted({item for _, item, _ in rows}, key=lambda job: (_hash(seed, job), job))
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


def _deal_shared_negatives(labels: Labels, seed: int) -> tuple[str, ...]:
  """Leaves each negative that several splits hold in one of them, chosen by a hash of the pair."""
  notes = []
  for perspective in PERSPECTIVES:
    holders = defaultdict(list)
    for split in SPLITS:
      for user, item, label in labels[perspective, split]:
        if label == 0:
          holders[user, item].append(split)
    home = {pair: splits[_hash(seed, *pair) % len(splits)]
            for pair, splits in holders.items() if len(splits) > 1}
    for split in SPLITS:
      labels[perspective, split] = [row for row in labels[perspective, split]
                                    if row[2] == 1 or home.get(row[:2], split) == split]
    kept = ', '.join(f'{split} {n}' for split in SPLITS if (n := list(home.values()).count(split)))
    dropped = sum(len(holders[pair]) - 1 for pair in home)
    notes.append(f'{perspective}: {len(home)} negatives that several splits held were dealt to one '
                 f'each ({kept or "none"}); {dropped} rows dropped')
  return tuple(notes)


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
                   allow_unknown_users: bool = False,
                   drop_shared_negatives: bool = False) -> Dataset:
  """Reads a folder in the published layout, with the schema `STUDENTS`.

  A pair that both label files of a split name becomes one interaction with both labels. A pair
  that several splits hold stays in each: the audit reports it.

  Args:
    folder: the folder; see the module's table.
    seed: divides the jobs of qual_train.csv (70% train, 10% validation, 20% calibration, at least
      one each) where no qual_val.csv or qual_cal.csv stands beside it, and deals the negatives.
    users_file: name of the users' file; by default Final_users.csv, else users_sample.csv.
    allow_unknown_users: keep users that only the labels name, with all attributes missing.
    drop_shared_negatives: leave each negative that several splits hold in one of them alone.

  Returns:
    The dataset; exposure is unknown, hence 1.

  Raises:
    ValueError: with file:line, what was allowed and what came.
  """
  folder = Path(folder)
  if users_file is None:
    users_file = USERS_FILE if (folder / USERS_FILE).exists() else SAMPLE_USERS_FILE
  jobs, job_notes = read_entities(folder / ITEMS_FILE, STUDENTS, 'job')
  candidates, candidate_notes = read_entities(folder / users_file, STUDENTS, 'candidate')
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
  if drop_shared_negatives:
    notes += _deal_shared_negatives(labels, seed)

  nothing = {a.name: None for a in STUDENTS.candidate}
  strangers = dict.fromkeys(u for rows in labels.values() for u, _, _ in rows if u not in users)
  if strangers:
    candidates += tuple(Entity(user, nothing) for user in strangers)
    notes.append(f'{users_file}: lacks {len(strangers)} users that labels name, the first '
                 f'{next(iter(strangers))}; kept with all attributes missing')
  return Dataset(STUDENTS, candidates, jobs, _interactions(labels, candidates, jobs), tuple(notes))


def _cell(value: Value) -> str:
  if value is None:
    return ''
  return repr(list(value)) if isinstance(value, tuple) else str(value)


def _write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
  """Writes to a temporary file beside `path` and renames it: readers see all of it or none."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}')
  try:
    with temporary.open('w', encoding='utf-8', newline='') as file:
      writer = csv.writer(file)  # its default \r\n has a lone \r in a text quoted too
      writer.writerow(header)
      writer.writerows(rows)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def _entity_rows(entities: Iterable[Entity], attributes: Mapping[str, Attribute]):
  return ((e.id, *(_cell(e[name]) for name in attributes)) for e in entities)


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
    names = [a.name for a in dataset.schema.attributes(side)]
    _write_csv(folder / name, (ID_COLUMNS[side], *names), _entity_rows(entities, names))
  for (perspective, split), name in LABEL_FILES.items():
    part = dataset.interactions.of(split)
    label = getattr(part, perspective)
    part, label = part.where(label != UNOBSERVED), label[label != UNOBSERVED]
    _write_csv(folder / name, ('user', 'item', LABEL_COLUMNS[perspective]),
               ((dataset.candidates[u].id, dataset.jobs[i].id, str(y))
                for u, i, y in zip(part.candidate, part.job, label)))
