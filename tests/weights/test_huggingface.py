"""Hugging Face directories against PyTorch transformers; sharded loading; refusals."""

import functools
import json
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
import torch
from transformers import AutoModelForCausalLM

from jobrec_jax.models.attention import rotary_angles
from jobrec_jax.models.decoder import Decoder, DecoderConfig, Layer
from jobrec_jax.models.list_masks import ListMask
from jobrec_jax.sharding import MeshConfig, layout, logical_rules, make_mesh
from jobrec_jax.weights import huggingface
from jobrec_jax.weights.families import decoder_config
from jobrec_jax.weights.huggingface import (
  Directory,
  load_decoder,
  open_directory,
  save_decoder,
)
from jobrec_jax.weights.places import decoder_places
from tests.reference.families_torch import CASES, SIZES, layers_of, logits_of, random_model

TOKENS = np.random.default_rng(0).integers(0, SIZES['vocab_size'], (2, 150)).astype(np.int32)
WIDE = DecoderConfig(11, 5, 2, 6, 3, 4, 7, attention_bias=True, qk_norm=True, tie_embeddings=False)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """(model, directory) of a case, saved by transformers in many files."""

  @functools.cache
  def get(case, dtype=torch.float32):
    model, path = random_model(case, dtype), tmp_path_factory.mktemp('saved') / 'model'
    model.save_pretrained(path, max_shard_size='20KB')
    return model, path

  return get


@functools.cache
def program(config):
  decoder = Decoder(config)

  @jax.jit
  def run(params, tokens):
    hidden = decoder.apply({'params': params}, tokens)
    return decoder.apply({'params': params}, hidden, method='logits')

  return run


def load(path, dtype=jnp.float32, **kwargs):
  directory = open_directory(path)
  config = decoder_config(directory.config)
  return config, load_decoder(directory, config, dtype=dtype, **kwargs)


@pytest.mark.parametrize('case', CASES)
def test_each_layer_equals_transformers(saved, case):
  model, path = saved(case)
  config, params = load(path)
  whole = ListMask(jnp.ones(TOKENS.shape, bool))
  places = whole.positions(), config.head_width
  views = {False: (rotary_angles(*places, config.rope_base, config.rope_scaling), whole),
           True: (rotary_angles(*places, config.local_rope_base),
                  whole.replace(window=jnp.asarray(config.window)))}

  @jax.jit
  def run(params, x, angles, mask):
    (out, _), state = Layer(config).apply(
      {'params': params}, x, angles, mask, capture_intermediates=True)
    return state['intermediates']['attention']['o']['__call__'][0], out

  theirs = layers_of(model, TOKENS)
  assert len(theirs) == config.layers
  for i, (x, attended, y) in enumerate(theirs):
    view = views[config.has_window(i)]
    ours, out = run(jax.tree.map(lambda w, i=i: w[i], params['layers']), x, *view)
    np.testing.assert_allclose(ours, attended, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(out, y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_logits_equal_transformers_both_ways(saved, case, tmp_path):
  model, path = saved(case)
  assert (path / 'model.safetensors.index.json').exists()
  config, params = load(path)
  expected = logits_of(model, TOKENS)
  np.testing.assert_allclose(program(config)(params, TOKENS), expected, atol=1e-4)
  save_decoder(tmp_path / 'ours', params, config, CASES[case]['model_type'],
               max_shard_bytes=10**9 if case == 'smollm2' else 20_000)
  back = AutoModelForCausalLM.from_pretrained(tmp_path / 'ours', attn_implementation='eager')
  assert back.dtype == torch.float32
  np.testing.assert_allclose(logits_of(back, TOKENS), expected, atol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_bfloat16_is_read_and_written_bit_for_bit(saved, case, tmp_path):
  model, path = saved(case, torch.bfloat16)
  config, params = load(path, jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
  save_decoder(tmp_path / 'ours', params, config, CASES[case]['model_type'])
  back = AutoModelForCausalLM.from_pretrained(tmp_path / 'ours')
  assert back.dtype == torch.bfloat16
  for name, weight in model.state_dict().items():
    assert torch.equal(back.state_dict()[name], weight), name
  _, wide = load(path)
  jax.tree.map(np.testing.assert_array_equal, wide, jax.tree.map(jnp.float32, params))
  # Loaded anew: model.float() would keep rotary frequencies that bfloat16 has rounded.
  exact = AutoModelForCausalLM.from_pretrained(
    path, dtype=torch.float32, attn_implementation='eager')
  np.testing.assert_allclose(program(config)(wide, TOKENS), logits_of(exact, TOKENS), atol=1e-4)


def test_float16_is_widened(saved, tmp_path):
  model, _ = saved('qwen2')
  random_model('qwen2').half().save_pretrained(tmp_path / 'half')
  _, params = load(tmp_path / 'half')
  expected = model.model.embed_tokens.weight.detach().half().float().numpy()
  np.testing.assert_array_equal(params['embedding'], expected)


def test_llama_3_stretching_matters_at_these_positions(saved):
  model, path = saved('llama 3')
  directory = open_directory(path)
  plain = decoder_config(directory.config, rope_scaling=None)
  params = load_decoder(directory, plain, dtype=jnp.float32)
  gap = np.abs(program(plain)(params, TOKENS) - logits_of(model, TOKENS)).max(axis=(0, 2))
  assert gap[100:].min() > 0.05


@pytest.mark.parametrize('case', CASES)
def test_loaded_tree_is_what_the_decoder_makes(saved, case):
  config, params = load(saved(case)[1])
  made = nn.unbox(jax.eval_shape(Decoder(config).init, jax.random.key(0), TOKENS))['params']
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)


def shardings_of(config, mesh):
  abstract = jax.eval_shape(Decoder(config).init, jax.random.key(0), TOKENS)
  specs = nn.get_partition_spec(abstract)['params']
  return nn.logical_to_mesh_sharding(specs, mesh, logical_rules())


@pytest.fixture(scope='module')
def mesh():
  return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize('case', CASES)
def test_eight_devices_equal_one(saved, case, mesh):
  config, alone = load(saved(case)[1])
  shardings = shardings_of(config, mesh)
  _, params = load(saved(case)[1], shardings=shardings)
  jax.tree.map(np.testing.assert_array_equal, params, alone)
  assert jax.tree.map(lambda x: x.sharding, params) == shardings
  q = params['layers']['attention']['q']['kernel']
  assert q.addressable_shards[0].data.size * 4 == q.size
  with layout(mesh):
    ours = program(config)(params, TOKENS)
  np.testing.assert_allclose(ours, logits_of(saved(case)[0], TOKENS), atol=1e-4)


def test_an_axis_that_does_not_divide_is_named(saved):
  path = saved('llama 3')[1]  # two kv heads
  mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
  shardings = shardings_of(decoder_config(open_directory(path).config), mesh)
  with pytest.raises(ValueError, match=r'layers/attention/k/kernel of shape .* does not divide'):
    load(path, shardings=shardings)
  del shardings['embedding']
  with pytest.raises(ValueError, match=r'one for every parameter, missing .*embedding'):
    load(path, shardings=shardings)


def test_each_byte_is_read_once_and_a_shard_at_a_time(tmp_path, mesh, monkeypatch):
  """While a shard is read, the host holds no other: not the model, not even a parameter."""
  config = DecoderConfig(256, 32, 8, 4, 2, 8, 64, tie_embeddings=False)
  rng = np.random.default_rng(0)
  made = nn.unbox(jax.eval_shape(Decoder(config).init, jax.random.key(0), TOKENS))['params']
  params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), made)
  save_decoder(tmp_path / 'model', params, config, 'llama')
  directory, shardings = open_directory(tmp_path / 'model'), shardings_of(config, mesh)
  read, put, reads, given = Directory.read, jax.device_put, [], []

  def read_and_count(self, name, spans):
    x = read(self, name, spans)
    reads.append((x.nbytes, sum(shard() is not None for shard in given)))
    return x

  def put_a_copy(x, device):  # JAX lets go of what it is given some calls later.
    given.append(weakref.ref(x))
    return put(x.copy(), device)

  monkeypatch.setattr(Directory, 'read', read_and_count)
  monkeypatch.setattr(jax, 'device_put', put_a_copy)
  loaded = load_decoder(directory, config, shardings, jnp.float32)
  monkeypatch.undo()
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  sizes, held = zip(*reads)
  # Once, though both data replicas hold every shard.
  assert sum(sizes) == sum(x.nbytes for x in jax.tree.leaves(params))
  assert max(sizes) == 256 * 32 * 4 // 4  # the largest tensor, in four parts
  assert len(given) > 80 and not any(held)


@pytest.mark.parametrize('key', decoder_places(WIDE))
def test_any_part_of_a_parameter_is_read_from_its_tensor(key):
  place, rng = decoder_places(WIDE)[key], np.random.default_rng(0)
  x = rng.normal(size=place.shape)
  tensor = place.theirs(x)
  assert tensor.shape == place.tensor_shape
  for _ in range(30):
    spans = tuple(slice(*sorted(rng.choice(n + 1, 2, replace=False))) for n in place.shape)
    np.testing.assert_array_equal(place.ours(lambda rows: tensor[rows], spans), x[spans])


def rewrite(path, change):
  """Applies `change` to the tensors of a directory's only file."""
  file = path / 'model.safetensors'
  tensors = dict(load_file(file))
  change(tensors)
  save_file(tensors, file)


@pytest.fixture
def small(saved, tmp_path):
  """A directory of one file that a test may break."""
  config, params = load(saved('smollm2')[1])
  save_decoder(tmp_path / 'small', params, config, 'llama')
  return tmp_path / 'small'


def test_one_message_names_everything_that_differs(small):
  def change(tensors):
    tensors['model.layers.7.mlp.up_proj.weight'] = np.zeros((2, 2), np.float32)
    del tensors['model.norm.weight'], tensors['model.layers.1.mlp.up_proj.weight']
    tensors['model.layers.0.input_layernorm.weight'] = np.zeros(5, np.float32)

  rewrite(small, change)
  with pytest.raises(ValueError) as error:
    load(small)
  assert str(error.value).splitlines()[1:] == [
    '  missing: model.layers.1.mlp.up_proj.weight, model.norm.weight',
    '  extra: model.layers.7.mlp.up_proj.weight',
    '  shapes: model.layers.0.input_layernorm.weight must be (32,), got (5,)',
  ]


def test_tied_weights_may_come_twice_if_equal(small):
  def twice(tensors):
    tensors['lm_head.weight'] = tensors['model.embed_tokens.weight']
    tensors['model.layers.0.self_attn.rotary_emb.inv_freq'] = np.ones(2, np.float32)

  rewrite(small, twice)
  _, params = load(small)
  assert 'lm_head' not in params
  rewrite(small, lambda t: t.update({'lm_head.weight': t['lm_head.weight'] + 1}))
  with pytest.raises(ValueError, match=r'lm_head.weight must be absent or the embedding'):
    load(small)
  directory = open_directory(small)
  untied = decoder_config(directory.config, tie_embeddings=False)
  head = load_decoder(directory, untied, dtype=jnp.float32)['lm_head']
  np.testing.assert_allclose(head.T, params['embedding'] + 1)


def test_integers_and_other_types_are_refused(small):
  rewrite(small, lambda t: t.update({'model.norm.weight': np.ones(32, np.int8)}))
  with pytest.raises(ValueError, match=r"model.norm.weight must be of type .*'BF16'.*got I8"):
    load(small)
  with pytest.raises(ValueError, match='weights dtype must be float32 or bfloat16, got int32'):
    load(small, jnp.int32)


def test_pickles_are_refused_with_the_way_out(small):
  (small / 'model.safetensors').unlink()
  with pytest.raises(ValueError, match=r'small: must hold model.safetensors or .*got none'):
    open_directory(small)
  (small / 'pytorch_model.bin').write_bytes(b'')
  with pytest.raises(ValueError, match=r'got pytorch_model.bin .*convert .*save_pretrained'):
    open_directory(small)


@pytest.mark.parametrize('file', [
  '../x.safetensors', '/x.safetensors', 'a/x.safetensors', '..', 'x.bin', '', 3, None,
  'x.safetensors\n', '.x.safetensors',
])
def test_an_index_may_not_leave_its_directory(saved, tmp_path, file):
  for name in ('config.json', 'model.safetensors.index.json'):
    (tmp_path / name).write_text((saved('qwen3')[1] / name).read_text())
  index = tmp_path / 'model.safetensors.index.json'
  content = json.loads(index.read_text())
  content['weight_map']['model.norm.weight'] = file
  index.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=r'index.json: weight_map: model.norm.weight must be .*got'):
    open_directory(tmp_path)


def test_an_index_must_tell_the_truth(saved, tmp_path):
  for file in saved('qwen3')[1].iterdir():
    (tmp_path / file.name).symlink_to(file)  # as in the hub's cache
  load(tmp_path)
  index = tmp_path / 'model.safetensors.index.json'
  content = json.loads(index.read_text())
  file = content['weight_map']['model.norm.weight']
  content['weight_map']['model.other'] = file
  index.unlink()
  index.write_text(json.dumps(content))
  with pytest.raises(ValueError, match=f'weight_map must .*got model.other in {file}'):
    open_directory(tmp_path)
  index.write_text(json.dumps({'weight_map': {'model.norm.weight': 'lost.safetensors'}}))
  with pytest.raises(ValueError, match=r'lost.safetensors: must be a safetensors file'):
    open_directory(tmp_path)
  for text, message in (('{}', 'got None'), ('[', 'must be JSON'), ('[]', 'JSON object, got list')):
    index.write_text(text)
    with pytest.raises(ValueError, match=rf'index.json(:|:1:) .*{message}'):
      open_directory(tmp_path)


def test_broken_files_are_named(small, tmp_path):
  (small / 'model.safetensors').write_bytes(b'\xff' * 100)
  with pytest.raises(ValueError, match=r'model.safetensors: must be a safetensors file'):
    open_directory(small)
  (small / 'config.json').unlink()
  with pytest.raises(ValueError, match=r'config.json: must be a readable file'):
    open_directory(small)
  with pytest.raises(ValueError, match='weights must be a directory or a hub name'):
    open_directory(tmp_path / 'nothing')


def test_a_hub_name_is_fetched_without_code_or_pickles(small, monkeypatch):
  asked = {}

  def fetch(name, **kwargs):
    asked.update(name=name, **kwargs)
    if name == 'some/lost':
      raise FileNotFoundError('not on the hub')
    return str(small)

  monkeypatch.setattr(huggingface.huggingface_hub, 'snapshot_download', fetch)
  assert open_directory('some/model', revision='v1').path == small
  assert asked == {
    'name': 'some/model', 'revision': 'v1',
    'allow_patterns': ['config.json', 'model*.safetensors', 'model.safetensors.index.json',
                       'tokenizer*'],
  }
  with pytest.raises(ValueError, match=r'some/lost: must be a directory .*not on the hub'):
    open_directory('some/lost')


def test_saving_is_all_or_nothing(small, tmp_path):
  config, params = load(small)
  with pytest.raises(ValueError, match='small: must be a new or empty folder'):
    save_decoder(small, params, config, 'llama')
  with pytest.raises(ValueError, match=r'fit the decoder\n  missing: norm/scale\n  extra: lora/q'):
    broken = {k: v for k, v in params.items() if k != 'norm'}
    save_decoder(tmp_path / 'new', {**broken, 'lora': {'q': jnp.ones(1)}}, config, 'llama')
  with pytest.raises(ValueError, match=r'tokenizer_files must have names other than config.json'):
    save_decoder(tmp_path / 'new', params, config, 'llama', [small / 'config.json'])
  with pytest.raises(FileNotFoundError):
    save_decoder(tmp_path / 'new', params, config, 'llama', [tmp_path / 'lost.json'])
  assert [p.name for p in tmp_path.iterdir()] == ['small']
  (tmp_path / 'tokenizer.json').write_text('{}')
  save_decoder(tmp_path / 'new', params, config, 'llama', [tmp_path / 'tokenizer.json'],
               max_position_embeddings=77)
  assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == [
    'config.json', 'model.safetensors', 'tokenizer.json']
  assert open_directory(tmp_path / 'new').config['max_position_embeddings'] == 77


def test_saving_from_a_mesh(saved, tmp_path, mesh):
  path = saved('qwen2')[1]
  config, _ = load(path)
  _, params = load(path, jnp.bfloat16, shardings=shardings_of(config, mesh))
  save_decoder(tmp_path / 'ours', params, config, 'qwen2')
  _, back = load(tmp_path / 'ours', jnp.bfloat16)
  jax.tree.map(np.testing.assert_array_equal, back, params)
