"""Does each expert track its own truth, and given that truth not the other's?"""

from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.statistics import Estimate, Groups, Moments, jackknife, summed
from jobrec_jax.evaluate.values import probability

AT_ONCE = 1 << 20  # pairs in work at a time
EPSILON = 1e-6  # probabilities are held this far from 0 and 1, where logits are infinite


class DeconflationRow(NamedTuple):
  """One correlation over pairs.

  Attributes:
    expert: 'preference' or 'qualification', by its logit; 'truth' for the truth logit P itself.
    truth: 'preference' or 'qualification', by its logit.
    given: the truth held fixed (a partial correlation), or None.
    correlation: as an estimate; `n` counts pairs.
  """

  expert: str
  truth: str
  given: str | None
  correlation: Estimate


# Columns of the moments: the two experts' logits, then logit P and logit Q.
_S_PREF, _S_QUAL, _P, _Q = range(4)
_ROWS = (
    (('preference', 'preference', None), (_S_PREF, _P, None)),
    (('preference', 'qualification', None), (_S_PREF, _Q, None)),
    (('preference', 'preference', 'qualification'), (_S_PREF, _P, _Q)),
    (('preference', 'qualification', 'preference'), (_S_PREF, _Q, _P)),
    (('qualification', 'qualification', None), (_S_QUAL, _Q, None)),
    (('qualification', 'preference', None), (_S_QUAL, _P, None)),
    (('qualification', 'qualification', 'preference'), (_S_QUAL, _Q, _P)),
    (('qualification', 'preference', 'qualification'), (_S_QUAL, _P, _Q)),
    (('truth', 'qualification', None), (_P, _Q, None)),
)


def logit(p: np.ndarray) -> np.ndarray:
  """log(p / (1 − p)) in float64, with p held `EPSILON` away from 0 and 1."""
  p = np.clip(np.asarray(p, np.float64), EPSILON, 1 - EPSILON)
  return np.log(p) - np.log1p(-p)


def _correlations(sums: np.ndarray) -> np.ndarray:
  """[R, 1 + 4 + 16] summed moments (1, x, x xᵀ) to [R, rows]; nan where a variance is 0."""
  n = sums[:, :1]
  mean = sums[:, 1:5] / n
  covariance = (sums[:, 5:] / n).reshape(-1, 4, 4) - mean[:, :, None] * mean[:, None, :]
  variance = np.diagonal(covariance, axis1=1, axis2=2)
  spread = np.sqrt(np.where(variance > 1e-12, variance, np.nan))  # columns have unit variance
  r = covariance / (spread[:, :, None] * spread[:, None, :])
  columns = []
  for _, (x, y, z) in _ROWS:
    if z is None:
      columns.append(r[:, x, y])
    else:
      left = (1 - r[:, x, z] ** 2) * (1 - r[:, y, z] ** 2)
      left = np.sqrt(np.where(left > 1e-12, left, np.nan))
      columns.append((r[:, x, y] - r[:, x, z] * r[:, y, z]) / left)
  return np.stack(columns, axis=1)


def _moments(arrays: list[np.ndarray], groups: Groups) -> Moments:
  """Sums of (1, x, x xᵀ) over the pairs, 1 + 4 + 16 numbers, x standardised.

  Some pairs at a time: those of a large market would take gigabytes at once.
  """
  n = len(arrays[0])
  blocks = [slice(i, i + AT_ONCE) for i in range(0, n, AT_ONCE)]

  def x(at: slice) -> np.ndarray:  # [n, 4]
    s_pref, s_qual, p, q = (a[at].astype(np.float64) for a in arrays)
    return np.stack([s_pref, s_qual, logit(p), logit(q)], axis=1)
  mean = sum(x(at).sum(0) for at in blocks) / n
  spread = np.sqrt(sum(((x(at) - mean) ** 2).sum(0) for at in blocks) / n)
  spread = np.where(spread > 1e-9, spread, np.inf)  # second moments then lose no digits
  parts = []
  for at in blocks:
    z = (x(at) - mean) / spread
    products = (z[:, :, None] * z[:, None, :]).reshape(len(z), 16)
    columns = np.concatenate([np.ones((len(z), 1)), z, products], axis=1)
    some = groups._replace(candidate=groups.candidate[at], job=groups.job[at])
    parts.append(summed(columns.T, some))
  *sums, there = zip(*parts)
  return Moments(*map(sum, sums), tuple(np.any(side, axis=0) for side in zip(*there)))


def deconflation_rows(
    s_pref: np.ndarray,
    s_qual: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    groups: Groups,
) -> list[DeconflationRow]:
  """Correlations of both experts with both truths on uniformly random pairs, all on logits.

  The partial correlation of x and y given z is that of what a linear fit on z leaves of them,
    (r_xy − r_xz r_yz) / sqrt((1 − r_xz²)(1 − r_yz²)).
  A de-conflated expert correlates with its own truth, and given it, not with the other's. Its plain
  correlation with the other truth is expected wherever the truths correlate (the last row).

  Args:
    s_pref, s_qual: [N] logits of the experts.
    p, q: [N] true probabilities of preference and qualification of the same pairs.
    groups: [N] of the pairs' candidates and jobs.

  Returns:
    For each expert its correlation with its own truth, with the other's, with its own given the
    other's and with the other's given its own; then that of logit P with logit Q. A correlation
    with a constant is nan, and so is one with what another column already determines.

  Raises:
    ValueError: if shapes differ, a value is not finite, or p or q is no probability.
  """
  arrays = [np.asarray(a) for a in (s_pref, s_qual, p, q)]
  shapes = [a.shape for a in (*arrays, groups.candidate, groups.job)]
  if len(set(shapes)) != 1 or arrays[0].ndim != 1 or not arrays[0].size:
    raise ValueError(f'experts, truths and groups must be [N] alike with N > 0, got {shapes}')
  for name, a in zip(('s_pref', 's_qual', 'p', 'q'), arrays):
    if not np.isfinite(a).all():
      raise ValueError(f'{name} must be finite, got {a[~np.isfinite(a)][0]}')
  for name, a in zip(('p', 'q'), arrays[2:]):
    probability(name, a)
  estimates = jackknife(_moments(arrays, groups), _correlations, len(arrays[0]))
  return [DeconflationRow(*names, estimate) for (names, _), estimate in zip(_ROWS, estimates)]
