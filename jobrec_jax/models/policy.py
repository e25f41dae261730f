"""The policy head: how far eligibility counts for a pair, on top of preference."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp


class PolicyHead(nn.Module):
  """lambda(u, j) = clip(MLP([h_pref; h_qual]), -bound, bound), in fp32.

  The last layer starts at zero: lambda = 0 and s = s_pref, so that the policy sets out from pure
  preference and moves only as far as the multiplier pushes it. Both hidden states have passed the
  decoder's final norm, so they are taken as they are.

  Attributes:
    bound: the greatest absolute value of lambda; beyond it the gradient is zero.
    widths: hidden widths, with ReLU.
  """

  bound: float = 5.0
  widths: tuple[int, ...] = (128,)

  @nn.compact
  def __call__(self, h_pref: jax.Array, h_qual: jax.Array) -> jax.Array:
    """Args: h_pref, h_qual [..., D] hidden states of the two experts. Returns lambda [...] fp32."""
    chex.assert_equal_shape([h_pref, h_qual])
    x = jnp.concatenate([h_pref, h_qual], axis=-1).astype(jnp.float32)
    for i, width in enumerate(self.widths):
      x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f'hidden_{i}')(x)
      x = nn.relu(x)
    raw = nn.Dense(1, kernel_init=nn.initializers.zeros_init(), name='lambda')(x)[..., 0]
    return jnp.clip(raw, -self.bound, self.bound)


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
