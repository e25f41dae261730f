"""The loop: resumption, progress, metrics, and what is not finite."""

import itertools
import logging
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.sharding import MeshConfig, init_sharded, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.experts import Kind, frozen_in_warm_up, warm_up_loss
from jobrec_jax.train.loop import DivergenceError, Loop, MetricsWriter, train
from jobrec_jax.train.state import (
  OptimizerConfig,
  create_state,
  make_optimizer,
  make_update,
  split_params,
)
from tests.train import tiny


@pytest.fixture(scope='module')
def warm_up(model, dataset, blocks):
  """(folder, steps) -> the state after a stage 1A of that many steps; four are planned."""
  mesh = make_mesh(MeshConfig())
  kind = Kind('preference', 'candidate')
  lists = LabelledLists(dataset.interactions.of('train'), *kind, 3)
  tx = make_optimizer(OptimizerConfig(steps=4, learning_rate=1e-2, warmup=0))
  update = make_update(warm_up_loss(model, [kind], 1.0), tx)

  def run(folder, steps):
    data = list_dataset(lists, finisher(blocks, 'candidate'), 8, 0)
    state = create_state(*split_params({'model': first_params(model, blocks, mesh)},
                                       frozen_in_warm_up), tx)
    with Checkpoints(folder / 'checkpoints', tiny.IDENTITY) as checkpoints:
      loop = Loop('warm_up', steps, checkpoints, MetricsWriter(folder / 'metrics.jsonl'),
                  log_every=1)
      return train(loop, update, state, lambda step: iterate(data, start=step), jax.random.key(1),
                   mesh)
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
  rows = [tiny.rows(f) for f in (folder, tmp_path)]
  assert rows[0] == rows[1] and [r['step'] for r in rows[0]] == [1, 2, 3, 4]


def test_warm_up_leaves_the_qualification_expert_alone(model, blocks, finished):
  first = {'model': first_params(model, blocks, make_mesh(MeshConfig()))}
  trainable, frozen = split_params(jax.device_get(first), frozen_in_warm_up)
  _, state = finished
  assert set(frozen['model']) == {'qualification'}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.frozen), frozen)
  moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.trainable, trainable)
  assert all(jax.tree.leaves(moved))


@pytest.fixture(scope='module')
def ten_steps(tmp_path_factory):
  """(folder, state) of the tiny stage after ten steps without a break."""
  folder = tmp_path_factory.mktemp('ten')
  return folder, tiny.run(folder, 10)


def steps_in(folder):
  return sorted(int(path.name) for path in (folder / 'checkpoints').iterdir() if
                path.name.isdigit())


def same_as(ten_steps, folder, state):
  whole, expected = ten_steps
  assert tiny.bits(state) == tiny.bits(expected)
  rows = [tiny.rows(f) for f in (whole, folder)]
  assert rows[0] == rows[1] and [row['step'] for row in rows[0]] == list(range(1, 11))


def test_a_stage_in_five_pieces_equals_one_bit_for_bit(ten_steps, tmp_path):
  for steps in (1, 4, 5, 9):
    assert int(tiny.run(tmp_path, steps).step) == steps
  same_as(ten_steps, tmp_path, tiny.run(tmp_path, 10))
  assert steps_in(tmp_path) == steps_in(ten_steps[0]) == [9, 10]


def test_frozen_parameters_stay_whose_they_were(tmp_path):
  given = tiny.first_state()
  state = tiny.run(tmp_path, 2, state=given)
  assert given.trainable['a'].is_deleted()
  assert float(given.frozen['b']) == float(state.frozen['b']) == 1


def test_a_complete_stage_is_restored_as_it_is(ten_steps):
  folder, whole = ten_steps
  before = (folder / 'metrics.jsonl').read_bytes()
  assert tiny.bits(tiny.run(folder, 10)) == tiny.bits(whole)
  assert (folder / 'metrics.jsonl').read_bytes() == before


def test_the_last_step_is_on_disk_when_training_returns(tmp_path, monkeypatch):
  write = Checkpoints._write_record
  monkeypatch.setattr(Checkpoints, '_write_record', lambda self: (time.sleep(0.3), write(self)))
  with Checkpoints(tmp_path / 'checkpoints', tiny.IDENTITY) as checkpoints:
    loop = Loop('tiny', 2, checkpoints, MetricsWriter(tmp_path / 'metrics.jsonl'))
    train(loop, tiny.UPDATE, tiny.first_state(), tiny.batches, jax.random.key(1),
          make_mesh(MeshConfig()))
    assert steps_in(tmp_path) == [2]


def test_data_that_fail_lose_no_checkpoint_that_is_being_written(ten_steps, tmp_path):
  def failing(step):
    yield from itertools.islice(tiny.batches(step), 6)
    raise OSError('the disk of the data is gone')
  with pytest.raises(OSError, match='of the data'):
    tiny.run(tmp_path, 10, failing)
  assert steps_in(tmp_path) == [5, 6]
  same_as(ten_steps, tmp_path, tiny.run(tmp_path, 10))


def test_data_that_end_early_are_named(tmp_path):
  with pytest.raises(ValueError, match='tiny: data must last for 10 steps, ended after 3'):
    tiny.run(tmp_path, 10, lambda step: itertools.islice(tiny.batches(step), 3))


def broken_at(step, part):
  """The tiny update whose given part is NaN from this step on: scalar name, or 'state'."""
  def update(state, batch, key):
    state, scalars = tiny.UPDATE(state, batch, key)
    bad = jnp.where(state.step >= step, jnp.nan, 0.0)
    if part == 'state':
      return state.replace(trainable={'a': state.trainable['a'].at[1].add(bad)}), scalars
    return state, scalars | {part: scalars[part] + bad}
  return update


@pytest.mark.parametrize('part', ['train/loss', 'train/grad_norm'])
@pytest.mark.parametrize('log_every', [1, 100])
def test_a_scalar_that_is_not_finite_stops_the_run_before_a_checkpoint_or_a_row(
    part, log_every, tmp_path):
  message = (f'tiny: values must be finite, but {part} is nan at step 7; the newest checkpoint on '
             'disk is of step 6; try a lower learning_rate or a smaller clip')
  with pytest.raises(DivergenceError, match=message):
    tiny.run(tmp_path, 10, update=broken_at(7, part), log_every=log_every)
  assert steps_in(tmp_path) == [5, 6]
  assert max(row['step'] for row in MetricsWriter(tmp_path / 'metrics.jsonl').read()) < 7


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
  """Where loss and gradient of that step still are, and no log step would have looked."""
  with pytest.raises(DivergenceError, match=re.escape(
      "but state.trainable['a'] is not finite at step 4; the newest checkpoint on disk is of "
      'step 3')):
    tiny.run(tmp_path, 10, update=broken_at(4, 'state'), log_every=100)
  assert steps_in(tmp_path) == [2, 3]


def test_a_first_step_that_diverges_names_no_checkpoint(tmp_path):
  with pytest.raises(DivergenceError, match='is nan at step 1; no checkpoint is on disk; try'):
    tiny.run(tmp_path, 10, update=broken_at(1, 'train/loss'))
  assert not steps_in(tmp_path)


def test_the_time_left_leaves_out_the_step_that_compiles(tmp_path, caplog, monkeypatch):
  """The clock: 100 s for the first step, then 2 s each; three of these make an estimate."""
  calls = {'update': 0}
  now = [0.0]

  def slow(step):
    for batch in tiny.batches(step):
      now[0] += 2.0 if calls['update'] else 100.0
      calls['update'] += 1
      yield batch
  monkeypatch.setattr('jobrec_jax.train.decisions.time.monotonic', lambda: now[0])
  with caplog.at_level(logging.INFO, 'absl'):
    tiny.run(tmp_path, 6, slow, save_seconds=1e9)
  lines = [re.sub(r'loss [\d.]+', 'loss', r.getMessage()) for r in caplog.records
           if r.getMessage().startswith('tiny')]
  assert lines == ['tiny: compiling step 1 of 6', 'tiny: step 1/6, loss',
                   'tiny: step 2/6, loss', 'tiny: step 3/6, loss',
                   'tiny: step 4/6, loss, about 4 s left', 'tiny: step 5/6, loss, about 2 s left',
                   'tiny: step 6/6, loss']
  times = [{k: v for k, v in row.items() if k == 'speed/step_seconds'}
           for row in MetricsWriter(tmp_path / 'metrics.jsonl').read()]
  assert times == [{}] + 5 * [{'speed/step_seconds': 2.0}]


@pytest.fixture
def metrics(tmp_path):
  """A writer with two rows."""
  writer = MetricsWriter(tmp_path / 'metrics.jsonl')
  writer.write(stage='a', step=1, loss=2.0)
  writer.write(stage='a', step=2, loss=1.0)
  return writer


@pytest.mark.parametrize('cut', [b'{"stage": "a", "st', b'{', b'\x00\x00', b'{"stage": "\xc3'])
def test_a_cut_last_line_is_left_out_and_the_next_row_takes_its_place(
    cut, metrics, tmp_path, caplog):
  path = tmp_path / 'metrics.jsonl'
  whole = path.read_bytes()
  path.write_bytes(whole + cut)
  assert [row['step'] for row in metrics.read()] == [1, 2]
  assert f'{path}:3: the last line is cut; left out' in caplog.text
  metrics.write(stage='a', step=3, loss=0.5)
  assert path.read_bytes() == whole + b'{"stage": "a", "step": 3, "loss": 0.5}\n'
  assert [row['step'] for row in metrics.read()] == [1, 2, 3]


def test_a_last_line_that_lacks_its_end_alone_is_kept(metrics, tmp_path, caplog):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes()[:-1])
  assert [row['step'] for row in metrics.read()] == [1, 2]
  metrics.write(stage='a', step=3)
  assert [row['step'] for row in metrics.read()] == [1, 2, 3] and not caplog.records


@pytest.mark.parametrize('line', [
    b'{"stage": "a", "st', b'', b'[1]', b'{"stage": "a"}', b'{"stage": "a", "step": NaN}', b'\xff',
    b'{"stage": "a", "step": 1, "step": 2}'])
def test_a_broken_line_in_the_middle_is_named(line, metrics, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(line + b'\n' + path.read_bytes())
  with pytest.raises(ValueError, match=f"^{path}:1: must be a JSON object with 'stage' and 'step', "
                                       'got .* remove this line'):
    metrics.read()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused(value, metrics, tmp_path):
  before = (tmp_path / 'metrics.jsonl').read_bytes()
  with pytest.raises(ValueError, match=r'metrics.jsonl: loss must be finite, got -?(nan|inf)'):
    metrics.write(stage='a', step=3, loss=value)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_metrics_that_cannot_be_written_are_named(tmp_path):
  (tmp_path / 'metrics.jsonl').mkdir()
  with pytest.raises(ValueError, match=r'metrics.jsonl: must be a file .*, got Is a dir'):
    MetricsWriter(tmp_path / 'metrics.jsonl').write(stage='a', step=1)


@pytest.mark.parametrize('change', [{'steps': 0}, {'clip': 0.0}, {'warmup': 4}, {'warmup': -1}])
def test_a_bad_optimizer_setting_is_named(change):
  with pytest.raises(ValueError, match=next(iter(change))):
    OptimizerConfig(**{'steps': 4, 'learning_rate': 1e-3} | change)
