"""Eight fake devices equal one, and meshes and batches that do not fit are refused."""

from flax.traverse_util import flatten_dict
import jax
import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.sharding import (
  MeshConfig,
  init_sharded,
  layout,
  make_mesh,
  on_mesh,
  own_rows,
  shard_batch,
)
from jobrec_jax.train.experts import Kind, cooperative_loss
from jobrec_jax.train.state import OptimizerConfig, create_state, make_optimizer, make_update

STEPS = 2
# Of a preference expert's 8 lists and a qualification expert's 8; parts of them divide by no mesh.
KINDS = {Kind('preference', 'candidate'): 5, Kind('preference', 'job'): 3,
         Kind('qualification', 'job'): 8}


@pytest.fixture(scope='module')
def batches(dataset, blocks):
  log = dataset.interactions.of('train')
  data = iterate(*(list_dataset(LabelledLists(log, *kind, negatives), finisher(blocks, kind.centre),
                                count, seed)
                   for seed, (negatives, (kind, count)) in enumerate(zip((3, 2, 2),
                                                                         KINDS.items()))))
  return [next(data) for _ in range(STEPS)]


def init(model, mesh, batch):
  def make():
    return model.init(jax.random.key(0), *(batch[0][k] for k in ('candidate', 'job', 'alignment'))
                      )['params']
  return init_sharded(make, mesh)


def run(model, mesh, batches):
  """Parameters and losses of the cooperative step, jitted and donated, on a mesh."""
  weighting = task_weights('uncertainty', 2)
  params = {'model': init(model, mesh, batches[0]), 'task_weights': weighting.init()}
  tx = make_optimizer(OptimizerConfig(steps=10, learning_rate=1e-3))
  state = on_mesh(create_state(params, {}, tx), mesh)
  loss = cooperative_loss(model, [*KINDS], weighting, 1.0, 0.3)
  step = jax.jit(make_update(loss, tx), donate_argnums=0)
  losses = []
  with layout(mesh):
    for batch in batches:
      given = state
      state, metrics = step(state, shard_batch(batch, mesh), jax.random.key(1))
      losses.append(float(metrics['train/loss']))
  assert jax.tree.leaves(given.trainable['model'])[0].is_deleted()
  return state, losses


@pytest.fixture(scope='module')
def on_one_device(model, one_device, batches):
  state, losses = run(model, one_device, batches)
  return jax.device_get(state.trainable), losses


@pytest.mark.slow
@pytest.mark.parametrize('axes', [(8, 1, 1), (2, 2, 2)], ids=str)
def test_eight_devices_equal_one(model, batches, on_one_device, axes):
  state, losses = run(model, make_mesh(MeshConfig(*axes)), batches)
  params, expected_losses = on_one_device
  np.testing.assert_allclose(losses, expected_losses, rtol=0, atol=1e-5)
  got = flatten_dict(jax.device_get(state.trainable), sep='/')
  expected = flatten_dict(params, sep='/')
  for name in got:
    np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-5, err_msg=name)
  divided = [x for x in jax.tree.leaves(state.trainable) if not x.sharding.is_fully_replicated]
  assert bool(divided) == (axes != (8, 1, 1))


def test_the_mesh_must_cover_the_devices():
  assert make_mesh(MeshConfig(-1, 2, 2)).shape == {'data': 2, 'fsdp': 2, 'tensor': 2}
  with pytest.raises(ValueError, match='data=3, fsdp=1, tensor=1 does not cover 8 devices'):
    make_mesh(MeshConfig(3, 1, 1))
  with pytest.raises(ValueError, match='fsdp must be an integer at least 1, got 0'):
    MeshConfig(8, 0, 1)


def test_a_batch_is_divided_where_it_can_be():
  mesh = make_mesh(MeshConfig(2, 2, 2))
  kinds = tuple({'mask': np.ones((n, 3), bool)} for n in (6, 3, 8))
  placed = [{s.data.shape for s in kind['mask'].addressable_shards}
            for kind in shard_batch(kinds, mesh)]
  assert placed == [{(6, 3)}, {(3, 3)}, {(2, 3)}]
  assert own_rows(mesh, 8) is None  # one process makes all


def test_an_axis_that_does_not_divide_fails(model, batches):
  with pytest.raises(ValueError, match=r"does not divide over mesh axes .*'tensor'.* of size 4"):
    init(model, make_mesh(MeshConfig(2, 1, 4)), batches[0])
