"""Quantised frozen kernels: their error, their size, and that only storage changes."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from qwix import QArray

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import LoraConfig, merge
from jobrec_jax.models.quantized import QTYPES, TILE, dense_params, quantizer

CONFIG = JobRecConfig(
  DecoderConfig(vocab_size=50, width=128, layers=2, heads=2, kv_heads=1, head_width=64,
                mlp_width=192, lora=LoraConfig(rank=2, alpha=4)),
  head_widths=(8,),
)
MODEL = JobRec(CONFIG)
rng = np.random.default_rng(0)
LISTS = [rng.integers(0, 50, shape).astype(np.int32) for shape in ((2, 5), (2, 3, 4), (2, 3, 3))]


@pytest.fixture(scope='module')
def params():
  made = nn.unbox(jax.jit(MODEL.init)(jax.random.key(0), *LISTS))['params']
  made['lora'] = jax.tree.map(lambda x: x + 0.05, made['lora'])
  return made


def quantise(decoder, qtype):
  apply = quantizer(qtype)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: apply('/'.join(key.key for key in path), x), decoder)


def blocks(x, axis):
  """[..., axis, ...] -> [blocks of one scale, TILE]."""
  return np.moveaxis(np.asarray(x, np.float32), axis, -1).reshape(-1, TILE)


@pytest.mark.parametrize('name', ['q', 'o', 'down'])
def test_every_weight_goes_to_its_nearest_level(params, name):
  group = params['decoder']['layers']['mlp' if name == 'down' else 'attention']
  kernel, axis = group[name]['kernel'], 2 if name == 'o' else 1
  for qtype in QTYPES:
    stored = quantizer(qtype)(f'layers/x/{name}/kernel', kernel)
    assert isinstance(stored, QArray)
    exact = blocks(kernel, axis)
    scaled = blocks(dense_params({'k': stored})['k'], axis) / np.abs(exact).max(1, keepdims=True)
    exact = exact / np.abs(exact).max(1, keepdims=True)
    error = np.abs(scaled - exact)
    if qtype == 'int8':
      assert error.max() <= 0.5 / 127 + 1e-5
    else:
      levels = np.unique(scaled.round(4))
      assert len(levels) == 16 and {-1.0, 0.0, 1.0} <= set(levels)
      nearest = np.abs(exact[..., None] - levels).min(-1)
      np.testing.assert_allclose(error, nearest, atol=2e-4)
    assert error.max() > 1e-4  # it is quantised


@pytest.mark.parametrize('qtype', QTYPES)
def test_only_the_storage_differs_from_the_same_weights_in_floats(params, qtype):
  stored = quantise(params['decoder'], qtype)
  floats = dense_params(stored)

  @jax.jit
  def loss(lora, decoder):
    return (MODEL.apply({'params': params | {'lora': lora, 'decoder': decoder}}, *LISTS).scores
            ** 2).sum()
  ours, expected = (jax.value_and_grad(loss)(params['lora'], d) for d in (stored, floats))
  np.testing.assert_allclose(ours[0], expected[0], rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
               ours[1], expected[1])
  merged = merge(params | {'decoder': stored}, CONFIG.decoder.lora)
  plain = JobRec(dataclasses.replace(CONFIG, decoder=dataclasses.replace(CONFIG.decoder,
                                                                         lora=None)))
  rest = {k: v for k, v in params.items() if k not in ('lora', 'decoder')}
  merged = jax.jit(plain.apply)({'params': rest | {'decoder': merged}}, *LISTS).scores
  adapted = jax.jit(MODEL.apply)({'params': params | {'decoder': stored}}, *LISTS).scores
  np.testing.assert_allclose(merged, adapted, atol=1e-4)


def test_what_is_no_kernel_stays(params):
  stored = quantise(params['decoder'], 'int8')
  np.testing.assert_array_equal(stored['embedding'], params['decoder']['embedding'])
  assert isinstance(stored['layers']['mlp_norm']['scale'], jax.Array)


@pytest.mark.parametrize(('qtype', 'bits'), [('int8', 8), ('nf4', 4)])
def test_bits_of_a_weight(params, qtype, bits):
  kernel = params['decoder']['layers']['mlp']['up']['kernel']
  stored = quantizer(qtype)('layers/mlp/up/kernel', kernel)
  assert jnp.iinfo(stored.qvalue.dtype).bits == bits
  assert stored.scale.size == kernel.size // TILE


def test_an_unknown_type_is_named():
  with pytest.raises(ValueError, match=r"qtype must be one of \('int8', 'nf4'\), got 'int3'"):
    quantizer('int3')
