"""Eight fake devices equal one, and meshes and batches that do not fit are refused."""

import collections
import dataclasses

from flax.traverse_util import flatten_dict
import jax
from jax.experimental import mesh_utils
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.lora import TARGETS, LoraConfig
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.sharding import (
  MeshConfig,
  abstract_batch,
  abstract_params,
  init_sharded,
  layout,
  make_mesh,
  on_mesh,
  own_rows,
  shard_batch,
)
from jobrec_jax.train.experts import Kind, cooperative_loss
from jobrec_jax.train.hlo import collectives
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


def exchanged(step, *arguments):
  """Bytes that a device exchanges in a step, by kind of collective."""
  found = collections.Counter()
  for one in collectives(step.lower(*arguments).compile().as_text()):
    found[one.kind] += one.bytes * one.times
  return found


@pytest.mark.slow
@pytest.mark.parametrize('axes', [(8, 1, 1), (1, 1, 8)], ids=str)
def test_devices_exchange_gradients_alone_or_sums_alone(model, batches, axes):
  """Lists of each kind that divide by eight, and eight heads: nothing of any size is gathered."""
  heads = dataclasses.replace(model.config.decoder, heads=8, kv_heads=8, head_width=2)
  model = JobRec(dataclasses.replace(model.config, decoder=heads))
  batch = jax.tree.map(lambda x: np.resize(x, (8, *x.shape[1:])), batches[0])
  mesh, weighting = make_mesh(MeshConfig(*axes)), task_weights('uncertainty', 2)
  params = {'model': init(model, mesh, batch), 'task_weights': weighting.init()}
  tx = make_optimizer(OptimizerConfig(steps=10, learning_rate=1e-3))
  update = jax.jit(make_update(cooperative_loss(model, [*KINDS], weighting, 1.0, 0.3), tx))
  with layout(mesh):
    found = exchanged(update, on_mesh(create_state(params, {}, tx), mesh),
                      shard_batch(batch, mesh), jax.random.key(1))
  if axes == (1, 1, 8):
    assert set(found) == {'all-reduce'}
  rest = sum(size for kind, size in found.items() if kind != 'all-reduce')
  assert rest < 0.05 * found['all-reduce']  # scores of lists, along which losses compare


@pytest.fixture(scope='module')
def adapted(model):
  """Experts whose adapters are of every target, for each expert its own."""
  lora = LoraConfig(rank=4, targets=TARGETS, per_expert=True, dropout=0.0)
  decoder = dataclasses.replace(model.config.decoder, lora=lora)
  return JobRec(dataclasses.replace(model.config, decoder=decoder))


@pytest.mark.slow
def test_adapters_and_heads_are_divided_and_learn_the_same(adapted, batches, one_device):
  _, expected = run(adapted, one_device, batches)
  state, losses = run(adapted, make_mesh(MeshConfig(2, 2, 2)), batches)
  np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
  held = {name: [x.addressable_shards[0].data.size / x.size for x in jax.tree.leaves(part)]
          for name, part in state.trainable['model'].items()}
  assert max(held['lora']) <= 0.5 and min(held['lora']) == 0.25
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.size > 16]
  whole = [x for x in moments if x.sharding.is_fully_replicated]
  assert sum(x.size for x in whole) < 0.02 * sum(x.size for x in moments)
  head = state.trainable['model']['preference']['hidden_0']['kernel']
  assert head.addressable_shards[0].data.shape == (8, 16)


def test_adapters_that_do_not_divide_lie_whole(adapted, batches):
  """Kernels of 2 heads of 8 lie on 1 x 3 x 1 devices no more than their adapters would."""
  c = dataclasses.replace(adapted.config.decoder, width=18)
  odd = JobRec(dataclasses.replace(adapted.config, decoder=c))
  params = init(odd, make_mesh(MeshConfig(1, 3, 1), jax.devices()[:3]), batches[0])
  spec = {name: x.sharding.spec for name, x in params['lora'].items()}
  assert 'fsdp' in spec['q_a'] and spec['q_b'] == PartitionSpec(None, None, None, None)


def test_a_mesh_axis_may_be_part_of_one_of_the_machine(monkeypatch):
  """As jax.make_mesh refuses (1, 64, 4) for the 16 x 16 of a TPU v6e pod."""
  asked = []

  def refuse(*args, **kwargs):
    raise NotImplementedError('Failed to find assignment for logical_axis_index 2 of size 4')

  def lay(shape, devices, **how):
    asked.append((shape, how))
    return np.array(devices).reshape(shape)
  monkeypatch.setattr(jax, 'make_mesh', refuse)
  monkeypatch.setattr(mesh_utils, 'create_device_mesh', lay)
  assert make_mesh(MeshConfig(1, 2, 4)).shape == {'data': 1, 'fsdp': 2, 'tensor': 4}
  assert asked == [((1, 2, 4), {'allow_split_physical_axes': True})]


@pytest.mark.parametrize('axes', [(8, 1, 1), (1, 4, 2), (1, 8, 1)], ids=str)
def test_abstract_arrays_lie_where_real_ones_do(adapted, batches, axes):
  mesh = make_mesh(MeshConfig(*axes))

  def make():
    return adapted.init(jax.random.key(0), *(batches[0][0][k] for k in ('candidate', 'job',
                                                                        'alignment')))['params']

  def places(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype.name, str(x.sharding)), tree)
  assert places(abstract_params(make, mesh)) == places(init_sharded(make, mesh))
  kinds = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batches[0])
  assert places(abstract_batch(kinds, mesh)) == places(shard_batch(batches[0], mesh))


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
