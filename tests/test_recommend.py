"""The library's front door: rankings follow their formulas, catalogues are read once."""

import dataclasses
import logging
from pathlib import Path
import re
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.data import shorten
from jobrec_jax.data.tokens import BlockFormat
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.pipeline.ranking_table import ranking_table
from jobrec_jax.recommend import Recommender
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.scoring.policy import Policy

LENGTHS = BlockFormat(40, 24, 16)
CALIBRATION = Calibration(0.1, 0.5)
TEXT = np.zeros((1, 4), np.int32)
# Whatever a user of the front door may not need.
HEAVY = ('optax', 'orbax', 'grain', 'transformers', 'tensorflow', 'matplotlib', 'sklearn', 'qwix')


@pytest.fixture(scope='module')
def params(model):
  return jax.device_get(nn.unbox(
      model.init(jax.random.key(0), TEXT, TEXT[:, None], TEXT[:, None])['params']))


@pytest.fixture(scope='module')
def make(dataset, model, params, tokenizer, one_device):
  """lam -> a recommender over the whole catalogue, whose policy has that constant lambda."""
  def recommender(lam=(0.0, 1.0, 3.0), temperature=1.0, jobs=None, lengths=LENGTHS, model=model):
    head = PolicyHead(widths=(8,), outputs=3)
    head_params = head.init(jax.random.key(1), *np.zeros((2, 1, 16), np.float32))['params']
    head_params['lambda']['bias'] = np.broadcast_to(np.float32(lam), 3).copy()
    policy = Policy(head, head_params, np.array([0.4, 0.5, 0.6], np.float32), temperature)
    experts = Experts(model, params, tokenizer, lengths)
    return Recommender(STUDENTS, experts, CALIBRATION, policy,
                       dataset.jobs if jobs is None else jobs, one_device, ScoringConfig(8, 2))
  return recommender


@pytest.fixture(scope='module')
def candidate(dataset):
  return dataset.candidates[0]


@pytest.mark.parametrize('T', [0.5, 1.0, 2.0])
def test_scores_and_eligibility_follow_their_formulas(make, dataset, candidate, T):
  (result,) = make(2.0, T).recommend(candidate, 0.5, 20)
  s, pref, p, lam = np.array([[j.score, j.preference, j.qualification, j.lam]
                              for j in result.jobs]).T
  assert {j.job_id for j in result.jobs} == {j.id for j in dataset.jobs}
  assert (np.diff(s) <= 0).all() and (lam == 2).all()
  np.testing.assert_allclose(s, pref + lam * np.log(p / (1 - p)), atol=1e-4)
  pi = np.exp((s - s.max()) / T)
  np.testing.assert_allclose(result.eligibility, (pi * p).sum() / pi.sum(), atol=1e-5)


def test_where_tau_binds_the_best_few_the_eligibility_told_is_theirs(make, candidate):
  recommender = make(2.0)
  recommender = dataclasses.replace(
      recommender, policy=dataclasses.replace(recommender.policy, top_k=3))
  (result,) = recommender.recommend(candidate, 0.5, 20)
  assert result.eligibility == pytest.approx(
      np.mean([j.qualification for j in result.jobs[:3]]), abs=1e-6)


@pytest.mark.parametrize('tau, words', [
    (0.0, '(no requirement)'), (0.3, '(asked for 0.3, but below 0.4 nothing is required)'),
    (0.4, '(asked for 0.4)'), (0.55, '(asked for 0.55)')])
def test_a_table_says_what_of_tau_was_heeded(make, candidate, tau, words):
  recommender = make()
  (ranked,) = recommender.recommend(candidate, tau, 1)
  assert ranking_table(ranked, tau, recommender.policy).endswith(words)


def test_the_temperature_has_a_say_in_eligibility(make, candidate):
  cold, hot = (make(5.0, T).recommend(candidate, 0.5)[0] for T in (0.2, 20.0))
  assert [j.job_id for j in cold.jobs] == [j.job_id for j in hot.jobs]
  assert cold.eligibility > hot.eligibility + 0.001


def test_lambda_moves_the_ranking_from_preference_to_qualification(make, candidate):
  (free,), (strict,) = (make(lam).recommend(candidate, 0.5) for lam in (0.0, 5.0))
  assert [j.score for j in free.jobs] == [j.preference for j in free.jobs]
  assert strict.eligibility > free.eligibility


@pytest.mark.parametrize('tau, lam', [(0.0, 0.0), (0.4, 0.0), (0.45, 0.5), (0.5, 1.0), (0.55, 2.0)])
def test_every_requirement_has_its_lambda(make, candidate, tau, lam):
  (result,) = make().recommend(candidate, tau, 3)
  np.testing.assert_allclose([j.lam for j in result.jobs], lam, atol=1e-5)


def test_a_jobs_scores_do_not_depend_on_its_catalogue(make, dataset, candidate):
  recommender = make(1.0)
  whole = {j.job_id: j for j in recommender.recommend(candidate, 0.5, 20)[0].jobs}
  (some,) = recommender.recommend(candidate, 0.5, 20, dataset.jobs[4:7])
  assert {j.job_id for j in some.jobs} == {j.id for j in dataset.jobs[4:7]}
  for job in some.jobs:
    np.testing.assert_allclose(job.score, whole[job.job_id].score, atol=1e-5)


@pytest.mark.parametrize('attention', ['exact', 'factored'])
def test_many_candidates_equal_one_by_one(make, model, dataset, attention, monkeypatch):
  """Also where they are scored in several parts."""
  more = {'job_start': 40, 'pair_start': 64} if attention == 'factored' else {}
  config = dataclasses.replace(model.config, attention=attention, **more)
  recommender = make(model=JobRec(config))
  monkeypatch.setattr('jobrec_jax.recommend._PAIRS', 3 * len(dataset.jobs))
  many = recommender.recommend(dataset.candidates[:7], 0.55, 4)
  assert len(many) == 7
  for candidate, together in zip(dataset.candidates, many):
    (alone,) = recommender.recommend(candidate, 0.55, 4)
    assert [j.job_id for j in together.jobs] == [j.job_id for j in alone.jobs]
    assert [j.reasons for j in together.jobs] == [j.reasons for j in alone.jobs]
    np.testing.assert_allclose(together.eligibility, alone.eligibility, atol=1e-5)
    np.testing.assert_allclose([j.score for j in together.jobs], [j.score for j in alone.jobs],
                               atol=1e-5)


def test_scores_serve_every_requirement(make, dataset):
  recommender = make()
  found = recommender.score(dataset.candidates[:3])
  assert found.s_pref.shape == found.p_qual.shape == (3, 20) and found.lam.shape == (3, 20, 3)
  np.testing.assert_allclose(found.p_qual, 1 / (1 + np.exp(-found.z_qual)), atol=1e-6)
  taus = np.array([0.3, 0.45, 0.6])
  scores, lam = recommender.policy.at(found.lam, found.s_pref, found.z_qual, taus)
  assert scores.shape == lam.shape == (3, 3, 20)
  for t, tau in enumerate(taus):
    for u, result in enumerate(recommender.recommend(dataset.candidates[:3], float(tau), 20)):
      np.testing.assert_allclose([j.score for j in result.jobs], np.sort(scores[t, u])[::-1],
                                 atol=1e-5)


def test_a_catalogue_is_read_once(make, dataset, monkeypatch):
  rendered = []

  def counting(schema, side, entity, layout):
    rendered.append(side)
    return render(schema, side, entity, layout)
  render = shorten.render_entity
  monkeypatch.setattr(shorten, 'render_entity', counting)
  recommender = make(lengths=BlockFormat(500, 300, 16))  # what is cut is rendered again
  for jobs in (None, list(dataset.jobs[:5])):
    rendered.clear()
    recommender.recommend(dataset.candidates[:2], 0.5, jobs=jobs)
    assert rendered.count('job') == (20 if jobs is None else 5)
  rendered.clear()
  for u in range(2, 5):
    recommender.recommend(dataset.candidates[u], 0.5)
    recommender.recommend(dataset.candidates[u], 0.5, jobs=list(dataset.jobs[:5]))  # another list
  assert rendered == ['candidate'] * 6


def test_a_catalogue_that_changed_is_read_again(make, dataset, candidate):
  recommender = make()
  jobs = [Entity(j.id, dict(j.attributes)) for j in dataset.jobs[:3]]
  before = recommender.recommend(candidate, 0.5, jobs=jobs)
  jobs[0].attributes['industry'] = 'CV'
  jobs[1] = Entity('new', dict(dataset.jobs[3].attributes))
  after = recommender.recommend(candidate, 0.5, jobs=jobs)
  assert {j.job_id for j in after[0].jobs} == {jobs[0].id, 'new', jobs[2].id}
  assert before != after == make().recommend(candidate, 0.5, jobs=jobs)


def test_catalogues_are_not_remembered_without_end(make, dataset, candidate):
  recommender = make()
  for n in range(1, 9):
    recommender.recommend(candidate, 0.5, jobs=dataset.jobs[:n])
  recommender.recommend(candidate, 0.5)
  assert len(recommender._catalogues) <= 5


def test_a_warm_call_compiles_nothing(make, dataset, caplog):
  recommender = make()
  recommender.recommend(dataset.candidates[0], 0.5)
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    recommender.recommend(dataset.candidates[1], 0.45, 3)
  assert not [r for r in caplog.records if 'Compiling' in r.getMessage()]


def test_reasons_are_grouped_by_layer(make):
  job = Entity('X', {'min_gpa': 3.8, 'min_months_experience': 10, 'industry': 'CV'})
  candidate = Entity('Y', {'gpa': 3.4, 'months_experience': 14, 'interests': ('CV',)})
  (only,) = make().recommend(candidate, 0.5, jobs=[job])[0].jobs
  assert set(only.reasons) == {'eligibility', 'competence', 'logistics', 'interest'}
  assert {'gpa unmet by 0.4', 'months met by 4 months', 'level unknown'} <= set(
      only.reasons['eligibility'])
  assert only.reasons['interest'] == ['industry met']


@pytest.mark.parametrize('change, message', [
    ({'jobs': []}, 'at least one job'), ({'top_k': 0}, 'top_k must be an integer of at least 1'),
    ({'top_k': 2.5}, 'top_k must be an integer of at least 1, got 2.5'),
    ({'candidates': []}, 'at least one candidate, got none'),
    ({'candidates': [Entity('Y', {'gpa': 9.0})]}, r"candidate 'Y': gpa must lie in \[0, 4\]"),
    ({'jobs': [Entity('X', {'min_gpa': 9.0})]}, r"job 'X': min_gpa must lie in \[0, 4\]"),
    ({'tau': 0.7}, r'\[0.4, 0.6\], or below it to ask for nothing; got 0.7'),
    ({'tau': float('nan')}, r'tau must lie in .*; got nan'),
    ({'tau': np.array([0.4, 0.5])}, 'tau must be one number')])
def test_bad_input_is_named(make, candidate, change, message):
  with pytest.raises(ValueError, match=message):
    make().recommend(**{'candidates': candidate, 'tau': 0.5} | change)


def test_scores_that_are_not_numbers_are_no_ranking(make, params, candidate):
  recommender = make()
  heads = jax.tree.map(lambda x: x * np.nan, params['preference'])
  experts = dataclasses.replace(recommender.experts, params=params | {'preference': heads})
  with pytest.raises(ValueError, match=r'scores must be finite, got .*nan'):
    dataclasses.replace(recommender, experts=experts).recommend(candidate, 0.5)


def test_what_is_too_long_is_named(make, dataset, candidate):
  """With its fields and tokens; of the candidates that are asked for and of the catalogue."""
  recommender = make(lengths=BlockFormat(10, 24, 200))
  (said,) = recommender.recommend(candidate, 0.0, jobs=dataset.jobs[:3])
  assert set(said.unread) == {'candidate', 'job'}
  assert re.fullmatch(r'.*proj_1.* of 1 of 1 candidates \(\d+ tokens beyond 10, the longest has '
                      r'\d+\)', said.unread['candidate'])
  assert ' of 3 of 3 jobs (' in said.unread['job']
  two = recommender.recommend(dataset.candidates[:2], 0.0)
  assert ' of 2 of 2 candidates (' in two[0].unread['candidate'] and two[1].unread == two[0].unread
  (ranked, *_) = recommender.candidates_for(dataset.jobs[0].id, dataset.candidates[:3])
  assert ' of 3 of 3 candidates (' in ranked.unread['candidate']
  assert make(lengths=BlockFormat(500, 300, 200)).recommend(candidate, 0.0)[0].unread == {}


def test_the_import_brings_nothing_that_training_alone_needs():
  code = f'import sys, jobrec_jax.recommend; print([m for m in {HEAVY} if m in sys.modules])'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True,
                        cwd=Path(__file__).parents[1])
  assert done.stdout.strip() == '[]'
