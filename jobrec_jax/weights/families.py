"""The model families whose config.json we read and write: Llama, Mistral, Qwen 2 and Qwen 3.

A key that is absent has the default that the family's own code gives it. Whatever would change the
computation in a way that our decoder does not follow is refused.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jobrec_jax.models.attention import RopeScaling
from jobrec_jax.models.decoder import DecoderConfig

_ROPE_BASE = 10000.0
_ROPE_TYPES = ('default', 'llama3')


@dataclasses.dataclass(frozen=True)
class Family:
  """What a family's config.json leaves unsaid.

  Attributes:
    architecture: the class that config.json names.
    biases: whether q, k and v have biases.
    qk_norm: whether queries and keys are normed by head.
    kv_heads: where `num_key_value_heads` is absent; None for as many as heads.
    head_width: where `head_dim` is absent; None for hidden_size / num_attention_heads.
    fixed: keys with the only values we can follow; these are also the defaults.
  """

  architecture: str
  biases: bool = False
  qk_norm: bool = False
  kv_heads: int | None = None
  head_width: int | None = None
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FAMILIES = {
  'llama': Family('LlamaForCausalLM', fixed={'attention_bias': False, 'mlp_bias': False}),
  'mistral': Family('MistralForCausalLM', kv_heads=8),
  'qwen2': Family('Qwen2ForCausalLM', biases=True, kv_heads=32,
                  fixed={'use_sliding_window': False}),
  'qwen3': Family('Qwen3ForCausalLM', qk_norm=True, kv_heads=32, head_width=128,
                  fixed={'attention_bias': False, 'use_sliding_window': False}),
}


def decoder_config(
  config_json: Mapping[str, Any], dtype: str = 'float32', **changes: Any
) -> DecoderConfig:
  """The decoder that a config.json describes.

  Args:
    config_json: the file's content.
    dtype: of the products, see `DecoderConfig`.
    **changes: fields of `DecoderConfig` set otherwise, such as `remat`, `unroll` and `lora`.

  Raises:
    ValueError: a key is missing, out of range or asks for what the decoder cannot do, with the key,
      what it must be and what came.
  """
  family = _family(config_json)
  for key, only in {'hidden_act': 'silu', **family.fixed}.items():
    actual = config_json.get(key, only)
    _require(actual == only, key, f'{only!r}', actual)
  _refuse_variants(config_json)
  heads = _whole(config_json, 'num_attention_heads')
  width = _whole(config_json, 'hidden_size')
  base, scaling = _rope(config_json)
  fields = {
    'vocab_size': _whole(config_json, 'vocab_size'),
    'width': width,
    'layers': _whole(config_json, 'num_hidden_layers'),
    'heads': heads,
    'kv_heads': _whole(config_json, 'num_key_value_heads', heads, family.kv_heads or heads),
    'head_width': _whole(config_json, 'head_dim', width // heads, family.head_width),
    'mlp_width': _whole(config_json, 'intermediate_size'),
    'rope_base': base,
    'rope_scaling': scaling,
    'rms_epsilon': _number(config_json, 'rms_norm_eps', 1e-6),
    'attention_bias': family.biases,
    'qk_norm': family.qk_norm,
    'tie_embeddings': _truth(config_json, 'tie_word_embeddings'),
    'dtype': dtype,
  }
  return DecoderConfig(**{**fields, **changes})


def family_of(config: DecoderConfig) -> str:
  """A key of `FAMILIES` that can express the decoder; Mistral's are Llama's but for their name."""
  return 'qwen3' if config.qk_norm else 'qwen2' if config.attention_bias else 'llama'


def config_json(config: DecoderConfig, family: str, **changes: Any) -> dict[str, Any]:
  """The config.json of a decoder, which transformers of any version reads.

  Args:
    config: the decoder; what only concerns its training (dtype, remat, unroll, lora) is left out.
    family: a key of `FAMILIES`.
    **changes: keys of the file set otherwise, such as `max_position_embeddings` (if absent: Llama
      3's stretched length, or 32,768) or `eos_token_id` (if absent: none).

  Raises:
    ValueError: the family is unknown or cannot express the decoder.
  """
  _require(family in FAMILIES, 'model_type', f'one of {tuple(FAMILIES)}', family)
  f, scaling = FAMILIES[family], config.rope_scaling
  for key, allowed in (('attention_bias', f.biases), ('qk_norm', f.qk_norm)):
    got = getattr(config, key)
    if got != allowed:
      raise ValueError(f'decoder {key} must be {allowed} in family {family}, got {got}')
  if family == 'llama' and config.width % config.heads:
    raise ValueError(f'decoder width must be a multiple of heads = {config.heads} in family '
                     f'llama, got {config.width}')
  written = {
    'architectures': [f.architecture],
    'model_type': family,
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'intermediate_size': config.mlp_width,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_width,
    'hidden_act': 'silu',
    'rms_norm_eps': config.rms_epsilon,
    'tie_word_embeddings': config.tie_embeddings,
    'rope_theta': config.rope_base,  # Transformers 5 reads this form too, older ones only this.
    'rope_scaling': None,
    'max_position_embeddings': 32768,
    'bos_token_id': None,
    'eos_token_id': None,
    **f.fixed,
  }
  if family == 'mistral':
    written['sliding_window'] = None
  if scaling is not None:
    written['max_position_embeddings'] = int(scaling.factor * scaling.original_positions)
    written['rope_scaling'] = {
      'rope_type': 'llama3',
      'factor': scaling.factor,
      'low_freq_factor': scaling.low,
      'high_freq_factor': scaling.high,
      'original_max_position_embeddings': scaling.original_positions,
    }
  return {**written, **changes}


def _require(ok: bool, key: str, allowed: str, got: object) -> None:
  if not ok:
    raise ValueError(f'config.json: {key} must be {allowed}, got {got!r}')


def _family(config: Mapping[str, Any]) -> Family:
  name = config.get('model_type')
  _require(name in FAMILIES, 'model_type', f'one of {tuple(FAMILIES)}', name)
  return FAMILIES[name]


def _whole(
  config: Mapping[str, Any], key: str, null: int | None = None, absent: int | None = None
) -> int:
  """A positive integer; `null` where it is null, and `absent` (else null's) where it is absent."""
  value = config.get(key, null if absent is None else absent)
  value = null if value is None else value
  whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
  _require(whole, key, 'a positive integer', value)
  return value


def _number(config: Mapping[str, Any], key: str, absent: float | None = None) -> float:
  value = config.get(key, absent)
  number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
  _require(number, key, 'a number above 0', value)
  return float(value)


def _truth(config: Mapping[str, Any], key: str) -> bool:
  value = config.get(key, False)
  _require(isinstance(value, bool), key, 'true or false', value)
  return value


def _refuse_variants(config: Mapping[str, Any]) -> None:
  quantised = config.get('quantization_config')
  _require(quantised is None, 'quantization_config', 'none: weights of 16 or 32 bits', quantised)
  kinds = set(config.get('layer_types') or ()) - {'full_attention'}
  _require(not kinds, 'layer_types', "'full_attention' alone", sorted(kinds))
  if config['model_type'] == 'mistral':
    window = config.get('sliding_window', 4096)
    positions = _whole(config, 'max_position_embeddings', absent=131072)
    _require(window is None or window >= positions, 'sliding_window',
             f'null, or at least max_position_embeddings = {positions} (for texts no longer than '
             'the window, pass a config.json where it is null)', window)


def _rope(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
  """Base and stretching; older files keep the base beside `rope_scaling`, newer ones within."""
  where = 'rope_scaling' if config.get('rope_scaling') else 'rope_parameters'
  rope = config.get(where) or {}
  _require(isinstance(rope, Mapping), where, 'a mapping', rope)
  rope = {f'{where}.{key}': value for key, value in rope.items()}
  kind = rope.get(f'{where}.rope_type', rope.get(f'{where}.type', 'default'))
  _require(kind in _ROPE_TYPES, f'{where}.rope_type', f'one of {_ROPE_TYPES}', kind)
  for key, values in (('partial_rotary_factor', config), (f'{where}.partial_rotary_factor', rope)):
    part = values.get(key)
    _require(part is None or part == 1, key, '1', part)
  if f'{where}.rope_theta' in rope:
    base = _number(rope, f'{where}.rope_theta')
  else:
    base = _number(config, 'rope_theta', _ROPE_BASE)
  if kind == 'default':
    return base, None
  low, high = (_number(rope, f'{where}.{key}_freq_factor') for key in ('low', 'high'))
  _require(low < high, f'{where}.low_freq_factor', f'below high_freq_factor = {high}', low)
  return base, RopeScaling(
    factor=_number(rope, f'{where}.factor'),
    low=low,
    high=high,
    original_positions=_whole(rope, f'{where}.original_max_position_embeddings'),
  )
