"""When a stage saves and stops: by one process's clock, or as process 0 of several says."""

import signal

import pytest

from jobrec_jax import processes
from jobrec_jax.train import decisions
from jobrec_jax.train.decisions import TELL, Decisions
from jobrec_jax.train.signals import Received


@pytest.fixture
def clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(decisions.time, 'monotonic', lambda: now[0])
  return now


@pytest.fixture
def first(monkeypatch):
  """Process 0 of several: the signals of all, and what it told the others."""
  signals, told = {}, []
  monkeypatch.setattr(processes, 'several', lambda: True)
  monkeypatch.setattr(processes, 'left', lambda name: signals)
  monkeypatch.setattr(processes, 'tell_first', lambda name, value: signals.update({0: value}))
  monkeypatch.setattr(processes, 'told', lambda decide: told.append(decide()) or told[-1])
  return signals, told


def steps_told(decide, clock, seconds, steps):
  """After which of the steps, so many seconds each, process 0 told the others."""
  found = []
  for step in range(1, steps + 1):
    clock[0] += seconds
    before = decide._last
    decide.save_after(step)
    if decide._last != before:
      found.append(step)
  return found


def test_one_process_saves_by_its_clock_and_stops_by_its_signal(clock):
  received = Received()
  decide = Decisions(10.0, received)
  clock[0] += 9.0
  assert not decide.save_after(1) and not decide.stops()
  clock[0] += 2.0
  assert decide.save_after(2)
  decide.saved()
  assert not decide.save_after(3)
  received.signum = signal.SIGTERM
  assert decide.save_after(4) and decide.stops()


def test_slow_steps_are_told_each_and_quick_ones_a_few_times_a_second(clock, first):
  assert steps_told(Decisions(1e9, Received()), clock, 1.0, 6) == [1, 2, 3, 4, 5, 6]
  told = steps_told(Decisions(1e9, Received()), clock, TELL / 64, 300)
  assert told == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256]  # at most twice as far as before


def test_a_signal_to_any_process_stops_all_after_a_step_that_is_told(clock, first):
  signals, told = first
  mine = Received()
  decide = Decisions(1e9, mine)
  assert not decide.save_after(1)
  mine.signum = signal.SIGINT  # of no use to the others before they are told
  assert not decide.stops()
  assert decide.save_after(2) and decide.stops() and mine.agreed == signal.SIGINT
  other = Received()
  decide = Decisions(1e9, other)
  signals.clear()
  signals[3] = signal.SIGTERM
  assert decide.save_after(1) and decide.stops()
  assert (other.signum, other.agreed) == (None, signal.SIGTERM)
  assert told[-1] == {'stride': 1, 'signum': signal.SIGTERM, 'save': True}
