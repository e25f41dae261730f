"""What the history of a multiplier tells about its constraint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.lagrangian.ascent import dual_ascent, pid
from jobrec_jax.lagrangian.diagnosis import diagnose

STEPS = np.arange(400)
TOLERANCE = 0.02


def train(rule, *, tau, constraint='inequality', steps=400, curvature=1.0, **options):
  """min_x curvature/2 x^2 subject to tanh(x) against tau: mu and v as recorded, [steps] each."""
  init, update = dual_ascent(rule, constraint=constraint, **options)

  def step(carry, _):
    x, state = carry
    violation = tau - jnp.tanh(x)
    force = state.multiplier * (1 - jnp.tanh(x)**2)
    carry = x - 0.1 * (curvature * x - force), update(state, violation=violation)
    return carry, (state.multiplier, violation)

  _, course = jax.lax.scan(step, (jnp.float32(0), init()), None, length=steps)
  return tuple(map(np.asarray, course))


@pytest.mark.parametrize('constraint, tau', [
    ('inequality', 0.5), ('inequality', -0.5), ('equality', 0.5), ('equality', -0.5)])
def test_settled_runs(constraint, tau):
  mu, v = train(0.05, tau=tau, constraint=constraint, steps=1000)
  found = diagnose(mu, v, tolerance=TOLERANCE, name='eligibility')
  assert found.verdict == 'settled', found.message
  free = constraint == 'inequality' and tau < 0
  assert ('met without a multiplier' in found.message) == free
  assert 'eligibility' in found.message


@pytest.mark.parametrize('options, held', [
    ({'cap': 3.0}, 'sits at the cap 3'), ({}, 'has reached')])
@pytest.mark.parametrize('constraint, tau', [('inequality', 1.5), ('equality', -1.5)])
def test_a_really_infeasible_target(constraint, tau, options, held):
  """tanh never reaches 1.5."""
  mu, v = train(0.1, tau=tau, constraint=constraint, **options)
  found = diagnose(mu, v, tolerance=TOLERANCE, name='parity', **options)
  assert found.verdict == 'infeasible', found.message
  least, word = np.abs(v[-100:]).min(), 'less' if tau > 0 else 'more'
  assert 'parity' in found.message and held in found.message
  assert f'Ask for at least {least:.4g} {word}' in found.message
  # The advice followed, with a little room: what was out of reach settles.
  mu, v = train(0.1, tau=tau - 1.1 * least * np.sign(tau), constraint=constraint, steps=4000,
                **options)
  found = diagnose(mu, v, tolerance=TOLERANCE, **options)
  assert found.verdict == 'settled', found.message


def test_what_the_exact_dual_meets_is_never_infeasible():
  mu, v = train(0.1, tau=1.5)
  assert diagnose(mu, v, tolerance=TOLERANCE).verdict == 'infeasible'
  found = diagnose(mu, v, tolerance=TOLERANCE, name='parity', met_at=42.6)
  assert found.verdict == 'stuck' and 'infeasible' not in found.message
  assert 'parity is within reach' in found.message and 'a multiplier of 42.6' in found.message


def test_a_real_oscillation_and_each_piece_of_advice():
  """With no curvature of its own the loss does not damp the pair of x and mu at all."""
  problem = {'tau': 0.5, 'constraint': 'equality', 'curvature': 0.0, 'steps': 800}
  mu, v = train(0.1, **problem)
  found = diagnose(mu, v, tolerance=TOLERANCE, name='exposure')
  assert found.verdict == 'oscillating', found.message
  assert all(word in found.message for word in ('exposure', 'smaller', 'kp > 0', 'every'))
  for rule in (pid(0.1, 1.0), pid(0.1, 1.0, nu=0.5)):
    found = diagnose(*train(rule, **problem), tolerance=TOLERANCE)
    assert found.verdict == 'settled', found.message

  damped = problem | {'curvature': 0.05}
  assert diagnose(*train(0.5, **damped), tolerance=TOLERANCE).verdict == 'oscillating'
  for rule, options in ((0.005, {}), (0.05, {'every': 10})):
    found = diagnose(*train(rule, **damped | {'steps': 4000}, **options), tolerance=TOLERANCE)
    assert found.verdict == 'settled', found.message


def test_a_run_cut_short():
  mu, v = train(0.002, tau=0.5)
  found = diagnose(mu, v, tolerance=TOLERANCE, name='eligibility')
  assert found.verdict == 'unfinished', found.message
  assert 'more steps' in found.message and f'violation is {v[-1]:.4g}' in found.message
  for rule, steps in ((0.002, 4000), (0.02, 400)):
    found = diagnose(*train(rule, tau=0.5, steps=steps), tolerance=TOLERANCE)
    assert found.verdict == 'settled', found.message


WAVE = np.sin(STEPS / 10)


@pytest.mark.parametrize('verdict, mu, v, cap', [
    ('settled', np.full(400, 0.7), 0.9 * TOLERANCE * WAVE, None),
    ('settled', np.full(400, 0.7), np.where(STEPS < 300, 0.4, 0.01), None),
    ('settled', np.zeros(400), np.full(400, -0.3), None),
    ('unfinished', np.full(400, 0.7), np.full(400, -0.3), None),      # mu has yet to fall.
    ('unfinished', 5 - STEPS / 100, np.full(400, -0.3), None),
    ('infeasible', STEPS / 100, np.full(400, 0.3), None),
    ('infeasible', np.minimum(STEPS / 100, 2), np.full(400, 0.3), 2.),
    ('infeasible', -np.minimum(STEPS / 100, 2), np.full(400, -0.3), 2.),
    ('unfinished', np.minimum(STEPS / 100, 2), np.full(400, 0.3), None),  # mu stopped, uncapped.
    ('unfinished', np.minimum(STEPS / 100, 2), np.exp(-STEPS / 150), 2.),
    ('unfinished', STEPS / 100, np.exp(-STEPS / 200), None),
    ('unfinished', STEPS / 100, np.where(STEPS == 350, 0.01, 0.3), None),  # It can be met.
    ('unfinished', STEPS / 100, np.where(STEPS == 350, 0.3, 0.01 * WAVE), None),
    ('oscillating', 1 + WAVE, 0.3 * WAVE, None),
    ('oscillating', 1 + WAVE, 0.001 * np.exp(STEPS / 60) * WAVE, None),
    ('oscillating', np.maximum(WAVE, 0), 0.3 * WAVE - 0.1, None),
    ('unfinished', 1 + WAVE, np.exp(-STEPS / 150) * WAVE, None),      # It decays.
    ('unfinished', 1 + WAVE, 0.5 * np.sin(STEPS / 70), None),         # One swing is no oscillation.
])
def test_synthetic_histories(verdict, mu, v, cap):
  found = diagnose(mu, v, cap=cap, tolerance=TOLERANCE)
  assert found.verdict == verdict, found.message


def test_refuses():
  good = np.ones(10)
  for mu, v, tolerance, match in (
      (good, good[:9], 0.1, r'must be \[T\] alike'), (good[:7], good[:7], 0.1, 'T >= 8'),
      (good, good * np.nan, 0.1, 'multiplier and violation of parity must be finite, got 10'),
      (good, good, 0.0, 'tolerance must be above 0, got 0')):
    with pytest.raises(ValueError, match=match):
      diagnose(mu, v, tolerance=tolerance, name='parity')
