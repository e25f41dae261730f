"""Single records and catalogues of jobs, from JSON and CSV."""

import json
import re

import pytest

from jobrec_jax.data.files.records import read_catalogue, read_entity_json, write_entities
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS


def write(folder, value, name='record.json'):
  path = folder / name
  path.write_text(value if isinstance(value, str) else json.dumps(value))
  return path


def test_reads_a_candidate(tmp_path):
  path = write(tmp_path, {'id': 'me', 'gpa': 3, 'skills': ['GPT', 'BERT'], 'second_major': None,
                          'commit_to_summer': True})
  candidate = read_entity_json(path, STUDENTS, 'candidate')
  assert candidate.id == 'me' and candidate['gpa'] == 3 and candidate['skills'] == ('BERT', 'GPT')
  assert candidate['commit_to_summer'] is True and candidate['second_major'] is None
  assert set(candidate.attributes) == {a.name for a in STUDENTS.candidate}
  assert read_entity_json(write(tmp_path, {'gpa': 3}), STUDENTS, 'candidate').id == 'candidate'


@pytest.mark.parametrize('value, message', [
    ({'gpa': 5}, r': candidate .*gpa must lie in \[0, 4\], got 5'),
    ({'gpa': '3'}, ": candidate .*gpa must be a number, got '3'"),
    ({'gpa': True}, ': candidate .*gpa must be a number, got True'),
    ({'skills': 'GPT'}, ": candidate .*skills must be a set, got 'GPT'"),
    ({'skills': [1]}, ': candidate .*skills must be a set of words'),
    ({'academic_level': 'UG9'}, ': candidate .*academic_level allows UG1'),
    ({'academic_level': ['UG1']}, ': candidate .*academic_level must be a category'),
    ({'proj_1': {'a': 1}}, ': candidate .*proj_1 must be a text'),
    ({'gpaa': 3}, r": candidate .*unknown attributes \['gpaa'\]"),
    ({'id': 7}, ': id must be a string that is not empty, got 7'),
    ([], ': must be a JSON object .*got list'),
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
    read_entity_json(path, STUDENTS, 'candidate')


def test_a_file_that_cannot_be_read(tmp_path):
  with pytest.raises(ValueError, match=r'none\.json: must be a readable file'):
    read_entity_json(tmp_path / 'none.json', STUDENTS, 'job')
  (tmp_path / 'latin.json').write_bytes(b'"\xe9"')
  with pytest.raises(ValueError, match=r'latin.json:1: must be UTF-8, got byte 0xe9'):
    read_entity_json(tmp_path / 'latin.json', STUDENTS, 'job')


def test_catalogue_is_the_same_from_json_and_csv(tmp_path):
  from_json = read_catalogue(write(tmp_path, [
      {'id': 'J1', 'industry': 'NLP', 'min_gpa': 3.5, 'required_skills': ['GPT']},
      {'id': 'J2', 'industry': 'CV'}]), STUDENTS)
  from_csv = read_catalogue(write(
      tmp_path, "job_id,industry,min_gpa,required_skills\nJ1,NLP,3.5,['GPT']\nJ2,CV,,\n",
      'jobs.csv'), STUDENTS)
  assert from_json == from_csv and len(from_json) == 2
  assert [j.id for j in read_catalogue(write(tmp_path, [{}, {}]), STUDENTS)] == ['job-0', 'job-1']


@pytest.mark.parametrize('value, message', [
    ([{'id': 'J1'}, {'min_gpa': 9}], r'\[1\]: job .*min_gpa must lie in \[0, 4\], got 9'),
    ([{'id': 'J1'}, 3], r'\[1\]: must be a JSON object .*got int'),
    ([{'id': 'J1'}, {'id': 'J1'}], r"\[1\]: id must be unique, got 'J1' again"),
    ({'id': 'J1'}, ': must be a JSON array of at least one job, got dict'),
    ([], ': must be a JSON array of at least one job, got an empty one'),
])
def test_bad_catalogue_names_path_and_index(tmp_path, value, message):
  path = write(tmp_path, value)
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    read_catalogue(path, STUDENTS)


def test_what_is_written_reads_back(tmp_path):
  jobs = (Entity('J1', {'min_gpa': 3.5, 'required_skills': ('a\u2028b',), 'industry': None}),
          Entity('J \xe9', {'job_llm_output': '\0"\\\n'}))
  write_entities(tmp_path / 'jobs.json', jobs)
  again = read_catalogue(tmp_path / 'jobs.json', STUDENTS)
  assert [(j.id, {k: v for k, v in j.attributes.items() if v is not None}) for j in again] == [
      (j.id, {k: v for k, v in j.attributes.items() if v is not None}) for j in jobs]
  with pytest.raises(ValueError, match='not JSON compliant'):
    write_entities(tmp_path / 'jobs.json', [Entity('J', {'min_gpa': float('nan')})])
  assert read_catalogue(tmp_path / 'jobs.json', STUDENTS) == again


def test_bad_csv_catalogue_names_the_line(tmp_path):
  path = write(tmp_path, 'job_id,min_gpa\nJ1,3\nJ2,9\n', 'jobs.csv')
  with pytest.raises(ValueError, match=r'jobs.csv:3: job .*min_gpa must lie in \[0, 4\]'):
    read_catalogue(path, STUDENTS)
