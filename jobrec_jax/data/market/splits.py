"""Disjoint splits: candidates are divided, some jobs are held back, and so are some interactions.

|                      | warm job                                  | cold job                    |
|---|---|---|
| train candidate      | train; a share of the pairs: test (warm)  | test (cold jobs)            |
| validation candidate | validation                                | none                        |
| calibration candidate| calibration                               | none                        |
| test candidate       | test (cold candidates)                    | test (both cold)            |
"""

import dataclasses

import numpy as np

from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.market.draws import pair_uniform
from jobrec_jax.schema import streams

_TRAIN, _TEST = SPLITS.index('train'), SPLITS.index('test')


@dataclasses.dataclass(frozen=True)
class Splits:
  """Which split a pair belongs to.

  Attributes:
    seed: of the pairs that the warm test keeps.
    of_candidate: [U] int8 index into `SPLITS`.
    cold_job: [J] bool.
    warm_test: share of pairs of train candidates and warm jobs that the test keeps.
  """

  seed: int
  of_candidate: np.ndarray
  cold_job: np.ndarray
  warm_test: float

  @classmethod
  def draw(cls, seed: int, candidates: int, jobs: int, shares: tuple[float, ...],
           cold_jobs: float, warm_test: float) -> 'Splits':
    """Divides candidates and jobs.

    Args:
      seed: of the division.
      candidates, jobs: the sizes.
      shares: shares of candidates in train, validation, calibration and test; sum 1.
      cold_jobs: share of jobs kept out of every split but the test.
      warm_test: share of the training pairs that the test keeps instead.

    Raises:
      ValueError: the shares are not four positive numbers of sum 1, or leave a split empty.
    """
    if len(shares) != len(SPLITS) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
      raise ValueError(f'data.shares must be {len(SPLITS)} positive numbers ({", ".join(SPLITS)}) '
                       f'of sum 1, got {shares}')
    for name, share in (('cold_jobs', cold_jobs), ('warm_test', warm_test)):
      if not 0 <= share < 1:
        raise ValueError(f'data.{name} must lie in [0, 1), got {share}')
    bounds = np.round(np.cumsum(shares) * candidates).astype(int)
    sizes = np.diff(np.concatenate([[0], bounds]))
    if sizes.min() < 1:
      raise ValueError(f'data.shares must leave no split of {candidates} candidates empty, '
                       f'got {shares}')
    rng = streams.rng(seed, 'splits')
    of_candidate = rng.permutation(np.repeat(np.arange(len(SPLITS), dtype=np.int8), sizes))
    cold = rng.permutation(jobs) < round(cold_jobs * jobs)
    return cls(seed, of_candidate, cold, warm_test)

  def split_of(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """int8 index into `SPLITS` of pairs; -1 for those that no split may use."""
    home, cold = self.of_candidate[candidate], self.cold_job[job]
    kept = pair_uniform(self.seed, 'warm test', candidate, job) < self.warm_test
    test = (home == _TEST) | ((home == _TRAIN) & (cold | kept))
    return np.select([test, cold], [_TEST, -1], home).astype(np.int8)
