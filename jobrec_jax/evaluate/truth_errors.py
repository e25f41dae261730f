"""How far a score is from the truth of pairs: in rank within a side, and in logits by part.

Policies pick jobs of one candidate, so that an error that all jobs of a candidate share costs
nothing there, and one that all candidates of a job share costs much. Means over pairs hide which.
"""

import numpy as np

from jobrec_jax.evaluate.ranking import tie_groups
from jobrec_jax.evaluate.statistics import (
  PAIRS,
  Estimate,
  Groups,
  Moments,
  jackknife,
  present,
)

AT_ONCE = 1 << 24  # pairs of items of a list in work at a time


def spearman(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Spearman's rank correlation of each list, and of each list without each of its items.

  Pearson's correlation of the ranks, tied items sharing their mean rank. Without item i the ranks
  x_j of the others are x_j − a_ij, a_ij = [x_j > x_i] + [x_j = x_i] / 2.

  Args:
    scores, truth: [N, J], J at least 2.

  Returns:
    [N] and [N, J]; nan where either is constant.
  """
  x, y = (np.asarray(v, np.float64) for v in (scores, truth))
  n = x.shape[1]
  ranks = [_ahead(-v, np.ones_like(v)) + 0.5 for v in (x, y)]
  ties = [_tied(v) for v in (x, y)]
  product = (ranks[0] * ranks[1]).sum(1, keepdims=True)
  squares = [_squares(n) - ((t ** 2 - 1).sum(1, keepdims=True)) / 12 for t in ties]
  whole = _pearson(product, *squares, n)[:, 0]
  # Each sum over all j holds a_ii = 1 / 2, which is taken off.
  both = _both_ahead(x, y) - 0.25
  ahead = [_ahead(x, ranks[1]) - ranks[1] / 2, _ahead(y, ranks[0]) - ranks[0] / 2]
  left = product - ranks[0] * ranks[1] - ahead[0] - ahead[1] + both
  fewer = [_squares(n - 1) - ((t ** 2 - 1).sum(1, keepdims=True)
                              - (t ** 3 - t) + ((t - 1) ** 3 - (t - 1))) / 12 for t in ties]
  return whole, _pearson(left, *fewer, n - 1)


def _squares(n: int) -> float:
  return n * (n + 1) * (2 * n + 1) / 6


def _pearson(product: np.ndarray, x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
  """Of ranks of n items, from Σ x y, Σ x² and Σ y²; their mean is (n + 1) / 2."""
  mean = n * ((n + 1) / 2) ** 2
  spread = (x - mean) * (y - mean)
  return (product - mean) / np.sqrt(np.where(spread > 1e-9, spread, np.nan))


def _ahead(x: np.ndarray, values: np.ndarray) -> np.ndarray:
  """[N, J] Σ_j v_j ([x_j > x_i] + [x_j = x_i] / 2)."""
  groups = tie_groups(x, np.ones(x.shape, bool))
  running = np.cumsum(np.take_along_axis(values, groups.order, axis=1), axis=1)
  running = np.pad(running, ((0, 0), (1, 0)))
  found = np.empty(x.shape)
  np.put_along_axis(found, groups.order, (np.take_along_axis(running, groups.start, axis=1)
                                          + np.take_along_axis(running, groups.end, axis=1)) / 2, 1)
  return found


def _tied(x: np.ndarray) -> np.ndarray:
  """[N, J] how many items share the value of each."""
  groups = tie_groups(x, np.ones(x.shape, bool))
  found = np.empty(x.shape)
  np.put_along_axis(found, groups.order, (groups.end - groups.start).astype(float), 1)
  return found


def _both_ahead(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """[N, J] Σ_j a_ij b_ij, of x and of y."""
  step = max(1, AT_ONCE // x.shape[1] ** 2)
  found = []
  for at in range(0, len(x), step):
    a, b = ((v[:, None, :] > v[:, :, None]).view(np.int8)
            + (v[:, None, :] >= v[:, :, None]).view(np.int8)
            for v in (x[at:at + step], y[at:at + step]))
    found.append((a * b).sum(-1, dtype=np.int32) / 4)
  return np.concatenate(found)


def variance_parts(error: np.ndarray, groups: Groups, candidate: np.ndarray,
                   job: np.ndarray) -> tuple[Estimate, Estimate, Estimate, Estimate]:
  """The mean of an error over pairs, and its variance between candidates, jobs and pairs.

  With e = m + a_u + b_j + r_uj the three variances are those whose expected sums of squares are the
  observed ones (two-way analysis of variance; of incomplete grids Henderson's first method). They
  are unbiased, so that one of a part that is not there may come out below 0.

  Args:
    error: [N] of each pair.
    groups: [N] of the pairs' candidates and jobs.
    candidate, job: [N] whose pairs they are, each pair once.

  Returns:
    The mean; the variances of a, b and r, nan where there are fewer than 2 of a side.

  Reference: Henderson, Estimation of Variance and Covariance Components, 1953.
  """
  sides = [np.unique(x, return_inverse=True)[1] for x in (candidate, job)]
  sizes = [int(s.max()) + 1 for s in sides]
  error = np.asarray(error, np.float64)
  shares = []
  for group, count in zip((groups.candidate, groups.job, groups.pair), (*groups.counts, PAIRS)):
    columns = [np.bincount(group, error ** 2, count)[:, None]]
    for side, size in zip(sides, sizes):
      cell = group * size + side
      columns += [np.bincount(cell, weights, count * size).reshape(count, size)
                  for weights in (error, None)]
    shares.append(np.concatenate(columns, axis=1))
  moments = Moments(shares[0].sum(0), *shares, present(groups))
  return tuple(jackknife(moments, lambda m: _components(m, sizes), len(error)))


def _components(moments: np.ndarray, sizes: list[int]) -> np.ndarray:
  """[R, 1 + 2 U + 2 J] sums (e², e and 1 of each candidate, of each job) to [R, 4]."""
  square, e_u, n_u, e_j, n_j = np.split(moments, np.cumsum([1, sizes[0], sizes[0], sizes[1]]), 1)
  total, n = e_u.sum(1), n_u.sum(1)
  base = total ** 2 / n
  between = [(e ** 2 / np.where(k > 0.5, k, np.inf)).sum(1) - base for e, k in (
      (e_u, n_u), (e_j, n_j))]
  count = [(k > 0.5).sum(1).astype(float) for k in (n_u, n_j)]
  k_u, k_j = ((k ** 2).sum(1) / n for k in (n_u, n_j))
  enough = (count[0] > 1) & (count[1] > 1)
  matrix = np.stack([
      np.stack([n - k_u, count[0] - k_j, count[0] - 1], 1),
      np.stack([count[1] - k_u, n - k_j, count[1] - 1], 1),
      np.stack([n - k_u, n - k_j, n - 1], 1)], 1)
  matrix[~enough] = np.eye(3)
  observed = np.stack([*between, square[:, 0] - base], 1)
  parts = np.linalg.solve(matrix, observed[..., None])[..., 0]
  return np.concatenate([(total / n)[:, None], np.where(enough[:, None], parts, np.nan)], 1)
