"""What the policy is asked for: ascending, rounded, and within reach."""

import dataclasses
import logging
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.pipeline import policy
from jobrec_jax.pipeline.policy import requirements
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.pipeline.store import Resources
from jobrec_jax.scoring.policy import PolicyInputs, eligibility
from jobrec_jax.train.tilts import attainable
from jobrec_jax.train.watch import Watching


def test_requirements_ascend_whatever_the_order_of_the_setting():
  assert requirements(PolicySettings(taus=(0.7, 0.31234567, 0.5)), (0.3, 0.8)) == [
      0.3123, 0.5, 0.7]
  assert requirements(PolicySettings(grid=3), (0.3, 0.8)) == [0.35, 0.55, 0.75]


def test_what_is_already_met_can_be_asked_for_and_what_is_out_of_reach_cannot():
  assert requirements(PolicySettings(taus=(0.1,)), (0.3, 0.8)) == [0.1]
  with pytest.raises(ValueError, match=r'0\.1'):
    requirements(PolicySettings(taus=(0.1,), constraint='equality'), (0.3, 0.8))
  with pytest.raises(ValueError, match=r'0\.9'):
    requirements(PolicySettings(taus=(0.5, 0.9)), (0.3, 0.8))


@pytest.fixture
def inputs():
  rng = np.random.default_rng(0)
  return PolicyInputs(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in (
      (6, 5, 2, 3), (6, 5), (6, 5))), jnp.zeros(6, jnp.int32), jnp.ones((6, 5), bool))


SMALL = PolicySettings(lists=6, batch=6, list_length=5, epochs=8, width=4, knots=3)


def made(folder, inputs, **changes):
  """The policy as the stage makes it and reads it again."""
  folder.mkdir()
  bench = SimpleNamespace(folder=folder, inputs={'inputs': inputs}, settings={
      'policy': dataclasses.replace(SMALL, **changes), 'seed': 0},
      resources=Resources(watching=Watching()))
  policy.make_policy(bench)
  return policy.read_policy(bench)


def test_the_knots_cover_whatever_is_asked_for(tmp_path, inputs):
  """The last one stands a margin below what is attainable, unless more is asked for."""
  low, high = attainable(inputs, SMALL)
  q = 1 / (1 + np.exp(-np.asarray(inputs.z_qual)))
  assert high == pytest.approx(q.max(1).mean())
  tops = {}
  for name, tau in (('little', 0.5), ('much', round(high - 0.01, 3))):
    trained = made(tmp_path / name, inputs, taus=(tau,))
    assert trained.attainable == pytest.approx((low, high))
    tops[name] = float(trained.policy.knots[-1])
    trained.policy.check(tau)
  assert tops['much'] == pytest.approx(round(high - 0.01, 3))
  assert tops['little'] == pytest.approx(high - 0.08 * (high - low)) and (
      tops['little'] < tops['much'])


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('top_k', [0, 2])
def test_nothing_is_asked_for_with_a_multiplier_of_nothing(tmp_path, seed, top_k):
  """Whichever way the float32 knot of what comes of its own accord is rounded."""
  rng = np.random.default_rng(seed)
  inputs = PolicyInputs(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in (
      (6, 5, 2, 3), (6, 5), (6, 5))), jnp.zeros(6, jnp.int32), jnp.ones((6, 5), bool))
  trained = made(tmp_path / 'p', inputs, top_k=top_k)
  assert trained.policy.tilts.mu[0] == 0 and trained.policy.tilts.mu[1] > 0


@pytest.mark.parametrize('start', ['exact', 'preference'])
def test_an_equalitys_knots_lie_inside_of_its_range(tmp_path, inputs, start):
  """The least C is a limit: asked for itself, a multiplier ran to minus four million."""
  low, high = attainable(inputs, dataclasses.replace(SMALL, constraint='equality'))
  trained = made(tmp_path / 'p', inputs, constraint='equality', start=start)
  margin = 0.08 * (high - low)
  np.testing.assert_allclose(trained.policy.knots[[0, -1]], (low + margin, high - margin),
                             rtol=1e-6)
  if start == 'exact':
    assert np.abs(trained.policy.tilts.mu).max() < 100
    reached = [float(eligibility(trained.policy.scores_at(inputs, float(tau)), inputs.z_qual,
                                 inputs.mask, 1.0).mean()) for tau in trained.policy.knots]
    np.testing.assert_allclose(reached, trained.policy.knots, atol=1e-5)


def test_for_the_expected_score_nothing_is_learned_from_the_exact_dual(tmp_path, inputs):
  """No head can better it, so that no epoch is run; labels can teach."""
  trained = made(tmp_path / 'expected', inputs)
  assert trained.policy.head.kind == 'off' and trained.history == {}
  trained = made(tmp_path / 'labels', inputs, objective='info_nce')
  assert trained.policy.head.kind == 'conditioned' and len(trained.history['eligibility']) == 8
  trained = made(tmp_path / 'alone', inputs, start='preference')
  assert trained.policy.head.kind == 'conditioned' and not trained.policy.tilts.mu.any()


@pytest.mark.parametrize('start', ['exact', 'preference'])
def test_what_the_exact_dual_reaches_is_never_called_infeasible(tmp_path, inputs, caplog, start):
  """A lambda that is bounded to nothing misses every requirement."""
  with caplog.at_level(logging.INFO, 'absl'):
    made(tmp_path / 'p', inputs, objective='info_nce', start=start, bound=1e-3, epochs=80)
  told = [r.getMessage() for r in caplog.records]
  assert not any('infeasible' in line for line in told)
  assert start == 'exact' or any('is within reach' in line for line in told)
