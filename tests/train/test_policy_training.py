import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.objectives.calibration import Calibration
from jobrec_jax.train.features import ExpertFeatures
from jobrec_jax.train.policy import (
    PolicyConfig,
    PolicyInputs,
    apply_policy,
    make_policy_trainer,
    policy_eligibility,
)

HEAD = PolicyHead(widths=(16,))
CONFIG = PolicyConfig(epochs=150, batch=16, learning_rate=1e-2, dual_learning_rate=0.5)


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
  return make_policy_trainer(HEAD, CONFIG)


def reached(params, inputs) -> float:
  return float(policy_eligibility(HEAD, params, inputs, CONFIG.temperature).mean())


def test_without_a_requirement_the_multiplier_is_idle(trainer, inputs):
  result = trainer(inputs, jnp.float32(0.0), jax.random.key(1))
  assert float(result.duals.multiplier) == 0
  np.testing.assert_array_equal(result.history['multiplier'], np.zeros(CONFIG.epochs))


@pytest.mark.parametrize('tau', [0.6, 0.75])
def test_the_requirement_is_reached_and_no_more(trainer, inputs, tau):
  free = reached(trainer(inputs, jnp.float32(0.0), jax.random.key(1)).params, inputs)
  assert free < tau - 0.03
  result = trainer(inputs, jnp.float32(tau), jax.random.key(1))
  assert abs(reached(result.params, inputs) - tau) < 0.02
  assert float(result.duals.multiplier) > 0
  assert set(result.history) == {'info_nce', 'eligibility', 'multiplier'}
  assert all(v.shape == (CONFIG.epochs,) for v in result.history.values())


def test_training_follows_from_its_key(trainer, inputs):
  runs = [trainer(inputs, jnp.float32(0.6), jax.random.key(k)).params for k in (1, 1, 2)]
  jax.tree.map(np.testing.assert_array_equal, runs[0], runs[1])
  assert any((np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, runs[1:])))


def test_scores_of_pairs_agree_with_the_formula(inputs):
  hidden = inputs.hidden[..., 0, :], inputs.hidden[..., 1, :]
  params = HEAD.init(jax.random.key(3), *hidden)['params']
  params['lambda']['kernel'] = jnp.ones_like(params['lambda']['kernel'])
  calibration = Calibration(0.5, 2.0)
  features = ExpertFeatures(*map(np.asarray, (inputs.hidden, inputs.preference, inputs.z_qual)))
  scores, lam = apply_policy(HEAD, params, features, calibration)
  assert np.abs(lam).max() <= HEAD.bound and lam.std() > 0
  np.testing.assert_allclose(
      scores, inputs.preference + lam * (np.asarray(inputs.z_qual) - 0.5) / 2.0, rtol=1e-5,
      atol=1e-5)


@pytest.mark.parametrize('name', ['epochs', 'batch', 'learning_rate', 'temperature', 'clip'])
def test_a_bad_setting_is_named(name):
  with pytest.raises(ValueError, match=f'policy.{name} must be positive, got 0'):
    PolicyConfig(**{name: 0})
