"""Estimators of what only some pairs show: on simulated logs, over every outcome, and traps."""

import itertools

import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.baselines import rivals
from jobrec_jax.censoring.estimators import (
    CLIP,
    ESTIMATORS,
    FLOOR,
    Funnel,
    Targets,
    doubly_robust,
    entire_space_ips,
    ips,
    loss,
    snips,
    targeted,
    value,
)
from jobrec_jax.data.market.simulator import MarketConfig, simulate

LOGS = 200


def random_funnel(n=400, seed=0, p=None):
  rng = np.random.default_rng(seed)
  p = rng.uniform(0.05, 1, n) if p is None else p
  q = rng.uniform(0.05, 0.95, n)
  return Funnel(rng.random(n) < p, (rng.random(n) < q).astype(float), p, rng.uniform(0, 1, n))


def bias(rho_e, wrong=()):
  """Of IPS and DR on 200 logs with known propensities: loss, C; means and their standard errors."""
  off = {name: [] for name in ('IPS', 'DR')}
  for seed in range(LOGS):
    dataset, truth = simulate(MarketConfig(
        candidates=40, jobs=10, exposure=0.9, rho_e=rho_e, screening_noise=0.0,
        preference_mean=-0.5), seed)
    log = dataset.interactions
    at = log.candidate, log.job
    Q, P = (x[at].astype(np.float64) for x in (truth.qualification, truth.preference))
    p = truth.application[at].astype(np.float64)
    funnel = Funnel(log.qualification >= 0, log.qualification.astype(float),
                    np.sqrt(p) if 'propensity' in wrong else p,
                    1 - Q if 'imputation' in wrong else Q)
    s, policy = 0.5 * logit(Q) + 1, P / P.mean()
    true = np.mean(np.logaddexp(0, s) - Q * s), np.mean(policy * Q)
    for name in off:
      targets = ESTIMATORS[name].targets(funnel)
      off[name].append((loss(s, funnel, targets) - true[0], value(targets, policy) - true[1]))
  return {name: (np.mean(x, 0), np.std(x, 0, ddof=1) / np.sqrt(LOGS)) for name, x in off.items()}


def is_unbiased(found):
  mean, error = found
  assert (error < 0.02).all()  # a bias that matters would be seen
  return (abs(mean) < 4 * error).all()


def test_ips_and_doubly_robust_are_unbiased_on_logs_with_known_propensities():
  found = bias(rho_e=0.0)
  assert is_unbiased(found['IPS']) and is_unbiased(found['DR'])
  assert (found['DR'][1] < found['IPS'][1]).all()  # what the imputation is for


@pytest.mark.parametrize('wrong', ['propensity', 'imputation'])
def test_doubly_robust_stays_so_where_either_model_is_wrong(wrong):
  found = bias(0.0, (wrong,))
  assert is_unbiased(found['DR'])
  assert is_unbiased(found['IPS']) == (wrong == 'imputation')


def test_it_is_not_where_both_are_wrong_nor_where_hidden_causes_move_both():
  assert not is_unbiased(bias(0.0, ('propensity', 'imputation'))['DR'])
  confounded = bias(0.5)
  for name in ('IPS', 'DR'):
    assert (abs(confounded[name][0]) > 5 * confounded[name][1]).all()


def test_the_loss_of_preference_over_all_pairs_from_those_that_were_shown():
  """What was shown is the observed, the logged exposure its propensity."""
  rng = np.random.default_rng(0)
  P, e = rng.uniform(0.05, 0.9, 300), rng.uniform(0.1, 1, 300)
  s = logit(P) - 0.7
  found = {name: [] for name in ('IPS', 'DR')}
  for _ in range(LOGS):
    shown = rng.random(300) < e
    funnel = Funnel(shown, (rng.random(300) < P).astype(float), e, np.full(300, P.mean()))
    for name in found:
      found[name].append(loss(s, funnel, ESTIMATORS[name].targets(funnel)))
  true = np.mean(np.logaddexp(0, s) - P * s)
  for name, x in found.items():
    assert abs(np.mean(x) - true) < 4 * np.std(x) / np.sqrt(LOGS) < 0.02, name


def test_a_poor_imputation_poisons_as_far_as_propensities_are_wrong():
  """Over every outcome of three pairs: the bias is the mean of (1 - p* / p) (E[y] - q) v."""
  true_p, Q = np.array([0.3, 0.6, 0.9]), np.array([0.2, 0.5, 0.8])
  q, p, v = np.array([0.9, 0.1, 0.4]), np.array([0.5, 0.5, 0.95]), np.array([1.0, 2.0, -1.0])
  mean = 0.0
  for o, y in itertools.product(itertools.product((0, 1), repeat=3), repeat=2):
    o, y = np.array(o), np.array(y)
    chance = np.prod(np.where(o, true_p, 1 - true_p)) * np.prod(np.where(y, Q, 1 - Q))
    mean += chance * value(doubly_robust(Funnel(o == 1, y.astype(float), p, q)), v)
  assert mean - np.mean(v * Q) == pytest.approx(np.mean((1 - true_p / p) * (q - Q) * v))
  assert abs(mean - np.mean(v * Q)) > 0.05


def test_outcomes_that_nobody_saw_are_never_read():
  funnel = random_funnel()
  other = funnel._replace(label=np.where(funnel.observed, funnel.label, np.nan))
  for name, estimator in ESTIMATORS.items():
    for a, b in zip(estimator.targets(funnel), estimator.targets(other)):
      np.testing.assert_array_equal(a, b, name)
    s = np.linspace(-2, 2, 400)
    assert loss(s, other, estimator.targets(other)) == loss(s, funnel, estimator.targets(funnel))


def test_losses_are_means_over_pairs():
  """Twice the pairs, the same loss: published code of ESCM2 multiplies IPS by the batch."""
  funnel, s = random_funnel(), np.linspace(-3, 3, 400)
  twice = Funnel(*(np.tile(x, 2) for x in funnel))
  for name, estimator in ESTIMATORS.items():
    assert loss(np.tile(s, 2), twice, estimator.targets(twice)) == pytest.approx(
        loss(s, funnel, estimator.targets(funnel)), rel=1e-6), name
  alone, both = (loss(s, funnel, e.targets(funnel)) for e in (
      ESTIMATORS['ESMM'], ESTIMATORS['ESCM2-IPS']))
  assert both == pytest.approx(alone + loss(s, funnel, ips(funnel)))
  assert entire_space_ips(funnel).entire


def test_self_normalised_weights_are_clipped_in_multiples_of_their_mean():
  """So that the units of a propensity do not matter; clipped at a value of its own, they would."""
  n = 1000
  p = np.full(n, 0.8)
  p[:3] = 0.02
  funnel = random_funnel(n, p=p)._replace(observed=np.ones(n, bool))
  w = snips(funnel).weight
  assert w.mean() == pytest.approx(1)
  np.testing.assert_allclose(snips(funnel._replace(propensity=p / 2)).weight, w)
  mean = (3 / 0.02 + (n - 3) / 0.8) / n
  assert w[0] / w[5] == pytest.approx(CLIP * mean * 0.8)
  assert ips(funnel).weight[0] == 50  # which is not clipped


def test_no_propensity_below_the_floor_is_believed():
  funnel = random_funnel(10, p=np.full(10, 1e-9))._replace(observed=np.ones(10, bool))
  assert (ips(funnel).weight == 1 / FLOOR).all()


def test_targeted_imputations_owe_the_observed_nothing():
  funnel = random_funnel(seed=3)
  targets, w = targeted(funnel), funnel.observed / funnel.propensity
  # What the correction adds to the mean is nothing: the mean is that of the imputations alone.
  moved = (targets.target - w * funnel.label) / np.where(funnel.observed, 1 - w, 1)
  sure = funnel.observed & (abs(1 - w) < 1e-9)
  assert abs((w * (funnel.label - moved))[~sure].sum()) < 1e-6 * len(w)
  assert value(targets) == pytest.approx(moved[~sure].sum() / len(w), abs=0.02)
  alike = funnel._replace(label=np.ones(400))
  assert np.isfinite(targeted(alike).target).all()


def test_unseen_as_negatives_learns_the_product():
  Q, p = np.full(200_000, 0.7), np.full(200_000, 0.4)
  rng = np.random.default_rng(0)
  funnel = Funnel(rng.random(len(p)) < p, (rng.random(len(p)) < Q).astype(float), p, Q)
  for name, expected in (('unseen as negatives', 0.28), ('IPS', 0.7), ('DR', 0.7), ('SNIPS', 0.7),
                         ('imputation', 0.7), ('applicants alone', 0.7), ('targeted DR', 0.7),
                         ('self-normalised DR', 0.7), ('ESMM', 0.7), ('ESCM2-DR', 0.7)):
    targets = ESTIMATORS[name].targets(funnel)
    losses = [loss(np.full(len(p), logit(q)), funnel, targets)
              for q in (expected - 0.02, expected, expected + 0.02)]
    assert np.argmin(losses) == 1, name


def test_every_estimator_is_a_rival_and_says_what_it_assumes():
  assert tuple(ESTIMATORS) == rivals.CENSORED
  for name, estimator in ESTIMATORS.items():
    assert estimator.assumes and rivals.RIVALS[name].perspectives == ('qualification',)
    targets = estimator.targets(random_funnel())
    assert isinstance(targets, Targets) and (targets.weight >= 0).all()
    assert len(targets.weight) == len(targets.target) == 400
