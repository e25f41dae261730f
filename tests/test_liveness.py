"""Beats of processes: who is named as silent, and who as the one that the others wait for."""

import io
import subprocess
import sys
import threading
import time

from jobrec_jax.liveness import PATIENCE, Beat, Liveness, hold_line, told_if_longer


def test_who_is_silent_for_a_quarter_of_the_limit_is_named_once():
  live = Liveness(heartbeat=20)
  assert not live.silent({0: Beat(0, 'a'), 1: Beat(0, 'b')}, 0.0)
  assert not live.silent({0: Beat(1, 'a'), 1: Beat(0, 'b')}, 5.0)
  assert live.silent({0: Beat(2, 'a'), 1: Beat(0, 'b')}, 6.0) == [
      'process 1 on b has not been heard of for 6 s']
  assert not live.silent({0: Beat(3, 'a'), 1: Beat(0, 'b')}, 9.0)


def test_who_makes_no_batch_while_another_has_made_it_is_named():
  live = Liveness(heartbeat=30)
  beats = {0: Beat(0, 'a', made=5), 1: Beat(0, 'b', made=4, making=True)}
  assert live.stuck(beats, 100.0) is None
  assert live.stuck(beats, 100.0 + PATIENCE) is None
  assert live.stuck(beats, 101.0 + PATIENCE).startswith(
      f'process 1 on b has not made its batch for {PATIENCE + 1:.0f} s')


def test_who_makes_batches_however_slowly_is_not_named():
  live = Liveness(heartbeat=30)
  for k in range(9):
    beats = {0: Beat(k, 'a', made=k + 1), 1: Beat(k, 'b', made=k, making=True)}
    assert live.stuck(beats, k * 0.9 * PATIENCE) is None


def test_nobody_is_named_where_nobody_waits():
  """All are at the same batch, or the one behind does something else: compiles, saves, measures."""
  live = Liveness(heartbeat=30)
  for now in (0.0, 3 * PATIENCE):
    assert live.stuck({0: Beat(0, 'a', 4, True), 1: Beat(0, 'b', 4, True)}, now) is None
    assert live.stuck({0: Beat(0, 'a', 5), 1: Beat(0, 'b', 4)}, now) is None
    assert live.stuck({}, now) is None


def test_waiting_is_counted_from_when_others_began_to_wait():
  live = Liveness(heartbeat=30)
  alone, behind = ({0: Beat(0, 'a', made, made == 4), 1: Beat(0, 'b', 4, True)} for made in (4, 5))
  assert live.stuck(alone, 0.0) is None
  assert live.stuck(behind, 2 * PATIENCE) is None
  assert live.stuck(alone, 2.5 * PATIENCE) is None
  assert live.stuck(behind, 3.5 * PATIENCE) is None
  assert live.stuck(behind, 4.6 * PATIENCE) is not None


def test_a_line_is_cut_when_the_process_that_opened_it_dies_and_not_before():
  code = 'from jobrec_jax.liveness import open_line; print(open_line(), flush=True); input()'
  cut = threading.Event()
  with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                        text=True) as process:
    port = int(process.stdout.readline())
    hold_line('127.0.0.1', port, cut.set)
    hold_line('127.0.0.1', port, lambda: None)
    assert not cut.wait(0.5)
    process.kill()
    assert cut.wait(60)
  hold_line('127.0.0.1', port, cut.clear)  # nobody listens: nothing is held
  assert cut.is_set()


def test_only_what_takes_longer_is_told(monkeypatch):
  told = io.StringIO()  # capfd loses what is written while it is read
  monkeypatch.setattr(sys, 'stderr', told)
  with told_if_longer(60, 'in vain'):
    pass
  with told_if_longer(0.01, 'process 0 has not been heard of'):
    while not told.getvalue().endswith('\n'):  # the line and its end may come in two writes
      time.sleep(0.01)
  assert told.getvalue() == 'process 0 has not been heard of\n'
