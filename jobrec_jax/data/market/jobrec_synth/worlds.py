"""The worlds of jobrec_synth. A change of any of them needs a new version of the builder."""

import dataclasses

import numpy as np

from jobrec_jax.data.dataset import SPLITS, TEST_KINDS, Interactions
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.data.market.simulator import Market, MarketConfig, make_market
from jobrec_jax.data.sampled_lists import Grid, sampled_lists
from jobrec_jax.schema.schema import PERSPECTIVES

VERSIONS = {'1': '1.1.0', '2': '2.0.0'}  # of the builder, by `market.version`
NEWEST = max(VERSIONS)
SEED = 20260203
LOGS = (*SPLITS[:3], *(f'test_{kind}' for kind in TEST_KINDS))
LISTS = tuple(f'{p}_{kind}' for p in PERSPECTIVES for kind in TEST_KINDS)


@dataclasses.dataclass(frozen=True)
class World:
  """A size of jobrec_synth.

  Attributes:
    market: its knobs.
    lists: evaluation lists of each kind, at most.
    length: pairs in an evaluation list, one of them positive.
    whole_truth: whether the truth of every pair is stored, or that of exposed pairs alone.
    about: one line for people.
  """

  market: MarketConfig
  lists: int
  length: int
  whole_truth: bool
  about: str


WORLDS = {
    'tiny': World(MarketConfig(candidates=200, jobs=40, texts='sentences'), 40, 20, True,
                  '200 candidates, 40 jobs: for tests and first steps'),
    'paper': World(MarketConfig(candidates=5000, jobs=100, exposure=0.2, texts='sentences'), 500,
                   50, True,
                   '5,000 candidates, 100 jobs: the size of the JobRec paper'),
    'large': World(MarketConfig(candidates=100_000, jobs=1000, exposure=0.02,
                                logging='recommender', texts='sentences'), 1000, 100, False,
                   '100,000 candidates, 1,000 jobs, shown by a recommender'),
}


def market_of(size: str, version: str = NEWEST) -> Market:
  """The market of a size, in a version of the market."""
  return make_market(dataclasses.replace(WORLDS[size].market, version=version), SEED)


def log_of(log: Interactions, name: str) -> Interactions:
  """The rows of one of `LOGS`."""
  return log.of(name.removeprefix('test_'))


def evaluation_lists(market: Market, world: World, log: Interactions, name: str) -> RankingLists:
  """The frozen lists of one of `LISTS`, e.g. 'preference_cold_jobs'.

  A warm list holds no pair of the training log, so that nothing in it was seen.

  Args:
    market, world: where they are drawn.
    log: the interactions of the whole world.
    name: perspective and kind.
  """
  perspective, kind = name.split('_', 1)
  home = SPLITS.index('train' if kind in ('warm', 'cold_jobs') else 'test')
  rng = np.random.default_rng([market.seed, LISTS.index(name)])
  pool = rng.permutation(np.flatnonzero(market.splits.of_candidate == home))[:world.lists]
  cold = kind in ('cold_jobs', 'both_cold')
  jobs = rng.permutation(np.flatnonzero(market.splits.cold_job == cold))
  if perspective == 'qualification':
    jobs = jobs[:world.lists]
  train = log.of('train')
  train = train.where(np.isin(train.candidate, pool) & np.isin(train.job, jobs))
  taken = np.zeros((len(pool), len(jobs)), bool)
  row, column = np.argsort(pool), np.argsort(jobs)
  taken[row[np.searchsorted(pool, train.candidate, sorter=row)],
        column[np.searchsorted(jobs, train.job, sorter=column)]] = True
  grid = Grid(pool, jobs, market.grid(pool, jobs), taken)
  return sampled_lists(grid, perspective, world.length, int(rng.integers(2 ** 31)))
