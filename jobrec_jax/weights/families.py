"""The model families whose config.json we read and write: Llama, Mistral, Qwen 2 and 3, Gemma 3.

A key that is absent has the default that the family's own code gives it. Whatever would change the
computation in a way that our decoder does not follow is refused.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from jobrec_jax.models.attention import RopeScaling
from jobrec_jax.models.decoder import DecoderConfig

_ROPE_TYPES = ('default', 'llama3')
_KINDS = {False: 'full_attention', True: 'sliding_attention'}  # of layers, by having a window


# What families differ in, by field of `DecoderConfig`, and Llama's value.
_PLAIN = {'attention_bias': False, 'qk_norm': False, 'activation': 'silu', 'post_norms': False,
          'centred_norms': False, 'scaled_embeddings': False}
_GEMMA = {'qk_norm': True, 'activation': 'gelu_tanh', 'post_norms': True, 'centred_norms': True,
          'scaled_embeddings': True}


@dataclasses.dataclass(frozen=True)
class Family:
  """What a family's config.json leaves unsaid.

  Attributes:
    architecture: the class that config.json names.
    computes: fields of `DecoderConfig` where it differs from Llama.
    kv_heads: where `num_key_value_heads` is absent; None for as many as heads.
    head_width: where `head_dim` is absent; None for hidden_size / num_attention_heads.
    rope_base: where no base is given.
    tied: where `tie_word_embeddings` is absent.
    windows: whether some layers have windows.
    fixed: keys with the only values we can follow; these are also the defaults.
  """

  architecture: str
  computes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  kv_heads: int | None = None
  head_width: int | None = None
  rope_base: float = 10000.0
  tied: bool = False
  windows: bool = False
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def fields(self) -> dict[str, Any]:
    """Of `DecoderConfig`, those in which families differ."""
    return {**_PLAIN, **self.computes}


FAMILIES = {
  'llama': Family('LlamaForCausalLM',
                  fixed={'hidden_act': 'silu', 'attention_bias': False, 'mlp_bias': False}),
  'mistral': Family('MistralForCausalLM', kv_heads=8, fixed={'hidden_act': 'silu'}),
  'qwen2': Family('Qwen2ForCausalLM', {'attention_bias': True}, kv_heads=32,
                  fixed={'hidden_act': 'silu', 'use_sliding_window': False}),
  'qwen3': Family('Qwen3ForCausalLM', {'qk_norm': True}, kv_heads=32, head_width=128,
                  fixed={'hidden_act': 'silu', 'attention_bias': False,
                         'use_sliding_window': False}),
  'gemma3_text': Family('Gemma3ForCausalLM', _GEMMA, kv_heads=4, head_width=256, rope_base=1e6,
                        tied=True, windows=True,
                        fixed={'hidden_activation': 'gelu_pytorch_tanh', 'attention_bias': False,
                               'attn_logit_softcapping': None, 'final_logit_softcapping': None,
                               'use_bidirectional_attention': False}),
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
  for key, only in family.fixed.items():
    actual = config_json.get(key, only)
    _require(actual == only, key, f'{only!r}', actual)
  _refuse_variants(config_json, family)
  heads = _whole(config_json, 'num_attention_heads')
  width = _whole(config_json, 'hidden_size')
  base, scaling = _rope(config_json, family)
  fields = {
    **family.fields,
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
    'tie_embeddings': _truth(config_json, 'tie_word_embeddings', family.tied),
    'dtype': dtype,
  }
  if family.windows:
    fields |= _windows(config_json, fields['layers'])
    scores = _whole(config_json, 'query_pre_attn_scalar', absent=256)
    _require(scores == fields['head_width'], 'query_pre_attn_scalar',
             f"head_dim = {fields['head_width']}", scores)
  return DecoderConfig(**{**fields, **changes})


def family_of(config: DecoderConfig) -> str:
  """A key of `FAMILIES` that can express the decoder; Mistral's are Llama's but for their name."""
  if config.post_norms:
    return 'gemma3_text'
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
  for key, allowed in {**f.fields, **({} if f.windows else {'window': 0})}.items():
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
  if f.windows:
    kinds = [_KINDS[config.has_window(i)] for i in range(config.layers)]
    written |= {'sliding_window': config.window or None, 'layer_types': kinds,
                'rope_local_base_freq': config.local_rope_base,
                'query_pre_attn_scalar': config.head_width}
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


def _truth(config: Mapping[str, Any], key: str, absent: bool) -> bool:
  value = config.get(key, absent)
  _require(isinstance(value, bool), key, 'true or false', value)
  return value


def _refuse_variants(config: Mapping[str, Any], family: Family) -> None:
  quantised = config.get('quantization_config')
  _require(quantised is None, 'quantization_config', 'none: weights of 16 or 32 bits', quantised)
  kinds = set(config.get('layer_types') or ()) - {_KINDS[False]}
  _require(family.windows or not kinds, 'layer_types', f'{_KINDS[False]!r} alone', sorted(kinds))
  if config['model_type'] == 'mistral':
    window = config.get('sliding_window', 4096)
    positions = _whole(config, 'max_position_embeddings', absent=131072)
    _require(window is None or window >= positions, 'sliding_window',
             f'null, or at least max_position_embeddings = {positions} (for texts no longer than '
             'the window, pass a config.json where it is null)', window)


def _windows(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
  """The fields that say which layers have a window, and of what kind."""
  kinds = config.get('layer_types')
  if kinds is None:
    every = _whole(config, '_sliding_window_pattern',
                   absent=_whole(config, 'sliding_window_pattern', absent=6))
  else:
    # The first layer without a window says how often they come, for all others to confirm.
    every = kinds.index(_KINDS[False]) + 1 if _KINDS[False] in kinds else 0
    want = [_KINDS[every == 0 or (i + 1) % every > 0] for i in range(len(kinds))]
    _require(len(kinds) == layers and kinds == want, 'layer_types',
             f'{layers} with {_KINDS[False]!r} at regular distances, the others {_KINDS[True]!r}',
             kinds)
  window = config.get('sliding_window', 4096)
  window = 0 if window is None else _whole(config, 'sliding_window', absent=4096)
  rope, where = _rope_settings(config, _KINDS[True])
  kind = rope.get(f'{where}.rope_type', 'default')
  _require(kind == 'default', f'{where}.rope_type', "'default'", kind)
  base = _rope_base(config, rope, where, 'rope_local_base_freq', 10000.0)
  every = every if every <= layers else 0  # a distance that no layer reaches is none
  return {'window': window, 'global_every': every, 'local_rope_base': base}


def _rope_settings(config: Mapping[str, Any], layers: str) -> tuple[dict[str, Any], str]:
  """The rotary settings of layers of a kind, under their names in the file; and where they stand.

  Of kinds apart, the newer files of families with windows have a mapping for each; in older ones
  what stands there is for layers without a window.
  """
  parted = isinstance(config.get('rope_parameters'), Mapping) and (
    set(_KINDS.values()) & set(config['rope_parameters']))
  where = 'rope_scaling' if config.get('rope_scaling') else 'rope_parameters'
  rope = config.get(where) or {}
  if parted and where == 'rope_parameters':
    rope, where = rope.get(layers) or {}, f'{where}.{layers}'
  elif layers == _KINDS[True]:
    rope = {}
  _require(isinstance(rope, Mapping), where, 'a mapping', rope)
  return {f'{where}.{key}': value for key, value in rope.items()}, where


def _rope_base(config: Mapping[str, Any], rope: Mapping[str, Any], where: str, key: str,
               absent: float) -> float:
  """Older files keep the base beside the other settings, newer ones within."""
  within = f'{where}.rope_theta'
  return _number(rope, within) if within in rope else _number(config, key, absent)


def _rope(config: Mapping[str, Any], family: Family) -> tuple[float, RopeScaling | None]:
  """Base and stretching of layers without a window."""
  rope, where = _rope_settings(config, _KINDS[False])
  kind = rope.get(f'{where}.rope_type', rope.get(f'{where}.type', 'default'))
  _require(kind in _ROPE_TYPES, f'{where}.rope_type', f'one of {_ROPE_TYPES}', kind)
  for key, values in (('partial_rotary_factor', config), (f'{where}.partial_rotary_factor', rope)):
    part = values.get(key)
    _require(part is None or part == 1, key, '1', part)
  base = _rope_base(config, rope, where, 'rope_theta', family.rope_base)
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
