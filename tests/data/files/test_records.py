"""Single records, many candidates and catalogues of jobs, from files of any usual kind."""

import json
import re

import pytest

from jobrec_jax.data.files.jsonl import write_jsonl
from jobrec_jax.data.files.paper_csv import write_published
from jobrec_jax.data.files.recbole import write_atomic
from jobrec_jax.data.files.records import read_entity, read_records, write_entities
from jobrec_jax.data.tables.definition import SideTable
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS
from tests.data.files.odd import ODD, small


def write(folder, value, name='record.json'):
  path = folder / name
  path.write_text(value if isinstance(value, str) else json.dumps(value))
  return path


def test_reads_a_candidate(tmp_path):
  path = write(tmp_path, {'id': 'me', 'gpa': 3, 'skills': ['GPT', 'BERT'], 'second_major': None,
                          'commit_to_summer': True})
  candidate = read_entity(path, STUDENTS, 'candidate')
  assert candidate.id == 'me' and candidate['gpa'] == 3 and candidate['skills'] == ('BERT', 'GPT')
  assert candidate['commit_to_summer'] is True and candidate['second_major'] is None
  assert set(candidate.attributes) == {a.name for a in STUDENTS.candidate}
  assert read_entity(write(tmp_path, {'gpa': 3}), STUDENTS, 'candidate').id == 'candidate'


@pytest.mark.parametrize('value, message', [
    ({'gpa': 5}, r': candidate .*gpa must lie in \[0, 4\], got 5'),
    ({'gpa': '3'}, ": candidate .*gpa must be a number, got '3'"),
    ({'gpa': True}, ': candidate .*gpa must be a number, got True'),
    ({'skills': 'GPT'}, ": candidate .*skills must be a set, got 'GPT'"),
    ({'skills': [1]}, ': candidate .*skills must be a set of words'),
    ({'academic_level': 'UG9'}, ': candidate .*academic_level allows UG1'),
    ({'academic_level': ['UG1']}, ': candidate .*academic_level must be a category'),
    ({'proj_1': {'a': 1}}, ': candidate .*proj_1 must be a text'),
    ({'gpaa': 3}, r": columns .*got \['gpaa'\] among \['gpaa'\]; did you mean 'gpa'\?"),
    ({'id': True}, ": id must be unique and text or a number, got 'True'"),
    ({'id': None}, ": id must be unique and text or a number, got 'None'"),
    ([], ': must hold at least one candidate, got none'),
    ([{'id': 'a'}, {'id': 'b'}], r": must hold one candidate, got 2: 'a', 'b'; name one by its id"),
    ([3], r'\[0\]: must be a JSON object, got int'),
    ('{"gpa":\n 3,}', ':2: must be JSON'),
    ('{"gpa": NaN}', ': must be JSON, got: NaN'),
    ('{"gpa": 3, "gpa": 2}', r": must be JSON, got: .* a key once, got \['gpa'\] again"),
    ('{"extrac_1": "\\ud800"}', ': must be JSON, got: .*surrogates not allowed'),
    ('{"gpa": 1e999}', ": candidate .*gpa must be a finite number, got inf"),
    ('{"months_experience": ' + '9' * 5000 + '}', ': must be JSON'),
    ('{"skills": ' + '[' * 900 + ']' * 900 + '}', ': .*'),
    ('', ':1: must be JSON'),
    ('[' * 100_000, ': must be JSON'),
])
def test_bad_record_names_path_and_key(tmp_path, value, message):
  path = write(tmp_path, value)
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    read_entity(path, STUDENTS, 'candidate')


def test_a_file_that_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match=r'none\.json: must be a readable file'):
    read_entity(tmp_path / 'none.json', STUDENTS, 'job')
  (tmp_path / 'latin.json').write_bytes(b'"\xe9"')
  with pytest.raises(ValueError, match=r'latin.json:1: must be UTF-8, got byte 0xe9'):
    read_entity(tmp_path / 'latin.json', STUDENTS, 'job')


def jobs_of(path, table=None):
  return read_records(path, STUDENTS, 'job', table).entities


def test_catalogue_is_the_same_from_json_and_csv(tmp_path):
  from_json = jobs_of(write(tmp_path, [
      {'id': 'J1', 'industry': 'NLP', 'min_gpa': 3.5, 'required_skills': ['GPT']},
      {'id': 'J2', 'industry': 'CV'}]))
  for name, text in (
      ('jobs.csv', "job_id,industry,min_gpa,required_skills\nJ1,NLP,3.5,['GPT']\nJ2,CV,,\n"),
      ('JOBS.CSV', '\ufeffjob_id,industry,min_gpa,required_skills\r\n'
                   "J1,NLP,3.5,['GPT']\r\nJ2,CV,,"),
      ('jobs.TSV', 'id\tindustry\tmin_gpa\trequired_skills\nJ1\tnlp\t3.5\tGPT\nJ2\tCV\t\t\n'),
      ('JOBS.JSON', '[{"id": "J1", "industry": "NLP", "min_gpa": 3.5, "required_skills": ["GPT"]},'
                    ' {"id": "J2", "industry": "CV"}]'),
      ('jobs.jsonl', '{"id": "J1", "industry": "NLP", "min_gpa": 3.5, "required_skills": ["GPT"]}\n'
                     '{"id": "J2", "industry": "CV"}')):
    assert jobs_of(write(tmp_path, text, name)) == from_json and len(from_json) == 2
  assert [j.id for j in jobs_of(write(tmp_path, [{}, {}]))] == ['job-0', 'job-1']
  assert [j.id for j in jobs_of(write(tmp_path, [{'id': 7}, {'id': 8.0}]))] == ['7', '8']


def test_our_own_exports_serve_as_catalogues(tmp_path):
  """In each of the formats that experiments.export writes, odd values included."""
  one = small()
  write_jsonl(one, tmp_path)
  write_published(one, tmp_path)
  write_atomic(one, tmp_path, 'x')
  for name in ('jobs.jsonl', 'Final_items.csv', 'x.item'):
    assert same_records(read_records(tmp_path / name, ODD, 'job').entities, one.jobs), name
  for name in ('candidates.jsonl', 'Final_users.csv', 'x.user'):
    assert same_records(read_records(tmp_path / name, ODD, 'candidate').entities,
                        one.candidates), name


def same_records(found, expected):
  def plain(entities):
    return [(e.id, {k: v for k, v in e.attributes.items() if v not in (None, '')})
            for e in entities]
  return plain(found) == plain(expected)


POSTS = SideTable('posts.csv', 'post', {'industry': 'trade', 'min_gpa': 'mark'},
                  {'required_skills': '/'}, {'min_gpa': ('none',)})


def test_a_users_own_table_is_read_as_its_schema_file_says(tmp_path):
  text = ('post;trade;mark;required_skills;contact\n11.0;cv;none;GPT/BERT;Ann\n'
          '12;NLP;3.5;;\n')
  jobs, notes = read_records(write(tmp_path, text, 'posts.csv'), STUDENTS, 'job', POSTS)
  assert [(j.id, j['industry'], j['min_gpa'], j['required_skills']) for j in jobs] == [
      ('11', 'CV', None, ('BERT', 'GPT')), ('12', 'NLP', 3.5, None)]
  assert 'posts.csv: 1 columns are not read: contact' in notes
  assert any('posts.csv: no column for ' in n and 'min_gpa' not in n for n in notes)
  by_name = jobs_of(write(tmp_path, [{'id': 12, 'industry': 'NLP', 'min_gpa': 3.5}]), POSTS)
  assert by_name == jobs[1:]


def test_one_row_of_many_is_named_by_its_id(tmp_path):
  path = write(tmp_path, 'id,gpa\n7,3.0\n8,3.5\n', 'people.csv')
  assert read_entity(path, STUDENTS, 'candidate', name='8')['gpa'] == 3.5
  with pytest.raises(ValueError, match=r"people\.csv: must hold one candidate, got 2: '7', '8'; "):
    read_entity(path, STUDENTS, 'candidate')
  with pytest.raises(ValueError, match=r"must hold the candidate '9', got 2: '7', '8'$"):
    read_entity(path, STUDENTS, 'candidate', name='9')


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  write(tmp_path, [{'id': 'J1'}], 'jobs.json')
  assert len(jobs_of('~/jobs.json')) == 1


@pytest.mark.parametrize('value, message', [
    ([{'id': 'J1'}, {'id': 'J2', 'min_gpa': 9}],
     r'\[1\]: job .*min_gpa must lie in \[0, 4\], got 9'),
    ([{'id': 'J1'}, 3], r'\[1\]: must be a JSON object, got int'),
    ([{'id': 'J1'}, {'id': 'J1'}], r"\[1\]: id must be unique and .*, got 'J1' again"),
    ([{'id': 'J1'}, {'min_gpa': 3}], r"\[1\]: id must be unique and text or a number, got 'None'"),
    ({'id': 'J1'}, ': must be a JSON array of objects, got dict'),
    ([], ': must hold at least one job, got none'),
])
def test_bad_catalogue_names_path_and_index(tmp_path, value, message):
  path = write(tmp_path, value)
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    jobs_of(path)


@pytest.mark.parametrize('text, table, message', [
    ('name,pay\nA,3\n', None, r"column with ids, id or job_id or item_id, got \['name', 'pay'\]"),
    ('name,pay\nA,3\n', POSTS, r"ids, post or id or job_id or item_id, got \['name', 'pay'\]"),
    ('id,min_gap\nA,3\n', None, r"got \['min_gap'\] among \['id', 'min_gap'\]; did .* 'min_gpa'"),
    ('id,pay\nA,3\n', None, r"got \['pay'\] among \['id', 'pay'\]; attributes are \['min_academic"),
    ('post,pay\nA,3\n', POSTS, r"of a job or post, got \['pay'\] among \['post', 'pay'\]"),
])
def test_columns_that_do_not_fit_are_named_with_those_that_came(tmp_path, text, table, message):
  with pytest.raises(ValueError, match=message):
    jobs_of(write(tmp_path, text, 'x.csv'), table)


def test_what_is_written_reads_back(tmp_path):
  jobs = (Entity('J1', {'min_gpa': 3.5, 'required_skills': ('a\u2028b',), 'industry': None}),
          Entity('J \xe9', {'job_llm_output': '\0"\\\n'}))
  write_entities(tmp_path / 'jobs.json', jobs)
  again = jobs_of(tmp_path / 'jobs.json')
  assert [(j.id, {k: v for k, v in j.attributes.items() if v is not None}) for j in again] == [
      (j.id, {k: v for k, v in j.attributes.items() if v is not None}) for j in jobs]
  with pytest.raises(ValueError, match='not JSON compliant'):
    write_entities(tmp_path / 'jobs.json', [Entity('J', {'min_gpa': float('nan')})])
  assert jobs_of(tmp_path / 'jobs.json') == again


def test_bad_csv_catalogue_names_the_line(tmp_path):
  path = write(tmp_path, 'job_id,min_gpa\nJ1,3\nJ2,9\n', 'jobs.csv')
  with pytest.raises(ValueError, match=r'jobs.csv:3: job .*min_gpa must lie in \[0, 4\]'):
    jobs_of(path)


def test_a_cell_may_be_longer_than_csv_allows_by_itself(tmp_path):
  text = 'x' * 140_000
  path = write(tmp_path, f'job_id,job_llm_output\nJ1,{text}\n', 'jobs.csv')
  assert jobs_of(path)[0]['job_llm_output'] == text
