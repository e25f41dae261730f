"""What the policy is asked for: ascending, rounded, and within reach."""

import dataclasses
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.pipeline import policy
from jobrec_jax.pipeline.policy import reach, requirements
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.pipeline.store import Resources
from jobrec_jax.scoring.policy import PolicyInputs
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


def test_the_knots_cover_whatever_is_asked_for(tmp_path):
  """The last one stands a margin below what is attainable, unless more is asked for."""
  rng = np.random.default_rng(0)
  inputs = PolicyInputs(*(jnp.asarray(rng.normal(size=size), jnp.float32) for size in (
      (6, 5, 2, 3), (6, 5), (6, 5))), jnp.zeros(6, jnp.int32), jnp.ones((6, 5), bool))
  p = PolicySettings(lists=6, batch=6, list_length=5, epochs=1, width=4, knots=3)
  _, high = reach(p, inputs)
  tops = {}
  for name, tau in (('little', 0.5), ('much', round(high - 0.01, 3))):
    (tmp_path / name).mkdir()
    bench = SimpleNamespace(folder=tmp_path / name, inputs={'inputs': inputs}, settings={
        'policy': dataclasses.replace(p, taus=(tau,)), 'seed': 0},
        resources=Resources(watching=Watching()))
    policy.make_policy(bench)
    trained = policy.read_policy(bench)
    low = trained.attainable[0]
    tops[name] = float(trained.policy.knots[-1])
    trained.policy.check(tau)
  assert tops['much'] == pytest.approx(round(high - 0.01, 3))
  assert tops['little'] == pytest.approx(high - 0.08 * (high - low)) and (
      tops['little'] < tops['much'])
