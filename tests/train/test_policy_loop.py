"""Stage 2 as a plain loop: temperature, masks with holes, order and multipliers, step by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

from jobrec_jax.lagrangian.exact import solve_dual
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring.policy import PolicyInputs
from jobrec_jax.train.policy import PolicyConfig, make_policy_trainer, policy_trial
from jobrec_jax.train.state import stream_key

HEAD = PolicyHead(widths=(5,), outputs=2)
T = 0.6
CONFIG = PolicyConfig('info_nce', epochs=3, batch=3, learning_rate=0.05, dual_learning_rate=0.4,
                      temperature=T, clip=0.3)
TAUS = np.array([0.5, 0.8], np.float32)


@pytest.fixture(scope='module')
def inputs():
  """Seven lists, so that one is left out of each epoch; positives in the middle, holes before."""
  rng = np.random.default_rng(0)
  mask = np.ones((7, 5), bool)
  mask[0, 1] = mask[1, 0] = mask[2, 3:] = False
  hidden, preference, z = (rng.normal(size=size).astype(np.float32)
                           for size in ((7, 5, 2, 4), (7, 5), (7, 5)))
  preference[~mask], z[~mask] = 7.0, 7.0
  return PolicyInputs(*map(jnp.asarray, (hidden, 2 * preference, 2 * z)),
                      jnp.full(7, 2, jnp.int32), jnp.asarray(mask))


def trained(inputs, config, seed=4):
  run = make_policy_trainer(HEAD, config)
  return jax.jit(run)(inputs, policy_trial(config, TAUS, seed))


@pytest.mark.parametrize('objective', ['info_nce', 'expected_score'])
def test_the_first_step_measures_the_experts_policy_at_the_temperature(inputs, objective):
  """lambda sets out from 0, so that loss and C are those of the preference scores, by NumPy."""
  config = dataclasses.replace(CONFIG, objective=objective, epochs=1, batch=7)
  a, z, mask = (np.asarray(x, np.float64) for x in (inputs.preference, inputs.z_qual, inputs.mask))
  logits = np.where(mask, a / T, -np.inf)
  log_pi = logits - logsumexp(logits, axis=1, keepdims=True)
  pi = np.exp(log_pi)
  if objective == 'info_nce':
    loss = -log_pi[:, 2].mean()
  else:
    loss = -(pi * (a - T * np.where(mask, log_pi, 0))).sum(1).mean()
  history = trained(inputs, config).history
  np.testing.assert_allclose(history['loss'][0], [loss] * 2, rtol=1e-5)
  np.testing.assert_allclose(history['eligibility'][0],
                             [(pi / (1 + np.exp(-z))).sum(1).mean()] * 2, rtol=1e-5)


def plainly(inputs, config, seed):
  """The same training without scan, vmap or the library's losses; sums over real items alone."""
  key = stream_key(jax.random.key(seed), 'policy')
  x = jnp.concatenate([inputs.hidden[..., 0, :], inputs.hidden[..., 1, :]], -1)
  real = np.asarray(x)[np.asarray(inputs.mask)]
  params = HEAD.init(stream_key(key, 'init'), *jnp.split(x, 2, -1))['params']
  fixed = {'mean': real.mean(0), 'scale': real.std(0)}
  params = {k: v for k, v in params.items() if k not in fixed}
  per_epoch = 7 // config.batch
  schedule = optax.cosine_decay_schedule(config.learning_rate, config.epochs * per_epoch)
  tx = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule))
  state, mu, shown = tx.init(params), np.zeros(2), []

  def loss_fn(params, rows, mu):
    lam = HEAD.apply({'params': params | fixed}, *jnp.split(x, 2, -1))
    total, C = 0.0, [0.0, 0.0]
    for k in range(2):
      losses = []
      for n in rows:
        items = np.flatnonzero(inputs.mask[n])
        scores = inputs.preference[n, items] + lam[n, items, k] * inputs.z_qual[n, items]
        pi = jax.nn.softmax(scores / T)
        C[k] += (pi * jax.nn.sigmoid(inputs.z_qual[n, items])).sum() / len(rows)
        losses.append(-jnp.log(pi[list(items).index(2)]))
      part = sum(losses) / len(rows) + mu[k] * (TAUS[k] - C[k])
      total += part / (1 + abs(mu[k])) / 2
    return total, jnp.stack(C)

  for epoch in range(config.epochs):
    order = np.asarray(jax.random.permutation(stream_key(key, 'order', epoch), 7))
    shown.append(order[:per_epoch * config.batch].tolist())
    for step in range(per_epoch):
      rows = order[step * config.batch:(step + 1) * config.batch]
      (_, C), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, rows, mu)
      updates, state = tx.update(grads, state, params)
      params = optax.apply_updates(params, updates)
      # eta times the violation, relative to the multiplier, and never below zero
      mu = np.maximum(mu + config.dual_learning_rate * (TAUS - np.asarray(C)) * (1 + mu), 0)
  return params, mu, shown


def test_training_is_a_plain_loop_over_shuffled_lists(inputs):
  params, mu, shown = plainly(inputs, CONFIG, 4)
  assert len({tuple(rows) for rows in shown}) == 3
  result = trained(inputs, CONFIG)
  np.testing.assert_allclose(result.duals.multiplier, mu, rtol=1e-3, atol=1e-5)
  assert (mu > 0.01).any()
  for name, part in params.items():
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
                 part, result.params[name])


def test_the_expected_score_is_maximised_at_the_temperature():
  """Close to the exact dual at T = 0.6 on lists with holes, whose C is reached at that T."""
  rng = np.random.default_rng(1)
  mask = rng.random((48, 8)) < 0.8
  mask[:, 2] = True
  hidden = rng.normal(size=(48, 8, 2, 4)).astype(np.float32)
  a, z = (np.where(mask, 2 * hidden[..., i, 0], 7).astype(np.float32) for i in (0, 1))
  inputs = PolicyInputs(*map(jnp.asarray, (hidden, a, z)), jnp.full(48, 2, jnp.int32),
                        jnp.asarray(mask))
  config = PolicyConfig(epochs=150, batch=16, learning_rate=1e-2, dual_learning_rate=0.2,
                        temperature=T)
  head = PolicyHead(widths=(16,))
  result = jax.jit(make_policy_trainer(head, config))(inputs, policy_trial(config, [0.7], 0))
  lam = np.asarray(head.apply({'params': result.params}, hidden[..., 0, :], hidden[..., 1, :]))
  logits = np.where(mask, (a + lam[..., 0] * z) / T, -np.inf).astype(np.float64)
  log_pi = logits - logsumexp(logits, axis=1, keepdims=True)
  pi, q = np.exp(log_pi), 1 / (1 + np.exp(-z.astype(np.float64)))
  C, J = (pi * q).sum(1).mean(), (pi * (a - T * np.where(mask, log_pi, 0))).sum(1).mean()
  assert abs(C - 0.7) < 0.02
  best = solve_dual(a, q, mask, np.array([C, 0.5, 0.8]), objective='expected_score',
                    temperature=T).primal[:, 0]
  assert -1e-6 < best[0] - J < 0.03 * (best[1] - best[2])
