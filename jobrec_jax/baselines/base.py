"""What every rival offers, and what every rival may learn from."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, Self

import numpy as np

from jobrec_jax.data.dataset import UNOBSERVED, Dataset, Interactions
from jobrec_jax.schema import streams
from jobrec_jax.schema.schema import PERSPECTIVES

NAIVE_PAIRS = 200_000  # that `naive` labels, at most


class Baseline(Protocol):
  """A scorer of pairs behind two calls.

  Only train interactions may enter `fit`, and labels of the validation split where it chooses among
  settings of its own; texts and attributes of whom neither holds change nothing that is fitted.
  """

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Learns one perspective, 'preference' or 'qualification', and returns itself."""
    ...

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64, larger for better, for the pairs of indices `candidate` and `job`, [N] int.

    Where `baselines.rivals.Rival.logit` says so, the logit of the positive class: its sigmoid is a
    probability, such as a p_qual for a policy without training.
    """
    ...


class Labelled(NamedTuple):
  """Pairs and what a rival takes for their label.

  Attributes:
    candidate, job: [N] int indices.
    label: [N] bool.
  """

  candidate: np.ndarray
  job: np.ndarray
  label: np.ndarray

  @property
  def both(self) -> bool:
    """Whether there are labels of both kinds."""
    return bool(self.label.any() and not self.label.all())


Labels = Callable[[Dataset, str, str], Labelled]  # of a data set, a split and a perspective


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
  seen = labels != UNOBSERVED
  if not seen.any():
    raise ValueError(f'none of the {len(train)} train interactions has a {perspective} label')
  return train.where(seen), labels[seen] == 1


def observed(dataset: Dataset, split: str, perspective: str) -> Labelled:
  """What the log says of the perspective, and of nobody else anything."""
  log = dataset.interactions.of(split)
  labels = getattr(log, check_perspective(perspective))
  seen = labels != UNOBSERVED
  return Labelled(log.candidate[seen], log.job[seen], labels[seen] == 1)


def accepted(dataset: Dataset, split: str, perspective: str) -> Labelled:
  """The conflated label, one for both perspectives: 1 where who was shown a job applied and was
  accepted, 0 for everything else that was shown."""
  check_perspective(perspective)
  log = dataset.interactions.of(split)
  return Labelled(log.candidate, log.job, log.qualification == 1)


def naive(dataset: Dataset, split: str, perspective: str) -> Labelled:
  """The unobserved as negatives: every pair of the split's candidates and of the jobs that training
  sees is 0 unless the log has a 1, at most some 200,000 of the pairs, drawn at random."""
  seen, count = observed(dataset, split, perspective), len(dataset.jobs)
  candidates = np.unique(dataset.interactions.of(split).candidate).astype(np.int64)
  jobs = np.unique(dataset.interactions.of('train').job)
  total = len(candidates) * len(jobs)
  pairs = (np.arange(total) if total <= NAIVE_PAIRS else np.unique(
      streams.rng(0, f'naive pairs of {split}').integers(total, size=NAIVE_PAIRS)))
  codes = (candidates[pairs // max(len(jobs), 1)] * count + jobs[pairs % max(len(jobs), 1)]
           if total else np.zeros(0, np.int64))
  positive = np.unique(seen.candidate[seen.label].astype(np.int64) * count + seen.job[seen.label])
  codes = np.union1d(codes, positive)
  return Labelled(*(x.astype(np.int32) for x in divmod(codes, count)), np.isin(codes, positive))


def both_classes(dataset: Dataset, perspective: str, labels: Labels = observed) -> Labelled:
  """The train labels of a rival that needs both kinds.

  Raises:
    ValueError: an unknown perspective, no label, or labels of one kind alone.
  """
  if labels is observed:
    train_labels(dataset, perspective)  # says what is missing
  found = labels(dataset, 'train', perspective)
  if not found.both:
    what = f'{int(found.label[0])}' if len(found.label) else 'absent'
    raise ValueError(f'all {len(found.label)} train labels of {perspective} are {what}: '
                     'both classes are needed')
  return found
