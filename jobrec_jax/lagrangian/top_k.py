"""The exact dual of what people see: the best k items of each list, and their mean q.

Of all ways to choose k items of each list, the k best by `a + mu q` have the greatest mean of a
among those whose mean q is as great as theirs, for they maximise the sum of `a + mu q`; and their
mean q rises in mu. So one number is all there is to solve for, as for the softmax of `exact`. C is
a step function here: it meets tau to within the step of one list, at most 1 / (N k).

Axes: N lists, J items of a list, M requirements.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Reached = Callable[[np.ndarray], np.ndarray]  # multipliers [M] -> C [M]
_HALVINGS = 60
_DOUBLINGS = 200  # of a bracket that starts at 1
_NUMBERS = 2**22  # of one temporary
_WIDE = 0.1  # of 1 + |mu|, the widest range of one C that is looked at
_ROUNDING = 1e-12  # of C


class TopK(NamedTuple):
  """The rankings by a + mu q that meet M requirements, float64.

  Attributes:
    multiplier: [M] mu; nan where the requirement is infeasible.
    reached: [M] C, the mean over lists of the mean q of the k best.
    attainable: [2] the least and greatest C of any choice of k items.
    free: C with mu = 0.
  """

  multiplier: np.ndarray
  reached: np.ndarray
  attainable: np.ndarray
  free: float


def mean_of_best(scores: np.ndarray, values: np.ndarray, mask: np.ndarray, k: int) -> np.ndarray:
  """The mean of values over the k best of each list, in expectation over random tie-breaking.

  Args:
    scores: [..., N, J]; higher is better.
    values, mask: [N, J] or [..., N, J]; mask is False where a list is padded.
    k: at least 1; a shorter list counts with all its items.

  Returns:
    [..., N] float64.
  """
  mask = np.asarray(mask, bool)
  scores = np.where(mask, np.asarray(scores, np.float64), -np.inf)
  count = np.minimum(k, mask.sum(-1))
  last = np.broadcast_to((count - 1)[..., None], (*scores.shape[:-1], 1))
  lowest = np.take_along_axis(-np.sort(-scores, axis=-1), last, -1)
  above, tied = scores > lowest, mask & (scores == lowest)
  share = (count - above.sum(-1)) / tied.sum(-1)
  values = np.where(mask, values, 0.0)
  return ((above * values).sum(-1) + share * (tied * values).sum(-1)) / count


def solve_top_k(scores: np.ndarray, q: np.ndarray, mask: np.ndarray, tau: np.ndarray, k: int, *,
                constraint: str = 'inequality') -> TopK:
  """The least C of at least tau that the k best have at any mu, for every tau at once.

  Of the range of mu that has this C the middle is taken, so that rounding changes no place.

  Args:
    scores: [N, J] a, frozen and finite.
    q: [N, J] what the constraint averages.
    mask: [N, J] bool, False where a list is padded; each list has an item.
    tau: [M].
    k: how many of a list are seen, at least 1.
    constraint: an 'inequality' has mu >= 0, and mu = 0 where C is at least tau already; under an
      'equality' mu may be below 0.

  Raises:
    ValueError: a shape, the mask, a number or a name is not allowed.
  """
  scores, q, tau = (np.asarray(x, np.float64) for x in (scores, q, tau))
  mask = np.asarray(mask, bool)
  if constraint not in ('inequality', 'equality'):
    raise ValueError(f'constraint must be inequality or equality, got {constraint!r}')
  if not (scores.ndim == 2 and scores.shape == q.shape == mask.shape and mask.any(1).all()):
    raise ValueError('scores, q and mask must be [N, J] alike, each list with an item, got '
                     f'{scores.shape}, {q.shape} and {mask.shape}')
  if k < 1 or tau.ndim != 1 or not all(np.isfinite(x).all() for x in (scores[mask], q[mask], tau)):
    raise ValueError('k must be at least 1, tau [M], and scores, q and tau finite, got '
                     f'k = {k} and tau {tau.shape}')

  def reached(mu: np.ndarray) -> np.ndarray:
    found = np.empty(len(mu))
    rows = max(1, _NUMBERS // q.size)
    for at in range(0, len(mu), rows):
      tilted = scores + mu[at:at + rows, None, None] * q
      found[at:at + rows] = mean_of_best(tilted, q, mask, k).mean(-1)
    return found

  least, most = (float(sign * mean_of_best(sign * q, sign * q, mask, k).mean())
                 for sign in (-1, 1))
  free = float(reached(np.zeros(1))[0])
  inside = (tau > least) & (tau <= most)
  idle = (constraint == 'inequality') & (free >= tau)
  up, down = inside & ~idle & (free < tau), inside & ~idle & (free >= tau)
  _, start = _halved(reached, *_bracket(reached, tau, up, down), lambda c: c >= tau)
  met = reached(start)
  end, _ = _halved(reached, start, start + _WIDE * (1 + np.abs(start)), lambda c: c > met)
  middle = (start + end) / 2
  mu = np.where(reached(middle) >= tau, middle, start)  # a range may be as narrow as rounding
  mu = np.where(up | down, mu, 0.0)
  met = reached(mu)
  feasible = idle | (inside & (met >= tau - _ROUNDING))
  return TopK(np.where(feasible, mu, np.nan), met, np.array([least, most]), free)


def _bracket(reached: Reached, tau: np.ndarray, up: np.ndarray,
             down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[M] mu on both sides of each tau, one of them 0; `up` and `down` [M] say which way it lies."""
  low, high = np.zeros(len(tau)), np.zeros(len(tau))
  for end, moving, sign in ((high, up, 1.0), (low, down, -1.0)):
    end[moving] = sign
    for _ in range(_DOUBLINGS):
      short = moving.copy()
      short[moving] = (reached(end[moving]) < tau[moving]) == (sign > 0)
      if not short.any():
        break
      end[short] *= 2
  return low, high


def _halved(reached: Reached, low: np.ndarray, high: np.ndarray,
            beyond: Reached) -> tuple[np.ndarray, np.ndarray]:
  """Both sides of where `beyond` of C, which is false at low and true at high, turns true."""
  for _ in range(_HALVINGS):
    middle = (low + high) / 2
    at = beyond(reached(middle))
    low, high = np.where(at, low, middle), np.where(at, middle, high)
  return low, high
