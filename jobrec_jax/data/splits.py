"""Disjoint splits: candidates are divided, and some jobs are held back for the test alone."""

import numpy as np

from jobrec_jax.data.dataset import SPLITS


def split_pairs(rng: np.random.Generator, candidates: int, jobs: int, shares: tuple[float, ...],
                cold_jobs: float) -> np.ndarray:
  """Assigns every pair a split, or none.

  Args:
    rng: the source of the division.
    candidates, jobs: the sizes.
    shares: shares of candidates in train, validation, calibration and test; sum 1.
    cold_jobs: share of jobs kept out of every split but the test.

  Returns:
    [candidates, jobs] int8: index into `SPLITS`; -1 where a cold job meets a candidate who is not
    in the test, a pair that no split may use.

  Raises:
    ValueError: the shares are not four positive numbers of sum 1, or leave a split empty.
  """
  if len(shares) != len(SPLITS) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
    raise ValueError(f'data.shares must be {len(SPLITS)} positive numbers ({", ".join(SPLITS)}) '
                     f'of sum 1, got {shares}')
  if not 0 <= cold_jobs < 1:
    raise ValueError(f'data.cold_jobs must lie in [0, 1), got {cold_jobs}')
  bounds = np.round(np.cumsum(shares) * candidates).astype(int)
  sizes = np.diff(np.concatenate([[0], bounds]))
  if sizes.min() < 1:
    raise ValueError(f'data.shares {shares} of {candidates} candidates leave a split empty')
  of_candidate = rng.permutation(np.repeat(np.arange(len(SPLITS)), sizes)).astype(np.int8)
  cold = rng.permutation(jobs) < round(cold_jobs * jobs)
  split = np.repeat(of_candidate[:, None], jobs, axis=1)
  split[:, cold] = np.where(of_candidate == SPLITS.index('test'), of_candidate, -1)[:, None]
  return split
