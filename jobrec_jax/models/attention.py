"""Attention over lists: one causal prefix, and item blocks which see the prefix and themselves."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any, NamedTuple

from flax import struct
import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from jobrec_jax.models.axes import COSTLY, constrain, partitioned
from jobrec_jax.models.lora import LoraConfig, adapted
from jobrec_jax.models.quantized import dense

PyTree = Any

MASKED = -1e30  # Finite: a row with every key masked averages them instead of giving nan.
# Bytes of items' scores at a time, 2**28 where not named. On CPUs they then stay in the cache (16
# to 35% faster); elsewhere memory is bounded.
_SCORES = {'cpu': 2**24}


@struct.dataclass
class ListMask:
  """Who sees whom in L = S + J*T tokens: the prefix, then the item blocks one after another.

  A prefix token sees the valid prefix up to itself. An item token sees the whole valid prefix and
  the valid tokens of its own block that `block` lets it see, itself among them.

  Attributes:
    prefix: [B, S] bool, False at padding (anywhere).
    items: [B, J, T] bool, False at padding (anywhere); None where there is only the prefix.
    block: [T, S] bool, the block of every item with T = S: row is the query, column the key.
  """

  prefix: jax.Array
  items: jax.Array | None = None
  block: jax.Array | None = None

  def positions(self) -> jax.Array:
    """[B, L] int32: how many tokens each one sees before itself, so padding has no say."""
    own = jnp.cumsum(self.prefix, axis=1, dtype=jnp.int32) - 1  # [B, S]
    if self.items is None:
      return own
    seen = jnp.einsum('bjs,ts->bjt', self.items.astype(jnp.int32), self.block.astype(jnp.int32))
    length = self.prefix.sum(axis=1, dtype=jnp.int32)
    items = length[:, None, None] + seen - 1  # [B, J, T]
    return jnp.concatenate([own, items.reshape(len(own), -1)], axis=1)


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


@struct.dataclass
class PairMask:
  """Who sees whom where a pair's two sides were read alone, each from a place of its own.

  A token of a pair's block sees all valid keys of its two sides, and of its own block what `block`
  lets it see.

  Attributes:
    prefix: [B, S] bool, the side that a list shares.
    sides: [B, J, L] bool, the other side of every pair.
    items: [B, J, T] bool, the pairs' own tokens, False at padding.
    block: [T, T] bool, as in `ListMask`.
    start: position of the first token of every pair's block, behind both sides.
  """

  prefix: jax.Array
  sides: jax.Array
  items: jax.Array
  block: jax.Array
  start: int = struct.field(pytree_node=False)

  def positions(self) -> jax.Array:
    """[B, J*T] int32: from `start`, how many tokens of its own block each sees before itself."""
    seen = jnp.einsum('bjs,ts->bjt', self.items.astype(jnp.int32), self.block.astype(jnp.int32))
    return (self.start + seen - 1).reshape(len(seen), -1)


@struct.dataclass
class States:
  """Rotated keys, and values, of tokens that were read before: all that attention needs of them.

  Attributes:
    k, v: [..., K, L, H]; stacked over layers on the leading axis.
  """

  k: jax.Array
  v: jax.Array


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
  """position * base^(-2i/H) in radians: [..., H/2] fp32. Reference: Su et al., RoFormer, 2021."""
  frequency = base ** (-jnp.arange(0, head_width, 2, dtype=jnp.float32) / head_width)
  if scaling is not None:
    turns = scaling.original_positions * frequency / (2 * jnp.pi)
    kept = jnp.clip((turns - scaling.low) / (scaling.high - scaling.low), 0, 1)
    frequency = frequency * (kept + (1 - kept) / scaling.factor)
  return positions.astype(jnp.float32)[..., None] * frequency


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
  """scale * x / sqrt(mean(x^2) + epsilon), in fp32. Reference: Zhang and Sennrich, 2019."""

  epsilon: float
  dtype: str
  axis: str = 'embed'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    init = partitioned(nn.initializers.ones_init(), self.axis)
    scale = self.param('scale', init, x.shape[-1:], jnp.float32)
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
    return (scale * y).astype(self.dtype)


class Attention(nn.Module):
  """Grouped-query attention with rotary positions. Head n of N reads kv head n // G.

  Attributes:
    width, heads, kv_heads, head_width: D, N, K and H.
    output_stddev: initial scale of the output kernel.
    dtype: of the products; scores and softmax are fp32.
    bias: whether q, k and v have one (Qwen 2).
    qk_norm: epsilon of a norm over H of queries and keys (Qwen 3); None for no norm.
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
  lora: LoraConfig | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    angles: jax.Array,
    mask: ListMask | PairMask,
    adapters: PyTree | None = None,
    seen: tuple[States, States] | None = None,
  ) -> tuple[jax.Array, States]:
    """Reads x, and what was seen before it.

    Args:
      x: [B, L, D].
      angles: [B, L, H/2].
      mask: over the same L tokens; with `PairMask` they are J*T.
      adapters: of this layer, by projection; None for none.
      seen: with `PairMask`, the states of the prefix [B, K, S, H] and of the sides [B, J, K, L, H].

    Returns:
      [B, L, D], and the states of these tokens [B, K, L, H].
    """
    B, L, D = x.shape
    N, K, H = self.heads, self.kv_heads, self.head_width
    adapters = adapters or {}

    def project(name: str, heads: int, axis: str) -> jax.Array:
      projection = Projection((D,), (heads, H), ('embed', axis, 'head'), D**-0.5, self.dtype,
                              self.bias, self.lora, name=name)
      return projection(x, adapters.get(name))

    q, k, v = project('q', N, 'heads'), project('k', K, 'kv_heads'), project('v', K, 'kv_heads')
    if self.qk_norm is not None:
      q = RMSNorm(self.qk_norm, self.dtype, 'head', name='q_norm')(q)
      k = RMSNorm(self.qk_norm, self.dtype, 'head', name='k_norm')(k)
    q = constrain(q, 'batch', 'tokens', 'heads', 'head')
    k = constrain(k, 'batch', 'tokens', 'kv_heads', 'head')
    v = constrain(v, 'batch', 'tokens', 'kv_heads', 'head')
    angles = angles[:, :, None]
    q = rotate(q, angles).reshape(B, L, K, N // K, H) * jnp.asarray(H**-0.5, self.dtype)
    k = rotate(k, angles)
    own = States(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3))
    if isinstance(mask, PairMask):
      seen = jax.tree.map(lambda x: x.astype(own.k.dtype), seen)  # states may be stored in less
      out = attend_pairs(q, *seen, own, mask)
    else:
      out = attend(q, own.k, own.v, mask)  # [B, L, K, G, H]
    out = constrain(out.reshape(B, L, N, H), 'batch', 'tokens', 'heads', 'head')
    output = Projection((N, H), (D,), ('heads', 'head', 'embed'), self.output_stddev, self.dtype,
                        lora=self.lora, name='o')
    return output(out, adapters.get('o')), own


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: ListMask) -> jax.Array:
  """softmax(q k^T) v for the prefix and for the items, whose softmax joins prefix and own block.

  Args:
    q: [B, L, K, G, H], scaled.
    k, v: [B, K, L, H].
    mask: over the same L tokens.

  Returns:
    [B, L, K, G, H] of v's dtype.
  """
  S = mask.prefix.shape[1]
  prefix = States(k[:, :, :S], v[:, :, :S])
  first = _attend_prefix(q[:, :S], prefix, mask.prefix)
  if mask.items is None:
    return first
  own = States(k[:, :, S:], v[:, :, S:])
  items = _attend_items(q[:, S:], prefix, mask.prefix, own, mask.items, mask.block)
  return jnp.concatenate([first, items], axis=1)


def attend_pairs(
  q: jax.Array, prefix: States, sides: States, own: States, mask: PairMask
) -> jax.Array:
  """softmax(q k^T) v of the pairs' own tokens over both their sides and themselves.

  Args:
    q: [B, J*T, K, G, H], scaled.
    prefix: states [B, K, S, H].
    sides: states [B, J, K, L, H].
    own: states [B, K, J*T, H].
    mask: over the same tokens.

  Returns:
    [B, J*T, K, G, H] of the values' dtype.
  """
  return _attend_items(q, prefix, mask.prefix, own, mask.items, mask.block, (sides, mask.sides))


# Queries of a group and of all its tokens are merged into one row axis r, and n items lie side by
# side: all products are batched matrix products with no transpose of the scores. Keys that all
# items share have no n; then n and r are one axis of the product.


def _keys(x: jax.Array) -> str:
  return 'bksh' if x.ndim == 4 else 'bknsh'


def _scores(rows: jax.Array, k: jax.Array) -> jax.Array:
  return jnp.einsum(f'bknrh,{_keys(k)}->bknrs', rows, k, preferred_element_type=jnp.float32)


def _values(weights: jax.Array, v: jax.Array) -> jax.Array:
  weights = weights.astype(v.dtype)
  return jnp.einsum(f'bknrs,{_keys(v)}->bknrh', weights, v, preferred_element_type=jnp.float32)


def _for_keys(weights: jax.Array, rows: jax.Array, like: jax.Array) -> jax.Array:
  """The sum over rows of weights * rows for each key, summed over items too where they share it."""
  lead = _keys(like)[:-2]
  out = jnp.einsum(f'bknrh,bknrs->{lead}hs', rows, weights.astype(rows.dtype),
                   preferred_element_type=jnp.float32)
  return out.swapaxes(-1, -2)


def _attend_prefix(q: jax.Array, prefix: States, valid: jax.Array) -> jax.Array:
  B, S, K, G, H = q.shape
  rows = q.transpose(0, 2, 3, 1, 4).reshape(B, K, 1, G * S, H)
  scores = _scores(rows, prefix.k).reshape(B, K, G, S, S)
  sees = jnp.tril(jnp.ones((S, S), bool)) & valid[:, None, None, None]
  weights = jax.nn.softmax(jnp.where(sees, scores, MASKED), axis=-1)
  out = _values(weights.reshape(B, K, 1, G * S, S), prefix.v)
  return out.reshape(B, K, G, S, H).transpose(0, 3, 1, 2, 4).astype(prefix.v.dtype)


def _attend_items(
  q: jax.Array,
  prefix: States,
  prefix_mask: jax.Array,
  own: States,
  items: jax.Array,
  block: jax.Array,
  sides: tuple[States, jax.Array] | None = None,
) -> jax.Array:
  """One softmax over the prefix, a side if there are any, and the item itself."""
  B, _, K, G, H = q.shape
  _, J, T = items.shape

  def each(x: jax.Array) -> jax.Array:  # [B, K, J*T, H] -> [J, B, K, T, H]
    return jnp.moveaxis(x.reshape(B, K, J, T, H), 2, 0)

  rows = q.reshape(B, J, T, K, G, H).transpose(1, 0, 3, 4, 2, 5).reshape(J, B, K, G * T, H)
  side, side_mask = jax.tree.map(lambda x: x.swapaxes(0, 1), sides or (None, None))
  masks = _ItemMasks(prefix_mask, items.swapaxes(0, 1), block, side_mask)
  out = _joint_softmax(rows, prefix, jax.tree.map(each, own), side, masks)
  return out.reshape(J, B, K, G, T, H).transpose(1, 0, 4, 2, 3, 5).reshape(q.shape)


class _ItemMasks(NamedTuple):
  """prefix [B, S], items [J, B, T], block [T, T] and side [J, B, L] or None: which keys count."""

  prefix: jax.Array
  items: jax.Array
  block: jax.Array
  side: jax.Array | None


@jax.custom_vjp
def _joint_softmax(
  rows: jax.Array, prefix: States, own: States, side: States | None, masks: _ItemMasks
) -> jax.Array:
  """Attention of each item's rows [J, B, K, R, H] over three sets of keys, never concatenated.

  Its own gradient computes the weights again from the log of their sum, as flash attention does
  (Dao et al., 2022): nothing of the scores' size outlives the items that are taken at a time.

  Args:
    rows: R = G * T queries of each item, scaled.
    prefix: states [B, K, S, H].
    own, side: states [J, B, K, T, H] and [J, B, K, L, H].
    masks: which of the keys count.
  """
  return _joint_forward(rows, prefix, own, side, masks)[0]


def _joint_forward(rows, prefix, own, side, masks):
  def attend_some(part):
    rows, own, side, item_mask, side_mask = part
    sets = _key_sets(rows, prefix, own, side, masks._replace(items=item_mask, side=side_mask))
    top = jnp.stack([x.max(-1, keepdims=True) for _, x in sets]).max(0)
    weights = [jnp.exp(x - top) for _, x in sets]
    total = sum(w.sum(-1, keepdims=True) for w in weights)
    out = sum(_values(w, states.v) for w, (states, _) in zip(weights, sets)) / total
    return (out.astype(own.v.dtype), top + jnp.log(total)), ()

  parts = rows, own, side, masks.items, masks.side
  (out, log_total), _ = _some_at_a_time(attend_some, parts, prefix)
  out, log_total = (checkpoint_name(x, COSTLY) for x in (out, log_total))
  return out, (rows, prefix, own, side, masks, out, log_total)


def _joint_backward(kept, d_out):
  rows, prefix, own, side, masks, out, log_total = kept

  def gradients_of_some(part):
    rows, own, side, item_mask, side_mask, out, log_total, d_out = part
    mean = (d_out.astype(jnp.float32) * out).sum(-1, keepdims=True)
    d_rows, d_sets = 0.0, []
    for states, scores in _key_sets(rows, prefix, own, side,
                                    masks._replace(items=item_mask, side=side_mask)):
      weights = jnp.exp(scores - log_total)
      d_scores = weights * (_scores(d_out, states.v) - mean)
      d_rows += _values(d_scores, states.k)
      d_sets.append(States(_for_keys(d_scores, rows, states.k),
                           _for_keys(weights, d_out, states.v)))
    d_own, d_prefix, *d_side = d_sets
    return (d_rows, d_own, d_side[0] if side is not None else None), d_prefix

  parts = rows, own, side, masks.items, masks.side, out, log_total, d_out
  (d_rows, d_own, d_side), d_prefix = _some_at_a_time(gradients_of_some, parts, prefix)
  d_all = d_rows, d_prefix, d_own, d_side
  d_all = jax.tree.map(lambda d, x: d.astype(x.dtype), d_all, (rows, prefix, own, side))
  return *d_all, None


_joint_softmax.defvjp(_joint_forward, _joint_backward)


def _key_sets(rows, prefix, own, side, masks) -> list[tuple[States, jax.Array]]:
  """Each set of keys with its masked scores [B, K, n, R, keys]: the item's own first."""
  B, K, n, R, _ = rows.shape
  T = len(masks.block)
  sees = masks.block & masks.items[:, None, :, None, None]  # [B, 1, n, 1, T, T]
  scores = _scores(rows, own.k).reshape(B, K, n, R // T, T, T)
  sets = [(own, jnp.where(sees, scores, MASKED).reshape(B, K, n, R, T)),
          (prefix, jnp.where(masks.prefix[:, None, None, None], _scores(rows, prefix.k), MASKED))]
  if side is not None:
    sees = masks.side[:, None, :, None]
    sets.append((side, jnp.where(sees, _scores(rows, side.k), MASKED)))
  return sets


def _some_at_a_time(f: Callable[..., tuple[PyTree, PyTree]], parts: PyTree,
                    prefix: States) -> tuple[PyTree, PyTree]:
  """f over n of the J items at a time, as many as `_SCORES` allows and J divides by.

  Args:
    f: of parts of n items, gives something for each of them and a sum over them.
    parts: rows, own and side first; arrays [J, B, K, ...], masks [J, B, L]. f gets and gives the
      items' axis behind B and K, or behind B.
  """
  rows, *states = parts[:3]
  J, B, K, R, _ = rows.shape
  keys = sum(s.k.shape[-2] for s in (prefix, *states) if s is not None)
  fits = _SCORES.get(jax.default_backend(), 2**28) // (4 * B * K * R * keys)
  n = max(d for d in range(1, J + 1) if J % d == 0 and (d == 1 or d <= fits))

  def inside(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 0, 2 if x.ndim > 3 else 1)

  def some(part):
    each, total = f(jax.tree.map(inside, part))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), each), total

  each, total = jax.lax.map(
    some, jax.tree.map(lambda x: x.reshape(J // n, n, *x.shape[1:]), parts))
  return (jax.tree.map(lambda x: x.reshape(J, *x.shape[2:]), each),
          jax.tree.map(lambda x: x.sum(0), total))
