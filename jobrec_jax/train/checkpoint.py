"""Checkpoints: state and step, written in the background by Orbax and verified when read.

In each lies record.json: the step, what the stage was run with, the shapes and types of the arrays,
and the SHA-256 of every file of the state. It is written before the checkpoint takes its name: a
checkpoint without it, or with a file that differs, is damaged. Nothing in it says how many
processes wrote it: any number reads it.
"""

from collections.abc import Iterator
import contextlib
import hashlib
import json
import logging as standard_logging
from pathlib import Path
import shutil
from types import TracebackType
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from jobrec_jax import processes
from jobrec_jax.liveness import is_of_another
from jobrec_jax.schema.files import decode_json, digest, read_json, write_json

PyTree = Any
RECORD = 'record.json'
KEPT = 2  # the newest, and the one before it in case that is damaged


class NotFiniteError(ValueError):
  """An array of a state holds a NaN or an infinity."""


class Checkpoints:
  """The checkpoints of one stage in one folder; the newest `KEPT` stay.

  A context manager: at its end everything is on disk. Several processes call all of it together;
  process 0 looks what lies there, and one that fails waits for nobody.

  Args:
    folder: where they lie; made if it is not there.
    identity: what the stage was run with (schema hash, model and data settings). A checkpoint
      written under another identity is refused.

  Raises:
    ValueError: the folder cannot be made, or the identity is no JSON of finite numbers.
  """

  def __init__(self, folder: Path, identity: dict[str, Any]):
    self.folder = Path(folder).absolute()
    try:
      self._identity = decode_json(json.dumps(identity, allow_nan=False))
    except ValueError as error:
      raise ValueError(f'identity must hold finite numbers, got {identity}') from error
    self._record = {}  # of the checkpoint that is being written
    logging.get_absl_logger().addFilter(_not_from_orbax)
    with self._writing():
      self.folder.mkdir(parents=True, exist_ok=True)
      if processes.is_first():  # Orbax would clean up in the background, beside a first save.
        for unfinished in self.folder.glob('*.orbax-checkpoint-tmp*'):
          shutil.rmtree(unfinished, ignore_errors=True)
      self._manager = ocp.CheckpointManager(self.folder, options=ocp.CheckpointManagerOptions(
          max_to_keep=KEPT,
          async_options=ocp.AsyncOptions(post_finalization_callback=self._write_record)))

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
               trace: TracebackType | None) -> None:
    if kind is not None and processes.several():
      return  # Orbax would wait for the others, who wait for this one.
    try:
      self.close()
    except ValueError as late:
      if kind is None:
        raise
      logging.warning('%s', late)  # The error that is on its way says more.

  def latest(self) -> int | None:
    """The step of the newest checkpoint on disk; waits for one that is being written."""
    self.wait()
    return self._manager.latest_step()

  def save(self, step: int, state: PyTree) -> None:
    """Writes a checkpoint in the background; random keys are never part of it.

    Raises:
      NotFiniteError: an array is not finite; nothing is written.
      ValueError: this checkpoint or the one before could not be written.
    """
    path = _first_not_finite(state)
    if path is not None:
      raise NotFiniteError(f'state{path} is not finite')
    self.wait()
    self._record = {'step': step, 'identity': self._identity, 'arrays': _forms(state)}
    with self._writing():
      self._manager.save(step, force=True, args=ocp.args.Composite(
          state=ocp.args.StandardSave(state)))

  def restore(self, like: PyTree) -> PyTree | None:
    """The newest whole state, laid out like `like`; None if there is no checkpoint.

    Damaged checkpoints that are newer are warned of and renamed to STEP.damaged, so that their
    steps can be saved again.

    Raises:
      ValueError: none of the checkpoints is whole, or one was written under another identity.
    """
    damaged = {}
    for step in processes.told(lambda: sorted(self._manager.all_steps(), reverse=True)):
      identity, wrong = processes.told(lambda step=step: self._examined(step, like))
      if wrong is None and identity != self._identity:
        raise ValueError(self._difference(identity))
      try:
        state = self._read_state(step, like) if wrong is None else None
      except Exception as error:  # Orbax and TensorStore raise all kinds.
        if processes.several() and not isinstance(error, NotFiniteError):
          raise  # the others may have read it
        wrong = _phrase(error)
      if wrong is None:
        self._set_aside(damaged, step)
        return state
      damaged[step] = wrong
    if damaged:
      reasons = '; '.join(f'{step}: {reason}' for step, reason in damaged.items())
      raise ValueError(f'{self.folder}: must hold a whole checkpoint, got damaged ones alone '
                       f'({reasons}); delete this folder to start the stage anew')
    return None

  def wait(self) -> None:
    """Returns once everything saved is on disk; raises ValueError if it could not be written."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, and ends the background threads."""
    try:
      self.wait()
    finally:
      with self._writing():
        self._manager.close()

  def _write_record(self) -> None:
    """Runs in Orbax's thread once all files are written, before the checkpoint takes its name."""
    if processes.is_first():
      step = self._record['step']
      folder, = self.folder.glob(f'{step}.orbax-checkpoint-tmp*')
      record = self._record | {'files': {
          str(path.relative_to(folder)): digest(path)
          for path in sorted((folder / 'state').rglob('*')) if path.is_file()}}
      write_json(folder / RECORD, record | {'digest': _digest(record)})

  def _examined(self, step: int, like: PyTree) -> tuple[dict | None, str | None]:
    """With what a checkpoint was written, and why it cannot be read; None where it can."""
    try:
      record = _read_record(self.folder / str(step), step)
      if record['identity'] == self._identity:
        _compare('array', _forms(like), record['arrays'])
      return record['identity'], None
    except Exception as error:  # of a damaged file
      return None, _phrase(error)

  def _read_state(self, step: int, like: PyTree) -> PyTree:
    """Raises anything at all where the checkpoint is not whole."""
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    state = self._manager.restore(step, args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract)))['state']
    path = _first_not_finite(state)
    if path is not None:
      raise NotFiniteError(f'state{path} is not finite')
    return state

  def _difference(self, found: dict) -> str:
    different = sorted(k for k in {*found, *self._identity}
                       if found.get(k) != self._identity.get(k))
    key = different[0]
    return (f'{self.folder}: the checkpoint was written with {key}={found.get(key)!r}, '
            f'this run has {self._identity.get(key)!r} (different: {different}); use '
            'another --workdir or the settings of the first run')

  def _set_aside(self, damaged: dict[int, str], whole: int) -> None:
    for step, reason in damaged.items():
      path = self.folder / str(step)
      logging.warning('%s: damaged, renamed to %d.damaged; going on from step %d (%s)', path, step,
                      whole, reason)
      if processes.is_first():
        with self._writing():
          shutil.rmtree(path.with_name(f'{step}.damaged'), ignore_errors=True)
          path.rename(path.with_name(f'{step}.damaged'))
    if damaged:
      processes.meet()
      self._manager.reload()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns whatever a full or read-only disk raises, at once or later, into one ValueError.

    Saves of several processes wait for each other; that one is gone is no fault of the disk.
    """
    try:
      yield
    except Exception as error:
      if processes.several() and is_of_another(error):
        raise
      raise ValueError(f'{self.folder}: must be a folder with space to write, got: '
                       f'{_phrase(error)}; the same command resumes once it is') from error


def _not_from_orbax(record: standard_logging.LogRecord) -> bool:
  """Orbax logs a traceback for each error that this module words in one line."""
  return '/orbax/checkpoint/' not in record.pathname


def _first_not_finite(tree: PyTree) -> str | None:
  """The path of the first array with a NaN or an infinity; reduced on the device."""
  flags = jax.device_get(_finite(tree))
  return next((path for (path, _), flag in zip(_leaves(tree), flags) if not flag), None)


@jax.jit
def _finite(tree: PyTree) -> list[jax.Array]:
  return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
  return [(jax.tree_util.keystr(path), leaf)
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def _forms(tree: PyTree) -> dict[str, list]:
  """path -> [shape, dtype]."""
  return {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in _leaves(tree)}


def _compare(kind: str, allowed: dict, found: dict) -> None:
  for name in sorted({*found, *allowed}):
    if found.get(name) != allowed.get(name):
      raise ValueError(f'{kind} {name} must be {allowed.get(name, "absent")}, '
                       f'got {found.get(name, "none")}')


def _digest(record: dict) -> str:
  return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read_record(folder: Path, step: int) -> dict:
  """The record of a checkpoint whose files are all as they were written; raises ValueError."""
  record = read_json(folder / RECORD)
  if not isinstance(record, dict) or record.pop('digest', None) != _digest(record):
    raise ValueError(f'{folder / RECORD}: must be as it was written, got other content')
  for name, written in record['files'].items():
    if digest(folder / name) != written:
      raise ValueError(f'{folder / name}: must be as it was written, got other content')
  if record['step'] != step:
    raise ValueError(f'{folder}: must be of step {step}, got step {record["step"]}')
  return record


def _phrase(error: Exception) -> str:
  text = ' '.join(str(error).split())
  if not isinstance(error, ValueError) or not text:
    text = f'{type(error).__name__} {text}'.strip()
  return text if len(text) <= 200 else f'{text[:90]} ... {text[-90:]}'
