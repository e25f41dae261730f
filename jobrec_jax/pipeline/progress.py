"""How far the whole road is: which stage of how many, and the time left from kept results."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from jobrec_jax.pipeline.stage import Stage, canonical
from jobrec_jax.schema.files import read_json
from jobrec_jax.schema.progress import about

Identity = Mapping[str, Any]
Estimates = Callable[[Sequence[Stage]], Mapping[str, float | None]]


class Progress:
  """Tells at the start of each stage how far the road is; of one alone only its name and time.

  Args:
    stages: those that will be made, in their order.
    estimates: stages -> seconds by key, None where nothing is kept of a like one.
    title: put in front, e.g. 'run 7 of 20'.
  """

  def __init__(self, stages: Sequence[Stage], estimates: Estimates, title: str = ''):
    self._count = len(stages)
    self._left = {s.key: s for s in stages}
    self._estimates, self._title = estimates, f'{title}, ' if title else ''

  def begin(self) -> None:
    """Says what will be made, where that is more than one stage."""
    if len(self._left) > 1:
      logging.info('%s%d stages to make (%s), %s', self._title, len(self._left),
                   ', '.join(s.name for s in self._left.values()), self.left())

  def start(self, stage: Stage) -> None:
    """Says that a stage starts; one that was not planned makes the road longer."""
    if stage.key not in self._left:
      self._count += 1
      self._left[stage.key] = stage
    at = f'{self._count - len(self._left) + 1} of {self._count}: ' if self._count > 1 else ''
    logging.info('%sstage %s%s, %s', self._title, at, stage.name, self.left())

  def done(self, stage: Stage) -> None:
    self._left.pop(stage.key, None)

  def left(self) -> str:
    """'about 3 min left', of all stages that are not done."""
    seconds = self._estimates(list(self._left.values()))
    unknown = [s.name for key, s in self._left.items() if seconds[key] is None]
    if len(unknown) == len(self._left):
      return 'no estimate yet'
    text = f'{about(sum(x for x in seconds.values() if x is not None))} left'
    if unknown:
      names = ', '.join(unknown) if len(unknown) < 4 else f'{len(unknown)} stages'
      text += f' and {names}, of which there is no estimate yet'
    return text


class _Result(NamedTuple):
  """A kept result: the hash of what it depends on but seeds, of its own settings, and its cost.

  `steps` are those of its training, 0 where it trains nothing.
  """

  like: str
  own: str
  changed: float
  seconds: float
  steps: int


class Kept:
  """What results of a store say of the time that like ones take.

  Args:
    folder: of the store.
    about: name of the file beside each result that holds its identity and provenance.
  """

  def __init__(self, folder: Path, about: str):
    self._folder, self._about = folder, about
    self._seen: set[str] = set()
    self._identities: dict[str, Identity] = {}
    self._signs: dict[str, str] = {}
    self._own: dict[str, str] = {}
    self._results: dict[str, dict[str, _Result]] = {}

  def estimates(self, stages: Sequence[Stage]) -> dict[str, float | None]:
    """Seconds that each stage may take, by key; None where no result has its name.

    Those of the newest result of those that are most like it: that differ in seeds alone, all that
    they stand on too; else whose own settings do; else any of the name. Training takes as long as
    it has steps.
    """
    self._read_new()
    found: dict[str, float | None] = {}
    for stage in stages:
      if stage.key not in self._identities:
        self._identities |= {s.key: s.identity for s in stage.walk()}
      if stage.key not in self._own:
        self._own[stage.key] = _hash(unseeded(stage.identity['settings']))
      like, own = self._sign(stage.key), self._own[stage.key]
      results = self._results.get(stage.name, {}).values()
      best = max(results, default=None,
                 key=lambda r, like=like, own=own: (r.like == like, r.own == own, r.changed))
      steps = _steps(stage.identity['settings'])
      longer = steps / best.steps if best and best.steps and steps else 1.0
      found[stage.key] = None if best is None else best.seconds * longer
    return found

  def _read_new(self) -> None:
    fresh = []
    for path in self._folder.glob(f'*/{self._about}'):
      key = path.parent.name
      if key in self._seen:
        continue
      with contextlib.suppress(ValueError, KeyError, TypeError, OSError):  # damaged, or deleted
        about = read_json(path)
        identity, seconds = about['identity'], float(about['provenance']['seconds'])
        fresh.append((identity['name'], key, identity, path.stat().st_mtime, seconds))
        self._identities[key] = identity
        self._seen.add(key)
    for name, key, identity, changed, seconds in fresh:
      self._results.setdefault(name, {})[key] = _Result(
          self._sign(key), _hash(unseeded(identity['settings'])), changed, seconds,
          _steps(identity['settings']))

  def _sign(self, key: str) -> str:
    """A hash of what a result depends on, but seeds; its key where nothing is known of it."""
    if key not in self._signs:
      if key not in self._identities:
        return key
      identity = self._identities[key]
      self._signs[key] = _hash({
          'version': identity['version'], 'files': identity['files'],
          'settings': unseeded(identity['settings']),
          'inputs': {name: self._sign(x) for name, x in identity['inputs'].items()}})
    return self._signs[key]


def _steps(settings: Mapping[str, Any]) -> int:
  """The updates that a stage's own section asks for, 0 for none."""
  return next((part['steps'] for part in settings.values()
               if isinstance(part, Mapping) and isinstance(part.get('steps'), int)), 0)


def _hash(value: Any) -> str:
  return hashlib.sha256(canonical(value).encode()).hexdigest()


def unseeded(settings: Any) -> Any:
  """Plain settings without any 'seed'."""
  if isinstance(settings, dict):
    return {k: unseeded(v) for k, v in settings.items() if k != 'seed'}
  return settings
