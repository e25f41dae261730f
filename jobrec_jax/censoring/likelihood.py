"""The likelihood of a whole funnel: who applied, and of whom it was found what.

  P(applied | shown) = P d(Q),  d(Q) = 1 - c (1 - Q);  P(accepted | applied) = Q

with P = sigmoid(s_pref), Q = sigmoid(s_qual) and a known doubt c. Where doubt keeps candidates
away, who did not apply tells of Q, too: verdicts alone leave out most of who would be rejected.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit


class Linear(NamedTuple):
  """s = x . weights + intercept."""

  weights: np.ndarray
  intercept: float

  def logits(self, x: np.ndarray) -> np.ndarray:
    """[N] of features [N, D]."""
    return x @ self.weights + self.intercept


class Models(NamedTuple):
  """One of each perspective."""

  preference: Linear
  qualification: Linear


def log_loss(s_pref: np.ndarray, s_qual: np.ndarray, applied: np.ndarray, verdict: np.ndarray,
             doubt: float) -> tuple[float, np.ndarray, np.ndarray]:
  """Less the log likelihood of shown pairs, and its slopes in both logits.

  Args:
    s_pref, s_qual: [N] float64 logits.
    applied: [N] bool.
    verdict: [N] 1 accepted, 0 rejected, negative where nobody knows.
    doubt: c in [0, 1).

  Returns:
    nats, summed; [N] and [N] slopes.
  """
  wants, eligible = expit(s_pref), expit(s_qual)
  daring = 1 - doubt * (1 - eligible)
  chance = np.minimum(wants * daring, 1 - 1e-12)
  slope = np.where(applied, -1.0, chance / (1 - chance))  # in log(chance)
  known = verdict >= 0
  nats = (-np.where(applied, log_expit(s_pref) + np.log(daring), np.log1p(-chance)).sum()
          + (np.logaddexp(0, s_qual) - verdict * s_qual)[known].sum())
  return (float(nats), slope * (1 - wants),
          slope * doubt * eligible * (1 - eligible) / daring
          + np.where(known, eligible - verdict, 0.0))


def fit_funnel(x: tuple[np.ndarray, np.ndarray], applied: np.ndarray, verdict: np.ndarray,
               doubt: float, ridges: tuple[float | np.ndarray, float | np.ndarray],
               start: Models | None = None) -> Models:
  """Both linear models of the greatest likelihood, less ridge . w^2 / 2 of each; by L-BFGS.

  Args:
    x: [N, D] features of preference and of qualification. What speaks to one alone must be 0 in the
      other's: that tells wanting from daring.
    applied, verdict, doubt: as of `log_loss`.
    ridges: at least 0, one of all weights of a perspective or [D] of each.
    start: where the search starts; zeros without it.
  """
  widths = [part.shape[1] for part in x]
  ends = widths[0], widths[0] + 1, sum(widths) + 1
  # Of about the same curvature, for ridges may be far apart.
  size = np.sqrt(np.concatenate([np.append((part ** 2).sum(0) / 4 + ridge, len(part) / 4)
                                 for part, ridge in zip(x, ridges)]))
  size = np.where(size > 0, size, 1.0)

  def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
    models = _parted(theta / size, ends)
    nats, *slopes = log_loss(*(m.logits(part) for m, part in zip(models, x)), applied, verdict,
                             doubt)
    nats += sum((ridge * m.weights ** 2).sum() / 2 for m, ridge in zip(models, ridges))
    slopes = [np.append(slope @ part + ridge * m.weights, slope.sum())
              for slope, part, m, ridge in zip(slopes, x, models, ridges)]
    return nats, np.concatenate(slopes) / size
  theta = np.zeros(sum(widths) + 2) if start is None else np.concatenate(
      [np.append(*model) for model in start])
  return _parted(minimize(objective, theta * size, jac=True, method='L-BFGS-B',
                          options={'maxiter': 500}).x / size, ends)


def _parted(theta: np.ndarray, ends: tuple[int, int, int]) -> Models:
  w_pref, b_pref, w_qual, b_qual = np.split(theta, ends)
  return Models(Linear(w_pref, float(b_pref[0])), Linear(w_qual, float(b_qual[0])))
