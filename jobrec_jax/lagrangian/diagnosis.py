"""What became of one constraint during a run, from the histories of its multiplier."""

from typing import Literal, NamedTuple

import numpy as np

Verdict = Literal['settled', 'infeasible', 'stuck', 'oscillating', 'unfinished']

SWINGS = 4        # Excursions to alternate sides within half of the run that make an oscillation.
DECAY = 0.75      # An amplitude that shrinks to less than this between quarters is dying out.
PROGRESS = 0.05   # A violation that shrinks by less than this between quarters will not vanish.


class Diagnosis(NamedTuple):
  """A verdict, and a sentence with the constraint's name, its numbers and what to do."""

  verdict: Verdict
  message: str


def diagnose(multiplier: np.ndarray, violation: np.ndarray, *, cap: float | None = None,
             tolerance: float, name: str = 'constraint',
             met_at: float | None = None) -> Diagnosis:
  """Tells a settled constraint from an infeasible, an oscillating and an unfinished one.

  The first of these that holds of the last quarter of the run (v = tau - C, above 0 where the
  requirement is missed; mu < 0 belongs to equalities alone):

  settled:     |v| <= tolerance throughout, or v < 0 at mu = 0, an inequality met without it.
  oscillating: v leaves the band of the tolerance on alternate sides, and as far as a quarter ago.
  infeasible:  v stays outside of the band on one side and hardly shrinks any more, while mu sits
               at the cap or still moves outwards.
  stuck:       the same of a constraint that is known to be met at a multiplier `met_at`.
  unfinished:  anything else.

  Args:
    multiplier, violation: [T], T >= 8. Of minibatches, pass means over enough steps (say epochs)
      that their noise lies within the tolerance.
    cap: that of `dual_ascent`.
    tolerance: largest |v| that counts as met, in units of the constraint.
    name: what the message calls the constraint.
    met_at: the multiplier at which the exact dual meets the constraint; None where that is unknown.

  Raises:
    ValueError: histories that are not [T] alike, shorter than 8 or not finite; a tolerance not
      above 0.
  """
  mu, v = (np.asarray(a, np.float64) for a in (multiplier, violation))
  if not (mu.ndim == 1 and mu.shape == v.shape and len(mu) >= 8):
    raise ValueError('multiplier and violation must be [T] alike with T >= 8, got '
                     f'{mu.shape} and {v.shape}')
  if not (np.isfinite(mu).all() and np.isfinite(v).all()):
    raise ValueError(f'multiplier and violation of {name} must be finite, got '
                     f'{np.sum(~np.isfinite(mu) | ~np.isfinite(v))} steps that are not: the run '
                     'diverged, take smaller steps')
  if not tolerance > 0:
    raise ValueError(f'tolerance must be above 0, got {tolerance}')
  if _settled(mu, v, tolerance):
    return _settled_message(mu, v, tolerance, name)
  if _oscillating(v, tolerance):
    return _oscillating_message(mu, v, name)
  if _infeasible(mu, v, cap, tolerance):
    if met_at is not None:
      return _stuck_message(mu, v, met_at, name)
    return _infeasible_message(mu, v, cap, name)
  return _unfinished_message(mu, v, tolerance, name)


def _quarters(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The last quarter but one, and the last."""
  size = len(a) // 4
  return a[-2 * size:-size], a[-size:]


def _settled(mu: np.ndarray, v: np.ndarray, tolerance: float) -> bool:
  free = (mu == 0) & (v < 0)
  return bool(_quarters(np.where(free, 0, np.abs(v)))[1].max() <= tolerance)


def _oscillating(v: np.ndarray, tolerance: float) -> bool:
  half = v[len(v) // 2:]
  sides = np.sign(half[np.abs(half) > tolerance])
  before, last = (np.abs(q).max() for q in _quarters(v))
  return bool(np.sum(sides[1:] != sides[:-1]) + 1 >= SWINGS and last > DECAY * before)


def _infeasible(mu: np.ndarray, v: np.ndarray, cap: float | None, tolerance: float) -> bool:
  before, last = _quarters(v)
  side = np.sign(last.mean())
  outwards = side * _quarters(mu)[1]
  held = _at_cap(mu, cap) or outwards[-1] > outwards[0]
  stuck = side * last.mean() > (1 - PROGRESS) * side * before.mean()
  return bool((side * last > tolerance).all() and (outwards > 0).all() and held and stuck)


def _at_cap(mu: np.ndarray, cap: float | None) -> bool:
  return cap is not None and bool((np.abs(_quarters(mu)[1]) >= cap * (1 - 1e-6)).all())


def _settled_message(mu: np.ndarray, v: np.ndarray, tolerance: float, name: str) -> Diagnosis:
  last = _quarters(v)[1]
  how = ('met without a multiplier' if (_quarters(mu)[1] == 0).all()
         else f'held by a multiplier of {mu[-1]:.4g}')
  return Diagnosis('settled', f'{name} is {how}: over the last quarter of {len(v)} steps its '
                   f'violation stayed in [{last.min():.4g}, {last.max():.4g}], tolerance '
                   f'{tolerance:g}')


def _oscillating_message(mu: np.ndarray, v: np.ndarray, name: str) -> Diagnosis:
  last, last_mu = _quarters(v)[1], _quarters(mu)[1]
  return Diagnosis('oscillating', f'{name} oscillates: over the last quarter of {len(v)} steps its '
                   f'violation swings in [{last.min():.4g}, {last.max():.4g}] and its multiplier '
                   f'in [{last_mu.min():.4g}, {last_mu.max():.4g}], no less than before. Take a '
                   'smaller dual step, damp it (pid with kp > 0, and nu > 0 where violations are '
                   'noisy) or update the multiplier less often (every)')


def _infeasible_message(mu: np.ndarray, v: np.ndarray, cap: float | None, name: str) -> Diagnosis:
  last = _quarters(v)[1]
  least, less = np.abs(last).min(), 'less' if v[-1] > 0 else 'more'
  if _at_cap(mu, cap):
    held, otherwise = f'sits at the cap {cap:g}', 'or raise the cap'
  else:
    held = f'has reached {mu[-1]:.4g}'
    otherwise = 'or, if that is small beside the loss, take a larger dual step'
  return Diagnosis('infeasible', f'{name} looks infeasible: its multiplier {held}, yet over the '
                   f'last quarter of {len(v)} steps its violation stayed in [{last.min():.4g}, '
                   f'{last.max():.4g}] and hardly shrank. Ask for at least {least:.4g} {less}, '
                   f'{otherwise}')


def _stuck_message(mu: np.ndarray, v: np.ndarray, met_at: float, name: str) -> Diagnosis:
  last = _quarters(v)[1]
  return Diagnosis('stuck', f'{name} is within reach, the exact dual meets it at a multiplier of '
                   f'{met_at:.4g}, but training did not: its multiplier has reached {mu[-1]:.4g}, '
                   f'yet over the last quarter of {len(v)} steps its violation stayed in '
                   f'[{last.min():.4g}, {last.max():.4g}]. Start from the exact dual, or give the '
                   'scores more room')


def _unfinished_message(mu: np.ndarray, v: np.ndarray, tolerance: float, name: str) -> Diagnosis:
  before, last = (np.abs(q).max() for q in _quarters(v))
  return Diagnosis('unfinished', f'{name} is still converging after {len(v)} steps: its violation '
                   f'is {v[-1]:.4g} (largest {last:.4g} over the last quarter, {before:.4g} over '
                   f'the one before, tolerance {tolerance:g}) at a multiplier of {mu[-1]:.4g}. '
                   'Take more steps or a larger dual step')
