"""Where each parameter of the decoder lies in the tensors of Hugging Face's files.

Tensors are known by the names that transformers gives them in a causal language model. What all
names of a file have in place of its prefix 'model.' ('' in plain models, '_orig_mod.model.' in
compiled ones) is taken for it, and heads of other tasks may lie beside.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math
from pathlib import Path
import re
from typing import Any

from flax.traverse_util import flatten_dict
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.decoder import DecoderConfig

Spans = tuple[slice, ...]
HEAD = 'lm_head.weight'
# Heads of classifiers, reward models and value functions; a constant that Llama 2's files carry.
UNUSED = re.compile(r'(^|\.)(score|classifier|v_head(\.summary)?)\.(weight|bias)$'
                    r'|\.rotary_emb\.inv_freq$')
_USUAL = 'model.'  # prefix of all names but those of heads
_SHOWN = 12  # names of each kind in a message
# Llama's name for the norm before the MLP means the one behind attention where there is one.
_MLP_NORM = {False: 'post_attention_layernorm', True: 'pre_feedforward_layernorm'}


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a parameter lies in Hugging Face's files.

  Attributes:
    name: of the tensor, with {} for the layer where there is one tensor for each.
    shape: ours, without the axis of layers.
    groups: for each axis of the tensor, which of our axes it merges.
    layers: how many tensors our parameter stacks; None for one that is not stacked.
  """

  name: str
  shape: tuple[int, ...]
  groups: tuple[tuple[int, ...], ...]
  layers: int | None = None

  @property
  def tensor_shape(self) -> tuple[int, ...]:
    return tuple(math.prod(self.shape[a] for a in group) for group in self.groups)

  @property
  def stacked(self) -> tuple[int, ...]:
    return self.shape if self.layers is None else (self.layers, *self.shape)

  @property
  def names(self) -> list[str]:
    return [self.name] if self.layers is None else [self.name.format(i) for i in range(self.layers)]

  def ours(self, read: Callable[[Spans], np.ndarray], spans: Spans) -> np.ndarray:
    """The part of one tensor that `spans` asks for, over our axes and in their order.

    Args:
      read: gives a rectangle of the tensor.
      spans: for each axis of `shape`, a slice with start and stop.
    """
    rows = []
    for first, *rest in self.groups:
      inner = math.prod(self.shape[a] for a in rest)
      rows.append(slice(spans[first].start * inner, spans[first].stop * inner))
    x = read(tuple(rows))
    # Of merged axes only the outermost was cut while reading.
    outer = {group[0] for group in self.groups}
    sizes = [spans[a].stop - spans[a].start if a in outer else self.shape[a] for a in self._order]
    x = x.reshape(sizes).transpose(np.argsort(self._order))
    return x[tuple(slice(None) if a in outer else spans[a] for a in range(x.ndim))]

  def theirs(self, x: np.ndarray) -> np.ndarray:
    """One layer's parameter as the tensor that the file holds."""
    return np.ascontiguousarray(x.transpose(self._order).reshape(self.tensor_shape))

  @property
  def _order(self) -> list[int]:
    return [a for group in self.groups for a in group]


def decoder_places(config: DecoderConfig) -> dict[str, Place]:
  """The place of every parameter, by its path in the decoder's tree ('layers/mlp/up/kernel')."""
  V, D, F = config.vocab_size, config.width, config.mlp_width
  N, K, H = config.heads, config.kv_heads, config.head_width
  vector, straight, swapped = ((0,),), ((0,), (1,)), ((1,), (0,))
  layer = {
    'attention_norm/scale': ('input_layernorm.weight', (D,), vector),
    'mlp_norm/scale': (f'{_MLP_NORM[config.post_norms]}.weight', (D,), vector),
    'attention/o/kernel': ('self_attn.o_proj.weight', (N, H, D), ((2,), (0, 1))),
    'mlp/gate/kernel': ('mlp.gate_proj.weight', (D, F), swapped),
    'mlp/up/kernel': ('mlp.up_proj.weight', (D, F), swapped),
    'mlp/down/kernel': ('mlp.down_proj.weight', (F, D), swapped),
  }
  for name, heads in (('q', N), ('k', K), ('v', K)):
    home, theirs = f'attention/{name}', f'self_attn.{name}_proj'
    layer[f'{home}/kernel'] = (f'{theirs}.weight', (D, heads, H), ((1, 2), (0,)))
    if config.attention_bias:
      layer[f'{home}/bias'] = (f'{theirs}.bias', (heads, H), ((0, 1),))
  if config.post_norms:
    layer['attention_post_norm/scale'] = ('post_attention_layernorm.weight', (D,), vector)
    layer['mlp_post_norm/scale'] = ('post_feedforward_layernorm.weight', (D,), vector)
  if config.qk_norm:
    for name in 'qk':
      layer[f'attention/{name}_norm/scale'] = (f'self_attn.{name}_norm.weight', (H,), vector)
  places = {
    'embedding': Place('model.embed_tokens.weight', (V, D), straight),
    'norm/scale': Place('model.norm.weight', (D,), vector),
  }
  for key, (name, *rest) in layer.items():
    places[f'layers/{key}'] = Place(f'model.layers.{{}}.{name}', *rest, layers=config.layers)
  if not config.tie_embeddings:
    places['lm_head'] = Place('lm_head.weight', (D, V), swapped)
  return places


def usual_names(path: Path, names: Iterable[str]) -> dict[str, str]:
  """Of every tensor, by the name that it has in a causal language model, its name in the file.

  The embeddings' name tells the prefix: that of the model within is what stands before it, that of
  a head what is left of this without its own 'model.'.

  Raises:
    ValueError: two tensors would have the same name.
  """
  names, embeddings = sorted(names), 'embed_tokens.weight'
  found = [n.removesuffix(embeddings) for n in names if re.search(rf'(^|\.){embeddings}$', n)]
  inner = found[0] if len(found) == 1 else _USUAL
  outer = inner.removesuffix(_USUAL)
  out = {}
  for name in names:
    usual = name.removeprefix(outer)
    if name.startswith(inner) and usual != HEAD and not UNUSED.search(name):
      usual = _USUAL + name.removeprefix(inner)
    if usual in out:
      raise ValueError(f'{path}: tensors must have names of their own behind the prefix '
                       f'{inner!r}, got {out[usual]} and {name}')
    out[usual] = name
  return out


def check_layers(path: Path, config: DecoderConfig, names: Iterable[str]) -> None:
  """Before anything of the length of `config.layers` is made.

  Raises:
    ValueError: there are more layers than tensors.
  """
  count = len(list(names))
  if config.layers > count:
    raise ValueError(f'{path}: the number of layers must be at most that of its tensors, {count}, '
                     f'got {config.layers}')


def parameter_dtype(dtype: Any) -> np.dtype:
  """The dtype that parameters are read as.

  Raises:
    ValueError: it is neither float32 nor bfloat16.
  """
  dtype = np.dtype(dtype)
  if dtype not in (np.float32, jnp.bfloat16):
    raise ValueError(f'weights dtype must be float32 or bfloat16, got {dtype}')
  return dtype


def flat_shardings(shardings: Any, places: dict[str, Place]) -> dict[str, Any]:
  """A sharding, or None for the default device, for every parameter by its path.

  Raises:
    ValueError: the shardings are not those of the parameters.
  """
  flat = dict.fromkeys(places) if shardings is None else flatten_dict(shardings, sep='/')
  missing, unknown = sorted(set(places) - set(flat)), sorted(set(flat) - set(places))
  if missing or unknown:
    raise ValueError(f'shardings must be one for every parameter, missing {missing}, not known '
                     f'{unknown}')
  return flat


def differences(expected: Mapping[str, tuple], actual: Mapping[str, tuple]) -> str:
  """Names missing, extra or of another shape, a line for each kind; '' where all fit."""
  parts = {
    'missing': expected.keys() - actual.keys(),
    'extra': actual.keys() - expected.keys(),
    'shapes': {f'{name} must be {tuple(expected[name])}, got {tuple(actual[name])}'
               for name in expected.keys() & actual.keys()
               if tuple(expected[name]) != tuple(actual[name])},
  }
  return ''.join(f'\n  {kind}: {listed(names)}' for kind, names in parts.items() if names)


def listed(names: Iterable[str]) -> str:
  """Names in order, the first `_SHOWN` of them."""
  names = sorted(names)
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return (', '.join(names[:_SHOWN]) or 'none') + more
