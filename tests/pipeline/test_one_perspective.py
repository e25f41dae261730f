"""Data whose log teaches one perspective alone go the whole road as far as it has meaning."""

import dataclasses
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

import jobrec_jax
from jobrec_jax.baselines.rivals import DEFAULT, RIVALS
from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.files.records import entity_json
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline import scores
from jobrec_jax.pipeline.data import Data, check_sizes
from jobrec_jax.pipeline.left_out import left_out
from jobrec_jax.pipeline.perspectives import has_contrast, perspectives
from jobrec_jax.pipeline.recommend_many import Request, recommend_many
from jobrec_jax.pipeline.recommend_one import Asked, candidates_for, jobs_for
from jobrec_jax.pipeline.report import sweep_report
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.selection import machine_labels
from jobrec_jax.pipeline.settings import RefineSettings, Settings
from jobrec_jax.report.html import anchor
from jobrec_jax.schema.document import schema_document
from jobrec_jax.schema.settings import build
from tests.pipeline.test_own_data import write_tables
from tests.pipeline.tiny import tiny_settings

UNKNOWN = -1
PREFERENCE, QUALIFICATION = 'preference', 'qualification'
NO_DECISIONS = 'the log holds no accepted applicants and no rejected applicants in any split'
NO_APPLICATIONS = 'the log holds no applications in any split'


@pytest.fixture(scope='module')
def whole():
  """A market's log, with labels of both kinds; its truth is put away."""
  return simulate(MarketConfig(candidates=80, jobs=12, rho_x=-0.3), 5,
                  shares=(0.4, 0.2, 0.2, 0.2))[0]


def with_log(dataset, keep=None, **labels):
  """The data set with some labels changed, or some rows alone."""
  log = dataclasses.replace(dataset.interactions, **{
      name: np.asarray(f(dataset.interactions), np.int8) for name, f in labels.items()})
  return dataclasses.replace(dataset, interactions=log if keep is None else log.where(keep(log)))


def unknown(log):
  return np.full(len(log), UNKNOWN)


def in_test(log):
  return log.split == SPLITS.index('test')


def said(dataset, lists=None, source='tables', rivals=DEFAULT):
  """The sentences of a run over these data."""
  found = {'data': Data(dataset, None), 'lists': lists}
  return left_out(SimpleNamespace(
      road=SimpleNamespace(data='data', lists='lists'), get=found.get,
      settings=SimpleNamespace(data=SimpleNamespace(source=source),
                               evaluate=SimpleNamespace(rivals=rivals))))


def lists_of(dataset, folder, length=6):
  bench = SimpleNamespace(folder=folder, inputs={'data': Data(dataset, None)},
                          resources=SimpleNamespace(folder=''), settings={
                              'seed': 0, 'held_out': 30, 'list_length': length, 'candidates': 0,
                              'source': 'tables', 'size': ''})
  scores.make_lists(bench)
  return scores.read_lists(bench)


@pytest.mark.parametrize('labels, taught', [
    ({}, (PREFERENCE, QUALIFICATION)),
    ({QUALIFICATION: unknown}, (PREFERENCE,)),
    ({QUALIFICATION: lambda log: np.where(log.qualification == 0, 1, log.qualification)},
     (PREFERENCE,)),
    ({PREFERENCE: unknown}, (QUALIFICATION,)),
    ({PREFERENCE: lambda log: np.zeros(len(log))}, (QUALIFICATION,)),
    ({PREFERENCE: unknown, QUALIFICATION: unknown}, ())])
def test_the_labels_of_the_log_say_which_experts_there_are(whole, labels, taught):
  dataset = with_log(whole, **labels)
  assert perspectives(dataset) == taught
  if taught:
    check_sizes(Settings(), Data(dataset, None))
  else:
    with pytest.raises(ValueError, match=r'^the log must hold applications, or accepted applicants '
                                         'and rejected applicants, got none of them in'):
      check_sizes(Settings(), Data(dataset, None))


def test_sizes_are_told_of_what_is_trained(whole, caplog):
  settings = build(Settings, {'lists': {'preference_negatives': 60, 'qualification_negatives': 60}})
  for labels, there, absent in (({QUALIFICATION: unknown}, 'lists.preference_negatives',
                                 'lists.qualification_negatives'),
                                ({PREFERENCE: unknown}, 'lists.qualification_negatives',
                                 'lists.preference_negatives')):
    caplog.clear()
    with caplog.at_level(logging.INFO, 'absl'):
      check_sizes(settings, Data(with_log(whole, **labels), None))
    told = {r.getMessage().split(':')[0] for r in caplog.records}
    assert there in told and absent not in told and 'policy.list_length' not in told


def test_a_test_that_tells_nothing_is_refused_before_training(whole):
  dataset = with_log(whole, **{PREFERENCE: unknown, QUALIFICATION: lambda log: np.where(
      in_test(log) & (log.qualification == 0), 1, log.qualification)})
  with pytest.raises(ValueError, match=r'^the test split must hold a job with accepted and '
                                       r'rejected applicants, got none of \d+ jobs \(data.shares'):
    check_sizes(Settings(), Data(dataset, None))
  dataset = with_log(whole, **{QUALIFICATION: unknown, PREFERENCE: lambda log: np.where(
      in_test(log), 0, log.preference)})
  with pytest.raises(ValueError, match=r'^the test split must hold candidates who applied to'):
    check_sizes(Settings(), Data(dataset, None))


def test_the_sentence_names_labels_splits_and_the_column(whole):
  assert said(whole) == []
  (text,) = said(with_log(whole, **{QUALIFICATION: unknown}))
  sizes = [f'{(whole.interactions.split == i).sum():,} in {name}' for i, name in enumerate(SPLITS)]
  assert text == (
      f'The qualification expert was not trained: {NO_DECISIONS} (pairs: {", ".join(sizes)}). What '
      'says who was accepted and who was rejected is the column that qualification of '
      '[tables.interactions] names in the schema file, or its stage funnel.qualification. Without '
      'both experts there is no policy, no requirement τ, and nothing measured of them; there is '
      'no p_qual either: jobs are ranked by preference alone.')
  (text,) = said(with_log(whole, **{PREFERENCE: unknown}), source='jsonl')
  assert text.startswith(f'The preference expert was not trained: {NO_APPLICATIONS} (pairs: ')
  assert 'What says who applied is the labels of preference in the interactions.' in text
  assert text.endswith('jobs, and candidates for a job, are ranked by p_qual alone.')


def test_decisions_that_no_test_job_has_both_of_are_left_out_with_the_reason(whole, tmp_path):
  dataset = with_log(whole, qualification=lambda log: np.where(
      in_test(log) & (log.qualification == 0), 1, log.qualification))
  check_sizes(Settings(), Data(dataset, None))
  lists = lists_of(dataset, tmp_path)
  assert list(lists.cases) == [('test', PREFERENCE), ('test, candidates of a job', PREFERENCE)]
  assert lists.held_out is not None
  (text,) = said(dataset, lists)
  count = (dataset.interactions.of('test').qualification >= 0).sum()
  assert text.startswith('How the qualification expert ranks, and how right p_qual is, was not '
                         'measured: the test split holds no job with both') and (
                             f'({count} decisions)' in text)


@pytest.mark.parametrize('alone', [True, False])
def test_a_log_of_applications_alone_is_measured_on_an_applied_job_among_others(whole, tmp_path,
                                                                                alone):
  dataset = with_log(whole, lambda log: log.preference == 1,
                     **({QUALIFICATION: unknown} if alone else {}))
  check_sizes(Settings(), Data(dataset, None))
  assert not has_contrast(dataset.interactions, PREFERENCE)
  lists = lists_of(dataset, tmp_path)
  assert next(iter(lists.cases)) == ('test', PREFERENCE)
  mine = lists.cases['test', PREFERENCE]
  assert (mine.relevance.sum(1) == 1).all() and mine.job.shape[1] == 6
  assert (lists.held_out is None) == alone
  for data, able in ((dataset, ['schema rules']), (whole, list(DEFAULT))):
    assert [n for n in DEFAULT if RIVALS[n].can_learn(data, PREFERENCE)] == able
  texts = said(dataset, lists)
  assert len(texts) == 2 + alone
  assert 'lists of one applied job among up to 6 that training sees' in texts[-2]
  assert texts[-1].startswith('No rivals in preference here: popularity, logistic regression, '
                              'logistic regression with words. The labels of the train split')
  *before, last = said(dataset, lists, rivals=('BM25', 'EASE', 'WMF', 'conflated'))
  assert len(before) == len(texts) - 1 + alone  # alone, nobody is known to be accepted
  assert last.startswith('EASE, WMF: knowing whom they rank for by interactions alone, they rank ')


def test_labels_that_are_not_there_are_not_refined(whole):
  rules = RefineSettings(perspectives=(PREFERENCE, QUALIFICATION))
  with pytest.raises(ValueError, match=r"^refine.perspectives must have labels to refine, got "
                                       f"'qualification': {NO_DECISIONS}$"):
    machine_labels(rules, 0, with_log(whole, **{QUALIFICATION: unknown}), None)


@pytest.fixture(scope='module', params=[PREFERENCE, QUALIFICATION])
def finished(request, whole, tmp_path_factory):
  """A run over tables that have the decisions of one side alone."""
  around = tmp_path_factory.mktemp(request.param)
  (around / 'data').mkdir()
  document = schema_document(whole.schema)
  write_tables(around / 'data', document, whole)
  (other,) = {PREFERENCE, QUALIFICATION} - {request.param}
  del document['tables']['interactions'][other]
  (around / 'schema.py').write_text(f'SCHEMA_FILE = {document!r}\n')
  steps = {'steps': 12, 'warmup': 2}
  run = Run(around / 'run', tiny_settings(
      warm_up=steps, cooperative=steps, data={
          'source': 'tables', 'schema': str(around / 'schema.py'), 'folder': str(around / 'data'),
          'shares': (0.4, 0.2, 0.2, 0.2), 'known_faults': ('first_in_list', 'position_in_list')}))
  results = run.report()
  return run, request.param, results


@pytest.mark.slow
def test_one_expert_is_trained_measured_and_reported(finished):
  run, mine, results = finished
  (other,) = {PREFERENCE, QUALIFICATION} - {mine}
  systems = {r.system for r in results.rows}
  assert f'{mine} expert' in systems and f'{other} expert' not in systems
  assert set(DEFAULT) <= systems
  # What is recommended to candidates is measured as of a policy, whoever ranks.
  recommended = {'policy'} if mine == PREFERENCE else set()
  assert {r.perspective for r in results.rows} == {mine} | recommended
  assert 'policy' not in systems and results.attainable is None and not results.taus
  page = (run / 'report.html').read_text()
  why = NO_DECISIONS if mine == PREFERENCE else NO_APPLICATIONS
  (sentence,) = left_out(run)
  assert why in page and f'id="{anchor("What was left out")}"' in page
  assert sentence in (run / 'results.md').read_text()
  for heading in ('Asked and reached', 'A dial for the requirement', 'Certified'):
    assert f'id="{anchor(heading)}"' not in page
  measured = any(r.metric == 'calibration error' for r in results.rows)
  assert measured == (mine == QUALIFICATION) == (len(results.predicted) > 0)
  calibration = run.get(run.road.calibration).calibration
  assert (tuple(calibration) != (0.0, 1.0)) == (mine == QUALIFICATION)
  assert run.is_complete()


@pytest.mark.slow
def test_only_that_expert_has_learnt(finished):
  run, mine, _ = finished
  before, after = (run.get(stage).params for stage in (run.road.warm_up, run.road.cooperative))
  (other,) = {PREFERENCE, QUALIFICATION} - {mine}

  def same(name):
    return all(np.array_equal(*x) for x in zip(*(
        [np.asarray(p) for p in leaves(of[name])] for of in (before, after))))
  assert same(other) and not same(mine)


def leaves(tree):
  return [x for v in tree.values() for x in leaves(v)] if isinstance(tree, dict) else [tree]


@pytest.mark.slow
@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_that_expert_ranks_and_says_so(finished, tmp_path):
  run, mine, _ = finished
  (other,) = {PREFERENCE, QUALIFICATION} - {mine}
  loaded = jobrec_jax.load(run.folder)
  dataset = run.get(run.road.data).dataset
  candidate = dataset.candidates[0]
  (ranked,) = loaded.recommend(candidate, top_k=3)
  found = loaded.score(candidate)
  logits = found.s_pref if mine == PREFERENCE else found.z_qual
  best = np.argsort(-logits[0], kind='stable')[:3]
  assert [j.job_id for j in ranked.jobs] == [dataset.jobs[i].id for i in best]
  assert all(np.isnan(getattr(j, other)) and np.isfinite(getattr(j, mine)) for j in ranked.jobs)
  path = tmp_path / 'who.jsonl'
  path.write_text(entity_json(candidate, dataset.schema, 'candidate') + '\n')
  text, _ = jobs_for(loaded, str(path), '', Asked(tau=None))
  why = NO_DECISIONS if mine == PREFERENCE else NO_APPLICATIONS
  assert text.splitlines()[-1].startswith('Ranked by ') and why in text and 'nan' not in text
  assert json.loads(jobs_for(loaded, str(path), '', Asked(tau=None, as_json=True))[0])[
      'ranked_by'] == mine
  why, _ = jobs_for(loaded, str(path), '', Asked(tau=None, explain=True))
  assert why.count('decided') == 5 and 'nan' not in why
  assert ('by preference alone' in why) == (mine == PREFERENCE)
  assert f'the {mine} expert alone' in candidates_for(
      loaded, str(path), dataset.jobs[0].id, None, Asked())[0]
  out = tmp_path / 'out.jsonl'
  assert recommend_many(Request(str(run.folder), str(path), None), out) == 1
  (row,) = map(json.loads, out.read_text().splitlines())
  assert row['tau'] is None and row['eligibility'] is None and len(row['jobs']) == 5


@pytest.mark.slow
def test_what_has_no_meaning_is_refused_in_a_line(finished, tmp_path):
  run, mine, _ = finished
  (other,) = {PREFERENCE, QUALIFICATION} - {mine}
  loaded, candidate = jobrec_jax.load(run.folder), run.get(run.road.data).dataset.candidates[0]
  only = f'the {mine} expert alone was trained and no policy, for the log holds no '
  with pytest.raises(ValueError, match=rf'^tau must be left out, for {only}.*; got 0.3$'):
    loaded.recommend(candidate, 0.3)
  with pytest.raises(ValueError, match=r'^a requirement can be resolved of a policy alone, and'):
    loaded.recommender.resolve(candidate, 0.3)
  with pytest.raises(ValueError, match=rf"^by must be '{mine}', for {only}.*; got '{other}'$"):
    loaded.recommender.candidates_for(loaded.jobs[0].id, candidate, by=other)
  with pytest.raises(ValueError, match=r'^a frontier must have a policy, which stands on both '
                                       f'experts, got none: .*, so that no {other} expert is'):
    sweep_report(run)
