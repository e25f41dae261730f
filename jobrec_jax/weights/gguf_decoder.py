"""The decoder that a GGUF file holds: its sizes and its parameters.

Read are the architectures llama (Mistral among them), qwen2, qwen3 and gemma3; keys that would
change the computation are refused.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax.traverse_util import unflatten_dict
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.attention import RopeScaling, rotary_angles
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.sharding import laid_out
from jobrec_jax.weights.families import FAMILIES
from jobrec_jax.weights.gguf_file import TYPES, GgufFile
from jobrec_jax.weights.places import (
  Place,
  check_layers,
  decoder_places,
  differences,
  flat_shardings,
  parameter_dtype,
)

PyTree = Any

# The family of each architecture.
ARCHITECTURES = {'llama': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3', 'gemma3': 'gemma3_text'}
# Whose q and k are stored with their rotary pairs side by side.
_TURNED = ('llama',)

# Keys that change what a model computes, and the values under which they change nothing.
_NEUTRAL = {
  'expert_count': (0,),
  'attention.causal': (True,),
  'attention.scale': (0,),
  'attention.clamp_kqv': (0,),
  'attention.max_alibi_bias': (0,),
  'attn_logit_softcapping': (0,),
  'final_logit_softcapping': (0,),
  'rope.scaling.type': ('none',),
  'rope.scaling.factor': (0, 1),
  'rope.scale_linear': (0, 1),
  'embedding_scale': (0, 1),
  'residual_scale': (0, 1),
  'logit_scale': (0, 1),
}
_WINDOW = 'attention.sliding_window'
_ROPE_FACTORS = 'rope_freqs.weight'
# GGUF's name for each tensor of Hugging Face's.
_NAMES = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  'lm_head': 'output',
  'input_layernorm': 'attn_norm',
  'post_attention_layernorm': 'ffn_norm',
  'self_attn.o_proj': 'attn_output',
  **{f'self_attn.{x}_proj': f'attn_{x}' for x in 'qkv'},
  **{f'self_attn.{x}_norm': f'attn_{x}_norm' for x in 'qk'},
  **{f'mlp.{x}_proj': f'ffn_{x}' for x in ('gate', 'up', 'down')},
}
_GEMMA_NAMES = {
  'post_attention_layernorm': 'post_attention_norm',
  'pre_feedforward_layernorm': 'ffn_norm',
  'post_feedforward_layernorm': 'post_ffw_norm',
}


def architecture(file: GgufFile) -> str:
  """Its architecture; a ValueError where it is none of `ARCHITECTURES`."""
  name = file.metadata.get('general.architecture')
  file.require(name in ARCHITECTURES, 'general.architecture', f'one of {tuple(ARCHITECTURES)}',
               name)
  return name


def decoder_config(file: GgufFile, dtype: str = 'float32', **changes: Any) -> DecoderConfig:
  """The decoder that the metadata describes.

  Args:
    file: see `open_gguf`.
    dtype: of the products, see `DecoderConfig`.
    **changes: fields of `DecoderConfig` set otherwise, such as `remat`, `unroll` and `lora`.

  Raises:
    ValueError: an architecture, or a value of the metadata, that the decoder does not compute.
  """
  name = architecture(file)
  family = FAMILIES[ARCHITECTURES[name]]
  for key, neutral in {**_NEUTRAL, **({} if family.windows else {_WINDOW: (0,)})}.items():
    got = file.metadata.get(f'{name}.{key}', neutral[0])
    file.require(got in neutral, f'{name}.{key}', f'one of {neutral} or absent', got)

  def read(key: str, kind: type, default: Any = None) -> Any:
    value = file.metadata.get(f'{name}.{key}', default)
    file.require(type(value) is kind, f'{name}.{key}', f'of type {kind.__name__}', value)
    # Stored in 32 bits: 1e-5 reads as 9.99e-06 unless taken as the shortest number that is stored.
    return value if kind is int else float(str(np.float32(value)))

  width, heads = read('embedding_length', int), read('attention.head_count', int)
  file.require(heads > 0, f'{name}.attention.head_count', 'positive', heads)
  H = read('attention.key_length', int, width // heads)
  for key in ('attention.value_length', 'rope.dimension_count'):
    got = read(key, int, H)
    file.require(got == H, f'{name}.{key}', f'the head width {H}', got)
  file.require('token_embd.weight' in file.tensors, 'tensors',
               'those of a model, token_embd.weight among them', sorted(file.tensors))
  base = read('rope.freq_base', float, 10000.0)
  fields = {
    **family.fields,
    'vocab_size': file.tensors['token_embd.weight'].shape[0],
    'width': width,
    'layers': read('block_count', int),
    'heads': heads,
    'kv_heads': read('attention.head_count_kv', int, heads),
    'head_width': H,
    'mlp_width': read('feed_forward_length', int),
    'rope_base': base,
    'rope_scaling': _rope_scaling(file, H, base),
    'rms_epsilon': read('attention.layer_norm_rms_epsilon', float),
    'tie_embeddings': 'output.weight' not in file.tensors,
    'dtype': dtype,
  }
  fields['attention_bias'] |= 'blk.0.attn_q.bias' in file.tensors
  if family.windows:
    every = read(f'{_WINDOW}_pattern', int, 6)
    fields |= {'window': read(_WINDOW, int, 0),
               'global_every': every if every <= fields['layers'] else 0,
               'local_rope_base': read('rope.freq_base_swa', float, 10000.0)}
  return DecoderConfig(**{**fields, **changes})


def _rope_scaling(file: GgufFile, head_width: int, base: float) -> RopeScaling | None:
  """Llama 3's stretching, which GGUF holds as one divisor for each frequency."""
  if _ROPE_FACTORS not in file.tensors:
    return None
  tensor, shape = file.tensors[_ROPE_FACTORS], (head_width // 2,)
  file.require(tensor.kind == 'F32' and tensor.shape == shape, _ROPE_FACTORS,
               f'F32 of shape {shape}', (tensor.kind, tensor.shape))
  factors = file.dequantize(_ROPE_FACTORS)
  scaling = RopeScaling(factor=float(factors.max()))
  one = jnp.ones(())
  want = rotary_angles(one, head_width, base) / rotary_angles(one, head_width, base, scaling)
  file.require(np.allclose(factors, want, rtol=1e-4), _ROPE_FACTORS,
               f"Llama 3's factors {np.asarray(want)}", factors)
  return scaling


def load_decoder(
  file: GgufFile,
  config: DecoderConfig,
  shardings: PyTree | None = None,
  dtype: Any = jnp.bfloat16,
  then: Callable[[str, jax.Array], PyTree] = lambda name, x: x,
) -> PyTree:
  """Dequantises a decoder's parameters and puts them on devices, one after another.

  The host holds one parameter, its layers stacked, and one dequantised tensor at a time.

  Args:
    file: see `open_gguf`.
    config: see `decoder_config`.
    shardings: a sharding for every parameter; None for the default device.
    dtype: of the parameters, float32 or bfloat16.
    then: applied to each parameter and its name ('layers/mlp/up/kernel') before the next is read,
      such as `models.quantized.quantizer`.

  Returns:
    Parameters in the layout of `models.decoder`.

  Raises:
    ValueError: tensors are missing, not known, of another shape or of a type that is not read (all
      of them in one message), or the shardings are not those of the parameters.
  """
  dtype = parameter_dtype(dtype)
  places = check(file, config)
  flat = flat_shardings(shardings, places)
  turned = architecture(file) in _TURNED
  params = {}
  for key, place in places.items():
    host = np.empty(place.stacked, dtype)
    whole = tuple(slice(0, n) for n in place.shape)
    for row, name in zip([...] if place.layers is None else range(len(host)), place.names):
      x = file.dequantize(name)
      if turned and key.startswith(('layers/attention/q/', 'layers/attention/k/')):
        x = _halves(x, config.head_width)
      if config.centred_norms and key.endswith('norm/scale'):
        x = x - 1  # llama.cpp keeps what the norm multiplies by
      host[row] = place.ours(x.__getitem__, whole)
    params[key] = then(key, laid_out(host, flat[key]))
  return unflatten_dict(params, sep='/')


def _halves(x: np.ndarray, head_width: int) -> np.ndarray:
  """[N * H, ...] with each head's rotary pairs side by side to one where they are H/2 apart."""
  pairs = x.reshape(-1, head_width // 2, 2, *x.shape[1:])
  return pairs.swapaxes(1, 2).reshape(x.shape)


def _places(config: DecoderConfig) -> dict[str, Place]:
  names = {**_NAMES, **(_GEMMA_NAMES if config.post_norms else {})}

  def named(name: str) -> str:
    layer = 'model.layers.{}.'
    stem, kind = name.removeprefix(layer).rsplit('.', 1)
    return f'{"blk.{}." if name.startswith(layer) else ""}{names[stem]}.{kind}'

  places = decoder_places(config)
  return {key: dataclasses.replace(p, name=named(p.name)) for key, p in places.items()}


def check(file: GgufFile, config: DecoderConfig) -> dict[str, Place]:
  """The place of every parameter, once the tensors are known to be the decoder's.

  Raises:
    ValueError: tensors are missing, not known, of another shape or of a type that is not read (all
      of them in one message).
  """
  check_layers(file.path, config, file.tensors)
  places = _places(config)
  shapes = {name: place.tensor_shape for place in places.values() for name in place.names}
  wrong = differences(shapes, {name: tensor.shape for name, tensor in file.tensors.items()
                               if name != _ROPE_FACTORS})
  unread = [f'{name} {tensor.kind}' for name, tensor in file.tensors.items()
            if name in shapes and tensor.kind not in TYPES]
  if unread:
    wrong += f'\n  types other than {", ".join(TYPES)}: {", ".join(unread)}'
  if wrong:
    raise ValueError(f'{file.path}: its tensors do not fit the decoder{wrong}')
  return places
