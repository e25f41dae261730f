"""Popularity: how a job, or a candidate, fared with everyone."""

from typing import Self

import numpy as np

from jobrec_jax.baselines.base import train_labels
from jobrec_jax.data.dataset import Dataset


class Popularity:
  """The smoothed rate of positive labels: of the job for preference, of the candidate for
  qualification.

  rate_i = (positives_i + m * r) / (labels_i + m), where r is the rate over all train labels and m
  the prior's weight in labels. One without train labels gets r.

  Args:
    prior_labels: m > 0.
  """

  def __init__(self, prior_labels: float = 1.0):
    if not prior_labels > 0:
      raise ValueError(f'prior_labels must be above 0, got {prior_labels}')
    self._prior_labels = prior_labels

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Counts the train interactions with an observed label of `perspective`."""
    train, labels = train_labels(dataset, perspective)
    self._by_job = perspective == 'preference'
    items = train.job if self._by_job else train.candidate
    count = len(dataset.jobs if self._by_job else dataset.candidates)
    positives = np.bincount(items, labels, minlength=count)
    total = np.bincount(items, minlength=count)
    m = self._prior_labels
    self._rate = (positives + m * labels.mean()) / (total + m)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 in [0, 1]."""
    return self._rate[job if self._by_job else candidate]
