"""Making a study: its tasks here or on workers, its runs' folders, and study.json."""

from collections.abc import Iterator, Sequence
import contextlib
import os
from pathlib import Path
import time
from typing import Any, NamedTuple

from absl import logging

from jobrec_jax.pipeline.progress import Kept
from jobrec_jax.pipeline.reasons import Reason, alone, duration, reasons
from jobrec_jax.pipeline.record import sealed
from jobrec_jax.pipeline.stage import plain
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.pipeline.study import Member, Study, goals, road_of
from jobrec_jax.pipeline.tasks import (
    Failure,
    Task,
    make_here,
    make_with_dask,
    runs_that_failed,
    tasks,
)
from jobrec_jax.schema.files import read_json, write_json
from jobrec_jax.schema.progress import about

FILE = 'study.json'
PATIENCE = 30  # seconds until a scheduler must answer


class Made(NamedTuple):
  """What came of a study.

  Attributes:
    complete: runs whose every number is there.
    failures: stages that failed, and those that stand on them.
    lost: name of a run -> the stage that failed first.
    once, alone: seconds of its stages, and of its runs if each had been made alone.
  """

  complete: list[Member]
  failures: list[Failure]
  lost: dict[str, str]
  once: float
  alone: float


def todo(runs: Sequence[Member]) -> list[Task]:
  """The tasks of some runs."""
  return tasks((m.place, m.settings, goals(road_of(m))) for m in runs)


def plan(runs: Sequence[Member], store: Path) -> list[Reason]:
  """What is there and what would run, and why; nothing is made."""
  return reasons(store, todo(runs))


def make(study: Study, runs: Sequence[Member], folder: Path, store: Path,
         client: Any = None) -> Made:
  """Makes what is missing; a failure is told and does not stop the rest.

  Args:
    study: for study.json.
    runs: all of its runs, or a shard of them.
    folder, store: of the study, and of its artefacts.
    client: a `distributed.Client`, or None for this process.
  """
  work = todo(runs)
  write_record(study, runs, folder, store)
  waiting = [r for r in reasons(store, work) if not r.there]
  logging.info('study: %d runs, %d stages, %d of them to be made', len(runs), len(work),
               len(waiting))
  told = _Progress(waiting, Kept(store, ABOUT))
  failures = (make_here(store, work, told.done) if client is None
              else make_with_dask(client, store, work, told.done))
  lost = dict(runs_that_failed(failures, work))
  complete = [m for m in runs if m.place not in lost]
  for member in complete:
    member.run(folder, store).write()
  return Made(complete, failures, lost, *alone(work, store))


class _Progress:
  """Logs how much of a study is made, with the seconds of like stages for what is left."""

  def __init__(self, waiting: Sequence[Reason], kept: Kept):
    self._left = {r.task.stage.key: r.task.stage for r in waiting}
    self._kept, self._count, self._start = kept, len(waiting), time.monotonic()

  def done(self, task: Task) -> None:
    if self._left.pop(task.stage.key, None) is None:
      return
    seconds = self._kept.estimates(list(self._left.values())).values()
    known = [s for s in seconds if s is not None]
    work = f'{about(sum(known))} of work left' if known else 'no estimate yet'
    unknown = len(self._left) - len(known)
    logging.info('study: %d of %d stages made in %s, %s%s', self._count - len(self._left),
                 self._count, duration(time.monotonic() - self._start), work,
                 f', and {unknown} stages of which there is no estimate' if known and unknown
                 else '')


def write_record(study: Study, runs: Sequence[Member], folder: Path, store: Path) -> None:
  """study.json: the question, the variants, and which runs there are; runs of earlier calls, of
  other shards or fewer seeds, stay named."""
  places = {m.place: {'variant': m.variant, 'data_seed': m.data_seed, 'seed': m.seed} for m in runs}
  path = folder / FILE
  told = {'question': study.question, 'variants': {
      name: {'purpose': v.purpose, 'changes': plain(dict(v.changes))}
      for name, v in study.variants.items()}}
  if path.is_file():
    was = read_json(path)
    if {k: was.get(k) for k in told} == told:
      places = was['runs'] | places
  write_json(path, sealed(told | {'runs': places}), indent=1)


@contextlib.contextmanager
def cluster(scheduler: str | None, workers: int) -> Iterator[Any]:
  """A Dask client: of a scheduler that runs, of workers on this machine, or None for neither.

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
    with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True,
                      resources={'accelerator': 1}, dashboard_address=None) as local, \
         Client(local) as client:
      yield client
    return
  try:
    client = Client(scheduler, timeout=PATIENCE)
  except (OSError, ValueError) as error:
    raise ValueError('--scheduler must be the address of a Dask scheduler that answers, got '
                     f'{scheduler!r}: {error}') from error
  with client:
    offered = [w.get('resources', {}) for w in client.scheduler_info(-1)['workers'].values()]
    if offered and not any('accelerator' in r for r in offered):
      raise ValueError('workers must be started with --resources accelerator=1, got workers '
                       f'that offer {offered[0] or "nothing"}')
    yield client


def told(made: Made) -> str:
  """What was made and what failed, in lines."""
  lines = [f'{len(made.complete)} runs are complete; {len(made.lost)} lack something.']
  if made.alone:
    lines.append(f'Their stages took {duration(made.once)}; each run alone, '
                 f'{duration(made.alone)} in all ({made.once / made.alone:.2f}).')
  lines += [f'failed: {f.stage.key}: {f.message.splitlines()[0]}' for f in made.failures
            if f.cause is None]
  lines += [f'lacks {key}: {place}' for place, key in made.lost.items()]
  return '\n'.join(lines)
