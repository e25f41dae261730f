"""Metrics of lists without one of their items, for every item at once, in closed form.

Sorted once, an item that leaves moves those below it one rank up and leaves those above where they
are; of its tie group the others share what is left of the group's gain. So sums over ranks follow
from running sums before and after the group.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from jobrec_jax.evaluate.eligibility import policy_probabilities
from jobrec_jax.evaluate.ranking import KS, TieGroups, auc, reciprocal_rank, tie_groups
from jobrec_jax.evaluate.values import binary, probability

CERTAIN = 0.99  # of the policy: what is left is found anew, not by subtraction


def ranking_metrics_without(
    scores: np.ndarray,
    relevance: np.ndarray,
    mask: np.ndarray,
    ks: Sequence[int] = KS,
) -> dict[str, np.ndarray]:
  """`ranking_metrics` of each list without each of its items.

  Args:
    scores, relevance, mask, ks: as there.

  Returns:
    The same metrics, [N, J] each; nan where the item is masked or the last positive.
  """
  groups = tie_groups(scores, mask)
  mask = np.asarray(mask, bool)
  relevance = binary('relevance', relevance, mask)
  left = relevance.sum(1, keepdims=True) - relevance  # [N, J] positives that stay
  found = np.where((left > 0) & mask, left, np.nan)
  ranks = np.arange(1, relevance.shape[1] + 1)
  discount = 1 / np.log2(ranks + 1)
  ideal = np.concatenate([[0.0], np.cumsum(discount)])
  sums = _SumsWithout(groups, relevance)
  metrics = {}
  for k in ks:
    metrics[f'recall@{k}'] = sums.of(ranks <= k) / found
    best = np.where(np.isnan(found), np.nan, ideal[np.minimum(left, k)])
    metrics[f'ndcg@{k}'] = sums.of(np.where(ranks <= k, discount, 0.0)) / best
  metrics['mrr'] = np.where(np.isnan(found), np.nan, _reciprocal_ranks(groups, relevance))
  metrics['mean_rank'] = sums.of(ranks) / found
  others = mask.sum(1, keepdims=True) - mask - left
  metrics['auc'] = auc(metrics['mean_rank'], found, others)
  return metrics


def violation_rate_without(scores: np.ndarray, eligible: np.ndarray, mask: np.ndarray,
                           k: int) -> np.ndarray:
  """`violation_rate_at_k` of each list without each of its items, [N, J].

  Args:
    scores, eligible, mask, k: as there.
  """
  mask = np.asarray(mask, bool)
  violation = np.where(mask, 1 - probability('eligible', eligible, mask), 0.0)
  top = np.arange(mask.shape[1]) < k
  left = mask.sum(1, keepdims=True) - mask
  length = np.where((left > 0) & mask, np.minimum(left, k), np.nan)
  return _SumsWithout(tie_groups(scores, mask), violation).of(top) / length


def top_means(scores: np.ndarray, values: Mapping[str, np.ndarray], mask: np.ndarray,
              k: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """The mean of values over the top k of each list, and of each list without each of its items.

  In expectation over random tie-breaking; a list that is shorter than k counts with all its items.

  Args:
    scores: [N, J]; higher ranks first.
    values: by name, [N, J] of each item.
    mask: [N, J] bool, False where a list is padded.
    k: cut-off, at least 1.

  Returns:
    By name [N], nan for a list without items; and [N, J], nan where the item is masked or the only
    one.
  """
  mask = np.asarray(mask, bool)
  groups, top, count = tie_groups(scores, mask), np.arange(mask.shape[1]) < k, mask.sum(1)
  left = count[:, None] - mask
  lengths = (np.where(count > 0, np.minimum(count, k), np.nan),
             np.where((left > 0) & mask, np.minimum(left, k), np.nan))
  whole, without = {}, {}
  for name, value in values.items():
    sums = _SumsWithout(groups, np.where(mask, value, 0.0))
    whole[name], without[name] = sums.whole(top) / lengths[0], sums.of(top) / lengths[1]
  return whole, without


def expectations(scores: np.ndarray, values: np.ndarray, mask: np.ndarray,
                 temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
  """E = Σ_j π_j v_j of each list, and without each of its items, whose share the others take.

  Without item j it is (E − π_j v_j) / (1 − π_j).

  Args:
    scores: [N, J] policy scores.
    values: [N, J] v, such as a probability of being eligible.
    mask: [N, J] bool, False where a list is padded.
    temperature: of the policy.

  Returns:
    [N], nan for a list without items; and [N, J], nan where the item is masked or the only one.
  """
  scores, mask = np.asarray(scores, np.float64), np.asarray(mask, bool)
  values = np.where(mask, np.asarray(values, np.float64), 0.0)
  pi = policy_probabilities(scores, mask, temperature)
  whole = np.where(mask.any(1), (pi * values).sum(1), np.nan)
  found = (whole[:, None] - pi * values) / np.maximum(1 - pi, 1 - CERTAIN)
  row, item = np.nonzero(pi > CERTAIN)
  rest = mask[row] & (np.arange(mask.shape[1]) != item[:, None])
  left = (policy_probabilities(scores[row], rest, temperature) * values[row]).sum(1)
  found[row, item] = np.where(rest.any(1), left, np.nan)
  return whole, np.where(mask, found, np.nan)


class _SumsWithout:
  """Σ_r w_r y_r over the ranks of each list without each item, y the expected gain at rank r."""

  def __init__(self, groups: TieGroups, gains: np.ndarray):
    self._groups = groups
    total = groups.total(gains)
    size = groups.end - groups.start
    self._gain = total / size
    own = np.take_along_axis(gains, groups.order, axis=1)
    self._rest = (total - own) / np.maximum(size - 1, 1)  # of the others in its tie group
    rows = np.arange(len(size))[:, None] * (size.shape[1] + 1)
    self._start, self._end = groups.start + rows, groups.end + rows  # into running sums, flat

  def whole(self, weights: np.ndarray) -> np.ndarray:
    """[N] of the lists with all items; weights as in `of`."""
    return self._gain @ np.asarray(weights, np.float64)

  def of(self, weights: np.ndarray) -> np.ndarray:
    """[N, J] in the order of the items.

    Args:
      weights: [J], w of the first, the second rank and so on.
    """
    weights = np.asarray(weights, np.float64)
    moved_up = np.concatenate([[0.0], weights[:-1]])
    running = np.concatenate([[0.0], np.cumsum(weights)])
    before, after = (_running(self._gain * w) for w in (weights, moved_up))
    between = running[self._groups.end - 1] - running[self._groups.start]
    found = (before.ravel()[self._start] + self._rest * between
             + after[:, -1:] - after.ravel()[self._end])
    items = np.empty_like(found)
    np.put_along_axis(items, self._groups.order, found, axis=1)
    return items


def _running(values: np.ndarray) -> np.ndarray:
  """[N, J + 1] sums of the first 0 to J columns."""
  sums = np.zeros((values.shape[0], values.shape[1] + 1))
  np.cumsum(values, axis=1, out=sums[:, 1:])
  return sums


def _reciprocal_ranks(groups: TieGroups, relevance: np.ndarray) -> np.ndarray:
  """[N, J] expected reciprocal rank of the first positive of each list without each item.

  What an item that leaves changes depends on where it stands: above the best tie group with a
  positive, in it with or without being one, or below. Where it was that group's only positive, the
  next group with one counts.
  """
  found = np.full(relevance.shape, np.nan)
  tied = groups.total(relevance).astype(int)
  positives = tied > 0
  rows = np.flatnonzero(positives.any(1))
  at = positives[rows].argmax(1)
  above, end, count = groups.start[rows, at], groups.end[rows, at], tied[rows, at]
  size = end - above
  second = positives[rows] & (np.arange(positives.shape[1]) >= end[:, None])
  next_at = second.argmax(1)
  start2, end2, count2 = (x[rows, next_at] for x in (groups.start, groups.end, tied))
  cases = {
      'whole': (above, size, count, count > 0),
      'above': (above - 1, size, count, above > 0),
      'tied': (above, size - 1, count, size > count),
      'positive': (above, size - 1, count - 1, count > 1),
      'only': (start2 - 1, end2 - start2, count2, (count == 1) & second.any(1))}
  values = {}
  for name, (a, n, m, there) in cases.items():
    values[name] = np.full((len(rows), 1), np.nan)
    values[name][there, 0] = reciprocal_rank(a[there], n[there], m[there])
  first = np.where(count[:, None] > 1, values['positive'], values['only'])
  position = np.arange(relevance.shape[1])
  own = np.take_along_axis(relevance, groups.order, axis=1)[rows]
  inside = np.where(own, first, values['tied'])
  by_position = np.where(position < above[:, None], values['above'],
                         np.where(position < end[:, None], inside, values['whole']))
  items = np.empty_like(by_position)
  np.put_along_axis(items, groups.order[rows], by_position, axis=1)
  found[rows] = items
  return found
