"""The artefact that recommending needs of a run's data, its tables' columns among it."""

import dataclasses

import numpy as np
import pytest

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.files.records import read_entity, read_records
from jobrec_jax.data.tables.definition import read_definition
from jobrec_jax.data.tables.reader import read_entities
from jobrec_jax.pipeline.artefacts import load_catalogue, load_list_length, save_catalogue
from jobrec_jax.schema.schema import Entity
from tests.data.tables import shop

LOG = 'person,post,applied\n1,10,yes\n2,11,no\n'


@pytest.fixture
def defined(tmp_path):
  shop.folder(tmp_path, LOG, "preference = 'applied'\n",
              schema=shop.SCHEMA.replace("name = 'shop'", "name = 'shop'\ntitle = 'about'"))
  return read_definition(tmp_path / 'schema.toml')


def dataset(defined, tmp_path, candidates):
  jobs = read_entities(tmp_path / 'posts.csv', defined, 'job', [])
  count = len(candidates)
  train = np.zeros(count, np.int8)
  train[-1] = 3  # the last one is of the test
  log = Interactions(np.arange(count, dtype=np.int32), np.zeros(count, np.int32),
                     *np.ones((2, count), np.int8), train, np.ones(count, np.float32))
  return Dataset(defined.schema, candidates, jobs, log)


def test_it_keeps_how_tables_are_written(defined, tmp_path):
  people = read_entities(tmp_path / 'people.csv', defined, 'candidate', [])
  data = dataset(defined, tmp_path, people)
  save_catalogue(tmp_path / 'kept', data, defined.schema, defined.mapping)
  found = load_catalogue(tmp_path / 'kept')
  assert found.schema == defined.schema and found.schema.title == 'about'
  assert (found.jobs, found.sides, found.log) == (data.jobs, defined.sides, defined.log)
  posts = read_records(tmp_path / 'posts.csv', found.schema, 'job', found.sides['job'])
  assert posts.entities == data.jobs
  person = read_entity(tmp_path / 'people.csv', found.schema, 'candidate',
                       found.sides['candidate'], '2')
  assert person == people[1] and person['skills'] == ('Kubernetes', 'SQL')


def test_without_tables_it_keeps_the_schema_alone(defined, tmp_path):
  data = dataset(defined, tmp_path, (Entity('a', {'years': 1}), Entity('b', {})))
  save_catalogue(tmp_path / 'kept', data, dataclasses.replace(defined.schema, title=''), {})
  found = load_catalogue(tmp_path / 'kept')
  assert found.sides == {} and found.log is None and found.schema.title == ''


def test_training_that_took_attributes_as_missing_saw_more(defined, tmp_path):
  """Of whole records with six attributes; so many are missing at most in 99 of 100 versions."""
  full = dict.fromkeys((a.name for a in defined.schema.candidate), 1)
  data = dataset(defined, tmp_path, tuple(Entity(str(i), full) for i in range(50)))
  found = []
  for share in (0.0, 0.01, 0.1, 0.5):
    save_catalogue(tmp_path / str(share), data, defined.schema, {}, share)
    found.append(load_catalogue(tmp_path / str(share)).missing)
  assert found == [0, 2, 6, 6]


@pytest.mark.parametrize('sparse, usual', [(0, 1), (1, 1), (3, 5)])
def test_what_99_of_100_candidates_in_training_lack_at_most_is_usual(defined, tmp_path, sparse,
                                                                     usual):
  """Of 200: one sparse record in 200 is none of the 99%, three are. The test's do not count."""
  full = {'years': 1, 'pay': 1.0, 'skills': (), 'shift': 'Any', 'drives': False}  # but the letter
  people = tuple(Entity(str(i), {'years': 1} if i < sparse else full) for i in range(200))
  data = dataset(defined, tmp_path, (*people, Entity('test', {})))
  save_catalogue(tmp_path / 'kept', data, defined.schema, {})
  assert load_catalogue(tmp_path / 'kept').missing == usual


def test_the_length_of_stage_2s_lists_is_read_with_the_policy(tmp_path):
  (tmp_path / 'policy.json').write_text('{"list_length": 12}')
  assert load_list_length(tmp_path) == 12
  (tmp_path / 'policy.json').write_text('{}')
  with pytest.raises(ValueError, match=r'policy\.json: list_length must be .*, got None'):
    load_list_length(tmp_path)
