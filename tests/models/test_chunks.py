"""How many items are taken at a time: by what a device holds, and where their number is a prime."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models import axes, list_attention
from jobrec_jax.sharding import MeshConfig, layout, make_mesh

B, J = 8, 7
SCORES = 4 * 2 * 11 * (6 + 11)  # bytes of one item of one list: K, rows of a kv head, keys


@pytest.fixture
def turns(monkeypatch):
  """How many items were taken at a time, as programs were traced."""
  found = []
  fitting = list_attention._fitting

  def told(*args):
    found.append(fitting(*args))
    return found[-1]
  monkeypatch.setattr(list_attention, '_fitting', told)
  return found


def blocks():
  rng = np.random.default_rng(0)
  return [rng.integers(1, 500, s).astype(np.int32) for s in ((B, 6), (B, J, 5), (B, J, 4))]


def gradient(model, data):
  weights = np.sin(1.0 + np.arange(B * J * 2)).reshape(B, J, 2)

  def loss(variables):
    return jnp.sum(weights * model.apply(variables, *data).scores)
  return jax.jit(jax.value_and_grad(loss))


def close(found, expected):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


@pytest.mark.parametrize('bound, platform, taken', [
    (2**28, 'cpu', {7}), (7 * B, 'cpu', {7}), (6 * B, 'cpu', {1}), (3 * B, 'cpu', {1}),
    (6 * B, 'tpu', {4}), (3 * B, 'tpu', {3}), (1, 'tpu', {1}), (2 * B, 'tpu', {2})], ids=str)
def test_a_prime_number_of_items_is_padded_where_memory_bounds(model, monkeypatch, turns, bound,
                                                               platform, taken):
  """On CPUs a turn costs little, and items alone in theirs stay as they were."""
  data = blocks()
  variables = nn.unbox(model.init(jax.random.key(0), *data))
  expected = gradient(model, data)(variables)
  turns.clear()
  bounds = {'cpu': bound * SCORES} if platform == 'cpu' else {}
  monkeypatch.setattr(list_attention, '_SCORES', bounds)
  monkeypatch.setattr(list_attention, '_MEMORY', bound * SCORES)
  close(gradient(model, data)(variables), expected)
  assert set(turns) == taken


def test_a_device_takes_as_many_as_fit_its_own_lists(model, monkeypatch, turns, one_device):
  data = blocks()
  variables = nn.unbox(model.init(jax.random.key(0), *data))
  expected = gradient(model, data)(variables)  # of all items at a time, on one device
  monkeypatch.setattr(list_attention, '_SCORES', {'cpu': 7 * SCORES})
  found = {}
  for config, devices in ((MeshConfig(), 1), (MeshConfig(), 8), (MeshConfig(2, 2, 2), 8)):
    turns.clear()
    with layout(make_mesh(config, jax.devices()[:devices])):
      result = gradient(model, data)(variables)
    found[config, devices] = set(turns)
    close(result, expected)
  assert [*found.values()] == [{1}, {7}, {7}]


def test_a_device_holds_its_part_of_an_axis():
  assert axes.divided(12, 'batch') == 12 and axes.platform() == jax.default_backend()
  with layout(make_mesh(MeshConfig(2, 2, 2))):
    assert [axes.divided(12, name) for name in ('batch', 'kv_heads', 'items')] == [3, 6, 12]
    assert axes.divided(3, 'batch') == 1 and axes.platform() == 'cpu'
  with pytest.raises(ValueError, match='logical axes must be among'):
    axes.divided(12, 'lists')
