"""Frozen kernels in 8 or 4 bits, for QLoRA: stored quantised, floats again a layer at a time."""

from collections.abc import Callable
import functools
import sys
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from qwix import QArray

PyTree = Any
QTYPES = ('int8', 'nf4')
TILE = 64  # inputs that share a scale, where they divide by it


def quantizer(qtype: str) -> Callable[[str, jax.Array], PyTree]:
  """(name, parameter) -> parameter, every kernel of the layers quantised.

  A kernel is `qvalue * scale`, with a float32 scale for each output and each `TILE` of its last
  axis of inputs, the largest magnitude there: int8 in even steps, nf4 in the sixteen quantiles of a
  normal distribution. Embeddings, norms and biases stay what they are.

  Args:
    qtype: one of `QTYPES`.

  Raises:
    ValueError: it is not.

  Reference:
    Dettmers et al., QLoRA, 2023 (here without its double quantisation and paging).
  """
  if qtype not in QTYPES:
    raise ValueError(f'qtype must be one of {QTYPES}, got {qtype!r}')

  def apply(name: str, x: jax.Array) -> PyTree:
    if not name.endswith('/kernel'):
      return x
    return _quantize(x, qtype, 1 if name.endswith('/o/kernel') else 0)  # o's inputs: heads, H
  return apply


@functools.partial(jax.jit, static_argnums=(1, 2))
def _quantize(kernel: jax.Array, qtype: str, axis: int) -> 'QArray':
  from qwix import quantize  # here, for it imports flax.nnx and optax: a sixth of a second

  def one(layer: jax.Array) -> 'QArray':
    size = layer.shape[axis]
    return quantize(layer.astype(jnp.float32), qtype,
                    channelwise_axes=[i for i in range(layer.ndim) if i != axis],
                    tiled_axes={axis: TILE if size % TILE == 0 else size})
  return jax.lax.map(one, kernel)  # a layer at a time: nf4 compares with sixteen values at once


def _is_quantized(x: Any) -> bool:
  qwix = sys.modules.get('qwix')  # without it there is no QArray
  return qwix is not None and isinstance(x, qwix.QArray)


def dense(kernel: 'jax.Array | QArray') -> jax.Array:
  """The kernel in floats."""
  return sys.modules['qwix'].dequantize(kernel) if _is_quantized(kernel) else kernel


def dense_params(params: PyTree) -> PyTree:
  """Parameters with every quantised kernel in floats again."""
  return jax.tree.map(lambda x: jax.vmap(dense)(x) if _is_quantized(x) else x, params,
                      is_leaf=_is_quantized)
