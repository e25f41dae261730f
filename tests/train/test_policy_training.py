"""Training of the policy: its requirement is reached, and no head beats the exact dual."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from jobrec_jax.lagrangian.exact import solve_dual
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import ExpertFeatures
from jobrec_jax.scoring.policy import Policy, PolicyInputs, eligibility, head_scores
from jobrec_jax.train.policy import (
    LARGEST_MULTIPLIER,
    PolicyConfig,
    make_policy_trainer,
    policy_trial,
)

HEAD = PolicyHead(widths=(16,))
CONFIG = PolicyConfig('info_nce', epochs=150, batch=16, learning_rate=1e-2,
                      dual_learning_rate=0.2)


@pytest.fixture(scope='module')
def inputs():
  """Lists whose applied job follows preference alone; eligibility is another matter."""
  keys = jax.random.split(jax.random.key(0), 4)
  hidden = jax.random.normal(keys[0], (48, 12, 2, 4))
  preference = 2 * hidden[..., 0, 0]
  z_qual = 2 * hidden[..., 1, 0]
  positive = jnp.argmax(preference + jax.random.gumbel(keys[1], preference.shape), -1)
  return PolicyInputs(hidden, preference, z_qual, positive.astype(jnp.int32),
                      jnp.ones(preference.shape, bool))


@pytest.fixture(scope='module')
def trainer():
  train = jax.jit(make_policy_trainer(HEAD, CONFIG))
  return lambda inputs, tau, seed: train(inputs, policy_trial(CONFIG, [tau], seed))


def reached(head, params, inputs) -> np.ndarray:
  """[K] mean C at each requirement of a head."""
  return np.asarray(jax.vmap(eligibility, (0, None, None, None))(
      head_scores(head, params, inputs, np.zeros(head.outputs)), inputs.z_qual, inputs.mask,
      CONFIG.temperature).mean(-1))


def test_without_a_requirement_the_multiplier_is_idle(trainer, inputs):
  result = trainer(inputs, 0.0, 1)
  assert result.duals.multiplier.tolist() == [0]
  np.testing.assert_array_equal(result.history['multiplier'], np.zeros((CONFIG.epochs, 1)))


@pytest.mark.parametrize('tau', [0.6, 0.75])
def test_the_requirement_is_reached_and_no_more(trainer, inputs, tau):
  free = reached(HEAD, trainer(inputs, 0.0, 1).params, inputs)[0]
  assert free < tau - 0.03
  result = trainer(inputs, tau, 1)
  assert abs(reached(HEAD, result.params, inputs)[0] - tau) < 0.02
  assert result.duals.multiplier[0] > 0
  assert set(result.history) == {'loss', 'eligibility', 'multiplier'}
  assert all(v.shape == (CONFIG.epochs, 1) for v in result.history.values())


def test_training_follows_from_its_seed(trainer, inputs):
  runs = [trainer(inputs, 0.6, seed).params for seed in (1, 1, 2)]
  jax.tree.map(np.testing.assert_array_equal, runs[0], runs[1])
  assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, runs[1:])))


@pytest.mark.parametrize('gains', [{}, {'dual_kp': 0.5, 'dual_nu': 0.5}])
def test_one_policy_for_every_requirement(inputs, gains):
  """At the knots and between them C is what was asked, and J close to the best there is."""
  config = dataclasses.replace(CONFIG, objective='expected_score', **gains)
  knots = np.linspace(0.55, 0.85, 7, dtype=np.float32)
  head = PolicyHead(widths=(16,), outputs=len(knots))
  result = jax.jit(make_policy_trainer(head, config))(inputs, policy_trial(config, knots, 0))
  np.testing.assert_allclose(reached(head, result.params, inputs), knots, atol=0.005)
  policy = Policy(head, result.params, knots, config.temperature)
  asked = np.linspace(0.56, 0.84, 12)
  got = [float(eligibility(policy.scores_at(inputs, tau), inputs.z_qual, inputs.mask, 1.0).mean())
         for tau in asked]
  np.testing.assert_allclose(got, asked, atol=0.012)
  assert (np.diff(got) > 0).all()


def test_a_scalar_head_learns_the_number_that_reaches_each_requirement(inputs):
  config = dataclasses.replace(CONFIG, objective='expected_score')
  knots = np.linspace(0.55, 0.8, 4, dtype=np.float32)
  head = PolicyHead(widths=(16,), outputs=4, kind='scalar')
  result = jax.jit(make_policy_trainer(head, config))(inputs, policy_trial(config, knots, 0))

  def reached_at(lam):
    return float(eligibility(inputs.preference + lam * inputs.z_qual, inputs.z_qual, inputs.mask,
                             1.0).mean())
  roots = [brentq(lambda lam: reached_at(lam) - tau, 0, 10) for tau in knots]  # noqa: B023
  np.testing.assert_allclose(16 * result.params['number'], roots, atol=0.03)
  assert roots[-1] > 1


def test_separate_requirements_are_reached(inputs):
  config = dataclasses.replace(CONFIG, objective='expected_score')
  knots = np.linspace(0.55, 0.85, 3, dtype=np.float32)
  head = PolicyHead(widths=(16,), outputs=3, kind='separate')
  result = jax.jit(make_policy_trainer(head, config))(inputs, policy_trial(config, knots, 0))
  np.testing.assert_allclose(reached(head, result.params, inputs), knots, atol=0.005)


@pytest.mark.parametrize('constraint, tau, sign', [('inequality', 1.0, 1), ('equality', 0.0, -1)])
def test_a_multiplier_of_what_is_out_of_reach_stays_a_number(inputs, constraint, tau, sign):
  """Lambda stays 0; without an end the multiplier would leave float32."""
  config = dataclasses.replace(CONFIG, constraint=constraint, dual_learning_rate=1.0)
  head = PolicyHead(kind='off')
  result = jax.jit(make_policy_trainer(head, config))(inputs, policy_trial(config, [tau], 0))
  assert set(result.params) == {'mean', 'scale'}
  assert all(np.isfinite(x).all() for x in result.history.values())
  assert result.duals.multiplier.tolist() == pytest.approx([sign * LARGEST_MULTIPLIER])
  assert np.ptp(result.history['eligibility']) < 1e-6


def test_states_with_much_in_common_serve_as_well(inputs, trainer):
  """Those of a pretrained decoder: a small part tells pairs apart."""
  common = 20 * jax.random.normal(jax.random.key(5), (2, 4))
  scale = jnp.array([0.01, 0.1, 1.0, 10.0])
  other = dataclasses.replace(inputs, hidden=common + scale * inputs.hidden)
  results = [trainer(x, 0.75, 1) for x in (inputs, other)]
  for x, result in zip((inputs, other), results):
    assert abs(reached(HEAD, result.params, x)[0] - 0.75) < 0.02
  np.testing.assert_allclose(*(r.history['loss'][-1] for r in results), atol=0.02)


def test_no_head_beats_the_exact_dual_and_a_trained_one_comes_close(inputs):
  config = dataclasses.replace(CONFIG, objective='expected_score')
  result = jax.jit(make_policy_trainer(HEAD, config))(inputs, policy_trial(config, [0.7], 0))
  scores = head_scores(HEAD, result.params, inputs, np.zeros(1))[0]
  c = reached(HEAD, result.params, inputs)
  pi = np.asarray(jax.nn.softmax(scores), np.float64)
  J = ((pi * np.asarray(inputs.preference)).sum(-1) - (pi * np.log(pi)).sum(-1)).mean()
  q = jax.nn.sigmoid(inputs.z_qual)
  best = solve_dual(inputs.preference, q, inputs.mask, np.array([c[0], 0.5, 0.9]),
                    objective='expected_score').primal[:, 0]
  assert -1e-6 < best[0] - J < 0.03 * (best[1] - best[2])


def test_a_policy_scores_pairs_by_its_formula(inputs):
  head = PolicyHead(widths=(16,), outputs=2)
  hidden = inputs.hidden[..., 0, :], inputs.hidden[..., 1, :]
  params = head.init(jax.random.key(3), *hidden)['params']
  params['lambda']['kernel'] = jax.random.normal(jax.random.key(4), (16, 2))
  policy = Policy(head, params, np.array([0.4, 0.6], np.float32), 1.0)
  calibration = Calibration(0.5, 2.0)
  features = ExpertFeatures(*map(np.asarray, (inputs.hidden, inputs.preference, inputs.z_qual)))
  scores, lam = policy.score(features, calibration, 0.55)
  both = np.asarray(head.apply({'params': params}, *hidden))
  np.testing.assert_allclose(lam, 0.25 * both[..., 0] + 0.75 * both[..., 1], atol=1e-5)
  assert np.abs(lam).max() <= HEAD.bound and lam.std() > 0
  np.testing.assert_allclose(
      scores, inputs.preference + lam * (np.asarray(inputs.z_qual) - 0.5) / 2.0, rtol=1e-5,
      atol=1e-5)
  shifted = dataclasses.replace(inputs, z_qual=(inputs.z_qual - 0.5) / 2.0)
  np.testing.assert_allclose(scores, policy.scores_at(shifted, 0.55), rtol=1e-4, atol=1e-4)


def test_a_policy_knows_its_range():
  policy = Policy(PolicyHead(outputs=2), {}, np.array([0.4, 0.6], np.float32), 1.0)
  policy.check(0.0)
  with pytest.raises(ValueError, match=r'\[0.4, 0.6\], or below it .*; got 0.61'):
    policy.check(0.61)
  with pytest.raises(ValueError, match=r'\[0.4, 0.6\]; got 0.3'):
    dataclasses.replace(policy, constraint='equality').check(0.3)


def test_an_unknown_kind_of_head_is_named():
  with pytest.raises(ValueError, match=r"head must be one of \('conditioned', .*got 'linear'"):
    Policy(PolicyHead(outputs=2, kind='linear'), {}, np.array([0.4, 0.6], np.float32), 1.0)


@pytest.mark.parametrize('name', ['epochs', 'batch', 'learning_rate', 'temperature', 'clip'])
def test_a_bad_setting_is_named(name):
  with pytest.raises(ValueError, match=f'^{name} must be .*got 0'):
    PolicyConfig(**{name: 0})


def test_other_bad_settings_are_named():
  with pytest.raises(ValueError, match=r'^objective must be one of'):
    PolicyConfig(objective='accuracy')
  with pytest.raises(ValueError, match=r'^dual_kp must be a finite number at least 0'):
    PolicyConfig(dual_kp=-1)
  with pytest.raises(ValueError, match=r'^dual_nu must be a finite number in'):
    PolicyConfig(dual_nu=1)
