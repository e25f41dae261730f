"""Folders of JSON lines: in and out, what is refused, and what a killed write leaves behind."""

from concurrent.futures import ProcessPoolExecutor
import dataclasses
import errno
import json
import multiprocessing
import os
from pathlib import Path
import re
import signal
import subprocess
import sys

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.files.jsonl import (
    HEAD,
    JsonlWriter,
    read_jsonl,
    render_entities,
    render_interactions,
    write_jsonl,
)
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS
from tests.data.files.odd import ODD, datasets, interactions, same, small

FOLDER = settings(max_examples=80, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
FILES = ['candidates.jsonl', 'dataset.json', 'interactions.jsonl', 'jobs.jsonl']


def names(folder):
  return sorted(p.name for p in folder.iterdir())


def lines(path):
  return [json.loads(line) for line in path.read_bytes().decode().split('\n')[:-1]]


@FOLDER
@given(dataset=datasets(), notes=st.lists(st.text(st.characters(codec='utf-8')), max_size=2))
def test_round_trip(tmp_path, dataset, notes):
  dataset = dataclasses.replace(dataset, notes=tuple(notes))
  write_jsonl(dataset, tmp_path)
  again = read_jsonl(tmp_path, ODD)
  assert same(again, dataset) and again.notes == dataset.notes
  assert names(tmp_path) == FILES


@FOLDER
@given(dataset=datasets())
def test_the_lines_say_what_the_data_set_says(tmp_path, dataset):
  write_jsonl(dataset, tmp_path)
  for side, entities in (('candidates', dataset.candidates), ('jobs', dataset.jobs)):
    for row, entity in zip(lines(tmp_path / f'{side}.jsonl'), entities, strict=True):
      assert row == {'id': entity.id, **{k: list(v) if isinstance(v, tuple) else v
                                         for k, v in entity.attributes.items() if v is not None}}
  log = dataset.interactions
  label = {-1: None, 0: 0, 1: 1}
  for i, row in enumerate(lines(tmp_path / 'interactions.jsonl')):
    assert row == {
        'candidate': dataset.candidates[log.candidate[i]].id, 'job': dataset.jobs[log.job[i]].id,
        'split': ('train', 'validation', 'calibration', 'test')[log.split[i]],
        'preference': label[log.preference[i]], 'qualification': label[log.qualification[i]],
        'exposure': float(str(log.exposure[i]))}


def test_a_world_round_trips(tmp_path):
  dataset, _ = simulate(MarketConfig(candidates=30, jobs=12), seed=1)
  write_jsonl(dataset, tmp_path)
  assert same(read_jsonl(tmp_path, STUDENTS), dataset)
  head = json.loads((tmp_path / HEAD).read_text())
  assert head == {'format': 1, 'schema': 'students', 'fingerprint': STUDENTS.fingerprint(),
                  'candidates': 30, 'jobs': 12, 'interactions': len(dataset.interactions),
                  'notes': list(dataset.notes)}


def test_exposures_keep_their_bits(tmp_path):
  exposure = np.exp2(-149 * np.random.default_rng(0).random(20_000)).astype(np.float32)
  log = interactions([(0, j, 1, -1, 0, e) for j, e in enumerate(exposure)])
  jobs = tuple(Entity(str(j), {'title': ''}) for j in range(len(exposure)))
  write_jsonl(dataclasses.replace(small(), jobs=jobs, interactions=log), tmp_path)
  assert (read_jsonl(tmp_path, ODD).interactions.exposure == exposure).all()


def test_blocks_rendered_by_workers_make_the_same_files(tmp_path):
  dataset, _ = simulate(MarketConfig(candidates=40, jobs=12), seed=2)
  people, log = dataset.candidates, dataset.interactions
  ids = {i: e.id for i, e in enumerate(people)}
  job_ids = [e.id for e in dataset.jobs]
  halves = [log.where(np.s_[:100]), log.where(np.s_[100:])]
  with (JsonlWriter(tmp_path / 'blocks', STUDENTS) as writer,
        ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool):
    for part, block in ((people[:15], 15), (people[15:], 25)):
      data = pool.submit(render_entities, STUDENTS, 'candidate', part).result()
      writer.append('candidates', data, block)
    writer.write_entities('job', iter(dataset.jobs))
    for part in halves:
      data = pool.submit(render_interactions, part, ids, job_ids).result()
      writer.append('interactions', data, len(part))
  write_jsonl(dataset, tmp_path / 'whole')
  for name in FILES:
    assert (tmp_path / 'blocks' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()


def test_an_error_leaves_the_old_data_set(tmp_path):
  write_jsonl(small(), tmp_path)
  before = {p: p.read_bytes() for p in tmp_path.iterdir()}
  for value, message in ((float('nan'), 'not JSON compliant'), ('\ud800', 'surrogates')):
    name = 'score' if isinstance(value, float) else 'name'
    broken = dataclasses.replace(small(), candidates=(Entity('S1', {name: value}),))
    with pytest.raises(ValueError, match=message):
      write_jsonl(broken, tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
  with pytest.raises(ValueError, match='surrogates'):
    write_jsonl(dataclasses.replace(small(), notes=('\ud800',)), tmp_path)
  assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize('renames', range(5))
def test_a_write_that_stops_while_it_moves_files_is_no_data_set(tmp_path, monkeypatch, renames):
  write_jsonl(small(), tmp_path)
  other = dataclasses.replace(small(), interactions=interactions([(0, 0, 1, 1, 0, 0.5)]))
  done, replace = [], os.replace

  def stopping(source, target):
    if len(done) == renames:
      raise KeyboardInterrupt
    done.append(target)
    return replace(source, target)
  monkeypatch.setattr(os, 'replace', stopping)
  if renames == 4:  # all of them
    write_jsonl(other, tmp_path)
    assert same(read_jsonl(tmp_path, ODD), other)
    return
  with pytest.raises(KeyboardInterrupt):
    write_jsonl(other, tmp_path)
  with pytest.raises(ValueError, match=r'dataset.json: must be a readable file'):
    read_jsonl(tmp_path, ODD)
  assert not [name for name in names(tmp_path) if name.startswith('.')]


def test_a_full_disk_leaves_the_old_data_set(tmp_path, monkeypatch):
  write_jsonl(small(), tmp_path)

  def full(descriptor):
    raise OSError(errno.ENOSPC, 'No space left on device')
  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(OSError, match='No space left'):
    write_jsonl(dataclasses.replace(small(), notes=('other',)), tmp_path)
  assert names(tmp_path) == sorted(FILES) and same(read_jsonl(tmp_path, ODD), small())
  assert read_jsonl(tmp_path, ODD).notes == ()


def test_a_killed_write_leaves_the_old_data_set(tmp_path):
  write_jsonl(small(), tmp_path)
  code = f'''
import os, signal
from jobrec_jax.data.files.jsonl import JsonlWriter
from tests.data.files.odd import ODD, small
with JsonlWriter({str(tmp_path)!r}, ODD) as writer:
  writer.write_entities('job', small().jobs * 9)
  for file in writer._files.values():
    file.flush()
  os.kill(os.getpid(), signal.SIGKILL)
'''
  run = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[3])
  assert run.returncode == -signal.SIGKILL
  assert len(names(tmp_path)) > len(FILES)  # the pieces, which nothing reads
  assert same(read_jsonl(tmp_path, ODD), small())
  write_jsonl(small(), tmp_path / 'never')
  (tmp_path / 'never' / HEAD).unlink()
  with pytest.raises(ValueError, match=r'dataset.json: must be a readable file'):
    read_jsonl(tmp_path / 'never', ODD)


ROW = {'candidate': 'S1', 'job': 'J3', 'split': 'train', 'preference': 1, 'qualification': None,
       'exposure': 0.5}


@pytest.mark.parametrize('change, message', [
    ({'candidate': 'S9'}, "candidate must be one of 3 known ids, got 'S9'"),
    ({'job': ['J1']}, 'job must be one of 3 known ids, got list'),
    ({'split': 'Train'}, r"split must be one of \('train', .*, got 'Train'"),
    ({'preference': 2}, 'preference must be 0, 1 or null, got 2'),
    ({'preference': True}, 'preference must be 0, 1 or null, got True'),
    ({'preference': 1.0}, 'preference must be 0, 1 or null, got 1.0'),
    ({'qualification': '1'}, "qualification must be 0, 1 or null, got '1'"),
    ({'qualification': {}}, 'qualification must be 0, 1 or null, got dict'),
    ({'exposure': 0}, r'exposure must be a number in \(0, 1\], got 0'),
    ({'exposure': 1.5}, r'exposure must be a number in \(0, 1\], got 1.5'),
    ({'exposure': True}, 'exposure must be a number'),
    ({'exposure': None}, 'exposure must be a number'),
    ({'exposure': 1e-300}, r'exposure must lie in \(0, 1\], got 0.0'),
    ({'job': 'J1'}, 'a split must hold a pair once, got that of line 1 again'),
    ({'salary': 1}, r"must be an object with the keys candidate, .*got \[.*'salary'"),
])
def test_bad_interaction_names_its_line(tmp_path, change, message):
  check_interaction(tmp_path, json.dumps({**ROW, **change}), message)


@pytest.mark.parametrize('text, message', [
    ('[]', 'must be an object .*got list'),
    ('', 'must be JSON'),
    ('{"candidate": "S1"', 'must be JSON'),
    (json.dumps(ROW)[:-1] + ', "job": "J2"}', r"must be JSON, got: .* once, got \['job'\] again"),
    (json.dumps(ROW).replace('0.5', 'NaN'), 'must be JSON, got: NaN'),
    (json.dumps(ROW).replace('0.5', '9' * 5000), 'must be JSON'),
    (json.dumps(ROW).replace('0.5', '.5'), 'must be JSON'),
    (json.dumps(ROW).replace('0.5', '00.5'), 'must be JSON'),
    (json.dumps(ROW).replace('S1', '\\ud800'), 'must be JSON.*surrogates'),
    ('[' * 100_000, 'must be JSON, got: lists or objects lie too deep'),
    (json.dumps(ROW)[:-1] + ', "x": ' + '[' * 900 + ']' * 900 + '}', 'must be'),
])
def test_bad_line_is_named(tmp_path, text, message):
  check_interaction(tmp_path, text, message)


def check_interaction(folder, text, message):
  write_jsonl(small(), folder)
  path = folder / 'interactions.jsonl'
  path.write_text(path.read_text() + text + '\n')
  with pytest.raises(ValueError, match=re.escape(f'{path}:11: ') + message):
    read_jsonl(folder, ODD)


def test_any_spelling_of_a_row_will_do(tmp_path):
  write_jsonl(small(), tmp_path)
  path = tmp_path / 'interactions.jsonl'
  rows = [dict(reversed(row.items())) for row in lines(path)]
  path.write_text(''.join(json.dumps(row, separators=(' ,', '  :')) + '\r\n' for row in rows))
  assert '\\u00e9' in path.read_text() and same(read_jsonl(tmp_path, ODD), small())


@pytest.mark.parametrize('row, message', [
    ({'id': 'S1'}, "id must be unique, got 'S1' again"),
    ({'name': 'x'}, "id must be a string that is not empty, got ''"),
    ({'id': 'S4', 'score': '3'}, "candidate 'S4': score must be a number, got '3'"),
    ({'id': 'S4', 'height': 3}, r"candidate 'S4' has unknown attributes \['height'\]"),
    ({'id': 'S4', 'skills': [['x']]}, "candidate 'S4': skills must be a set of words"),
    ([], 'must be a JSON object .*got list'),
])
def test_bad_record_names_its_line(tmp_path, row, message):
  write_jsonl(small(), tmp_path)
  path = tmp_path / 'candidates.jsonl'
  path.write_text(path.read_text() + json.dumps(row) + '\n')
  with pytest.raises(ValueError, match=re.escape(f'{path}:4: ') + message):
    read_jsonl(tmp_path, ODD)


@pytest.mark.parametrize('name', ['candidates', 'jobs', 'interactions'])
def test_a_cut_file_is_found(tmp_path, name):
  write_jsonl(small(), tmp_path)
  path = tmp_path / f'{name}.jsonl'
  whole = path.read_text()
  cut = whole[:whole.rindex('\n', 0, -1) + 1]
  path.write_text(whole[:-1])
  with pytest.raises(ValueError, match=re.escape(str(path)) + r':\d+: must end in a line feed'):
    read_jsonl(tmp_path, ODD)
  path.write_text(cut)
  with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
    read_jsonl(tmp_path, ODD)
  if name == 'interactions':
    with pytest.raises(ValueError, match=r'must have 10 lines as dataset.json says, got 9'):
      read_jsonl(tmp_path, ODD)


@pytest.mark.parametrize('change, message', [
    ({'schema': 'even'}, 'schema must be odd with fingerprint .*, got even with'),
    ({'fingerprint': '0' * 16}, 'schema must be odd with fingerprint .* with 0000000000000000'),
    ({'format': 2}, 'format must be 1, got 2'),
    ({'format': True}, 'format must be 1, got True'),
    ({'jobs': -1}, 'jobs must be a count, got -1'),
    ({'jobs': 3.0}, 'jobs must be a count, got 3.0'),
    ({'notes': 'x'}, 'notes must be an array of strings'),
    ({'extra': 1}, r'keys must be .*extra'),
])
def test_bad_head_is_named(tmp_path, change, message):
  write_jsonl(small(), tmp_path)
  path = tmp_path / HEAD
  path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
  with pytest.raises(ValueError, match=re.escape(f'{path}: ') + message):
    read_jsonl(tmp_path, ODD)


def test_another_schema_is_refused(tmp_path):
  write_jsonl(small(), tmp_path)
  with pytest.raises(ValueError, match=r'dataset.json: schema must be students .* got odd with'):
    read_jsonl(tmp_path, STUDENTS)
