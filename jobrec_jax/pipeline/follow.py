"""The processes of a job beside the first: they wait, and train and score what it tells them to.

Process 0 runs the script: it looks what is there, makes on its own devices what one process can
make, writes, reports. Stages that are made `together` or `divided` it calls out by their keys.
"""

from collections.abc import Callable
import logging as standard_logging
from pathlib import Path
import tempfile
import time
from typing import Any

from absl import logging

from jobrec_jax import processes
from jobrec_jax.pipeline.provenance import commit, versions
from jobrec_jax.pipeline.road import others
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.stage import Stage, plain
from jobrec_jax.pipeline.store import ABOUT, Store
from jobrec_jax.schema.files import digest

VISIBLE = 60.0  # seconds until what process 0 wrote must be seen on a shared disk


def share(run: Run, main: Callable[[Run], None]) -> None:
  """Runs `main` in process 0, for which the others work.

  Raises:
    ValueError: the processes do not run the same.
  """
  if not processes.several():
    main(run)
    return
  check_same(run)
  if processes.is_first():
    main(run)
    processes.told(_nothing)
  else:
    logging.get_absl_handler().addFilter(_warns)  # the rest is said by process 0
    follow(run)


def _warns(record: standard_logging.LogRecord) -> bool:
  return record.levelno >= standard_logging.WARNING


def follow(run: Run) -> None:
  """Makes with process 0 what it calls out, until its script ends.

  Raises:
    ValueError: a result of process 0 is not to be seen here, or another lies in its place.
  """
  store = _Following(run.store.folder, run.store.resources)
  stages = by_key(run)
  while (call := processes.told(_nothing)) is not None:
    for key, expected in call['inputs'].items():
      store.check(stages[key], expected)
    stage = stages[call['key']]
    if not stage.divided:
      stage.make(store.bench(stage, store.making(stage)))
      continue
    with tempfile.TemporaryDirectory() as folder, processes.dividing():
      stage.make(store.bench(stage, Path(folder)))


def by_key(run: Run) -> dict[str, Stage]:
  """All stages that process 0 may call out."""
  return {s.key: s for stage in [*run.stages(), *others(run.settings, run.road)]
          for s in stage.walk()}


def _nothing() -> None:
  return None


class _Following(Store):
  """A store that waits for results instead of making them."""

  def make(self, stage: Stage) -> None:
    until = time.monotonic() + VISIBLE
    while not self.has(stage):
      if time.monotonic() > until:
        raise ValueError(f'{self.path(stage)}: must be seen by every process once the first made '
                         'it, got no such folder; --workdir and --store must be on a shared disk')
      time.sleep(0.1)

  def check(self, stage: Stage, expected: str) -> None:
    """Compares a result with the one that process 0 has, whose description has this digest.

    Raises:
      ValueError: there is none, or another: made by another process, on a disk of this host.
    """
    self.make(stage)
    if digest(self.path(stage) / ABOUT) != expected:
      raise ValueError(f'{self.path(stage)}: must be what process 0 has there, got another result; '
                       '--workdir and --store must be on a shared disk')


def check_same(run: Run) -> None:
  """Compares what results depend on in all processes of a job; all call this.

  Raises:
    ValueError: in process 0, naming the process and the key that differs.
  """
  stages = {s.name: s.key for stage in run.stages() for s in stage.walk()}
  about = {'settings': plain(run.settings), 'commit': commit(), 'versions': versions(),
           'store': str(run.store.folder.resolve()), 'stages': stages}
  first, *others = processes.gathered('about', about) or [None]
  for process, other in enumerate(others, 1):
    expected, found = _flat(first), _flat(other)
    for key in [k for k in {**expected, **found} if expected.get(k) != found.get(k)]:
      raise ValueError(f'process {process} must have {key}={expected.get(key)!r} as process 0, got '
                       f'{found.get(key)!r}')


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'settings': {'a': {'b': 1}}} -> {'a.b': 1}."""
  found = {}
  for key, value in tree.items():
    name = '' if key == 'settings' and not prefix else f'{prefix}{key}'
    if isinstance(value, dict):
      found |= _flat(value, f'{name}.' if name else '')
    else:
      found[name] = value
  return found
