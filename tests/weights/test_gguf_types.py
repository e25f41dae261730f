"""The types of GGUF's tensors: each block's numbers, by the formats' descriptions."""

import dataclasses

import gguf
from gguf import GGMLQuantizationType as TensorType
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.weights.gguf_decoder import load_decoder
from jobrec_jax.weights.gguf_file import TYPES, open_gguf
from tests.reference.gguf_files import exported, header, write
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

SMALL = DecoderConfig(
  vocab_size=40, width=32, layers=3, heads=4, kv_heads=2, head_width=8, mlp_width=64, rope_base=5e4
)
# Blocks of most types are 256 numbers of a row.
WIDE = dataclasses.replace(SMALL, width=256, layers=1, head_width=64, mlp_width=256)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('kind', ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1'])
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


def halves(raw, i):
  """Of a block's 16 bytes the low nibbles are its first 16 numbers, the high ones the others."""
  return int(raw[i % 16] >> (4 * (i // 16)) & 15)


def q5_0(raw, i, offset=6):
  high = int(raw[offset - 4:offset].view(np.uint32)[0])
  number = halves(raw[offset:], i) | (high >> i & 1) << 4
  factors = raw[:offset - 4].view(np.float16).astype(float)
  return factors[0] * (number - 16) if len(factors) == 1 else factors[0] * number + factors[1]


def q5_1(raw, i):
  return q5_0(raw, i, offset=8)


def q2_k(raw, i):
  """16 bytes of scales and minima, 64 of pairs of bits, two factors."""
  factor, offset = raw[-4:].view(np.float16).astype(float)
  part, j = divmod(i, 128)
  pair = raw[16 + 32 * part + j % 32] >> (2 * (j // 32)) & 3
  packed = raw[i // 16]
  return factor * (packed & 15) * pair - offset * (packed >> 4)


def q3_k(raw, i):
  """32 bytes of high bits, 64 of pairs, 12 of scales with 6 bits each, a factor."""
  part, j = divmod(i, 128)
  pair = int(raw[32 + 32 * part + j % 32] >> (2 * (j // 32)) & 3)
  high = raw[j % 32] >> (4 * part + j // 32) & 1
  s, packed = i // 16, raw[96:108]
  low = packed[s] & 15 if s < 8 else packed[s - 8] >> 4
  scale = int(low) | int(packed[8 + s % 4] >> (2 * (s // 4)) & 3) << 4
  return float(raw[-2:].view(np.float16)[0]) * (scale - 32) * (pair - 4 * (1 - int(high)))


def q4_k(raw, i, fifth=None):
  """Two factors, 12 bytes of 8 scales and 8 minima with 6 bits each, 128 bytes of nibbles."""
  factor, offset = raw[:4].view(np.float16).astype(float)
  packed, nibbles = raw[4:16], raw[-128:]
  part, j = divmod(i, 32)
  if part < 4:
    scale, least = packed[part] & 63, packed[part + 4] & 63
  else:
    scale = packed[part + 4] & 15 | packed[part - 4] >> 6 << 4
    least = packed[part + 4] >> 4 | packed[part] >> 6 << 4
  number = int(nibbles[32 * (part // 2) + j] >> (4 * (part % 2)) & 15)
  if fifth is not None:
    number += 16 * int(fifth[j] >> part & 1)
  return factor * scale * number - offset * least


def q5_k(raw, i):
  """As Q4_K, with 32 bytes of fifth bits before the nibbles."""
  return q4_k(raw, i, fifth=raw[16:48])


def q6_k(raw, i):
  """128 bytes of low nibbles, 64 of high pairs of bits, 16 scales, a factor."""
  factor = float(raw[-2:].view(np.float16)[0])
  low, high, scales = raw[:128], raw[128:192], raw[192:208].view(np.int8)
  part, j = divmod(i, 128)
  nibble = low[64 * part + j % 64] >> (4 * (j // 64)) & 15
  pair = high[32 * part + j % 32] >> (2 * (j // 32)) & 3
  return factor * scales[i // 16] * (int(nibble | pair << 4) - 32)


STEPS = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]


def iq4_nl(raw, i):
  """A factor, and nibbles that stand for uneven steps."""
  return float(raw[:2].view(np.float16)[0]) * STEPS[halves(raw[2:], i)]


def iq4_xs(raw, i):
  """A factor, 8 pairs of high bits and 8 low nibbles of scales, 8 runs of 16 bytes of steps."""
  part, j = divmod(i, 32)
  scale = int(raw[4 + part // 2] >> (4 * (part % 2)) & 15) | (
    int(raw[2:4].view(np.uint16)[0]) >> (2 * part) & 3) << 4
  return float(raw[:2].view(np.float16)[0]) * (scale - 32) * STEPS[halves(raw[8 + 16 * part:], j)]


# Of each type, the bytes of its fp16 factors, and what a block's number i is.
BLOCKS = {
  'Q5_0': (slice(0, 2), q5_0), 'Q5_1': (slice(0, 4), q5_1), 'Q2_K': (slice(80, 84), q2_k),
  'Q3_K': (slice(108, 110), q3_k), 'Q4_K': (slice(0, 4), q4_k), 'Q5_K': (slice(0, 4), q5_k),
  'Q6_K': (slice(208, 210), q6_k), 'IQ4_NL': (slice(0, 2), iq4_nl),
  'IQ4_XS': (slice(0, 2), iq4_xs),
}


@pytest.mark.parametrize('kind', BLOCKS)
def test_numbers_of_a_block(tmp_path, kind):
  # The package cannot quantise most of these: any bytes with finite factors are a block.
  length, size = gguf.GGML_QUANT_SIZES[TensorType[kind]]
  at, reference = BLOCKS[kind]
  rng, tensors, numbers = np.random.default_rng(0), exported(random_llama(WIDE)), {}
  for name, x in tensors.items():
    if x.ndim == 2:
      raw = rng.integers(0, 256, (len(x), x.shape[1] // length, size), np.uint8)
      factors = rng.uniform(0.001, 0.01, (*raw.shape[:2], (at.stop - at.start) // 2))
      raw[..., at] = factors.astype(np.float16).view(np.uint8)
      tensors[name] = raw.reshape(len(x), -1)
      numbers[name] = raw
  path = write(tmp_path / 'm.gguf', header(WIDE), tensors, TensorType[kind])
  params = load_decoder(open_gguf(path), WIDE, dtype=np.float32)
  for row in (0, 17):
    for ours, theirs in ((params['embedding'][row], 'token_embd.weight'),
                         (params['layers']['mlp']['up']['kernel'][0, :, row],
                          'blk.0.ffn_up.weight')):
      want = [reference(block, i) for block in numbers[theirs][row] for i in range(length)]
      np.testing.assert_allclose(ours, want, rtol=1e-5, atol=1e-6)


def test_every_type_that_is_read_has_a_reference():
  assert set(TYPES) == {'F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', *BLOCKS}


def test_types_may_differ_from_tensor_to_tensor(tmp_path):
  """As in a Q4_K_M of a narrow model, whose rows are no whole blocks of 256."""
  model = random_llama(SMALL)
  tensors = exported(model)
  mixed = {'blk.0.ffn_gate.weight': TensorType.Q5_0, 'blk.2.ffn_down.weight': TensorType.Q8_0,
           'token_embd.weight': TensorType.Q5_1}
  path = write(tmp_path / 'm.gguf', header(SMALL), tensors, mixed)
  params = load_decoder(open_gguf(path), SMALL, dtype=np.float32)
  for name, ours in (('blk.0.ffn_gate.weight', params['layers']['mlp']['gate']['kernel'][0].T),
                     ('blk.1.ffn_gate.weight', params['layers']['mlp']['gate']['kernel'][1].T),
                     ('token_embd.weight', params['embedding'])):
    kind = mixed.get(name, TensorType.F32)
    np.testing.assert_array_equal(ours, gguf.dequantize(gguf.quantize(tensors[name], kind), kind))


def test_other_types_are_refused_by_name(tmp_path):
  tensors = exported(random_llama(WIDE))
  path = write(tmp_path / 'm.gguf', header(WIDE), tensors,
               {'token_embd.weight': TensorType.TQ1_0})
  with pytest.raises(ValueError, match=r'types other than F32, .*Q6_K.*: token_embd\.weight TQ1_0'):
    load_decoder(open_gguf(path), WIDE)
