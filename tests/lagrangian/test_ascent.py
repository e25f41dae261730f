import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.lagrangian.ascent import DualState, dual_ascent

A, SLOPE = 1.0, 2.0


def solve(learning_rate, tau, constraint, steps=3000, cap=None):
  """min_x (x - A)^2 / 2 subject to C(x) = SLOPE * x against tau, by simultaneous descent-ascent.

  The stationary point is x = A + mu * SLOPE, so mu = (tau - SLOPE * A) / SLOPE^2.
  """
  init, update = dual_ascent(learning_rate, constraint=constraint, cap=cap)

  def step(carry, _):
    x, state = carry
    gradient = x - A - state.multiplier * SLOPE
    return (x - 0.1 * gradient, update(state, violation=tau - SLOPE * x)), None

  (x, state), _ = jax.lax.scan(step, (jnp.float32(0), init()), None, length=steps)
  return x, state


@pytest.mark.parametrize('constraint, tau, multiplier, x', [
    ('inequality', 4.0, 0.5, 2.0),     # Missed without the constraint: it binds.
    ('inequality', 1.0, 0.0, 1.0),     # Met without it: free.
    ('equality', 4.0, 0.5, 2.0),
    ('equality', 1.0, -0.25, 0.5),     # Exceeded without it: a negative multiplier pulls C down.
])
def test_reaches_the_known_multiplier(constraint, tau, multiplier, x):
  found, state = solve(0.05, tau, constraint)
  assert abs(state.multiplier - multiplier) < 1e-3
  assert abs(found - x) < 1e-3
  assert state.step == 3000 and state.step.dtype == jnp.int32


def test_vmap_over_the_learning_rate():
  rates = jnp.array([0.01, 0.03, 0.1])
  _, state = jax.vmap(lambda eta: solve(eta, 4.0, 'inequality'))(rates)
  np.testing.assert_allclose(state.multiplier, 0.5, atol=1e-3)
  first = jax.vmap(lambda eta: solve(eta, 4.0, 'inequality', steps=1)[1].multiplier)(rates)
  np.testing.assert_allclose(first, 4 * rates, rtol=1e-6)


def run(update, state, violations):
  for v in violations:
    state = update(state, violation=v)
  return state


@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
def test_scan_equals_loop_and_survives_numpy_bit_for_bit(constraint):
  init, update = dual_ascent(0.3, constraint=constraint)
  violations = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
  loop = run(jax.jit(update), init((3,)), violations)
  scanned, _ = jax.lax.scan(lambda s, v: (update(s, violation=v), None), init((3,)), violations)
  np.testing.assert_array_equal(loop.multiplier, scanned.multiplier)
  assert loop.step == scanned.step == 20

  half = run(jax.jit(update), init((3,)), violations[:10])
  restored = DualState(*(jnp.asarray(np.asarray(leaf)) for leaf in half))
  resumed = run(jax.jit(update), restored, violations[10:])
  np.testing.assert_array_equal(np.asarray(resumed.multiplier).view(np.uint32),
                                np.asarray(loop.multiplier).view(np.uint32))
  assert resumed.step == 20


def test_sign_projection_and_cap():
  init, update = dual_ascent(0.5, constraint='inequality', cap=1.2)
  state = update(init((2,)), violation=jnp.array([1.0, -1.0]))
  assert state.multiplier.tolist() == [0.5, 0.0]
  state = run(update, state, [jnp.array([1.0, 1.0])] * 3)
  np.testing.assert_allclose(state.multiplier, [1.2, 1.2])
  init, update = dual_ascent(0.5, constraint='equality', cap=1.2)
  state = run(update, init(), [jnp.float32(-1)] * 5)
  np.testing.assert_allclose(state.multiplier, -1.2)
  assert state.multiplier.dtype == jnp.float32


def test_refuses():
  with pytest.raises(ValueError, match='constraint must be inequality or equality'):
    dual_ascent(0.1, constraint='at_least')
  for eta in (0, -0.1, float('nan'), float('inf')):
    with pytest.raises(ValueError, match='learning_rate must be above 0'):
      dual_ascent(eta, constraint='equality')
  with pytest.raises(ValueError, match='cap must be above 0'):
    dual_ascent(0.1, constraint='equality', cap=0)
