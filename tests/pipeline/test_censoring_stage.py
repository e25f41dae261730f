"""Weights of applicants, the doubt that keeps others away, and the scale of p_qual, by the log."""

import dataclasses
import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline import calibration, censoring
from jobrec_jax.pipeline.censoring import Censoring
from jobrec_jax.pipeline.data import Data
from jobrec_jax.scoring.calibration import fit_calibration, fit_offsets
from jobrec_jax.scoring.experts import PairScores


class FakeScorer:
  """Logits that follow the truth, somewhat off, so that a scale has something to do."""

  def __init__(self, truth):
    self.logits = [(1.5 * logit(x.astype(np.float64)) + 0.4).astype(np.float32)
                   for x in (truth.preference, truth.qualification)]

  def scores(self, candidate, job):
    return PairScores(*(x[candidate, job] for x in self.logits))


def inverse(scorer, log, rows, clip, exposure):
  """Weights by the definition: the chance of being shown, times that of applying then."""
  fit = np.flatnonzero((log.split == 1) & (log.preference >= 0))

  def s_pref(at):
    return scorer.scores(log.candidate[at], log.job[at]).preference
  scale = fit_calibration(s_pref(fit), log.preference[fit], 1 / exposure[fit])
  p = 1 / (1 + np.exp(-(s_pref(rows) - scale.b) / scale.t))
  raw = 1 / (np.maximum(p, 0.01) * exposure[rows])
  weights = np.minimum(raw / raw.mean(), clip)
  return weights / weights.mean()


def test_weights_undo_both_exposure_and_application(monkeypatch, tmp_path):
  """Where exposure varies: under a uniform logging policy no mean would show it."""
  dataset, truth = simulate(MarketConfig(candidates=150, jobs=20, logging='recommender',
                                         recommender_quality=0.9, exposure=0.4), 0)
  log, scorer, clip = dataset.interactions, FakeScorer(truth), 2.5
  monkeypatch.setattr(censoring, 'scorer', lambda *_: scorer)
  monkeypatch.setattr(calibration, 'scorer', lambda *_: scorer)
  bench = SimpleNamespace(folder=tmp_path, settings={
      'censoring': 'ips', 'ips_clip': clip, 'self_censoring': 'none', 'calibration': 'applicants'},
                          inputs={'data': Data(dataset, truth), 'warm_up': None, 'experts': None})
  censoring.make_censoring(bench)
  found = censoring.read_censoring(bench)
  assert found.doubt == 0 and len(found.weights) == len(log)
  flat, rows = np.ones(len(log)), np.flatnonzero((log.split == 0) & (log.qualification >= 0))
  np.testing.assert_allclose(found.weights[rows], inverse(scorer, log, rows, clip, log.exposure),
                             rtol=1e-4)
  np.testing.assert_array_equal(found.of_train(dataset), found.weights[log.split == 0])
  for change in (inverse(scorer, log, rows, clip, flat), inverse(scorer, log, rows, 99, flat)):
    assert abs(found.weights[rows] - change).max() > 0.1
  assert (np.delete(found.weights, rows) == 0).all()

  calibration.make_calibration(bench)
  fitted, offsets = calibration.read_calibration(bench)
  half = np.unique(log.candidate[log.split == 2])[::2]
  fresh = (log.split == 1) | (log.split == 2) & np.isin(log.candidate, half)
  rows = np.flatnonzero(fresh & (log.qualification >= 0))
  scores, labels = scorer.scores(log.candidate[rows], log.job[rows]).qualification, (
      log.qualification[rows])
  assert fitted == pytest.approx(fit_calibration(scores, labels, np.ones(len(rows))), rel=1e-3)
  np.testing.assert_allclose(offsets, fit_offsets(fitted.logit(scores), labels, np.ones(len(rows)),
                                                  log.job[rows], 20), atol=1e-3)

  monkeypatch.setitem(bench.settings, 'calibration', 'none')  # p_qual is that of the raw logit
  calibration.make_calibration(bench)
  (b, t), offsets = calibration.read_calibration(bench)
  assert (b, t) == (0, 1) and offsets.tolist() == [0] * 20


def test_weights_that_rest_on_a_few_applicants_are_told(monkeypatch, tmp_path, caplog):
  assert censoring.effective_share(np.array([2.0, 2.0, 2.0])) == 1
  assert censoring.effective_share(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25
  assert censoring.effective_share(np.zeros(0)) == 1
  dataset, truth = simulate(MarketConfig(candidates=60, jobs=20), 0)
  log = dataset.interactions
  rows = np.flatnonzero((log.split == 0) & (log.qualification >= 0))
  monkeypatch.setattr(censoring, 'scorer', lambda *_: None)
  bench = SimpleNamespace(folder=tmp_path, inputs={'data': Data(dataset, truth), 'warm_up': None},
                          settings={'censoring': 'ips', 'ips_clip': 1e9, 'self_censoring': 'none'})
  for first, few in ((1.0, False), (1e6, True)):
    weights = np.zeros(len(log))
    weights[rows] = 1.0
    weights[rows[0]] = first
    monkeypatch.setattr(censoring, 'applicant_weights', lambda *_, w=weights: w)
    caplog.clear()
    censoring.make_censoring(bench)
    assert (f'{len(rows)} applicants count as 1 that' in caplog.text) is few


def self_censored(doubt, candidates=500):
  """A market's log in which candidates who may not be eligible dare to apply less."""
  dataset, truth = simulate(MarketConfig(candidates=candidates, jobs=30), 0)
  log, rng = dataset.interactions, np.random.default_rng(4)
  P, Q, eligible = (x[log.candidate, log.job] for x in (
      truth.preference, truth.qualification, truth.eligible))
  shown = log.preference >= 0
  applied = rng.random(len(log)) < P * (1 - doubt * (1 - Q))
  return dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, preference=np.where(shown, applied, -1).astype(np.int8),
      qualification=np.where(shown & applied, eligible, -1).astype(np.int8)))


def test_the_doubt_is_found_by_what_speaks_to_qualification_alone(tmp_path, caplog):
  found = {doubt: censoring.self_censoring(self_censored(doubt)) for doubt in (0.0, 0.6)}
  assert found[0.0] < 0.15 and abs(found[0.6] - 0.6) < 0.15
  bench = SimpleNamespace(folder=tmp_path, inputs={'data': Data(self_censored(0.6), None),
                                                   'warm_up': None},
                          settings={'censoring': 'none', 'self_censoring': 'estimated'})
  with caplog.at_level(logging.INFO, 'absl'):
    censoring.make_censoring(bench)
  assert censoring.read_censoring(bench) == Censoring(None, found[0.6])
  assert f'is sure not to be eligible applies to 1 - {found[0.6]:.2f} of the jobs' in caplog.text
  assert [p.name for p in tmp_path.iterdir()] == ['summary.json']


@pytest.mark.parametrize('case', ['no exclusion', 'all applied', 'nobody rejected'])
def test_there_is_no_doubt_where_nothing_tells_of_it(case):
  dataset = self_censored(0.6, 80)
  log = dataset.interactions
  if case == 'no exclusion':
    mixed = [dataclasses.replace(layer, fields=tuple(
        dataclasses.replace(f, perspective='both') for f in layer.fields))
             for layer in dataset.schema.layers]
    dataset = dataclasses.replace(dataset, schema=dataclasses.replace(
        dataset.schema, layers=tuple(mixed)))
  else:
    keep = log.preference == 1 if case == 'all applied' else log.qualification != 0
    dataset = dataclasses.replace(dataset, interactions=log.where(keep))
  assert censoring.self_censoring(dataset) == 0.0


class Flat(FakeScorer):
  """Logits that are all alike."""

  def __init__(self, truth):
    self.logits = [np.full(truth.preference.shape, 0.5, np.float32)] * 2


@pytest.mark.parametrize('scorer, keep, said', [
    (FakeScorer, lambda log: (log.qualification == 1) | (log.split == 0),
     r'calibration: of \d+ applicants \d+ positives and 0 negatives are few; it leans on the prior '
     r'b=0, t=1'),
    (Flat, lambda log: log.split < 9, r'calibration: of \d+ applicants all scores are alike; it '),
    (FakeScorer, lambda log: (log.split == 0) | (log.split == 3),
     r'calibration: no labelled applicant in the validation split, nor of 0 candidates in half of '
     r'the calibration split; p_qual = sigmoid\(s_qual\), b=0, t=1')])
def test_no_calibration_is_refused_after_training(scorer, keep, said, monkeypatch, tmp_path,
                                                  caplog):
  dataset, truth = simulate(MarketConfig(candidates=300, jobs=20), 0)
  log = dataset.interactions
  dataset = dataclasses.replace(dataset, interactions=log.where(keep(log)))
  monkeypatch.setattr(calibration, 'scorer', lambda *_: scorer(truth))
  bench = SimpleNamespace(folder=tmp_path, settings={
      'calibration': 'applicants'},
                          inputs={'data': Data(dataset, truth), 'experts': None})
  calibration.make_calibration(bench)
  (b, t), offsets = calibration.read_calibration(bench)
  assert np.isfinite([b, t, *offsets]).all() and t > 0
  assert [r.levelname for r in caplog.records if re.match(said, r.getMessage())] == ['WARNING']
