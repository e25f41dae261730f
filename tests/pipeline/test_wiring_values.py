"""More numbers of the tiny run again: offsets, reach, certificates, the proof, intervals, sweep."""

import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jobrec_jax.data.lists import calibration_halves, uniform_lists
from jobrec_jax.data.market.simulator import make_market, newcomers
from jobrec_jax.pipeline import sweep
from jobrec_jax.pipeline.measures.pairs import calibration_measures
from jobrec_jax.pipeline.measures.subject import QUALIFICATION, UNIFORM, Subject, groups_of
from jobrec_jax.pipeline.road import proof_stage, sweep_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.scores import HELD_OUT
from jobrec_jax.schema import streams
from jobrec_jax.scoring.calibration import Calibration, fit_offsets
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.sharding import make_mesh
from tests.pipeline.test_wiring import Kept, propensities, softmax
from tests.pipeline.tiny import tiny_settings

pytestmark = pytest.mark.slow
S = tiny_settings()
T = S.policy.temperature


@pytest.fixture(scope='module')
def kept(tiny_folder):
  return Kept(Run(tiny_folder, tiny_settings()))


def test_offsets_are_shifts_of_the_calibrated_logit(kept):
  log = kept.dataset.interactions
  half, _ = calibration_halves(kept.dataset)
  fresh = (log.split == 1) | (log.split == 2) & np.isin(log.candidate, half)
  rows = np.flatnonzero(fresh & (log.qualification >= 0))
  score, _ = propensities(kept, kept.run.get(kept.run.road.cooperative), rows)
  logits = score.scores(log.candidate[rows], log.job[rows]).qualification

  def offsets(z):
    return fit_offsets(z, log.qualification[rows], np.ones(len(rows)), log.job[rows], 20)
  b, t = kept.calibration
  np.testing.assert_allclose(kept.offsets, offsets((logits - b) / t), atol=1e-4)
  assert abs(kept.offsets - offsets(logits)).max() > 1e-3


def test_the_recalibrated_rows_add_the_offsets(kept):
  """The errors of bins of equal mass, sorted by what is predicted, to the last digit."""
  pairs = [(int(u), int(j)) for case in kept.lists.pair_cases('preference')
           for lists in [kept.lists.cases[case]]
           for u, j in zip(lists.candidate.ravel(), lists.job.ravel())]
  q = np.array([float(kept.truth.qualification[u, j]) for u, j in pairs])
  z = np.array([kept.z(u, j) for u, j in pairs])
  # The run's own offsets may be too small to show; what the rows make of some is the same.
  drawn = np.random.default_rng(1).normal(size=20)
  shift = np.array([drawn[j] for _, j in pairs])
  inputs = {'data': kept.run.get(kept.run.road.data),
            'calibration': SimpleNamespace(job_offsets=drawn)}
  of = Subject(inputs, kept.lists, kept.scores, None, Calibration(*kept.calibration), kept.truth,
               groups_of(kept.dataset))
  rows = {r.system: r.estimate.value for r in calibration_measures(of)[2]
          if r.metric == 'calibration error'}

  def error(logit):
    p = 1 / (1 + np.exp(-logit))
    bins = np.argsort(p, kind='stable').reshape(15, -1)
    return np.abs(p[bins].mean(1) - q[bins].mean(1)).mean()
  assert len(pairs) % 15 == 0 and len(np.unique(z + shift)) == len(np.unique(z)) == len(pairs)
  for system, logit in ((QUALIFICATION, z), (f'{QUALIFICATION}, recalibrated by job', z + shift)):
    assert rows[system] == pytest.approx(error(logit), abs=1e-4)
  assert kept.row(QUALIFICATION, UNIFORM, 'qualification', 'calibration error').value == (
      pytest.approx(error(z), abs=1e-4))
  assert abs(error(z + shift) - error(z - shift)) > 1e-3
  np.testing.assert_allclose(kept.results.predicted, 1 / (1 + np.exp(-z)), atol=1e-6)
  np.testing.assert_allclose(kept.results.outcome, q)


def test_what_is_attainable(kept):
  """The least C is the experts' own; the greatest takes the likeliest job of every list."""
  a, z = (np.asarray(x, np.float64) for x in (kept.inputs.preference, kept.inputs.z_qual))
  q = 1 / (1 + np.exp(-z))
  free, most = [], []
  for n in range(len(q)):
    free.append(np.dot(softmax(a[n].tolist(), T), q[n]))
    most.append(max(q[n]))
  low, high = kept.trained.attainable
  assert low == pytest.approx(np.mean(free), rel=1e-4)
  assert high == pytest.approx(np.mean(most), rel=1e-4)
  asked = [t for t in kept.results.taus if t]
  np.testing.assert_allclose(kept.trained.policy.knots, np.linspace(
      low, max(high - 0.08 * (high - low), *asked), S.policy.knots), rtol=1e-5)
  np.testing.assert_allclose(asked, low + (high - low) * np.linspace(0.1, 0.9, 4), atol=6e-5)


def losses(kept, scorer, lists, tau, eligible):
  """Of each list: the share of ineligible jobs under pi, and among the best two, by loops."""
  found = scorer.policy_scores(kept.trained.policy, lists.candidate, lists.job)
  z = (found.qualification - kept.calibration.b) / kept.calibration.t
  knots, whole, top = kept.trained.policy.knots.astype(float), [], []
  for n in range(len(lists)):
    lam = [np.interp(tau, knots, row) for row in found.lam[n]]
    mu = np.interp(tau, *kept.trained.policy.tilts)
    scores = [float(s + mu / (1 + np.exp(-x)) + l * x)
              for s, l, x in zip(found.preference[n], lam, z[n])]
    y = [float(v) for v in (1 / (1 + np.exp(-z[n])) if eligible is None else eligible[n])]
    whole.append(1 - np.dot(softmax(scores, T), y))
    top.append(1 - sum(y[i] for i in np.argsort(-np.array(scores))[:S.certify.k]) / S.certify.k)
  return {'whole distribution': np.mean(whole), 'top 2': np.mean(top)}


def scorer_of(kept, dataset):
  experts = kept.run.get(kept.run.road.cooperative)
  return PairScorer(experts, experts.blocks(dataset), make_mesh(S.mesh), S.features)


def drawn(kept, candidates, stream, eligible):
  log = kept.dataset.interactions
  return uniform_lists(eligible, candidates, np.unique(log.job[log.split == 0]),
                       S.policy.list_length, streams.seed32(S.seed, stream))


def test_a_certificate_is_what_its_lists_say(kept):
  """Seen: the candidates whom no fit used; true: others, of the test, on lists of their own."""
  scorer = scorer_of(kept, kept.dataset)
  half = np.flatnonzero(np.isin(np.arange(120), kept.dataset.interactions.of(
      'calibration').candidate))[1::2]
  mine = drawn(kept, half, 'certificate lists', kept.truth.eligible)
  test = np.unique(kept.lists.wanted.candidate)[:S.policy.held_out]
  others = drawn(kept, test, 'certificate check', kept.truth.eligible)
  checked = 0
  for row in kept.run.get(kept.run.road.certified):
    if row.tau is not None:
      seen, believed, true = (1 - losses(kept, scorer, lists, row.tau, y)[row.loss]
                              for lists, y in ((mine, mine.relevance), (mine, None),
                                               (others, others.relevance)))
      assert (row.observed, row.predicted, row.true) == pytest.approx((seen, believed, true),
                                                                      abs=2e-4)
      checked += 1
  assert checked > 1 and row.n == len(half) and not set(test) & set(half)


def test_the_proof_is_of_newcomers_to_the_runs_own_market(kept, tiny_folder, tmp_path):
  run = Run(shutil.copytree(tiny_folder, tmp_path / 'run'), S)
  proof = run.get(proof_stage(S, run.road))
  market = make_market(S.market, S.data.seed, S.data.shares, S.data.cold_jobs, S.data.warm_test)
  people, truth = newcomers(market, S.certify.population)
  lists = drawn(kept, np.arange(S.certify.population), 'fresh population', truth.eligible)
  scorer = scorer_of(kept, people)
  for m in (0, len(proof.taus) - 1):
    true = losses(kept, scorer, lists, proof.taus[m], lists.relevance)
    believed = losses(kept, scorer, lists, proof.taus[m], None)
    for name in true:
      assert proof.true[name][m] == pytest.approx(1 - true[name], abs=2e-4)
      assert proof.predicted[name][m] == pytest.approx(1 - believed[name], abs=2e-4)
  chosen = [(r.loss, r.method, r.tau) for r in proof.certified]
  assert chosen == [(r.loss, r.method, r.tau) for r in run.get(run.road.certified)]
  assert any(tau is not None for *_, tau in chosen)
  for row in (r for r in proof.certified if r.tau is not None):
    at = int(np.argmin(abs(proof.taus - row.tau)))
    assert row.true == pytest.approx(proof.true[row.loss][at])


def test_separate_heads_learn_on_stage_2s_lists_alone(kept, tiny_folder, tmp_path, monkeypatch):
  given, make = [], sweep.make_policy_sweep

  def recording(*about):
    train = make(*about)
    return lambda inputs, trials: given.append((inputs, trials)) or train(inputs, trials)
  monkeypatch.setattr(sweep, 'make_policy_sweep', recording)
  run = Run(shutil.copytree(tiny_folder, tmp_path / 'run'), S)
  found = run.get(sweep_stage(S, run.road))
  ((inputs, trials),) = given
  jax.tree.map(np.testing.assert_array_equal, inputs, kept.inputs)
  asked = [t for t in kept.results.taus if t]
  assert sorted(np.unique(np.asarray(trials.taus))) == pytest.approx(asked)
  assert set(trials.seed.tolist()) == {streams.seed32(s, 'policy') >> 1 for s in S.sweep.seeds}
  for tau in asked:  # the one policy, where it was measured before
    for name, row in ((HELD_OUT, kept.row('policy', HELD_OUT, 'policy', 'predicted C', tau)),
                      ('stage 2 lists', kept.row('policy', 'stage 2 lists', 'policy', 'predicted C',
                                                 tau))):
      (point,) = [p for p in found.points[name] if p.system == 'one policy' and p.tau == tau]
      assert point.reached == pytest.approx(row.value, rel=1e-3)
