"""GGUF files, written by the gguf package, against the weights in them and PyTorch transformers."""

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
from jobrec_jax.weights.gguf_file import decoder_config, load_decoder, open_gguf
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

SMALL = DecoderConfig(
  vocab_size=40, width=32, layers=3, heads=4, kv_heads=2, head_width=8, mlp_width=64, rope_base=5e4
)
# Blocks of Q4_K and Q6_K are 256 numbers of a row.
WIDE = dataclasses.replace(SMALL, width=256, layers=1, head_width=64, mlp_width=256)
NAMES = {
  'embed_tokens': 'token_embd', 'norm': 'output_norm', 'lm_head': 'output',
  'input_layernorm': 'attn_norm', 'post_attention_layernorm': 'ffn_norm',
  'q_proj': 'attn_q', 'k_proj': 'attn_k', 'v_proj': 'attn_v', 'o_proj': 'attn_output',
  'q_norm': 'attn_q_norm', 'k_norm': 'attn_k_norm',
  'gate_proj': 'ffn_gate', 'up_proj': 'ffn_up', 'down_proj': 'ffn_down',
}


def interleaved(x, heads):
  """llama.cpp's order of the rows of q and k: of each head 0, H/2, 1, H/2 + 1, ... ."""
  H = len(x) // heads
  rows = [n * H + half * (H // 2) + i for n in range(heads) for i in range(H // 2)
          for half in (0, 1)]
  return x[rows]


def exported(model, family='llama'):
  """The tensors of a transformers model under GGUF's names, fp32."""
  c, out = model.config, {}
  for name, weight in model.state_dict().items():
    *place, module, kind = name.split('.')
    if module == 'lm_head' and c.tie_word_embeddings:
      continue
    x = weight.detach().numpy()
    if family == 'llama' and module in ('q_proj', 'k_proj'):
      heads = c.num_attention_heads if module == 'q_proj' else c.num_key_value_heads
      x = interleaved(x, heads)
    layer = f'blk.{place[2]}.' if 'layers' in place else ''
    out[f'{layer}{NAMES[module]}.{kind}'] = np.array(x)
  return out


def header(c, family='llama'):
  return {
    'general.architecture': family,
    f'{family}.block_count': c.layers,
    f'{family}.context_length': 128,
    f'{family}.embedding_length': c.width,
    f'{family}.feed_forward_length': c.mlp_width,
    f'{family}.attention.head_count': c.heads,
    f'{family}.attention.head_count_kv': c.kv_heads,
    f'{family}.attention.key_length': c.head_width,
    f'{family}.attention.value_length': c.head_width,
    f'{family}.attention.layer_norm_rms_epsilon': c.rms_epsilon,
    f'{family}.rope.freq_base': c.rope_base,
  }


def write(path, metadata, tensors, kind=TensorType.F32):
  """Writes a file; matrices become `kind`, and those of bytes are taken to be of that type."""
  writer = gguf.GGUFWriter(path, arch=metadata['general.architecture'])
  for key, value in metadata.items():
    if key == 'general.architecture':
      continue
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
           str: writer.add_string, list: writer.add_array}[type(value)]
    add(key, value)
  for name, x in tensors.items():
    if x.dtype == np.uint8:
      writer.add_tensor(name, x, raw_dtype=kind)
    elif x.ndim == 1 or kind == TensorType.F32:
      writer.add_tensor(name, x)
    else:
      writer.add_tensor(name, gguf.quantize(x, kind), raw_dtype=kind)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


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


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('kind', ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1'])
def test_quantised_weights_are_the_dequantised_ones(tmp_path, kind, dtype):
  kind = TensorType[kind]
  model = random_llama(SMALL)
  path = write(tmp_path / 'm.gguf', header(SMALL), exported(model), kind)
  with torch.no_grad():  # Quantising q and k before the turn or after it makes no difference.
    for weight in model.parameters():
      if weight.ndim == 2:
        weight[:] = to_torch(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind))
  want = jax.tree.map(lambda x: np.asarray(x.astype(dtype)), decoder_params(model, SMALL))
  params = load_decoder(open_gguf(path), SMALL, dtype=dtype)
  jax.tree.map(np.testing.assert_array_equal, params, want)


def k_block_reference(raw, kind):
  """One block of 256 numbers by the format's description, number by number."""
  out = np.zeros(256)
  if kind == 'Q6_K':  # 128 bytes of low nibbles, 64 of high pairs of bits, 16 scales, a factor
    factor = float(raw[-2:].view(np.float16)[0])
    low, high, scales = raw[:128], raw[128:192], raw[192:208].view(np.int8)
    for i in range(256):
      part, j = divmod(i, 128)
      nibble = low[64 * part + j % 64] >> (4 * (j // 64)) & 15
      pair = high[32 * part + j % 32] >> (2 * (j // 32)) & 3
      out[i] = factor * scales[i // 16] * (int(nibble | pair << 4) - 32)
    return out
  # Q4_K: two factors, 12 bytes of 8 scales and 8 minima with 6 bits each, 128 bytes of nibbles
  factor, offset = (float(x) for x in raw[:4].view(np.float16))
  packed, nibbles = raw[4:16], raw[16:]
  for i in range(256):
    part, j = divmod(i, 32)
    if part < 4:
      scale, least = packed[part] & 63, packed[part + 4] & 63
    else:
      scale = packed[part + 4] & 15 | packed[part - 4] >> 6 << 4
      least = packed[part + 4] >> 4 | packed[part] >> 6 << 4
    nibble = nibbles[32 * (part // 2) + j] >> (4 * (part % 2)) & 15
    out[i] = factor * scale * nibble - offset * least
  return out


@pytest.mark.parametrize('kind', ['Q4_K', 'Q6_K'])
def test_k_quantised_weights(tmp_path, kind):
  # The package cannot quantise these: any bytes with finite factors are a block.
  rng, size = np.random.default_rng(0), gguf.GGML_QUANT_SIZES[TensorType[kind]][1]
  tensors, numbers = exported(random_llama(WIDE)), {}
  for name, x in tensors.items():
    if x.ndim == 2:
      raw = rng.integers(0, 256, (len(x), x.shape[1] // 256, size), np.uint8)
      factors = rng.uniform(0.001, 0.01, (*raw.shape[:2], 2)).astype(np.float16).view(np.uint8)
      if kind == 'Q6_K':
        raw[..., -2:] = factors[..., :2]
      else:
        raw[..., :4] = factors
      tensors[name] = raw.reshape(len(x), -1)
      numbers[name] = raw
  params = load_decoder(
    open_gguf(write(tmp_path / 'm.gguf', header(WIDE), tensors, TensorType[kind])), WIDE,
    dtype=np.float32)
  for row in (0, 17):
    want = k_block_reference(numbers['token_embd.weight'][row, 0], kind)
    np.testing.assert_allclose(params['embedding'][row], want, rtol=1e-5, atol=1e-6)
    want = k_block_reference(numbers['blk.0.ffn_up.weight'][row, 0], kind)
    np.testing.assert_allclose(params['layers']['mlp']['up']['kernel'][0, :, row], want, rtol=1e-5,
                               atol=1e-6)


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


def test_other_types_are_refused_by_name(tmp_path):
  path = write(tmp_path / 'm.gguf', header(SMALL), exported(random_llama(SMALL)), TensorType.Q5_1)
  with pytest.raises(ValueError, match=r'types other than F32, .*Q6_K: .*token_embd\.weight Q5_1'):
    load_decoder(open_gguf(path), SMALL)


@pytest.mark.parametrize(('key', 'value'), [
  ('general.architecture', 'gemma3'), ('llama.expert_count', 8), ('llama.block_count', 'three'),
  ('llama.rope.scaling.type', 'yarn'), ('llama.rope.dimension_count', 4),
  ('llama.attention.value_length', 16), ('llama.attention.head_count', 0),
  ('llama.attention.causal', False), ('llama.attention.sliding_window', 64),
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
