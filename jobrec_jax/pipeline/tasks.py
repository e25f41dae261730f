"""The stages of many runs as tasks: each made once, after its inputs, here or by Dask's workers.

A task is a stage and the settings of a run that has it. What a worker is sent is plain: the store's
folder, the settings and the key; it wires the road itself, and refuses where its own version of the
code gives another key. A stage that fails is told, with what stands on it; the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
from pathlib import Path
import traceback
from typing import Any, NamedTuple

from absl import logging

from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.data import check_sizes
from jobrec_jax.pipeline.road import Road, resources, road
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage, plain
from jobrec_jax.pipeline.store import Store
from jobrec_jax.schema.settings import build
from jobrec_jax.train.signals import Interrupted

Trouble = tuple[str, str | None]  # what went wrong, and the failed stage that it stands on
RETRIES = 2  # of a task whose worker was lost or that met a fault of the machine


@dataclasses.dataclass(frozen=True)
class Task:
  """A stage to be made.

  Attributes:
    stage: what.
    settings: of the first run that asks for it.
    runs: names of all runs that stand on it.
  """

  stage: Stage
  settings: Settings
  runs: tuple[str, ...]


class Failure(NamedTuple):
  """A stage that could not be made, and why; `cause` is the failed stage that it stands on."""

  stage: Stage
  message: str
  cause: str | None = None


def tasks(roads: Iterable[tuple[str, Settings, Sequence[Stage]]]) -> list[Task]:
  """Every stage of some runs once, inputs before what stands on them.

  Args:
    roads: of each run its name, its settings, and the stages that it is asked for.
  """
  found: dict[str, tuple[Stage, Settings, list[str]]] = {}
  for name, settings, goals in roads:
    for stage in {s.key: s for goal in goals for s in goal.walk()}.values():
      found.setdefault(stage.key, (stage, settings, []))[2].append(name)
  return [Task(stage, settings, tuple(names)) for stage, settings, names in found.values()]


def make_here(store: Path, todo: Sequence[Task],
              done: Callable[[Task], None] = lambda task: None) -> list[Failure]:
  """Makes tasks in this process, one after the other.

  Args:
    store: the folder of artefacts.
    todo: as `tasks` gives them.
    done: told of each task that is there.
  """
  failed: dict[str, Failure] = {}
  settings, place = None, None
  for task in todo:
    if cause := broken(task.stage, failed):
      failed[task.stage.key] = Failure(task.stage, f'{cause} failed', cause)
      continue
    if place is None or task.settings is not settings:  # values of another run are let go
      settings, place = task.settings, Store(store, resources(task.settings))
    message = attempt(place, task.stage, task.settings)
    if message:
      failed[task.stage.key] = Failure(task.stage, message)
      logging.error('%s failed: %s', task.stage.key, message.splitlines()[0])
    else:
      done(task)
  return list(failed.values())


def broken(stage: Stage, failed: Mapping[str, Failure]) -> str | None:
  """The failed stage that an input of this one stands on, or is."""
  return next((failed[i.key].cause or i.key for i in stage.inputs.values() if i.key in failed),
              None)


def attempt(store: Store, stage: Stage, settings: Settings) -> str | None:
  """Makes a stage; None where it is there, else what went wrong: a line, with a traceback behind
  it where it is a fault of ours."""
  try:
    if stage.name == 'warm_up' and not store.has(stage):
      check_sizes(settings, store.get(stage.inputs['data']))  # before anything is trained
    store.make(stage)
  except (Interrupted, KeyboardInterrupt):
    raise
  except ValueError as error:
    return ' '.join(str(error).split())
  except Exception as error:
    return f'{type(error).__name__}: {error}\n{traceback.format_exc()}'
  return None


def make_with_dask(client: Any, store: Path, todo: Sequence[Task],
                   done: Callable[[Task], None] = lambda task: None) -> list[Failure]:
  """Makes tasks on the workers of a Dask cluster, which all see the store's folder.

  The name of a Dask task is the artefact's key. A worker that is lost is replaced: its task starts
  again elsewhere, where its interrupted attempt left it. Each task takes one 'accelerator' of its
  worker, so that a worker with one device never holds two.

  Args:
    client: a `distributed.Client`; its workers offer the resource 'accelerator'.
    store, todo, done: as of `make_here`.
  """
  from distributed import as_completed  # here, for a run on one machine needs none
  by_key = {task.stage.key: task for task in todo}
  futures: dict[str, Any] = {}
  for key, task in by_key.items():
    inputs = [futures[i.key] for i in task.stage.inputs.values()]
    futures[key] = client.submit(
        make_in_worker, str(Path(store).resolve()), plain(task.settings), key, inputs, key=key,
        retries=RETRIES, resources={'accelerator': 1}, allow_other_workers=False)
  failed = {}
  try:
    for future in as_completed(futures.values()):
      task = by_key[future.key]
      if trouble := _outcome(future):
        message, cause = trouble
        failed[future.key] = message, None if cause == future.key else cause
        logging.error('%s failed: %s', future.key, message.splitlines()[0])
      else:
        done(task)
  except BaseException:
    client.cancel(list(futures.values()))
    raise
  return [Failure(by_key[key].stage, *failed[key]) for key in by_key if key in failed]


def _outcome(future: Any) -> Trouble | None:
  if future.status == 'finished':
    return future.result()
  error = future.exception() if future.status == 'error' else None
  return (f'{type(error).__name__}: {error}' if error else f'the cluster gave it up: '
          f'{future.status}', None)


def make_in_worker(store: str, settings: Mapping[str, Any], key: str,
                   inputs: Sequence[Trouble | None]) -> Trouble | None:
  """One task, on a worker: None where it is there, else (message, cause)."""
  lost = next(((message, cause) for message, cause in filter(None, inputs)), None)
  if lost:
    cause = lost[1] or 'an input'
    return f'{cause} failed', cause
  place, own = _workplace(store, _Frozen(settings))
  stage = next((s for goal in (own.evaluation, own.catalogue) for s in goal.walk()
                if s.key == key), None)
  if stage is None:
    return (f'{key}: must be a stage of this version of the code, got none; let all workers run '
            'the same commit', None)
  message = attempt(place, stage, build(Settings, settings))
  return (message, key) if message else None


class _Frozen(dict):
  """Settings that a cache can look up by what they hold."""

  def __hash__(self):
    return hash(repr(sorted(self.items())))


@functools.lru_cache(maxsize=2)  # values of the last runs stay read
def _workplace(store: str, settings: Mapping[str, Any]) -> tuple[Store, Road]:
  use_compilation_cache()
  built = build(Settings, settings)
  return Store(store, resources(built)), road(built)


def runs_that_failed(failures: Iterable[Failure],
                     todo: Iterable[Task]) -> Iterator[tuple[str, str]]:
  """(run, key of the stage that failed first) of every run that lacks something."""
  names = {task.stage.key: task.runs for task in todo}
  told = set()
  for failure in failures:
    for name in names[failure.stage.key]:
      if name not in told:
        told.add(name)
        yield name, failure.cause or failure.stage.key
