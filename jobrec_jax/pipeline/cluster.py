"""Workers of a Dask cluster: on this machine or on many, which all see the same folders.

A task takes one 'accelerator' of its worker, so that a worker with one device never holds two. A
worker that is lost is replaced: its task starts again elsewhere.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
from typing import Any

from absl import logging

PATIENCE = 30  # seconds until a scheduler must answer
RETRIES = 2  # of a task that raised what another try may not: a fault of its machine


@contextlib.contextmanager
def cluster(scheduler: str | None, workers: int) -> Iterator[Any]:
  """A Dask client: of a scheduler that runs, of workers on this machine, or None for neither.

  Args:
    scheduler: its address, or its scheduler file.
    workers: how many to start here.

  Raises:
    ValueError: both were asked for, or the scheduler does not answer, or has no worker with the
      resource 'accelerator'.
  """
  if scheduler and workers:
    raise ValueError(f'--workers must be left out with --scheduler, got {workers}')
  if not scheduler and not workers:
    yield None
    return
  # What Dask logs of workers that come and go: their processes read the environment, too.
  os.environ.setdefault('DASK_LOGGING__DISTRIBUTED', 'critical')
  from distributed import Client, LocalCluster  # here, for a run on one machine needs none
  if workers:
    # No limit of memory: what JAX holds is not Dask's to spill, and a worker must not pause for it.
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
                      resources={'accelerator': 1}, dashboard_address='127.0.0.1:0') as local, \
         Client(local) as client:
      yield client
    return
  place = {'scheduler_file': scheduler} if os.path.isfile(scheduler) else {'address': scheduler}
  try:
    client = Client(**place, timeout=PATIENCE)
  except (OSError, ValueError) as error:
    raise ValueError('--scheduler must be the address of a Dask scheduler that answers, or its '
                     f'scheduler file, got {scheduler!r}: {error}') from error
  with client:
    offered = [w.get('resources', {}) for w in client.scheduler_info(-1)['workers'].values()]
    if offered and not any('accelerator' in r for r in offered):
      raise ValueError('workers must be started with --resources accelerator=1, got workers '
                       f'that offer {offered[0] or "nothing"}')
    yield client


def check_workers(client: Any, refusal: Callable[..., str | None], *arguments: Any) -> None:
  """Asks the workers that are there, before anything is made; those that come later are asked with
  their first task.

  Args:
    client: a `distributed.Client`.
    refusal: called on each worker with `arguments`; why it cannot do what it will be asked, or
      None.

  Raises:
    ValueError: a worker cannot; names it.
  """
  found = client.run(refusal, *arguments, on_error='return')
  if not found:
    logging.warning('the scheduler has no worker yet; waiting for one')
  for worker, why in found.items():
    if isinstance(why, Exception):
      why = None if isinstance(why, OSError) else f'{type(why).__name__}: {why}'  # or lost by now
    if why is not None:
      raise ValueError(f'worker {worker}: {why}')


def submit(client: Any, function: Callable[..., Any], *arguments: Any, key: str) -> Any:
  """The future of `function(*arguments)` on a worker.

  Args:
    client: a `distributed.Client`.
    function: of plain arguments, or of futures whose results it is given.
    key: of the task; one that another client waits for is not done twice.
  """
  return client.submit(function, *arguments, key=key, retries=RETRIES,
                       resources={'accelerator': 1}, allow_other_workers=False)


@contextlib.contextmanager
def cancelling(client: Any, futures: dict[str, Any]) -> Iterator[None]:
  """Whatever ends the block early gives up the futures that are not done."""
  try:
    yield
  except BaseException:
    client.cancel(list(futures.values()))
    raise


def trouble(future: Any) -> str | None:
  """What kept a future that is done from its result; None for one that has it."""
  if future.status == 'finished':
    return None
  error = future.exception() if future.status == 'error' else None
  return f'{type(error).__name__}: {error}' if error else f'the cluster gave it up: {future.status}'
