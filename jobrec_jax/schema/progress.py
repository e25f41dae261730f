"""How far work has come, in words for people, and what it has used of the machine's memory."""

import resource
import sys
import time


def about(seconds: float) -> str:
  """A time as exactly as an estimate deserves: 'about 40 s', 'about 3 min', 'about 2.5 h'."""
  if seconds < 99.5:
    return f'about {max(seconds, 1):.0f} s'
  minutes = seconds / 60
  return f'about {minutes:.0f} min' if minutes < 99.5 else f'about {minutes / 60:.1f} h'


class TimeLeft:
  """The time that is left, from how fast it went since the first call.

  What came before the first call (the first part compiles) says nothing about the rest.

  Args:
    total: parts in all.
    least: parts that must be done after the first call before an estimate is given.
  """

  def __init__(self, total: int, least: int = 1):
    self._total, self._least = total, least
    self._first: tuple[int, float] | None = None

  def __call__(self, done: int) -> str:
    """', about 40 s left' after `done` parts; '' where nothing can be said, or nothing is left."""
    if self._first is None:
      self._first = done, time.monotonic()
    first, started = self._first
    if done - first < self._least or done >= self._total:
      return ''
    return f', {about((time.monotonic() - started) / (done - first) * (self._total - done))} left'


def peak_memory() -> int:
  """The greatest resident memory of this process so far, in MiB."""
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return peak // (1024 if sys.platform != 'darwin' else 1024**2)
