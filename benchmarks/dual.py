"""The exact dual and sweeps of policies: seconds, accuracy, and against one run after another.

  python -m benchmarks.dual [--quick]

| row | what |
|---|---|
| exact | `solve_dual` on 10,000 lists x 50 jobs x 100 requirements, for each objective |
| sweep | 256 policies (8 tau, 8 seeds, 2 learning rates, 2 dual rules), published setting |
| one_by_one | the same 256 trainings, one warm call after another |
| encode | one stage 2 epoch that reads its 68 lists again, as published, on the small decoder |

Cold includes compilation, with nothing cached. Rows go to benchmarks/results/dual.json.
"""

import importlib.metadata
import os
from pathlib import Path
import platform
import subprocess
import time

from absl import app, flags
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.lengths import choose_lengths
from jobrec_jax.data.lists import policy_lists
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import BlockEncoder, corpus, train_tokenizer
from jobrec_jax.lagrangian.exact import OBJECTIVES, solve_dual
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.pipeline.model import ModelSpec, make_model
from jobrec_jax.schema.files import write_rows
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.scoring.policy import PolicyInputs
from jobrec_jax.sharding import MeshConfig, init_sharded, make_mesh
from jobrec_jax.train.policy import PolicyConfig, make_policy_trainer
from jobrec_jax.train.sweep import make_policy_sweep, policy_grid

QUICK = flags.DEFINE_bool('quick', False, 'a tenth of the lists and an eighth of the policies')
CHUNKS = flags.DEFINE_list('chunks', ['1', '8'], 'policies trained side by side in a sweep')
RESULTS = Path(__file__).parent / 'results/dual.json'
LISTS, JOBS, WIDTH = 68, 50, 64
PUBLISHED = PolicyConfig('info_nce', epochs=20, batch=4, learning_rate=1e-4,
                         dual_learning_rate=0.01,
                         constraint='equality')


def timed(f):
  start = time.perf_counter()
  result = jax.block_until_ready(f())
  return time.perf_counter() - start, result


def exact(objective: str) -> dict:
  lists = 1000 if QUICK.value else 10_000
  rng = np.random.default_rng(0)
  scores = 2.5 * rng.normal(size=(lists, JOBS))
  q = 1 / (1 + np.exp(0.8 - 2.5 * rng.normal(size=(lists, JOBS))))
  mask = np.ones((lists, JOBS), bool)
  low, high = q.min(1).mean(), q.max(1).mean()
  tau = low + (high - low) * np.linspace(0.005, 0.995, 100)

  def solve():
    return solve_dual(scores, q, mask, tau, objective=objective, constraint='equality',
                      tolerance=1e-7)
  cold, _ = timed(solve)
  warm, found = timed(solve)
  return {'row': 'exact', 'objective': objective, 'lists': lists, 'jobs': JOBS, 'taus': len(tau),
          'cold_s': round(cold, 2), 'warm_s': round(warm, 2),
          'feasible': int(found.feasible.sum()),
          'greatest_error': float(np.abs(found.reached[:, 0] - tau).max()),
          'greatest_gap': float(np.abs(found.gap).max())}


def stage_2_lists() -> PolicyInputs:
  keys = jax.random.split(jax.random.key(0), 2)
  hidden = jax.random.normal(keys[0], (LISTS, JOBS, 2, WIDTH))
  preference, z_qual = 2 * hidden[..., 0, 0], 2 * hidden[..., 1, 0]
  positive = jnp.argmax(preference + jax.random.gumbel(keys[1], preference.shape), -1)
  return PolicyInputs(hidden, preference, z_qual, positive.astype(jnp.int32),
                      jnp.ones(preference.shape, bool))


def sweeps() -> list[dict]:
  inputs, head = stage_2_lists(), PolicyHead(widths=(128,))
  seeds = range(1 if QUICK.value else 8)
  trials = policy_grid(PUBLISHED, np.linspace(0.4, 0.7, 8), seeds, (1e-4, 1e-3),
                       ((0.01, 0, 0, 0), (0.01, 0.01, 0, 0.5)))
  count = len(trials.seed)
  about = {'policies': count, 'lists': LISTS, 'jobs': JOBS, 'epochs': PUBLISHED.epochs,
           'batch': PUBLISHED.batch, 'inputs': 2 * WIDTH, 'width': 128}
  alone = jax.jit(make_policy_trainer(head, PUBLISHED))
  each = [jax.tree.map(lambda x: x[i], trials) for i in range(count)]  # noqa: B023
  cold, _ = timed(lambda: alone(inputs, each[0]))
  warm, single = timed(lambda: [jax.block_until_ready(alone(inputs, t)) for t in each])
  rows = [{'row': 'one_by_one', 'cold_s': round(cold + warm * (count - 1) / count, 2),
           'warm_s': round(warm, 2)} | about]
  mesh = make_mesh(MeshConfig(), jax.devices())
  for chunk in map(int, CHUNKS.value):
    sweep = make_policy_sweep(head, PUBLISHED, mesh, chunk)
    cold, _ = timed(lambda: sweep(inputs, trials))  # noqa: B023
    seconds, swept = timed(lambda: sweep(inputs, trials))  # noqa: B023
    error = max(float(jnp.abs(swept.history['eligibility'][i] - one.history['eligibility']).max())
                for i, one in enumerate(single))
    rows.append({'row': 'sweep', 'chunk': chunk, 'cold_s': round(cold, 2),
                 'warm_s': round(seconds, 2), 'times_one_by_one': round(seconds / warm, 3),
                 'compilations': sweep._cache_size(), 'greatest_difference_of_C': error} | about)
  return rows


def encode() -> dict:
  """Stage 2's lists through the quickstart's decoder, forward alone."""
  spec = ModelSpec()
  dataset, _ = simulate(MarketConfig(), 0)
  tokenizer = train_tokenizer(corpus(dataset), spec.tokenizer.vocab_size)
  form, _ = choose_lengths(dataset, tokenizer, spec.tokenizer.form)
  blocks = BlockEncoder(dataset, tokenizer, form)
  model = make_model(spec, tokenizer, None)
  text = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  mesh = make_mesh(MeshConfig(), jax.devices())
  params = init_sharded(lambda: model.init(jax.random.key(0), *text.values())['params'], mesh)
  lists = policy_lists(dataset, 'train', JOBS, LISTS, 0)
  score = PairScorer(Experts(model, params, tokenizer, form), blocks, mesh)
  cold, _ = timed(lambda: score.features(lists.candidate, lists.job).hidden)
  warm, _ = timed(lambda: score.features(lists.candidate, lists.job).hidden)
  return {'row': 'encode', 'lists': LISTS, 'jobs': JOBS, 'cold_s': round(cold, 2),
          'warm_s': round(warm, 3)}


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments: {argv[1:]}')
  commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
                          check=True).stdout.strip()
  about = {'commit': commit, 'cores': os.cpu_count(), 'machine': platform.machine(),
           'device': jax.default_backend(), 'python': platform.python_version()} | {
      name: importlib.metadata.version(name) for name in ('jax', 'numpy')}
  rows = []
  for measure in (*(lambda o=o: [exact(o)] for o in OBJECTIVES), sweeps, lambda: [encode()]):
    for row in measure():
      rows.append(row | about)
      print(row, flush=True)
  if not QUICK.value:
    write_rows(RESULTS, rows)


if __name__ == '__main__':
  app.run(main)
