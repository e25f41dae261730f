"""Adapters in the decoder: against merged kernels, dense gradients, and dropout's own promises."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.models.attention import Projection
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.list_masks import ListMask
from jobrec_jax.models.lora import ATTENTION, TARGETS, Adapters, LoraConfig, merge

SIZES = DecoderConfig(vocab_size=61, width=24, layers=3, heads=4, kv_heads=2, head_width=8,
                      mlp_width=40)
SHAPES = {'q': (24, 32), 'k': (24, 16), 'v': (24, 16), 'o': (32, 24), 'gate': (24, 40),
          'up': (24, 40), 'down': (40, 24)}
EVERY = LoraConfig(rank=3, alpha=5.0, dropout=0.5, targets=TARGETS)
VARIANTS = {
  'Llama': SIZES,
  'Qwen 2': dataclasses.replace(SIZES, attention_bias=True),
  'Qwen 3, remat': dataclasses.replace(SIZES, qk_norm=True, remat='full'),
}
TOKENS = np.random.default_rng(0).integers(1, 61, (2, 7)).astype(np.int32)
MASK = np.array([[True] * 7, [False] * 2 + [True] * 5])


@functools.cache
def some_params(config):
  """A decoder's parameters, its biases random too."""
  params = nn.unbox(jax.jit(Decoder(config).init)(jax.random.key(0), TOKENS))['params']
  rng = np.random.default_rng(1)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: jnp.asarray(rng.normal(size=x.shape), x.dtype)
    if path[-1].key == 'bias' else x, params)


def some_lora(config, layers=SIZES.layers, shapes=SHAPES, experts=None):
  """Parameters of adapters, b random too."""
  made = nn.unbox(Adapters(config, shapes, layers, experts).init(jax.random.key(1)))['params']
  rng = np.random.default_rng(2)
  return {name: jnp.asarray(rng.normal(size=x.shape) / 4, x.dtype) if name.endswith('_b') else x
          for name, x in made.items()}


def as_adapters(lora):
  return {name[:-2]: {part: lora[f'{name[:-2]}_{part}'] for part in 'ab'} for name in lora}


@functools.cache
def reader(config, lora):
  decoder = Decoder(dataclasses.replace(config, lora=lora))

  @jax.jit
  def read(params, adapters, key=None):
    rngs = None if key is None else {'dropout': key}
    return decoder.apply({'params': params}, TOKENS, MASK, adapters, rngs=rngs)

  return read


READ = reader(SIZES, EVERY)


@pytest.fixture(scope='module')
def params():
  return some_params(SIZES)


def test_fresh_adapters_start_as_none(params):
  lora = LoraConfig(targets=TARGETS)
  module = Adapters(lora, SHAPES, SIZES.layers)
  variables = nn.unbox(module.init(jax.random.key(0)))
  adapters = module.apply(variables)
  assert jax.tree.map(jnp.shape, adapters) == {
    name: {'a': (3, inputs, 16), 'b': (3, 16, outputs)}
    for name, (inputs, outputs) in SHAPES.items()
  }
  assert adapters == as_adapters(variables['params'])
  read = reader(SIZES, lora)
  for key in (None, jax.random.key(5)):
    np.testing.assert_array_equal(read(params, adapters, key), read(params, None, key))
  for name, (inputs, _) in SHAPES.items():
    a = np.asarray(adapters[name]['a'])
    assert not np.asarray(adapters[name]['b']).any()
    np.testing.assert_allclose(a.std(), inputs**-0.5, rtol=0.1)
    assert not np.array_equal(a[0], a[1])


@pytest.mark.parametrize('config', VARIANTS.values(), ids=VARIANTS.keys())
def test_merged_equals_unmerged(config):
  params, lora = some_params(config), some_lora(EVERY)
  read = reader(config, EVERY)
  merged = merge({'decoder': params, 'lora': lora}, EVERY)
  assert jax.tree.structure(merged) == jax.tree.structure(params)
  hidden = read(params, as_adapters(lora))
  assert np.abs(hidden - read(params, None)).max() > 0.1
  np.testing.assert_allclose(hidden, read(merged, None), atol=1e-5)


@pytest.mark.parametrize('target', TARGETS)
def test_each_target_alone_changes_its_own_kernel(params, target):
  config = dataclasses.replace(EVERY, targets=(target,))
  lora = some_lora(config)
  assert lora.keys() == {f'{target}_a', f'{target}_b'}
  merged = merge({'decoder': params, 'lora': lora}, config)
  home = 'attention' if target in ATTENTION else 'mlp'
  changed = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, same in jax.tree_util.tree_leaves_with_path(
      jax.tree.map(lambda a, b: bool((a == b).all()), merged, params)) if not same
  ]
  assert changed == [f'layers/{home}/{target}/kernel']
  hidden = READ(params, as_adapters(lora))
  assert np.abs(hidden - READ(params, None)).max() > 1e-2
  np.testing.assert_allclose(hidden, READ(merged, None), atol=1e-5)


def test_merge_leaves_its_arguments_and_keeps_dtypes(params):
  lora = some_lora(EVERY)
  before = jax.tree.map(np.array, params)
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  merged = merge({'decoder': half, 'lora': lora}, EVERY)
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(merged))
  exact = merge({'decoder': jax.tree.map(lambda x: x.astype(jnp.float32), half), 'lora': lora},
                EVERY)
  jax.tree.map(  # rounded once, after the sum
    lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), merged, exact)
  merge({'decoder': params, 'lora': lora}, EVERY)
  jax.tree.map(np.testing.assert_array_equal, params, before)


def test_bfloat16_is_near_float32(params):
  lora = as_adapters(some_lora(EVERY))
  exact = READ(params, lora)
  half = reader(dataclasses.replace(SIZES, dtype='bfloat16'), EVERY)(params, lora)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.15)


@pytest.mark.parametrize('config', VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_equal_those_of_dense_kernels(config):
  """dL/da = scale * G b^T and dL/db = scale * a^T G, of G = dL/dkernel at the merged kernels."""
  params, lora = some_params(config), some_lora(EVERY)
  read = reader(config, EVERY)
  weight = np.random.default_rng(3).normal(size=(2, 7, 24)).astype(np.float32) * MASK[..., None]
  loss = jax.jit(lambda p, adapters: jnp.mean(read(p, adapters) * weight))
  ours = jax.jit(jax.grad(loss, argnums=1))(params, as_adapters(lora))
  assert ours.keys() == set(TARGETS) and all(g.keys() == {'a', 'b'} for g in ours.values())
  merged = merge({'decoder': params, 'lora': lora}, EVERY)
  dense = jax.jit(jax.grad(loss))(merged, None)['layers']
  for name, (inputs, outputs) in SHAPES.items():
    G = dense['attention' if name in ATTENTION else 'mlp'][name]['kernel']
    G = np.asarray(G).reshape(3, inputs, outputs)
    a, b = np.asarray(lora[f'{name}_a']), np.asarray(lora[f'{name}_b'])
    grad_a, grad_b = 5 / 3 * G @ b.swapaxes(1, 2), 5 / 3 * a.swapaxes(1, 2) @ G
    for got, expected in ((ours[name]['a'], grad_a), (ours[name]['b'], grad_b)):
      assert np.abs(expected).max() > 1e-4
      np.testing.assert_allclose(got, expected, atol=1e-6, rtol=1e-3)


def test_the_first_step_moves_b_alone(params):
  lora = nn.unbox(Adapters(EVERY, SHAPES, 3).init(jax.random.key(1)))['params']
  grads = jax.jit(jax.grad(lambda adapters: jnp.mean(READ(params, adapters)[..., 0])))(
    as_adapters(lora))
  for grad in grads.values():
    assert not np.asarray(grad['a']).any()
    assert all(np.asarray(layer).any() for layer in grad['b'])


def test_scale_of_both_kinds():
  assert LoraConfig().scale == 2.0
  assert LoraConfig(rank=16, alpha=32.0, rank_stabilised=True).scale == 8.0
  x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
  adapter = {'a': jnp.ones((6, 9)), 'b': jnp.ones((9, 4))}
  for stabilised, scale in ((False, 2 / 9), (True, 2 / 3)):
    config = LoraConfig(rank=9, alpha=2.0, rank_stabilised=stabilised)
    layer = Projection((6,), (4,), ('embed', 'mlp'), 1.0, 'float32', lora=config)
    out = layer.apply({'params': {'kernel': jnp.zeros((6, 4))}}, x, adapter)
    expected = np.repeat(scale * 9 * x.sum(1, keepdims=True), 4, 1)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_dropout_is_on_the_adapters_input_alone():
  """With a = b = the identity and scale 1: y = x W + dropout(x)."""
  D, rate = 32, 0.25
  config = LoraConfig(rank=D, alpha=float(D), dropout=rate)
  layer = Projection((D,), (D,), ('embed', 'mlp'), 1.0, 'float32', lora=config)
  rng = np.random.default_rng(0)
  x = rng.uniform(1, 2, (200, D)).astype(np.float32)
  kernel = rng.normal(size=(D, D)).astype(np.float32)
  variables, one = {'params': {'kernel': kernel}}, {'a': jnp.eye(D), 'b': jnp.eye(D)}
  np.testing.assert_allclose(layer.apply(variables, x, one), x @ kernel + x, rtol=1e-4, atol=1e-4)
  noisy = layer.apply(variables, x, one, rngs={'dropout': jax.random.key(0)}) - x @ kernel
  kept = noisy > 0.5
  np.testing.assert_allclose(noisy, np.where(kept, x / (1 - rate), 0), rtol=1e-3, atol=1e-3)
  assert abs(kept.mean() - (1 - rate)) < 0.02  # 4 standard errors
  assert 0 < kept[0].sum() < D  # of a token some numbers, not all or none
  assert (kept[0] != kept[1]).any()


def test_dropout_draws_only_from_its_stream(params):
  lora = as_adapters(some_lora(EVERY))
  quiet = READ(params, lora)
  np.testing.assert_array_equal(quiet, READ(params, lora))
  noisy = READ(params, lora, jax.random.key(0))
  np.testing.assert_array_equal(noisy, READ(params, lora, jax.random.key(0)))
  assert np.abs(noisy - quiet).max() > 0.1
  assert np.abs(noisy - READ(params, lora, jax.random.key(1))).max() > 0.1
  np.testing.assert_array_equal(READ(params, None, jax.random.key(0)), READ(params, None))
  never = reader(SIZES, dataclasses.replace(EVERY, dropout=0.0))
  np.testing.assert_allclose(never(params, lora, jax.random.key(0)), quiet, atol=1e-6)


def test_layers_draw_masks_of_their_own(params):
  """With all else zero, an adapter in one layer alone sees the same input whichever layer it is."""
  params = jax.tree.map(lambda x: x, params)
  for home, name in (('attention', 'o'), ('mlp', 'down')):
    kernel = params['layers'][home][name]['kernel']
    params['layers'][home][name]['kernel'] = jnp.zeros_like(kernel)
  lora = some_lora(dataclasses.replace(EVERY, targets=('down',)))
  for module in params['layers']['mlp'].values():
    module['kernel'] = jnp.broadcast_to(module['kernel'][:1], module['kernel'].shape)

  def one_layer(i):
    b = jnp.zeros_like(lora['down_b']).at[i].set(lora['down_b'][0])
    a = jnp.broadcast_to(lora['down_a'][:1], lora['down_a'].shape)
    return {'down': {'a': a, 'b': b}}

  for key in (None, jax.random.key(0)):
    outs = [np.asarray(READ(params, one_layer(i), key))[MASK] for i in range(3)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
      if key is None:
        np.testing.assert_allclose(outs[i], outs[j], atol=1e-6)
      else:
        assert (np.abs(outs[i] - outs[j]).max(-1) > 1e-3).all()  # every token


def encode(config, lora, params, adapters, prefix, items, key=None):
  """Hidden states [B, J, T, D] of causal items."""
  decoder = Decoder(dataclasses.replace(config, lora=lora))
  masks = np.ones(prefix.shape[:2], bool), np.ones(items.shape[:3], bool)

  @jax.jit
  def run(params, adapters, prefix, items):
    mask = ListMask(masks[0], (masks[1],))
    return decoder.apply({'params': params}, prefix, [items], mask, adapters, method='encode_lists',
                         rngs=None if key is None else {'dropout': key})[0]

  return np.asarray(run(params, adapters, prefix, items))


def test_lists_read_as_their_pairs_do(params):
  lora = some_lora(EVERY)
  rng = np.random.default_rng(4)
  prefix = rng.normal(size=(2, 5, 24)).astype(np.float32)
  items = rng.normal(size=(2, 3, 4, 24)).astype(np.float32)
  items[:, 2] = items[:, 0]
  hidden = encode(SIZES, EVERY, params, as_adapters(lora), prefix, items)
  np.testing.assert_allclose(hidden[:, 2], hidden[:, 0], atol=1e-5)
  alone = encode(SIZES, EVERY, params, as_adapters(lora), np.repeat(prefix, 3, 0),
                 items.reshape(6, 1, 4, 24))
  np.testing.assert_allclose(hidden.reshape(6, 4, 24), alone[:, 0], atol=1e-5)
  merged = merge({'decoder': params, 'lora': lora}, EVERY)
  dense = encode(SIZES, EVERY, merged, None, prefix, items)
  np.testing.assert_allclose(hidden, dense, atol=1e-5)


def test_one_mask_over_the_prefix_of_a_list():
  """In one layer an item of zeros has q = k = v = 0, mask or not: what differs is the prefix's."""
  config = dataclasses.replace(SIZES, layers=1)
  lora = dataclasses.replace(EVERY, targets=('q', 'k', 'v'))
  params, adapters = some_params(config), as_adapters(some_lora(lora, layers=1))
  prefix = np.random.default_rng(5).normal(size=(1, 5, 24)).astype(np.float32)
  prefix, zeros = np.repeat(prefix, 2, 0), np.zeros((2, 4, 1, 24), np.float32)
  hidden = encode(config, lora, params, adapters, prefix, zeros, jax.random.key(0))
  assert np.ptp(hidden, axis=1).max() < 1e-6  # all items of a list read the prefix as one
  assert np.abs(hidden[0] - hidden[1]).max() > 1e-2  # and another list drops other numbers
  # Items with content drop for themselves.
  same = np.broadcast_to(prefix[:, None, :1], zeros.shape)
  hidden = encode(config, lora, params, adapters, prefix, same, jax.random.key(0))
  assert np.ptp(hidden, axis=1).max() > 1e-2


@functools.cache
def noisy_gradients(remat):
  config = dataclasses.replace(SIZES, layers=2)
  params, key = some_params(config), jax.random.key(0)
  lora = as_adapters(some_lora(dataclasses.replace(EVERY, targets=('v', 'up')), layers=2))
  read = reader(dataclasses.replace(config, remat=remat), EVERY)
  return jax.jit(jax.grad(lambda adapters: jnp.sum(read(params, adapters, key)[MASK] ** 3)))(lora)


@pytest.mark.parametrize('remat', ['selective', 'full'])
def test_remat_draws_the_same_masks_again(remat):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-4),
               noisy_gradients(remat), noisy_gradients('none'))


def test_experts_of_their_own(params):
  config = dataclasses.replace(EVERY, per_expert=True)
  lora = some_lora(config, experts=2)
  assert lora['q_a'].shape == (2, 3, 24, 3) and lora['down_b'].shape == (2, 3, 3, 24)
  assert not np.array_equal(lora['q_a'][0], lora['q_a'][1])
  outs = []
  for e in range(2):
    own = jax.tree.map(lambda x, e=e: x[e], as_adapters(lora))
    outs.append(READ(params, own))
    merged = merge({'decoder': params, 'lora': lora}, config, expert=e)
    np.testing.assert_allclose(outs[e], READ(merged, None), atol=1e-5)
  assert np.abs(outs[0] - outs[1]).max() > 0.1
  both = jax.vmap(READ, in_axes=(None, 0))(params, as_adapters(lora))
  np.testing.assert_allclose(both, np.stack(outs), atol=1e-5)


def test_merge_wants_an_expert_where_each_has_its_own(params):
  own = dataclasses.replace(EVERY, per_expert=True)
  for config, expert in ((EVERY, 0), (own, None)):
    with pytest.raises(ValueError, match=f'expert must be .* got {expert!r} with per_expert'):
      merge({'decoder': params, 'lora': {}}, config, expert)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('rank', 0), ('rank', -4), ('dropout', -0.1), ('dropout', 1.0), ('targets', ()),
    ('targets', ('q', 'q')), ('targets', ('q', 'query')), ('targets', ('lm_head',)),
  ],
)
def test_config_errors_name_key_allowed_and_got(key, value):
  with pytest.raises(ValueError) as error:
    LoraConfig(**{key: value})
  text = str(error.value)
  assert text.startswith(f'{key} must be ') and text.endswith(f'got {value!r}')


def test_defaults_are_the_published_ones():
  config = LoraConfig()
  assert (config.rank, config.alpha, config.dropout) == (16, 32.0, 0.1)
  assert config.targets == ('q', 'k', 'v', 'o')
  assert not config.per_expert and not config.rank_stabilised
