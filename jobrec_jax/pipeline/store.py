"""The store: results of stages by key, each made once, whole, checked when it is read.

  STORE/NAME-KEY/            an artefact: what the stage made, and artefact.json beside it
  STORE/.making/NAME-KEY/    one that is being made, or was interrupted: the next attempt resumes it
  STORE/.locks/              one process makes an artefact at a time

artefact.json holds the identity that the key is a hash of, the digest of every file, and where the
result comes from (commit, versions, device, seconds, memory). A folder takes its name only when all
of that is on disk. Nothing is read whose digest differs.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
from pathlib import Path
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import logging
import filelock
from threadpoolctl import threadpool_limits

from jobrec_jax import processes
from jobrec_jax.pipeline import provenance
from jobrec_jax.pipeline.progress import Kept, Progress
from jobrec_jax.pipeline.stage import Stage, key_of
from jobrec_jax.schema.files import (
    digest,
    read_json,
    read_object,
    remove_unfinished,
    write_json,
)

if TYPE_CHECKING:  # who has no mirror must not wait for what it imports
  from jobrec_jax.pipeline.mirror import Mirror

ABOUT = 'artefact.json'


@dataclasses.dataclass(frozen=True)
class Resources:
  """What makes results without changing them; no key holds it.

  Attributes:
    mesh: sizes of the mesh axes.
    scoring: how pairs are scored.
    log_every, save_seconds: of training.
    backbone, folder, adapter: where pretrained weights, data and adapters to start from lie, '' for
      none; their content is in the keys.
    watching: where the course of training goes beside its log.
  """

  mesh: Any = None
  scoring: Any = None
  log_every: int = 10
  save_seconds: float = 30.0
  backbone: str = ''
  folder: str = ''
  watching: Any = None
  adapter: str = ''


class Planned(NamedTuple):
  """A stage of a plan: whether its result is there, and the seconds that a like one took."""

  stage: Stage
  there: bool
  seconds: float | None


class Lazy(Mapping):
  """The values of inputs, each read when it is asked for."""

  def __init__(self, store: 'Store', stages: Mapping[str, Stage]):
    self._store, self._stages = store, stages

  def __getitem__(self, name: str) -> Any:
    return self._store.get(self._stages[name])

  def __iter__(self) -> Iterator[str]:
    return iter(self._stages)

  def __len__(self) -> int:
    return len(self._stages)


@dataclasses.dataclass(frozen=True)
class Workbench:
  """A `Bench`; see `pipeline.stage`."""

  folder: Path
  settings: Any
  inputs: Mapping[str, Any]
  resources: Resources


class Store:
  """Results by key in one folder, which several processes of one machine may share.

  Of the processes of one job only the first makes and writes results; see `pipeline.follow`.

  Args:
    folder: made when the first result is.
    resources: given to the stages.
    mirror: where results lie, too; None for nowhere.
  """

  def __init__(self, folder: str | Path, resources: Resources = Resources(),
               mirror: 'Mirror | None' = None):
    self.folder = Path(folder)
    self.resources, self.mirror = resources, mirror
    self._values: dict[str, Any] = {}
    self._kept = Kept(self.folder, ABOUT)
    self._progress: Progress | None = None

  def path(self, stage: Stage) -> Path:
    return self.folder / stage.key

  def making(self, stage: Stage) -> Path:
    """The folder in which the result is made."""
    return self.folder / '.making' / stage.key

  def has(self, stage: Stage) -> bool:
    """Whether the result lies there; its content is checked when it is read."""
    return (self.path(stage) / ABOUT).is_file()

  def missing(self, stages: Sequence[Stage]) -> list[Stage]:
    """What must be made for these stages, in the order in which it is made."""
    found: dict[str, Stage] = {}
    for stage in stages:
      if stage.key not in found and not self.has(stage):
        found |= {s.key: s for s in self.missing(list(stage.inputs.values()))}
        found[stage.key] = stage
    return list(found.values())

  @contextlib.contextmanager
  def progress(self, stages: Sequence[Stage], title: str = '') -> Iterator[None]:
    """Inside, each stage that starts is told as one of all that these stages need.

    Inside another such block nothing changes: what is told is the longest road.

    Args:
      stages: that will be made or read.
      title: put in front of what is told, e.g. 'run 7 of 20'.
    """
    if self._progress is not None:
      yield
      return
    if self.mirror is not None:
      self.mirror.sync(self.folder, [s.key for stage in stages for s in stage.walk()])
    self._progress = Progress(self.missing(stages), self._kept.estimates, title)
    try:
      self._progress.begin()
      yield
    finally:
      self._progress = None

  def make(self, stage: Stage) -> None:
    """Makes the result, after its inputs, where it is not there yet."""
    if not self.has(stage):
      with self.progress([stage]):
        self._make_all(stage)

  def _make_all(self, stage: Stage) -> None:
    if self.path(stage).exists():
      if not self.has(stage):  # in this order, for another process may finish at any moment
        raise ValueError(f'{self.path(stage) / ABOUT}: must be there, got no such file; '
                         f'{mend(self.path(stage))}')
      return
    for needed in stage.inputs.values():
      self._make_all(needed)
    with self._alone(stage):
      if not self.has(stage):  # another process may have made it meanwhile
        self._progress.start(stage)
        self._make(stage)
    self._progress.done(stage)

  def get(self, stage: Stage) -> Any:
    """The value of a stage; made where it is not there, read once in a process.

    Raises:
      ValueError: what lies there is damaged; names the file and what to do.
    """
    if stage.key not in self._values:
      self.make(stage)
      check_whole(self.path(stage))
      self._values[stage.key] = stage.read(self.bench(stage, self.path(stage)))
    return self._values[stage.key]

  def plan(self, stages: Sequence[Stage]) -> list[Planned]:
    """All stages that these stand on: which are there, and what the others may take."""
    found: dict[str, Stage] = {}
    for stage in stages:
      found |= {s.key: s for s in stage.walk()}
    seconds = self._kept.estimates(list(found.values()))
    return [Planned(s, self.has(s), seconds[s.key]) for s in found.values()]

  def bench(self, stage: Stage, folder: Path) -> Workbench:
    """What a stage is made or read with."""
    return Workbench(folder, stage.settings, Lazy(self, stage.inputs), self.resources)

  def _make(self, stage: Stage) -> None:
    folder = self.making(stage)
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    with self.mirror.making(folder) if self.mirror else contextlib.nullcontext():
      origin = self._attempt(stage, folder)
    about = {'identity': stage.identity, 'files': digests(folder), 'provenance': origin}
    write_json(folder / ABOUT, about, indent=1)
    os.replace(folder, self.path(stage))
    logging.info('%s: done in %.1f s', stage.name, origin['seconds'])
    if self.mirror is not None:
      self.mirror.push(self.path(stage))

  def _attempt(self, stage: Stage, folder: Path) -> dict[str, Any]:
    """Makes what is left of a result, and tells where it comes from."""
    clock = provenance.Clock(folder)
    try:
      if stage.together or stage.divided:
        processes.told(lambda: self._call(stage))  # to those who wait in `pipeline.follow`
      # NumPy's fits are of small matrices: threads of BLAS spend their time waiting for each other,
      # and sums would depend on how many there are.
      with threadpool_limits(1, 'blas'), processes.dividing(stage.divided):
        stage.make(self.bench(stage, folder))
    except BaseException:
      only_clock = [p.name for p in folder.iterdir()] == [provenance.CLOCK]
      clock.drop() if only_clock else clock.save()
      raise
    return clock.stop()

  def _call(self, stage: Stage) -> dict[str, Any]:
    """The key of a stage, and by key the digest of what describes each that it stands on."""
    there = [s for s in stage.walk()[:-1] if self.has(s)]
    return {'key': stage.key, 'inputs': {s.key: digest(self.path(s) / ABOUT) for s in there}}

  @contextlib.contextmanager
  def _alone(self, stage: Stage) -> Iterator[None]:
    """Holds the lock of a stage; waits for another process, and says for which."""
    place = self.folder / '.locks' / f'{stage.key}.lock'
    place.parent.mkdir(parents=True, exist_ok=True)
    holder = place.with_suffix('.json')
    lock = filelock.FileLock(place)
    try:
      lock.acquire(timeout=0)
    except filelock.Timeout:
      who = {}
      with contextlib.suppress(ValueError):  # the holder may be done by now
        who = read_object(holder)
      logging.warning('%s: waiting for process %s on %s, which makes it', stage.name,
                      who.get('process', '?'), who.get('host', '?'))
      lock.acquire()
    try:
      write_json(holder, {'process': os.getpid(), 'host': socket.gethostname()})
      yield
    finally:
      holder.unlink(missing_ok=True)
      if not self.has(stage):  # while nobody else can have begun
        self._leave_nothing(stage, place)
      lock.release()

  def _leave_nothing(self, stage: Stage, lock: Path) -> None:
    """Removes what a refused start made, as far as nothing lies in it."""
    folders = [self.making(stage), self.making(stage).parent]
    with contextlib.suppress(OSError):
      for folder in folders:
        folder.rmdir()
      if [p.name for p in self.folder.iterdir()] == ['.locks'] and (
          list(lock.parent.iterdir()) == [lock]):
        lock.unlink()
        for folder in (lock.parent, self.folder, self.folder.parent):
          folder.rmdir()


def digests(folder: Path) -> dict[str, str]:
  """The digest of every file of an artefact by its name inside it."""
  return {str(p.relative_to(folder)): digest(p) for p in sorted(folder.rglob('*'))
          if p.is_file() and p.name != ABOUT}


def read_about(folder: Path) -> dict[str, Any]:
  """artefact.json of an artefact, whose identity is that of the folder's name.

  Raises:
    ValueError: it is missing or damaged.
  """
  path = folder / ABOUT
  about = read_json(path)
  try:
    made = key_of(about['identity'])
    wrong = not isinstance(about['files'], dict) or not isinstance(about['provenance'], dict)
  except (KeyError, TypeError, ValueError):
    made, wrong = 'something else', True
  if wrong or made != folder.name:
    raise ValueError(f'{path}: must describe {folder.name}, got {made}; {mend(folder)}')
  return about


def mend(folder: Path) -> str:
  """What to do about a damaged artefact."""
  return f'delete the folder {folder}, and the command that made it makes it again'


def check_whole(folder: Path) -> dict[str, Any]:
  """`read_about`, after every file was found to be what was written.

  Raises:
    ValueError: a file is missing, new or changed.
  """
  about = read_about(folder)
  found = digests(folder)
  for name in sorted({*found, *about['files']}):
    was, now = about['files'].get(name), found.get(name)
    if was != now:
      problem = ('no such file' if now is None else 'a file that is not its own' if was is None
                 else 'another content')
      raise ValueError(f'{folder / name}: must be as it was made, got {problem}; {mend(folder)}')
  return about
