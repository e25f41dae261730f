"""How candidates and pairs are divided, with cold jobs in the test alone."""

import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, TEST_KINDS
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.market.splits import Splits


@pytest.fixture(scope='module')
def log():
  return simulate(MarketConfig(candidates=200, jobs=40), 0)[0].interactions


def test_a_pair_is_in_one_split(log):
  pairs = log.candidate.astype(np.int64) * 40 + log.job
  assert len(np.unique(pairs)) == len(pairs)
  assert sum(len(log.of(s)) for s in SPLITS) == len(log)
  assert sum(len(log.of(k)) for k in TEST_KINDS) == len(log.of('test'))


def test_candidates_are_divided(log):
  people = {s: set(log.of(s).candidate.tolist()) for s in (*SPLITS, *TEST_KINDS)}
  early = [people[s] for s in SPLITS[:3]] + [people['cold_candidates']]
  assert all(early) and sum(map(len, early)) == len(set.union(*early)) == 200
  assert people['warm'] <= people['train'] and people['cold_jobs'] <= people['train']
  assert people['both_cold'] == people['cold_candidates']


def test_cold_jobs_are_in_the_test_alone(log):
  early = set(np.concatenate([log.of(s).job for s in SPLITS[:3]]).tolist())
  for kind in ('cold_jobs', 'both_cold'):
    cold = set(log.of(kind).job.tolist())
    assert not cold & early and len(cold) == round(0.2 * 40)
  for kind in ('warm', 'cold_candidates'):
    assert set(log.of(kind).job.tolist()) <= early


def test_the_warm_test_keeps_its_share(log):
  share = len(log.of('warm')) / (len(log.of('warm')) + len(log.of('train')))
  assert abs(share - 0.1) < 0.03
  none = simulate(MarketConfig(candidates=200, jobs=40), 0, warm_test=0.0)[0].interactions
  assert not len(none.of('warm'))


@pytest.mark.parametrize('change, message', [
    ({'shares': (0.5, 0.5)}, 'data.shares must be 4 positive'),
    ({'shares': (0.5, 0.3, 0.1, 0.2)}, 'of sum 1'),
    ({'shares': (0.97, 0.01, 0.01, 0.01)}, 'leave no split of .* candidates empty, got'),
    ({'cold_jobs': 1.0}, r'data.cold_jobs must lie in \[0, 1\)'),
    ({'warm_test': -0.1}, r'data.warm_test must lie in \[0, 1\)'),
])
def test_bad_shares_are_named(change, message):
  good = {'shares': (0.5, 0.1, 0.15, 0.25), 'cold_jobs': 0.2, 'warm_test': 0.1}
  with pytest.raises(ValueError, match=message):
    Splits.draw(0, 20, 10, **(good | change))
