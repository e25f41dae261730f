"""config.json of every family: against transformers' own reading of it, and its refusals."""

import dataclasses

from hypothesis import given, settings, strategies as st
import pytest
from transformers import AutoConfig

from jobrec_jax.models.attention import RopeScaling
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.weights.families import FAMILIES, config_json, decoder_config

LEAST = {'vocab_size': 100, 'hidden_size': 256, 'intermediate_size': 64, 'num_hidden_layers': 2,
         'num_attention_heads': 32}
LLAMA3 = {'factor': 32.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
          'original_max_position_embeddings': 8192}


def least(family, **changes):
  window = {'sliding_window': None} if family == 'mistral' else {}
  return {'model_type': family, **LEAST, **window, **changes}


@pytest.mark.parametrize('family', FAMILIES)
def test_absent_keys_have_the_defaults_of_transformers(family):
  theirs = AutoConfig.for_model(**least(family))
  heads, width = theirs.num_attention_heads, theirs.hidden_size
  gemma = family == 'gemma3_text'
  ropes = theirs.rope_parameters
  more = {} if not gemma else {
    'activation': 'gelu_tanh', 'post_norms': True, 'centred_norms': True,
    'scaled_embeddings': True, 'window': theirs.sliding_window, 'global_every': 0,
    'local_rope_base': ropes['sliding_attention']['rope_theta']}
  assert decoder_config(least(family)) == DecoderConfig(
    vocab_size=theirs.vocab_size, width=width, layers=theirs.num_hidden_layers, heads=heads,
    kv_heads=theirs.num_key_value_heads,
    head_width=getattr(theirs, 'head_dim', width // heads), mlp_width=theirs.intermediate_size,
    rope_base=ropes.get('full_attention', ropes)['rope_theta'], rms_epsilon=theirs.rms_norm_eps,
    attention_bias=family == 'qwen2', qk_norm=family in ('qwen3', 'gemma3_text'),
    tie_embeddings=theirs.tie_word_embeddings, **more,
  )


PUBLISHED = {
  'Llama 3.2 1B': (
    {'model_type': 'llama', 'vocab_size': 128256, 'hidden_size': 2048, 'intermediate_size': 8192,
     'num_hidden_layers': 16, 'num_attention_heads': 32, 'num_key_value_heads': 8, 'head_dim': 64,
     'rms_norm_eps': 1e-5, 'rope_theta': 500000.0, 'tie_word_embeddings': True,
     'rope_scaling': {**LLAMA3, 'rope_type': 'llama3'}},
    DecoderConfig(128256, 2048, 16, 32, 8, 64, 8192, rope_base=500000.0,
                  rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192)),
  ),
  'SmolLM2 135M': (
    {'model_type': 'llama', 'vocab_size': 49152, 'hidden_size': 576, 'intermediate_size': 1536,
     'num_hidden_layers': 30, 'num_attention_heads': 9, 'num_key_value_heads': 3,
     'rms_norm_eps': 1e-5, 'rope_theta': 100000, 'rope_scaling': None,
     'tie_word_embeddings': True},
    DecoderConfig(49152, 576, 30, 9, 3, 64, 1536, rope_base=100000.0),
  ),
  'Mistral 7B v0.3': (
    {'model_type': 'mistral', 'vocab_size': 32768, 'hidden_size': 4096, 'intermediate_size': 14336,
     'num_hidden_layers': 32, 'num_attention_heads': 32, 'num_key_value_heads': 8,
     'max_position_embeddings': 32768, 'rms_norm_eps': 1e-5, 'rope_theta': 1000000.0,
     'sliding_window': None, 'tie_word_embeddings': False},
    DecoderConfig(32768, 4096, 32, 32, 8, 128, 14336, rope_base=1e6, tie_embeddings=False),
  ),
  'Qwen2.5 0.5B': (
    {'model_type': 'qwen2', 'vocab_size': 151936, 'hidden_size': 896, 'intermediate_size': 4864,
     'num_hidden_layers': 24, 'num_attention_heads': 14, 'num_key_value_heads': 2,
     'max_position_embeddings': 32768, 'max_window_layers': 24, 'rms_norm_eps': 1e-6,
     'rope_theta': 1000000.0, 'sliding_window': 32768, 'use_sliding_window': False,
     'tie_word_embeddings': True},
    DecoderConfig(151936, 896, 24, 14, 2, 64, 4864, rope_base=1e6, rms_epsilon=1e-6,
                  attention_bias=True),
  ),
  'Qwen3 0.6B': (
    {'model_type': 'qwen3', 'vocab_size': 151936, 'hidden_size': 1024, 'intermediate_size': 3072,
     'num_hidden_layers': 28, 'num_attention_heads': 16, 'num_key_value_heads': 8, 'head_dim': 128,
     'attention_bias': False, 'rms_norm_eps': 1e-6, 'rope_theta': 1000000, 'rope_scaling': None,
     'sliding_window': None, 'use_sliding_window': False, 'tie_word_embeddings': True},
    DecoderConfig(151936, 1024, 28, 16, 8, 128, 3072, rope_base=1e6, rms_epsilon=1e-6,
                  qk_norm=True),
  ),
  'Gemma 3 270M': (
    {'model_type': 'gemma3_text', 'vocab_size': 262144, 'hidden_size': 640,
     'intermediate_size': 2048, 'num_hidden_layers': 18, 'num_attention_heads': 4,
     'num_key_value_heads': 1, 'head_dim': 256, 'hidden_activation': 'gelu_pytorch_tanh',
     'rms_norm_eps': 1e-6, 'rope_theta': 1000000.0, 'rope_local_base_freq': 10000.0,
     'rope_scaling': None, 'query_pre_attn_scalar': 256, 'sliding_window': 512,
     '_sliding_window_pattern': 6, 'layer_types': (['sliding_attention'] * 5
                                                   + ['full_attention']) * 3,
     'attn_logit_softcapping': None, 'final_logit_softcapping': None, 'attention_bias': False},
    DecoderConfig(262144, 640, 18, 4, 1, 256, 2048, rope_base=1e6, rms_epsilon=1e-6, qk_norm=True,
                  activation='gelu_tanh', post_norms=True, centred_norms=True,
                  scaled_embeddings=True, window=512, global_every=6),
  ),
}


@pytest.mark.parametrize(('file', 'expected'), PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_files(file, expected):
  assert decoder_config(file) == expected
  assert decoder_config(AutoConfig.for_model(**file).to_dict()) == expected  # transformers 5's form
  changed = decoder_config(file, dtype='bfloat16', remat='full', unroll=2)
  assert changed == dataclasses.replace(expected, dtype='bfloat16', remat='full', unroll=2)


@pytest.mark.parametrize('file', [
  {'rope_theta': 7.0, 'rope_scaling': {'type': 'llama3', **LLAMA3}},
  {'rope_theta': 7.0, 'rope_parameters': {'rope_type': 'llama3', **LLAMA3}},
  {'rope_theta': 9.0, 'rope_parameters': {'rope_type': 'llama3', 'rope_theta': 7.0, **LLAMA3}},
  {'rope_theta': 9.0, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 8.0},
   'rope_scaling': {'rope_type': 'llama3', 'rope_theta': 7.0, **LLAMA3}},
])
def test_every_form_of_the_rotary_settings(file):
  config = decoder_config(least('llama', **file))
  assert config.rope_base == 7
  assert config.rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


@pytest.mark.parametrize('file', [
  {'rope_theta': 7.0, 'rope_local_base_freq': 5.0},
  {'rope_parameters': {'full_attention': {'rope_type': 'default', 'rope_theta': 7.0},
                       'sliding_attention': {'rope_type': 'default', 'rope_theta': 5.0}}},
  {'rope_parameters': {'full_attention': {'rope_theta': 7.0}}, 'rope_local_base_freq': 5.0},
  {'rope_scaling': {'rope_type': 'default', 'rope_theta': 7.0}, 'rope_local_base_freq': 5.0},
])
def test_layers_with_windows_have_a_base_of_their_own(file):
  config = decoder_config(least('gemma3_text', **file))
  assert (config.rope_base, config.local_rope_base) == (7, 5)


@pytest.mark.parametrize(('file', 'windows'), [
  ({'layer_types': ['sliding_attention', 'full_attention']}, [True, False]),
  ({'layer_types': ['sliding_attention'] * 2}, [True, True]),
  ({'layer_types': ['full_attention'] * 2}, [False, False]),
  ({'sliding_window_pattern': 2}, [True, False]), ({'_sliding_window_pattern': 1}, [False, False]),
  ({'sliding_window': None}, [False, False]), ({}, [True, True]),
])
def test_which_layers_have_windows(file, windows):
  config = decoder_config(least('gemma3_text', **file))
  assert [config.has_window(i) for i in range(2)] == windows


ERRORS = [
  ('llama', {'model_type': 'gpt2'}, r"model_type must be one of .*'qwen3'.*got 'gpt2'"),
  ('llama', {'model_type': None}, 'model_type must be .*got None'),
  ('llama', {'hidden_act': 'gelu'}, "hidden_act must be 'silu', got 'gelu'"),
  ('llama', {'attention_bias': True}, 'attention_bias must be False, got True'),
  ('llama', {'mlp_bias': True}, 'mlp_bias must be False, got True'),
  ('llama', {'hidden_size': None}, 'hidden_size must be a positive integer, got None'),
  ('llama', {'num_hidden_layers': '2'}, "num_hidden_layers must be a positive integer, got '2'"),
  ('llama', {'num_key_value_heads': 0}, 'num_key_value_heads must be .*got 0'),
  ('llama', {'num_attention_heads': True}, 'num_attention_heads must be .*got True'),
  ('llama', {'rms_norm_eps': -1}, 'rms_norm_eps must be a number above 0, got -1'),
  ('llama', {'rope_theta': 'big'}, "rope_theta must be a number above 0, got 'big'"),
  ('llama', {'tie_word_embeddings': 1}, 'tie_word_embeddings must be true or false, got 1'),
  ('llama', {'rope_scaling': {'type': 'linear', 'factor': 2.0}},
   r"rope_scaling.rope_type must be .*'llama3'.*got 'linear'"),
  ('qwen3', {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}},
   "rope_parameters.rope_type must be .*got 'yarn'"),
  ('llama', {'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0}},
   'rope_scaling.low_freq_factor must be .*got None'),
  ('llama', {'rope_scaling': {'rope_type': 'llama3', **LLAMA3, 'low_freq_factor': 4.0}},
   'rope_scaling.low_freq_factor must be below high_freq_factor = 4.0, got 4.0'),
  ('llama', {'rope_scaling': 'llama3'}, "rope_scaling must be a mapping, got 'llama3'"),
  ('llama', {'rope_parameters': {'partial_rotary_factor': 0.5}},
   'rope_parameters.partial_rotary_factor must be 1, got 0.5'),
  ('llama', {'quantization_config': {'bits': 4}}, 'quantization_config must be none'),
  ('mistral', {'sliding_window': 4096, 'max_position_embeddings': 32768},
   'sliding_window must be null, or at least max_position_embeddings = 32768 .*got 4096'),
  ('qwen2', {'use_sliding_window': True}, 'use_sliding_window must be False, got True'),
  ('qwen2', {'layer_types': ['full_attention', 'sliding_attention']},
   "layer_types must be .*got .'sliding_attention'"),
  ('gemma3_text', {'layer_types': ['full_attention', 'sliding_attention']},
   "layer_types must be 2 with 'full_attention' at regular distances, .*got .'full"),
  ('gemma3_text', {'layer_types': ['sliding_attention']}, 'layer_types must be 2 with'),
  ('gemma3_text', {'layer_types': 'sliding_attention'}, 'layer_types must be 2 with'),
  ('gemma3_text', {'sliding_window': 0}, 'sliding_window must be a positive integer, got 0'),
  ('gemma3_text', {'query_pre_attn_scalar': 168}, 'query_pre_attn_scalar must be head_dim = 256'),
  ('gemma3_text', {'final_logit_softcapping': 30.0}, 'final_logit_softcapping must be None'),
  ('gemma3_text', {'hidden_activation': 'silu'}, "must be 'gelu_pytorch_tanh', got 'silu'"),
  ('gemma3_text', {'use_bidirectional_attention': True}, 'use_bidirectional_attention must be F'),
  ('gemma3_text', {'rope_parameters': {'full_attention': {'rope_type': 'linear', 'factor': 8.0}}},
   'rope_parameters.full_attention.rope_type must be .*linear'),
  ('gemma3_text', {'rope_parameters': {'sliding_attention': {'rope_type': 'llama3'}}},
   "rope_parameters.sliding_attention.rope_type must be 'default', got 'llama3'"),
  ('gemma3', {}, "model_type must be one of .*'gemma3_text'.*got 'gemma3'"),
  ('qwen3', {'attention_bias': True}, 'attention_bias must be False, got True'),
  ('llama', {'num_attention_heads': 7, 'num_key_value_heads': 3}, 'kv_heads'),
]


@pytest.mark.parametrize(('family', 'changes', 'message'), ERRORS)
def test_errors_name_key_allowed_and_got(family, changes, message):
  with pytest.raises(ValueError, match=message):
    decoder_config(least(family, **changes))


def test_a_window_that_never_closes_is_no_window():
  file = least('mistral', sliding_window=4096, max_position_embeddings=4096)
  assert decoder_config(file) == decoder_config(least('mistral'))
  absent = {k: v for k, v in least('mistral').items() if k != 'sliding_window'}
  with pytest.raises(ValueError, match='sliding_window'):  # The family's default is 4,096.
    decoder_config(absent)


@st.composite
def decoders(draw):
  family, size = draw(st.sampled_from(sorted(FAMILIES))), st.integers(1, 5)
  kv_heads = draw(size)
  heads, head_width = kv_heads * draw(size), 2 * draw(size)
  layers, windows = draw(size), {}
  if FAMILIES[family].windows:
    windows = {'window': draw(size), 'global_every': draw(st.integers(0, layers)),
               'local_rope_base': draw(st.floats(2, 1e6))}
  scaling = draw(st.none() | st.builds(
    RopeScaling, st.floats(1, 64), st.floats(0.5, 2), st.floats(3, 8), st.integers(1, 9000)))
  return family, DecoderConfig(
    draw(size), heads * draw(size), layers, heads, kv_heads, head_width, draw(size),
    rope_base=draw(st.floats(2, 1e6)), rope_scaling=scaling,
    rms_epsilon=draw(st.floats(1e-7, 1e-3)), tie_embeddings=draw(st.booleans()),
    **FAMILIES[family].fields, **windows,
  )


@given(decoders())
@settings(max_examples=60, deadline=None)
def test_written_and_read_again(case):
  family, config = case
  written = config_json(config, family)
  assert decoder_config(written) == config
  assert decoder_config(AutoConfig.for_model(**written).to_dict()) == config


def test_a_family_that_cannot_express_the_decoder_is_refused():
  plain = decoder_config(least('llama'))
  with pytest.raises(ValueError, match='attention_bias must be True in family qwen2, got False'):
    config_json(plain, 'qwen2')
  with pytest.raises(ValueError, match='qk_norm must be False in family mistral, got True'):
    config_json(dataclasses.replace(plain, qk_norm=True), 'mistral')
  with pytest.raises(ValueError, match=r'width must be a multiple of heads = 32 in family llama'):
    config_json(dataclasses.replace(plain, width=100), 'llama')
  with pytest.raises(ValueError, match=r"model_type must be one of .*got 'gemma'"):
    config_json(plain, 'gemma')
  assert config_json(plain, 'llama', eos_token_id=2)['eos_token_id'] == 2
