"""Does a score track its own truth, and given that truth not the other's?

A preference score ranks jobs of one candidate, so that a function of the candidate may be added to
it and changes no ranking, yet any correlation over pairs. So it and the truths are centred within
each candidate first. Qualification is compared over all pairs: its candidate part is truth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.statistics import (
  PAIRS,
  Estimate,
  Groups,
  Moments,
  jackknife,
  present,
)
from jobrec_jax.evaluate.values import probability

EPSILON = 1e-6  # probabilities are held this far from 0 and 1, where logits are infinite
SCORE = 'the score'  # held fixed
CONSTANT = 1e-9  # of a column's size: what varies less is rounding


class DeconflationRow(NamedTuple):
  """One correlation over pairs.

  Attributes:
    truth: 'preference' or 'qualification', by its logit.
    given: the truth held fixed (a partial correlation), or None; `SCORE` for that of the own truth
      with this one, the score held fixed.
    correlation: as an estimate; `n` counts pairs.
  """

  truth: str
  given: str | None
  correlation: Estimate


def logit(p: np.ndarray) -> np.ndarray:
  """log(p / (1 − p)) in float64, with p held `EPSILON` away from 0 and 1."""
  p = np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)
  return np.log(p) - np.log1p(-p)


def deconflation_rows(score: np.ndarray, truths: tuple[np.ndarray, np.ndarray], own: str,
                      groups: Groups, candidate: np.ndarray | None = None) -> list[DeconflationRow]:
  """Correlations of one system's score with both truths, on logits.

  The partial correlation of x and y given z is that of what a linear fit on z leaves of them,
    (r_xy − r_xz r_yz) / sqrt((1 − r_xz²)(1 − r_yz²)).
  A de-conflated expert correlates with its own truth, and given it, not with the other's. Its plain
  correlation with the other truth is expected wherever the truths correlate.

  An estimate s that knows its own truth in part only, a = s + u with u unrelated to s and to the
  other truth b, correlates with b given a all the same: by attenuation, at
    r_ab sqrt(1 − r_as²) / (r_as sqrt(1 − r_ab²)).
  Given s, however, a and b have nothing left in common. Where that correlation is below 0, the
  score leans on b, or on what goes with it, more than a does; where it is above, b would tell of a
  what the score does not know.

  Args:
    score: [N] a logit, or any other score.
    truths: [N] each, the true probabilities P and Q of the same pairs.
    own: 'preference' or 'qualification', the truth that the score is about.
    groups: [N] of the pairs' candidates and jobs.
    candidate: [N] within whom all three are centred first, as preference should be; None for none.

  Returns:
    The correlation with its own truth, with the other's, with its own given the other's and with
    the other's given its own; and that of both truths given the score. A correlation with a
    constant is nan, and so is one with what another column already determines.

  Raises:
    ValueError: if shapes differ, a value is not finite, or a truth is no probability.
  """
  _check(own, score, *truths)
  letters = ('preference', 'qualification') if own == 'preference' else (
      'qualification', 'preference')
  mine, other = truths if own == 'preference' else truths[::-1]
  moments = centred_moments([score, logit(mine), logit(other)], groups, candidate)
  s, a, b = range(3)
  found = jackknife(moments, lambda m: correlations(m, 3, (
      (s, a, None), (s, b, None), (s, a, b), (s, b, a), (a, b, s))), len(score))
  first, second = letters
  names = ((first, None), (second, None), (first, second), (second, first),
           (second, SCORE))
  return [DeconflationRow(*name, estimate) for name, estimate in zip(names, found)]


def truth_correlation(truths: tuple[np.ndarray, np.ndarray], groups: Groups,
                      candidate: np.ndarray | None = None) -> Estimate:
  """The correlation of logit P with logit Q.

  Args:
    truths, groups, candidate: as in `deconflation_rows`.
  """
  _check('preference', *truths, *truths)
  moments = centred_moments([logit(t) for t in truths], groups, candidate)
  return jackknife(moments, lambda m: correlations(m, 2, ((0, 1, None),)), len(truths[0]))[0]


def _check(own: str, score: np.ndarray, *truths: np.ndarray) -> None:
  arrays = [np.asarray(a) for a in (score, *truths)]
  if len({a.shape for a in arrays}) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
    raise ValueError('score and truths must be [N] alike with N > 0, got '
                     f'{[a.shape for a in arrays]}')
  for name, a in zip((f'score of {own}', 'P', 'Q'), arrays):
    if not np.isfinite(a).all():
      raise ValueError(f'{name} must be finite, got {a[~np.isfinite(a)][0]}')
  for name, a in zip('PQ', arrays[1:]):
    probability(name, a)


def centred_moments(columns: Sequence[np.ndarray], groups: Groups,
                    candidate: np.ndarray | None = None) -> Moments:
  """Sums of d dᵀ over pairs, d centred columns, and what leaves of them with each group.

  A group takes its pairs along and moves the centre of those that stay. With n pairs about a centre
  of which m leave, whose d have the sum D, exactly Σ d dᵀ + D Dᵀ / (n − m) leaves.

  Args:
    columns: X of [N]; each is scaled to a unit variance.
    groups: [N] of the pairs' candidates and jobs.
    candidate: [N] about whose means the columns are centred; None for one mean of all.

  Returns:
    Moments of X (X + 1) / 2 sums, those of a matrix's upper triangle.
  """
  n = len(columns[0])
  if groups.candidate.shape != (n,) or groups.job.shape != (n,):
    raise ValueError(f'groups must be [{n}] like the columns, got {groups.candidate.shape} and '
                     f'{groups.job.shape}')
  about = np.zeros(n, int) if candidate is None else np.unique(candidate, return_inverse=True)[1]
  size = np.bincount(about)
  d = []
  for x in columns:
    x = np.asarray(x, np.float64)
    x = x - (np.bincount(about, x) / size)[about]
    x = x - (np.bincount(about, x) / size)[about]  # what rounding left of a large mean
    spread = x.std()
    d.append(x / spread if spread > CONSTANT * max(1.0, np.abs(columns[len(d)]).max()) else 0 * x)
  upper = [(i, j) for i in range(len(d)) for j in range(i, len(d))]
  sides = []
  for group, count in zip((groups.candidate, groups.job, groups.pair), (*groups.counts, PAIRS)):
    cell, shape = group * len(size) + about, (count, len(size))
    sums = [np.bincount(cell, x, count * len(size)).reshape(shape) for x in d]
    left = size - np.bincount(cell, minlength=count * len(size)).reshape(shape)
    left = np.where(left > 0, left, np.inf)
    sides.append(np.stack([np.bincount(group, d[i] * d[j], count)
                           + (sums[i] * sums[j] / left).sum(1) for i, j in upper], axis=1))
  total = np.array([d[i] @ d[j] for i, j in upper])
  return Moments(total, *sides, present(groups))


def correlations(sums: np.ndarray, columns: int,
                 wanted: Sequence[tuple[int, int, int | None]]) -> np.ndarray:
  """[R, X (X + 1) / 2] sums of `centred_moments` to [R, S] correlations (x, y, given z or None)."""
  upper = {pair: k for k, pair in enumerate(
      (i, j) for i in range(columns) for j in range(i, columns))}

  def r(x: int, y: int) -> np.ndarray:
    variances = sums[:, upper[x, x]] * sums[:, upper[y, y]]
    spread = np.sqrt(np.where(variances > 1e-12, variances, np.nan))
    return sums[:, upper[min(x, y), max(x, y)]] / spread
  found = []
  for x, y, z in wanted:
    if z is None:
      found.append(r(x, y))
    else:
      left = (1 - r(x, z) ** 2) * (1 - r(y, z) ** 2)
      found.append((r(x, y) - r(x, z) * r(y, z)) / np.sqrt(np.where(left > 1e-12, left, np.nan)))
  return np.stack(found, axis=1)
