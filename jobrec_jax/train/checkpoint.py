"""Checkpoints: state, data iterator, config and schema hash, written atomically by Orbax."""

import json
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

PyTree = Any


class Checkpoints:
  """The checkpoints of one stage in one folder; the newest few are kept.

  Args:
    folder: where they lie; made when the first is written.
    identity: what the stage was run with (schema hash, model and data settings). A checkpoint
      written under another identity is refused.
  """

  def __init__(self, folder: Path, identity: dict[str, Any]):
    self.folder = Path(folder).absolute()
    self._identity = json.loads(json.dumps(identity))
    self._manager = ocp.CheckpointManager(
        self.folder, options=ocp.CheckpointManagerOptions(max_to_keep=2, create=True))

  def latest(self) -> int | None:
    return self._manager.latest_step()

  def save(self, step: int, state: PyTree, data: grain.DatasetIterator | None = None) -> None:
    """Writes a checkpoint in the background; keys are never part of it."""
    parts = {'state': ocp.args.StandardSave(state), 'identity': ocp.args.JsonSave(self._identity)}
    if data is not None:
      parts['data'] = grain.checkpoint.CheckpointSave(data)
    self._manager.save(step, args=ocp.args.Composite(**parts))

  def restore(self, like: PyTree, data: grain.DatasetIterator | None = None) -> PyTree:
    """The newest state, laid out like `like`; the data iterator moves to where it stood.

    Raises:
      ValueError: there is no checkpoint, or it was written under another identity.
    """
    step = self._manager.latest_step()
    if step is None:
      raise ValueError(f'{self.folder}: no checkpoint there')
    found = self._manager.restore(step, args=ocp.args.Composite(
        identity=ocp.args.JsonRestore()))['identity']
    different = sorted(k for k in {*found, *self._identity}
                       if found.get(k) != self._identity.get(k))
    if different:
      key = different[0]
      raise ValueError(f'{self.folder}: the checkpoint was written with {key}={found.get(key)!r}, '
                       f'this run has {self._identity.get(key)!r} (different: {different}); use '
                       'another --workdir or the settings of the first run')
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    parts = {'state': ocp.args.StandardRestore(abstract)}
    if data is not None:
      parts['data'] = grain.checkpoint.CheckpointRestore(data)
    return self._manager.restore(step, args=ocp.args.Composite(**parts))['state']

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()


def load_params(folder: Path, schema: str) -> PyTree:
  """The newest parameters in a folder as NumPy arrays, whatever devices wrote them.

  Args:
    folder: the checkpoints of a stage.
    schema: the fingerprint that the checkpoint must carry.

  Returns:
    Of a `TrainState` its trainable parameters, of a tuple its first entry.

  Raises:
    ValueError: there is no checkpoint, or it was written under another schema.
  """
  folder = Path(folder).absolute()
  if not folder.is_dir():
    raise ValueError(f'{folder}: no checkpoint there')
  with ocp.CheckpointManager(folder) as manager:
    step = manager.latest_step()
    if step is None:
      raise ValueError(f'{folder}: no checkpoint there')
    found = manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))
  if found['identity'].get('schema') != schema:
    raise ValueError(f'{folder}: the checkpoint was written under schema '
                     f'{found["identity"].get("schema")!r}, this schema is {schema!r}')
  path = folder / str(step) / 'state'
  with ocp.PyTreeCheckpointer() as reader:
    stored = reader.metadata(path).item_metadata.tree
    if isinstance(stored, dict):  # The optimiser's moments stay on disk.
      stored = {'trainable': stored['trainable']}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
    state = reader.restore(path, args=ocp.args.PyTreeRestore(
        item=stored, restore_args=as_numpy, partial_restore=True))
  return state['trainable'] if isinstance(state, dict) else state[0]
