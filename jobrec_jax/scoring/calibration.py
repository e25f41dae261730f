"""The scale of the qualification logits: z = (s - b) / t, p = sigmoid(z)."""

from typing import NamedTuple

import jax
import numpy as np

_STEPS = 100
_TOLERANCE = 1e-10
# What the prior expects of log t and of -b / t: normal around 0 with these standard deviations. It
# moves what some hundred labels tell by 1% of a standard error.
PRIOR = (4.0, 8.0)
FEW = 10  # labels of a class that are too few to tell a scale
SPREADS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # of shifts by group, in logits


class Calibration(NamedTuple):
  """Offset `b`, in units of the score, and temperature `t` > 0 of z = (s - b) / t."""

  b: float
  t: float

  def logit(self, scores):
    """z, any shape, for NumPy and JAX arrays alike."""
    return (scores - self.b) / self.t

  def probability(self, scores):
    """p = sigmoid(z), any shape; NumPy arrays stay on the host."""
    z = self.logit(scores)
    if isinstance(z, np.ndarray | np.floating | float):
      return np.exp(-np.logaddexp(0, -z))
    return jax.nn.sigmoid(z)


def fit_calibration(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> Calibration:
  """The weighted logistic fit of labels on scores, in float64 and without randomness.

  Minimises

      sum_i w_i (log(1 + exp(z_i)) - y_i z_i) + (log t)^2 / (2 * 4^2) + (b / t)^2 / (2 * 8^2)

  by Newton's method with step halving. y_i is Platt's target instead of the label: (n+ + 1) /
  (n+ + 2) for positives and 1 / (n- + 2) for negatives, with n+ and n- the weighted counts after
  the weights are scaled to mean 1, a prior of one more observation of either outcome in each class.
  The other terms are a prior that the score is a logit already, b = 0 and t = 1 (`PRIOR`). Both are
  weak, and enough for a fit where labels are few, of one class, separated by a threshold or falling
  as scores rise: then t becomes large, and p the share of positives. The scale of the weights has
  no effect.

  Args:
    scores: [N] raw logits s.
    labels: [N] 0 or 1.
    weights: [N] weight of each pair, not negative; e.g. to uniform candidate-job pairs.

  Returns:
    b and t > 0.

  Raises:
    ValueError: shapes differ or a value is not allowed.

  Reference:
    Platt, Probabilistic outputs for support vector machines, 1999.
  """
  s, y, w = (np.asarray(a, np.float64) for a in (scores, labels, weights))
  _check(s, y, w)
  w = w / w.mean()
  positives, negatives = w[y == 1].sum(), w[y == 0].sum()
  target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
  log_slope, intercept = _logistic(s, target, w)
  t = np.exp(-log_slope)
  return Calibration(float(-intercept * t), float(t))


def doubts(scores: np.ndarray, labels: np.ndarray) -> list[str]:
  """Why a fit rests on its prior more than on the labels, in words; empty where it does not."""
  s, y = np.asarray(scores, np.float64), np.asarray(labels)
  positive, negative = s[y == 1], s[y == 0]
  found = []
  if min(len(positive), len(negative)) < FEW:
    found.append(f'{len(positive)} positives and {len(negative)} negatives are few')
  if not (len(positive) and len(negative)):
    return found
  if np.ptp(s) <= 1e-6 * max(np.abs(s).max(), 1e-300):
    found.append('all scores are alike')
  elif positive.min() > negative.max():
    found.append('a threshold of the score separates them')
  elif positive.mean() <= negative.mean():
    found.append('they fall as scores rise')
  return found


def fit_offsets(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray,
                count: int, spread: float | None = None) -> np.ndarray:
  """Recalibration by group: p = sigmoid(z + d_g), a shift of the logit for each group.

  d_g minimises `sum_{i in g} w_i (log(1 + exp(z_i + d)) - y_i (z_i + d)) + d^2 / (2 spread^2)`, by
  Newton's method: a positive shift where the group's labels are more often 1 than z says. The
  prior d ~ N(0, spread^2) keeps groups with few labels close to 0, and those without any at 0.

  Args:
    logits: [N] calibrated z.
    labels: [N] 0 or 1.
    weights: [N] not negative; scaled to mean 1.
    groups: [N] ints in [0, count), e.g. jobs.
    count: G.
    spread: standard deviation of the shifts that the prior expects, in logits, above 0; None for
      the one of `SPREADS` that makes the labels most likely (Laplace's approximation).

  Returns:
    [G] float64 shifts.

  Raises:
    ValueError: shapes differ or a value is not allowed.

  Reference:
    Gelman and Hill, Data analysis using regression and multilevel models, 2007, chapter 14.
  """
  z, y, w = (np.asarray(a, np.float64) for a in (logits, labels, weights))
  _check(z, y, w)
  groups = np.asarray(groups)
  if groups.shape != z.shape or groups.min() < 0 or groups.max() >= count:
    raise ValueError(f'groups must be [{len(z)}] ints in [0, {count}), got {groups.shape} in '
                     f'[{groups.min()}, {groups.max()}]')
  if spread is not None and not spread > 0:
    raise ValueError(f'spread must be above 0, got {spread}')
  w = w / w.mean()
  fits = [_shifts(z, y, w, groups, count, s) for s in ([spread] if spread else SPREADS)]
  return max(fits, key=lambda fit: fit[1])[0]


def _shifts(z: np.ndarray, y: np.ndarray, w: np.ndarray, groups: np.ndarray, count: int,
            spread: float) -> tuple[np.ndarray, float]:
  """The shifts under one prior, and the log evidence of that prior."""
  shift = np.zeros(count)
  for _ in range(_STEPS):
    moved = z + shift[groups]
    p = 1 / (1 + np.exp(-np.clip(moved, -500, 500)))
    gradient = np.bincount(groups, w * (p - y), count) + shift / spread**2
    curvature = np.bincount(groups, w * p * (1 - p), count) + 1 / spread**2
    if np.abs(gradient).max() <= 1e-9:
      loss = w @ (np.logaddexp(0, moved) - y * moved) + (shift**2).sum() / (2 * spread**2)
      return shift, -loss - 0.5 * np.log(spread**2 * curvature).sum()
    shift -= np.clip(gradient / curvature, -1, 1)  # far from the minimum a full step may overshoot
  raise ValueError(f'the shifts did not converge in {_STEPS} Newton steps')


def _check(s: np.ndarray, y: np.ndarray, w: np.ndarray) -> None:
  if not (s.ndim == 1 and s.shape == y.shape == w.shape and len(s)):
    raise ValueError('scores, labels and weights must be [N] alike, N > 0; got '
                     f'{s.shape}, {y.shape} and {w.shape}')
  if not np.isfinite(s).all():
    raise ValueError(f'{np.sum(~np.isfinite(s))} scores are not finite')
  if not np.isin(y, (0, 1)).all():
    raise ValueError(f'labels must be 0 or 1, got {np.setdiff1d(y, (0, 1))[:5]}')
  if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
    raise ValueError(f'weights must be finite, none negative, not all 0; least is {w.min():g}')


def _logistic(s: np.ndarray, target: np.ndarray, w: np.ndarray) -> np.ndarray:
  """Log slope and intercept of z = exp(theta_0) s + theta_1, at the least penalised cross-entropy.

  Targets lie inside (0, 1). In its logarithm the slope stays positive, and few labels may have two
  minima, by their own and by the prior's slope: the lower one counts.
  """
  mean = np.average(s, weights=w)
  spread = np.sqrt(np.average((s - mean) ** 2, weights=w))
  starts = [0.0, -np.log(spread)] if spread > 1e-12 * max(abs(mean), 1.0) else [0.0]
  found = [_newton(s - mean, mean, target, w, start) for start in starts]
  return min(found, key=lambda fit: fit[1])[0]


def _newton(x: np.ndarray, mean: float, target: np.ndarray, w: np.ndarray,
            start: float) -> tuple[np.ndarray, float]:
  """The minimum that is reached from a log slope, as in `_logistic`, and its loss.

  Args:
    x: [N] scores less `mean`, which keeps Newton's 2 x 2 system well conditioned.
    mean, target, w: as in `_logistic`.
    start: the first log slope.
  """
  precision = 1 / np.square(PRIOR)

  def at(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """z, what the prior weighs, and the loss. theta: log slope, and z at the mean score."""
    slope = np.exp(theta[0])
    z, own = slope * x + theta[1], np.array([theta[0], theta[1] - slope * mean])
    return z, own, w @ (np.logaddexp(0, z) - target * z) + precision @ own**2 / 2

  theta = np.array([start, 0.0])
  for _ in range(_STEPS):
    slope, (z, own, before) = np.exp(theta[0]), at(theta)
    p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    design = np.stack([slope * x, np.ones_like(x)], axis=1)                          # [N, 2]
    moves = np.array([[1.0, 0.0], [-slope * mean, 1.0]])                             # of own
    gradient = design.T @ (w * (p - target)) + moves.T @ (precision * own)
    if np.abs(gradient).max() <= _TOLERANCE * w.sum():
      return own, before
    curvature = w * np.maximum(p * (1 - p), 1e-12)
    fisher = design.T @ (curvature[:, None] * design) + moves.T @ (precision[:, None] * moves)
    hessian = fisher.copy()
    hessian[0, 0] += (w * (p - target)) @ design[:, 0] - precision[1] * own[1] * slope * mean
    convex = hessian[0, 0] > 0 < np.linalg.det(hessian)
    step = np.linalg.solve(hessian if convex else fisher, gradient)
    step *= min(1.0, 2 / max(abs(step[0]), 1e-300))  # changes the slope by a factor e^2 at most
    size = 1.0
    # Near the minimum the loss is flat to rounding, and that must not shorten the last steps.
    while at(theta - size * step)[2] > before + 1e-12 * w.sum() and size > 1e-8:
      size /= 2
    theta = theta - size * step
  raise ValueError(f'the calibration fit did not converge in {_STEPS} Newton steps')
