"""Weights between the losses of two experts: where they start and settle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jobrec_jax.objectives.task_weights import METHODS, task_weights


def descend(method, losses, steps=2000, rate=0.05):
  weights = task_weights(method, len(losses))

  def step(_, params):
    gradient = jax.grad(lambda p: weights.combine(p, losses)[0])(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

  return weights.combine(jax.lax.fori_loop(0, steps, step, weights.init()), losses)[1]


def test_uncertainty_settles_at_the_inverse_of_each_loss():
  losses = jnp.array([0.5, 2.0, 4.0])
  np.testing.assert_allclose(descend('uncertainty', losses), 1 / losses, rtol=1e-3)


def test_softmax_collapses_onto_the_smaller_loss():
  assert descend('softmax', jnp.array([0.5, 2.0]))[0] > 0.98


def test_values_at_the_start():
  losses = jnp.array([3.0, 5.0])
  total, w = (lambda t: t.combine(t.init(), losses))(task_weights('uncertainty', 2))
  assert total == 8 and w.tolist() == [1, 1]
  total, w = (lambda t: t.combine(t.init(), losses))(task_weights('softmax', 2))
  assert total == 4 and w.tolist() == [0.5, 0.5]
  fixed = task_weights('fixed', 2, [2.0, 0.5])
  total, w = fixed.combine(fixed.init(), losses)
  assert total == 8.5 and w.tolist() == [2, 0.5]
  assert not jax.tree.leaves(fixed.init())


@pytest.mark.parametrize('method', METHODS)
def test_trains_inside_jit_along_with_the_losses(method):
  weights = task_weights(method, 2, [1.0, 1.0])
  tx = optax.adam(1e-2)

  @jax.jit
  def step(params, opt_state):
    def loss(p):
      return weights.combine(p['tasks'], jnp.array([1.0, 2.0]) * p['model'] ** 2)[0]
    updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  params = {'tasks': weights.init(), 'model': jnp.float32(1.0)}
  opt_state = tx.init(params)
  for _ in range(3):
    params, opt_state = step(params, opt_state)
  assert params['model'] < 1
  assert all(np.isfinite(x).all() and x.dtype == jnp.float32 for x in jax.tree.leaves(params))


def test_refuses_what_it_does_not_know():
  with pytest.raises(ValueError, match=r'uncertainty, softmax, fixed.*gradnorm'):
    task_weights('gradnorm', 2)
  for fixed in (None, [1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float('nan')], [1.0, float('inf')]):
    with pytest.raises(ValueError, match='fixed task weights must be 2 numbers'):
      task_weights('fixed', 2, fixed)
