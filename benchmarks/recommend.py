"""Pairs a second through `Recommender`, against the compiled scoring program alone.

  python -m benchmarks.recommend [--quick] [--candidates=40 --jobs=1000] [--attention=factored]

| row | what |
|---|---|
| program | `policy_scores`' compiled program on batches that lie ready on the device |
| recommender | `Recommender.score`: records in, all scores and lambda out; the catalogue is read |
| first | the first `recommend` in a process: import, parameters at hand, one candidate, 100 jobs |
| warm | a later one, of another candidate, the catalogue known |
| memory | bytes that the stream holds for 8 million pairs beside their scores, without a model |

`program` and `recommender` take turns in one process, `--repeats` times; of each the median, and
the median ratio of neighbours. They score a slice of the 2,000 candidates, all of the jobs, with
random parameters of the quickstart's sizes. Rows go to benchmarks/results/recommend.json.
"""

import collections
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

from jobrec_jax.schema.files import write_text

QUICK = flags.DEFINE_bool('quick', False, 'four candidates, 200 jobs, two repeats; no memory')
CANDIDATES = flags.DEFINE_integer('candidates', 40, 'the slice of the 2,000 that is scored')
JOBS = flags.DEFINE_integer('jobs', 1000, 'jobs in the catalogue')
REPEATS = flags.DEFINE_integer('repeats', 5, 'turns of program and recommender')
ATTENTION = flags.DEFINE_enum('attention', 'exact', ['exact', 'factored'], 'of the model')
WIDTH = flags.DEFINE_integer('width', 64, "the decoder's width; 64 is the quickstart's")
RESULTS = Path(__file__).parent / 'results/recommend.json'
KNOTS = 12


def recommender(jobs: int, candidates: int):
  """A recommender of random parameters over a simulated market, and its candidates."""
  import flax.linen as nn
  import jax
  import numpy as np

  from jobrec_jax.data.market.simulator import MarketConfig, simulate
  from jobrec_jax.data.tokens import BlockFormat, corpus, train_tokenizer
  from jobrec_jax.models.decoder import DecoderConfig
  from jobrec_jax.models.jobrec import JobRec, JobRecConfig
  from jobrec_jax.models.policy import PolicyHead
  from jobrec_jax.recommend import Recommender
  from jobrec_jax.scoring.calibration import Calibration
  from jobrec_jax.scoring.experts import Experts
  from jobrec_jax.scoring.policy import Policy
  from jobrec_jax.sharding import MeshConfig, make_mesh
  dataset, _ = simulate(MarketConfig(candidates=max(candidates, 100), jobs=jobs,
                                    exposure=0.2), 0)
  tokenizer = train_tokenizer(corpus(dataset), 4096)
  lengths = BlockFormat(64, 40, 20)
  D = WIDTH.value
  decoder = DecoderConfig(vocab_size=tokenizer.get_vocab_size(), width=D, layers=2, heads=D // 16,
                          kv_heads=D // 32, head_width=16, mlp_width=3 * D, unroll=2)
  starts = {'job_start': 64, 'pair_start': 104} if ATTENTION.value == 'factored' else {}
  model = JobRec(JobRecConfig(decoder, attention=ATTENTION.value, **starts))
  text = np.zeros((1, 4), np.int32)
  params = jax.jit(lambda: nn.unbox(model.init(
      jax.random.key(0), text, text[:, None], text[:, None])['params']))()
  head = PolicyHead(widths=(64,), outputs=KNOTS)
  head_params = head.init(jax.random.key(1), *np.zeros((2, 1, D), np.float32))['params']
  policy = Policy(head, head_params, np.linspace(0.4, 0.8, KNOTS, dtype=np.float32), 1.0)
  return Recommender(dataset.schema, Experts(model, params, tokenizer, lengths),
                     Calibration(0.0, 1.0), policy, dataset.jobs,
                     make_mesh(MeshConfig())), dataset.candidates[:candidates]


def stream() -> list[dict]:
  """The rows of `program` and `recommender`."""
  import jax
  import numpy as np

  from jobrec_jax.scoring.features import Readout
  from jobrec_jax.sharding import layout
  found, candidates = recommender(JOBS.value, CANDIDATES.value)
  start = time.perf_counter()
  found.recommend(candidates[:1], 0.5)  # reads the catalogue
  reading = time.perf_counter() - start
  catalogue = found._catalogue(None)
  scorer = catalogue.scorer.with_blocks(catalogue.scorer.blocks.with_candidates(candidates))
  pairs = np.arange(len(candidates) * JOBS.value)
  with layout(found.mesh):
    experts, readout = scorer._program(pairs), Readout(found.policy.head, found.policy.params)
    batches = list(scorer._batches(pairs))
  jax.block_until_ready([batch.lists for batch in batches])

  def program():
    waiting = collections.deque()
    with layout(found.mesh):
      for batch in batches:
        waiting.append(readout(experts(batch)))
        if len(waiting) > 2:  # no more in flight than a device would hold
          jax.block_until_ready(waiting.popleft())
      jax.block_until_ready(waiting)

  systems = {'program': program, 'recommender': lambda: found.score(candidates)}
  times = {name: [] for name in systems}
  for repeat in range(REPEATS.value + 1):
    for name, run in systems.items():
      cpu, start = time.process_time(), time.perf_counter()
      run()
      if repeat:  # the first compiles
        times[name].append((time.perf_counter() - start, time.process_time() - cpu))
  shape = {'candidates': len(candidates), 'of_candidates': 2000, 'jobs': JOBS.value,
           'attention': ATTENTION.value, 'width': WIDTH.value, 'batches': len(batches),
           'padding': round(1 - len(pairs) / sum(b.kept.size for b in batches), 4)}
  rows = []
  for name, taken in times.items():
    seconds, cpu = map(statistics.median, zip(*taken))
    rows.append({'row': name} | shape | {
        'seconds': round(seconds, 3), 'core_seconds': round(cpu, 3),
        'pairs_per_second': round(len(pairs) / seconds)})
  ratios = [a[0] / b[0] for a, b in zip(*times.values())]
  rows[1] |= {'share_of_program': round(statistics.median(ratios), 3),
              'shares': [round(r, 3) for r in ratios], 'first_call_seconds': round(reading, 2)}
  return rows


def process() -> list[dict]:
  """The rows of `first` and `warm`: what the scripts' caller waits for, but for reading a run."""
  start = time.perf_counter()
  import jax

  import jobrec_jax.recommend  # noqa: F401
  imports = time.perf_counter() - start
  jax.config.update('jax_compilation_cache_dir', os.environ['JOBREC_BENCHMARK_CACHE'])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  found, candidates = recommender(100, 8)
  times = []
  for candidate in candidates[:5]:
    start, cpu = time.perf_counter(), time.process_time()
    found.recommend(candidate, 0.5)
    times.append((time.perf_counter() - start, time.process_time() - cpu))
  first, *warm = times
  return [{'row': 'first', 'jobs': 100, 'attention': ATTENTION.value,
           'import_seconds': round(imports, 2), 'seconds': round(first[0], 2),
           'core_seconds': round(first[1], 2)},
          {'row': 'warm', 'jobs': 100, 'attention': ATTENTION.value,
           'seconds': round(statistics.median(w[0] for w in warm), 3),
           'core_seconds': round(statistics.median(w[1] for w in warm), 3)}]


def memory() -> list[dict]:
  """Eight million pairs through the stream, whose program and blocks are stand-ins."""
  import numpy as np

  from jobrec_jax.models.jobrec import ExpertOutputs
  from jobrec_jax.scoring import features
  found, _ = recommender(100, 10)
  scorer = found._catalogue(None).scorer
  blocks = scorer.blocks

  class Blocks:
    candidates = np.repeat(np.zeros((1, 64), np.int32), 80_000, 0)
    jobs = blocks.jobs

    def candidate_lists(self, candidate, job):
      return {'candidate': self.candidates[candidate], 'job': self.jobs[job],
              'alignment': np.zeros((*job.shape, 20), np.int32)}

  def score(model, params, lists):
    shape = *lists['job'].shape[:2], 2
    return ExpertOutputs(np.zeros((*shape, WIDTH.value), np.float32), np.zeros(shape, np.float32))
  features._score = score
  features.shard_batch = lambda lists, mesh: lists
  candidate, job = np.indices((80_000, 100), np.int32)
  small = scorer.with_blocks(Blocks())
  small.settings = features.ScoringConfig(100, 256)
  small._sizes = (256,)
  small.policy_scores(found.policy, candidate[:256], job[:256])
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  scores = small.policy_scores(found.policy, candidate, job)
  peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
  held = (scores.lam.nbytes + scores.preference.nbytes + scores.qualification.nbytes) / 1e9
  return [{'row': 'memory', 'pairs': candidate.size, 'scores_gb': round(held, 3),
           'beside_gb': round(peak - held, 3)}]


PARTS = {'stream': stream, 'process': process, 'memory': memory}


def describe() -> dict:
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  return {'commit': commit, 'cores': os.cpu_count(), 'machine': platform.machine(),
          'python': platform.python_version()} | {
              name: importlib.metadata.version(name) for name in ('jax', 'numpy')}


def part(name: str, cache: str) -> list[dict]:
  """Runs in a process of its own, so that neither memory nor programs mix."""
  sizes = ['--candidates=4', '--jobs=200', '--repeats=2'] if QUICK.value else [
      f'--candidates={CANDIDATES.value}', f'--jobs={JOBS.value}', f'--repeats={REPEATS.value}']
  done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.recommend', name, *sizes, f'--width={WIDTH.value}',
       f'--attention={ATTENTION.value}'], capture_output=True, text=True,
      env=os.environ | {'JOBREC_BENCHMARK_CACHE': cache})
  if done.returncode:
    raise RuntimeError(f'{name} failed:\n{done.stderr[-3000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def subject(row: dict) -> tuple:
  """What a row is about: a later one of the same replaces it."""
  return tuple(row.get(name) for name in ('row', 'attention', 'width', 'jobs'))


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    print(json.dumps(PARTS[argv[1]]()))
    return
  rows, about = [], describe()
  with tempfile.TemporaryDirectory() as cache:
    part('process', cache)  # compiles; the next process finds the programs
    for name in PARTS:
      if name != 'memory' or not QUICK.value:
        for row in part(name, cache):
          print(row, flush=True)
          rows.append(row | about)
  if QUICK.value:
    return
  kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
  new = set(map(subject, rows))
  kept = [row for row in kept if subject(row) not in new]
  write_text(RESULTS, '[\n' + ',\n'.join(map(json.dumps, kept + rows)) + '\n]\n')
  print(f'The rows are in {RESULTS.name}')


if __name__ == '__main__':
  app.run(main)
