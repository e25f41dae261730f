"""What the schema says of many pairs, for all the baselines that need it."""

from collections.abc import Iterator

import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.pairs import PairAligner, chunks


class AlignmentFeatures:
  """What the schema says about the pairs of one dataset; nothing is remembered of a pair.

  Attributes:
    width: 4 * fields, numbers in `features` of a pair.
  """

  def __init__(self, dataset: Dataset):
    self._dataset = dataset
    self._aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
    self.width = 4 * len(self._aligner.fields)

  def check_made_for(self, dataset: Dataset) -> None:
    """Raises a ValueError where they were made for another dataset."""
    if dataset is not self._dataset:
      raise ValueError('features must be made for the dataset to fit, got those of another dataset')

  def speaks_to(self, perspective: str, width: int) -> np.ndarray:
    """[width] bool, which features speak to a perspective; all behind those of the fields do."""
    fields = [f.speaks_to(perspective) for f in self._aligner.fields]
    return np.append(np.repeat(np.array(fields, bool), 4), np.ones(width - self.width, bool))

  def chunks(self, candidate: np.ndarray, job: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, their `features`), some 65,000 rows at a time."""
    for rows in chunks(len(candidate)):
      yield rows, self._aligner(candidate[rows], job[rows]).features()

  def features(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N, width] float32, see `alignment_features`; candidate and job are [N] indices."""
    out = np.empty((len(candidate), self.width), np.float32)
    for rows, features in self.chunks(candidate, job):
      out[rows] = features
    return out

  def rule_scores(self, candidate: np.ndarray, job: np.ndarray, perspective: str) -> np.ndarray:
    """[N] float32, see `rule_score`; candidate and job are [N] indices."""
    out = np.empty(len(candidate), np.float32)
    for rows in chunks(len(candidate)):
      out[rows] = self._aligner(candidate[rows], job[rows]).rule_scores(perspective)
    return out
