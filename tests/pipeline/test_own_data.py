"""Worlds that the project does not know go the whole road, by a schema file alone."""

import csv
import dataclasses

import pytest

import jobrec_jax
from jobrec_jax.data.files.paper_csv import write_published
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline.run import Run
from jobrec_jax.schema.document import schema_document
from jobrec_jax.schema.schema import Entity
from tests.pipeline.tiny import CHANGES, tiny_settings

SHARES = {'seed': 5, 'shares': (0.4, 0.2, 0.2, 0.2)}


def renamed(word):
  """Another world's words: long, and with a comma."""
  return f'{word}, as one says elsewhere' if isinstance(word, str) else word


def other_world():
  """A simulated market whose industries, skills and ids nobody here has seen."""
  dataset, _ = simulate(MarketConfig(**CHANGES['market']), SHARES['seed'],
                        shares=SHARES['shares'])
  document = schema_document(dataset.schema)
  changed = {'skills', 'interests', 'required_skills', 'industry'}
  for side in ('candidate', 'job'):
    for name, attribute in document[side].items():
      if name in changed and 'values' in attribute:
        attribute['values'] = [renamed(v) for v in attribute['values']]

  def other(entities, first):
    return tuple(Entity(str(first + i), {
        k: tuple(map(renamed, v)) if k in changed and isinstance(v, tuple)
        else renamed(v) if k in changed else v for k, v in e.attributes.items()})
        for i, e in enumerate(entities))
  return document, dataclasses.replace(dataset, candidates=other(dataset.candidates, 9000),
                                       jobs=other(dataset.jobs, 70))


def write_tables(folder, document, dataset):
  """Three CSV files in columns of their own, and the schema file that says what they mean."""
  sides = {'candidate': ('people.csv', dataset.candidates), 'job': ('posts.csv', dataset.jobs)}
  tables = {}
  for side, (name, entities) in sides.items():
    for attribute in document[side]:
      document[side][attribute]['column'] = f'{side} {attribute}'
      if document[side][attribute]['kind'] == 'set':
        document[side][attribute]['separator'] = '|'
    tables[f'{side}s'] = {'file': name, 'id': 'number'}
    with (folder / name).open('w', newline='') as file:
      writer = csv.writer(file, delimiter=';')
      writer.writerow(['number', *(a['column'] for a in document[side].values()), 'row'])
      for i, e in enumerate(entities):
        writer.writerow([e.id, *('' if (v := e[a]) is None else '|'.join(v)
                                 if isinstance(v, tuple) else v for a in document[side]), i])
  tables['interactions'] = {
      'file': 'log.csv', 'candidate': 'who', 'job': 'what', 'preference': 'applied',
      'qualification': {'column': 'outcome', 'yes': ['hired'], 'no': ['no']}}
  log = dataset.interactions
  with (folder / 'log.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['who', 'what', 'applied', 'outcome'])
    for c, j, p, q in zip(log.candidate, log.job, log.preference, log.qualification):
      writer.writerow([dataset.candidates[c].id, dataset.jobs[j].id, 'yes' if p else 'no',
                       {1: 'hired', 0: 'no', -1: ''}[int(q)]])
  document['tables'] = tables


@pytest.fixture(scope='module', params=['published', 'tables'])
def finished(request, tmp_path_factory):
  around = tmp_path_factory.mktemp(request.param)
  folder = around / 'data'
  folder.mkdir()
  document, dataset = other_world()
  if request.param == 'published':
    write_published(dataset, folder)
  else:
    write_tables(folder, document, dataset)
  (around / 'schema.py').write_text(f'SCHEMA_FILE = {document!r}\n')
  data = SHARES | {'source': request.param, 'schema': str(around / 'schema.py'),
                   'folder': str(folder), 'warm_test': 0.2,
                   'known_faults': ('first_in_list', 'position_in_list')}
  share = 0.2 if request.param == 'tables' else 0.0
  run = Run(around / 'run', tiny_settings(
      data=data, experts={'censoring': 'none', 'missing': share}))
  run.report()
  return run, dataset


@pytest.mark.slow
def test_a_world_of_other_words_is_trained_and_recommended_from(finished):
  run, dataset = finished
  kept = run.get(run.road.data).dataset
  assert [e.id for e in kept.jobs] == [e.id for e in dataset.jobs]
  assert kept.jobs[0]['required_skills'] == dataset.jobs[0]['required_skills']
  assert (run / 'report.html').is_file()
  loaded = jobrec_jax.load(run.folder)
  assert loaded.schema == kept.schema and loaded.jobs == kept.jobs
  thinned = run.settings.experts.missing > 0  # then training saw records that lack nearly all
  assert (loaded.catalogue.missing > 10) == thinned
  (ranked,) = loaded.recommend(dataset.candidates[0], tau=0.1, top_k=3)
  assert len(ranked.jobs) == 3 and {j.job_id for j in ranked.jobs} <= {e.id for e in dataset.jobs}


@pytest.mark.slow
def test_a_schema_file_enters_the_key_by_what_it_says(finished):
  run, _ = finished
  path = run.settings.data.schema
  with open(path) as file:
    text = file.read()
  moved = f'{path}.moved.py'
  with open(moved, 'w') as file:
    file.write('# another comment\n' + text)
  data = dataclasses.replace(run.settings.data, schema=moved)
  same = Run(run.folder, dataclasses.replace(run.settings, data=data))
  assert same.road.data.key == run.road.data.key
  with open(moved, 'w') as file:
    file.write(text.replace("'low': 0", "'low': -1"))
  other = Run(run.folder, dataclasses.replace(run.settings, data=data))
  assert other.road.data.key != run.road.data.key
