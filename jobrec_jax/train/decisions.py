"""When a stage saves and when a signal stops it: process 0's decision, for all of them."""

import time

from jobrec_jax import processes
from jobrec_jax.train.signals import Received

TELL = 0.25  # seconds between two decisions among several processes, about


class Decisions:
  """Looks at the clock and at signals after each step.

  Among several processes the clock is process 0's, and a signal to any of them counts for all. It
  tells the others after a step that it told them before, about each second: steps between are
  not slowed, and it is the same step everywhere. One process decides after every step.

  Args:
    save_seconds: between two checkpoints.
    received: the signal of this process; one that another got is put beside it.
  """

  def __init__(self, save_seconds: float, received: Received):
    self._save_seconds, self._received = save_seconds, received
    self._saved = self._told = time.monotonic()
    self._last: int | None = None  # step of the last decision
    self._stride = 1  # steps until the next

  def save_after(self, step: int) -> bool:
    """Whether the state after a step must be saved; a signal, and it is the last."""
    if not processes.several():
      return self._received.signum is not None or self._is_time()
    if self._last is not None and step < self._last + self._stride:
      return False
    if self._received.signum is not None:
      processes.tell_first('signal', self._received.signum)
    told = processes.told(lambda: self._decide(step))
    self._last, self._stride, self._received.agreed = step, told['stride'], told['signum']
    return told['save']

  def stops(self) -> bool:
    """Whether a signal stops the stage after this step."""
    if not processes.several():
      return self._received.signum is not None
    return self._received.agreed is not None

  def saved(self) -> None:
    """Told by the caller: the state is being saved now."""
    self._saved = time.monotonic()

  def _is_time(self) -> bool:
    return time.monotonic() - self._saved > self._save_seconds

  def _decide(self, step: int) -> dict:
    """In process 0; the stride at most doubles, for a host may run ahead of its device at first."""
    now = time.monotonic()
    stride = 1
    if self._last is not None:
      seconds = max(now - self._told, 1e-6) / (step - self._last)
      stride = max(1, min(2 * self._stride, int(TELL / seconds)))
    self._told = now
    signals = processes.left('signal')
    signum = signals[min(signals)] if signals else None
    return {'stride': stride, 'signum': signum, 'save': signum is not None or self._is_time()}
