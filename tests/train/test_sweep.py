"""A sweep of policies equals its trainings one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring.policy import PolicyInputs
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.policy import PolicyConfig, make_policy_trainer
from jobrec_jax.train.sweep import make_policy_sweep, policy_grid

HEAD = PolicyHead(widths=(8,))
# Not 'expected_score', whose gradient is zero at lambda = 0: Adam makes steps of its rounding.
CONFIG = PolicyConfig('info_nce', epochs=4, batch=8, learning_rate=1e-2, dual_learning_rate=0.5)
GRID = policy_grid(CONFIG, (0.5, 0.7), (0, 1, 2), (1e-2, 3e-2), ((0.5, 0, 0, 0), (0.5, 1, 0, 0.5)))


@pytest.fixture(scope='module')
def inputs():
  keys = jax.random.split(jax.random.key(0), 2)
  hidden = jax.random.normal(keys[0], (16, 6, 2, 4))
  return PolicyInputs(hidden, hidden[..., 0, 0], hidden[..., 1, 0],
                      jnp.zeros(16, jnp.int32), jnp.ones((16, 6), bool))


def test_the_grid_holds_every_combination_once():
  assert len(GRID.seed) == 2 * 3 * 2 * 2
  rows = list(zip(GRID.taus[:, 0].tolist(), GRID.seed.tolist(), GRID.learning_rate.tolist(),
                  GRID.kp.tolist()))
  assert len(set(rows)) == 24
  assert rows[0][1] == 0 and rows[-1][1] == 2
  plain = policy_grid(CONFIG, (0.5,), (3,))
  assert plain.learning_rate.tolist() == [np.float32(1e-2)] and plain.ki.tolist() == [0.5]
  with pytest.raises(ValueError, match='needs taus and seeds, got 0 and 1'):
    policy_grid(CONFIG, (), (0,))


@pytest.mark.parametrize('devices, chunk', [(1, 1), (1, 5), (8, 1)])
def test_a_sweep_is_its_trainings_one_by_one(inputs, devices, chunk):
  mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
  swept = make_policy_sweep(HEAD, CONFIG, mesh, chunk)(inputs, GRID)
  alone = jax.jit(make_policy_trainer(HEAD, CONFIG))
  for i in (0, 7, 23):
    one = alone(inputs, jax.tree.map(lambda x: x[i], GRID))  # noqa: B023
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, atol=2e-5), swept, one)  # noqa: B023
  last = swept.history['eligibility'][:, -1, 0]
  assert last.shape == (24,) and len(np.unique(np.asarray(last).round(6))) > 20


def test_another_grid_compiles_nothing(inputs):
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  sweep = make_policy_sweep(HEAD, CONFIG, mesh)
  first = sweep(inputs, GRID)
  second = sweep(inputs, policy_grid(CONFIG, np.linspace(0.4, 0.8, 24), (5,)))
  assert sweep._cache_size() == 1
  assert (first.duals.multiplier != second.duals.multiplier).any()
