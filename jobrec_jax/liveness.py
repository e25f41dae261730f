"""Whether the processes of a job live: judged from their beats, and from a line that death cuts."""

from collections.abc import Callable, Iterator
import contextlib
import math
import re
import socket
import sys
import threading
from typing import NamedTuple

import jax

PATIENCE = 40.0  # seconds that a batch may take longer in one process than in another

# Begins errors of collectives, which JAX raises as ValueErrors, too.
BROKEN = r'(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): '


class Beat(NamedTuple):
  """What a process says of itself about ten times in a heartbeat's limit.

  Attributes:
    count: of its beats.
    host: where it runs.
    made: batches that it has made; all processes make as many.
    making: whether it makes one now.
  """

  count: int
  host: str
  made: int = 0
  making: bool = False


class Liveness:
  """Judges the beats of all processes, again and again; for the process that names the others.

  Args:
    heartbeat: seconds of silence after which a process counts as dead.
  """

  def __init__(self, heartbeat: float):
    self._heartbeat = heartbeat
    self._heard: dict[int, tuple[Beat, float]] = {}  # when the last beat came
    self._behind: dict[int, tuple[int, float]] = {}  # batches made, and since when others wait

  def silent(self, beats: dict[int, Beat], now: float) -> list[str]:
    """Lines that name, once, who has been silent for a quarter of the limit.

    JAX, which ends the job, counts from a heartbeat that may be half of it older.

    Args:
      beats: process -> its newest.
      now: seconds on any clock.
    """
    lines = []
    for process, beat in beats.items():
      last, when = self._heard.get(process, (None, now))
      if beat != last:
        self._heard[process] = beat, now
      elif now - when > self._heartbeat / 4:
        lines.append(f'process {process} on {beat.host} has not been heard of for {now - when:.0f} '
                     's')
        self._heard[process] = beat, math.inf
    return lines

  def stuck(self, beats: dict[int, Beat], now: float) -> str | None:
    """The line that names who lives and has kept the others waiting for a batch too long.

    Args:
      beats, now: as `silent` takes them.
    """
    most = max((beat.made for beat in beats.values()), default=0)
    for process, beat in beats.items():
      if not beat.making or beat.made == most:
        self._behind.pop(process, None)
        continue
      made, since = self._behind.setdefault(process, (beat.made, now))
      if made != beat.made:
        self._behind[process] = beat.made, now
      elif now - since > PATIENCE:
        return (f'process {process} on {beat.host} has not made its batch for {now - since:.0f} s, '
                'while others wait for it; see what its data wait for')
    return None


@contextlib.contextmanager
def told_if_longer(seconds: float, line: str) -> Iterator[None]:
  """Says a line on stderr where the block takes longer than so many seconds."""
  timer = threading.Timer(seconds, lambda: print(line, file=sys.stderr, flush=True))
  timer.daemon = True
  timer.start()
  try:
    yield
  finally:
    timer.cancel()


def open_line() -> int:
  """The port of a line that stays open as long as this process lives."""
  both = socket.has_dualstack_ipv6()
  server = socket.create_server(('', 0), family=socket.AF_INET6 if both else socket.AF_INET,
                                dualstack_ipv6=both)

  def keep() -> None:
    held = []
    while True:
      held.append(server.accept()[0])
  threading.Thread(target=keep, daemon=True).start()
  return server.getsockname()[1]


def hold_line(host: str, port: int, cut: Callable[[], None]) -> None:
  """Calls `cut` in a thread as soon as the process that opened a line is gone.

  Where hosts let no such connection pass nothing is held, and nothing called.
  """
  try:
    line = socket.create_connection((host, port), timeout=10)
  except OSError:
    return
  line.settimeout(None)

  def wait() -> None:
    with contextlib.suppress(OSError), line:
      line.recv(1)  # nobody sends: it returns at the end
    cut()
  threading.Thread(target=wait, daemon=True).start()


def is_of_another(error: BaseException | None) -> bool:
  """Whether it may come of the death of another process: a broken line, and what came of that."""
  while error is not None:
    if isinstance(error, jax.errors.JaxRuntimeError) or re.match(BROKEN, str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False
