"""Making a study: its tasks here or on workers, its runs' folders, and study.json."""

from collections.abc import Callable, Sequence
import os
from pathlib import Path
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging

from jobrec_jax.pipeline.progress import Kept
from jobrec_jax.pipeline.reasons import Reason, duration, reasons
from jobrec_jax.pipeline.record import STUDY, sealed
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

if TYPE_CHECKING:
  from jobrec_jax.pipeline.mirror import Mirror

PAUSE = 5.0  # seconds between two lines of progress, at least


class Made(NamedTuple):
  """What came of a study.

  Attributes:
    complete: runs whose every number is there.
    failures: stages that failed, and those that stand on them.
    lost: name of a run -> the stage that failed first.
  """

  complete: list[Member]
  failures: list[Failure]
  lost: dict[str, str]


def todo(runs: Sequence[Member]) -> list[Task]:
  """The tasks of some runs.

  Raises:
    ValueError: two variants would stand on the same results, as where no stage's settings hold
      what one changes.
  """
  asked, first = [], {}
  for m in runs:
    stages = goals(road_of(m))
    like = first.setdefault(tuple(s.key for s in stages), m)
    if like.variant != m.variant:
      raise ValueError(f'variant {m.variant} must differ from the others, got the results of '
                       f'{like.variant}: no stage of jobrec_jax/pipeline/road.py has what it '
                       'changes among its settings')
    asked.append((m.place, m.settings, stages))
  return tasks(asked)


def plan(runs: Sequence[Member], store: Path) -> list[Reason]:
  """What is there and what would run, and why; nothing is made."""
  return reasons(store, todo(runs))


def make(study: Study, runs: Sequence[Member], folder: Path, store: Path,
         client: Any = None, mirror: 'Mirror | None' = None) -> Made:
  """Makes what is missing; a failure is told and does not stop the rest.

  Args:
    study: for study.json.
    runs: all of its runs, or a shard of them.
    folder, store: of the study, and of its artefacts.
    client: a `distributed.Client`, or None for this process.
    mirror: where results lie, too.
  """
  work = todo(runs)
  if mirror is not None:
    mirror.sync(store, [task.stage.key for task in work])
  write_record(study, runs, folder, store)
  waiting = [task for task in work if not (store / task.stage.key / ABOUT).is_file()]
  logging.info('study: %d runs, %d stages, %d of them to be made', len(runs), len(work),
               len(waiting))
  told = _Progress(waiting, Kept(store, ABOUT))

  def done(task: Task) -> None:
    told.done(task)
    if mirror is not None:
      mirror.push(store / task.stage.key)
  failures = (make_here(store, work, done) if client is None
              else make_with_dask(client, store, work, done))
  lost = dict(runs_that_failed(failures, work))
  complete = [m for m in runs if m.place not in lost]
  for member in complete:
    member.run(folder, store).write()
  return Made(complete, failures, lost)


class _Progress:
  """Logs how much of a study is made, with the seconds of like stages for what is left: a line a
  stage, of those that follow each other in less than `PAUSE` seconds not all."""

  def __init__(self, waiting: Sequence[Task], kept: Kept,
               clock: Callable[[], float] = time.monotonic):
    self._left = {task.stage.key: task.stage for task in waiting}
    self._kept, self._count, self._clock = kept, len(waiting), clock
    self._start = self._told = clock()

  def done(self, task: Task) -> None:
    if self._left.pop(task.stage.key, None) is None:
      return
    now = self._clock()
    if self._left and now - self._told < PAUSE:
      return
    self._told = now
    seconds = self._kept.estimates(list(self._left.values())).values()
    known = [s for s in seconds if s is not None]
    work = (f'{about(sum(known))} of work left' if known else 'no estimate yet' if self._left
            else 'done')
    unknown = len(self._left) - len(known)
    logging.info('study: %d of %d stages made in %s (last: %s), %s%s',
                 self._count - len(self._left), self._count, duration(now - self._start),
                 task.stage.name, work,
                 f', and {unknown} stages of which there is no estimate' if known and unknown
                 else '')


def write_record(study: Study, runs: Sequence[Member], folder: Path, store: Path) -> None:
  """study.json: the question, the variants, and which runs there are; runs of earlier calls, of
  other shards or fewer seeds, stay named."""
  places = {m.place: {'variant': m.variant, 'data_seed': m.data_seed, 'seed': m.seed} for m in runs}
  told = {'question': study.question, 'variants': {
      name: {'purpose': v.purpose, 'changes': plain(dict(v.changes))}
      for name, v in study.variants.items()}}
  was = read_study_record(folder)
  if was and {k: was.get(k) for k in told} == told:
    places = was['runs'] | places
  place = os.path.relpath(store, folder)
  write_json(folder / STUDY, sealed(told | {'runs': places, 'store': place}), indent=1)


def store_of(folder: Path) -> Path | None:
  """Where the artefacts of an earlier call lie; None where there was none."""
  record = read_study_record(folder)
  return folder / record['store'] if record else None


def read_study_record(folder: Path) -> dict[str, Any] | None:
  """study.json; None where there is none.

  Raises:
    ValueError: it is not as it was written.
  """
  path = folder / STUDY
  if not path.is_file():
    return None
  value = read_json(path)
  try:
    whole = sealed({k: v for k, v in value.items() if k != 'digest'}) == value
  except (AttributeError, TypeError, ValueError):
    whole = False
  if not whole or 'store' not in value:
    raise ValueError(f'{path}: must be as it was written, got another content; delete it, and the '
                     'same command with its --store writes it again')
  return value


def told(made: Made) -> str:
  """How much is complete, and what failed, in lines."""
  lines = [f'{len(made.complete)} runs are complete; {len(made.lost)} lack something.']
  lines += [f'failed: {f.stage.key}: {f.message.splitlines()[0]}' for f in made.failures
            if f.cause is None]
  lines += [f'lacks {key}: {place}' for place, key in made.lost.items()]
  return '\n'.join(lines)
