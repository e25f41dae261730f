"""The policy head: how far eligibility counts for a pair, on top of preference."""

import functools
from typing import Literal

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

HeadKind = Literal['conditioned', 'separate', 'scalar', 'off']


class PolicyHead(nn.Module):
  """lambda_k(u, j) = clip(raw_k, -bound, bound), in fp32, for K requirements.

  x = ([h_pref; h_qual] - mean) / scale, constants that training takes from its lists: states of a
  pretrained decoder have most in common, and what tells pairs apart is a small part of them.
  Every kind starts at lambda = 0, so that the policy sets out from s_pref + mu p_qual, and with
  mu = 0 from pure preference; the last layer of an MLP starts at zero.

  Attributes:
    bound: the greatest absolute value of lambda; see `clip_with_inward_gradient`.
    widths: hidden widths, with ReLU.
    outputs: K, the requirements; `at_requirement` reads between them.
    kind: what raw_k is. 'conditioned': MLP(x)_k, hidden layers shared by all requirements.
      'separate': MLP_k(x), which share nothing. 'scalar': a number, alike for all pairs; it is
      learned as a multiple of the last width, whose steps are as large as an MLP's. 'off': 0, and
      nothing is learned.
  """

  bound: float = 10.0
  widths: tuple[int, ...] = (128,)
  outputs: int = 1
  kind: HeadKind = 'conditioned'

  @nn.compact
  def __call__(self, h_pref: jax.Array, h_qual: jax.Array) -> jax.Array:
    """Args: h_pref, h_qual [..., D] hidden states of the experts. Returns lambda [..., K] fp32."""
    chex.assert_equal_shape([h_pref, h_qual])
    x = jnp.concatenate([h_pref, h_qual], axis=-1).astype(jnp.float32)
    mean = self.param('mean', nn.initializers.zeros_init(), x.shape[-1:], jnp.float32)
    scale = self.param('scale', nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
    shape = (*x.shape[:-1], self.outputs)
    if self.kind == 'off':
      return jnp.zeros(shape, jnp.float32)
    if self.kind == 'scalar':
      number = self.param('number', nn.initializers.zeros_init(), shape[-1:], jnp.float32)
      return jnp.broadcast_to(clip_with_inward_gradient(self.widths[-1] * number, self.bound),
                              shape)
    x = (x - mean) / scale
    if self.kind == 'separate':
      each = nn.vmap(_Mlp, in_axes=None, out_axes=-1, axis_size=self.outputs,
                     variable_axes={'params': 0}, split_rngs={'params': True})
      raw = each(self.widths, 1, name='each')(x)[..., 0, :]
    else:
      raw = _layers(x, self.widths, self.outputs)
    return clip_with_inward_gradient(raw, self.bound)


def _layers(x: jax.Array, widths: tuple[int, ...], outputs: int) -> jax.Array:
  """The layers of an MLP with ReLU, in the module that calls; the last starts at zero."""
  for i, width in enumerate(widths):
    x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f'hidden_{i}')(x)
    x = nn.relu(x)
  return nn.Dense(outputs, kernel_init=nn.initializers.zeros_init(), name='lambda')(x)


class _Mlp(nn.Module):
  """`_layers` as a module of its own."""

  widths: tuple[int, ...]
  outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return _layers(x, self.widths, self.outputs)


def input_statistics(h_pref: jax.Array, h_qual: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """The head's constants from the pairs that it learns on.

  Args:
    h_pref, h_qual: [..., D] hidden states.
    mask: [...] bool, real pairs.

  Returns:
    `mean` and `scale` [2D] fp32, the standard deviation; where a number hardly varies, a hundredth
    of the root mean variance of all.
  """
  x = jnp.concatenate([h_pref, h_qual], axis=-1).astype(jnp.float32)
  axes, real = tuple(range(mask.ndim)), mask[..., None]
  mean = x.mean(axes, where=real)
  variance = jnp.square(x - mean).mean(axes, where=real)
  return {'mean': mean, 'scale': jnp.sqrt(jnp.maximum(variance, 1e-4 * variance.mean() + 1e-12))}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def clip_with_inward_gradient(x: jax.Array, bound: float) -> jax.Array:
  """clip(x, -bound, bound); gradients that would push x further out are zeroed, inward ones pass.

  The plain clip has a gradient of zero beyond the bound: what one step took there would stay there.
  """
  return jnp.clip(x, -bound, bound)


def _clip_forward(x: jax.Array, bound: float) -> tuple[jax.Array, jax.Array]:
  return clip_with_inward_gradient(x, bound), x


def _clip_backward(bound: float, x: jax.Array, d: jax.Array) -> tuple[jax.Array]:
  outwards = ((x > bound) & (d < 0)) | ((x < -bound) & (d > 0))  # descent goes against d
  return (jnp.where(outwards, 0, d),)


clip_with_inward_gradient.defvjp(_clip_forward, _clip_backward)


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


def only_outputs(params: dict, kind: HeadKind, kept: np.ndarray) -> dict:
  """The parameters of a head whose lambda is 0 at the requirements that are not `kept` [K]."""
  match kind:
    case 'scalar':
      return params | {'number': params['number'] * kept}
    case 'separate':
      last = jax.tree.map(lambda x: (x.T * kept).T, params['each']['lambda'])  # K comes first
      return params | {'each': params['each'] | {'lambda': last}}
    case 'conditioned':
      return params | {'lambda': jax.tree.map(lambda x: x * kept, params['lambda'])}
  return params


def policy_scores(s_pref: jax.Array, lam: jax.Array, z_qual: jax.Array,
                  mu: jax.Array | float = 0.0) -> jax.Array:
  """s = s_pref + mu * p_qual + lambda * z_qual, p_qual = sigmoid(z_qual).

  A positive mu or lambda raises pairs that are likely eligible.

  Args:
    s_pref: preference logits, [...].
    lam: [...] of the policy head.
    z_qual: calibrated qualification logits, [...].
    mu: the price of a unit of C, alike for all pairs.

  Returns:
    [...] logits of the policy over a list, before its temperature.
  """
  chex.assert_equal_shape([s_pref, lam, z_qual])
  return s_pref + mu * jax.nn.sigmoid(z_qual) + lam * z_qual
