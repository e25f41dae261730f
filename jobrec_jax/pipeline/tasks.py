"""The stages of many runs as tasks: each made once, after its inputs, here or by Dask's workers.

A task is a stage and the settings of a run that has it. What a worker is sent is plain: the store's
folder, the settings and the key; it wires the road itself, and refuses where its own version of the
code gives another key. A stage that fails is told, with what stands on it; the rest goes on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
from pathlib import Path
import traceback
from typing import Any, NamedTuple

from absl import logging

from jobrec_jax.pipeline.cluster import cancelling, check_workers, submit, trouble
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.data import check_sizes
from jobrec_jax.pipeline.road import resources, road
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage, plain
from jobrec_jax.pipeline.store import Store
from jobrec_jax.schema.files import write_text
from jobrec_jax.schema.settings import build
from jobrec_jax.train.signals import Interrupted

SHARED = '.shared'  # a file of a store by which workers know that they see it


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


def attempt(store: Store, stage: Stage, settings: Settings,
            tried_again: tuple[type[Exception], ...] = ()) -> str | None:
  """Makes a stage; None where it is there, else what went wrong: a line, with a traceback behind
  it where it is a fault of ours. What is `tried_again` by the caller is raised."""
  try:
    if stage.name == 'warm_up' and not store.has(stage):
      check_sizes(settings, store.get(stage.inputs['data']))  # before anything is trained
    store.make(stage)
  except (Interrupted, KeyboardInterrupt, *tried_again):
    raise
  except ValueError as error:
    return ' '.join(str(error).split())
  except Exception as error:
    return f'{type(error).__name__}: {error}\n{traceback.format_exc()}'
  return None


def make_with_dask(client: Any, store: Path, todo: Sequence[Task],
                   done: Callable[[Task], None] = lambda task: None) -> list[Failure]:
  """Makes tasks on the workers of a Dask cluster, which all see the store's folder.

  The name of a Dask task is the artefact's key, with that of the store. An attempt that a lost
  worker leaves is resumed by the next.

  Args:
    client: a `distributed.Client`; its workers offer the resource 'accelerator'.
    store, todo, done: as of `make_here`.

  Raises:
    ValueError: a worker does not see the store, or runs another version of the code.
  """
  from distributed import as_completed  # here, for a run on one machine needs none
  place, known = Store(store), Path(store).resolve()
  write_text(known / SHARED, 'Workers of a cluster make artefacts here.\n')
  missing = []
  for task in todo:
    if place.has(task.stage):
      done(task)
    else:
      missing.append(task)
  if not missing:
    return []
  check_workers(client, refusal, str(known), plain(missing[0].settings), missing[0].stage.key)
  suffix = hashlib.sha256(str(known).encode()).hexdigest()[:8]
  futures: dict[str, Any] = {}
  messages: dict[str, str] = {}
  with cancelling(client, futures):
    for task in missing:
      key = task.stage.key
      inputs = [futures[i.key] for i in task.stage.inputs.values() if i.key in futures]
      futures[key] = submit(client, make_in_worker, str(known), plain(task.settings), key, inputs,
                            key=f'{key}-{suffix}')
    by_name = {futures[task.stage.key].key: task for task in missing}
    for future in as_completed(futures.values()):
      task = by_name[future.key]
      if message := trouble(future) or future.result():
        messages[task.stage.key] = message
        logging.error('%s failed: %s', task.stage.key, message.splitlines()[0])
      else:
        done(task)
  failed: dict[str, Failure] = {}
  for task in missing:  # inputs come first
    key = task.stage.key
    if key in messages:
      cause = broken(task.stage, failed)
      failed[key] = Failure(task.stage, f'{cause} failed' if cause else messages[key], cause)
  return list(failed.values())


def make_in_worker(store: str, settings: Mapping[str, Any], key: str,
                   inputs: Sequence[str | None]) -> str | None:
  """One task, on a worker: None where it is there, else what went wrong.

  Args:
    store: the folder.
    settings: of the run, as plain values.
    key: of the stage.
    inputs: what this function gave for the stages that it stands on.

  Raises:
    OSError: of the machine or its disk; another try may be luckier.
  """
  if any(inputs):
    return 'an input failed'
  if why := refusal(store, settings, key):
    return why
  place, stages = _workplace(store, _Frozen(settings))
  return attempt(place, stages[key], build(Settings, settings), tried_again=(OSError,))


def refusal(store: str, settings: Mapping[str, Any], key: str) -> str | None:
  """Why this process cannot make a stage for another one; None where it can."""
  if not (Path(store) / SHARED).is_file():
    return f'{store}: must be a folder that every worker sees, got another or none there'
  try:
    _, stages = _workplace(store, _Frozen(settings))
  except ValueError as error:  # a setting that this version does not know
    return f'{error}; all workers must run the same commit'
  if key not in stages:
    return (f'{key}: must be a stage of this version of the code, got none; all workers must run '
            'the same commit')
  return None


class _Frozen(dict):
  """Settings that a cache can look up by what they hold."""

  def __hash__(self):
    return hash(repr(sorted(self.items())))


@functools.lru_cache(maxsize=2)  # values of the last runs stay read
def _workplace(store: str, settings: Mapping[str, Any]) -> tuple[Store, dict[str, Stage]]:
  use_compilation_cache()
  built = build(Settings, settings)
  own = road(built)
  stages = {s.key: s for goal in (own.evaluation, own.catalogue) for s in goal.walk()}
  return Store(store, resources(built)), stages


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
