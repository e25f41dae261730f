"""The policy keeps every requirement that the exact dual reaches, whatever the scores."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logit, softmax

from jobrec_jax.lagrangian.exact import solve_dual
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring.policy import Policy, PolicyInputs, worth_inputs
from jobrec_jax.train.policy import (
    PolicyConfig,
    make_policy_trainer,
    policy_loss,
    policy_trial,
)
from jobrec_jax.train.tilts import align, attainable, exact_start

N = 24
FAMILIES = {  # rng -> s_pref and p_qual [N, J]
    'spread over 20 nats': lambda rng: (rng.uniform(-10, 10, (N, 20)), np.where(
        rng.random((N, 20)) < 0.6, rng.uniform(0.001, 0.05, (N, 20)), rng.uniform(size=(N, 20)))),
    'bimodal': lambda rng: (rng.normal(0, 2, (N, 20)), rng.choice([0.02, 0.98], (N, 20))),
    'a range of 0.05': lambda rng: (rng.normal(0, 3, (N, 20)), rng.uniform(0.4, 0.45, (N, 20))),
    'saturated': lambda rng: (rng.normal(0, 2, (N, 20)), 1 - 10 ** -rng.uniform(0, 6, (N, 20))),
    '5 jobs': lambda rng: (rng.normal(0, 3, (N, 5)), rng.uniform(size=(N, 5))),
    '500 jobs': lambda rng: (rng.normal(0, 3, (N, 500)), rng.beta(1, 4, (N, 500))),
    'ties': lambda rng: (rng.choice([0.0, 1, 2], (N, 20)), rng.choice([0.1, 0.5, 0.9], (N, 20)))}
HEAD = PolicyHead(widths=(8,), outputs=6)
OFF = dataclasses.replace(HEAD, kind='off')


@functools.cache
def trainer(head, config):
  return jax.jit(make_policy_trainer(head, config))


def trained(config, inputs, knots, head=HEAD):
  """From the exact start."""
  return trainer(head, config)(inputs, policy_trial(config, knots, 0,
                                                    *exact_start(config, inputs, knots)))


def made(family) -> PolicyInputs:
  """Lists of a family, of 3 to all of their jobs, and states that say what labels are drawn by."""
  rng = np.random.default_rng(1)
  pref, q = FAMILIES[family](rng)
  hidden = rng.normal(size=(*pref.shape, 2, 3)).astype(np.float32)
  mask = np.arange(pref.shape[1]) < rng.integers(3, pref.shape[1] + 1, (N, 1))
  wanted = np.where(mask, pref + 2 * hidden[..., 0, 0] * logit(q), -np.inf)
  positive = (wanted + rng.gumbel(size=wanted.shape)).argmax(1)
  return PolicyInputs(*(jnp.asarray(x, jnp.float32) for x in (hidden, pref, logit(q))),
                      jnp.asarray(positive, jnp.int32), jnp.asarray(mask))


def reached(policy, inputs, tau) -> float:
  """C of the scores that recommending uses, in float64."""
  lam = np.asarray(policy.head.apply({'params': policy.params}, inputs.hidden[..., 0, :],
                                     inputs.hidden[..., 1, :]))
  scores, _ = policy.at(lam, inputs.preference, inputs.z_qual, tau)
  z, mask = np.asarray(inputs.z_qual, np.float64), np.asarray(inputs.mask)
  pi = softmax(np.where(mask, scores.astype(float) / policy.temperature, -np.inf), axis=1)
  return float((pi / (1 + np.exp(-z))).sum(1).mean())


def grid(low, high) -> np.ndarray:
  """Requirements from end to end, the ends themselves left out, off the knots too."""
  return low + (high - low) * np.r_[0.003, np.linspace(0.02, 0.98, 23), 0.997]


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
@pytest.mark.parametrize('objective', ['expected_score', 'info_nce'])
def test_every_requirement_that_the_exact_dual_reaches_is_kept(family, constraint, objective):
  inputs, T = made(family), 0.7
  config = PolicyConfig(objective, constraint, temperature=T, epochs=3, batch=12,
                        learning_rate=0.01)
  low, high = attainable(inputs, config)
  taus = grid(low, high)
  exact = solve_dual(inputs.preference, jax.nn.sigmoid(inputs.z_qual), inputs.mask, taus,
                     objective=objective, constraint=constraint, temperature=T)
  assert exact.feasible.all()
  knots = np.linspace(taus[0], taus[-1], HEAD.outputs, dtype=np.float32)
  params, head = {'mean': np.zeros(6), 'scale': np.ones(6)}, OFF
  if objective == 'info_nce':  # the other has nothing to learn
    params, head = trained(config, inputs, knots).params, HEAD
  found = align(head, params, config, inputs, knots)
  assert np.isfinite(found.tilts.mu).all()
  policy = Policy(head, found.params, knots, T, constraint, found.tilts)
  for tau in np.clip(taus, *knots[[0, -1]].astype(float)):
    assert abs(reached(policy, inputs, tau) - tau) <= 0.01


@pytest.mark.parametrize(('family', 'objective'), [
    *((f, 'expected_score') for f in FAMILIES),
    *((f, 'expected_surplus') for f in ('spread over 20 nats', '5 jobs', '500 jobs'))])
@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
def test_a_requirement_on_the_best_three_is_kept_to_the_step_of_one_list(family, constraint,
                                                                         objective):
  config = PolicyConfig(objective, constraint, top_k=3)
  inputs = worth_inputs(config.worth, made(family))
  q, mask = np.asarray(jax.nn.sigmoid(inputs.z_qual), np.float64), np.asarray(inputs.mask)
  knots = np.linspace(*attainable(inputs, config), 8)[1:-1].astype(np.float32)
  found = align(OFF, {'mean': np.zeros(6), 'scale': np.ones(6)}, config, inputs, knots)
  policy = Policy(OFF, found.params, knots, 1.0, constraint, found.tilts, 3, config.worth)
  lam, original = np.zeros((*mask.shape, 6), np.float32), made(family)
  scores, _ = policy.at(lam, original.preference, original.z_qual, knots)
  step = np.ptp(q[mask]) / N
  for s, tau in zip(scores, knots.astype(float)):
    C = policy.eligibility(s, q, mask).mean()
    best = [row[m][np.argsort(-x[m], kind='stable')[:3]].mean() for row, m, x in zip(q, mask, s)]
    assert np.mean(best) == pytest.approx(C, abs=step)
    # Few values of q, or few scores: many lists change over at one mu.
    assert abs(C - tau) <= (0.2 if family in ('ties', 'bimodal') else step)


def test_a_policy_of_surplus_ranks_by_what_a_job_is_worth():
  config, inputs = PolicyConfig('expected_surplus'), made('5 jobs')
  params = {'mean': np.zeros(6), 'scale': np.ones(6)}
  policy = Policy(OFF, params, np.linspace(0.1, 0.6, 6), 1.0, worth=config.worth)
  scores, _ = policy.at(np.zeros((N, 5, 6)), inputs.preference, inputs.z_qual, 0.0)
  p = np.asarray(jax.nn.sigmoid(inputs.preference), np.float64)
  q = np.asarray(jax.nn.sigmoid(inputs.z_qual), np.float64)
  np.testing.assert_allclose(scores, -q * np.log1p(-p), rtol=2e-4, atol=1e-6)
  np.testing.assert_allclose(policy.scores_at(inputs, 0.0), scores, atol=1e-6)
  assert not np.allclose(scores, inputs.preference)


@pytest.mark.parametrize('constraint', ['inequality', 'equality'])
def test_the_start_is_the_exact_dual_and_training_sets_out_from_it(constraint):
  """At the start the gradient of the expected score's Lagrangian is nothing but rounding."""
  inputs = made('spread over 20 nats')
  config = PolicyConfig('expected_score', constraint, batch=N, epochs=1)
  low, high = attainable(inputs, config)
  knots = np.linspace(low, high, 8)[1:-1].astype(np.float32)
  start = exact_start(config, inputs, knots)
  np.testing.assert_array_equal(start.tilts, start.multipliers)
  result = make_policy_trainer(HEAD, config)(inputs, policy_trial(config, knots, 0, *start))
  np.testing.assert_allclose(result.history['multiplier'][0], start.multipliers, rtol=1e-6)
  np.testing.assert_allclose(result.history['eligibility'][0], knots, atol=1e-5)
  exact = solve_dual(inputs.preference, jax.nn.sigmoid(inputs.z_qual), inputs.mask, knots,
                     objective='expected_score', constraint=constraint)
  np.testing.assert_allclose(-result.history['loss'][0], exact.primal[:, 0], rtol=1e-5)


def test_no_head_betters_the_exact_dual_of_the_expected_score():
  """Adam walks away on rounding; the start is what is kept, at every knot."""
  inputs = made('bimodal')
  config = PolicyConfig('expected_score', batch=8, epochs=5, learning_rate=0.01)
  knots = np.linspace(*attainable(inputs, config), 8)[1:-1].astype(np.float32)
  start = exact_start(config, inputs, knots)
  found = align(HEAD, trained(config, inputs, knots).params, config, inputs, knots)
  assert not found.kept.any() and not np.any(found.params['lambda']['kernel'])
  np.testing.assert_allclose(found.tilts.at(knots), start.tilts, rtol=1e-9)


@pytest.mark.parametrize('kind', ['conditioned', 'separate', 'scalar'])
def test_labels_teach_what_betters_the_start_and_the_better_is_kept_knot_by_knot(kind):
  inputs = made('5 jobs')
  head = dataclasses.replace(HEAD, kind=kind)
  config = PolicyConfig('info_nce', batch=12, epochs=40, learning_rate=0.01)
  low, high = attainable(inputs, config)
  knots = np.linspace(low, high, 8)[1:-1].astype(np.float32)
  start = exact_start(config, inputs, knots)
  params = dict(trained(config, inputs, knots, head).params)
  if kind == 'conditioned':  # one knot whose head is worse than none
    params['lambda'] = jax.tree.map(lambda x: x.at[..., 3].set(20.0), params['lambda'])
  found = align(head, params, config, inputs, knots)
  policy = Policy(head, found.params, knots, 1.0, tilts=found.tilts)
  losses = np.array([[float(policy_loss(config, s, inputs)) for s in (
      policy.scores_at(inputs, float(tau)),
      inputs.preference + mu * jax.nn.sigmoid(inputs.z_qual))]
      for tau, mu in zip(knots, start.tilts)])
  assert (losses[found.kept, 0] < losses[found.kept, 1]).all() and found.kept.any()
  np.testing.assert_allclose(losses[~found.kept, 0], losses[~found.kept, 1], rtol=1e-5)
  assert kind != 'conditioned' or not found.kept[3]
  lam = np.asarray(head.apply({'params': found.params}, inputs.hidden[..., 0, :],
                              inputs.hidden[..., 1, :]))
  np.testing.assert_array_equal(lam.any((0, 1)), found.kept)


def test_a_population_of_one_value_has_nothing_to_ask_for():
  inputs = dataclasses.replace(made('ties'), z_qual=jnp.zeros((N, 20)))
  assert attainable(inputs, PolicyConfig(constraint='equality')) == (0.5, 0.5)
  start = exact_start(PolicyConfig(), inputs, np.array([0.5]))
  assert start.tilts.tolist() == start.multipliers.tolist() == [0]
