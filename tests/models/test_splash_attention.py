"""Lists read by splash attention, its kernel interpreted, equal those of our own attention."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models import list_attention, splash_attention
from jobrec_jax.models.list_masks import ListMask
from jobrec_jax.sharding import MeshConfig, layout, make_mesh
from tests.models.test_chunks import blocks, gradient

ATTEND = splash_attention.attend


@pytest.fixture
def asked(monkeypatch):
  """Shapes of queries that the kernel was asked for, as programs were traced."""
  found = []

  def told(q, *args):
    found.append(q.shape)
    return ATTEND(q, *args, interpret=True)
  monkeypatch.setattr(splash_attention, 'fits', lambda q, mask, platform: mask.window is None)
  monkeypatch.setattr(splash_attention, 'attend', told)
  return found


def lists(rng, B=2, S=40, groups=((5, 30), (3, 21)), K=2, G=2, H=64, blind=2):
  """q, k, v and a mask with padding at the end of every block and in the midst of some."""
  def some(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)
  L = S + sum(J * T for J, T in groups)
  masks = [rng.random((B, *shape)) < 0.8 for shape in ((S,), *groups)]
  for mask in masks[1:]:
    mask[..., -blind:] = True
  mask = ListMask(masks[0], tuple(masks[1:]), blind)
  return some(B, L, K, G, H) * H**-0.5, some(B, K, L, H), some(B, K, L, H), mask


@pytest.mark.parametrize('lanes', [{'groups': ()}, {}, {'S': 200, 'groups': ((9, 41),)}])
def test_attention_and_its_gradients_are_those_of_our_own(asked, lanes):
  """Of a prefix alone, of groups of items, and of more than one block, where some are skipped."""
  q, k, v, mask = lists(np.random.default_rng(0), **lanes)
  valid = np.concatenate([x.reshape(2, -1) for x in (mask.prefix, *mask.items)], axis=1)

  def value_and_gradients(fused):
    def total(q, k, v):
      out = list_attention.attend(q, k, v, mask, fused=fused)
      return (jnp.sin(out) * valid[:, :, None, None, None]).sum(), out
    (_, out), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(q, k, v)
    return out[valid], gradients
  expected = value_and_gradients(False)
  assert not asked
  found = value_and_gradients(True)
  assert asked == [q.shape]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_experts_score_and_learn_alike(model, asked):
  """With the kernel, and without it by the decoder's own setting."""
  config = dataclasses.replace(model.config, attention='exact')
  model, data = model.clone(config=config), blocks()
  variables = nn.unbox(model.init(jax.random.key(0), *data))
  found = gradient(model, data)(variables)
  before = len(asked)
  plain = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, fused=False))
  expected = gradient(model.clone(config=plain), data)(variables)
  assert 0 < before == len(asked)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), found, expected)


def test_each_device_reads_its_lists_and_heads():
  """Over a mesh of lists and heads it is what one device computes."""
  q, k, v, mask = lists(np.random.default_rng(1), B=4, S=20, groups=((3, 9),))
  expected = ATTEND(q, k, v, mask, interpret=True)
  mesh = make_mesh(MeshConfig(2, 1, 2), jax.devices()[:4])
  with layout(mesh):
    found = jax.jit(lambda *x: ATTEND(*x, mask, interpret=True))(q, k, v)
  assert found.sharding.shard_shape(found.shape)[0] == 2
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_few_blocks_of_a_list_are_computed():
  """Of a list of the pods' presets: every other block of the kernel for causal attention is one."""
  block = splash_attention.BLOCK
  blocks = -(-(160 + 50 * 80) // block)
  mask = ListMask(np.ones((1, 160), bool), (np.ones((1, 50, 80), bool),), blind=2)
  kernel = splash_attention.make_kernel(mask, blocks * block)
  computed = int((kernel.fwd_mask_info.block_mask > 0).sum())
  assert computed < 0.4 * blocks * (blocks + 1) / 2


@pytest.mark.parametrize('lists, heads, taken', [(4, 2, True), (6, 2, False), (4, 3, False)])
def test_lists_and_heads_that_do_not_divide_are_left_to_xla(lists, heads, taken):
  with layout(make_mesh(MeshConfig(4, 1, 2))):
    q = jax.ShapeDtypeStruct((lists, 3, heads, 1, 64), jnp.bfloat16)
    assert splash_attention.fits(q, ListMask(np.ones((lists, 3), bool)), 'tpu') == taken


@pytest.mark.parametrize('platform, width, window, taken', [
    ('tpu', 128, None, True), ('tpu', 64, None, True), ('tpu', 80, None, False),
    ('tpu', 128, 7, False), ('cpu', 128, None, False), ('gpu', 128, None, False)])
def test_who_takes_it(platform, width, window, taken):
  mask = ListMask(np.ones((1, 3), bool), window=window)
  assert splash_attention.fits(jnp.zeros((1, 3, 1, 1, width)), mask, platform) == taken
