"""Data smaller than the defaults: sizes follow them, and nothing has to be set."""

import dataclasses
import logging

import numpy as np
import pytest

from jobrec_jax.data.files.jsonl import write_jsonl
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline.data import Data, check_sizes, no_propensity
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import build
from tests.pipeline.tiny import CHANGES

MARKET = MarketConfig(candidates=40, jobs=15)
# Of the model and of how long it learns; every size of lists is the default's.
QUICK = {'tokenizer': {'vocab_size': 400}, 'model': CHANGES['model'],
         'warm_up': {'steps': 24, 'warmup': 2}, 'cooperative': {'steps': 24, 'warmup': 2},
         'policy': {'epochs': 4, 'width': 8, 'knots': 4, 'grid': 3}, 'certify': {'points': 4}}


def dataset_and_log(**changes):
  """The small market, its log without the rows that `drop` says: (dataset, truth, log) -> keep."""
  dataset, truth = simulate(MARKET, 0)
  log = dataset.interactions
  kept = changes.pop('keep', lambda log: np.ones(len(log), bool))(log)
  fields = {name: getattr(log, name) for name in ('preference', 'qualification')}
  log = dataclasses.replace(log, **{k: f(log) for k, f in changes.items()} | {
      k: x for k, x in fields.items() if k not in changes}).where(kept)
  return Data(dataclasses.replace(dataset, interactions=log), truth)


def told(caplog, settings, data):
  caplog.clear()
  with caplog.at_level(logging.INFO, 'absl'):
    check_sizes(settings, data)
  return dict(r.getMessage().split(': ', 1) for r in caplog.records)


def test_what_is_smaller_than_asked_for_is_told_once_each(caplog):
  said = told(caplog, Settings(), Data(*simulate(MARKET, 0)))
  assert said['policy.list_length'] == '50 asked, 12 jobs that training sees: 12'
  assert set(said) >= {'policy.list_length', 'policy.lists', 'policy.held_out'}
  assert not told(caplog, Settings(), Data(*simulate(MarketConfig(), 0)))


def test_the_notes_are_what_stages_make_of_the_settings(caplog):
  from jobrec_jax.data.lists import policy_lists
  from jobrec_jax.data.training_lists import LabelledLists
  data = Data(*simulate(MARKET, 0))
  settings = build(Settings, {'lists': {'preference_negatives': 60, 'qualification_negatives': 60},
                              'policy': {'list_length': 13, 'batch': 300}, 'certify': {'k': 13}})
  said = {k: int(v.rsplit(': ', 1)[1]) for k, v in told(caplog, settings, data).items()}
  train = data.dataset.interactions.of('train')
  for perspective, centre in (('preference', 'candidate'), ('qualification', 'job')):
    assert said[f'lists.{perspective}_negatives'] == LabelledLists(
        train, perspective, centre, 60).negatives
  assert said['policy.lists'] == said['policy.batch'] == len(
      policy_lists(data.dataset, 'train', 13, 300, 0))
  assert said['policy.held_out'] == len(policy_lists(data.dataset, 'cold_candidates', 13, 150, 0))
  assert said['policy.list_length'] == said['certify.k'] == 12


@pytest.mark.parametrize('changes, message', [
    ({'preference': lambda log: np.where(log.split == 0, 0, log.preference)},
     'the train split must hold applications, got none'),
    ({'qualification': lambda log: np.where((log.split == 0) & (log.qualification == 1), 0,
                                            log.qualification)},
     'the train split must hold accepted applicants, got none'),
    ({'qualification': lambda log: np.where((log.split == 0) & (log.qualification == 0), 1,
                                            log.qualification)},
     'the train split must hold rejected applicants, got none'),
    ({'keep': lambda log: log.split != 3},
     r'the test split must hold candidates who applied to some of its 0 jobs and not to all, got '
     r'none of 0 candidates')])
def test_only_what_cannot_work_is_refused(changes, message):
  changes = {k: (lambda log, f=f: f(log).astype(np.int8)) if k != 'keep' else f
             for k, f in changes.items()}
  with pytest.raises(ValueError, match=f'^{message}'):
    check_sizes(Settings(), dataset_and_log(**changes))


def test_what_can_be_done_without_is_told(caplog):
  data = dataset_and_log(keep=lambda log: log.preference != 0)
  said = told(caplog, Settings(), data)
  assert said['lists.preference_policy'] == (
      'exposed asked, nothing was shown and not applied to: uniform')
  assert said['experts.censoring'] == 'ips asked, nothing was shown and not applied to: none'
  nobody = dataset_and_log(keep=lambda log: log.split != 1)
  assert told(caplog, Settings(), nobody)['experts.censoring'] == (
      'ips asked, nobody was shown anything in the validation split: none')
  assert no_propensity(dataset_and_log().dataset) == ''
  told(caplog, Settings(), dataset_and_log(keep=lambda log: log.split != 2))  # no calibration


@pytest.mark.slow
@pytest.mark.parametrize('source', ['simulated', 'jsonl'])
def test_fifteen_jobs_and_forty_people_need_no_flag(source, tmp_path, caplog):
  changes = {'market': {'candidates': 40, 'jobs': 15}}
  if source == 'jsonl':
    write_jsonl(simulate(MARKET, 0)[0], tmp_path / 'data')
    changes = {'data': {'source': 'jsonl', 'folder': str(tmp_path / 'data')}}
  run = Run(tmp_path / 'run', build(Settings, QUICK | changes))
  with caplog.at_level(logging.INFO, 'absl'):
    results = run.report()
  notes = [r.getMessage() for r in caplog.records if ' asked, ' in r.getMessage()]
  assert len(notes) == len(set(notes)) >= 3  # once each, though stages come in several calls
  assert any(r.getMessage().startswith('calibration: of ') for r in caplog.records)
  assert {r.metric for r in results.rows} >= {'ndcg@5', 'predicted C'}
  assert all(np.isfinite(r.value) for r in results.rows if r.metric == 'predicted C')
  inputs = run.get(run.road.inputs)
  assert inputs.mask.shape[1] <= 12 and not inputs.mask.all()
  found = run.get(run.road.lists).held_out
  assert found.mask.shape[1] <= 12 and (found.relevance.sum(1) == 1).all()
  assert (run / 'report.html').is_file() and run.get(run.road.certified) is not None
