"""Time, memory and bytes of writing a simulated market to disk, by size and number of workers.

  python -m benchmarks.simulator --out=FOLDER [--sizes=10000,100000,1000000] [--workers=1,2]

Jobs 10,000, a recommender shows nine a candidate, truth of those pairs apart. Rows go
to benchmarks/results/simulator.json. The digest is of all files: it must not depend on the workers.
"""

import hashlib
import json
from pathlib import Path
import platform
import resource
import shutil
import subprocess
import sys
import time

from absl import app, flags
import numpy as np

from jobrec_jax.data.market.simulator import MarketConfig, make_market
from jobrec_jax.data.market.streaming import write_market
from jobrec_jax.schema.files import digest, read_object, write_rows

OUT = flags.DEFINE_string('out', None, 'folder for the data, which is removed after', required=True)
SIZES = flags.DEFINE_list('sizes', ['10000', '100000', '1000000'], 'candidates')
WORKERS = flags.DEFINE_list('workers', ['1', '2'], 'processes that draw')
RESULTS = Path(__file__).parent / 'results/simulator.json'


def folder_digest(folder: Path) -> str:
  h = hashlib.sha256()
  for path in sorted(p for p in folder.rglob('*') if p.is_file()):
    h.update(path.relative_to(folder).as_posix().encode())
    h.update(bytes.fromhex(digest(path)))
  return h.hexdigest()[:16]


def measure(candidates: int, workers: int, folder: Path) -> dict:
  start = time.perf_counter()
  market = make_market(MarketConfig(candidates=candidates, jobs=10_000, exposure=0.001,
                                    logging='recommender'), 0)
  write_market(market, folder / 'data', folder / 'truth', workers)
  seconds = time.perf_counter() - start
  peak = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF,
                                                              resource.RUSAGE_CHILDREN)]
  row = {'candidates': candidates, 'jobs': 10_000, 'workers': workers, 'seconds': round(seconds, 1),
         'microseconds_a_candidate': round(seconds / candidates * 1e6, 1),
         # The largest child, times their number: at least what all held together.
         'peak_gb': round(peak[0] + (workers * peak[1] if workers > 1 else 0), 3),
         'gigabytes': round(sum(p.stat().st_size for p in folder.rglob('*')) / 1e9, 3),
         'shown_pairs': read_object(folder / 'data/dataset.json')['interactions'],
         'digest': folder_digest(folder)}
  shutil.rmtree(folder)
  return row


def one(argv: list[str]) -> None:
  """A measurement in a process of its own, so that peaks of memory do not mix."""
  print(json.dumps(measure(int(argv[0]), int(argv[1]), Path(argv[2]))))


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    one(argv[1:])
    return
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  about = {'commit': commit, 'python': platform.python_version(), 'numpy': np.__version__,
           'machine': platform.machine()}
  rows = []
  for size in SIZES.value:
    for workers in WORKERS.value:
      folder = Path(OUT.value) / 'market'
      command = [sys.executable, '-m', 'benchmarks.simulator', f'--out={OUT.value}', size, workers,
                 str(folder)]
      done = subprocess.run(command, capture_output=True, text=True, check=True)
      rows.append(json.loads(done.stdout) | about)
      print(rows[-1], flush=True)
  RESULTS.parent.mkdir(exist_ok=True)
  write_rows(RESULTS, rows)


if __name__ == '__main__':
  app.run(main)
