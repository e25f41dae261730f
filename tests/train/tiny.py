"""A stage with a handful of parameters, as a function and as a script to send signals to."""

from collections.abc import Iterator
import hashlib
from pathlib import Path
import select
import sys

from absl import logging
import grain
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.loader import iterate
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.loop import Loop, MetricsWriter, train
from jobrec_jax.train.signals import Interrupted, raise_on_signals
from jobrec_jax.train.speed import PREFIX
from jobrec_jax.train.state import (
  OptimizerConfig,
  TrainState,
  create_state,
  make_optimizer,
  make_update,
)

IDENTITY = {'schema': 'abc', 'seed': 0}


def loss(trainable, frozen, batch, key):
  noise = jax.random.normal(key, (3,))
  return jnp.mean((batch @ (trainable['a'] + 0.1 * noise) - frozen['b']) ** 2), {}


TX = make_optimizer(OptimizerConfig(steps=1000, learning_rate=1e-2))
UPDATE = make_update(loss, TX)


def first_state() -> TrainState:
  return create_state({'a': jnp.arange(3.0)}, {'b': jnp.ones(())}, TX)


def draw(index: int, rng: np.random.Generator) -> np.ndarray:
  return rng.normal(size=3).astype(np.float32)


def batches(step: int) -> Iterator[np.ndarray]:
  """Batches [8, 3] that follow a step."""
  data = grain.MapDataset.range(20).seed(5).shuffle().repeat(10**6).random_map(draw).batch(8)
  return (batch for batch, in iterate(data, start=step))


def run(folder: Path, steps: int, data=batches, update=UPDATE, state: TrainState | None = None,
        **options) -> TrainState:
  """Trains in a folder, or goes on with what lies there."""
  with Checkpoints(folder / 'checkpoints', IDENTITY) as checkpoints:
    loop = Loop('tiny', steps, checkpoints, MetricsWriter(folder / 'metrics.jsonl'),
                **{'log_every': 1, 'save_seconds': 0.0} | options)
    return train(loop, update, state or first_state(), data, jax.random.key(1),
                 make_mesh(MeshConfig()))


def rows(folder: Path) -> list[dict]:
  """Metrics of a folder without how fast it was, which no two attempts share."""
  return [{k: v for k, v in row.items() if not k.startswith(PREFIX)}
          for row in MetricsWriter(folder / 'metrics.jsonl').read()]


def bits(state: TrainState) -> str:
  leaves = jax.tree.leaves(jax.device_get(state))
  return hashlib.sha256(b''.join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()


def main(folder: str, steps: str, pause: str, save_seconds: str) -> None:
  """Trains; before the batch of index `pause` it says so and waits for a line."""
  def paused(step: int) -> Iterator[np.ndarray]:
    for index, batch in enumerate(batches(step), step):
      if index == int(pause):
        print('paused', flush=True)
        # A signal between the line before and a read that blocks is not handled until the read
        # ends, and the next one would be taken for it.
        while not select.select([sys.stdin], [], [], 0.05)[0]:
          pass
        sys.stdin.readline()
      yield batch

  state = run(Path(folder), int(steps), paused, save_seconds=float(save_seconds))
  print(bits(state))


if __name__ == '__main__':
  logging.set_verbosity(logging.INFO)
  raise_on_signals()
  try:
    main(*sys.argv[1:])
  except ValueError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
  except Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
