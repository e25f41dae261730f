"""Two processes of two devices each equal one process; whatever ends one ends both."""

import re
import signal

import jax
import numpy as np
import pytest

from jobrec_jax.job import Job
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints
from tests.processes import launch, worker
from tests.train import tiny


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """What two processes left; of one stage, one process had made half."""
  folder = tmp_path_factory.mktemp('two')
  tiny.run(folder / 'resumed', 6)
  return folder


@pytest.fixture(scope='module')
def ended(folder):
  return launch.two(['tests.processes.worker', 'steps', str(folder), '{port}', '{process}'])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """Rows of the tiny stage in one process."""
  folder = tmp_path_factory.mktemp('one')
  tiny.run(folder, 12)
  return tiny.rows(folder)


def same_rows(found, expected):
  assert [r['step'] for r in found] == [r['step'] for r in expected]
  for name in ('train/loss', 'train/grad_norm'):
    np.testing.assert_allclose([r[name] for r in found], [r[name] for r in expected], rtol=1e-5)


@pytest.fixture(scope='module')
def alone():
  """Stage -> losses and parameters of one device of one process."""
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  return {stage: worker.few_steps(stage, mesh) for stage in worker.STAGES}


@pytest.fixture(scope='module')
def wide():
  """The same of stage 1B with as many heads as eight devices divide."""
  return worker.few_steps('1B', make_mesh(MeshConfig(), jax.devices()[:1]), worker.WIDE)


def same_steps(found, expected):
  assert set(found) == set(expected)
  for name in expected:
    np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('grid', worker.GRIDS, ids=str)
def test_eight_devices_of_one_process_train_as_one_does(wide, grid):
  same_steps(worker.few_steps('1B', make_mesh(MeshConfig(*grid)), worker.WIDE), wide)


@pytest.mark.slow
@pytest.mark.parametrize('count', [2, 4])
def test_eight_devices_of_several_processes_train_as_one_does(wide, tmp_path, count):
  command = ['tests.processes.worker', 'grids', str(tmp_path), '{port}', '{process}', str(count)]
  ended = launch.several(command, count, 8 // count)
  assert [e.status for e in ended] == [0] * count, ended
  for grid in worker.GRIDS[2:]:
    for process in range(count):
      same_steps(np.load(tmp_path / f'{grid}-{process}.npz'), wide)


@pytest.mark.slow
@pytest.mark.parametrize('stage, mesh', [('1A', 'tensor'), ('1B', 'data'), ('1B', 'tensor')])
def test_two_processes_train_as_one_does(ended, folder, alone, stage, mesh):
  """Dropout is on, and a tensor axis goes from process to process: both read the same lists."""
  for process in range(2):
    same_steps(np.load(folder / f'{stage}-{mesh}-{process}.npz'), alone[stage])


@pytest.mark.slow
def test_saves_by_the_clock_are_of_one_step_in_all(ended, folder, whole):
  """Each process has a clock of its own; a save that one begins alone would wait for ever."""
  same_rows(tiny.rows(folder / 'clock'), whole)
  with Checkpoints(folder / 'clock' / 'checkpoints', tiny.IDENTITY) as checkpoints:
    assert checkpoints.latest() == 12


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(ended, folder, whole):
  same_rows(tiny.rows(folder / 'resumed'), whole)
  assert any('resumed at step 6 of 12' in line for line in ended[1].said)


@pytest.mark.slow
def test_sigterm_to_one_process_saves_one_step_and_ends_both(ended, folder, tmp_path):
  assert [e.status for e in ended] == [143, 143]
  saved = [line.split('interrupted; ')[1] for e in ended for line in e.said
           if 'tiny: interrupted' in line]
  with Checkpoints(folder / 'signal' / 'checkpoints', tiny.IDENTITY) as checkpoints:
    step = checkpoints.latest()
  assert worker.SIGNALLED < step < worker.LONG
  assert saved == [f'saved at step {step} of {worker.LONG}'] * 2
  tiny.run(folder / 'signal', step + 3)  # by one process
  tiny.run(tmp_path, step + 3)
  same_rows(tiny.rows(folder / 'signal'), tiny.rows(tmp_path))


@pytest.mark.slow
def test_what_one_process_raises_ends_both_and_names_it(tmp_path):
  ended = launch.two(['tests.processes.worker', 'failing', str(tmp_path), '{port}', '{process}'], 1)
  assert [e.status for e in ended] == [2, 2]
  assert ended[1].said[-1] == 'error: the data of this process are gone'
  named, = (line for line in ended[0].said if line.startswith('process 1 on '))
  assert named.endswith(' ended the job: error: the data of this process are gone')


@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_which_names_it(tmp_path):
  ended = launch.two(['tests.processes.worker', 'dying', str(tmp_path), '{port}', '{process}'], 1)
  assert ended[1].status == -signal.SIGKILL and ended[0].status != 0
  assert any(re.fullmatch(r'process 1 on \S+ has not been heard of for \d+ s', line)
             for line in ended[0].said)


@pytest.mark.slow
def test_the_first_process_that_dies_ends_the_other_which_names_it(tmp_path):
  command = ['tests.processes.worker', 'first dying', str(tmp_path), '{port}', '{process}']
  ended = launch.two(command, 1)
  assert ended[0].status == -signal.SIGKILL and ended[1].status == 1, ended
  assert any(re.fullmatch(r'process 0 at 127\.0\.0\.1:\d+, which the others need, is gone', line)
             for line in ended[1].said)


@pytest.mark.slow
@pytest.mark.parametrize('role', ['sleeping', 'scoring'])
def test_a_process_that_sleeps_over_its_data_is_named_and_ends_both(role, tmp_path):
  """It lives, so that nothing else finds it; where the others wait for it is no matter."""
  command = ['tests.processes.worker', role, str(tmp_path), '{port}', '{process}']
  ended = launch.two(command, 1)
  assert [e.status for e in ended] == [1, 1], ended
  named = r'process 1 on \S+ has not made its batch for \d+ s, while others wait for it; .*'
  assert any(re.fullmatch(named, line) for line in ended[0].said)
  assert any(re.fullmatch(rf'process 0 on \S+ ended the job: {named}', line)
             for line in ended[1].said)


@pytest.mark.parametrize('given, message', [
    (('host', 2, 0), "--coordinator must be HOST:PORT or 'auto', got 'host'"),
    (('host:1', None, 0), '--processes must be at least 1 beside --coordinator, got None'),
    (('host:1', 2, 2), r'--process must lie in \[0, 2\), got 2'),
    (('auto', None, None, 0), '--heartbeat_seconds must be at least 1, got 0'),
    (('host:1', 2, None), r'--process must lie in \[0, 2\), got None')])
def test_a_flag_that_cannot_be_is_named(given, message):
  with pytest.raises(ValueError, match=message):
    Job(*given)
  assert Job('auto').coordinator == 'auto' and Job('host:1', 2, 1).process == 1
