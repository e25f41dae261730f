"""Many candidates are ranked in shards: the same rows here, by workers, and after a kill."""

import dataclasses
import json
import logging
from pathlib import Path
import re
import shutil
import subprocess
import sys

import pytest

from jobrec_jax.data.files.jsonl import render_entities
from jobrec_jax.pipeline import recommend_many as many
from jobrec_jax.pipeline.load import load

ROOT = Path(__file__).parents[2]
COUNT, SIZE, TAU = 10, 4, 0.41


@pytest.fixture(scope='module')
def candidates(tiny_folder, tmp_path_factory):
  """A file of ten candidates; one has a character that some take for the end of a line."""
  (data,) = (tiny_folder / 'store').glob('data-*')
  lines = (data / 'candidates.jsonl').read_text().splitlines()[:COUNT]
  first = json.loads(lines[0]) | {'id': 'Zoë\u2028\x85'}
  path = tmp_path_factory.mktemp('many') / 'candidates.jsonl'
  path.write_text('\n'.join([json.dumps(first, ensure_ascii=False), *lines[1:]]) + '\n')
  return path


@pytest.fixture(scope='module')
def asked(tiny_folder, candidates):
  return many.Request(str(tiny_folder), str(candidates), TAU, 3)


@pytest.fixture(scope='module')
def expected(asked, tmp_path_factory):
  """What comes out when nothing is in the way."""
  out = tmp_path_factory.mktemp('expected') / 'ranked.jsonl'
  assert many.recommend_many(asked, out, SIZE) == COUNT
  assert [p.name for p in out.parent.iterdir()] == ['ranked.jsonl']  # no part stays
  return out.read_bytes()


@pytest.mark.slow
def test_rows_are_what_the_run_recommends_in_the_files_order(asked, candidates, expected, tmp_path):
  run = load(asked.run)
  people = [e for _, e in many.read_entity_lines(candidates, run.schema, 'candidate')]
  rows = [json.loads(line) for line in expected.decode().split('\n')[:-1]]
  assert [r['candidate'] for r in rows] == [e.id for e in people]
  for start in range(0, COUNT, SIZE):
    for r, ranked in zip(rows[start:start + SIZE],
                         run.recommend(people[start:start + SIZE], TAU, 3), strict=True):
      assert (r['tau'], r['eligibility']) == (TAU, ranked.eligibility)
      assert r['jobs'] == [vars(job) for job in ranked.jobs]
  jobs = tmp_path / 'jobs.json'
  jobs.write_text(json.dumps([json.loads(render_entities(run.schema, 'job', [job]))
                              for job in run.jobs[:2]]))
  asked = many.Request(asked.run, asked.candidates, TAU, 3, str(jobs))
  many.recommend_many(asked, tmp_path / 'few.jsonl')
  found = [json.loads(line) for line in (tmp_path / 'few.jsonl').read_text().split('\n')[:-1]]
  assert all({j['job_id'] for j in r['jobs']} == {j.id for j in run.jobs[:2]} for r in found)


@pytest.mark.slow
def test_a_kill_costs_one_shard(asked, expected, tmp_path, monkeypatch, caplog):
  out, calls, own = tmp_path / 'ranked.jsonl', [], many.make_shard

  def killed(*arguments):
    calls.append(arguments[2].line)
    if len(calls) == 3:
      raise KeyboardInterrupt
    own(*arguments)
  monkeypatch.setattr(many, 'make_shard', killed)
  with pytest.raises(KeyboardInterrupt):
    many.recommend_many(asked, out, SIZE)
  parts = sorted((tmp_path / 'ranked.jsonl.parts').glob('shard-*'))
  assert not out.exists() and len(parts) == 2
  parts[0].write_text(parts[0].read_text().replace('"tau": 0.41', '"tau": 0.42', 1))  # damaged
  (parts[0].parent / 'shard-of-another-request.jsonl').touch()
  calls[:] = [0, 0, 0]
  with caplog.at_level(logging.INFO):
    many.recommend_many(asked, out, SIZE)
  assert len(calls) == 5  # the one that was killed, and the damaged one
  assert out.read_bytes() == expected and [p.name for p in tmp_path.iterdir()] == [out.name]
  assert '3 shards, 2 of them to be made' in caplog.text
  assert f'{COUNT} of {COUNT} candidates' in caplog.text and 'a second, about' in caplog.text


@pytest.mark.slow
def test_a_worker_makes_the_same_rows_and_refuses_others(asked, expected, tmp_path):
  basis = many.check_request(asked)
  plain = vars(asked)
  shards = list(many.shards_of(asked, basis, SIZE))
  assert [(s.line, s.count) for s in shards] == [(1, 4), (5, 4), (9, 2)]
  for shard in reversed(shards):
    assert many.make_in_worker(plain, basis, vars(shard), str(tmp_path)) is None
  rows = ''.join(many.part_rows(tmp_path, shard) for shard in shards)
  assert rows.encode() == expected
  away = tmp_path / 'away'
  for work, message in (
      ((plain, basis, vars(shards[0]), str(away)), f'{away}: must be seen by every worker'),
      ((plain | {'run': str(away)}, basis, vars(shards[0]), str(tmp_path)), 'must be seen'),
      ((plain, 'ranking-of-another-version', vars(shards[0]), str(tmp_path)),
       'must be the run that was asked for.*all workers must run the same commit'),
      ((plain | {'new': 1}, basis, vars(shards[0]), str(tmp_path)), 'the same commit'),
      ((plain, basis, vars(shards[0]) | {'stop': shards[0].stop + 1}, str(tmp_path)),
       'candidates.jsonl: must stay as it was while candidates are ranked')):
    assert re.search(message, many.make_in_worker(*work))


@pytest.mark.slow
def test_what_rows_depend_on_names_their_shard(asked, candidates, tmp_path):
  basis = many.check_request(asked)
  for change in ({'tau': 0.0}, {'top_k': 4}):
    assert many.check_request(dataclasses.replace(asked, **change)) != basis
  shutil.copytree(asked.run, tmp_path / 'copy')
  assert many.check_request(dataclasses.replace(asked, run=str(tmp_path / 'copy'))) == basis
  keys = [s.key for s in many.shards_of(asked, basis, SIZE)]
  other = tmp_path / 'other.jsonl'
  lines = candidates.read_bytes().split(b'\n')
  other.write_bytes(b'\n'.join([*lines[:5], *lines[6:]]))
  changed = [s.key for s in many.shards_of(
      dataclasses.replace(asked, candidates=str(other)), basis, SIZE)]
  assert keys[0] == changed[0] and not set(keys[1:]) & set(changed)


@pytest.mark.slow
@pytest.mark.parametrize('text, message', [
    ('{"id": "a"}\n{"id": "b"\n', r'candidates\.jsonl:2: must be JSON'),
    ('{"id": "a"}\n{"gpa": 3.0}\n', r'candidates\.jsonl:2: id must be unique and text or a number'),
    ('{"id": "a"}\n{"id": "a"}\n', r"candidates\.jsonl:2: id must be .*, got 'a' again"),
    ('{"id": "a"}\n{"id": "b", "gpa": "x"}\n', r'candidates\.jsonl:2: .*gpa'),
    ('{"id": "a", "gpaa": 3.0}', r"candidates\.jsonl: columns must .*got \['gpaa'\]"),
    ('', r'candidates\.jsonl: must hold at least one candidate, got none'),
    (None, r'candidates\.jsonl: must be a readable file')])
def test_a_wrong_line_is_told_before_anything_is_made(asked, tmp_path, text, message):
  path = tmp_path / 'candidates.jsonl'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message):
    many.recommend_many(many.Request(asked.run, str(path), TAU), tmp_path / 'out.jsonl')
  assert not list(tmp_path.glob('out*'))


@pytest.mark.slow
def test_a_wrong_requirement_or_place_is_told_before_anything_is_made(asked, tmp_path):
  with pytest.raises(ValueError, match='tau must lie in the range'):
    many.recommend_many(many.Request(asked.run, asked.candidates, 0.99), tmp_path / 'out.jsonl')
  for place in (tmp_path, asked.candidates):
    with pytest.raises(ValueError, match='--out must be a file of its own'):
      many.recommend_many(asked, place)
  assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_failed_shard_is_told_and_the_others_are_kept(asked, tmp_path, monkeypatch):
  own = many.make_shard

  def refuse(asked, basis, shard, folder):
    if shard.line == 5:
      raise ValueError('scores must be finite, got nan')
    own(asked, basis, shard, folder)
  monkeypatch.setattr(many, 'make_shard', refuse)
  with pytest.raises(ValueError, match='scores must be finite'):
    many.recommend_many(asked, tmp_path / 'out.jsonl', SIZE)
  assert len(list((tmp_path / 'out.jsonl.parts').glob('shard-*'))) == 1


@pytest.mark.slow
def test_workers_write_the_same_file(asked, expected, tmp_path):
  """Two processes of a local cluster, started by the script."""
  out = tmp_path / 'ranked.jsonl'
  done = subprocess.run(
      [sys.executable, '-m', 'experiments.recommend', '--run', asked.run, '--tau', str(TAU),
       '--top_k', '3', '--candidates', asked.candidates, '--out', str(out),
       f'--shard_size={SIZE}', '--workers=2'], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert out.read_bytes() == expected
  assert done.stdout == f'{out}: jobs for {COUNT} candidates\n'
