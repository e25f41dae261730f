"""What the log says of the policy: it is read pair by pair, and the policy can follow it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.data.dataset import SPLITS, Interactions
from jobrec_jax.data.lists import RankingLists, calibration_halves, candidates_of
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.evaluate.off_policy import LoggedLists
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.pipeline import logged as stage
from jobrec_jax.pipeline.logged import Logged, look_up
from jobrec_jax.pipeline.measures.logged import propensity_measures
from jobrec_jax.pipeline.measures.subject import groups_of
from jobrec_jax.pipeline.policy import estimated
from jobrec_jax.pipeline.run import Run
from jobrec_jax.report.findings import LOGGED
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import PairScores
from jobrec_jax.scoring.policy import Policy, Tilts
from tests.pipeline.tiny import tiny_settings


@pytest.fixture(scope='module')
def kept(tiny_folder):
  run = Run(tiny_folder, tiny_settings())
  dataset, truth = run.get(run.road.data)
  found = run.get(next(s for s in run.road.evaluation.walk() if s.name == 'logged'))
  return SimpleNamespace(run=run, dataset=dataset, truth=truth, logged=found,
                         rows=run.get(run.road.evaluation).rows)


@pytest.mark.slow
@pytest.mark.parametrize('population', ['fitted', 'test'])
def test_every_pair_is_as_the_log_has_it(kept, population):
  log, found = kept.dataset.interactions, getattr(kept.logged, population)
  half, _ = calibration_halves(kept.dataset)
  people = {'test': set(candidates_of(kept.dataset, 'test')),
            'fitted': {*candidates_of(kept.dataset, 'validation'), *half}}[population]
  people -= {*candidates_of(kept.dataset, 'train')}  # some of whose jobs are no news
  assert set(found.lists.candidate[:, 0].tolist()) == {int(u) for u in people}
  rows = {(int(u), int(j)): i for i, (u, j) in enumerate(zip(log.candidate, log.job))}
  seen = 0
  for u, j, applied, exposure, label in zip(*(x.ravel() for x in (
      found.lists.candidate, found.lists.job, found.lists.relevance, found.exposure,
      found.label))):
    i = rows.get((int(u), int(j)))
    if i is None:
      assert np.isnan(exposure) and not applied and label == -1
      continue
    assert exposure == pytest.approx(float(log.exposure[i]))
    assert applied == (log.preference[i] == 1)
    assert label == (log.qualification[i] if applied else -1)
    seen += label >= 0
  assert seen > 10


@pytest.mark.slow
def test_the_measured_eligibility_is_that_of_the_lists_one_by_one(kept):
  found, policy = kept.logged.test, kept.run.get(kept.run.road.policy).policy
  scores = kept.run.get(next(s for s in kept.run.road.dial.walk() if s.name == 'scores'))
  lam = scores.lam_of(found.lists)
  tau = max(r.tau for r in kept.rows if r.split == LOGGED and r.tau)
  s, _ = policy.at(lam, found.preference, found.z_qual, tau)
  by_list = {'predicted C': [], 'estimated C': [], 'true C': []}
  for n in range(len(s)):
    weights = np.exp((s[n].astype(float) - s[n].max()) / policy.temperature)
    pi = weights / weights.sum()
    q = 1 / (1 + np.exp(-found.z_qual[n].astype(float)))
    t = [b + (y - b) / max(a * e, 0.01) if y >= 0 else b for b, y, a, e in zip(
        q, found.label[n], found.applies[n].astype(float), found.exposure[n].astype(float))]
    u, j = found.lists.candidate[n], found.lists.job[n]
    for name, values in zip(by_list, (q, t, kept.truth.qualification[u, j])):
      by_list[name].append(float(pi @ values))
  for name, values in by_list.items():
    row = next(r for r in kept.rows if (r.split, r.tau, r.metric) == (LOGGED, tau, name))
    assert row.value == pytest.approx(np.mean(values), abs=1e-5)
    assert row.low < row.value < row.high and row.n == len(s)


def lists_of(n, items):
  candidate, job = np.indices((n, items)).astype(np.int32)
  return RankingLists('preference', candidate, job, np.zeros((n, items), bool),
                      np.ones((n, items), bool))


def log_of(n=400, items=15, too_sure=0.0, seed=0):
  """Who is shown a job applies; the logit of eligibility is believed too high by so much."""
  rng = np.random.default_rng(seed)
  z, preference = rng.normal(0, 1.5, (2, n, items))
  shown = rng.random((n, items)) < 0.8
  label = np.where(shown, rng.random((n, items)) < expit(z), -1).astype(np.int8)
  lists = lists_of(n, items)
  found = LoggedLists(dataclasses.replace(lists, relevance=shown), preference, z + too_sure,
                      np.ones((n, items)), np.where(shown, 0.8, np.nan), label)
  return found, expit(z)


@pytest.mark.parametrize('top_k', [0, 3])
def test_a_policy_of_estimates_is_as_eligible_in_truth_as_it_says(top_k):
  log, _ = log_of(too_sure=1.2)
  fresh, truth = log_of(n=2000, too_sure=1.2, seed=1)
  mu = np.array([0.0, 1.0, 3.0, 8.0])
  head, params = PolicyHead(widths=(2,), outputs=4, kind='off'), {}

  def reached(of, q):
    policy = Policy(head, params, np.arange(1, 5) / 5, 1.0, top_k=top_k)
    return np.array([policy.eligibility(of.preference + m * of.believed, q,
                                        of.lists.mask).mean() for m in mu])
  believed = reached(log, log.believed)
  policy = Policy(head, params, believed, 1.0, tilts=Tilts(believed, mu), top_k=top_k)
  moved = estimated(policy, Logged(log, None))
  np.testing.assert_array_equal(moved.mu, mu)
  true = reached(fresh, truth)
  assert (believed - true > 0.1).all()
  np.testing.assert_allclose(moved.taus, true, atol=0.03)


def test_a_log_that_tells_nothing_cannot_drive_a_policy():
  policy = Policy(PolicyHead(widths=(2,), outputs=2, kind='off'), {}, np.array([0.4, 0.6]), 1.0)
  with pytest.raises(ValueError, match=r"policy\.eligibility must be .believed. where the log"):
    estimated(policy, Logged(None, None))


class Scorer:
  """Of two candidates and four jobs."""

  def scores(self, candidate, job):
    return PairScores(candidate + job / 10.0, candidate - job / 10.0)


def log_without_exposures():
  """Candidate 1, held out: of four jobs two were shown, one applied to."""
  test = SPLITS.index('test')
  columns = ([1, 1], [0, 2], [1, 0], [1, -1], [test, test], [1.0, 1.0])
  kinds = (np.int32, np.int32, np.int8, np.int8, np.int8, np.float32)
  return SimpleNamespace(interactions=Interactions(*map(np.array, columns, kinds)))


def test_a_log_that_names_no_exposure_is_taken_for_a_random_part():
  lists = dataclasses.replace(lists_of(1, 4), candidate=np.ones((1, 4), np.int32))
  found = look_up(Scorer(), log_without_exposures(), lists, Calibration(0.5, 2.0), 0.0,
                  Calibration(0.0, 1.0))
  np.testing.assert_allclose(found.exposure, [[0.5, np.nan, 0.5, np.nan]])
  assert found.label.tolist() == [[1, -1, -1, -1]]
  np.testing.assert_allclose(found.z_qual, (np.array([[1, 0.9, 0.8, 0.7]]) - 0.5) / 2, rtol=1e-6)
  np.testing.assert_allclose(found.applies, expit(np.array([[1, 1.1, 1.2, 1.3]])), rtol=1e-6)


def test_nothing_is_told_where_no_outcome_is_of_a_job_that_training_knows(tmp_path, monkeypatch):
  """As where whole evenings are held out, with everybody who was there."""
  train, validation, test = map(SPLITS.index, ('train', 'validation', 'test'))
  columns = ([0, 0, 1, 2, 3, 4], [0, 1, 0, 1, 2, 3], [1, 0, 1, 0, 1, 1], [1, -1, 0, -1, 1, 0],
             [train, train, validation, validation, test, test], [1.0] * 6)
  kinds = (np.int32, np.int32, np.int8, np.int8, np.int8, np.float32)
  dataset = dataclasses.replace(simulate(MarketConfig(candidates=20, jobs=10), 0)[0],
                                interactions=Interactions(*map(np.array, columns, kinds)))
  monkeypatch.setattr(stage, 'scorer', lambda *_: Scorer())
  bench = SimpleNamespace(folder=tmp_path, settings={'seed': 0, 'list_length': 2}, inputs={
      'data': SimpleNamespace(dataset=dataset), 'experts': None,
      'calibration': SimpleNamespace(calibration=Calibration(0.0, 1.0))})
  stage.make_logged(bench)
  found = stage.read_logged(bench)
  assert found.test is None and found.fitted.lists.candidate[:, 0].tolist() == [1, 2]
  assert found.fitted.label.tolist() == [[0, -1], [-1, -1]]


@pytest.mark.slow
def test_the_chance_to_apply_is_judged_by_the_truth(kept):
  of = SimpleNamespace(truth=kept.truth, groups=groups_of(kept.dataset))
  rows = {r.metric: r.estimate.value for r in propensity_measures(of, kept.logged.test)}
  log = kept.logged.test
  perfect = log._replace(applies=kept.truth.application[log.lists.candidate,
                                                      log.lists.job])
  best = {r.metric: r.estimate.value for r in propensity_measures(of, perfect)}
  for name in ('calibration error', 'calibration error by candidate'):
    assert best[name] == pytest.approx(0, abs=1e-6) and rows[name] > 0.01
  assert 0 < rows['effective share of the outcomes seen'] <= 1
