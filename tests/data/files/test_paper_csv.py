"""The published CSV layout, in and out, on made-up files and on the published ones."""

import csv
import dataclasses
import io
import os
from pathlib import Path
import re

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.files.paper_csv import (
  LABEL_FILES,
  read_entities,
  read_labels,
  read_published,
  write_published,
)
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.schema.schema import Attribute, Entity, Schema
from jobrec_jax.schema.shipped import STUDENTS
from tests.data.files.odd import ODD, small

PUBLISHED = os.environ.get('JOBREC_PUBLISHED')
needs_published = pytest.mark.skipif(
    not PUBLISHED, reason='JOBREC_PUBLISHED does not name a folder with the published files')

JOB = {
    'job_id': 'J1', 'industry': 'NLP', 'required_skills': "['GPT', 'BERT']",
    'acceptable_majors': "['Statistics']", 'min_gpa': '3.1', 'min_months_experience': '5',
    'min_academic_level': 'UG2', 'min_hours_per_week': '10', 'min_length_of_commitment': '1',
    'job_in_person_commitment': 'Online', 'min_num_publications': '0',
    'job_llm_output': 'One, "two"\nthree --- and',
}


def csv_text(*rows):
  out = io.StringIO(newline='')
  csv.writer(out, lineterminator='\n').writerows(rows)
  return out.getvalue()


def job_file(folder, *changes):
  """An item file with one row for each dict of changes, ids J1, J2, ..."""
  path = folder / 'jobs.csv'
  rows = [{**JOB, 'job_id': f'J{i + 1}', **change} for i, change in enumerate(changes)]
  path.write_text(csv_text(JOB, *(row.values() for row in rows)), newline='')
  return path


def test_reads_typed_values(tmp_path):
  (job,), notes = read_entities(job_file(tmp_path, {'min_gpa': ''}), STUDENTS, 'job')
  assert job.id == 'J1' and notes == ()
  assert job['required_skills'] == ('BERT', 'GPT') and job['acceptable_majors'] == ('Statistics',)
  assert job['min_gpa'] is None and job['min_months_experience'] == 5
  assert job['job_llm_output'] == 'One, "two"\nthree --- and'


@pytest.mark.parametrize('change, message', [
    ({'min_gpa': '5.0'}, r'min_gpa must lie in \[0, 4\], got 5.0'),
    ({'min_gpa': 'nan'}, "min_gpa must be a number, got 'nan'"),
    ({'min_gpa': '1e999'}, 'min_gpa must be a number'),
    ({'min_hours_per_week': '9.5'}, "min_hours_per_week must be an integer, got '9.5'"),
    ({'min_hours_per_week': '9' * 5000}, 'min_hours_per_week must be an integer'),
    ({'industry': 'Plumbing'}, "industry allows Robotics.*got 'Plumbing'"),
    ({'required_skills': "['GPT'"}, 'required_skills must be a Python list'),
    ({'required_skills': "('GPT',)"}, 'required_skills must be a Python list'),
    ({'required_skills': '[1]'}, 'required_skills must be a Python list'),
    ({'required_skills': '[' * 5000}, 'required_skills must be a Python list'),
    ({'required_skills': '__import__("os").getcwd()'}, 'required_skills must be a Python list'),
    ({'required_skills': "['GPT' 'BERT']"}, 'required_skills must be a Python list'),
    ({'required_skills': "[b'GPT']"}, 'required_skills must be a Python list'),
    ({'required_skills': "['GPT',,]"}, 'required_skills must be a Python list'),
    ({'required_skills': r"['\ud800']"}, 'required_skills must be a Python list'),
    ({'required_skills': r"['\Uffffffff']"}, 'required_skills must be a Python list'),
    ({'acceptable_majors': "['Alchemy']"}, "acceptable_majors allows .*got 'Alchemy'"),
    ({'job_id': 'J1'}, "job_id must be unique and not empty, got 'J1', which stands on line 2"),
    ({'job_id': ''}, 'job_id must be unique and not empty'),
])
def test_bad_cell_names_the_line_its_row_starts_on(tmp_path, change, message):
  # The first row's text holds a newline: the second row starts on line 4.
  path = job_file(tmp_path, {}, change)
  with pytest.raises(ValueError, match=re.escape(f'{path}:4: ') + f'.*{message}'):
    read_entities(path, STUDENTS, 'job')


@pytest.mark.parametrize('text, line, message', [
    ('', 1, 'empty file'),
    ('job_id,industry\n', 1, 'at least one job'),
    ('industry\nNLP\n', 1, r"missing \['job_id'\]"),
    ('job_id,salary\nJ1,3\n', 1, r"unknown \['salary'\]"),
    ('job_id,industry,industry\nJ1,NLP,NLP\n', 1, 'each once'),
    ('job_id,industry\nJ1\n', 2, 'must have 2 fields, got 1'),
    ('job_id,industry\nJ1,NLP\nJ2,"NLP\n', 3, 'well quoted CSV'),
    ('job_id,industry\nJ1,"N"LP\n', 2, 'well quoted CSV'),
    ('job_id,industry\nJ1,\xe9\n', 2, 'must be UTF-8, got byte 0xe9'),
])
def test_bad_file_is_named(tmp_path, text, line, message):
  path = tmp_path / 'jobs.csv'
  path.write_bytes(text.encode('latin-1'))
  with pytest.raises(ValueError, match=re.escape(f'{path}:{line}: ') + f'.*{message}'):
    read_entities(path, STUDENTS, 'job')


def test_missing_file_is_a_value_error(tmp_path):
  with pytest.raises(ValueError, match=r'none\.csv: must be a readable file'):
    read_entities(tmp_path / 'none.csv', STUDENTS, 'job')


def test_skips_are_counted_and_noted(tmp_path):
  path = tmp_path / 'jobs.csv'
  path.write_text('job_id,row_id,industry\nJ1,1,NLP\njob_id,row_id,industry\n'
                  'job_id:token,row_id:float,industry:token_seq\n\nJ2,2,CV\n'
                  'job_id,row_id,industry\n')
  jobs, notes = read_entities(path, STUDENTS, 'job')
  assert [(j.id, j['industry']) for j in jobs] == [('J1', 'NLP'), ('J2', 'CV')]
  assert 'jobs.csv: skipped 2 repeated header rows, the first on line 3' in notes
  assert 'jobs.csv: skipped 1 rows of typed names, the first on line 4' in notes
  assert 'jobs.csv: skipped 1 blank lines, the first on line 5' in notes
  assert any('no column min_academic_level' in note for note in notes)


def test_the_schema_alone_says_what_is_required(tmp_path):
  schema = Schema('tiny', (), (Attribute('pay', 'number', required=True),
                               Attribute('remote', 'boolean')), ())
  path = tmp_path / 'jobs.csv'
  path.write_text('job_id,pay\nJ1,2\nJ2,\n')
  with pytest.raises(ValueError, match=r"jobs.csv:3: job 'J2': pay is required and missing"):
    read_entities(path, schema, 'job')
  path.write_text('job_id,remote\nJ1,True\n')
  with pytest.raises(ValueError, match=r"jobs.csv:1: .*missing \['pay'\]"):
    read_entities(path, schema, 'job')
  path.write_text('job_id,pay,remote\nJ1,2,yes\n')
  with pytest.raises(ValueError, match="remote must be a boolean, True or False, got 'yes'"):
    read_entities(path, schema, 'job')


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.sampled_from(list(JOB)), at=st.integers(0, 200), cut=st.integers(0, 4),
       insert=st.text(st.characters(codec='utf-8'), max_size=4)
       | st.text('[]\'",\n\r0123456789.:eE-+ ', max_size=4))
def test_a_mutated_row_parses_or_names_its_line(tmp_path, column, at, cut, insert):
  cell = JOB[column]
  at = min(at, len(cell))
  mutated = cell[:at] + insert + cell[at + cut:]
  path = job_file(tmp_path, {column: mutated})
  try:
    (job,), _ = read_entities(path, STUDENTS, 'job')
  except ValueError as error:
    assert f'{path}:2:' in str(error)
  else:
    STUDENTS.validate('job', job)
    if column == 'job_llm_output':
      assert (job[column] or '') == mutated


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 400), cut=st.integers(0, 3), insert=st.binary(max_size=3))
def test_a_mutated_file_parses_or_names_a_line(tmp_path, at, cut, insert):
  path = job_file(tmp_path, {}, {'industry': 'CV'})
  data = path.read_bytes()
  at = min(at, len(data))
  path.write_bytes(data[:at] + insert + data[at + cut:])
  try:
    jobs, _ = read_entities(path, STUDENTS, 'job')
  except ValueError as error:
    assert re.search(re.escape(str(path)) + r':[1-9]\d*: ', str(error))
  else:
    for job in jobs:
      STUDENTS.validate('job', job)


def test_labels(tmp_path):
  path = tmp_path / 'train.csv'
  path.write_text('user,item,label_pref,score\nS1,J1,1,14.2\nS1,J2,0,11\nuser,item,label_pref,score\n'
                  'S1,J1,1,14.3\n')
  labels, notes = read_labels(path, 'label_pref', {'S1'}, {'J1', 'J2'})
  assert labels == [('S1', 'J1', 1), ('S1', 'J2', 0)]
  assert notes == ('train.csv: skipped 1 repeated header rows, the first on line 4',
                   'train.csv: skipped 1 identical repetitions of a pair, the first on line 5')


@pytest.mark.parametrize('row, message', [
    ('S9,J1,1', "user must be one of the 1 known candidates .*, got 'S9'"),
    ('S1,J9,1', "item must be one of the 2 known jobs, got 'J9'"),
    ('S1,J1,2', "label_qual must be 0 or 1, got '2'"),
    ('S1,J1,', "label_qual must be 0 or 1, got ''"),
    ('S1,J2,1', 'label_qual of S1, J2 must be 0 as on line 2, got 1'),
    ('S1,J1', 'must have 3 fields, got 2'),
])
def test_bad_label_names_its_line(tmp_path, row, message):
  path = tmp_path / 'qual_train.csv'
  path.write_text(f'user,item,label_qual\nS1,J2,0\n{row}\n')
  with pytest.raises(ValueError, match=re.escape(f'{path}:3: ') + message):
    read_labels(path, 'label_qual', {'S1'}, {'J1', 'J2'})


def published_folder(folder, files, jobs=6, users=('S1', 'S2', 'S3')):
  job_file(folder, *[{}] * jobs).rename(folder / 'Final_items.csv')
  (folder / 'Final_users.csv').write_text('student_id\n' + ''.join(f'{u}\n' for u in users))
  for (perspective, _), name in LABEL_FILES.items():
    if name in files or name not in ('cal.csv', 'qual_val.csv', 'qual_cal.csv'):
      column = 'label_pref' if perspective == 'preference' else 'label_qual'
      rows = files.get(name, [])
      (folder / name).write_text(csv_text(('user', 'item', column), *rows))
  return folder


def rows_of(dataset):
  """(user, item, preference, qualification, split) of every interaction."""
  log = dataset.interactions
  return [(dataset.candidates[u].id, dataset.jobs[j].id, int(p), int(q), SPLITS[s])
          for u, j, p, q, s in zip(log.candidate, log.job, log.preference, log.qualification,
                                   log.split)]


def test_read_published_merges_within_a_split_and_keeps_pairs_across(tmp_path):
  folder = published_folder(tmp_path, {
      'train.csv': [('S1', 'J1', 1), ('S1', 'J2', 0)],
      'test.csv': [('S1', 'J2', 0), ('S2', 'J6', 1)],
      'qual_train.csv': [('S3', f'J{j}', 1) for j in range(1, 6)],
      'qual_test.csv': [('S2', 'J6', 0)]})
  dataset = read_published(folder, seed=1)
  rows = rows_of(dataset)
  assert ('S2', 'J6', 1, 0, 'test') in rows
  assert {('S1', 'J2', 0, UNOBSERVED, split) for split in ('train', 'test')} < set(rows)
  assert len(rows) == 9
  splits = [s for u, j, p, q, s in rows if u == 'S3']
  assert sorted(splits) == ['calibration', 'train', 'train', 'train', 'validation']
  assert dataset.interactions.exposure.tolist() == [1.0] * 9
  assert rows_of(read_published(folder, seed=1)) == rows
  assert any(rows_of(read_published(folder, seed=s)) != rows for s in range(2, 8))


def test_qualification_jobs_need_three(tmp_path):
  folder = published_folder(tmp_path, {'qual_train.csv': [('S1', 'J1', 1), ('S1', 'J2', 1)]})
  with pytest.raises(ValueError, match=r'qual_train.csv: must name at least 3 jobs'):
    read_published(folder)


def test_unknown_users_are_an_error_or_kept(tmp_path):
  folder = published_folder(tmp_path, {'test.csv': [('S1', 'J1', 1), ('S9', 'J1', 0)]})
  with pytest.raises(ValueError, match=r"test.csv:3: user must be one of .*got 'S9'"):
    read_published(folder)
  dataset = read_published(folder, allow_unknown_users=True)
  assert dataset.candidates[-1].id == 'S9'
  assert set(dataset.candidates[-1].attributes.values()) == {None}
  assert any('lacks 1 users that labels name, the first S9' in note for note in dataset.notes)


def test_shared_negatives_are_dealt_to_one_split(tmp_path):
  pairs = [(f'S{u}', f'J{j}', 0) for u in (1, 2, 3) for j in range(1, 6)]
  folder = published_folder(tmp_path, {name: [*pairs, ('S1', 'J6', 1)]
                                       for name in ('train.csv', 'val.csv', 'test.csv')})
  assert len(read_published(folder).interactions) == 48
  dataset = deal_shared_negatives(read_published(folder))
  rows = rows_of(dataset)
  negatives = [row[:2] for row in rows if row[2] == 0]
  assert sorted(negatives) == sorted(pair[:2] for pair in pairs)
  assert {row[4] for row in rows if row[2] == 0} == {'train', 'validation', 'test'}
  assert sum(row[2] == 1 for row in rows) == 3  # positives stay where they stood
  assert any('preference: 15 negatives' in note and '30 labels dropped' in note
             for note in dataset.notes)
  assert rows_of(deal_shared_negatives(read_published(folder))) == rows
  assert rows_of(deal_shared_negatives(read_published(folder), seed=1)) != rows


WORDS = st.text(st.characters(codec='utf-8'), min_size=1, max_size=8)


def values(attribute):
  members = st.sampled_from(attribute.values) if attribute.values else WORDS
  if attribute.kind in ('number', 'integer'):
    kind = st.floats if attribute.kind == 'number' else st.integers
    return st.none() | kind(attribute.low, attribute.high)
  sets = st.lists(members, max_size=3).map(tuple).map(attribute.canonical)
  return st.none() | {'boolean': st.booleans(), 'text': WORDS, 'category': members,
                      'set': sets}[attribute.kind]


@st.composite
def datasets(draw):
  def entities(side, letter):
    record = st.fixed_dictionaries({a.name: values(a) for a in STUDENTS.attributes(side)})
    return tuple(Entity(f'{letter}{i}', r) for i, r in enumerate(draw(
        st.lists(record, min_size=1, max_size=3))))
  candidates, jobs = entities('candidate', 'S'), entities('job', 'J')
  keys = draw(st.lists(st.tuples(
      st.integers(0, len(candidates) - 1), st.integers(0, len(jobs) - 1), st.integers(0, 3)),
      unique=True, max_size=12))
  labels = draw(st.lists(st.sampled_from([(0, -1), (1, -1), (1, 0), (1, 1), (-1, 1), (-1, 0)]),
                         min_size=len(keys), max_size=len(keys)))
  columns = np.asarray([(*k, *l) for k, l in zip(keys, labels)], np.int32).reshape(-1, 5).T
  log = Interactions(columns[0], columns[1], columns[3].astype(np.int8), columns[4].astype(np.int8),
                     columns[2].astype(np.int8), np.ones(len(keys), np.float32))
  return Dataset(STUDENTS, candidates, jobs, log)


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(dataset=datasets())
def test_round_trip(tmp_path, dataset):
  write_published(dataset, tmp_path / 'out')
  again = read_published(tmp_path / 'out')
  assert again.candidates == dataset.candidates and again.jobs == dataset.jobs
  assert sorted(rows_of(again)) == sorted(rows_of(dataset)) and again.notes == ()
  write_published(again, tmp_path / 'out')
  assert read_published(tmp_path / 'out').fingerprint() == again.fingerprint()
  assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(
      ['Final_items.csv', 'Final_users.csv', *LABEL_FILES.values()])


@pytest.mark.parametrize('cell, members', [
    ('[]', ()), ("['GPT',]", ('GPT',)), ('["GPT"]', ('GPT',)), ("[ 'a' , 'b' ]", ('a', 'b')),
    (r"""['it\'s', "it's", '\n\x00\u2028']""", ('\n\0\u2028', "it's")),
    (str(['a, b'] * 10_000), ('a, b',)),
])
def test_reads_any_list_of_strings(tmp_path, cell, members):
  (job,), _ = read_entities(job_file(tmp_path, {'required_skills': cell}), STUDENTS, 'job')
  assert job['required_skills'] == members


def test_a_world_of_any_schema_round_trips(tmp_path):
  one = small()
  log = dataclasses.replace(one.interactions, exposure=np.ones(len(one.interactions), np.float32))
  one = dataclasses.replace(one, interactions=log)
  write_published(one, tmp_path / 'odd')
  again = read_published(tmp_path / 'odd', schema=ODD)
  assert sorted(rows_of(again)) == sorted(rows_of(one))
  for side in ('candidate', 'job'):
    for a, b in zip(getattr(again, f'{side}s'), getattr(one, f'{side}s'), strict=True):
      assert [a[x.name] for x in ODD.attributes(side)] == [b[x.name] for x in ODD.attributes(side)]
  with pytest.raises(ValueError, match=r'Final_items.csv:1: columns must be among'):
    read_published(tmp_path / 'odd')


def test_a_simulated_world_round_trips(tmp_path):
  world, _ = simulate(MarketConfig(candidates=30, jobs=12), seed=1)
  write_published(world, tmp_path)
  again = read_published(tmp_path)
  assert sorted(rows_of(again)) == sorted(rows_of(world))
  for side in ('candidate', 'job'):
    for a, b in zip(getattr(again, f'{side}s'), getattr(world, f'{side}s'), strict=True):
      assert a.id == b.id and all(a[x.name] == b[x.name] for x in STUDENTS.attributes(side))


@pytest.mark.parametrize('value', [float('inf'), float('nan'), 10 ** 400])
def test_what_cannot_be_read_back_is_not_written(tmp_path, value):
  broken = dataclasses.replace(small(), candidates=(Entity('S1', {'score': value}),))
  with pytest.raises(ValueError, match='score must be a finite number'):
    write_published(broken, tmp_path)
  broken = dataclasses.replace(small(), candidates=(Entity('S1', {'skills': ('\ud800',)}),))
  with pytest.raises(UnicodeEncodeError):
    write_published(broken, tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path):
  folder = published_folder(tmp_path, {'train.csv': [('S1', 'J1', 1)]})
  dataset = read_published(folder)
  names, before = sorted(folder.iterdir()), (folder / 'Final_items.csv').read_bytes()
  broken = Entity('J1', {**dataset.jobs[0].attributes, 'job_llm_output': '\ud800'})
  with pytest.raises(UnicodeEncodeError):
    write_published(dataclasses.replace(dataset, jobs=(broken,)), folder)
  assert (folder / 'Final_items.csv').read_bytes() == before and sorted(folder.iterdir()) == names


@needs_published
def test_the_published_files():
  with pytest.raises(ValueError, match=r'train.csv:2: user must be one of the 5 known candidates'):
    read_published(PUBLISHED, users_file='users_sample.csv')
  dataset = read_published(PUBLISHED, users_file='users_sample.csv', allow_unknown_users=True)
  log = dataset.interactions
  assert len(dataset.jobs) == 100 and len(dataset.candidates) == 5 + 1561
  count = {(split, label): int((log.of(split).preference == label).sum())
           for split in SPLITS for label in (0, 1)}
  assert count == {('train', 0): 36547, ('train', 1): 6026, ('validation', 0): 36547,
                   ('validation', 1): 764, ('calibration', 0): 0, ('calibration', 1): 0,
                   ('test', 0): 36547, ('test', 1): 1402}
  positive_jobs = {split: int((log.of(split).qualification == 1).sum()) for split in SPLITS}
  assert positive_jobs == {'train': 47, 'validation': 7, 'calibration': 14, 'test': 30}
  assert sum(len(log.of(s).where(log.of(s).qualification >= 0)) for s in SPLITS) == 3157 + 1334


@needs_published
def test_the_published_files_round_trip(tmp_path):
  dataset = read_published(PUBLISHED, allow_unknown_users=True)
  write_published(dataset, tmp_path)
  assert read_published(tmp_path).fingerprint() == dataset.fingerprint()
  source = (Path(PUBLISHED) / 'qual_train.csv').read_text().split()
  written = [row for name in ('qual_train.csv', 'qual_val.csv', 'qual_cal.csv')
             for row in (tmp_path / name).read_text().split()[1:]]
  assert sorted(written) == sorted(source[1:])
