"""Time and memory of reading, checking and auditing a user's own tables.

  python -m benchmarks.tables --out=FOLDER [--candidates=100000] [--jobs=1000]

A simulated market is written as three CSV files with a schema file, as a user's would be, and then
read in a process of its own. The row goes to benchmarks/results/tables.json.
"""

from collections.abc import Sequence
import csv
import json
from pathlib import Path
import platform
import resource
import subprocess
import sys
import time

from absl import app, flags
import numpy as np

from jobrec_jax.data.market.simulator import MarketConfig, make_market
from jobrec_jax.data.market.streaming import write_market
from jobrec_jax.data.tables.reader import Division, read_tables
from jobrec_jax.evaluate.audit import audit
from jobrec_jax.schema.document import schema_document
from jobrec_jax.schema.files import write_rows, write_text

OUT = flags.DEFINE_string('out', None, 'folder for the tables', required=True)
CANDIDATES = flags.DEFINE_integer('candidates', 100_000, 'rows of candidates.csv')
JOBS = flags.DEFINE_integer('jobs', 1_000, 'rows of jobs.csv')
SHOWN = flags.DEFINE_float('shown', 5.0, 'interactions of a candidate, in the mean')
RESULTS = Path(__file__).parent / 'results/tables.json'


def write(folder: Path) -> int:
  """The tables; returns how many interactions they hold."""
  market = make_market(MarketConfig(candidates=CANDIDATES.value, jobs=JOBS.value,
                                    exposure=SHOWN.value / JOBS.value), 0)
  write_market(market, folder / 'market')
  schema = market.domain.schema
  document = schema_document(schema)
  document['tables'] = {
      **{f'{side}s': {'file': f'{side}s.csv', 'id': 'id'} for side in ('candidate', 'job')},
      'interactions': {'file': 'log.csv', 'candidate': 'candidate', 'job': 'job',
                       'preference': 'preference', 'qualification': 'qualification'}}
  write_text(folder / 'schema.py', f'SCHEMA_FILE = {document!r}\n')
  for side in ('candidate', 'job'):
    names = [a.name for a in schema.attributes(side)]
    _convert(folder / f'market/{side}s.jsonl', folder / f'{side}s.csv', ['id', *names])
  return _convert(folder / 'market/interactions.jsonl', folder / 'log.csv',
                  ['candidate', 'job', 'preference', 'qualification'])


def _convert(source: Path, to: Path, columns: Sequence[str]) -> int:
  """JSON lines to CSV, a set's members between semicolons; returns the number of rows."""
  with source.open() as lines, to.open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    rows = 0
    for row in map(json.loads, lines):
      writer.writerow([';'.join(v) if isinstance(v := row.get(c), list) else v for c in columns])
      rows += 1
  return rows


def measure(folder: Path) -> dict:
  """Reads and audits; peak memory is that of this process."""
  start = time.perf_counter()
  dataset = read_tables(folder, folder / 'schema.py', Division(0, (0.5, 0.1, 0.15, 0.25), 0.2, 0.1))
  read = time.perf_counter()
  audit(dataset)
  end = time.perf_counter()
  used = resource.getrusage(resource.RUSAGE_SELF)
  return {'read_seconds': round(read - start, 1), 'audit_seconds': round(end - read, 1),
          'cpu_seconds': round(used.ru_utime + used.ru_stime, 1),
          'peak_gb': round(used.ru_maxrss / 1e6, 2)}


def main(argv: list[str]) -> None:
  folder = Path(OUT.value)
  if len(argv) > 1:
    print(json.dumps(measure(folder)))
    return
  interactions = write(folder)
  command = [sys.executable, '-m', 'benchmarks.tables', f'--out={folder}', 'measure']
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  row = {'candidates': CANDIDATES.value, 'jobs': JOBS.value, 'interactions': interactions,
         **json.loads(done.stdout), 'commit': commit, 'python': platform.python_version(),
         'numpy': np.__version__, 'machine': platform.machine()}
  print(row)
  write_rows(RESULTS, [row])


if __name__ == '__main__':
  app.run(main)
