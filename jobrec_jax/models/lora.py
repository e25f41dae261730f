"""Low-rank adapters: y = x W + scale * (dropout(x) a) b, in a parameter subtree of their own.

They never write the decoder's kernels: those are frozen, or learn too, where a decoder trained from
scratch gives each expert adapters of its own. Adapters of all layers are stacked on a leading axis
like the kernels they go with, and reach the layers as an argument: `{projection: {'a': [layers, in,
R], 'b': [layers, R, out]}}`, with a further leading axis E where every expert has its own.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from jobrec_jax.models.axes import COSTLY, partitioned
from jobrec_jax.models.quantized import dense_params
from jobrec_jax.schema.settings import above, at_least, check, within

PyTree = Any
ATTENTION = ('q', 'k', 'v', 'o')
TARGETS = (*ATTENTION, 'gate', 'up', 'down')


@dataclasses.dataclass(frozen=True)
class LoraConfig:
  """Which projections are adapted, and how.

  Attributes:
    rank: R.
    alpha: the update is scaled by alpha / R, or alpha / sqrt(R) where `rank_stabilised`.
    dropout: rate on the adapters' input while training.
    targets: projections of every layer, some of `TARGETS`.
    per_expert: whether each expert has adapters of its own (and reads the pair for itself, at as
      many times the cost) or all share them. A decoder trained from scratch has adapters only
      where they are apart, and learns with them.
    rank_stabilised: rsLoRA's scaling.

  Raises:
    ValueError: a value lies outside its range.

  Reference:
    Hu et al., LoRA, 2021; Kalajdzievski, A rank stabilization scaling factor, 2023.
  """

  rank: Annotated[int, at_least(1)] = 16
  alpha: Annotated[float, above(0)] = 32.0
  dropout: Annotated[float, within(0, 1, open_high=True)] = 0.1
  targets: tuple[str, ...] = ATTENTION
  per_expert: bool = False
  rank_stabilised: bool = False

  def __post_init__(self):
    check(self)
    given = set(self.targets)
    if not given or not given <= set(TARGETS) or len(given) < len(self.targets):
      raise ValueError(f'targets must be some of {TARGETS}, each once, got {self.targets!r}')

  @property
  def scale(self) -> float:
    return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class Adapters(nn.Module):
  """The adapters of a decoder as parameters: a ~ N(0, 1 / in), b = 0, so that they start as none.

  Attributes:
    config: see `LoraConfig`.
    sizes: of every target, how many numbers its projection takes and gives.
    layers: how many layers the decoder has.
    experts: E where every expert has adapters of its own, else None.
  """

  config: LoraConfig
  sizes: Mapping[str, tuple[int, int]]
  layers: int
  experts: int | None = None

  @nn.compact
  def __call__(self) -> PyTree:
    lead = (self.layers,) if self.experts is None else (self.experts, self.layers)
    axes = ('experts', 'layers')[-len(lead):]
    tree = {}
    for name in self.config.targets:
      inputs, outputs = self.sizes[name]
      rows, columns = _sides(name)
      start = partitioned(nn.initializers.normal(inputs ** -0.5), *axes, rows, None)
      a = self.param(f'{name}_a', start, (*lead, inputs, self.config.rank), jnp.float32)
      nothing = partitioned(nn.initializers.zeros_init(), *axes, None, columns)
      b = self.param(f'{name}_b', nothing, (*lead, self.config.rank, outputs), jnp.float32)
      tree[name] = {'a': a, 'b': b}
    return tree


def _sides(target: str) -> tuple[str, str]:
  """The logical axes of what a projection takes and gives."""
  return ('projected', 'embed') if target in ('o', 'down') else ('embed', 'projected')


def adapted(x: jax.Array, adapter: PyTree, scale: float) -> jax.Array:
  """The adapter's part of a projection: x [M, in] to [M, out], of x's dtype."""
  low = checkpoint_name(x @ adapter['a'].astype(x.dtype), COSTLY)
  return low @ adapter['b'].astype(x.dtype) * scale


def merge(params: PyTree, config: LoraConfig, expert: int | None = None) -> PyTree:
  """A decoder's parameters with the adapters folded in: kernel + scale * a b.

  Args:
    params: `JobRec` parameters with `decoder` and `lora`.
    config: of the adapters.
    expert: whose adapters, where each expert has its own.

  Returns:
    The parameters of the decoder alone, of the kernels' dtype; float32 where they were quantised.

  Raises:
    ValueError: an expert is named though all share, or none though each has its own.
  """
  if (expert is not None) != config.per_expert:
    raise ValueError('expert must be an index where lora.per_expert, else None, got '
                     f'{expert!r} with per_expert={config.per_expert}')
  decoder = dense_params(params['decoder'])
  for name in config.targets:
    a, b = (params['lora'][f'{name}_{part}'] for part in 'ab')
    if expert is not None:
      a, b = a[expert], b[expert]
    home = decoder['layers']['attention' if name in ATTENTION else 'mlp'][name]
    kernel = home['kernel']
    update = jnp.einsum('lir,lro->lio', a, b, precision='highest')  # accelerators round by default
    update = config.scale * update.reshape(kernel.shape)
    home['kernel'] = (kernel.astype(jnp.float32) + update).astype(kernel.dtype)
  return decoder
