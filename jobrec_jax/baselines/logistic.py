"""Logistic regression on the schema's verdicts and margins."""

from typing import Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.base import both_classes
from jobrec_jax.data.dataset import Dataset


class Logistic:
  """L2-regularised logistic regression of the observed labels on `alignment_features`."""

  def __init__(self, features: AlignmentFeatures):
    self._features = features

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits to the train interactions with an observed label of `perspective`; deterministic.

    Raises:
      ValueError: no such interaction, or all of one class.
    """
    train = both_classes(dataset, perspective)
    self._features.check_made_for(dataset)
    x = np.empty((len(train.label), self._features.width))
    for rows, features in self._features.chunks(train.candidate, train.job):
      x[rows] = features
    # Scaled in place: the one array that grows with the pairs.
    self._model = make_pipeline(StandardScaler(copy=False), LogisticRegression(max_iter=1000))
    self._model.fit(x, train.label)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 logit of the positive class."""
    out = np.empty(len(candidate))
    for rows, x in self._features.chunks(candidate, job):
      out[rows] = self._model.decision_function(x.astype(np.float64))
    return out
