"""Are two systems of equal quality called different no more often than a test promises?

  python -m benchmarks.comparison [--repeats=200] [--seeds=5] [--data_seeds=3]

Each repeat draws everything anew: a market's candidates and jobs, and of two systems their errors,
which have parts by candidate, by job, by pair, by training seed, and by training seed with
candidate or job. Both have the same quality, or the second is worse by more noise. NDCG@5 of both
perspectives is compared by `evaluate.comparison.combine`, and by a plain bootstrap over lists of
the systems' values averaged over training seeds, as an evaluation did before. Rows go to
benchmarks/results/comparison.json: the share called different at 5%, and the mean half width of the
intervals over 1.96 standard deviations of the difference (1 is as narrow as can be).
"""

from collections.abc import Sequence
import dataclasses
import importlib.metadata
import multiprocessing
import os
from pathlib import Path
import platform
import time

from absl import flags
import numpy as np

from jobrec_jax.command_line import launch
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.comparison import combine
from jobrec_jax.evaluate.leave_one_out import ranking_metrics_without
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import make_groups
from jobrec_jax.pipeline.provenance import commit
from jobrec_jax.schema.files import write_rows
from jobrec_jax.schema.schema import PERSPECTIVES

RESULTS = Path(__file__).parent / 'results/comparison.json'
CANDIDATES, JOBS = 150, 80
LEVEL = 0.95
GROUPS = make_groups((np.zeros(CANDIDATES, bool), np.zeros(JOBS, bool)))


@dataclasses.dataclass(frozen=True)
class Noise:
  """Standard deviations of a system's errors; those of the truth are 1 by candidate, job and pair.

  Attributes:
    candidate, job: of what a system gets wrong about each, whatever its training seed.
    candidate_pair: how a candidate weighs what a job is like, as a factor of the two: errors that
      all lists with the same jobs share.
    pair: of each pair alone.
    seed: of the quality of a training seed, a factor exp(N(0, seed²)) on all its errors.
    seed_pair: of each pair anew with each training seed.
  """

  candidate: float = 0.3
  job: float = 0.5
  candidate_pair: float = 0.4
  pair: float = 0.5
  seed: float = 0.1
  seed_pair: float = 0.4


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
  return rng.normal(size=shape)


def market(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """[U, J] the log odds of an outcome, and the outcome."""
  odds = (0.7 * normal(rng, CANDIDATES, 1) + 0.7 * normal(rng, 1, JOBS)
          + 1.5 * normal(rng, CANDIDATES, JOBS) - 2.5)
  return odds, rng.random(odds.shape) < 1 / (1 + np.exp(-odds))


def system(rng: np.random.Generator, odds: np.ndarray, noise: Noise, seeds: int,
           worse: float) -> list[np.ndarray]:
  """[U, J] scores of each training seed of a system; `worse` is a factor on its errors."""
  fixed = (noise.candidate * normal(rng, CANDIDATES, 1) + noise.job * normal(rng, 1, JOBS)
           + noise.candidate_pair * normal(rng, CANDIDATES, 2) @ normal(rng, 2, JOBS)
           + noise.pair * normal(rng, *odds.shape))
  return [odds + worse * np.exp(noise.seed * rng.normal())
          * (fixed + noise.seed_pair * normal(rng, *odds.shape)) for _ in range(seeds)]


def measured(scores: np.ndarray, wanted: np.ndarray, perspective: str) -> ListMeans:
  """NDCG@5 of the lists of every candidate, or of every job."""
  u, j = np.indices(wanted.shape)
  if perspective == 'qualification':
    u, j, scores, wanted = u.T, j.T, scores.T, wanted.T
  lists = RankingLists(perspective, u, j, wanted, np.ones(wanted.shape, bool))
  values, without = (f(scores, wanted, lists.mask, (5,))
                     for f in (ranking_metrics, ranking_metrics_without))
  means = ListMeans(GROUPS)
  means.add(lists, *({'ndcg@5': x['ndcg@5']} for x in (values, without)))
  return means


def list_bootstrap(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
  """The percentile interval of a mean over lists, [N]; nan where a list has no value."""
  values = differences[~np.isnan(differences)]
  draws = values[rng.integers(0, len(values), (1000, len(values)))].mean(1)
  return tuple(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def repeat(seed: int, data_seeds: int, seeds: int, worse: float) -> dict[str, list[float]]:
  """By perspective: value, low and high of ours, low and high of the list bootstrap."""
  rng, noise = np.random.default_rng(seed), Noise()
  differences = {p: [] for p in PERSPECTIVES}
  by_list = {p: [] for p in PERSPECTIVES}
  for _ in range(data_seeds):
    odds, wanted = market(rng)
    a, b = (system(rng, odds, noise, seeds, factor) for factor in (1.0, worse))
    for p in PERSPECTIVES:
      pairs = [(measured(x, wanted, p), measured(y, wanted, p)) for x, y in zip(a, b)]
      differences[p].append([x.estimates()['ndcg@5'] - y.estimates()['ndcg@5'] for x, y in pairs])
      by_list[p].append(np.mean([x.values['ndcg@5'] - y.values['ndcg@5'] for x, y in pairs], 0))
  found = {}
  for p in PERSPECTIVES:
    ours = combine(differences[p], LEVEL)
    found[p] = [ours.value, ours.low, ours.high,
                *list_bootstrap(np.concatenate(by_list[p]), rng)]
  return found


def study(name: str, repeats: int, data_seeds: int, seeds: int, worse: float) -> list[dict]:
  """Rows of each perspective and way of testing."""
  begun = time.perf_counter()
  with multiprocessing.Pool() as pool:
    found = pool.starmap(repeat, [(i, data_seeds, seeds, worse) for i in range(repeats)], 1)
  seconds, rows = time.perf_counter() - begun, []
  for p in PERSPECTIVES:
    value, low, high, plain_low, plain_high = np.array([f[p] for f in found]).T
    sd = value.std(ddof=1)
    for way, (lower, upper) in {'candidates, jobs and seeds': (low, high),
                                'plain list bootstrap': (plain_low, plain_high)}.items():
      rows.append({
          'study': name, 'perspective': p, 'way': way, 'repeats': repeats,
          'data_seeds': data_seeds, 'training_seeds': seeds,
          'called_different': float(np.mean((lower > 0) | (upper < 0))),
          'mean_difference': float(value.mean()), 'sd_of_difference': float(sd),
          'half_width_of_sd': float(np.mean(upper - lower) / 2 / (1.96 * sd)),
          'seconds_of_study': round(seconds, 1)})
      print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()},
            flush=True)
  return rows


def main(argv: Sequence[str]) -> None:
  del argv
  f = flags.FLAGS
  about = {'commit': commit(), 'cores': os.cpu_count(), 'machine': platform.machine(),
           'python': platform.python_version(),
           **{name: importlib.metadata.version(name) for name in ('numpy', 'scipy')}}
  rows = []
  for name, data_seeds, seeds, worse in (
      ('equal, one data seed', 1, f.seeds, 1.0), ('worse, one data seed', 1, f.seeds, f.worse),
      ('equal, data seeds', f.data_seeds, 3, 1.0)):
    rows += study(name, f.repeats, data_seeds, seeds, worse)
    write_rows(RESULTS, [row | about for row in rows])


if __name__ == '__main__':
  flags.DEFINE_integer('repeats', 200, 'of each study', lower_bound=2)
  flags.DEFINE_integer('seeds', 5, 'training seeds of each system', lower_bound=2)
  flags.DEFINE_integer('data_seeds', 3, 'data seeds, three training seeds each', lower_bound=2)
  flags.DEFINE_float('worse', 1.15, "a factor on the second system's errors: a real difference")
  launch(main)
