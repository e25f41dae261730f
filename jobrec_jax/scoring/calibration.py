"""The scale of the qualification logits: z = (s - b) / t, p = sigmoid(z)."""

from typing import NamedTuple

import jax
import numpy as np

_STEPS = 100
_TOLERANCE = 1e-10
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

  Minimises sum_i w_i (log(1 + exp(z_i)) - y_i z_i) by Newton's method with step halving, where
  y_i is Platt's target instead of the label: (n+ + 1) / (n+ + 2) for positives and 1 / (n- + 2)
  for negatives, with n+ and n- the weighted counts after the weights are scaled to mean 1. It is a
  prior of one more observation of either outcome in each class: weak, and enough for the fit to
  stay finite where a threshold separates the labels. The scale of the weights has no effect.

  Args:
    scores: [N] raw logits s.
    labels: [N] 0 or 1.
    weights: [N] weight of each pair, not negative; e.g. to uniform candidate-job pairs.

  Returns:
    b and t > 0.

  Raises:
    ValueError: shapes differ, a value is not allowed, one class has no weight, the scores are
      constant, or the labels fall as the scores rise (no t > 0 fits).

  Reference:
    Platt, Probabilistic outputs for support vector machines, 1999.
  """
  s, y, w = (np.asarray(a, np.float64) for a in (scores, labels, weights))
  _check(s, y, w)
  w = w / w.mean()
  positives, negatives = w[y == 1].sum(), w[y == 0].sum()
  if not (positives > 0 and negatives > 0):
    raise ValueError('calibration needs positives and negatives: their weights sum to '
                     f'{positives:g} and {negatives:g} over {len(y)} pairs')
  mean = np.average(s, weights=w)
  scale = np.sqrt(np.average((s - mean) ** 2, weights=w))
  if not scale > 1e-12 * max(abs(mean), 1e-300):
    raise ValueError(f'calibration needs scores that differ; all are {mean:g}')

  target = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
  # Standardised scores keep Newton's 2 x 2 system well conditioned in any unit.
  slope, intercept = _logistic((s - mean) / scale, target, w)
  if not slope > 0:
    raise ValueError(f'labels fall as scores rise (slope {slope / scale:g} per unit of score): '
                     'no temperature t > 0 calibrates scores that rank the wrong way round; train '
                     "longer (cooperative.steps), or set experts.calibration='none'")
  t = scale / slope
  return Calibration(float(mean - intercept * t), float(t))


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


def _logistic(x: np.ndarray, target: np.ndarray, w: np.ndarray) -> np.ndarray:
  """Slope and intercept of the weighted cross-entropy's minimum; targets lie inside (0, 1)."""
  design = np.stack([x, np.ones_like(x)], axis=1)                                  # [N, 2]

  def loss(theta: np.ndarray) -> float:
    z = design @ theta
    return w @ (np.logaddexp(0, z) - target * z)

  theta = np.zeros(2)
  for _ in range(_STEPS):
    p = 1 / (1 + np.exp(-np.clip(design @ theta, -500, 500)))
    gradient = design.T @ (w * (p - target))
    if np.abs(gradient).max() <= _TOLERANCE * w.sum():
      return theta
    curvature = w * np.maximum(p * (1 - p), 1e-12)
    step = np.linalg.solve(design.T @ (curvature[:, None] * design), gradient)
    size, before = 1.0, loss(theta)
    # Near the minimum the loss is flat to rounding, and that must not shorten the last steps.
    while loss(theta - size * step) > before + 1e-12 * w.sum() and size > 1e-8:
      size /= 2
    theta = theta - size * step
  raise ValueError(f'the calibration fit did not converge in {_STEPS} Newton steps')
