"""Does the policy reach the eligibility it was asked for, and what does that cost in preference?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.statistics import Bootstrap, Interval, bootstrap_mean


class ControlRow(NamedTuple):
  """One requirement and what came of it.

  Attributes:
    tau: the eligibility asked for.
    reached: mean predicted C on the lists that stage 2 trained on.
    gap: |reached − tau|.
    heldout: mean predicted C on held-out lists.
    covered: whether tau lies in the interval of `heldout`.
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
    trained: np.ndarray,
    heldout: np.ndarray,
    how: Bootstrap,
    true: np.ndarray | None = None,
) -> list[ControlRow]:
  """Reached against asked eligibility for each requirement.

  C of a single list varies by about 0.2, so on held-out lists of the same size and sampling the
  question is whether tau lies in the bootstrap interval of the mean; a bound on the difference
  alone would measure luck.

  Args:
    taus: [T] requirements.
    trained: [T, M] predicted C of each list that stage 2 trained on, for each requirement's policy.
    heldout: [T, N] predicted C of each held-out list.
    how: the bootstrap over held-out lists, the same for every requirement.
    true: [T, N] true eligibility of each held-out list.

  Returns:
    One row for each requirement, in the order given.

  Raises:
    ValueError: if an array does not have one row for each requirement.
  """
  for name, values in (('trained', trained), ('heldout', heldout), ('true', true)):
    if values is not None and (np.ndim(values) != 2 or len(values) != len(taus)):
      raise ValueError(f'{name} must be [{len(taus)}, lists], got {np.shape(values)}')
  rows = []
  for t, tau in enumerate(taus):
    reached = float(np.mean(trained[t]))
    held = bootstrap_mean(heldout[t], how)
    truth = None if true is None else bootstrap_mean(true[t], how)
    rows.append(ControlRow(float(tau), reached, abs(reached - float(tau)), held,
                           held.low <= tau <= held.high, truth))
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
  if not (np.isfinite(points).all() and np.isfinite(reference).all()):
    raise ValueError('points and reference must be finite')
  width, height = np.maximum(points - reference, 0).T
  order = np.argsort(-width)
  skyline = np.maximum.accumulate(height[order])
  return float(np.sum(width[order] * np.diff(skyline, prepend=0.0)))
