"""The ceiling: the simulator's own probabilities."""

from typing import Self

import numpy as np

from jobrec_jax.baselines.base import check_perspective
from jobrec_jax.data.dataset import Dataset, Truth


class Oracle:
  """Scores a pair by its true P or Q. No rival: it reads the answer, to show the ceiling."""

  def __init__(self, truth: Truth):
    self._truth = truth

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Ignores the data: picks P or Q."""
    self._probability = getattr(self._truth, check_perspective(perspective))
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1]."""
    return self._probability[candidate, job].astype(np.float64)
