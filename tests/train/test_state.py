"""One update: what decays, what is clipped, and which key a step gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.train.state import (
    OptimizerConfig,
    create_state,
    make_optimizer,
    make_update,
    stream_key,
)

PARAMS = {'hidden': {'kernel': jnp.full((2, 2), 3.0), 'bias': jnp.full(2, 3.0)},
          'norm': {'scale': jnp.full(2, 3.0)}, 'embedding': jnp.full((3, 2), 3.0),
          'readouts': jnp.full(2, 3.0), 'log_variance': jnp.full(2, 3.0)}


def test_kernels_decay_and_nothing_else():
  tx = make_optimizer(OptimizerConfig(10, learning_rate=0.1, warmup=0, weight_decay=0.5))
  still = jax.tree.map(jnp.zeros_like, PARAMS)
  moved, _ = tx.update(still, tx.init(PARAMS), PARAMS)
  np.testing.assert_allclose(moved['hidden'].pop('kernel'), -0.1 * 0.5 * 3.0, rtol=1e-6)
  assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(moved))


def test_the_rate_warms_up_and_falls_to_zero_along_a_cosine():
  tx = make_optimizer(OptimizerConfig(6, learning_rate=0.1, warmup=2, weight_decay=0.0))
  params, rates = {'bias': jnp.zeros(1)}, []
  state = tx.init(params)
  for _ in range(7):
    moved, state = tx.update({'bias': jnp.ones(1)}, state, params)  # Adam moves by the rate
    rates.append(-float(moved['bias'][0]))
  expected = [0, 0.05, *(0.05 * (1 + np.cos(np.pi * k / 4)) for k in range(5))]
  np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_a_gradient_is_clipped_by_the_norm_of_all_of_it():
  tx = make_optimizer(OptimizerConfig(10, learning_rate=0.1, warmup=0, clip=2.0))
  gradient = {'kernel': jnp.array([3.0, 0.0]), 'bias': jnp.array([4.0])}  # of norm 5
  _, state = tx.update(gradient, tx.init(gradient), gradient)
  (mu,) = [x.mu for x in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, 'mu'))
           if hasattr(x, 'mu')]
  np.testing.assert_allclose(mu['kernel'], 0.1 * np.array([1.2, 0.0]), rtol=1e-5)
  np.testing.assert_allclose(mu['bias'], 0.1 * 1.6, rtol=1e-5)


def test_every_step_has_its_own_dropout_key():
  def loss(trainable, frozen, batch, key):
    return trainable['a'] * frozen['b'], {'drawn': jax.random.uniform(key)}
  tx = make_optimizer(OptimizerConfig(10, learning_rate=0.1, warmup=0))
  state = create_state({'a': jnp.ones(())}, {'b': jnp.ones(())}, tx)
  update, root, drawn = make_update(loss, tx), jax.random.key(3), []
  for _ in range(3):
    state, metrics = update(state, None, root)
    drawn.append(float(metrics['drawn']))
  assert drawn == [float(jax.random.uniform(stream_key(root, 'dropout', step)))
                   for step in range(3)]
  assert len(set(drawn)) == 3 and int(state.step) == 3
  assert metrics['train/loss'] == pytest.approx(float(state.trainable['a']) + 0.1, abs=0.05)
  assert metrics['train/grad_norm'] == 1
