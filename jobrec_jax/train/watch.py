"""Watching training from outside: TensorBoard, Weights & Biases, a trace. No result depends on it.

  RUN/tensorboard/STAGE-KEY/   events; a resumed stage goes on with its course
  RUN/wandb.json, wandb/       the id of each stage's run at Weights & Biases, and its files
  RUN/profile/STAGE-KEY/       a trace of a few steps behind compilation
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import dataclasses
import os
from pathlib import Path
import secrets
from typing import Any, Literal, Protocol

from absl import logging
import jax

from jobrec_jax import processes
from jobrec_jax.schema.files import read_json, write_json
from jobrec_jax.schema.settings import check

SETTLED, TRACED = 2, 3  # steps before a trace (the first one compiles), and in it


class Sink(Protocol):
  """Where scalars of a stage go."""

  def write(self, step: int, scalars: Mapping[str, float]) -> None: ...

  def close(self) -> None: ...


class TensorBoard:
  """Event files, written without TensorFlow.

  Whatever an attempt before wrote from the first step on that is written here is hidden.
  """

  def __init__(self, folder: Path):
    self._folder, self._writer = folder, None

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    if self._writer is None:
      from tensorboardX import SummaryWriter  # here, for only who watches needs it
      self._writer = SummaryWriter(str(self._folder), purge_step=step, flush_secs=10)
    for name, value in scalars.items():
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()


class Wandb:
  """A run at Weights & Biases for each stage, in the group of the run folder.

  Its id lies in RUN/wandb.json, so that a resumed stage goes on with the same course. Project,
  entity, mode and key are those of `wandb login` and of the environment (WANDB_PROJECT, ...).
  """

  def __init__(self, folder: Path, name: str, config: Mapping[str, Any]):
    self._folder, self._name, self._config, self._run = folder, name, config, None

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    if self._run is None:
      self._run = self._open()
    if step >= self._run.step:  # what a killed attempt logged is there, and has the same values
      self._run.log(dict(scalars), step=step)

  def _open(self) -> Any:
    wandb, path = import_wandb(), self._folder / 'wandb.json'
    ids = read_json(path) if path.is_file() else {}
    if self._name not in ids:
      ids[self._name] = secrets.token_hex(4)
      write_json(path, ids, indent=1)  # first, so that no kill loses it
    try:
      return wandb.init(
          id=ids[self._name], resume='allow', name=self._name, group=self._folder.resolve().name,
          dir=str(self._folder), config=dict(self._config),
          project=os.environ.get('WANDB_PROJECT', 'jobrec_jax'))
    except wandb.Error as error:
      said = ' '.join(str(error).split())
      raise ValueError(f'--watch=wandb must be logged in and reach its server, got {said!r}; run '
                       '`wandb login`, or set WANDB_MODE=offline') from error

  def close(self) -> None:
    if self._run is not None:
      self._run.finish()


def import_wandb() -> Any:
  """The package.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import wandb
  except ImportError as error:
    raise ValueError("--watch=wandb needs the package wandb, got none; pip install "
                     "'jobrec_jax[wandb]'") from error
  return wandb


class Watch:
  """A stage that is watched; without arguments it is not.

  Args:
    sinks: where scalars go.
    folder: where the trace goes, None for no trace.
  """

  def __init__(self, sinks: tuple[Sink, ...] = (), folder: Path | None = None):
    self._sinks, self.folder = sinks, folder

  def again(self, rows: Callable[[], Iterable[Mapping[str, Any]]], done: int) -> None:
    """Writes rows of metrics.jsonl up to step `done`, of which a kill may have lost some here."""
    for row in rows() if self._sinks else ():
      if row['step'] <= done:
        self.write(row['step'], {k: v for k, v in row.items() if k not in ('stage', 'step')})

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    for sink in self._sinks:
      sink.write(step, scalars)

  def trace(self, program: Callable[[], Any]) -> None:
    """Traces a run of a program, behind those that compile."""
    with self.tracing() as trace:
      for done in range(SETTLED + 1):
        trace.before(done, ())
        program()

  @contextlib.contextmanager
  def tracing(self) -> Iterator['Trace']:
    """Ends a trace that is still running at the end of the block."""
    trace = Trace(self.folder)
    try:
      yield trace
    finally:
      trace.stop()


UNWATCHED = Watch()


class Trace:
  """jax.profiler's trace of the steps behind the one that compiles.

  Args:
    folder: of the trace; None for none.
  """

  def __init__(self, folder: Path | None):
    self._folder, self._on = folder, False

  def before(self, done: int, state: Any) -> bool:
    """Called before every step, after `done` ones of this process; `state` is the newest.

    Returns:
      Whether a trace was written, which took its time.
    """
    if self._folder is not None and done == SETTLED:
      jax.block_until_ready(state)
      jax.profiler.start_trace(str(self._folder))
      self._on = True
    elif self._on and done == SETTLED + TRACED:
      jax.block_until_ready(state)
      self.stop()
      return True
    return False

  def stop(self) -> None:
    if self._on:
      self._on = False
      jax.profiler.stop_trace()
      logging.info('trace: in %s, for TensorBoard (tensorboard-plugin-profile) or '
                   'https://ui.perfetto.dev (the file trace.json.gz)', self._folder)


@dataclasses.dataclass(frozen=True)
class Watching:
  """How the training of a run is watched; no key holds it.

  Attributes:
    watch: where scalars go beside metrics.jsonl.
    profile: whether each training stage leaves a trace of a few steps.
    folder: of the run.

  Raises:
    ValueError: a name is unknown, or its package is not installed.
  """

  watch: tuple[Literal['tensorboard', 'wandb'], ...] = ()
  profile: bool = False
  folder: str = '.'

  def __post_init__(self):
    check(self)
    if 'wandb' in self.watch:
      import_wandb()  # told before anything is trained

  @contextlib.contextmanager
  def stage(self, name: str, config: Mapping[str, Any]) -> Iterator[Watch]:
    """The watch of a stage.

    Args:
      name: of its artefact, so that another setting's course is another one.
      config: its settings as plain values.
    """
    sinks: list[Sink] = []
    folder, first = Path(self.folder), processes.is_first()
    if first:
      if 'tensorboard' in self.watch:
        sinks.append(TensorBoard(folder / 'tensorboard' / name))
      if 'wandb' in self.watch:
        sinks.append(Wandb(folder, name, config))
    try:
      yield Watch(tuple(sinks), folder / 'profile' / name if self.profile and first else None)
    finally:
      for sink in sinks:
        sink.close()
