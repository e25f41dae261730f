"""Several JAX processes as one job: process 0 decides, the others are told, and all end together.

Messages go through the coordination service of jax.distributed, from host to host: nothing of it
waits for a device. In a job of one process all of it is nothing.
"""

from collections.abc import Callable, Iterator
import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple, NoReturn, TypeVar

import jax
from jax._src import distributed  # JAX offers its messages nowhere else; Orbax takes them from here
from jax.experimental import multihost_utils
import numpy as np

from jobrec_jax.job import AUTO, Job
from jobrec_jax.liveness import (
    Beat,
    Liveness,
    hold_line,
    is_of_another,
    open_line,
    told_if_longer,
)

SLICE = 1.0  # seconds that a wait is blind for: a signal is handled between two
GRACE = 5.0  # seconds for a process to say its own last word, once another has ended the job
ALL = 2**53  # batches that a process counts as made which waits for the parts of the others
KEPT = 1000  # messages of process 0 that stay; no process lies so far behind

T = TypeVar('T')


class Ending(NamedTuple):
  """Why a job ends: the line that the process says, and the exit status of all."""

  line: str
  status: int


class _Here:
  """What this process knows of its job."""

  def __init__(self):
    self.said = itertools.count()
    self.met = itertools.count()
    self.other: Ending | None = None  # of another process, which ended the job
    self.over = False  # all has come to its end, and whoever is gone may be
    self.dividing = False
    self.heartbeat = 0
    self.made, self.making = 0, False  # batches


_here = _Here()


def several() -> bool:
  """Whether there are other processes."""
  return distributed.global_state.num_processes > 1


def index() -> int:
  """Which process this is."""
  return distributed.global_state.process_id


def count() -> int:
  return distributed.global_state.num_processes


def is_first() -> bool:
  """Whether this is the process that decides and writes."""
  return index() == 0


def told(decide: Callable[[], Any]) -> Any:
  """What process 0 decides, in every process; all call this in the same order.

  Args:
    decide: called in process 0 alone; its result is plain JSON. What it raises ends the job.
  """
  if not several():
    return decide()
  n = next(_here.said)
  if not is_first():
    return json.loads(_get(f'jobrec/said/{n}'))
  value = decide()
  _set(f'jobrec/said/{n}', json.dumps(value))
  if n >= KEPT:
    distributed.global_state.client.key_value_delete(f'jobrec/said/{n - KEPT}')
  return value


def meet() -> None:
  """Returns once every process has come here; waits for as long as that takes."""
  if not several():
    return
  n = next(_here.met)
  if is_first():
    for other in range(1, count()):
      _get(f'jobrec/met/{n}/{other}')
    _set(f'jobrec/met/{n}/all', '')
  else:
    _set(f'jobrec/met/{n}/{index()}', '')
    _get(f'jobrec/met/{n}/all')


def tell_first(name: str, value: Any) -> None:
  """Leaves a value for process 0, which finds it by `left`; a newer one replaces it."""
  distributed.global_state.client.key_value_set(
      f'jobrec/left/{name}/{index()}', json.dumps(value), allow_overwrite=True)


def left(name: str) -> dict[int, Any]:
  """What processes have left so far: process -> value."""
  found = distributed.global_state.client.key_value_dir_get(f'jobrec/left/{name}')
  return {int(key.rsplit('/', 1)[1]): json.loads(value) for key, value in found}


@contextlib.contextmanager
def making_batch() -> Iterator[None]:
  """Inside, this process makes a batch; all make as many, or those of their `part`, and then wait.

  One that takes `liveness.PATIENCE` seconds longer than another is named, and ends the job.
  """
  _here.making = True
  try:
    yield
    _here.made += 1
  finally:
    _here.making = False


def made(batches: Iterator[T]) -> Iterator[T]:
  """The batches, each made as `making_batch` says where processes divide them."""
  batches, end = iter(batches), object()
  while True:
    with making_batch() if _here.dividing else contextlib.nullcontext():
      batch = next(batches, end)
    if batch is end:
      return
    yield batch


def gathered(name: str, value: Any) -> list[Any]:
  """The value of each process, in process 0; [] in the others. Once for each name in a job."""
  if not is_first():
    tell_first(name, value)
    return []
  return [value, *(json.loads(_get(f'jobrec/left/{name}/{other}')) for other in range(1, count()))]


@contextlib.contextmanager
def dividing(whether: bool = True) -> Iterator[None]:
  """Inside, all processes do the same, and each computes its `part` of what is `pooled`."""
  before, _here.dividing = _here.dividing, whether and several()
  try:
    yield
  finally:
    _here.dividing = before


def divides() -> bool:
  """Whether the processes divide what is computed here."""
  return _here.dividing


def part(total: int) -> slice:
  """Which of so many rows this process computes: all of them where nothing is divided."""
  if not _here.dividing:
    return slice(0, total)
  each = -(-total // count())
  return slice(min(total, index() * each), min(total, (index() + 1) * each))


def pooled(rows: np.ndarray, total: int) -> np.ndarray:
  """The rows of all processes, in their order, in each of them; all call this together.

  Args:
    rows: [n, ...] of this process's `part`.
    total: how many there are in all.

  Returns:
    [total, ...].
  """
  if not _here.dividing:
    return rows
  each = -(-total // count())
  filled = np.zeros((each, *rows.shape[1:]), rows.dtype)
  filled[:len(rows)] = rows
  _here.made = ALL  # whoever makes one still keeps this process waiting
  rows = np.asarray(multihost_utils.process_allgather(filled, tiled=True))[:total]
  _here.made = 0
  return rows


@contextlib.contextmanager
def joined(job: Job | None, ending: Callable[[BaseException], tuple[str, int] | None]
           ) -> Iterator[None]:
  """Inside, this process is one of a job; None for a process of its own.

  Whatever leaves the block in one process ends all of them: it says why, the others name it, and
  all exit with its status, without a look back at computations that wait for each other.

  Args:
    job: where the others are.
    ending: an error -> the line and the exit status that a person is told; None for a traceback.

  Raises:
    ValueError: JAX cannot find the others.
  """
  if job is None:
    yield
    return
  _connect(job)
  if not several():
    yield
    return
  _lifeline()
  watcher = threading.Thread(target=_watch, daemon=True)
  watcher.start()
  try:
    yield
    meet()
  except BaseException as error:
    known = ending(error)
    if known is None:
      traceback.print_exc()
      known = f'{type(error).__name__}: {error}', 1
    else:
      print(known[0], file=sys.stderr, flush=True)
    if is_of_another(error):
      _wait_for_the_dead()
    _end(Ending(*known))
  if is_first():
    _set('jobrec/end', '')  # releases all watchers
  watcher.join()
  jax.distributed.shutdown()


def _connect(job: Job) -> None:
  # Its handler would take SIGTERM from ours, which saves.
  jax.config.update('jax_enable_preemption_service', False)
  jax.config.update('jax_cpu_collectives_implementation', 'gloo')
  known = {} if job.coordinator == AUTO else {
      'coordinator_address': job.coordinator, 'num_processes': job.processes,
      'process_id': job.process, 'cluster_detection_method': 'deactivate'}
  _here.heartbeat = job.heartbeat_seconds
  try:
    jax.distributed.initialize(**known, heartbeat_timeout_seconds=job.heartbeat_seconds)
    jax.device_count()  # now, for JAX opens the devices of all at once, and waits two minutes
  except (RuntimeError, ValueError) as error:
    said = ' '.join(str(error).split())
    raise ValueError(f'--coordinator={job.coordinator} must lead to all processes, got: '
                     f'{said}') from error


def _set(key: str, value: str) -> None:
  distributed.global_state.client.key_value_set(key, value)


def _get(key: str) -> str:
  """The value, once somebody has set it."""
  while True:
    found = _look(key, SLICE)
    if found is not None:
      return found
    if _here.other is not None:
      _leave(_here.other.status)


def _look(key: str, seconds: float) -> str | None:
  """The value, or None if nobody sets it within so many seconds."""
  try:
    return distributed.global_state.client.blocking_key_value_get(key, int(seconds * 1000))
  except jax.errors.JaxRuntimeError as error:
    if 'DEADLINE_EXCEEDED' not in str(error):
      raise
    return None


def _watch() -> None:
  """Ends this process after another has ended the job, whatever it waits for.

  Beside that every process says that it lives, and the first names those that do not, the others
  the first; JAX, whose threads nothing in Python can hold up, ends the job. Who lives and makes no
  batch while others wait for it is named too, and the first ends the job.
  """
  found, liveness, pause = None, Liveness(_here.heartbeat), _here.heartbeat / 10
  try:
    for count in itertools.count():
      with told_if_longer(_here.heartbeat / 4, f'{_first()} has not been heard of for '
                          f'{_here.heartbeat / 4:.0f} s'):
        tell_first('beat', Beat(count, socket.gethostname(), _here.made, _here.making))
      found = _look('jobrec/end', pause)
      if found is not None:
        break
      if is_first():
        _name(liveness)
  except jax.errors.JaxRuntimeError:  # JAX is about to abort this process, in many words
    _first_is_gone()
  _here.over = True
  if not found:
    return
  end = json.loads(found)
  if end['process'] == index():
    return
  print(f'process {end["process"]} on {end["host"]} ended the job: {end["line"]}', file=sys.stderr,
        flush=True)
  _here.other = Ending(end['line'], end['status'])
  time.sleep(GRACE)
  _leave(end['status'])


def _lifeline() -> None:
  """Lets the others see at once when process 0 dies: JAX aborts them then, and names nobody."""
  if is_first():
    _set('jobrec/line', str(open_line()))
  else:
    host = distributed.global_state.coordinator_address.rpartition(':')[0]
    hold_line(host.strip('[]'), int(_get('jobrec/line')), _first_is_gone)


def _first_is_gone() -> None:
  if not is_first() and not _here.over:
    print(f'{_first()}, which the others need, is gone', file=sys.stderr, flush=True)
    os._exit(1)


def _first() -> str:
  return f'process 0 at {distributed.global_state.coordinator_address}'


def _name(liveness: Liveness) -> None:
  """Says which processes are silent, and ends the job if one keeps the others waiting."""
  beats, now = {k: Beat(*x) for k, x in left('beat').items()}, time.monotonic()
  for line in liveness.silent(beats, now):
    print(line, file=sys.stderr, flush=True)
  stuck = liveness.stuck(beats, now)
  if stuck is not None:
    print(stuck, file=sys.stderr, flush=True)
    _end(Ending(stuck, 1))


def _wait_for_the_dead() -> None:
  """After a failed computation: whoever died is named by JAX, which then ends this process."""
  until = time.monotonic() + 2 * _here.heartbeat
  while _here.other is None and time.monotonic() < until:
    time.sleep(SLICE)


def _end(end: Ending) -> NoReturn:
  """Ends all processes."""
  if _here.other is None:
    about = {'process': index(), 'host': socket.gethostname(), 'line': end.line,
             'status': end.status}
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was faster
      _set('jobrec/end', json.dumps(about))
  _leave(end.status)


def _leave(status: int) -> NoReturn:
  """Exits; process 0, whose end would look like a failure to the others, after them."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    if is_first():
      until = time.monotonic() + 3 * GRACE
      for other in range(1, count()):
        _look(f'jobrec/gone/{other}', max(0.01, until - time.monotonic()))
      time.sleep(SLICE)  # they have said so, and are about to go
    else:
      _set(f'jobrec/gone/{index()}', '')
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
