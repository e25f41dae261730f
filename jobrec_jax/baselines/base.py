"""What every rival offers, and what every rival may learn from."""

from typing import Protocol, Self

import numpy as np

from jobrec_jax.data.dataset import UNOBSERVED, Dataset, Interactions
from jobrec_jax.schema.schema import PERSPECTIVES


class Baseline(Protocol):
  """A scorer of pairs behind two calls. Only train interactions may enter `fit`."""

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns one perspective, 'preference' or 'qualification', and returns itself."""
    ...

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64, larger for better, for the pairs of indices `candidate` and `job`, [N] int."""
    ...


def check_perspective(perspective: str) -> str:
  """Returns `perspective`, or raises a ValueError that lists the allowed."""
  if perspective not in PERSPECTIVES:
    raise ValueError(f'perspective must be one of {", ".join(PERSPECTIVES)}; got {perspective!r}')
  return perspective


def train_labels(dataset: Dataset, perspective: str) -> tuple[Interactions, np.ndarray]:
  """The train interactions with an observed label of `perspective`, and that label, [N] bool.

  Raises:
    ValueError: an unknown perspective, or no train interaction has such a label.
  """
  train = dataset.interactions.of('train')
  labels = getattr(train, check_perspective(perspective))
  observed = labels != UNOBSERVED
  if not observed.any():
    raise ValueError(f'none of the {len(train)} train interactions has a {perspective} label')
  return train.where(observed), labels[observed] == 1
