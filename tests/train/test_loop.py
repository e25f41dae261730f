import grain
import jax
import numpy as np
import pytest

from jobrec_jax.data.lists import PreferenceLists
from jobrec_jax.data.loader import iterate, list_dataset, preference_finisher
from jobrec_jax.sharding import MeshConfig, init_sharded, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints, load_params
from jobrec_jax.train.experts import frozen_in_warm_up, warm_up_loss
from jobrec_jax.train.loop import MetricsWriter, train
from jobrec_jax.train.state import (
  OptimizerConfig,
  create_state,
  make_optimizer,
  make_update,
  split_params,
)

IDENTITY = {'schema': 'abc', 'seed': 0}


@pytest.fixture(scope='module')
def warm_up(model, dataset, blocks):
  """(folder, steps) -> the state after a stage 1A of that many steps; four are planned."""
  mesh = make_mesh(MeshConfig())
  lists = PreferenceLists(dataset.interactions.of('train'), 3)
  tx = make_optimizer(OptimizerConfig(steps=4, learning_rate=1e-2))
  update = make_update(warm_up_loss(model), tx)

  def run(folder, steps, identity=None):
    data = iterate(list_dataset(lists, preference_finisher(blocks), 8, 0))
    state = create_state(*split_params({'model': first_params(model, blocks, mesh)},
                                       frozen_in_warm_up), tx)
    return train('warm_up', update, state, data, steps, jax.random.key(1), mesh,
                 Checkpoints(folder / 'checkpoints', identity or IDENTITY),
                 MetricsWriter(folder / 'metrics.jsonl'), log_every=1)
  return run


def first_params(model, blocks, mesh):
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  return init_sharded(lambda: model.init(jax.random.key(0), *lists.values())['params'], mesh)


@pytest.fixture(scope='module')
def finished(warm_up, tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  return folder, warm_up(folder, 4)


@pytest.mark.slow
def test_two_and_two_resumed_steps_equal_four_bit_for_bit(warm_up, finished, tmp_path):
  half = warm_up(tmp_path, 2)
  assert int(half.step) == 2
  resumed = warm_up(tmp_path, 4)
  folder, whole = finished
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(resumed), jax.device_get(whole))
  rows = [MetricsWriter(f / 'metrics.jsonl').read() for f in (folder, tmp_path)]
  assert rows[0] == rows[1] and [r['step'] for r in rows[0]] == [1, 2, 3, 4]


def test_a_complete_stage_is_restored_as_it_is(warm_up, finished):
  folder, whole = finished
  before = (folder / 'metrics.jsonl').read_text()
  again = warm_up(folder, 4)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(whole))
  assert (folder / 'metrics.jsonl').read_text() == before


def test_warm_up_leaves_the_qualification_expert_alone(model, blocks, finished):
  first = {'model': first_params(model, blocks, make_mesh(MeshConfig()))}
  trainable, frozen = split_params(jax.device_get(first), frozen_in_warm_up)
  _, state = finished
  assert set(frozen['model']) == {'qualification'}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.frozen), frozen)
  moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.trainable, trainable)
  assert all(jax.tree.leaves(moved))


def test_a_checkpoint_of_another_identity_is_refused(warm_up, finished):
  with pytest.raises(ValueError, match='written with seed=0, this run has 7'):
    warm_up(finished[0], 4, IDENTITY | {'seed': 7})


def test_params_load_without_the_program_that_wrote_them(finished, tmp_path):
  folder, state = finished
  params = load_params(folder / 'checkpoints', 'abc')
  assert {type(x) for x in jax.tree.leaves(params)} == {np.ndarray}
  jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(state.trainable))
  with pytest.raises(ValueError, match="written under schema 'abc', this schema is 'xyz'"):
    load_params(folder / 'checkpoints', 'xyz')
  with pytest.raises(ValueError, match='no checkpoint there'):
    load_params(tmp_path / 'nothing', 'abc')


def test_params_load_from_a_tuple(tmp_path):
  saved = ({'a': np.arange(3.0)}, {'multiplier': np.ones(())})
  checkpoints = Checkpoints(tmp_path, {'schema': 'abc'})
  checkpoints.save(1, saved)
  checkpoints.close()
  np.testing.assert_array_equal(load_params(tmp_path, 'abc')['a'], np.arange(3.0))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
  def update(state, batch, key):
    return state.replace(step=state.step + 1), {'train/loss': state.trainable['a'] / 0}

  tx = make_optimizer(OptimizerConfig(steps=4, learning_rate=1e-2))
  state = create_state({'a': jax.numpy.ones(())}, {}, tx)
  with pytest.raises(FloatingPointError, match='train/loss is inf at step 1'):
    train('broken', update, state, iter([np.ones(8)]), 4, jax.random.key(0),
          make_mesh(MeshConfig()), Checkpoints(tmp_path, {}), MetricsWriter(tmp_path / 'm'))


def test_no_checkpoint_holds_a_state_that_is_not_finite(tmp_path):
  """Between two logs too, and where the loss itself is still finite."""
  def update(state, batch, key):
    norm = jax.numpy.where(state.step == 2, jax.numpy.nan, 1.0)
    return state.replace(step=state.step + 1), {
        'train/loss': state.trainable['a'], 'train/grad_norm': norm}

  state = create_state({'a': jax.numpy.ones(())}, {}, make_optimizer(
      OptimizerConfig(steps=9, learning_rate=1e-2)))
  data = iterate(grain.MapDataset.range(8).map(lambda _: np.ones(8)))
  with pytest.raises(FloatingPointError, match=r'train/grad_norm is nan at step 3; .* at step 2'):
    train('broken', update, state, data, 9, jax.random.key(0), make_mesh(MeshConfig()),
          Checkpoints(tmp_path, {}), MetricsWriter(tmp_path / 'm'), log_every=9, save_seconds=0.0)


@pytest.mark.parametrize('change', [{'steps': 0}, {'clip': 0.0}, {'warmup': 4}, {'warmup': -1}])
def test_a_bad_optimizer_setting_is_named(change):
  with pytest.raises(ValueError, match=next(iter(change))):
    OptimizerConfig(**{'steps': 4, 'learning_rate': 1e-3} | change)
