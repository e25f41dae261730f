"""Signals: in this process, and sent to a script that trains."""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from jobrec_jax.train import signals
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.signals import Interrupted, deferred_signals, raise_on_signals
from tests.train import tiny

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def handlers():
  """Leaves the handlers of this process as they were; SIGINT is not ignored inside."""
  old = {signum: signal.getsignal(signum) for signum in BOTH}
  signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  for signum, handler in old.items():
    signal.signal(signum, handler)


def send(signum):
  signal.raise_signal(signum)


@pytest.mark.parametrize('signum', BOTH)
def test_a_signal_is_raised_at_the_end_of_the_block_under_the_old_handlers(signum):
  old = {s: signal.getsignal(s) for s in BOTH}
  after = []
  with (pytest.raises(Interrupted, match='interrupted; the same command resumes') as error,
        deferred_signals() as received):
    assert received.signum is None
    send(signum)
    after.append(received.signum)
  assert after == [signum] and error.value.exit_status == 128 + signum
  assert {s: signal.getsignal(s) for s in BOTH} == old


@pytest.mark.parametrize('second', BOTH)
@pytest.mark.parametrize('first', BOTH)
def test_a_second_signal_raises_at_once(first, second, monkeypatch):
  monkeypatch.setattr(signals, 'ECHO', 0.0)
  reached = []
  with pytest.raises(Interrupted) as error, deferred_signals():
    send(first)
    time.sleep(0.001)
    reached.append('first')
    send(second)
    reached.append('second')
  assert reached == ['first'] and error.value.signum == second


def test_a_signal_sent_twice_in_a_row_counts_once(monkeypatch):
  monkeypatch.setattr(signals, 'ECHO', 60.0)
  reached = []
  with pytest.raises(Interrupted), deferred_signals():
    send(signal.SIGTERM)
    send(signal.SIGTERM)
    reached.append('end')
  assert reached == ['end']


def test_no_except_exception_swallows_it():
  assert not issubclass(Interrupted, Exception)


def test_an_error_of_the_block_comes_first():
  with pytest.raises(ValueError, match='mine'), deferred_signals():
    send(signal.SIGINT)
    raise ValueError('mine')
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored():
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  with deferred_signals() as received:
    send(signal.SIGINT)
  assert received.signum is None and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_another_thread_defers_nothing():
  results = []

  def block():
    with deferred_signals() as received:
      results.append(received.signum)
  thread = threading.Thread(target=block)
  thread.start()
  thread.join()
  assert results == [None]


def test_outside_training_sigterm_raises_and_sigint_stays_as_it_is():
  raise_on_signals()
  with pytest.raises(Interrupted) as error:
    send(signal.SIGTERM)
  assert error.value.exit_status == 143
  with pytest.raises(KeyboardInterrupt):
    send(signal.SIGINT)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """(bits, rows) of twelve steps of the tiny stage without a break, in a process of its own."""
  folder = tmp_path_factory.mktemp('whole')
  process = start(folder)
  assert process.wait() == 0
  return process.stdout.read(), tiny.rows(folder)


def start(folder, pause=-1, save_seconds=1e9, steps=12):
  return subprocess.Popen(
      [sys.executable, '-m', 'tests.train.tiny', str(folder), str(steps), str(pause),
       str(save_seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
      text=True, env=os.environ | {'XLA_FLAGS': ''})


def resumes_to(whole, folder):
  process = start(folder)
  bits, errors = process.communicate()
  assert process.returncode == 0, errors
  assert (bits, tiny.rows(folder)) == whole
  return errors


def newest(folder):
  with Checkpoints(folder / 'checkpoints', tiny.IDENTITY) as checkpoints:
    return checkpoints.latest()


@pytest.mark.parametrize('signum', BOTH)
def test_a_signal_saves_the_step_that_it_came_in(signum, whole, tmp_path):
  process = start(tmp_path, pause=6)
  assert process.stdout.readline() == 'paused\n'
  process.send_signal(signum)
  _, errors = process.communicate('go on\n')
  assert process.returncode == 128 + signum
  assert 'tiny: interrupted; saved at step 7 of 12' in errors
  assert errors.splitlines()[-1] == 'interrupted; the same command resumes'
  assert 'Traceback' not in errors
  assert newest(tmp_path) == 7
  assert 'tiny: resumed at step 7 of 12' in resumes_to(whole, tmp_path)


def test_a_second_sigint_ends_a_step_that_does_not_end(whole, tmp_path):
  process = start(tmp_path, pause=6, save_seconds=0)
  assert process.stdout.readline() == 'paused\n'
  process.send_signal(signal.SIGINT)
  time.sleep(0.5)  # The two would be one for a process that has not seen the first.
  process.send_signal(signal.SIGINT)
  process.wait()
  errors = process.stderr.read()
  assert process.returncode == 130 and 'Traceback' not in errors
  assert errors.splitlines()[-1] == 'interrupted; the same command resumes'
  assert newest(tmp_path) == 6
  resumes_to(whole, tmp_path)


@pytest.mark.parametrize('signum', BOTH)
def test_a_second_signal_while_saving_raises_and_the_checkpoint_is_whole(
    signum, tmp_path, monkeypatch):
  expected = tiny.bits(tiny.run(tmp_path / 'whole', 6))
  monkeypatch.setattr(signals, 'ECHO', 0.0)
  save, reached = Checkpoints.save, []

  def save_and_send(checkpoints, step, state):
    save(checkpoints, step, state)  # It is being written now.
    send(signum)
    reached.append(step)

  def interrupting(step):
    for batch in tiny.batches(step):
      if step == 3:
        send(signum)
      step += 1
      yield batch
  monkeypatch.setattr(Checkpoints, 'save', save_and_send)
  with pytest.raises(Interrupted) as error:
    tiny.run(tmp_path / 'hurt', 6, interrupting, save_seconds=1e9)
  assert error.value.signum == signum and not reached
  monkeypatch.setattr(Checkpoints, 'save', save)
  assert newest(tmp_path / 'hurt') == 4
  assert tiny.bits(tiny.run(tmp_path / 'hurt', 6)) == expected


def test_a_signal_in_the_last_step_is_raised_once_all_is_done(whole, tmp_path):
  process = start(tmp_path, pause=11)
  assert process.stdout.readline() == 'paused\n'
  process.send_signal(signal.SIGTERM)
  process.communicate('go on\n')
  assert process.returncode == 143 and newest(tmp_path) == 12
  resumes_to(whole, tmp_path)


def test_damaged_checkpoints_alone_end_a_script_with_one_line(tmp_path):
  tiny.run(tmp_path, 3)
  for path in (tmp_path / 'checkpoints').glob('*/state/d/*'):
    path.write_bytes(path.read_bytes()[:20])
  process = start(tmp_path)
  _, errors = process.communicate()
  assert process.returncode == 2
  line, = errors.splitlines()
  assert line.startswith(f'{tmp_path}/checkpoints: must hold a whole checkpoint')


@pytest.mark.slow
def test_a_process_killed_at_random_moments_resumes_to_the_same_bits(tmp_path):
  """Every step is saved, so that most kills meet a checkpoint that is being written."""
  steps = 60
  process = start(tmp_path / 'whole', save_seconds=0, steps=steps)
  bits, _ = process.communicate()
  rng = random.Random(0)
  for _ in range(5):
    process = start(tmp_path / 'hurt', save_seconds=0, steps=steps)
    while process.poll() is None:
      line = process.stderr.readline()  # so that each process gets a little further
      if 'step' in line and 'loss' in line:
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
  process = start(tmp_path / 'hurt', save_seconds=0, steps=steps)
  resumed, errors = process.communicate()
  assert process.returncode == 0 and resumed == bits, errors
  assert 'resumed at step' in errors
  rows = [tiny.rows(tmp_path / name) for name in ('whole', 'hurt')]
  assert rows[0] == rows[1]
