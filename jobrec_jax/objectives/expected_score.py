"""What a policy is worth by the preference scores alone, without a label."""

import jax
import jax.numpy as jnp


def expected_score(scores: jax.Array, preference: jax.Array, mask: jax.Array,
                   temperature: float | jax.Array = 1.0) -> jax.Array:
  """`J = sum_j pi_j a_j + T H(pi)`, `pi = softmax(s / T)`, `H(pi) = -sum_j pi_j log pi_j`.

  To be maximised; pi = softmax(a / T) does so where nothing else is asked.

  Args:
    scores: [..., J] s, the policy's logits.
    preference: [..., J] a, the frozen preference scores.
    mask: [..., J] bool, False where a short list is padded.
    temperature: T > 0.

  Returns:
    [...] float32, in units of a.
  """
  logits = jnp.where(mask, scores.astype(jnp.float32) / temperature, -1e30)
  log_pi = jax.nn.log_softmax(logits, axis=-1)
  pi = jnp.where(mask, jnp.exp(log_pi), 0.0)
  return (pi * (preference - temperature * jnp.where(mask, log_pi, 0.0))).sum(-1)
