"""The floor: scores that know nothing of candidates and jobs."""

from typing import Self

import numpy as np

from jobrec_jax.data.dataset import Dataset


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
      bits = _mixed(bits + part.astype(np.uint64))
    return (bits >> np.uint64(11)) * 2.0 ** -53


def _mixed(x: np.ndarray) -> np.ndarray:
  """One SplitMix64 step; products wrap modulo 2^64 by design."""
  x = x + np.uint64(0x9E3779B97F4A7C15)
  x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
  x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
  return x ^ (x >> np.uint64(31))


class Constant:
  """The same score for every pair: all ties."""

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns nothing."""
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 zeros."""
    return np.zeros(len(candidate))
