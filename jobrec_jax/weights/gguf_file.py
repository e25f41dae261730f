"""GGUF files of llama.cpp in: the decoder's sizes and its parameters.

Read are the architectures llama (Mistral among them), qwen2 and qwen3, plain or quantised as in
`TYPES`; keys that would change the computation are refused. A file is mapped, not read: only the
tensor at hand is ever held dequantised.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import mmap
from pathlib import Path
import struct
from typing import Any

from flax.traverse_util import unflatten_dict
import gguf
from gguf import GGMLQuantizationType as TensorType
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.attention import RopeScaling, rotary_angles
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.weights.places import (
  Place,
  decoder_places,
  differences,
  flat_shardings,
  parameter_dtype,
)

PyTree = Any

# Whether q and k are stored with their rotary pairs side by side, as llama.cpp turns Llama's.
ARCHITECTURES = {'llama': True, 'qwen2': False, 'qwen3': False}
TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K', 'Q6_K')

# Keys that change what a model computes, and the values under which they change nothing.
_NEUTRAL = {
  'expert_count': (0,),
  'attention.sliding_window': (0,),
  'attention.causal': (True,),
  'attention.scale': (0,),
  'attention.clamp_kqv': (0,),
  'attention.max_alibi_bias': (0,),
  'rope.scaling.type': ('none',),
  'rope.scaling.factor': (0, 1),
  'rope.scale_linear': (0, 1),
  'embedding_scale': (0, 1),
  'residual_scale': (0, 1),
  'logit_scale': (0, 1),
}
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

_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q',
            12: 'd'}  # struct's name of each kind of metadata
_STRING, _ARRAY = 8, 9


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies.

  Attributes:
    kind: its type's name in GGUF, such as 'Q4_1'.
    shape: sizes of its axes, rows first (GGUF writes them in the opposite order).
    start: of its bytes in the file.
  """

  kind: str
  shape: tuple[int, ...]
  start: int

  def byte_shape(self) -> tuple[int, ...]:
    """The shape of its bytes; a ValueError where rows are not whole blocks."""
    return gguf.quant_shape_to_byte_shape(self.shape, TensorType[self.kind])


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """An open file: its metadata by key, its tensors by name, and its mapped bytes."""

  path: Path
  metadata: Mapping[str, Any]
  tensors: Mapping[str, Tensor]
  data: np.ndarray

  @property
  def architecture(self) -> str:
    """Its family; a ValueError where it is none of `ARCHITECTURES`."""
    name = self.metadata.get('general.architecture')
    self.require(name in ARCHITECTURES, 'general.architecture',
                 f'one of {tuple(ARCHITECTURES)}', name)
    return name

  def require(self, ok: bool, key: str, allowed: str, got: object) -> None:
    """Raises a ValueError with the file, unless all is well."""
    _require(ok, self.path, key, allowed, got)

  def dequantize(self, name: str) -> np.ndarray:
    """The tensor's numbers, fp32, in its own shape."""
    tensor = self.tensors[name]
    shape = tensor.byte_shape()
    raw = self.data[tensor.start : tensor.start + math.prod(shape)].reshape(shape)
    return gguf.dequantize(raw, TensorType[tensor.kind])


def _require(ok: bool, path: Path, key: str, allowed: str, got: object) -> None:
  if not ok:
    raise ValueError(f'{path}: {key} must be {allowed}, got {got!r}')


class _Cursor:
  """Reads the header's values in turn; struct.error or EOFError beyond the end."""

  def __init__(self, data: mmap.mmap):
    self.data, self.at = data, 0

  def unpack(self, kinds: str) -> tuple:
    values = struct.unpack_from(f'<{kinds}', self.data, self.at)
    self.at += struct.calcsize(f'<{kinds}')
    return values

  def string(self) -> str:
    (length,) = self.unpack('Q')
    if length > len(self.data) - self.at:
      raise EOFError
    self.at += length
    return self.data[self.at - length : self.at].decode()

  def value(self) -> Any:
    (kind,) = self.unpack('I')
    if kind != _ARRAY:
      return self._of_kind(kind, 1)[0]
    kind, count = self.unpack('IQ')
    return self._of_kind(kind, count)

  def _of_kind(self, kind: int, count: int) -> list:
    if count > len(self.data) - self.at:  # Every value takes a byte at least.
      raise EOFError
    if kind == _STRING:
      return [self.string() for _ in range(count)]
    if kind not in _SCALARS:
      raise ValueError(f'unknown kind of metadata {kind}')
    return list(self.unpack(f'{count}{_SCALARS[kind]}'))


def open_gguf(path: str | Path) -> GgufFile:
  """Maps a file and reads its header.

  Args:
    path: a GGUF file, version 2 or 3, little-endian.

  Raises:
    ValueError: it cannot be read, is none, or is cut; with the file and what came.
  """
  path = Path(path)
  try:
    with path.open('rb') as file:
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, ValueError) as error:  # a ValueError: it is empty
    raise ValueError(f'{path}: must be a readable GGUF file, got {error}') from error
  _require(data[:4] == b'GGUF', path, 'the start', "b'GGUF'", data[:4])
  try:
    metadata, tensors = _read_header(path, data)
  except (EOFError, struct.error) as error:
    raise ValueError(f'{path}: its header must be whole; the file ends within it: it is cut, '
                     f'{len(data)} bytes') from error
  except UnicodeDecodeError as error:
    raise ValueError(f'{path}: names and texts must be UTF-8, got {error}') from error
  return GgufFile(path, metadata, tensors, np.frombuffer(data, np.uint8))


def _read_header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, Tensor]]:
  cursor = _Cursor(data)
  cursor.at = 4
  (version,) = cursor.unpack('I')
  _require(version in (2, 3), path, 'GGUF version', '2 or 3, little-endian', version)
  tensor_count, key_count = cursor.unpack('QQ')
  metadata, entries = {}, []
  for _ in range(key_count):
    key = cursor.string()
    _require(key not in metadata, path, key, 'given once', 'it twice')
    try:
      metadata[key] = cursor.value()
    except ValueError as error:
      raise ValueError(f'{path}: {key}: {error}') from error
  for _ in range(tensor_count):
    name = cursor.string()
    (axes,) = cursor.unpack('I')
    _require(1 <= axes <= 4, path, name, 'of 1 to 4 axes', axes)
    shape = cursor.unpack(f'{axes}Q')[::-1]
    entries.append((name, shape, *cursor.unpack('IQ')))
  alignment = metadata.get('general.alignment', 32)
  _require(isinstance(alignment, int) and alignment > 0, path, 'general.alignment',
           'a positive integer', alignment)
  first = -(-cursor.at // alignment) * alignment
  names = {kind.value: kind.name for kind in TensorType}
  tensors = {name: Tensor(names.get(kind, f'type {kind}'), shape, first + start)
             for name, shape, kind, start in entries}
  _require(len(tensors) == len(entries), path, 'tensors', 'of different names',
           [name for name, *_ in entries])
  _require_whole(path, tensors, len(data))
  return metadata, tensors


def _require_whole(path: Path, tensors: Mapping[str, Tensor], size: int) -> None:
  """Raises a ValueError where tensors reach beyond the file's end; types not read are not asked."""
  cut = []
  for name, tensor in tensors.items():
    if tensor.kind in TYPES:
      try:
        end = tensor.start + math.prod(tensor.byte_shape())
      except ValueError as error:
        raise ValueError(f'{path}: {name}: {error}') from error
      if end > size:
        cut.append(name)
  _require(not cut, path, 'the file', f'whole; with {size} bytes it is cut within its tensors', cut)


def decoder_config(file: GgufFile, dtype: str = 'float32', **changes: Any) -> DecoderConfig:
  """The decoder that the metadata describes.

  Args:
    file: see `open_gguf`.
    dtype: of the products, see `DecoderConfig`.
    **changes: fields of `DecoderConfig` set otherwise, such as `remat`, `unroll` and `lora`.

  Raises:
    ValueError: an architecture, or a value of the metadata, that the decoder does not compute.
  """
  family = file.architecture
  for key, neutral in _NEUTRAL.items():
    got = file.metadata.get(f'{family}.{key}', neutral[0])
    file.require(got in neutral, f'{family}.{key}', f'one of {neutral} or absent', got)

  def read(key: str, kind: type, default: Any = None) -> Any:
    value = file.metadata.get(f'{family}.{key}', default)
    file.require(type(value) is kind, f'{family}.{key}', f'of type {kind.__name__}', value)
    # Stored in 32 bits: 1e-5 reads as 9.99e-06 unless taken as the shortest number that is stored.
    return value if kind is int else float(str(np.float32(value)))

  width, heads = read('embedding_length', int), read('attention.head_count', int)
  file.require(heads > 0, f'{family}.attention.head_count', 'positive', heads)
  H = read('attention.key_length', int, width // heads)
  for key in ('attention.value_length', 'rope.dimension_count'):
    got = read(key, int, H)
    file.require(got == H, f'{family}.{key}', f'the head width {H}', got)
  file.require('token_embd.weight' in file.tensors, 'tensors',
               'those of a model, token_embd.weight among them', sorted(file.tensors))
  base = read('rope.freq_base', float, 10000.0)
  fields = {
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
    'attention_bias': family == 'qwen2' or 'blk.0.attn_q.bias' in file.tensors,
    'qk_norm': family == 'qwen3',
    'tie_embeddings': 'output.weight' not in file.tensors,
    'dtype': dtype,
  }
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
  places = _places(config)
  _check_tensors(file, places)
  flat = flat_shardings(shardings, places)
  turned = ARCHITECTURES[file.architecture]
  params = {}
  for key, place in places.items():
    host = np.empty(place.stacked, dtype)
    whole = tuple(slice(0, n) for n in place.shape)
    for row, name in zip([...] if place.layers is None else range(len(host)), place.names):
      x = file.dequantize(name)
      if turned and key.startswith(('layers/attention/q/', 'layers/attention/k/')):
        x = _halves(x, config.head_width)
      host[row] = place.ours(x.__getitem__, whole)
    params[key] = then(key, jax.device_put(host, flat[key]))
  return unflatten_dict(params, sep='/')


def _halves(x: np.ndarray, head_width: int) -> np.ndarray:
  """[N * H, ...] with each head's rotary pairs side by side to one where they are H/2 apart."""
  pairs = x.reshape(-1, head_width // 2, 2, *x.shape[1:])
  return pairs.swapaxes(1, 2).reshape(x.shape)


def _places(config: DecoderConfig) -> dict[str, Place]:
  def named(name: str) -> str:
    layer = 'model.layers.{}.'
    stem, kind = name.removeprefix(layer).rsplit('.', 1)
    return f'{"blk.{}." if name.startswith(layer) else ""}{_NAMES[stem]}.{kind}'

  places = decoder_places(config)
  return {key: dataclasses.replace(p, name=named(p.name)) for key, p in places.items()}


def _check_tensors(file: GgufFile, places: Mapping[str, Place]) -> None:
  shapes = {name: place.tensor_shape for place in places.values() for name in place.names}
  wrong = differences(shapes, {name: tensor.shape for name, tensor in file.tensors.items()
                               if name != _ROPE_FACTORS})
  unread = [f'{name} {tensor.kind}' for name, tensor in file.tensors.items()
            if name in shapes and tensor.kind not in TYPES]
  if unread:
    wrong += f'\n  types other than {", ".join(TYPES)}: {", ".join(unread)}'
  if wrong:
    raise ValueError(f'{file.path}: its tensors do not fit the decoder{wrong}')
