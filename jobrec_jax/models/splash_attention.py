"""Attention over lists by splash attention: JAX's kernel for TPUs, which skips what a mask hides.

The items of a list hide each other, so that of all blocks of scores few are computed, and none is
ever written to memory. What holds of every list of a shape is its mask; padding has a segment of
its own, in which it sees only itself.

Reference: jax.experimental.pallas.ops.tpu.splash_attention; Dao et al., FlashAttention, 2022.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.axes import COSTLY, parts
from jobrec_jax.models.list_masks import ListMask

LANES = 128  # a TPU's: lengths and blocks are multiples of it
BLOCK = 256  # queries, and keys, at a time: of larger ones more is hidden, smaller take more turns
WIDTH = 64  # of a head: multiples of it were compiled


def fits(q: jax.Array, mask: ListMask, platform: str) -> bool:
  """Whether the kernel reads lists [B, L, K, G, H] on a platform, under the mesh in force.

  It knows no windows, and shares of devices must be alike.
  """
  B, _, K, _, H = q.shape
  mesh = jax.sharding.get_abstract_mesh()
  return (platform == 'tpu' and mask.window is None and not H % WIDTH and not mesh.manual_axes
          and not B % parts('batch') and not K % parts('kv_heads'))


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: ListMask,
           interpret: bool = False) -> jax.Array:
  """softmax(q k^T) v of all tokens of lists.

  Args:
    q: [B, L, K, G, H], scaled.
    k, v: [B, K, L, H].
    mask: over the same L tokens, without a window.
    interpret: whether the kernel is computed on another device, slowly.

  Returns:
    As q, of v's dtype; at padding finite and meaningless.
  """
  B, L, K, G, H = q.shape
  valid = jnp.concatenate([mask.prefix, *(x.reshape(B, -1) for x in mask.items)], axis=1)
  length = -(-L // LANES) * LANES
  length = -(-length // BLOCK) * BLOCK if length > BLOCK else length

  def padded(x: jax.Array) -> jax.Array:  # [..., L, H]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, length - L), (0, 0)])

  def local(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array) -> jax.Array:
    return jax.vmap(make_kernel(mask, length, interpret))(q, k, v, splash.SegmentIds(valid, valid))

  rows = q.transpose(0, 2, 3, 1, 4).reshape(B, K * G, L, H)
  valid = padded(valid.astype(jnp.int32)[..., None])[..., 0]
  out = _on_each_device(local)(padded(rows), padded(k), padded(v), valid)[:, :, :L]
  return out.reshape(B, K, G, L, H).transpose(0, 3, 1, 2, 4).astype(v.dtype)


def _on_each_device(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """f of lists and heads, computed where they lie: no compiler divides a kernel by itself."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return f
  heads, keys, tokens = (nn.logical_to_mesh_axes(axes) for axes in (
      ('batch', 'heads', 'tokens', 'head'), ('batch', 'kv_heads', 'tokens', 'head'),
      ('batch', 'tokens')))
  return jax.shard_map(f, mesh=mesh, in_specs=(heads, keys, keys, tokens), out_specs=heads,
                       check_vma=False)


def make_kernel(mask: ListMask, length: int,
                interpret: bool = False) -> splash.SplashAttentionKernel:
  """For lists of a shape, padded to a length, and any number of heads."""
  shows = mask.shows()
  seen = np.tril(np.ones((length, length), bool))  # behind the list, where nothing is read
  seen[:len(shows), :len(shows)] = shows
  block = min(BLOCK, length)
  sizes = splash.BlockSizes(
      block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
      block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block)
  return splash.make_splash_mha(seen[None], block_sizes=sizes, head_shards=1, q_seq_shards=1,
                                residual_checkpoint_name=COSTLY, interpret=interpret)
