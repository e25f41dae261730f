"""The policy head: pure preference at the start, a bounded weight of eligibility afterwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models.policy import (
    PolicyHead,
    at_requirement,
    clip_with_inward_gradient,
    input_statistics,
    policy_scores,
)


@pytest.fixture
def states():
  return jax.random.normal(jax.random.key(1), (2, 3, 4, 6))  # [2, B, J, D]


def test_starts_at_pure_preference_and_can_leave_it(states):
  head = PolicyHead()
  variables = head.init(jax.random.key(0), *states)
  s_pref, z_qual = states[0, ..., 0], states[1, ..., 0]

  def scores(variables):
    return policy_scores(s_pref, head.apply(variables, *states)[..., 0], z_qual)

  np.testing.assert_array_equal(scores(variables), s_pref)
  grads = jax.grad(lambda v: (scores(v) ** 2).sum())(variables)
  assert np.abs(grads['params']['lambda']['kernel']).max() > 0


@pytest.mark.parametrize('kind', ['conditioned', 'separate', 'scalar', 'off'])
def test_every_kind_starts_at_pure_preference(states, kind):
  head = PolicyHead(widths=(7,), outputs=3, kind=kind)
  lam = head.apply(head.init(jax.random.key(0), *states), *states)
  assert lam.dtype == jnp.float32
  np.testing.assert_array_equal(lam, np.zeros((3, 4, 3)))


def test_separate_requirements_share_nothing(states):
  """lambda of a knot has a gradient in its own parameters alone, which are drawn on their own."""
  head = PolicyHead(widths=(7, 5), outputs=3, kind='separate')
  params = head.init(jax.random.key(0), *states)['params']
  each = params.pop('each')
  assert each['hidden_0']['kernel'].shape == (3, 12, 7) and set(params) == {'mean', 'scale'}
  assert np.unique(each['hidden_0']['kernel'].reshape(3, -1), axis=0).shape[0] == 3
  each['lambda']['kernel'] += 0.1 * jax.random.normal(jax.random.key(2), (3, 5, 1))

  def lam(each):
    return head.apply({'params': {**params, 'each': each}}, *states)
  for k in range(3):
    for g in jax.tree.leaves(jax.grad(lambda each, k=k: (lam(each)[..., k] ** 2).sum())(each)):
      assert [bool(np.any(x)) for x in g] == [j == k for j in range(3)]
  for k in range(3):  # and each is an MLP of its own
    one = jax.tree.map(lambda x: x[k], each)  # noqa: B023
    alone = PolicyHead(widths=(7, 5)).apply({'params': {**params, **one}}, *states)
    np.testing.assert_allclose(lam(each)[..., k], alone[..., 0], atol=1e-5)


def test_a_conditioned_head_shares_its_hidden_layer(states):
  head = PolicyHead(widths=(7,), outputs=2)
  params = head.init(jax.random.key(0), *states)['params']
  params['lambda']['kernel'] = 0.1 * jax.random.normal(jax.random.key(2), (7, 2))
  for k in range(2):
    grads = jax.grad(lambda p, k=k: (head.apply({'params': p}, *states)[..., k] ** 2).sum())(params)
    assert np.any(grads['hidden_0']['kernel'])


def test_a_scalar_head_says_the_same_of_every_pair(states):
  """One number for each knot, clipped as others are: from beyond the bound only inwards."""
  head = PolicyHead(bound=2.0, widths=(10,), outputs=3, kind='scalar')
  params = head.init(jax.random.key(0), *states)['params']
  assert params['number'].shape == (3,)
  params['number'] = jnp.array([-0.3, 0.05, 0.3])

  def lam(number):
    return head.apply({'params': {**params, 'number': number}}, *states)
  np.testing.assert_allclose(lam(params['number']),
                             np.broadcast_to([-2, 0.5, 2], (3, 4, 3)), rtol=1e-6)
  for sign, expected in ((1, [0, 120, 120]), (-1, [-120, -120, 0])):
    gradient = jax.grad(lambda number: sign * lam(number).sum())(params['number'])  # noqa: B023
    np.testing.assert_allclose(gradient, expected)  # 12 pairs times the width


def test_a_head_that_is_off_learns_nothing(states):
  head = PolicyHead(widths=(10,), outputs=3, kind='off')
  params = head.init(jax.random.key(0), *states)['params']
  assert set(params) == {'mean', 'scale'}
  grads = jax.grad(lambda p: head.apply({'params': p}, *states).sum())(params)
  assert not any(np.any(g) for g in jax.tree.leaves(grads))


@pytest.mark.parametrize('bound', [5.0, 0.5])
def test_lambda_is_clipped(states, bound):
  head = PolicyHead(bound=bound)
  variables = head.init(jax.random.key(0), *states)
  kernel = variables['params']['lambda']['kernel']
  noise = 100 * jax.random.normal(jax.random.key(2), kernel.shape)
  params = {**variables['params'], 'lambda': {**variables['params']['lambda'], 'kernel': noise}}
  lam = head.apply({'params': params}, *states)
  assert lam.shape == (*states.shape[1:-1], 1)
  assert lam.dtype == jnp.float32
  assert (float(lam.min()), float(lam.max())) == (-bound, bound)


def test_lambda_within_the_bound_is_the_mlp(states):
  head = PolicyHead(widths=(7,))
  params = head.init(jax.random.key(0), *states)['params']
  kernel = 0.1 * jax.random.normal(jax.random.key(2), params['lambda']['kernel'].shape)
  params |= {'lambda': {'kernel': kernel, 'bias': jnp.array([0.2])},
             'mean': jnp.arange(12.0), 'scale': 1 + jnp.arange(12.0)}
  hidden, last = params['hidden_0'], params['lambda']
  x = (np.concatenate(states, axis=-1) - np.arange(12)) / (1 + np.arange(12))
  x = x @ hidden['kernel'] + hidden['bias']
  expected = np.maximum(x, 0) @ last['kernel'] + last['bias']
  assert np.abs(expected).max() < 5
  np.testing.assert_allclose(head.apply({'params': params}, *states), expected, atol=1e-5)


def test_statistics_are_those_of_real_pairs(states):
  h_pref, h_qual = 5 + 3 * states[0], states[1].at[..., 0].set(2.0)
  mask = jnp.arange(4) < jnp.array([4, 2, 1])[:, None]
  said = input_statistics(h_pref, h_qual, mask)
  real = np.concatenate([h_pref, h_qual], axis=-1)[np.asarray(mask)]  # [7, 12]
  np.testing.assert_allclose(said['mean'], real.mean(0), rtol=1e-5)
  std = real.std(0)
  assert std[6] == 0 and (np.delete(std, 6) > 0.1).all()
  std[6] = 0.01 * np.sqrt((std ** 2).mean())
  np.testing.assert_allclose(said['scale'], std, rtol=1e-4)


def test_what_left_the_bound_may_come_back():
  x, d = jnp.array([-3.0, -3.0, -1.0, 1.0, 3.0, 3.0]), jnp.array([1.0, -1, 1, -1, 1, -1])
  def clip(x):
    return clip_with_inward_gradient(x, 2.0)
  clipped, gradient = jax.jit(lambda x: jax.vjp(clip, x)[0])(x), jax.vjp(clip, x)[1](d)[0]
  np.testing.assert_array_equal(clipped, [-2, -2, -1, 1, 2, 2])
  # Descent subtracts: -3 rises where d < 0, 3 falls where d > 0.
  np.testing.assert_array_equal(gradient, [0, -1, 1, -1, 1, 0])


def test_policy_scores():
  s = policy_scores(jnp.array([1.0, 1.0]), jnp.array([2.0, -2.0]), jnp.array([3.0, 3.0]))
  np.testing.assert_array_equal(s, [7.0, -5.0])


def test_lambda_is_linear_between_requirements():
  lam = jnp.array([[0.0, 1.0, 4.0], [2.0, 2.0, -2.0]])
  knots = jnp.array([0.2, 0.4, 0.6])
  for tau, expected in ((0.2, [0, 2]), (0.3, [0.5, 2]), (0.4, [1, 2]), (0.55, [3.25, -1]),
                        (0.0, [0, 2]), (0.9, [4, -2])):
    np.testing.assert_allclose(at_requirement(lam, knots, tau), expected, atol=1e-5)
  jitted = jax.jit(jax.vmap(at_requirement, (None, None, 0)))(lam, knots, jnp.array([0.3, 0.55]))
  np.testing.assert_allclose(jitted, [[0.5, 2], [3.25, -1]], atol=1e-5)
