"""SIGINT and SIGTERM: at once where nothing is at stake, after the current step in training."""

from collections.abc import Iterator
import contextlib
import dataclasses
import signal
import threading
import time

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO = 0.1  # seconds; `timeout` and some schedulers send the same signal twice in a row


class Interrupted(BaseException):
  """SIGINT or SIGTERM came.

  It is no Exception, as KeyboardInterrupt is none: code that survives errors must not survive it.

  Attributes:
    signum: the signal.
    exit_status: what a shell expects of a process that the signal ended: 130 or 143.
  """

  def __init__(self, signum: int):
    super().__init__('interrupted; the same command resumes')
    self.signum = signum
    self.exit_status = 128 + signum


@dataclasses.dataclass
class Received:
  """The signal that came while signals were deferred; None until then.

  Attributes:
    signum: to this process.
    agreed: to any of several processes, which all end the block with it.
  """

  signum: int | None = None
  agreed: int | None = None


def raise_on_signals() -> None:
  """For the start of a script: SIGTERM raises `Interrupted`; SIGINT stays a KeyboardInterrupt."""
  signal.signal(signal.SIGTERM, _raise)


def _raise(signum: int, frame: object) -> None:
  raise Interrupted(signum)


@contextlib.contextmanager
def deferred_signals() -> Iterator[Received]:
  """Inside, a signal is recorded; at the end of the block it is raised, under the old handlers.

  A second signal raises at once, wherever the block is. A signal that the process ignores stays
  ignored. Outside the main thread, which alone may handle signals, nothing is deferred.

  Yields:
    What was received, for the block to end early.

  Raises:
    Interrupted: a signal came.
  """
  received = Received()
  came = 0.0

  def record(signum: int, frame: object) -> None:
    nonlocal came
    now = time.monotonic()
    if received.signum is None:
      received.signum, came = signum, now
    elif signum != received.signum or now - came > ECHO:
      raise Interrupted(signum)

  old = {}
  try:
    if threading.current_thread() is threading.main_thread():
      for signum in SIGNALS:
        old[signum] = signal.getsignal(signum)
        if old[signum] != signal.SIG_IGN:
          signal.signal(signum, record)
    yield received
  finally:
    for signum, handler in old.items():  # None is a handler that Python did not install.
      signal.signal(signum, signal.SIG_DFL if handler is None else handler)
  signum = received.signum if received.agreed is None else received.agreed
  if signum is not None:
    raise Interrupted(signum)
