"""The policy head: how far eligibility counts for a pair, on top of preference."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp


class PolicyHead(nn.Module):
  """lambda_k(u, j) = clip(MLP([h_pref; h_qual])_k, -bound, bound), in fp32, for K requirements.

  The last layer starts at zero: lambda = 0 and s = s_pref, so that the policy sets out from pure
  preference and moves only as far as the multiplier pushes it. Both hidden states have passed the
  decoder's final norm, so they are taken as they are.

  Attributes:
    bound: the greatest absolute value of lambda; beyond it the gradient is zero.
    widths: hidden widths, with ReLU.
    outputs: K, the requirements that share the hidden layers; `at_requirement` reads between them.
  """

  bound: float = 10.0
  widths: tuple[int, ...] = (128,)
  outputs: int = 1

  @nn.compact
  def __call__(self, h_pref: jax.Array, h_qual: jax.Array) -> jax.Array:
    """Args: h_pref, h_qual [..., D] hidden states of the experts. Returns lambda [..., K] fp32."""
    chex.assert_equal_shape([h_pref, h_qual])
    x = jnp.concatenate([h_pref, h_qual], axis=-1).astype(jnp.float32)
    for i, width in enumerate(self.widths):
      x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f'hidden_{i}')(x)
      x = nn.relu(x)
    raw = nn.Dense(self.outputs, kernel_init=nn.initializers.zeros_init(), name='lambda')(x)
    return jnp.clip(raw, -self.bound, self.bound)


def at_requirement(lam: jax.Array, knots: jax.Array, tau: jax.Array | float) -> jax.Array:
  """lambda at a requirement: linear in tau between the two knots around it.

  Args:
    lam: [..., K] at the knots.
    knots: [K] ascending requirements.
    tau: scalar; beyond an end it is taken for that end.

  Returns:
    [...] lambda.
  """
  chex.assert_shape(knots, lam.shape[-1:])
  corners = jnp.eye(len(knots), dtype=lam.dtype)
  weights = jax.vmap(lambda corner: jnp.interp(tau, knots, corner))(corners)  # [K]
  return lam @ weights


def policy_scores(s_pref: jax.Array, lam: jax.Array, z_qual: jax.Array) -> jax.Array:
  """s = s_pref + lambda * z_qual: a positive lambda raises pairs that are likely eligible.

  Args:
    s_pref: preference logits, [...].
    lam: [...] of the policy head.
    z_qual: calibrated qualification logits, [...].

  Returns:
    [...] logits of the policy over a list, before its temperature.
  """
  chex.assert_equal_shape([s_pref, lam, z_qual])
  return s_pref + lam * z_qual
