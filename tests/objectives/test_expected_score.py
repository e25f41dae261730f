"""The expected score and its gradient against NumPy, at temperatures other than 1."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from jobrec_jax.objectives.expected_score import expected_score


@pytest.mark.parametrize('T', [0.4, 1.0, 2.5])
def test_value_and_gradient_are_those_of_the_formula(T):
  rng = np.random.default_rng(0)
  mask = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 0]], bool)
  s, a = rng.normal(size=(2, 4, 4)) * 2
  s[~mask], a[~mask] = 9.0, -9.0
  logits = np.where(mask, s / T, -np.inf)
  log_pi = logits - logsumexp(logits, axis=1, keepdims=True)
  pi, worth = np.exp(log_pi), np.where(mask, a - T * np.where(mask, log_pi, 0), 0)
  J = (pi * worth).sum(1)
  found, slope = jax.vmap(jax.value_and_grad(expected_score), (0, 0, 0, None))(
      *(x.astype(np.float32) for x in (s, a)), mask, T)
  np.testing.assert_allclose(found, J, rtol=1e-5)
  # d pi_j / d s_i = pi_j (1[i = j] - pi_i) / T; the entropy's own derivative sums to zero.
  np.testing.assert_allclose(slope, pi * (worth - J[:, None]) / T, atol=1e-5)
  assert (np.asarray(slope)[~mask] == 0).all()


def test_no_policy_beats_the_softmax_of_the_preference():
  rng = np.random.default_rng(1)
  a, mask, T = rng.normal(size=6).astype(np.float32), np.ones(6, bool), 0.5
  best = float(expected_score(a, a, mask, T))
  assert best == pytest.approx(T * logsumexp(a / T), rel=1e-5)
  for _ in range(50):
    other = a + rng.normal(size=6).astype(np.float32)
    assert float(expected_score(other, a, mask, T)) < best
