"""GGUF files, written by the gguf package, against the weights in them and transformers."""

import dataclasses

import flax.linen as nn
import gguf
from gguf import GGMLQuantizationType as TensorType
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import ml_dtypes
import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from jobrec_jax.models.attention import RopeScaling, rotary_angles
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.weights import gguf_decoder
from jobrec_jax.weights.gguf_decoder import decoder_config, load_decoder
from jobrec_jax.weights.gguf_file import open_gguf
from tests.reference.gemma_torch import gemma_params, gemma_sizes, random_gemma
from tests.reference.gguf_files import exported, header, interleaved, write
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

SMALL = DecoderConfig(
  vocab_size=40, width=32, layers=3, heads=4, kv_heads=2, head_width=8, mlp_width=64, rope_base=5e4
)


def logits(config, params, tokens):
  decoder = Decoder(config)

  @jax.jit
  def run(params, tokens):
    hidden = decoder.apply({'params': params}, tokens)
    return decoder.apply({'params': params}, hidden, method='logits')

  return run(params, tokens)


def assert_same_logits(path, model, config):
  """Config, parameters' names and shapes, and next-token logits of the file are the model's."""
  file = open_gguf(path)
  assert decoder_config(file) == config
  params = load_decoder(file, config, dtype=jnp.float32)
  tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, 11)).astype(np.int32)
  want = nn.unbox(jax.eval_shape(Decoder(config).init, jax.random.key(0), tokens))['params']
  assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
    lambda x: (x.shape, x.dtype), want)
  with torch.no_grad():
    expected = model(to_torch(tokens).long()).logits.numpy()
  np.testing.assert_allclose(logits(config, params, tokens), expected, atol=1e-4)


@pytest.mark.parametrize('change', [{}, {'tie_embeddings': False}, {'kv_heads': 4}], ids=str)
def test_llama_equals_transformers(tmp_path, change):
  config = dataclasses.replace(SMALL, **change)
  model = random_llama(config)
  assert_same_logits(write(tmp_path / 'm.gguf', header(config), exported(model)), model, config)


@pytest.mark.parametrize('family', ['qwen2', 'qwen3'])
def test_qwen_equals_transformers(tmp_path, family):
  of = {'qwen2': (Qwen2Config, Qwen2ForCausalLM), 'qwen3': (Qwen3Config, Qwen3ForCausalLM)}
  config = dataclasses.replace(
    SMALL, attention_bias=family == 'qwen2', qk_norm=family == 'qwen3', tie_embeddings=False)
  kind, build = of[family]
  head = {'head_dim': config.head_width} if family == 'qwen3' else {}
  torch.manual_seed(0)
  model = build(kind(
    vocab_size=config.vocab_size, hidden_size=config.width, intermediate_size=config.mlp_width,
    num_hidden_layers=config.layers, num_attention_heads=config.heads,
    num_key_value_heads=config.kv_heads, rms_norm_eps=config.rms_epsilon,
    rope_parameters={'rope_type': 'default', 'rope_theta': config.rope_base},
    tie_word_embeddings=False, attn_implementation='eager', pad_token_id=None, **head)).eval()
  with torch.no_grad():
    for weight in model.parameters():
      weight.uniform_(0.5, 1.5) if weight.ndim == 1 else weight.normal_(
        std=weight.shape[1] ** -0.5)
  path = write(tmp_path / 'm.gguf', header(config, family), exported(model, family))
  assert_same_logits(path, model, config)


@pytest.mark.parametrize('told', [True, False])
def test_gemma_equals_transformers(tmp_path, told):
  """With the distance of layers without a window told, or the usual six, which is none of three."""
  config = gemma_sizes(vocab_size=40, width=32, global_every=2 if told else 0)
  model = random_gemma(config)
  more = {'gemma3.attention.sliding_window': config.window, 'gemma3.rope.scaling.type': 'none'}
  if told:
    more |= {'gemma3.attention.sliding_window_pattern': 2, 'gemma3.rope.freq_base_swa': 1e4}
  path = write(tmp_path / 'm.gguf', header(config, 'gemma3') | more, exported(model, 'gemma3'))
  assert_same_logits(path, model, config)
  params = load_decoder(open_gguf(path), config, dtype=np.float32)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), params,
               gemma_params(model, config))
  scaled = {'gemma3.rope.scaling.type': 'linear', 'gemma3.rope.scaling.factor': 8.0}
  path = write(tmp_path / 'big.gguf', header(config, 'gemma3') | scaled, {})
  with pytest.raises(ValueError, match=r"gemma3.rope.scaling.type must be .*got 'linear'"):
    decoder_config(open_gguf(path))


def test_a_part_of_a_split_model_is_told(tmp_path):
  parts = {'split.no': 1, 'split.count': 3, 'split.tensors.count': 30}
  path = write(tmp_path / 'm-00002-of-00003.gguf', header(SMALL) | parts,
               exported(random_llama(SMALL)))
  with pytest.raises(ValueError, match=r'in one file \(to join .* --merge .* got .one of 3 parts'):
    open_gguf(path)
  path = write(tmp_path / 'whole.gguf', header(SMALL) | {'split.count': 1},
               exported(random_llama(SMALL)))
  load_decoder(open_gguf(path), SMALL)


@pytest.mark.parametrize('family', ['llama', 'gemma3'])
def test_sizes_are_checked_before_anything_of_them_is_made(tmp_path, family, monkeypatch):
  huge = header(SMALL, family) | {f'{family}.block_count': 4 * 10**9}
  file = open_gguf(write(tmp_path / 'm.gguf', huge, exported(random_llama(SMALL))))
  config = decoder_config(file)
  monkeypatch.setattr(gguf_decoder, 'decoder_places', None)
  with pytest.raises(ValueError, match=r'number of layers must be at most that of its tensors, 29'):
    load_decoder(file, config)


def test_biased_llama_equals_transformers(tmp_path):
  config = dataclasses.replace(SMALL, attention_bias=True)
  model = random_llama(config)
  tensors, rng = exported(model), np.random.default_rng(0)
  params = jax.tree.map(np.asarray, decoder_params(model, config))
  for name, heads in (('q', config.heads), ('k', config.kv_heads), ('v', config.kv_heads)):
    biases = rng.normal(size=(config.layers, heads, config.head_width)).astype(np.float32)
    params['layers']['attention'][name]['bias'] = biases
    for i, bias in enumerate(biases.reshape(config.layers, -1)):
      tensors[f'blk.{i}.attn_{name}.bias'] = bias if name == 'v' else interleaved(bias, heads)
  file = open_gguf(write(tmp_path / 'm.gguf', header(config), tensors))
  assert decoder_config(file) == config
  jax.tree.map(np.testing.assert_array_equal, load_decoder(file, config, dtype=np.float32), params)


def test_llama_3_stretching(tmp_path):
  scaling = RopeScaling(factor=32.0)
  config = dataclasses.replace(SMALL, head_width=64, rope_base=5e5, rope_scaling=scaling)
  one = jnp.ones(())
  factors = np.asarray(rotary_angles(one, 64, 5e5) / rotary_angles(one, 64, 5e5, scaling))
  tensors = exported(random_llama(config)) | {'rope_freqs.weight': factors}
  file = open_gguf(write(tmp_path / 'm.gguf', header(config), tensors))
  found = decoder_config(file)
  assert found.rope_scaling.factor == pytest.approx(32, rel=1e-5)
  assert dataclasses.replace(found, rope_scaling=scaling) == config
  load_decoder(file, config)
  tensors['rope_freqs.weight'] = factors[::-1].copy()
  with pytest.raises(ValueError, match=r'b\.gguf: rope_freqs'):
    decoder_config(open_gguf(write(tmp_path / 'b.gguf', header(config), tensors)))


def test_shardings_and_changes(tmp_path):
  path = write(tmp_path / 'm.gguf', header(SMALL), exported(random_llama(SMALL)))
  file = open_gguf(path)
  assert decoder_config(file, 'bfloat16', unroll=3) == dataclasses.replace(
    SMALL, dtype='bfloat16', unroll=3)
  mesh = jax.make_mesh((2,), ('x',), devices=jax.devices()[:2])
  plain = load_decoder(file, SMALL)
  shardings = jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec()), plain)
  shardings['layers']['mlp']['up']['kernel'] = NamedSharding(mesh, PartitionSpec(None, None, 'x'))
  params = load_decoder(file, SMALL, shardings)
  assert jax.tree.map(lambda x: x.sharding, params) == shardings
  jax.tree.map(np.testing.assert_array_equal, params, plain)
  assert params['embedding'].dtype == ml_dtypes.bfloat16
  with pytest.raises(ValueError, match='shardings'):
    load_decoder(file, SMALL, {'embedding': None})
  with pytest.raises(ValueError, match='float16'):
    load_decoder(file, SMALL, dtype=np.float16)


def test_all_wrong_tensors_are_named_at_once(tmp_path):
  tensors = exported(random_llama(SMALL))
  del tensors['blk.1.ffn_up.weight'], tensors['output_norm.weight']
  tensors['blk.0.attn_output.bias'] = np.zeros(32, np.float32)
  tensors['blk.2.attn_q.weight'] = np.zeros((32, 64), np.float32)
  path = write(tmp_path / 'm.gguf', header(SMALL), tensors)
  with pytest.raises(ValueError) as error:
    load_decoder(open_gguf(path), SMALL)
  for part in (str(path), 'missing: blk.1.ffn_up.weight, output_norm.weight',
               'extra: blk.0.attn_output.bias',
               'blk.2.attn_q.weight must be (32, 32), got (32, 64)'):
    assert part in str(error.value)


@pytest.mark.parametrize(('key', 'value'), [
  ('general.architecture', 'gemma2'), ('llama.expert_count', 8), ('llama.block_count', 'three'),
  ('llama.rope.scaling.type', 'yarn'), ('llama.rope.dimension_count', 4),
  ('llama.attention.value_length', 16), ('llama.attention.head_count', 0),
  ('llama.attention.causal', False), ('llama.attention.sliding_window', 64),
  ('llama.attn_logit_softcapping', 50.0),
])
def test_what_the_decoder_does_not_compute_is_refused(tmp_path, key, value):
  path = write(tmp_path / 'm.gguf', header(SMALL) | {key: value}, exported(random_llama(SMALL)))
  with pytest.raises(ValueError, match=rf'm\.gguf: {key} must be .*{value}'):
    decoder_config(open_gguf(path))


def test_header_equals_the_packages_reader(tmp_path):
  texts = {'a.list': ['eins', 'zwei', ''], 'a.bool': True, 'a.text': 'é漢', 'a.floats': [0.5, 2.0]}
  path = write(tmp_path / 'm.gguf', header(SMALL) | texts, exported(random_llama(SMALL)),
               TensorType.Q4_0)
  file, reader = open_gguf(path), gguf.GGUFReader(path)
  fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith('GGUF.')}
  assert dict(file.metadata) == fields
  assert {n: (t.kind, t.shape, t.start) for n, t in file.tensors.items()} == {
    t.name: (t.tensor_type.name, tuple(t.shape.tolist()[::-1]), t.data_offset)
    for t in reader.tensors}


def test_cut_and_foreign_files_are_refused(tmp_path):
  whole = write(tmp_path / 'm.gguf', header(SMALL), exported(random_llama(SMALL))).read_bytes()
  bad = tmp_path / 'bad.gguf'
  rng = np.random.default_rng(0)
  for size in [0, 3, 4, 7, 20, 23, len(whole) - 1, *rng.integers(24, len(whole), 60)]:
    bad.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r'bad\.gguf: '):
      open_gguf(bad)
  for content in (b'PK\x03\x04' + whole[4:], b'GGUF' + b'\x00\x00\x00\x03' + whole[8:],
                  whole[:16] + b'\xff' * 8 + whole[24:]):  # a zip; big-endian; too many keys
    bad.write_bytes(content)
    with pytest.raises(ValueError, match=r'bad\.gguf: '):
      open_gguf(bad)
  with pytest.raises(ValueError, match=r'none\.gguf'):
    open_gguf(tmp_path / 'none.gguf')


def test_damaged_headers_never_raise_anything_else(tmp_path):
  path = tmp_path / 'm.gguf'
  whole = write(path, header(SMALL), exported(random_llama(SMALL))).read_bytes()
  rng = np.random.default_rng(0)
  for _ in range(300):
    damaged = bytearray(whole)
    for at in rng.integers(4, 1500, 3):
      damaged[at] = rng.integers(256)
    path.write_bytes(damaged)
    try:
      file = open_gguf(path)
      load_decoder(file, decoder_config(file))
    except ValueError:
      pass
