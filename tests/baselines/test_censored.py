"""Rivals that differ in what an unseen outcome is taken for, on a market whose doubt is known."""

import dataclasses
import runpy

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from jobrec_jax.baselines import rivals
from jobrec_jax.baselines.rivals import RIVALS, enter, make_rival
from jobrec_jax.censoring.estimators import ESTIMATORS, Estimator, imputed
from jobrec_jax.censoring.linear import Nuisances, Shown
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.evaluate.eligibility import calibration_error
from tests.test_docs import ROOT, files_to_write


@pytest.fixture(scope='module')
def market():
  """(data, truths): doubt keeps many away."""
  return simulate(MarketConfig(candidates=300, jobs=30, self_censoring=1.0, exposure=0.6), 0)


@pytest.fixture
def own():
  """What is entered here is forgotten."""
  tables = RIVALS, ESTIMATORS
  before = [dict(table) for table in tables]
  yield
  for table, old in zip(tables, before):
    table.clear()
    table.update(old)


def scores(dataset, name, perspective='qualification'):
  """[held-out candidates, jobs]."""
  train = dataset.interactions.of('train')
  held = np.setdiff1d(np.arange(len(dataset.candidates)), train.candidate)
  u, j = np.meshgrid(held, np.unique(train.job), indexing='ij')
  found = make_rival(name, dataset).fit(dataset, perspective).score(u.ravel(), j.ravel())
  return u, j, found.reshape(u.shape)


def judged(market, name, perspective='qualification'):
  """(mean rank correlation with the truth within a candidate, mean error of the probability)."""
  u, j, found = scores(market[0], name, perspective)
  true = getattr(market[1], perspective)[u, j]
  return (np.mean([spearmanr(a, b)[0] for a, b in zip(found, true)]),
          abs(expit(found) - true).mean())


def test_the_whole_funnel_tells_more_than_verdicts_and_more_than_applications(market):
  rank, error = judged(market, 'funnel likelihood')
  for name in ('applicants alone', 'DR'):
    assert rank > judged(market, name)[0] + 0.02, name
  assert error < judged(market, 'applicants alone')[1] - 0.01
  assert error < judged(market, 'unseen as negatives')[1] - 0.1
  rank, error = judged(market, 'funnel likelihood', 'preference')
  other = judged(market, 'logistic regression with words', 'preference')
  assert rank > other[0] and error < other[1] - 0.02


@pytest.mark.parametrize('name', ['unseen as negatives', 'DR-JL', 'ESMM'])
def test_nothing_but_train_and_validation_is_learnt_from(market, name):
  dataset = market[0]
  log = dataset.interactions
  test = log.split == 3
  turned = np.where(test & (log.qualification >= 0), 1 - log.qualification, log.qualification)
  other = dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, qualification=turned.astype(np.int8),
      preference=np.where(test, 1 - log.preference, log.preference).astype(np.int8)))
  assert (turned != log.qualification).any()
  np.testing.assert_array_equal(scores(dataset, name)[2], scores(other, name)[2])


@pytest.mark.parametrize('name', ['DR-JL', 'funnel likelihood'])
def test_without_labels_held_back_it_is_fitted_all_the_same(name):
  dataset, _ = simulate(MarketConfig(candidates=80, jobs=10), 0)
  none = dataclasses.replace(dataset, interactions=dataset.interactions.where(
      dataset.interactions.split != 1))
  assert np.isfinite(scores(none, name)[2]).all() and np.ptp(scores(none, name)[2]) > 0.1


def test_estimators_know_qualification_alone():
  for name in rivals.CENSORED:
    assert RIVALS[name].perspectives == ('qualification',)
  dataset, _ = simulate(MarketConfig(candidates=60, jobs=10), 0)
  assert RIVALS['DR'].can_learn(dataset, 'qualification')
  assert not RIVALS['DR'].can_learn(dataset, 'preference')
  one_class = dataclasses.replace(dataset, interactions=dataset.interactions.where(
      dataset.interactions.qualification != 0))
  with pytest.raises(ValueError, match='both classes are needed'):
    make_rival('DR', one_class).fit(one_class, 'qualification')


@pytest.mark.usefixtures('own')
def test_an_estimator_of_ones_own_is_a_rival_in_every_world(market, tmp_path):
  """The page's own file: what it says is run."""
  ((name, text),) = files_to_write(ROOT / 'docs/funnel.md')
  path = tmp_path / name.split('/')[-1]
  path.write_text(text)
  study = runpy.run_path(str(path))['get_study']()
  assert len(study.variants) == 12
  for variant in study.variants.values():
    assert {'capped DR', *rivals.CENSORED} <= set(variant.changes['evaluate.rivals'])
    rivals.check_names(variant.changes['evaluate.rivals'])
  assert judged(market, 'capped DR')[0] > 0.5
  with pytest.raises(ValueError, match=r"must be new, got 'capped DR', which is a rival"):
    enter('capped DR', Estimator(imputed, 'the same again', 'never'))


def test_propensities_are_calibrated_over_pairs_and_within_candidates():
  """By fifteen bins against the simulator's own chance of applying, on the default market."""
  dataset, truth = simulate(MarketConfig(), 0)
  rival = make_rival('DR', dataset)
  read = rival._read(dataset)
  width = rival._setting(read, 'qualification').width
  parts = [Shown(x[:, :width], log.candidate, log.qualification >= 0,
                 np.maximum(log.qualification, 0).astype(float)) for log, x in read]
  for (log, _), p in zip(read, Nuisances.fit(*parts).propensity):
    true = truth.application[log.candidate, log.job].astype(float)
    seen = np.unique(log.candidate, return_inverse=True)[1]
    own, others = (np.bincount(seen, x) / np.bincount(seen) for x in (p, true))
    for a, b in ((p, true), (own, others), (p - own[seen], true - others[seen])):
      assert 2 * calibration_error((1 + a) / 2, (1 + b) / 2) <= 0.03  # of what lies in [-1, 1]
