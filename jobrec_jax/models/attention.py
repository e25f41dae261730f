"""The parts of a layer: projections, norms, rotary positions, grouped-query attention, the MLP."""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.axes import COSTLY, constrain, partitioned
from jobrec_jax.models.list_attention import States, as_numbers, attend, attend_pairs
from jobrec_jax.models.list_masks import ListMask, PairMask
from jobrec_jax.models.lora import LoraConfig, adapted
from jobrec_jax.models.quantized import dense

PyTree = Any
ACTIVATIONS = {'silu': jax.nn.silu, 'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True)}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3's stretching of the rotary frequencies for contexts longer than those first trained on.

  A frequency whose wavelength is longer than `original_positions / low` is divided by `factor`, one
  shorter than `original_positions / high` stays, and those between are interpolated.

  Reference: Dubey et al., The Llama 3 herd of models, 2024, and its released code.
  """

  factor: float = 8.0
  low: float = 1.0
  high: float = 4.0
  original_positions: int = 8192


class Projection(nn.Module):
  """A linear map from the last axes of x to `outputs`, with a bias and a LoRA update if asked.

  The kernel, plain or quantised, keeps its axes apart, [*inputs, *outputs] fp32, and all tokens are
  merged into one axis for the product: on CPUs its gradient is then a plain matrix product, about
  twice as fast.
  """

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  axes: tuple[str, ...]
  stddev: float
  dtype: str
  bias: bool = False
  lora: LoraConfig | None = None

  @nn.compact
  def __call__(self, x: jax.Array, adapter: PyTree | None = None) -> jax.Array:
    init = partitioned(nn.initializers.normal(self.stddev), *self.axes)
    kernel = dense(self.param('kernel', init, (*self.inputs, *self.outputs), jnp.float32))
    matrix = kernel.astype(self.dtype).reshape(math.prod(self.inputs), math.prod(self.outputs))
    rows = x.astype(self.dtype).reshape(-1, len(matrix))
    y = rows @ matrix
    if self.bias:
      axes = self.axes[len(self.inputs) :]
      bias = partitioned(nn.initializers.zeros_init(), *axes)
      y = y + self.param('bias', bias, self.outputs, jnp.float32).astype(self.dtype).ravel()
    if adapter is not None:
      silent = not self.has_rng('dropout')
      rows = nn.Dropout(self.lora.dropout, name='lora_dropout')(rows, deterministic=silent)
      y = y + adapted(rows, adapter, self.lora.scale)
    y = checkpoint_name(y, COSTLY)
    return y.reshape(*x.shape[: x.ndim - len(self.inputs)], *self.outputs)


def rotary_angles(
  positions: jax.Array, head_width: int, base: float, scaling: RopeScaling | None = None
) -> jax.Array:
  """position * base^(-2i/H) in radians: [..., H/2] fp32. Reference: Su et al., RoFormer, 2021.

  The power and its inverse are rounded to fp32, as where pretrained decoders were trained: a last
  bit of a frequency counts as many times as there are positions.
  """
  power = (float(base) ** (np.arange(0, head_width, 2) / head_width)).astype(np.float32)
  frequency = (1 / power).astype(np.float64)
  if scaling is not None:
    turns = scaling.original_positions * frequency / (2 * np.pi)
    kept = np.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    frequency = frequency * (kept + (1 - kept) / scaling.factor)
  return positions.astype(jnp.float32)[..., None] * jnp.asarray(frequency, jnp.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns the pairs (x_i, x_{i+H/2}) by their angles, in fp32: the half-split convention.

  Args:
    x: [..., H].
    angles: broadcastable to [..., H/2].

  Returns:
    [..., H] of x's dtype.
  """
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class RMSNorm(nn.Module):
  """scale * x / sqrt(mean(x^2) + epsilon), in fp32; (1 + scale) * ... where it is `centred`.

  Reference: Zhang and Sennrich, 2019.
  """

  epsilon: float
  dtype: str
  axis: str = 'embed'
  centred: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = nn.initializers.zeros_init() if self.centred else nn.initializers.ones_init()
    scale = self.param('scale', partitioned(init, self.axis), x.shape[-1:], jnp.float32)
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
    scale = 1 + scale.astype(jnp.float32) if self.centred else scale
    return (scale * y).astype(self.dtype)


class Attention(nn.Module):
  """Grouped-query attention with rotary positions. Head n of N reads kv head n // G.

  Attributes:
    width, heads, kv_heads, head_width: D, N, K and H.
    output_stddev: initial scale of the output kernel.
    dtype: of the products; scores and softmax are fp32.
    bias: whether q, k and v have one (Qwen 2).
    qk_norm: epsilon of a norm over H of queries and keys (Qwen 3); None for no norm.
    centred_norms: whether these norms are `centred`.
    fused: whether a kernel made for the device reads lists, where there is one.
    lora: how adapters are applied, where they are given.
  """

  width: int
  heads: int
  kv_heads: int
  head_width: int
  output_stddev: float
  dtype: str
  bias: bool = False
  qk_norm: float | None = None
  centred_norms: bool = False
  fused: bool = True
  lora: LoraConfig | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    angles: jax.Array,
    mask: ListMask | PairMask,
    adapters: PyTree | None = None,
    seen: tuple[States, States] | None = None,
    last: bool = False,
  ) -> tuple[jax.Array, States]:
    """Reads x, and what was seen before it.

    Args:
      x: [B, L, D].
      angles: [B, L, H/2].
      mask: over the same L tokens; with `PairMask` they are J*T.
      adapters: of this layer, by projection; None for none.
      seen: with `PairMask`, the states of the prefix [B, K, S, H] and of the sides [B, J, K, L, H],
        or [U, K, L, H] where the mask has an index.
      last: whether only the tokens that are read ask any more.

    Returns:
      [B, L, D], or [B, J*read, D] of `mask.readers` where `last`; and the states of all these
      tokens [B, K, L, H].
    """
    B, _, D = x.shape
    N, K, H = self.heads, self.kv_heads, self.head_width
    adapters = adapters or {}

    def project(name: str, x: jax.Array, heads: int, axis: str) -> jax.Array:
      projection = Projection((D,), (heads, H), ('embed', axis, 'head'), D**-0.5, self.dtype,
                              self.bias, self.lora, name=name)
      return projection(x, adapters.get(name))

    asking = mask.readers if last else lambda x: x
    q = project('q', asking(x), N, 'heads')
    k, v = (project(name, x, K, 'kv_heads') for name in 'kv')
    if self.qk_norm is not None:
      norm = functools.partial(RMSNorm, self.qk_norm, self.dtype, 'head', self.centred_norms)
      q, k = norm(name='q_norm')(q), norm(name='k_norm')(k)
    q = constrain(q, 'batch', 'tokens', 'heads', 'head')
    k = constrain(k, 'batch', 'tokens', 'kv_heads', 'head')
    v = constrain(v, 'batch', 'tokens', 'kv_heads', 'head')
    angles = angles[:, :, None]
    q = rotate(q, asking(angles)).reshape(B, -1, K, N // K, H) * jnp.asarray(H**-0.5, self.dtype)
    k = rotate(k, angles)
    own = States(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3))
    if isinstance(mask, PairMask):
      prefix, sides = seen
      if mask.index is not None:  # One layer's at a time: all of them would be hundreds of MB.
        sides = jax.tree.map(lambda x: x[mask.index], sides)
      prefix, sides = as_numbers(prefix, self.dtype), as_numbers(sides, self.dtype)
      out = attend_pairs(q, prefix, sides, own, mask, self.fused)
    else:
      out = attend(q, own.k, own.v, mask, last, self.fused)  # [B, L or J*read, K, G, H]
    out = constrain(out.reshape(*out.shape[:2], N, H), 'batch', 'tokens', 'heads', 'head')
    output = Projection((N, H), (D,), ('heads', 'head', 'embed'), self.output_stddev, self.dtype,
                        lora=self.lora, name='o')
    return output(out, adapters.get('o')), own


class GatedMLP(nn.Module):
  """down(activation(gate(x)) * up(x)).

  Reference: Shazeer, GLU Variants Improve Transformer, 2020: SwiGLU with 'silu', GeGLU with
  'gelu_tanh', which takes the tanh in place of the error function.
  """

  mlp_width: int
  output_stddev: float
  dtype: str
  activation: str = 'silu'
  lora: LoraConfig | None = None

  @nn.compact
  def __call__(self, x: jax.Array, adapters: PyTree | None = None) -> jax.Array:
    D, F = x.shape[-1], self.mlp_width
    adapters, activation = adapters or {}, ACTIVATIONS[self.activation]

    def project(name: str, x: jax.Array, inputs: int, outputs: int, axes, stddev: float):
      projection = Projection((inputs,), (outputs,), axes, stddev, self.dtype, lora=self.lora,
                              name=name)
      return projection(x, adapters.get(name))

    gate = project('gate', x, D, F, ('embed', 'mlp'), D**-0.5)
    up = project('up', x, D, F, ('embed', 'mlp'), D**-0.5)
    # Its gradient starts from gate and up alone: cheaper to compute again than to keep its parts.
    gated = jax.checkpoint(lambda gate, up: activation(gate) * up)
    hidden = constrain(gated(gate, up), 'batch', 'tokens', 'mlp')
    return project('down', hidden, F, D, ('mlp', 'embed'), self.output_stddev)
