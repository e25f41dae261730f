"""The decoder against PyTorch transformers, and its own promises about padding and axes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from jobrec_jax.models.attention import rotary_angles, rotate
from jobrec_jax.models.axes import AXES, constrain, partitioned
from jobrec_jax.models.decoder import Decoder, DecoderConfig, Layer, RMSNorm
from jobrec_jax.models.list_masks import ListMask
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

SMALL = DecoderConfig(
  vocab_size=61, width=24, layers=3, heads=4, kv_heads=2, head_width=8, mlp_width=40
)
VARIANTS = {
  'grouped, tied': SMALL,
  'grouped, untied': dataclasses.replace(SMALL, tie_embeddings=False, rope_base=1e5),
  'one kv head': dataclasses.replace(SMALL, kv_heads=1, rms_epsilon=1e-6),
  'a kv head each': dataclasses.replace(SMALL, kv_heads=4, tie_embeddings=False),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def pair(request):
  model = random_llama(request.param)
  return request.param, model, decoder_params(model, request.param)


def some_tokens(shape, seed=0, vocab=SMALL.vocab_size):
  return np.random.default_rng(seed).integers(1, vocab, shape).astype(np.int32)


def next_logits(config):
  decoder = Decoder(config)

  @jax.jit
  def run(params, tokens):
    hidden = decoder.apply({'params': params}, tokens)
    return decoder.apply({'params': params}, hidden, method='logits')

  return run


@pytest.fixture(scope='module')
def variables():
  return nn.unbox(jax.jit(Decoder(SMALL).init)(jax.random.key(0), some_tokens((1, 3))))


READ = jax.jit(Decoder(SMALL).apply)


def test_rotary_equals_transformers():
  H, positions = 8, np.arange(50)[None]
  x = np.random.default_rng(0).normal(size=(1, 50, 3, H)).astype(np.float32)
  angles = rotary_angles(jnp.asarray(positions), H, 10000.0)
  model = random_llama(SMALL)
  cos, sin = model.model.rotary_emb(to_torch(x), to_torch(positions))
  expected, _ = apply_rotary_pos_emb(to_torch(x), to_torch(x), cos, sin, unsqueeze_dim=2)
  np.testing.assert_allclose(rotate(x, angles[:, :, None]), expected, atol=1e-5)


def test_each_layer_equals_transformers(pair):
  config, model, params = pair
  tokens = some_tokens((2, 17))
  inputs, attended, outputs = [], [], []

  def keep(module, args, output):
    inputs.append(args[0])
    outputs.append(output)

  for layer in model.model.layers:
    layer.register_forward_hook(keep)
    layer.self_attn.register_forward_hook(lambda _, args, output: attended.append(output[0]))
  with torch.no_grad():
    model(to_torch(tokens).long())
  mask = ListMask(jnp.ones(tokens.shape, bool))
  angles = rotary_angles(mask.positions(), config.head_width, config.rope_base)

  @jax.jit
  def run(params, x):
    (out, _), state = Layer(config).apply(
      {'params': params}, x, angles, mask, capture_intermediates=True
    )
    return state['intermediates']['attention']['__call__'][0][0], out

  assert len(inputs) == config.layers
  for i, (x, a, y) in enumerate(zip(inputs, attended, outputs)):
    layer = jax.tree.map(lambda w, i=i: w[i], params['layers'])
    ours, out = run(layer, x.numpy())
    np.testing.assert_allclose(ours, a.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(out, y.numpy(), atol=1e-5, rtol=1e-5)


def test_logits_equal_transformers(pair):
  config, model, params = pair
  tokens = some_tokens((2, 33))
  with torch.no_grad():
    expected = model(to_torch(tokens).long()).logits.numpy()
  logits = next_logits(config)(params, tokens)
  assert logits.dtype == jnp.float32
  np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_gradients_equal_transformers():
  config = VARIANTS['grouped, untied']
  model, tokens = random_llama(config), some_tokens((2, 9))
  params = decoder_params(model, config)
  weight = np.random.default_rng(1).normal(size=(2, 9, config.vocab_size)).astype(np.float32)
  (model(to_torch(tokens).long()).logits * to_torch(weight)).mean().backward()
  for p in model.parameters():
    p.data = p.grad
  expected = decoder_params(model, config)
  ours = jax.jit(jax.grad(lambda p: jnp.mean(next_logits(config)(p, tokens) * weight)))(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_params_have_the_layout_of_the_reference(pair):
  config, _, params = pair
  made = jax.eval_shape(Decoder(config).init, jax.random.key(0), some_tokens((1, 3)))
  made = nn.unbox(made)['params']
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
  assert all(w.dtype == jnp.float32 for w in jax.tree.leaves(made))


@pytest.mark.parametrize('pads', [[0, 0, 5], [5, 0, 0], [1, 3, 1]], ids=['right', 'left', 'mixed'])
def test_padding_has_no_say(variables, pads):
  """Tokens at a, b with pads before, between and after them read as a + b alone."""
  a, b = some_tokens((4,)), some_tokens((6,), 1)
  before, between, after = (np.zeros(n, np.int32) for n in pads)
  padded = np.concatenate([before, a, between, b, after])[None]
  plain = np.concatenate([a, b])[None]
  hidden = READ(variables, padded, padded != 0)[padded != 0]
  np.testing.assert_allclose(hidden, READ(variables, plain)[0], atol=1e-5)


def test_fully_masked_rows_stay_finite(variables):
  tokens = some_tokens((2, 5))
  mask = np.array([[False] * 5, [True] * 5])

  def loss(variables):
    hidden = READ(variables, tokens, mask)
    return jnp.sum(hidden**3), hidden

  grads, hidden = jax.jit(jax.grad(loss, has_aux=True))(variables)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((grads, hidden)))


def test_jit_equals_eager(variables):
  tokens = some_tokens((2, 7))
  eager = Decoder(SMALL).apply(variables, tokens)
  np.testing.assert_allclose(READ(variables, tokens), eager, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_near_float32(variables):
  tokens = some_tokens((2, 7))
  exact = READ(variables, tokens)
  half = jax.jit(Decoder(dataclasses.replace(SMALL, dtype='bfloat16')).apply)(variables, tokens)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.1)


def test_norm_of_a_constant_is_its_sign():
  x = jnp.full((1, 4), -3.0)
  variables = nn.unbox(RMSNorm(1e-6, 'float32').init(jax.random.key(0), x))
  np.testing.assert_allclose(RMSNorm(1e-6, 'float32').apply(variables, x), -1, atol=1e-6)


def test_initial_hidden_states_and_logits_have_unit_scale():
  config = DecoderConfig(512, 64, 4, 4, 2, 16, 128)
  tokens = some_tokens((4, 32), vocab=512)
  params = nn.unbox(jax.jit(Decoder(config).init)(jax.random.key(0), tokens))['params']
  logits = next_logits(config)(params, tokens)
  assert 0.5 < float(jnp.std(logits)) < 2


def test_an_id_beyond_the_vocabulary_is_not_hidden(variables):
  tokens = some_tokens((1, 4))
  tokens[0, 1] = SMALL.vocab_size
  hidden = READ(variables, tokens)
  assert np.isnan(hidden[0, 1:]).all()


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('vocab_size', 0), ('width', -1), ('layers', 1.5), ('heads', True), ('kv_heads', 3),
    ('head_width', 7), ('mlp_width', 0), ('unroll', 0), ('rope_base', 1.0), ('rms_epsilon', 0.0),
    ('dtype', 'float16'),
  ],
)
def test_config_errors_name_key_allowed_and_got(key, value):
  with pytest.raises(ValueError, match=f'decoder {key} must be .*got {value!r}'):
    dataclasses.replace(SMALL, **{key: value})


def test_every_parameter_names_known_axes():
  boxed = jax.eval_shape(Decoder(SMALL).init, jax.random.key(0), jnp.ones((1, 3), jnp.int32))
  specs = nn.get_partition_spec(boxed)['params']
  assert specs['layers']['attention']['q']['kernel'] == P('layers', 'embed', 'heads', 'head')
  assert specs['embedding'] == P('vocab', 'embed')
  for spec, leaf in zip(
    jax.tree.leaves(specs, is_leaf=lambda s: isinstance(s, P)),
    jax.tree.leaves(nn.unbox(boxed)),
  ):
    assert len(spec) == leaf.ndim
    assert set(spec) <= AXES


def test_constrain_raises_on_unknown_names_and_is_silent_without_rules():
  x = jnp.ones((2, 3))
  assert constrain(x, 'batch', 'embed') is x
  with pytest.raises(ValueError, match=r"got \['bacth'\]"):
    constrain(x, 'bacth', 'embed')
  with pytest.raises(ValueError, match='one name for each axis'):
    constrain(x, 'batch')
  with pytest.raises(ValueError, match=r"got \['widht'\]"):
    partitioned(nn.initializers.ones_init(), 'widht')
  mesh = jax.make_mesh((1,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  with nn.logical_axis_rules((('batch', 'data'),)), jax.set_mesh(mesh):
    np.testing.assert_array_equal(jax.jit(lambda x: constrain(x, 'batch', None))(x), x)
    with pytest.raises(ValueError, match='embed'):
      jax.jit(lambda x: constrain(x, 'batch', 'embed'))(x)


def test_what_a_list_shows():
  """A prefix of two tokens, two items of three, one of two; the last two of each are readouts."""
  mask = ListMask(np.ones((1, 2), bool), (np.ones((1, 2, 3), bool), np.ones((1, 1, 2), bool)),
                  blind=2)
  np.testing.assert_array_equal(mask.blocks[0], np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], bool))
  expected = ['1.........', '11........',
              '111.......', '1111......', '111.1.....',
              '11...1....', '11...11...', '11...1.1..',
              '11......1.', '11.......1']
  np.testing.assert_array_equal(mask.shows(), [[x == '1' for x in row] for row in expected])
  np.testing.assert_array_equal(mask.positions(), [[0, 1, 2, 3, 3, 2, 3, 3, 2, 2]])


@pytest.mark.parametrize('unroll', [1, 2])
@pytest.mark.parametrize('remat', ['none', 'selective', 'full'])
def test_what_is_read_equals_the_ends_of_all_that_was_computed(remat, unroll):
  config = DecoderConfig(vocab_size=9, width=8, layers=2, heads=2, kv_heads=1, head_width=4,
                         mlp_width=12, remat=remat, unroll=unroll)
  rng = np.random.default_rng(0)
  prefix, items = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, 8), (2, 4, 5, 8)))
  masks = rng.random((2, 3)) < 0.8, rng.random((2, 4, 5)) < 0.8
  params = nn.unbox(Decoder(config).init(jax.random.key(0), some_tokens((1, 2), vocab=9)))

  @functools.partial(jax.jit, static_argnums=1)
  @functools.partial(jax.grad, has_aux=True)
  def gradient_and_hidden(params, read):
    mask = ListMask(masks[0], (masks[1],), read=read)
    hidden = Decoder(config).apply(params, prefix, [items], mask, method='encode_lists')[0]
    return jnp.sum(jnp.sin(hidden[:, :, -2:]) * np.arange(8)), hidden

  (ours, ends), (expected, whole) = (gradient_and_hidden(params, read) for read in (2, None))
  assert ends.shape == (2, 4, 2, 8)
  np.testing.assert_allclose(ends, whole[:, :, 3:], atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_after_the_last_keys_and_values_only_what_is_read_is_computed():
  """The MLP products of three unrolled layers over a list: each item's last token is read."""
  config = dataclasses.replace(SMALL, unroll=3)
  prefix, items = np.ones((1, 30, 24), np.float32), np.ones((1, 4, 25, 24), np.float32)
  masks = np.ones((1, 30), bool), np.ones((1, 4, 25), bool)
  params = nn.unbox(jax.eval_shape(Decoder(config).init, jax.random.key(0), some_tokens((1, 2))))

  def products(read):
    run = functools.partial(Decoder(config).apply, method='encode_lists')
    mask = ListMask(masks[0], (masks[1],), read=read)
    text = str(jax.make_jaxpr(run)(params, prefix, [items], mask))
    return text.count('f32[130,40] = dot_general'), text.count('f32[4,40] = dot_general')

  assert products(None) == (6, 0)  # gate and up
  assert products(1) == (4, 2)


def test_frequencies_are_those_of_the_released_code():
  """A last bit of a frequency turns position 3000 by 2e-4, which sharp attention can tell."""
  for base, width in ((1e6, 256), (1e4, 256), (1e4, 64), (5e5, 128)):
    theirs = 1 / (base ** (torch.arange(0, width, 2).float() / width))
    ours = np.asarray(rotary_angles(jnp.ones((), jnp.int32), width, base))
    assert (ours != theirs.numpy()).mean() < 0.02  # fp32 powers, whose last bit is torch's own
