"""Who sees whom in a list: a shared prefix and blocks of items, and the positions they give."""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np


@struct.dataclass
class ListMask:
  """Who sees whom in L tokens: the prefix, then the item blocks one after another.

  A prefix token sees the valid prefix up to itself. An item token sees the whole valid prefix and
  the valid tokens of its own block up to itself, but the last `blind` of a block do not see each
  other. Items come in groups of one length each: L = S + the sum of J*T.

  Attributes:
    prefix: [B, S] bool, False at padding (anywhere).
    items: of each group [B, J, T] bool, False at padding (anywhere).
    blind: how many tokens at the end of each item, such as readouts, see of their like themselves
      alone.
    read: how many tokens at the end of each item are read after the last layer, where nothing else
      then has a query; None for all L.
    window: [] int32, of all these a token sees those alone whose position is less than so many
      before its own; None for no such bound.
  """

  prefix: jax.Array
  items: tuple[jax.Array, ...] = ()
  blind: int = struct.field(pytree_node=False, default=0)
  read: int | None = struct.field(pytree_node=False, default=None)
  window: jax.Array | None = None

  @property
  def blocks(self) -> tuple[np.ndarray, ...]:
    """Of each group [T, T] bool, which tokens of an item's own see each other; see `own_block`."""
    return tuple(own_block(x.shape[2], self.blind) for x in self.items)

  def shows(self) -> np.ndarray:
    """[L, L] bool on the host, row sees column: all that holds of any list, were nothing padding.
    """
    S = self.prefix.shape[1]
    shapes = [x.shape[1:] for x in self.items]
    seen = np.zeros((S + sum(J * T for J, T in shapes),) * 2, bool)
    seen[:S, :S], seen[S:, :S] = own_block(S), True
    start = S
    for (J, T), block in zip(shapes, self.blocks):
      for _ in range(J):
        seen[start:start + T, start:start + T] = block
        start += T
    return seen

  def starts(self) -> list[int]:
    """Where each group's items start among the L."""
    sizes = [self.prefix.shape[1], *(x.shape[1] * x.shape[2] for x in self.items)]
    return np.cumsum(sizes)[:-1].tolist()

  def readers(self, x: jax.Array) -> jax.Array:
    """Of all tokens' x [B, L, ...] those of the tokens that are read: [B, sum of J*read, ...]."""
    if self.read is None:
      return x
    _, *groups = jnp.split(x, self.starts(), axis=1)
    parts = [_ends(group, *of.shape[1:], self.read) for group, of in zip(groups, self.items)]
    return jnp.concatenate([x[:, :0], *parts], axis=1)

  def positions(self) -> jax.Array:
    """[B, L] int32: how many tokens each one sees before itself, so padding has no say."""
    length = self.prefix.sum(axis=1, dtype=jnp.int32)
    items = [(length[:, None, None] + _seen(*of)).reshape(len(length), -1)
             for of in zip(self.items, self.blocks)]
    return jnp.concatenate([jnp.cumsum(self.prefix, axis=1, dtype=jnp.int32) - 1, *items], axis=1)


@struct.dataclass
class PairMask:
  """Who sees whom where a pair's two sides were read alone, each from a place of its own.

  A token of a pair's block sees all valid keys of its two sides, and of its own block as in
  `ListMask`.

  Attributes:
    prefix: [B, S] bool, the side that a list shares.
    sides: [B, J, L] bool, the other side of every pair.
    items: [B, J, T] bool, the pairs' own tokens, False at padding.
    start: position of the first token of every pair's block, behind both sides.
    blind: as in `ListMask`.
    index: [B, J] int32, which of U sides' states each pair has; None where they stand by pair.
    read: how many tokens at the end of each block are read after the last layer; None for all.
    starts: [B, J] int32, where each pair's block starts, in place of `start`; None for that.
  """

  prefix: jax.Array
  sides: jax.Array
  items: jax.Array
  start: int = struct.field(pytree_node=False)
  blind: int = struct.field(pytree_node=False, default=0)
  index: jax.Array | None = None
  read: int | None = struct.field(pytree_node=False, default=None)
  starts: jax.Array | None = None

  @property
  def block(self) -> np.ndarray:
    """[T, T] bool; see `own_block`."""
    return own_block(self.items.shape[2], self.blind)

  def readers(self, x: jax.Array) -> jax.Array:
    """Of all tokens' x [B, J*T, ...] those of the tokens that are read: [B, J*read, ...]."""
    return x if self.read is None else _ends(x, *self.items.shape[1:], self.read)

  def positions(self) -> jax.Array:
    """[B, J*T] int32: from the start on, how many tokens of its own block each sees before itself.
    """
    start = self.start if self.starts is None else self.starts[..., None]
    return (start + _seen(self.items, self.block)).reshape(len(self.items), -1)


def own_block(length: int, blind: int = 0) -> np.ndarray:
  """Which tokens of a block see which: causal, but the last `blind` see of these themselves alone.

  So all readouts at the end of an item share the position behind its content, and nothing sees one
  but itself.

  Returns:
    [length, length] bool; row sees column.
  """
  block = np.tril(np.ones((length, length), bool))
  block[length - blind:, length - blind:] = np.eye(blind, dtype=bool)
  return block


def _seen(items: jax.Array, block: np.ndarray) -> jax.Array:
  """[B, J, T] int32: how many tokens of its own item each sees before itself."""
  return jnp.einsum('bjs,ts->bjt', items.astype(jnp.int32), block.astype(np.int32)) - 1


def _ends(x: jax.Array, J: int, T: int, read: int) -> jax.Array:
  """The last tokens of J items of T tokens each: [B, J*T, ...] to [B, J*read, ...]."""
  items = x.reshape(len(x), J, T, *x.shape[2:])
  return items[:, :, T - read:].reshape(len(x), J * read, *x.shape[2:])
