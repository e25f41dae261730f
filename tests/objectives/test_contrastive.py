"""InfoNCE over lists against a plain loop and Optax, and its masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import logsumexp

from jobrec_jax.objectives.contrastive import info_nce


@pytest.fixture
def lists():
  rng = np.random.default_rng(0)
  mask = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 1, 0, 1, 0]], bool)
  log_q = np.log(rng.uniform(0.01, 1, (3, 5)))
  return tuple(map(jnp.asarray, (3 * rng.normal(size=(3, 5)), [0, 2, 3], mask, log_q)))


@pytest.mark.parametrize('corrected', [False, True])
def test_equals_a_plain_loop(lists, corrected):
  scores, positive, mask, log_q = lists
  logits = scores - log_q if corrected else scores
  expected = [logsumexp(l[m]) - l[p] for l, p, m in zip(logits, positive, mask)]
  loss = info_nce(scores, positive, mask, log_q if corrected else None)
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(
      jax.jit(info_nce)(scores, positive, mask, log_q if corrected else None), loss, rtol=1e-6)


def test_equals_optax_without_mask(lists):
  scores, positive, _, _ = lists
  np.testing.assert_allclose(
      info_nce(scores, positive, jnp.ones_like(scores, bool)),
      optax.losses.softmax_cross_entropy_with_integer_labels(scores, positive), rtol=1e-6)


def test_masked_items_have_no_gradient_whatever_they_hold(lists):
  scores, positive, mask, _ = lists
  clean = jax.grad(lambda s: info_nce(s, positive, mask).sum())(scores)
  dirty = jax.grad(lambda s: info_nce(s, positive, mask).sum())(jnp.where(mask, scores, jnp.nan))
  assert np.all(np.asarray(dirty)[~np.asarray(mask)] == 0)
  np.testing.assert_array_equal(clean, dirty)
  np.testing.assert_allclose(clean.sum(axis=1), 0, atol=1e-6)


def test_a_list_of_its_positive_alone_has_loss_and_gradient_zero():
  mask = jnp.array([[False, True, False]])
  loss, gradient = jax.value_and_grad(lambda s: info_nce(s, jnp.array([1]), mask).sum())(
      jnp.array([[1e4, -3.0, jnp.inf]]))
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)


def test_a_wholly_masked_list_is_finite_and_still():
  value, gradient = jax.value_and_grad(
      lambda s: info_nce(s, jnp.array([0]), jnp.zeros((1, 3), bool)).sum())(jnp.ones((1, 3)))
  assert np.isfinite(value)
  np.testing.assert_array_equal(gradient, 0)


def test_logq_makes_sampled_negatives_stand_for_the_catalogue():
  """The sampled sum over exp(s - log q) has the catalogue's sum as its expectation."""
  rng = np.random.default_rng(1)
  s = rng.normal(size=50)
  q = rng.dirichlet(np.ones(50))
  drawn = rng.choice(50, 200_000, p=q)
  items = np.concatenate([[7], drawn])
  # The positive is certain to be in the list; each draw has q of n draws.
  log_q = np.concatenate([[0.0], np.log(q[drawn] * len(drawn))])
  loss = info_nce(jnp.asarray(s[items]), jnp.asarray(0), jnp.ones(len(items), bool),
                  jnp.asarray(log_q))
  expected = np.log(np.exp(s).sum() + np.exp(s[7])) - s[7]
  naive = info_nce(jnp.asarray(s[items]), jnp.asarray(0), jnp.ones(len(items), bool))
  assert abs(loss - expected) < 0.02
  assert abs(naive - np.log(len(items) / 50) - expected) > 0.05
