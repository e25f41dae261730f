"""Ranking metrics of scored lists. Tied items get the expectation over random tie-breaking.

Sorted by score, the positions of a tie group are exchangeable: each holds the group's mean gain in
expectation. Recall, NDCG and mean rank are sums over positions, so they follow from those means;
MRR looks at the first positive alone and follows from the chance that each position holds it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.values import binary

KS = (1, 3, 5, 10, 20)


class TieGroups(NamedTuple):
  """Lists in descending order of score, masked items last. All arrays are [N, J] int.

  Attributes:
    order: the item at each position.
    start, end: the first position of the position's tie group, and one past its last.
  """

  order: np.ndarray
  start: np.ndarray
  end: np.ndarray

  def total(self, values: np.ndarray) -> np.ndarray:
    """The sum of `values` [N, J] over the tie group of each position, [N, J] float64."""
    running = np.cumsum(np.take_along_axis(values, self.order, axis=1), axis=1, dtype=np.float64)
    running = np.pad(running, ((0, 0), (1, 0)))
    return (np.take_along_axis(running, self.end, axis=1)
            - np.take_along_axis(running, self.start, axis=1))

  def mean(self, values: np.ndarray) -> np.ndarray:
    """The expected value at each position, [N, J] float64."""
    return self.total(values) / (self.end - self.start)


def tie_groups(scores: np.ndarray, mask: np.ndarray) -> TieGroups:
  """Sorts lists by score and finds their ties.

  Args:
    scores: [N, J]; higher ranks first. Infinities are allowed.
    mask: [N, J] bool, False where a list is padded; scores there are ignored.

  Returns:
    Order and tie groups; padding forms groups of its own, after every real item.

  Raises:
    ValueError: if shapes differ, or an unmasked score is nan (its list is named).
  """
  # float64 holds every narrower float exactly, so ties stay ties and nothing else becomes one.
  scores, mask = np.asarray(scores, np.float64), np.asarray(mask, bool)
  if scores.ndim != 2 or scores.shape != mask.shape:
    raise ValueError(f'scores and mask must be [N, J] alike, got {scores.shape} and {mask.shape}')
  bad = np.isnan(scores) & mask
  if bad.any():
    row, item = np.argwhere(bad)[0]
    raise ValueError(f'scores must be numbers, got nan in list {row} at item {item} '
                     f'({int(bad.any(1).sum())} of {len(scores)} lists hold nan)')
  scores = np.where(mask, scores, 0.0)
  order = np.lexsort((-scores, ~mask), axis=1)
  n, j = scores.shape
  ranked, real = (np.take_along_axis(a, order, axis=1) for a in (scores, mask))
  # edges[:, t]: position t opens a tie group; one more edge closes the list.
  edges = np.ones((n, j + 1), bool)
  edges[:, 1:j] = (ranked[:, 1:] != ranked[:, :-1]) | (real[:, 1:] != real[:, :-1])
  positions = np.arange(j)
  start = np.maximum.accumulate(np.where(edges[:, :j], positions, 0), axis=1)
  closes = np.where(edges[:, 1:], positions + 1, j)
  end = np.minimum.accumulate(closes[:, ::-1], axis=1)[:, ::-1]
  return TieGroups(order, start, end)


def first_positive_rank(n: int, m: int) -> np.ndarray:
  """P(the best of m positives among n stands at rank r) under a uniformly random order.

  P(r) = C(n - r, m - 1) / C(n, m), by the recurrence P(r + 1) = P(r) (n - m - r + 1) / (n - r).

  Args:
    n: items in random order.
    m: positives among them, 1 <= m <= n.

  Returns:
    [n - m + 1] float64, for r = 1, 2, ...
  """
  r = np.arange(1, n - m + 1)
  return np.cumprod(np.concatenate([[m / n], (n - m - r + 1) / (n - r)]))


def reciprocal_rank(above: np.ndarray, tied: np.ndarray, positives: np.ndarray) -> np.ndarray:
  """Expected 1 / rank of each list's first positive over random tie-breaking.

  Σ_r P(r) / (above + r), with P the law `first_positive_rank` of the best tie group that holds a
  positive.

  Args:
    above: [N] int, items ranked above that group.
    tied: [N] int, items in it.
    positives: [N] int, positives in it, at least 1.

  Returns:
    [N] float64.
  """
  counts = np.stack([above, tied, positives], axis=1)
  kinds, inverse = np.unique(counts, axis=0, return_inverse=True)
  values = np.zeros(len(kinds))
  for i, (g, e, m) in enumerate(kinds):
    law = first_positive_rank(e, m)
    values[i] = law @ (1 / (g + np.arange(1, len(law) + 1)))
  return values[inverse.ravel()]


def ranking_metrics(
    scores: np.ndarray,
    relevance: np.ndarray,
    mask: np.ndarray,
    ks: Sequence[int] = KS,
) -> dict[str, np.ndarray]:
  """Metrics of each list, in expectation over random tie-breaking.

  With y_r the expected relevance at rank r, n+ positives and n- others in the list:
    Recall@k = Σ_{r≤k} y_r / n+,
    NDCG@k = Σ_{r≤k} y_r / log2(r+1)  /  Σ_{r≤min(k, n+)} 1 / log2(r+1),
    mean rank = Σ_r r y_r / n+,
    AUC = 1 - (mean rank - (n+ + 1) / 2) / n-, a tied pair counting one half,
    MRR = Σ_r Pr[the first positive is at r] / r, see `reciprocal_rank`.

  Args:
    scores: [N, J]; higher ranks first.
    relevance: [N, J] bool, or 0 and 1, which items are positives.
    mask: [N, J] bool, False where a list is padded; such items never count.
    ks: cut-offs, each at least 1; a list shorter than k is cut at its end.

  Returns:
    'recall@k' and 'ndcg@k' for each k, 'mrr', 'mean_rank' (1 is best) and 'auc', each [N] float64;
    nan for a list without positives, and of 'auc' for one of positives alone.

  Raises:
    ValueError: if shapes differ, a k is below 1, an unmasked score is nan or an unmasked relevance
      another number than 0 and 1: gains are not graded.

  Reference: McSherry and Najork, Computing Information Retrieval Performance Measures Efficiently
    in the Presence of Tied Scores, ECIR 2008.
  """
  if any(k < 1 for k in ks):
    raise ValueError(f'ks must be at least 1, got {tuple(ks)}')
  groups = tie_groups(scores, mask)
  if np.shape(relevance) != np.shape(mask):
    raise ValueError(f'relevance must be {np.shape(mask)} like mask, got {np.shape(relevance)}')
  relevance = binary('relevance', relevance, np.asarray(mask, bool))
  positives = relevance.sum(1)
  found = np.where(positives > 0, positives, np.nan)  # [N]
  ranks = np.arange(1, relevance.shape[1] + 1)
  discount = 1 / np.log2(ranks + 1)
  ideal = np.concatenate([[0.0], np.cumsum(discount)])

  tied = groups.total(relevance)  # [N, J] positives in the tie group of each rank
  gain = tied / (groups.end - groups.start)
  metrics = {}
  for k in ks:
    metrics[f'recall@{k}'] = gain[:, :k].sum(1) / found
    best = np.where(positives > 0, ideal[np.minimum(positives, k)], np.nan)
    metrics[f'ndcg@{k}'] = gain[:, :k] @ discount[:k] / best
  rows = np.flatnonzero(positives)
  first = rows, (tied[rows] > 0).argmax(1)  # the best group with a positive starts there
  start, end = groups.start[first], groups.end[first]
  metrics['mrr'] = np.full(len(found), np.nan)
  metrics['mrr'][rows] = reciprocal_rank(start, end - start, tied[first].astype(int))
  metrics['mean_rank'] = gain @ ranks / found
  metrics['auc'] = auc(metrics['mean_rank'], found, np.asarray(mask, bool).sum(1) - positives)
  return metrics


def auc(mean_rank: np.ndarray, positives: np.ndarray, others: np.ndarray) -> np.ndarray:
  """The share of (positive, other) pairs in the right order, of lists with such mean ranks.

  Reference: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.
  """
  return 1 - (mean_rank - (positives + 1) / 2) / np.where(others > 0, others, np.nan)
