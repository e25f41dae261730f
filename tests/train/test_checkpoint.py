"""Checkpoints: what is restored, and from which of several when some are damaged."""

import contextlib
import os
import resource
import shutil

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from jobrec_jax import processes
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.ahead import abstract_state
from jobrec_jax.train.checkpoint import Checkpoints, NotFiniteError
from tests.train import tiny

IDENTITY = {'schema': 'abc', 'seed': 0}
LIKE = {'a': jnp.zeros(3), 'b': {'c': jnp.zeros((2, 4), jnp.bfloat16), 'n': jnp.zeros((), int)}}


def state(value):
  return jax.tree.map(lambda x: x + jnp.asarray(value, x.dtype), LIKE)


def opened(folder, identity=None):
  return Checkpoints(folder, identity or IDENTITY)


@pytest.fixture
def folder(tmp_path):
  """Checkpoints of steps 1, 2 and 3 were saved, each with its step as value."""
  with opened(tmp_path / 'c') as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, state(step))
  return tmp_path / 'c'


def restored(folder):
  """The step that all arrays speak for; None if nothing is restored."""
  with opened(folder) as checkpoints:
    found = checkpoints.restore(LIKE)
  if found is None:
    return None
  value = int(found['b']['n'])
  jax.tree.map(np.testing.assert_array_equal, found, state(value))
  assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, LIKE)
  return value


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_restored_and_two_are_kept(folder, caplog):
  assert names(folder) == ['2', '3']
  assert restored(folder) == 3 and not caplog.records


def test_where_there_is_none_nothing_is_restored(tmp_path):
  with opened(tmp_path / 'new') as checkpoints:
    assert checkpoints.restore(LIKE) is None and checkpoints.latest() is None


def test_the_newest_step_is_on_disk_once_it_is_named(tmp_path):
  with opened(tmp_path) as checkpoints:
    checkpoints.save(4, state(4))
    assert checkpoints.latest() == 4 and (tmp_path / '4/record.json').exists()


def test_another_identity_is_refused(folder):
  with (pytest.raises(ValueError, match='written with seed=0, this run has 7'),
        opened(folder, IDENTITY | {'seed': 7}) as checkpoints):
    checkpoints.restore(LIKE)
  assert restored(folder) == 3


def test_an_identity_that_is_not_finite_is_refused(tmp_path):
  with pytest.raises(ValueError, match='identity must hold finite numbers, got'):
    Checkpoints(tmp_path, {'rate': float('nan')})


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(value, folder):
  bad = LIKE | {'a': jnp.array([0.0, value, 0.0])}
  with (opened(folder) as checkpoints,
        pytest.raises(NotFiniteError, match=r"state\['a'\] is not finite")):
    checkpoints.save(4, bad)
  assert names(folder) == ['2', '3']


DAMAGE = {
    'cut': lambda data: data[:len(data) // 2],
    'emptied': lambda data: b'',
    'foreign': lambda data: b'{"a": [1]}',
    'flipped': lambda data: bytes([*data[:len(data) // 2], data[len(data) // 2] ^ 1,
                                   *data[len(data) // 2 + 1:]]),
    'removed': None,
}
# Orbax's own notes, without which it reads the rest; they hold nothing of the state.
SPARE = {'_CHECKPOINT_METADATA', 'commit_success.txt'}


def damage(path, kind):
  if DAMAGE[kind] is None:
    path.unlink()
  else:
    path.write_bytes(DAMAGE[kind](path.read_bytes()))


@pytest.mark.parametrize('kind', DAMAGE)
def test_any_damaged_file_of_the_newest_makes_the_older_one_be_restored(
    kind, folder, tmp_path, caplog, capfd):
  files = [path.relative_to(folder) for path in (folder / '3').rglob('*') if path.is_file()]
  assert len(files) > 8
  for k, file in enumerate(files):
    copy = tmp_path / f'copy{k}'
    shutil.copytree(folder, copy)
    damage(copy / file, kind)
    caplog.clear()
    messages = []
    if str(file.relative_to('3')) in SPARE:
      assert restored(copy) == 3
    else:
      assert restored(copy) == 2
      messages = [f'{copy}/3: damaged, renamed to 3.damaged; going on from step 2 (']
      assert names(copy) == ['2', '3.damaged']
    assert len(caplog.records) == len(messages)
    assert all(r.getMessage().startswith(m) for r, m in zip(caplog.records, messages))
  assert 'Traceback' not in capfd.readouterr().err


@pytest.mark.parametrize('kind', ['cut', 'emptied', 'foreign', 'flipped'])
def test_training_goes_on_from_the_older_one_with_the_same_bits(kind, tmp_path):
  whole = tiny.bits(tiny.run(tmp_path / 'whole', 6))
  tiny.run(tmp_path / 'hurt', 4)
  for file in (tmp_path / 'hurt/checkpoints/4/state').rglob('*'):
    if file.is_file():
      damage(file, kind)
  assert tiny.bits(tiny.run(tmp_path / 'hurt', 6)) == whole
  assert names(tmp_path / 'hurt/checkpoints') == ['4.damaged', '5', '6']


def test_a_damaged_step_can_be_saved_again_and_be_damaged_again(folder):
  for _ in range(2):
    damage(folder / '3/record.json', 'cut')
    assert restored(folder) == 2
    with opened(folder) as checkpoints:
      checkpoints.restore(LIKE)
      checkpoints.save(3, state(3))
    assert names(folder) == ['2', '3', '3.damaged'] and restored(folder) == 3


@pytest.mark.parametrize('hurt', [
    lambda c: (c / '999').mkdir(), lambda c: (c / '999').write_text('x'),
    lambda c: (c / 'notes').write_text('x'), lambda c: (c / '4.orbax-checkpoint-tmp').mkdir()],
    ids=['empty folder', 'file', 'name', 'unfinished'])
def test_what_lies_beside_is_passed_over(hurt, folder):
  hurt(folder)
  assert restored(folder) == 3
  assert not list(folder.glob('*tmp*'))


def test_a_checkpoint_under_another_step_is_damaged(folder, caplog):
  os.rename(folder / '3', folder / '8')
  assert restored(folder) == 2 and '/8: must be of step 8, got step 3' in caplog.text


def test_a_record_that_was_changed_is_damage_and_no_other_identity(folder, caplog):
  record = folder / '3/record.json'
  record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
  assert restored(folder) == 2 and '3/record.json: must be as it was written' in caplog.text


def test_a_whole_part_of_another_checkpoint_is_damage(folder):
  shutil.rmtree(folder / '3/state')
  shutil.copytree(folder / '2/state', folder / '3/state')
  assert restored(folder) == 2


@pytest.mark.parametrize('like', [
    LIKE | {'a': jnp.zeros(4)}, LIKE | {'a': jnp.zeros(3, jnp.bfloat16)}, {'a': LIKE['a']},
    LIKE | {'z': LIKE['a']}], ids=['shape', 'type', 'fewer', 'more'])
def test_another_form_is_refused_and_nothing_is_renamed(like, folder):
  with (pytest.raises(ValueError, match=r"got damaged ones alone \(3: array \['.*must be"),
        opened(folder) as checkpoints):
    checkpoints.restore(like)
  assert names(folder) == ['2', '3']


def test_where_none_is_whole_one_line_says_what_to_delete(folder, caplog, capfd):
  damage(folder / '2/record.json', 'removed')
  damage(next((folder / '3/state/d').iterdir()), 'flipped')
  with pytest.raises(ValueError) as error, opened(folder) as checkpoints:
    checkpoints.restore(LIKE)
  message = str(error.value)
  assert message.startswith(f'{folder}: must hold a whole checkpoint, got damaged ones alone (3: ')
  assert message.endswith('delete this folder to start the stage anew') and '\n' not in message
  assert names(folder) == ['2', '3'] and not caplog.records
  assert 'Traceback' not in capfd.readouterr().err


def test_arrays_are_laid_out_as_asked(folder):
  sharding = NamedSharding(make_mesh(MeshConfig()), PartitionSpec(None, 'data'))
  wide = {'w': jax.device_put(jnp.arange(32.0).reshape(2, 16), sharding)}
  with opened(folder.parent / 'wide') as checkpoints:
    checkpoints.save(1, wide)
  like = {'w': jax.ShapeDtypeStruct((2, 16), jnp.float32, sharding=jax.sharding.
                                    SingleDeviceSharding(jax.devices()[3]))}
  with opened(folder.parent / 'wide') as checkpoints:
    there = checkpoints.restore(wide)['w'], checkpoints.restore(like)['w']
  assert there[0].sharding == sharding and there[1].devices() == {jax.devices()[3]}
  for array in there:
    np.testing.assert_array_equal(array, wide['w'])


def state_on(model, devices, data, fsdp, tensor):
  """Shapes and places of a training state of `model`, its moments and best parameters among it."""
  mesh = make_mesh(MeshConfig(data, fsdp, tensor), jax.devices()[:devices])

  def init():
    texts = jnp.zeros((1, 8), int), jnp.zeros((1, 1, 8), int), jnp.zeros((1, 1, 4), int)
    return model.init(jax.random.key(0), *texts)['params']
  state = abstract_state(init, lambda path: False, 'float32', tiny.TX, True, mesh)
  return state.replace(frozen=())


@pytest.mark.parametrize('wrote', [(1, 1, 1, 1), (8, 2, 2, 2)], ids=str)
def test_any_number_of_devices_reads_the_same_bits(wrote, model, tmp_path):
  rng = np.random.default_rng(0)
  saved = jax.tree.map(lambda x: jax.device_put(
      np.frombuffer(rng.bytes(x.size * x.dtype.itemsize), np.uint8).view(
          np.uint32).astype(x.dtype).reshape(x.shape), x.sharding), state_on(model, *wrote))
  with Checkpoints(tmp_path, IDENTITY) as checkpoints:
    checkpoints.save(1, saved)
    checkpoints.wait()
    for mesh in (1, 1, 1, 1), (2, 1, 2, 1), (2, 1, 1, 2), (8, 8, 1, 1), (8, 2, 2, 2):
      like = state_on(model, *mesh)
      found = checkpoints.restore(like)
      assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, like)
      assert any(len(x.sharding.device_set) == mesh[0] for x in jax.tree.leaves(found))
      assert tiny.bits(found) == tiny.bits(saved)


@contextlib.contextmanager
def full_disk(size):
  """Files can grow to this size alone."""
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize('fits', ['nothing', 'the state'])
def test_a_full_disk_is_named_and_the_older_ones_stay(fits, folder, caplog, capfd):
  record = (folder / '3/record.json').stat().st_size
  state_files = max(f.stat().st_size for f in (folder / '3/state').rglob('*') if f.is_file())
  assert state_files + 100 < record
  with (full_disk(1 if fits == 'nothing' else (state_files + record) // 2),
        pytest.raises(ValueError, match=r'^[^\n]*/c: must be a folder with space'),
        opened(folder) as checkpoints):
    checkpoints.save(4, state(4))
  assert not caplog.records and 'Traceback' not in capfd.readouterr().err
  assert restored(folder) == 3
  with opened(folder) as checkpoints:  # Orbax's threads may still be busy with step 4.
    checkpoints.save(5, state(5))
  assert names(folder)[:2] == ['3', '5'] and restored(folder) == 5


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='file/c: must be a folder with space to write, got: '
                                       'NotADirectoryError'):
    opened(tmp_path / 'file/c')


def test_an_error_in_the_block_is_not_hidden_by_one_at_its_end(folder, caplog):
  with full_disk(1), pytest.raises(KeyError, match='mine'), opened(folder) as checkpoints:
    checkpoints.save(4, state(4))
    raise KeyError('mine')
  assert 'must be a folder with space' in caplog.text


def test_the_death_of_another_process_is_not_blamed_on_the_disk(folder, monkeypatch):
  gone = jax.errors.JaxRuntimeError('UNKNOWN: Gloo AllGather failed: Connection closed by peer')
  broken = ValueError(str(gone))  # as JAX raises some

  def closed():
    raise error
  with opened(folder) as checkpoints, monkeypatch.context() as patched:
    patched.setattr(checkpoints._manager, 'wait_until_finished', closed)
    patched.setattr(processes, 'several', lambda: True)
    for error in gone, broken:
      with pytest.raises(type(error), match=r'^UNKNOWN: Gloo AllGather failed'):
        checkpoints.wait()
    error = OSError(28, 'No space left on device')
    with pytest.raises(ValueError, match='must be a folder with space to write, got: OSError'):
      checkpoints.wait()
