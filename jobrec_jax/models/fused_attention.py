"""Attention of items by a fused kernel: every item asks over keys laid out for it alone.

On NVIDIA GPUs cuDNN never writes the scores to memory. It knows no keys that rows share, so that
the prefix is repeated for each item: a few MB a layer, where the scores would be hundreds.
"""

from collections.abc import Sequence
import functools
import re

import jax
import jax.numpy as jnp

GPUS = 'gpu', 'cuda'
WIDEST = 128  # width of a head that the kernel takes on every GPU which has it
OLDEST = 8.0  # compute capability: Ampere


def fits(q: jax.Array, platform: str) -> bool:
  """Whether the kernel takes queries [..., H] of this type on a platform, and it is there."""
  H = q.shape[-1]
  return (platform in GPUS and q.dtype == jnp.bfloat16 and H <= WIDEST and not H % 8
          and capability() >= OLDEST)


@functools.cache
def capability() -> float:
  """The compute capability of this process's GPUs; 0 for other devices, AMD's among them."""
  found = str(getattr(jax.local_devices()[0], 'compute_capability', ''))
  return float(found) if re.fullmatch(r'\d+\.\d+', found) else 0.0


def attend_rows(q: jax.Array, keys: Sequence[jax.Array], values: Sequence[jax.Array],
                sees: Sequence[jax.Array], implementation: str = 'cudnn') -> jax.Array:
  """softmax(q k^T) v of R rows over several sets of keys, one softmax over all of them.

  Args:
    q: [R, T, N, H], scaled.
    keys, values: of each set [R, S, K, H].
    sees: of each set [R or 1, T or 1, S] bool, which of its keys count for which query; where none
      does, the result is finite and means nothing.
    implementation: of `jax.nn.dot_product_attention`.

  Returns:
    [R, T, N, H], of q's dtype.
  """
  R, T = q.shape[:2]
  mask = jnp.concatenate([jnp.broadcast_to(x, (R, T, x.shape[-1])) for x in sees], axis=-1)
  k, v = jnp.concatenate(keys, axis=1), jnp.concatenate(values, axis=1)
  # With a mask the kernel's gradient takes even lengths alone.
  asking, asked = T % 2, k.shape[1] % 2
  k, v = (jnp.pad(x, ((0, 0), (0, asked), (0, 0), (0, 0))) for x in (k, v))
  mask = jnp.pad(mask, ((0, 0), (0, asking), (0, asked)))
  rows = jnp.pad(q, ((0, 0), (0, asking), (0, 0), (0, 0)))
  out = jax.nn.dot_product_attention(rows, k, v, mask=mask[:, None], scale=1.0,
                                     implementation=implementation)
  return out[:, :T]
