"""A Llama-family decoder whose unit is the list: a shared prefix, read once, and its item blocks.

Parameters (layers stacked on a leading axis by the scan): `embedding` [V, D]; `layers` with
`attention_norm/scale` [D], `attention/{q,k,v,o}/kernel` [D, N, H], [D, K, H], [D, K, H], [N, H, D],
`mlp_norm/scale` [D], `mlp/{gate,up,down}/kernel` [D, F], [D, F], [F, D]; `norm/scale` [D]; and
`lm_head` [D, V] where embeddings are not tied. Where the family has them,
`attention/{q,k,v}/bias` [N, H], [K, H], [K, H], `attention/{q,k}_norm/scale` [H] and
`{attention,mlp}_post_norm/scale` [D].
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.attention import (
  ACTIVATIONS,
  Attention,
  GatedMLP,
  RMSNorm,
  RopeScaling,
  rotary_angles,
)
from jobrec_jax.models.axes import COSTLY, constrain, partitioned
from jobrec_jax.models.list_attention import States
from jobrec_jax.models.list_masks import ListMask, PairMask
from jobrec_jax.models.lora import LoraConfig

PyTree = Any
REMAT = {'none': None, 'full': None,
         'selective': jax.checkpoint_policies.save_only_these_names(COSTLY)}


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Sizes and constants of a decoder.

  Attributes:
    vocab_size, width, layers, heads, kv_heads, head_width, mlp_width: V, D, number of layers, N, K,
      H, F. K divides N; H is even.
    rope_base: base of the rotary frequencies.
    rope_scaling: how Llama 3.x stretches them; None for not at all.
    rms_epsilon: added to the mean square in every norm.
    attention_bias: whether queries, keys and values have a bias (Qwen 2).
    qk_norm: whether queries and keys are normed by head (Qwen 3, Gemma 3).
    tie_embeddings: whether logits use the embedding table.
    activation: of the MLP's gate, a key of `attention.ACTIVATIONS` (Gemma 3: 'gelu_tanh').
    post_norms: whether what attention and MLP give is normed, too, before it is added (Gemma 3).
    centred_norms: whether norms multiply by 1 + their scale (Gemma 3).
    scaled_embeddings: whether embeddings enter times sqrt(D) (Gemma 3).
    window: in a layer with a window a token sees so many tokens, itself and those right before it
      (Gemma 3); 0: no layer has one.
    global_every: each layer whose number from 1 on divides by it has no window; 0: all have one.
    local_rope_base: in place of `rope_base`, and not stretched, in layers with a window.
    dtype: of the products, 'float32' or 'bfloat16'. Parameters, norms and softmax are fp32.
    remat: what the backward pass computes again. 'none'; 'selective': all of a layer but what takes
      most of the time, the projections' products and attention's output (Korthikanti et al.,
      Reducing activation recomputation in large transformer models, 2022); 'full': all of it, the
      least memory.
    unroll: layers in one step of the scan; all of a few layers is fastest, but compiles for longer.
    fused: whether a kernel made for the device computes attention over lists, where there is one
      that can: splash attention on TPUs, cuDNN's on NVIDIA's GPUs.
    lora: how adapters are applied, where calls are given some.

  Raises:
    ValueError: a value lies outside its range.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_width: int
  mlp_width: int
  rope_base: float = 10000.0
  rope_scaling: RopeScaling | None = None
  rms_epsilon: float = 1e-5
  attention_bias: bool = False
  qk_norm: bool = False
  tie_embeddings: bool = True
  activation: str = 'silu'
  post_norms: bool = False
  centred_norms: bool = False
  scaled_embeddings: bool = False
  window: int = 0
  global_every: int = 0
  local_rope_base: float = 10000.0
  dtype: str = 'float32'
  remat: str = 'none'
  unroll: int = 1
  fused: bool = True
  lora: LoraConfig | None = None

  def __post_init__(self):
    sizes = (
      'vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_width', 'mlp_width', 'unroll',
    )
    for key in sizes:
      value = getattr(self, key)
      whole = isinstance(value, int) and not isinstance(value, bool)
      _require(whole and value > 0, key, 'a positive integer', value)
    divides = self.heads % self.kv_heads == 0
    _require(divides, 'kv_heads', f'a divisor of heads = {self.heads}', self.kv_heads)
    _require(self.head_width % 2 == 0, 'head_width', 'an even number', self.head_width)
    for key in ('window', 'global_every'):
      value = getattr(self, key)
      _require(type(value) is int and value >= 0, key, 'an integer of at least 0', value)
    for key in ('rope_base', 'local_rope_base'):
      _require(getattr(self, key) > 1, key, 'above 1', getattr(self, key))
    activations = tuple(ACTIVATIONS)
    _require(self.activation in activations, 'activation', f'one of {activations}', self.activation)
    _require(self.rms_epsilon > 0, 'rms_epsilon', 'above 0', self.rms_epsilon)
    _require(self.remat in REMAT, 'remat', f'one of {tuple(REMAT)}', self.remat)
    dtypes = ('float32', 'bfloat16')
    _require(self.dtype in dtypes, 'dtype', f'one of {dtypes}', self.dtype)

  def has_window(self, layer: int) -> bool:
    """Whether the layer of this number, from 0 on, sees a window alone."""
    return self.window > 0 and (self.global_every == 0 or (layer + 1) % self.global_every > 0)

  @property
  def projection_sizes(self) -> dict[str, tuple[int, int]]:
    """Of every projection of a layer, how many numbers it takes and gives."""
    D, F = self.width, self.mlp_width
    q, kv = self.heads * self.head_width, self.kv_heads * self.head_width
    return {'q': (D, q), 'k': (D, kv), 'v': (D, kv), 'o': (q, D), 'gate': (D, F), 'up': (D, F),
            'down': (F, D)}


def _require(ok: bool, key: str, allowed: str, got: object) -> None:
  if not ok:
    raise ValueError(f'decoder {key} must be {allowed}, got {got!r}')


class Layer(nn.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)), each normed again where there are post-norms."""

  config: DecoderConfig

  def setup(self):
    c = self.config
    norm = functools.partial(RMSNorm, c.rms_epsilon, c.dtype, centred=c.centred_norms)
    # 2 * layers outputs add up in the residual stream: its initial variance stays about 1.
    shrink = (2 * c.layers) ** -0.5
    self.attention_norm = norm()
    self.attention = Attention(
      c.width, c.heads, c.kv_heads, c.head_width,
      output_stddev=shrink * (c.heads * c.head_width) ** -0.5, dtype=c.dtype,
      bias=c.attention_bias, qk_norm=c.rms_epsilon if c.qk_norm else None,
      centred_norms=c.centred_norms, fused=c.fused, lora=c.lora,
    )
    self.mlp_norm = norm()
    self.mlp = GatedMLP(c.mlp_width, shrink * c.mlp_width**-0.5, c.dtype, c.activation, c.lora)
    if c.post_norms:
      self.attention_post_norm, self.mlp_post_norm = norm(), norm()

  def __call__(
    self,
    x: jax.Array,
    angles: jax.Array,
    mask: ListMask | PairMask,
    adapters: PyTree | None = None,
    seen: tuple[States, States] | None = None,
    last: bool = False,
  ) -> tuple[jax.Array, States]:
    """Args and result as those of `Attention`: x [B, L, D], or of `mask.readers` where `last`."""
    attended, states = self.attention(self.attention_norm(x), angles, mask, adapters, seen, last)
    again = self.config.post_norms
    x = (mask.readers(x) if last else x) + (
      self.attention_post_norm(attended) if again else attended)
    out = self.mlp(self.mlp_norm(x), adapters)
    x = x + (self.mlp_post_norm(out) if again else out)
    return constrain(x, 'batch', 'tokens', 'embed'), states


class Decoder(nn.Module):
  """Embedding, layers, final norm, and the logits of the next token.

  Reference: Touvron et al., LLaMA, 2023; grouped queries: Ainslie et al., GQA, 2023.
  """

  config: DecoderConfig

  def setup(self):
    c = self.config
    init = nn.initializers.normal(c.width**-0.5)
    shape = (c.vocab_size, c.width)
    self.embedding = self.param(
      'embedding', partitioned(init, 'vocab', 'embed'), shape, jnp.float32
    )
    self.layers = nn.scan(  # makes their parameters; `_run_layers` reads them
      Layer,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(nn.broadcast, nn.broadcast, 0, 0),
      length=c.layers,
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c)
    self.norm = RMSNorm(c.rms_epsilon, c.dtype, centred=c.centred_norms)
    if not c.tie_embeddings:
      head = partitioned(init, 'embed', 'vocab')
      self.lm_head = self.param('lm_head', head, shape[::-1], jnp.float32)

  def __call__(
    self, tokens: jax.Array, mask: jax.Array | None = None, adapters: PyTree | None = None
  ) -> jax.Array:
    """Reads plain sequences causally.

    Args:
      tokens: [B, T] int32 below vocab_size.
      mask: [B, T] bool, False at padding (left, right or between); None: no padding.
      adapters: see `lora`; None for none.

    Returns:
      [B, T, D] normed hidden states of the compute dtype; at padding finite and meaningless.
    """
    chex.assert_rank(tokens, 2)
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    chex.assert_equal_shape([tokens, mask])
    return self._encode(self.embed(tokens), ListMask(mask), adapters)[0]

  def embed(self, tokens: jax.Array) -> jax.Array:
    """[...] int32 to [..., D] of the compute dtype; an id beyond the vocabulary gives nan."""
    return self.enter(jnp.take(self.embedding, tokens, axis=0, mode='fill'))

  def enter(self, rows: jax.Array) -> jax.Array:
    """Rows of the embedding table, or beside it, as the layers take them: of the compute dtype."""
    c = self.config
    if c.scaled_embeddings:
      rows = rows.astype(jnp.float32) * c.width**0.5
    return rows.astype(c.dtype)

  def encode_lists(
    self,
    prefix: jax.Array,
    items: Sequence[jax.Array],
    mask: ListMask,
    adapters: PyTree | None = None,
  ) -> list[jax.Array]:
    """Reads each prefix once, and every item as if it alone followed that prefix.

    Items come in groups, each padded to a length of its own.

    Args:
      prefix: [B, S, D] embeddings.
      items: of each group, [B, J, T, D] embeddings.
      mask: who sees whom, and how many tokens of each item are read. A token's position is the
        number of tokens it sees before itself.
      adapters: see `lora`; None for none.

    Returns:
      Of each group, [B, J, mask.read, D] normed hidden states of the compute dtype, those of the
      tokens that are read; at padding finite and meaningless.
    """
    B, _, D = prefix.shape
    chex.assert_shape(prefix, (None, None, self.config.width))
    chex.assert_shape(mask.prefix, prefix.shape[:2])
    for x, item_mask in zip(items, mask.items, strict=True):
      chex.assert_shape(x, (B, None, None, D))
      chex.assert_shape(item_mask, x.shape[:3])
    x = jnp.concatenate([prefix, *(x.reshape(B, -1, D) for x in items)], axis=1)
    hidden, _ = self._encode(x, mask, adapters)
    if mask.read is None:
      hidden = hidden[:, prefix.shape[1]:]
    ends = np.cumsum([x.shape[1] * (x.shape[2] if mask.read is None else mask.read) for x in items])
    groups = jnp.split(hidden, ends[:-1].tolist(), axis=1)
    return [group.reshape(B, x.shape[1], -1, D) for group, x in zip(groups, items)]

  def encode_blocks(
    self, x: jax.Array, mask: jax.Array, start: int, adapters: PyTree | None = None
  ) -> States:
    """Reads blocks alone, each causally from a fixed position, for pairs to look at later.

    Args:
      x: [B, L, D] embeddings.
      mask: [B, L] bool, False at padding.
      start: position of the first token.
      adapters: see `lora`; None for none.

    Returns:
      States [layers, B, K, L, H].
    """
    chex.assert_shape(x, (*mask.shape, self.config.width))
    return self._encode(x, ListMask(mask, read=0), adapters, start=start)[1]

  def encode_pairs(
    self,
    items: jax.Array,
    mask: PairMask,
    prefix: States,
    sides: States,
    adapters: PyTree | None = None,
  ) -> jax.Array:
    """Reads the pairs' own tokens over the states of both their sides.

    Args:
      items: [B, J, T, D] embeddings.
      mask: who sees whom.
      prefix: states [layers, B, K, S, H] of each list's shared side.
      sides: states [layers, B, J, K, L, H] of every pair's other side; [layers, U, K, L, H] where
        the mask has an index.
      adapters: see `lora`; None for none.

    Returns:
      [B, J, mask.read, D] as `encode_lists` does.

    Raises:
      ValueError: a layer's window is too narrow for all that a pair looks at.
    """
    B, J, T, D = items.shape
    c = self.config
    if c.window and mask.start + T > c.window:
      raise ValueError(f'blocks must end within the window of {c.window} tokens that the decoder '
                       f'sees, got {mask.start + T}; shorten the blocks, or read lists exactly')
    chex.assert_shape(mask.items, (B, J, T))
    hidden, _ = self._encode(items.reshape(B, J * T, D), mask, adapters, (prefix, sides))
    return hidden.reshape(B, J, -1, D)

  def logits(self, hidden: jax.Array) -> jax.Array:
    """[..., D] normed hidden states to [..., V] fp32 logits of the next token."""
    matrix = self.embedding.T if self.config.tie_embeddings else self.lm_head
    rows = hidden.reshape(-1, self.config.width)
    logits = jnp.matmul(rows, matrix.astype(hidden.dtype), preferred_element_type=jnp.float32)
    return logits.reshape(*hidden.shape[:-1], self.config.vocab_size)

  def _encode(
    self,
    x: jax.Array,
    mask: ListMask | PairMask,
    adapters: PyTree | None,
    seen: tuple[States, States] | None = None,
    start: int = 0,
  ) -> tuple[jax.Array, States]:
    c = self.config
    x = constrain(x, 'batch', 'tokens', 'embed')
    unknown = set(adapters or ()) - set(c.lora.targets if c.lora else ())
    if unknown:
      targets = c.lora.targets if c.lora else ()
      raise ValueError(f'adapters must be of the lora.targets {targets}, got {sorted(unknown)}')
    x, states = self._run_layers(x, mask.positions() + start, mask, adapters, seen)
    return self.norm(x), states

  def _views(self, positions: jax.Array, mask: ListMask | PairMask) -> Callable:
    """(whether a layer has a window, None where none has) -> its angles [B, L, H/2] and mask."""
    c = self.config
    angles = rotary_angles(positions, c.head_width, c.rope_base, c.rope_scaling)
    if not c.window:
      return lambda local: (angles, mask)
    near = rotary_angles(positions, c.head_width, c.local_rope_base)

    def view(local: jax.Array) -> tuple[jax.Array, ListMask | PairMask]:
      seen = mask if isinstance(mask, PairMask) else mask.replace(
        window=jnp.where(local, c.window, np.iinfo(np.int32).max))
      return jnp.where(local, near, angles), seen
    return view

  def _run_layers(self, x: jax.Array, positions: jax.Array, mask: ListMask | PairMask,
                  adapters: PyTree | None,
                  seen: tuple[States, States] | None) -> tuple[jax.Array, States]:
    """All layers: where they are unrolled, the last one for the tokens that are read alone.

    A loop over the stacked parameters does the same for each layer: a branch for the last one takes
    more time than it saves, and a loop over the others alone would copy their parameters.
    """
    c = self.config
    view = self._views(positions, mask)
    if self.is_initializing():
      x, states = self.layers(x, *view(False), adapters, seen)
      return mask.readers(x), states
    layer = Layer(c, parent=None)
    keys = jax.random.split(self.make_rng('dropout'), c.layers) if self.has_rng('dropout') else None
    local = np.array([c.has_window(i) for i in range(c.layers)]) if c.window else None
    parts = nn.unbox(self.layers.variables['params']), adapters, seen, keys, local

    def run(x: jax.Array, part: PyTree, last: bool = False) -> tuple[jax.Array, States]:
      params, adapters, seen, key, local = part
      rngs = None if key is None else {'dropout': key}
      angles, mask = view(local)
      return layer.apply({'params': params}, x, angles, mask, adapters, seen, last, rngs=rngs)

    def again(f: Callable, **how: bool) -> Callable:
      return f if c.remat == 'none' else jax.checkpoint(f, policy=REMAT[c.remat], **how)

    if c.unroll < c.layers:
      x, states = jax.lax.scan(again(run, prevent_cse=False), x, parts, unroll=c.unroll)
      return mask.readers(x), states
    states = []
    for i in range(c.layers):
      step = again(functools.partial(run, last=i == c.layers - 1))
      x, own = step(x, jax.tree.map(lambda x, i=i: x[i], parts))
      states.append(own)
    return x, jax.tree.map(lambda *of: jnp.stack(of), *states)
