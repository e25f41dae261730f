"""10,000 mutated files: each is read as it stands or refused with a place; nothing else happens."""

import ast
from collections.abc import Callable
import csv
import dataclasses
import io
import json
import random
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED
from jobrec_jax.data.files.jsonl import read_jsonl, write_jsonl
from jobrec_jax.data.files.paper_csv import LABEL_FILES, read_published, write_published
from jobrec_jax.data.files.recbole import read_atomic, write_atomic
from jobrec_jax.data.files.records import read_entity, read_records, write_entities
from jobrec_jax.data.tables.cells import id_of
from tests.data.files.odd import ODD, interactions, same, small

TOKENS = [t.encode() for t in (
    'nan', 'NaN', 'None', 'null', 'Infinity', '-1', '1e999', '9' * 400, '9' * 5000, '1e-400', '-0',
    '1.0', '0x1', '1_0', 'True', 'true', '0', '1', '2', '"', "'", '""', '\\', '\\ud800', '\\u0041',
    '%', '%41', '%0A', ' ', '  ', '\t', '\r', '\r\n', '\n', '\n\n', '\0', ',', ':', '{}', '[]',
    "['a']", "'a' 'b'", '[' * 900 + ']' * 900, '[' * 5000, '{"a":' * 900, '(', '\ufeff', '\u2028',
    'S1', 'J9', 'id', '"id": "S1", ', 'user_id:token', 'train')]
TOKENS += [b'\xff', b'\xc3', b'\xed\xa0\x80', *[b'\\ud800'] * 3]


def lines_changed(rng, data):
  lines = data.splitlines(keepends=True)
  if not lines:
    return data
  i, j = (rng.randrange(len(lines)) for _ in range(2))
  match rng.randrange(4):
    case 0:
      del lines[i]
    case 1:
      lines.insert(j, lines[i])
    case 2:
      lines[i], lines[j] = lines[j], lines[i]
    case 3:
      del lines[min(i, j):]
  return b''.join(lines)


def cells_swapped(rng, data):
  cells = re.split(rb'([,\t\n])', data)
  i, j = (2 * rng.randrange((len(cells) + 1) // 2) for _ in range(2))
  cells[i], cells[j] = cells[j], cells[i]
  return b''.join(cells)


def number_changed(rng, data):
  numbers = list(re.finditer(rb'-?\d+(?:\.\d+)?', data)) or [re.match(b'', data)]
  at = rng.choice(numbers)
  return data[:at.start()] + rng.choice(TOKENS[:20]) + data[at.end():]


def bytes_changed(rng, data):
  at = rng.randrange(len(data) + 1)
  end = min(len(data), at + rng.choice((1, 1, 2, 5, 30)))
  match rng.randrange(5):
    case 0:
      return data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
    case 1 if at < len(data):
      return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1:]
    case 2:
      return data[:at] + data[end:]
    case 3:
      return data[:end] + data[at:]
  return data[:at]


def token_put(rng, data):
  """Something odd, beside punctuation as often as not, and perhaps in place of what stood there."""
  places = [m.end() for m in re.finditer(rb'["\'\[,:\t\n]\s*', data)]
  at = rng.choice(places) if places and rng.random() < 0.7 else rng.randrange(len(data) + 1)
  end = rng.choice((at, at, at + 1, at + len(re.match(rb'[^"\'\],:\t\n]*', data[at:])[0])))
  return data[:at] + rng.choice(TOKENS) + data[end:]


CHANGES = (lines_changed, cells_swapped, number_changed, *[bytes_changed, token_put] * 2)


def mutated(rng, data):
  """`data` after one or two mutations, never as it was."""
  after = data
  while after == data:
    for _ in range(rng.choice((1, 1, 2))):
      after = rng.choice(CHANGES)(rng, after)
  return after


# What a file says, read by nothing of ours and with no checks: {id: attributes} or rows of labels.

def value(kind, cell):
  match kind:
    case 'number':
      return float(cell)
    case 'integer':
      return int(cell.split('.')[0])
    case 'boolean':
      return {'True': True, 'False': False}[cell]
    case 'set':
      return tuple(ast.literal_eval(cell))
  return cell


def text_of(path):
  return path.read_bytes().decode('utf-8-sig')


def said_in_csv(path):
  header, *rows = csv.reader(io.StringIO(text_of(path), newline=''), strict=True)
  return [dict(zip(header, row, strict=True)) for row in rows
          if row not in ([], header) and not all(re.fullmatch(r'\w+:(token|float)(_seq)?', c)
                                                 for c in row)]


def published_says(folder):
  entities = {}
  for side, name, id_column in (('candidate', 'Final_users.csv', 'student_id'),
                                ('job', 'Final_items.csv', 'job_id')):
    entities[side] = {row[id_column]: {
        a.name: value(a.kind, cell) if (cell := row.get(a.name)) else None
        for a in ODD.attributes(side)} for row in said_in_csv(folder / name)}
  log = {}
  for (perspective, split), name in LABEL_FILES.items():
    for row in said_in_csv(folder / name):
      labels = log.setdefault((row['user'], row['item'], split), [UNOBSERVED, UNOBSERVED])
      at = perspective == 'qualification'
      labels[at] = int(row['label_qual' if at else 'label_pref'])
  return entities, {(*key, *labels, 1.0) for key, labels in log.items()}


def plain(token):
  return '' if token == '%' else unquote(token, errors='strict')


def said_in_atomic(path):
  header, *rows = (line.split('\t') for line in path.read_bytes().decode().split('\n')[:-1])
  return [dict(zip((h.split(':')[0] for h in header), row, strict=True)) for row in rows]


def atomic_says(folder):
  def cell(kind, text):
    if not text:
      return None
    if kind == 'set':
      return tuple(map(plain, text.split(' '))) if text != ' ' else ()
    return plain(text) if kind in ('text', 'category') else value(kind, text)
  entities = {side: {plain(row[f'{word}_id']): {
      a.name: cell(a.kind, row.get(a.name)) for a in ODD.attributes(side)}
      for row in said_in_atomic(folder / f'x.{word}')}
      for side, word in (('candidate', 'user'), ('job', 'item'))}
  log = {(plain(row['user_id']), plain(row['item_id']), row['split'], int(float(row['preference'])),
          int(float(row['qualification'])), float(np.float32(row['exposure'])))
         for row in said_in_atomic(folder / 'x.inter')}
  return entities, log


def once(pairs):
  assert len({name for name, _ in pairs}) == len(pairs)
  return dict(pairs)


def parsed(text):
  return json.loads(text, object_pairs_hook=once)


def said_in_json(side, rows, default='{}'):
  def attribute(row, name):
    return tuple(row[name]) if isinstance(row.get(name), list) else row.get(name)
  return {id_of(row.get('id', default.format(i))): {a.name: attribute(row, a.name)
                                                    for a in ODD.attributes(side)}
          for i, row in enumerate(rows)}


def jsonl_says(folder):
  head = parsed(text_of(folder / 'dataset.json'))

  def rows(name):
    found = [parsed(line) for line in (folder / name).read_bytes().decode().split('\n')[:-1]]
    assert repr(len(found)) == repr(head[name.split('.')[0]])
    return found
  log = {(row['candidate'], row['job'], row['split'],
          *(UNOBSERVED if row[k] is None else row[k] for k in ('preference', 'qualification')),
          float(np.float32(row['exposure']))) for row in rows('interactions.jsonl')}
  return {side: said_in_json(side, rows(f'{side}s.jsonl')) for side in ('candidate', 'job')}, log


def record_says(folder):
  return said_in_json('candidate', [parsed(text_of(folder / 'candidate.json'))], 'candidate')


def catalogue_says(folder):
  return said_in_json('job', parsed(text_of(folder / 'jobs.json')), 'job-{}')


def what_was_read(dataset):
  log = dataset.interactions
  rows = [(dataset.candidates[c].id, dataset.jobs[j].id, SPLITS[s], int(p), int(q), float(e))
          for c, j, p, q, s, e in zip(log.candidate, log.job, log.preference, log.qualification,
                                      log.split, log.exposure)]
  assert len(set(rows)) == len(rows)
  entities = {side: {e.id: dict(e.attributes) for e in getattr(dataset, f'{side}s')}
              for side in ('candidate', 'job')}
  return entities, set(rows)


def check_dataset(dataset, write, read, says, folder):
  """Valid, in range, what the file says, and the same after another round."""
  for side in ('candidate', 'job'):
    entities = getattr(dataset, f'{side}s')
    assert entities and len({e.id for e in entities}) == len(entities)
    for entity in entities:
      ODD.validate(side, entity)
      assert entity.id and list(entity.attributes) == [a.name for a in ODD.attributes(side)]
  log = dataset.interactions
  assert ((log.candidate >= 0) & (log.candidate < len(dataset.candidates))).all()
  assert ((log.job >= 0) & (log.job < len(dataset.jobs))).all()
  assert np.isin(log.preference, (-1, 0, 1)).all() and np.isin(log.qualification, (-1, 0, 1)).all()
  assert ((log.split >= 0) & (log.split < 4) & (log.exposure > 0) & (log.exposure <= 1)).all()
  pairs = set(zip(log.candidate.tolist(), log.job.tolist(), log.split.tolist()))
  assert len(pairs) == len(log)
  entities, log = says(folder)
  said = {side: canonical(side, e) for side, e in entities.items()}
  assert repr_sorted(what_was_read(dataset)) == repr_sorted((said, log))
  write(dataset, folder / 'again')
  assert same(read(folder / 'again'), dataset)


def canonical(side, entities):
  """Sets in their one order, known words in their own spelling."""
  return {name: {k: ODD.attribute(side, k).canonical(v) for k, v in values.items()}
          for name, values in entities.items()}


def repr_sorted(said):
  """So that 1, 1.0 and True differ, and the order of rows does not matter."""
  entities, log = said
  return repr({side: sorted((k, v) for k, v in e.items()) for side, e in entities.items()}
              ), sorted(log)


def check_records(entities, side, write, read, says, folder):
  for entity in entities:
    ODD.validate(side, entity)
  assert repr({e.id: dict(e.attributes) for e in entities}) == repr(canonical(side, says(folder)))
  write(entities, folder / 'again')
  assert tuple(read(folder / 'again')) == tuple(entities)


class Reader(NamedTuple):
  """make(folder, dataset) writes, read(folder) reads, check(result, folder) judges."""

  make: Callable[..., None]
  read: Callable[..., Any]
  check: Callable[..., None]


def dataset_reader(write, read, says):
  return Reader(make=lambda folder, dataset: write(dataset, folder), read=read,
                check=lambda d, folder: check_dataset(d, write, read, says, folder))


def record_reader(name, side, read, says):
  def write(entities, folder):
    folder.mkdir(exist_ok=True)
    if side == 'job':
      write_entities(folder / name, entities)
    else:
      text = {'id': entities[0].id, **entities[0].attributes}
      (folder / name).write_text(json.dumps(text, indent=1))
  return Reader(
      make=lambda folder, dataset: write(getattr(dataset, f'{side}s'), folder), read=read,
      check=lambda e, folder: check_records(e, side, write, read, says, folder))


PUBLISHED = dataset_reader(write_published, lambda folder: read_published(folder, schema=ODD),
                           published_says)
ATOMIC = dataset_reader(lambda dataset, folder: write_atomic(dataset, folder, 'x'),
                        lambda folder: read_atomic(folder, 'x', ODD), atomic_says)
JSONL = dataset_reader(write_jsonl, lambda folder: read_jsonl(folder, ODD), jsonl_says)
RECORD = record_reader('candidate.json', 'candidate', lambda folder: (
    read_entity(folder / 'candidate.json', ODD, 'candidate'),), record_says)
CATALOGUE = record_reader('jobs.json', 'job', lambda folder: read_records(
    folder / 'jobs.json', ODD, 'job').entities, catalogue_says)

TARGETS = [(reader, name) for reader, names in {
    PUBLISHED: ('Final_items.csv', 'Final_users.csv', 'train.csv', 'qual_test.csv'),
    ATOMIC: ('x.inter', 'x.user', 'x.item'),
    JSONL: ('candidates.jsonl', 'jobs.jsonl', 'interactions.jsonl', 'dataset.json'),
    RECORD: ('candidate.json',), CATALOGUE: ('jobs.json',)}.items() for name in names]
# What an error without a line may say of a file.
WHOLE = dict.fromkeys(('candidates.jsonl', 'jobs.jsonl', 'interactions.jsonl'), 'must have')
WHOLE |= dict.fromkeys(('dataset.json', 'candidate.json', 'jobs.json'), '')
EACH = 770
assert EACH * len(TARGETS) >= 10_000


@pytest.mark.parametrize('reader, name', TARGETS, ids=[name for _, name in TARGETS])
def test_a_mutated_file_is_read_as_it_stands_or_refused(tmp_path, reader, name):
  one = small()
  if reader is PUBLISHED:  # whose layout holds labelled rows alone, and no exposure
    one = dataclasses.replace(one, interactions=interactions(
        [(c, j, p, q, s, 1.0) for (c, j), (p, q, s) in zip(
            np.ndindex(3, 3), [(1, 1, 0), (0, -1, 0), (1, 0, 0), (1, 1, 3), (0, 0, 3), (1, -1, 3),
                               (-1, 1, 3), (1, 1, 1), (0, 1, 2)])]))
  reader.make(tmp_path, one)
  path = tmp_path / name
  whole = path.read_bytes()
  reader.check(reader.read(tmp_path), tmp_path)  # the checks hold for the file itself
  rng = random.Random(name)
  read = refused = 0
  for _ in range(EACH):
    path.write_bytes(data := mutated(rng, whole))
    try:
      result = reader.read(tmp_path)
    except ValueError as error:
      place = re.match(re.escape(str(tmp_path)) + r'/[^/:\[]+(:[1-9]\d*)?(\[\d+\])?: (.*)',
                       str(error), re.DOTALL)
      assert place, (data, error)
      assert place[1] or place[3].startswith(WHOLE.get(name, 'a line')), (data, error)
      refused += 1
    else:
      try:
        reader.check(result, tmp_path)
      except Exception as error:
        raise AssertionError(f'accepted wrongly: {data!r}') from error
      read += 1
  assert read + refused == EACH and read > 10 and refused > EACH / 3, (read, refused)
