"""The floor: scores that know nothing of candidates and jobs."""

from typing import Self

import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.schema import streams


class Random:
  """A uniform number for each pair, the same whenever that pair is asked for again.

  Args:
    seed: of the numbers.
  """

  def __init__(self, seed: int):
    self._seed = seed

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns nothing."""
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1): a SplitMix64 hash of seed, candidate and job."""
    bits = np.full(len(candidate), self._seed, np.uint64)
    for part in (candidate, job):
      bits = streams.split_mix(bits + part.astype(np.uint64))
    return streams.unit(bits)


class Constant:
  """The same score for every pair: all ties."""

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns nothing."""
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 zeros."""
    return np.zeros(len(candidate))
