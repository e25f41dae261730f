"""One loop for every stage that reads batches: progress, metrics, checkpoints, resumption."""

from collections.abc import Callable
import json
from pathlib import Path
import time
from typing import Any

from absl import logging
import grain
import jax
import numpy as np

from jobrec_jax.sharding import layout, on_mesh, shard_batch
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.state import TrainState


class MetricsWriter:
  """Appends one JSON object a line to metrics.jsonl; each line is complete or absent."""

  def __init__(self, path: Path):
    self._path = Path(path)

  def write(self, **row: Any) -> None:
    with self._path.open('a') as f:
      f.write(json.dumps(row) + '\n')

  def read(self) -> list[dict]:
    """All rows; of a step that a resumed run did again, the last."""
    if not self._path.exists():
      return []
    rows = [json.loads(line) for line in self._path.read_text().splitlines()]
    return list({(r['stage'], r.get('tau'), r['step']): r for r in rows}.values())


def train(stage: str, step_fn: Callable, state: TrainState, data: grain.DatasetIterator,
          steps: int, key: jax.Array, mesh: jax.sharding.Mesh, checkpoints: Checkpoints,
          metrics: MetricsWriter, log_every: int = 20, save_seconds: float = 30.0) -> TrainState:
  """Runs a stage to its last step, from its newest checkpoint if there is one.

  A checkpoint leaves frozen parameters out: they are what they were, from the seed or their source.

  Args:
    stage: its name in logs and metrics.
    step_fn: (state, batch, key) -> (state, flat metrics); compiled here, the state donated.
    state: the initial state; also the layout that a checkpoint is restored to.
    data: an iterator over host batches.
    steps: updates in all.
    key: the root key of the stage.
    mesh: the mesh that batches are laid out on.
    checkpoints: the stage's checkpoints; the last step is always saved.
    metrics: where metrics go on log steps.
    log_every: steps between two logs; only then, and for a checkpoint, do scalars leave the device.
    save_seconds: an interruption loses at most this much.

  Returns:
    The state after the last step.

  Raises:
    FloatingPointError: the loss or its gradient is not finite; no checkpoint holds such a state.
  """
  state = on_mesh(state, mesh)  # Restored arrays take the layout of these.
  if checkpoints.latest() is not None:
    state = checkpoints.restore(state.replace(frozen=()), data).replace(frozen=state.frozen)
    logging.info('%s: resumed at step %d of %d', stage, int(state.step), steps)
  step_fn = jax.jit(step_fn, donate_argnums=0)
  first = step = int(state.step)
  started = saved = time.monotonic()
  with layout(mesh):
    while step < steps:
      batch = shard_batch(next(data), mesh)
      state, scalars = step_fn(state, batch, key)
      step += 1
      save = step == steps or time.monotonic() - saved > save_seconds
      log = step % log_every == 0 or step == steps or step == first + 1
      if save or log:
        row = {k: float(v) for k, v in jax.device_get(scalars).items()}
        loss = row['train/loss']
        for name in ('train/loss', 'train/grad_norm'):  # before a checkpoint could hold them
          if not np.isfinite(row.get(name, 0)):
            raise FloatingPointError(f'{stage}: {name} is {row[name]} at step {step}; the newest '
                                     f'checkpoint is at step {checkpoints.latest()}')
      if log:
        left = (time.monotonic() - started) / (step - first) * (steps - step)
        logging.info('%s: step %d/%d, loss %.4f, %.0f s left', stage, step, steps, loss, left)
        if jax.process_index() == 0:
          metrics.write(stage=stage, step=step, **row)
      if save:
        checkpoints.save(step, state.replace(frozen=()), data)
        saved = time.monotonic()
  checkpoints.close()
  return state
