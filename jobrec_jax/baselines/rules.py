"""Eligibility and taste by the schema's rules alone."""

from typing import Self

import numpy as np

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.base import check_perspective
from jobrec_jax.data.dataset import Dataset


class Rules:
  """Scores a pair by the share of aligned fields that are met; see `schema.align.rule_score`."""

  def __init__(self, features: AlignmentFeatures):
    self._features = features

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns nothing: remembers which perspective's fields count."""
    self._features.check_made_for(dataset)
    self._perspective = check_perspective(perspective)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1]."""
    scores = self._features.rule_scores(candidate, job, self._perspective)
    return scores.astype(np.float64)
