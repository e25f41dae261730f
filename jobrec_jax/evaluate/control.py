"""Does the policy reach the eligibility it was asked for, and what does that cost in preference?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.statistics import Estimate, Interval, interval


class ControlRow(NamedTuple):
  """One requirement and what came of it.

  Attributes:
    tau: the eligibility asked for.
    reached: mean predicted C on the lists that stage 2 trained on.
    gap: |reached − tau|.
    heldout: mean predicted C on held-out lists.
    covered: whether tau lies in an interval about `heldout` that takes the sampling of both lists.
    true: mean true eligibility on held-out lists; None where the truth is unknown.
  """

  tau: float
  reached: float
  gap: float
  heldout: Interval
  covered: bool
  true: Interval | None


def tau_grid(low: float, high: float, count: int, margin: float = 0.1) -> np.ndarray:
  """Requirements equally spaced from `margin` to 1 − `margin` of an attainable range.

  Args:
    low, high: the attainable range of C.
    count: how many, at least 2.
    margin: share of the range left out at each end, in [0, 0.5).

  Returns:
    [count] ascending.

  Raises:
    ValueError: if the range is empty, or `count` or `margin` is out of range.
  """
  if not low < high:
    raise ValueError(f'low must be below high, got the range [{low}, {high}]')
  if count < 2:
    raise ValueError(f'count must be at least 2, got {count}')
  if not 0 <= margin < 0.5:
    raise ValueError(f'margin must be in [0, 0.5), got {margin}')
  return low + (high - low) * np.linspace(margin, 1 - margin, count)


def control_rows(
    taus: Sequence[float],
    trained: Sequence[Estimate],
    heldout: Sequence[Estimate],
    level: float,
    true: Sequence[Estimate] | None = None,
) -> list[ControlRow]:
  """Reached against asked eligibility for each requirement.

  C of a single list varies by about 0.2, so on held-out lists of the same size and sampling the
  question is whether tau lies in the interval of the mean; a bound on the difference alone would
  measure luck. The lists that tau was met on are a sample, too: the interval is that of
  C held-out − C trained, so that candidates of both move it, and jobs as far as they
  do not move both alike.

  Args:
    taus: [T] requirements.
    trained: [T] predicted C on the lists that stage 2 trained on, for each requirement's policy.
    heldout: [T] predicted C on held-out lists.
    level: of the intervals.
    true: [T] true eligibility on held-out lists.

  Returns:
    One row for each requirement, in the order given.

  Raises:
    ValueError: if there is not one estimate for each requirement.
  """
  for name, values in (('trained', trained), ('heldout', heldout), ('true', true)):
    if values is not None and len(values) != len(taus):
      raise ValueError(f'{name} must be {len(taus)} estimates, got {len(values)}')
  rows = []
  for t, tau in enumerate(map(float, taus)):
    reached, (missed, low, high, _) = trained[t].value, interval(heldout[t] - trained[t], level)
    covered = low - missed <= tau - heldout[t].value <= high - missed
    truth = None if true is None else interval(true[t], level, (0.0, 1.0))
    rows.append(ControlRow(tau, reached, abs(reached - tau),
                           interval(heldout[t], level, (0.0, 1.0)), covered, truth))
  return rows


def is_monotone(values: Sequence[float]) -> bool:
  """Whether `values`, ordered by ascending tau, never fall."""
  return bool(np.all(np.diff(np.asarray(values, np.float64)) >= 0))


def hypervolume(points: np.ndarray, reference: Sequence[float]) -> float:
  """The area that points (J, C), both to be maximised, dominate above a reference point.

  Args:
    points: [T, 2]; order and dominated points do not matter.
    reference: (J, C) of the reference point, e.g. the uniform policy's; a point that is not above
      it in both adds nothing.

  Returns:
    The area, at least 0.

  Raises:
    ValueError: if shapes are wrong or a number is not finite.

  Reference: Zitzler and Thiele, Multiobjective Evolutionary Algorithms, 1999.
  """
  points, reference = np.asarray(points, np.float64), np.asarray(reference, np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or reference.shape != (2,):
    raise ValueError(f'points must be [T, 2] and reference [2], got {points.shape} and '
                     f'{reference.shape}')
  for name, x in (('points', points), ('reference', reference)):
    if not np.isfinite(x).all():
      raise ValueError(f'{name} must be finite, got {x[~np.isfinite(x)][0]}')
  width, height = np.maximum(points - reference, 0).T
  order = np.argsort(-width)
  skyline = np.maximum.accumulate(height[order])
  return float(np.sum(width[order] * np.diff(skyline, prepend=0.0)))
