"""Lists that training draws on the fly, around a candidate or a job."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.data.lists import pools_by

Negatives = Literal['exposed', 'uniform']


def negatives_policy(interactions: Interactions, asked: Negatives) -> Negatives:
  """The policy that is asked for; 'uniform' where nothing was shown and not applied to."""
  return asked if (interactions.preference == 0).any() else 'uniform'


class LabelledLists:
  """Training lists of the labelled pairs of one candidate, or of one job.

  A positive and up to n negatives with the same centre, drawn without replacement: the contrast. A
  centre that has negatives alone gets lists of these, without a contrast, for they tell as much of
  its base rate. Only what has a label is listed: whoever did not apply is never rejected, and what
  was not shown is never turned down.

  Each item has a weight with which the cross-entropy is that of the log: centre c with A_c
  positives and R_c negatives has A_c lists, in each of which the positive counts 1 and each of n_c
  negatives R_c / (A_c n_c). Without them, lists of 1 + n would give every centre the base rate
  1 / (1 + n), and a logit that is off by log(A_c / R_c) + log n_c.

  Args:
    interactions: the log of a split.
    perspective: 'preference' (exposed pairs) or 'qualification' (applicants).
    centre: 'candidate' or 'job', what the pairs of a list share.
    negatives: the greatest n; no list is longer than the centre with most negatives allows.
    weights: [N] of each row of the log in the cross-entropy, mean 1; None for ones.

  Attributes:
    anchors: [lists] rows of the log, the first of each list.

  Raises:
    ValueError: the split holds no positive.
  """

  def __init__(self, interactions: Interactions, perspective: str, centre: str, negatives: int,
               weights: np.ndarray | None = None):
    self._log, self._label = interactions, getattr(interactions, perspective)
    self._weights = np.ones(len(interactions)) if weights is None else weights
    self._centre = getattr(interactions, centre)
    positives = np.flatnonzero(self._label == 1)
    if not len(positives):
      raise ValueError(_NOTHING[perspective])
    self._pool = pools_by(self._centre, np.arange(len(interactions)), self._label == 0)
    self.negatives = _at_most(negatives, (len(self.pool(row)) for row in positives))
    self._positives = np.bincount(self._centre[positives], minlength=self._centre.max() + 1)
    bare = [pool[:self._lists_of(len(pool))] for c, pool in self._pool.items()
            if not self._positives[c]]
    self.anchors = np.concatenate([positives, *bare])
    # So that the weights of a list have the mean 1 over lists, whatever their number.
    self._share = len(self.anchors) / np.count_nonzero(self._label >= 0)

  def _lists_of(self, negatives: int) -> int:
    """How many lists a centre of negatives alone has."""
    return -(-negatives // (1 + self.negatives))

  def __len__(self) -> int:
    return len(self.anchors)

  def contrasted(self) -> bool:
    """Whether some positive has a negative."""
    return any(self._positives[c] and len(pool) for c, pool in self._pool.items())

  def pool(self, anchor: int) -> np.ndarray:
    """The rows of the negatives that share a row's centre."""
    return self._pool[int(self._centre[anchor])]

  def draw(self, anchor: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One list: candidate, job, mask, weight [1 + n], and whether its first is a positive, []."""
    pool, label = self.pool(anchor), bool(self._label[anchor] == 1)
    if label:
      rows, mask = _draw(rng, anchor, pool, self.negatives)
    else:  # any of the pool may stand first
      first, *others = rng.permutation(pool)[:1 + self.negatives]
      rows, mask = _draw(rng, first, others, self.negatives)
    counts = np.ones(len(rows))
    if label:
      counts[1:] = len(pool) / max(1, self._positives[self._centre[anchor]] * (mask.sum() - 1))
    else:
      counts[:] = len(pool) / (self._lists_of(len(pool)) * mask.sum())
    weight = np.where(mask, counts * self._weights[rows] * self._share, 0)
    return {'candidate': self._log.candidate[rows], 'job': self._log.job[rows], 'mask': mask,
            'weight': weight.astype(np.float32), 'label': np.bool_(label)}


_NOTHING = {
    'preference': 'the split holds no application: there is nothing to learn preference from',
    'qualification': 'the split holds no accepted applicant: nothing to learn qualification from'}


class SampledLists:
  """Training lists of one candidate where nobody knows what was shown: contrast alone.

  An applied job, and n that stand for the catalogue: training jobs without an application, drawn
  with equal probability, so that their logQ correction is a constant that the softmax cancels. They
  have no label, so that the weights of the cross-entropy are 0.

  Args, attributes and errors as of `LabelledLists`.
  """

  def __init__(self, interactions: Interactions, negatives: int):
    self._log = interactions
    self.anchors = np.flatnonzero(interactions.preference == 1)
    if not len(self.anchors):
      raise ValueError(_NOTHING['preference'])
    jobs = np.unique(interactions.job)
    wanted = pools_by(interactions.candidate, interactions.job, interactions.preference == 1)
    self._pool = {u: np.setdiff1d(jobs, taken) for u, taken in wanted.items() if len(taken)}
    self.negatives = _at_most(negatives, map(len, self._pool.values()))

  def __len__(self) -> int:
    return len(self.anchors)

  def contrasted(self) -> bool:
    """Whether some positive has a negative."""
    return any(map(len, self._pool.values()))

  def pool(self, anchor: int) -> np.ndarray:
    """The jobs to which the row's candidate did not apply."""
    return self._pool[int(self._log.candidate[anchor])]

  def draw(self, anchor: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One list, as of `LabelledLists`."""
    jobs, mask = _draw(rng, self._log.job[anchor], self.pool(anchor), self.negatives)
    return {'candidate': np.full(len(jobs), self._log.candidate[anchor]), 'job': jobs, 'mask': mask,
            'weight': np.zeros(len(jobs), np.float32), 'label': np.bool_(True)}


TrainingLists = LabelledLists | SampledLists


def preference_lists(interactions: Interactions, negatives: int, policy: Negatives,
                     centre: str = 'candidate') -> TrainingLists:
  """Lists of applied jobs among others: 'exposed', shown and not applied to, or 'uniform' ones.

  Raises:
    ValueError: the split holds no application.
  """
  if policy == 'uniform':
    return SampledLists(interactions, negatives)
  return LabelledLists(interactions, 'preference', centre, negatives)


def fixed_lists(source: TrainingLists, count: int, seed: int) -> dict[str, np.ndarray] | None:
  """Lists that are drawn once, to measure by: [count] of what `draw` returns.

  Anchors take turns in a seeded order, each time with other negatives, so that the measure costs
  the same however few they are.

  Returns:
    The lists; None where no positive has a negative, so that there is nothing to measure.
  """
  if not source.contrasted():
    return None
  rng = np.random.default_rng(seed)
  order = np.resize(rng.permutation(len(source)), count)
  drawn = [source.draw(source.anchors[i], rng) for i in order]
  return {name: np.stack([d[name] for d in drawn]) for name in drawn[0]}


def _at_most(negatives: int, pools: Iterable[int]) -> int:
  return max(1, min(negatives, max(pools)))


def _draw(rng: np.random.Generator, first, pool, n: int) -> tuple[np.ndarray, np.ndarray]:
  """`first`, then up to n of the pool without replacement; a short list repeats `first`, masked."""
  taken = rng.permutation(pool)[:n]
  items = np.full(1 + n, first, np.int32)
  items[1:1 + len(taken)] = taken
  return items, np.arange(1 + n) <= len(taken)
