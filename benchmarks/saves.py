"""What a checkpoint of a pretrained decoder's training costs: seconds that the loop waits, and CPU.

  python -m benchmarks.saves [--config=configs/smollm2.py] [--decoder=FILE]

The state of stage 1B at its real sizes, frozen weights left out as in training, with random
numbers, is saved again and again as the loop does it. `waits_s` is how long `save` holds the loop
up; `done_s` how long until all is on disk, in the background; `cpu_s` what both take of the cores.
Medians behind a first save. `share` is what one save a minute may cost at most: the loop waits, and
then loses the cores' seconds as if it could use every one. A row goes to
benchmarks/results/saves.json.
"""

from collections.abc import Sequence
import os
from pathlib import Path
import platform
import statistics
import tempfile
import time

from absl import flags
import jax
import numpy as np

from jobrec_jax.command_line import config_settings, define_config, launch
from jobrec_jax.pipeline import provenance
from jobrec_jax.pipeline.compile_ahead import make_step
from jobrec_jax.schema.files import write_rows
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.state import TrainState

RESULTS = Path(__file__).parent / 'results/saves.json'
SAVES, MINUTE = 8, 60.0


def random_state(abstract: TrainState) -> TrainState:
  """A state of these shapes without frozen weights."""
  rng = np.random.default_rng(0)

  def drawn(x: jax.ShapeDtypeStruct) -> jax.Array:
    numbers = rng.normal(size=x.shape) if np.issubdtype(x.dtype, np.floating) else np.ones(x.shape)
    return jax.device_put(np.asarray(numbers, x.dtype), x.sharding)
  return jax.tree.map(drawn, abstract.replace(frozen=()))


def measure(state: TrainState, folder: Path) -> dict[str, float]:
  """Saves the state under growing steps."""
  waits, done, cpu = [], [], []
  with Checkpoints(folder, {'stage': 'saves'}) as checkpoints:
    for step in range(1, SAVES + 1):
      start, used = time.perf_counter(), time.process_time()
      checkpoints.save(step, state)
      waits.append(time.perf_counter() - start)
      checkpoints.wait()
      done.append(time.perf_counter() - start)
      cpu.append(time.process_time() - used)
  of = {'waits_s': waits, 'done_s': done, 'cpu_s': cpu}
  row = {name: round(statistics.median(x[1:]), 4) for name, x in of.items()}
  cores = len(os.sched_getaffinity(0))
  most = row['waits_s'] + row['cpu_s'] / cores
  return row | {'first_waits_s': round(waits[0], 4), 'cores': cores,
                'share': round(most / MINUTE, 5)}


def main(argv: Sequence[str]) -> None:
  del argv
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  state = random_state(make_step(config_settings(), Path(flags.FLAGS.decoder),
                                 mesh).state)
  with tempfile.TemporaryDirectory() as folder:
    found = measure(state, Path(folder))
  leaves = jax.tree.leaves(state)
  row = {'decoder': Path(flags.FLAGS.decoder).stem, 'arrays': len(leaves),
         'mb': round(sum(x.nbytes for x in leaves) / 1e6, 2), **found,
         'load': round(os.getloadavg()[0], 1), 'commit': provenance.commit(),
         'machine': platform.machine(), 'python': platform.python_version()}
  row |= provenance.versions()
  print(row)
  write_rows(RESULTS, [row])


if __name__ == '__main__':
  define_config('configs/smollm2.py')
  flags.DEFINE_string('decoder', 'configs/decoders/smollm2_135m.json', "the decoder's config.json")
  launch(main)
