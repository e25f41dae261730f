"""Attention over lists: one causal prefix, and item blocks which see the prefix and themselves."""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import struct
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models import fused_attention, splash_attention
from jobrec_jax.models.axes import COSTLY, divided, platform
from jobrec_jax.models.list_masks import ListMask, PairMask

PyTree = Any

MASKED = -1e30  # Finite: a row with every key masked averages them instead of giving nan.
# Bytes of items' scores at a time on a device. On CPUs they then stay in the cache: with
# 2**24 16 to 35% faster than without a bound, with 2**22 up to 15% more. Elsewhere it is `_MEMORY`.
_SCORES = {'cpu': 2**22}
_MEMORY = 2**28


@struct.dataclass
class States:
  """Rotated keys, and values, of tokens that were read before: all that attention needs of them.

  Attributes:
    k, v: [..., K, L, H]; stacked over layers on the leading axis. uint16 holds bfloat16 bit
      patterns, converted layer by layer, because XLA on CPU would otherwise convert all layers at
      once.
  """

  k: jax.Array
  v: jax.Array


def as_numbers(states: States, dtype: str) -> States:
  """States of a compute dtype, from those of another or from bits."""
  def convert(x: jax.Array) -> jax.Array:
    bits = x.dtype == jnp.uint16
    return (jax.lax.bitcast_convert_type(x, jnp.bfloat16) if bits else x).astype(dtype)
  return jax.tree.map(convert, states)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: ListMask, last: bool = False,
           fused: bool = True) -> jax.Array:
  """softmax(q k^T) v for the prefix and for the items, whose softmax joins prefix and own block.

  Args:
    q: [B, L, K, G, H], scaled; of `mask.readers` alone where `last`.
    k, v: [B, K, L, H].
    mask: over the same L tokens.
    last: whether only the tokens that are read have a query.
    fused: whether a kernel made for the device computes it, where there is one that can.

  Returns:
    As q, of v's dtype.
  """
  if fused and not last and splash_attention.fits(q, mask, platform()):
    return splash_attention.attend(q, k, v, mask)
  # Splits, for the gradient of a slice is as large as what it was taken from.
  prefix, *own = map(States, *(jnp.split(x, mask.starts(), axis=2) for x in (k, v)))
  windows = _windows(mask)
  if last and mask.read is not None:
    ends = np.cumsum([x.shape[1] * mask.read for x in mask.items]).tolist()
    rows, out = jnp.split(q, ends, axis=1)[:-1], [q[:, :0].astype(v.dtype)]
  else:
    first, *rows = jnp.split(q, mask.starts(), axis=1)
    out = [_attend_prefix(first, prefix, mask.prefix, windows[0])]
  out += [_attend_items(q, prefix, mask.prefix, own, items, block, window=window, fused=fused)
          for q, own, items, block, window in zip(rows, own, mask.items, mask.blocks, windows[1:])]
  return jnp.concatenate(out, axis=1)


class _Window(NamedTuple):
  """How far back a token sees.

  Attributes:
    size: [] of those less than so many positions before it.
    prefix: [B, S] positions of the prefix.
    own: positions of the asking item's own tokens, over the axes of their mask; None for the
      prefix.
  """

  size: jax.Array
  prefix: jax.Array
  own: jax.Array | None

  def sees(self, queries: jax.Array, keys: jax.Array) -> jax.Array:
    """[..., T] and [..., S] positions to [..., T, S] bool."""
    return queries[..., :, None] - keys[..., None, :] < self.size


def _windows(mask: ListMask) -> list[_Window | None]:
  """Of the prefix, and of each group of items."""
  if mask.window is None:
    return [None] * (1 + len(mask.items))
  prefix, *items = jnp.split(mask.positions(), mask.starts(), axis=1)
  return [_Window(mask.window, prefix, None),
          *(_Window(mask.window, prefix, x.reshape(of.shape)) for x, of in zip(items, mask.items))]


def attend_pairs(
  q: jax.Array, prefix: States, sides: States, own: States, mask: PairMask, fused: bool = True
) -> jax.Array:
  """softmax(q k^T) v of the pairs' own tokens over both their sides and themselves.

  Args:
    q: [B, J*T, K, G, H], scaled; or of the last tokens of each item alone.
    prefix: states [B, K, S, H].
    sides: states [B, J, K, L, H].
    own: states [B, K, J*T, H].
    mask: over the same tokens.
    fused: as in `attend`.

  Returns:
    As q, of the values' dtype.
  """
  return _attend_items(q, prefix, mask.prefix, own, mask.items, mask.block, (sides, mask.sides),
                       fused=fused)


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
  out = jnp.einsum('bknrs,bknrh->bknsh', weights.astype(rows.dtype), rows,
                   preferred_element_type=jnp.float32)
  return out.sum(axis=2) if like.ndim == 4 else out  # one product over n and r takes twice as long


def _attend_prefix(q: jax.Array, prefix: States, valid: jax.Array,
                   window: _Window | None) -> jax.Array:
  B, S, K, G, H = q.shape
  rows = q.transpose(0, 2, 3, 1, 4).reshape(B, K, 1, G * S, H)
  scores = _scores(rows, prefix.k).reshape(B, K, G, S, S)
  sees = jnp.tril(jnp.ones((S, S), bool)) & valid[:, None, None, None]
  if window is not None:
    sees &= window.sees(window.prefix, window.prefix)[:, None, None]
  weights = jax.nn.softmax(jnp.where(sees, scores, MASKED), axis=-1)
  out = _values(weights.reshape(B, K, 1, G * S, S), prefix.v)
  return out.reshape(B, K, G, S, H).transpose(0, 3, 1, 2, 4).astype(prefix.v.dtype)


def _attend_items(
  q: jax.Array,
  prefix: States,
  prefix_mask: jax.Array,
  own: States,
  items: jax.Array,
  block: np.ndarray,
  sides: tuple[States, jax.Array] | None = None,
  window: _Window | None = None,
  fused: bool = True,
) -> jax.Array:
  """One softmax over the prefix, a side if there are any, and the item itself."""
  if fused and window is None and fused_attention.fits(q, platform()):
    return _fused_items(q, prefix, prefix_mask, own, items, block, sides)
  B, _, K, G, H = q.shape
  _, J, S = items.shape
  T = q.shape[1] // J  # queries of an item: its last T tokens

  def each(x: jax.Array) -> jax.Array:  # [B, K, J*S, H] -> [J, B, K, S, H]
    return jnp.moveaxis(x.reshape(B, K, J, S, H), 2, 0)

  def mask_of(x: jax.Array) -> jax.Array:  # [B, J, S] -> [J, B, 1, S]
    return x.swapaxes(0, 1)[:, :, None]

  rows = q.reshape(B, J, T, K, G, H).transpose(1, 0, 3, 4, 2, 5).reshape(J, B, K, G * T, H)
  side = side_mask = None
  if sides is not None:
    side, side_mask = jax.tree.map(lambda x: x.swapaxes(0, 1), sides[0]), mask_of(sides[1])
  if window is not None:
    window = window._replace(own=mask_of(window.own))
  masks = _ItemMasks(prefix_mask, mask_of(items), block[S - T:], side_mask, window)
  out = _joint_softmax(rows, prefix, jax.tree.map(each, own), side, masks)
  return out.reshape(J, B, K, G, T, H).transpose(1, 0, 4, 2, 3, 5).reshape(q.shape)


def _fused_items(q, prefix, prefix_mask, own, items, block, sides) -> jax.Array:
  """As `_attend_items` without a window, every item's keys laid out for it alone."""
  B, _, K, G, H = q.shape
  _, J, S = items.shape
  T = q.shape[1] // J

  def shared(x: jax.Array) -> jax.Array:  # [B, K, L, H] -> [B*J, L, K, H]
    x = x.swapaxes(1, 2)[:, None]
    return jnp.broadcast_to(x, (B, J, *x.shape[2:])).reshape(B * J, *x.shape[2:])

  def each(x: jax.Array) -> jax.Array:  # [B, K, J*S, H] -> [B*J, S, K, H]
    return x.swapaxes(1, 2).reshape(B * J, S, K, H)

  laid = [jax.tree.map(shared, prefix), jax.tree.map(each, own)]
  sees = [jnp.repeat(prefix_mask, J, axis=0)[:, None],
          block[S - T:] & items.reshape(B * J, 1, S)]
  if sides is not None:  # [B, J, K, L, H] -> [B*J, L, K, H]
    laid.append(jax.tree.map(lambda x: x.swapaxes(2, 3).reshape(B * J, -1, K, H), sides[0]))
    sees.append(sides[1].reshape(B * J, 1, -1))
  out = fused_attention.attend_rows(q.reshape(B * J, T, K * G, H), [x.k for x in laid],
                                    [x.v for x in laid], sees)
  return checkpoint_name(out, COSTLY).reshape(q.shape)


class _ItemMasks(NamedTuple):
  """prefix [B, S], items [J, B, 1, S], block [T, S], side [J, B, 1, S] or None: which keys count.

  S is the length of each one's own keys. Where there is a `window`, those alone which it shows.
  """

  prefix: jax.Array
  items: jax.Array
  block: jax.Array
  side: jax.Array | None
  window: _Window | None


class _Items(NamedTuple):
  """What J items have each: [J, B, K or 1, ...], or [B, K or 1, n, ...] for n of them at a time.

  Attributes:
    rows: their G * T scaled queries.
    own: states of their own tokens.
    side: states of their other side, or None.
    own_mask, side_mask: which of these keys count.
    places: positions of their own tokens where there is a window, else None.
  """

  rows: jax.Array
  own: States
  side: States | None
  own_mask: jax.Array
  side_mask: jax.Array | None
  places: jax.Array | None


@jax.custom_vjp
def _joint_softmax(
  rows: jax.Array, prefix: States, own: States, side: States | None, masks: _ItemMasks
) -> jax.Array:
  """Attention of each item's rows [J, B, K, G*T, H] over three sets of keys, never concatenated.

  Its own gradient computes the weights again from the log of their sum, as flash attention does
  (Dao et al., 2022): nothing of the scores' size outlives the items that are taken at a time.

  Args:
    rows: G * T queries of each item, scaled.
    prefix: states [B, K, S, H].
    own, side: states [J, B, K, S, H] each, of as many tokens as they have.
    masks: which of the keys count.
  """
  return _joint_forward(rows, prefix, own, side, masks)[0]


def _joint_forward(rows, prefix, own, side, masks):
  places = None if masks.window is None else masks.window.own
  items = _Items(rows, own, side, masks.items, masks.side, places)

  def attend_some(items: _Items):
    sets = _key_sets(items, prefix, masks)
    top = jnp.stack([x.max(-1, keepdims=True) for _, x in sets]).max(0)
    weights = [jnp.exp(x - top) for _, x in sets]
    total = sum(w.sum(-1, keepdims=True) for w in weights)
    out = sum(_values(w, states.v) for w, (states, _) in zip(weights, sets)) / total
    return (out.astype(items.own.v.dtype), top + jnp.log(total)), ()

  (out, log_total), _ = _some_at_a_time(attend_some, (items,), _fitting(items, prefix))
  out, log_total = (checkpoint_name(x, COSTLY) for x in (out, log_total))
  return out, (items, prefix, masks, out, log_total)


def _joint_backward(kept, d_out):
  items, prefix, masks, out, log_total = kept

  def gradients_of_some(items: _Items, out, log_total, d_out):
    mean = (d_out.astype(jnp.float32) * out).sum(-1, keepdims=True)
    d_rows, d_sets = 0.0, []
    for states, scores in _key_sets(items, prefix, masks):
      weights = jnp.exp(scores - log_total)
      d_scores = weights * (_scores(d_out, states.v) - mean)
      d_rows += _values(d_scores, states.k)
      d_sets.append(States(_for_keys(d_scores, items.rows, states.k),
                           _for_keys(weights, d_out, states.v)))
    d_own, d_prefix, *d_side = d_sets
    return (d_rows, d_own, d_side[0] if d_side else None), d_prefix

  (d_rows, d_own, d_side), d_prefix = _some_at_a_time(
    gradients_of_some, (items, out, log_total, d_out), _fitting(items, prefix))
  gradients = jax.tree.map(lambda d, x: d.astype(x.dtype), (d_rows, d_prefix, d_own, d_side),
                           (items.rows, prefix, items.own, items.side))
  return *gradients, None


_joint_softmax.defvjp(_joint_forward, _joint_backward)


def _key_sets(items: _Items, prefix: States,
              masks: _ItemMasks) -> list[tuple[States, jax.Array]]:
  """Each set of keys with n items' masked scores [B, K, n, G*T, S]: the item's own first."""
  B, K, n, GT, _ = items.rows.shape
  T, S = masks.block.shape
  sees = masks.block & items.own_mask[:, :, :, None, None]  # [B, 1, n, 1, T, S]
  sees_prefix = masks.prefix[:, None, None, None]
  if masks.window is not None:
    asking = items.places[..., S - T:]  # [B, 1, n, T]
    sees &= masks.window.sees(asking, items.places)[:, :, :, None]
    # The rows of a group, one query head after another, ask from the same T places.
    near = masks.window.sees(asking, masks.window.prefix[:, None, None])
    sees_prefix &= jnp.tile(near, (1, 1, 1, GT // T, 1))
  scores = _scores(items.rows, items.own.k).reshape(B, K, n, GT // T, T, S)
  sets = [(items.own, jnp.where(sees, scores, MASKED).reshape(B, K, n, GT, S)),
          (prefix, jnp.where(sees_prefix, _scores(items.rows, prefix.k), MASKED))]
  if items.side is not None:
    sees = items.side_mask[:, :, :, None]
    sets.append((items.side, jnp.where(sees, _scores(items.rows, items.side.k), MASKED)))
  return sets


def _fitting(items: _Items, prefix: States) -> int:
  """How many of the J items are taken at a time: as many as `_SCORES` allows and J divides by.

  Where the bound is that of memory, and turns are dear, J need not divide by it if they would be
  more by over a third: J may be a prime.
  """
  J, B, K, GT, _ = items.rows.shape
  keys = sum(s.k.shape[-2] for s in (prefix, items.own, items.side) if s is not None)
  scores = 4 * divided(B, 'batch') * divided(K, 'kv_heads') * GT * keys
  fits = max(1, _SCORES.get(platform(), _MEMORY) // scores)
  n = max(d for d in range(1, min(J, fits) + 1) if J % d == 0)
  turns = -(-J // fits)
  return n if platform() in _SCORES or 3 * (J // n) <= 4 * turns else -(-J // turns)


def _some_at_a_time(f: Callable[..., tuple[PyTree, PyTree]], parts: tuple[PyTree, ...],
                    n: int) -> tuple[PyTree, PyTree]:
  """f over n of the J items at a time.

  Args:
    f: of parts [B, K or 1, n, ...] gives something for each item, likewise, and a sum over them.
    parts: its arguments for all items, arrays [J, B, K or 1, ...].
    n: at most J; where J does not divide by it, items of zeros fill the last turn.

  Returns:
    Something for each of the J items, and the sum over all of them.
  """
  J = len(jax.tree.leaves(parts)[0])

  def some(part):
    each, total = f(*jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), part))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), each), total

  def add(total, part):
    each, more = some(part)
    return jax.tree.map(jnp.add, total, more), each

  turns = -(-J // n)
  if turns * n > J:
    parts = jax.tree.map(
        lambda x: jnp.pad(x, [(0, turns * n - J)] + [(0, 0)] * (x.ndim - 1)), parts)
  parts = jax.tree.map(lambda x: x.reshape(turns, n, *x.shape[1:]), parts)
  _, total = jax.eval_shape(some, jax.tree.map(lambda x: x[0], parts))
  total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), total)
  total, each = jax.lax.scan(add, total, parts)
  return jax.tree.map(lambda x: x.reshape(turns * n, *x.shape[2:])[:J], each), total
