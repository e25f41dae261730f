"""Adapters in and out against PEFT on PyTorch, and the readouts and heads beside them."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
import torch

from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import ExpertHead
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import ATTENTION, TARGETS, LoraConfig, merge
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.weights.peft import Heads, load_adapter, save_adapter
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

# Every size differs from every other, so that no transposed or swapped matrix fits.
SIZES = DecoderConfig(vocab_size=61, width=24, layers=3, heads=4, kv_heads=2, head_width=8,
                      mlp_width=40, tie_embeddings=False)
SHAPES = {'q': (24, 32), 'k': (24, 16), 'v': (24, 16), 'o': (32, 24), 'gate': (24, 40),
          'up': (24, 40), 'down': (40, 24)}
PUBLISHED = LoraConfig()
EXPERTS = ('preference', 'qualification')
TOKENS = np.random.default_rng(0).integers(1, 61, (2, 13)).astype(np.int32)
VARIANTS = {
  'published': PUBLISHED,
  'rank-stabilised': LoraConfig(rank=4, alpha=3.0, rank_stabilised=True),
  'every target': LoraConfig(rank=3, alpha=5.5, dropout=0.0, targets=TARGETS),
  'mlp': LoraConfig(rank=2, alpha=4.0, targets=('gate', 'down')),
}


def adapted_by(config):
  return dataclasses.replace(SIZES, lora=config)


def random_lora(config):
  rng = np.random.default_rng(0)
  lead = (len(EXPERTS), SIZES.layers) if config.per_expert else (SIZES.layers,)
  params = {}
  for target in config.targets:
    inputs, outputs = SHAPES[target]
    for part, shape in (('a', (inputs, config.rank)), ('b', (config.rank, outputs))):
      values = rng.normal(size=(*lead, *shape)) * shape[0] ** -0.5 / config.scale**0.5
      params[f'{target}_{part}'] = values.astype(np.float32)
  return params


def read(decoder_config, params, lora_params, lora):
  """Hidden states and logits of TOKENS."""
  decoder = Decoder(dataclasses.replace(decoder_config, lora=lora))
  adapters = {t: {part: lora_params[f'{t}_{part}'] for part in 'ab'} for t in lora.targets}
  hidden = jax.jit(decoder.apply)({'params': params}, TOKENS, None, adapters)
  return hidden, decoder.apply({'params': params}, hidden, method='logits')


def torch_read(model):
  with torch.no_grad():
    out = model(to_torch(TOKENS).long(), output_hidden_states=True)
  return out.hidden_states[-1].numpy(), out.logits.numpy()


def close(ours, theirs):
  for a, b in zip(ours, theirs):
    np.testing.assert_allclose(a, b, atol=1e-4)


def edit(path, **changes):
  values = json.loads(path.read_text())
  path.write_text(json.dumps({**values, **changes}))


def same(ours, theirs):
  assert jax.tree.structure(ours) == jax.tree.structure(theirs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs)):
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype and a.shape == b.shape
    assert a.tobytes() == b.tobytes()


@pytest.fixture
def saved(tmp_path):
  config = LoraConfig(rank=3, alpha=5.0, targets=('q', 'v'))
  lora_params = random_lora(config)
  save_adapter(tmp_path / 'adapter', lora_params, adapted_by(config), 'some/base', Heads({}))
  return tmp_path / 'adapter'


@pytest.mark.parametrize('lora', VARIANTS.values(), ids=VARIANTS.keys())
def test_peft_reads_what_we_write(tmp_path, lora):
  model = random_llama(SIZES)
  params, lora_params = decoder_params(model, SIZES), random_lora(lora)
  plain = torch_read(model)
  save_adapter(tmp_path / 'adapter', lora_params, adapted_by(lora), 'some/base', Heads({}))
  theirs = peft.PeftModel.from_pretrained(model, str(tmp_path / 'adapter')).eval()
  config = theirs.peft_config['default']
  assert config.base_model_name_or_path == 'some/base'
  assert config.lora_dropout == lora.dropout
  ours = read(SIZES, params, lora_params, lora)
  assert np.abs(ours[1] - plain[1]).max() > 0.1  # the adapter has a say at all
  close(ours, torch_read(theirs))
  merged = merge({'decoder': params, 'lora': lora_params}, lora)
  expected = decoder_params(theirs.merge_and_unload(), SIZES)
  assert jax.tree.structure(merged) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), merged, expected)
  close(ours, torch_read(model))


@pytest.mark.parametrize('variant', ['published', 'rsLoRA, a part', 'half', 'every target'])
def test_we_read_what_peft_writes(tmp_path, variant):
  options = {
    'published': {'r': 16, 'lora_alpha': 32, 'lora_dropout': 0.1,
                  'target_modules': ['q_proj', 'k_proj', 'v_proj', 'o_proj']},
    'rsLoRA, a part': {'r': 5, 'lora_alpha': 7, 'use_rslora': True,
                       'target_modules': ['self_attn.v_proj', 'down_proj']},
    'half': {'r': 4, 'lora_alpha': 8, 'target_modules': ['q_proj', 'up_proj']},
    'every target': {'r': 2, 'lora_alpha': 8, 'target_modules': 'all-linear',
                     'init_lora_weights': 'gaussian'},
  }[variant]
  model = random_llama(SIZES)
  params = decoder_params(model, SIZES)
  theirs = peft.get_peft_model(model, peft.LoraConfig(task_type='CAUSAL_LM', **options)).eval()
  torch.manual_seed(1)
  for name, weight in theirs.named_parameters():
    if 'lora_' in name:
      torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
  if variant == 'half':
    for name, module in theirs.named_modules():
      if name.endswith(('lora_A', 'lora_B')):
        module.bfloat16()
  theirs.save_pretrained(tmp_path)
  if variant == 'half':
    dtypes = {str(x.dtype) for x in load_file(tmp_path / 'adapter_model.safetensors').values()}
    assert dtypes == {'bfloat16'}
    theirs.float()
  lora_params, lora, extras = load_adapter(tmp_path, SIZES)
  assert extras == {}
  assert all(x.dtype == np.float32 for x in lora_params.values())
  if variant == 'published':
    assert lora == PUBLISHED
  if variant == 'every target':
    assert lora.targets == TARGETS
  close(read(SIZES, params, lora_params, lora), torch_read(theirs))


@pytest.mark.parametrize('lora', [PUBLISHED, LoraConfig(rank=2, targets=TARGETS, per_expert=True)])
def test_everything_comes_back_bit_for_bit(tmp_path, lora):
  rng = np.random.default_rng(3)
  extras = {
    'readouts': jnp.asarray(rng.normal(size=(2, 24)), jnp.float32),
    'preference': {'dense_0': {'kernel': rng.normal(size=(24, 8)).astype(np.float32),
                               'bias': np.full(8, np.nan, np.float32)}},
    'qualification': {'dense_0': {'kernel': jnp.asarray(rng.normal(size=(8, 24)), jnp.bfloat16).T,
                                  'bias': np.float32(-0.0)}, 'steps': np.int32(7)},
    'calibration': Calibration(b=1 / 3, t=float(np.float32(0.1))),
  }
  lora_params = {k: jnp.asarray(v) for k, v in random_lora(lora).items()}
  save_adapter(tmp_path / 'new', lora_params, adapted_by(lora), 'base', Heads(extras, EXPERTS))
  loaded, config, back = load_adapter(tmp_path / 'new', SIZES)
  assert config == lora
  same(loaded, lora_params)
  same(back, extras)
  assert isinstance(back['calibration'], Calibration)
  assert [path.name for path in tmp_path.iterdir()] == ['new']  # nothing temporary stays


@pytest.mark.parametrize('per_expert', [False, True])
def test_scores_come_back_on_the_same_decoder(tmp_path, per_expert):
  lora = LoraConfig(rank=2, targets=('q', 'up'), per_expert=per_expert)
  decoder = dataclasses.replace(SIZES, lora=lora)
  model = JobRec(JobRecConfig(decoder=decoder, head_widths=(8,)))
  blocks = TOKENS[:, :4], TOKENS.reshape(2, 1, 13)[..., :6], TOKENS.reshape(2, 1, 13)[..., 6:]
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *blocks))['params']
  params['lora'] = {key: jnp.asarray(value) for key, value in random_lora(lora).items()}
  extras = {key: value for key, value in params.items() if key not in ('decoder', 'lora')}
  save_adapter(tmp_path, params['lora'], decoder, 'base', Heads(extras, model.config.experts))
  lora_params, config, back = load_adapter(tmp_path, decoder, model.config.experts)
  assert config == lora
  loaded = {'decoder': params['decoder'], 'lora': lora_params, **back}
  same(loaded, params)
  score = jax.jit(lambda p: model.apply({'params': p}, *blocks).scores)
  np.testing.assert_array_equal(score(loaded), score(params))


def test_a_head_is_computed_elsewhere_from_what_its_file_says(tmp_path):
  head, x = ExpertHead((8, 4)), np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)
  params = nn.unbox(head.init(jax.random.key(1), x))['params']
  save_adapter(tmp_path, random_lora(LoraConfig()), adapted_by(LoraConfig()), 'base',
               Heads({'preference': params}))
  with safe_open(tmp_path / 'jobrec_heads.safetensors', 'pt') as file:
    activation = getattr(torch.nn.functional, file.metadata()['activation'])
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  y = torch.from_numpy(x)
  for layer in ('hidden_0', 'hidden_1', 'logit'):
    y = y @ arrays[f'preference/{layer}/kernel'] + arrays[f'preference/{layer}/bias']
    y = y if layer == 'logit' else activation(y)
  np.testing.assert_allclose(y[:, 0], head.apply({'params': params}, x), atol=1e-5)


def test_each_expert_has_a_folder_that_peft_reads(tmp_path):
  lora = LoraConfig(rank=2, alpha=4.0, targets=('q', 'down'), per_expert=True)
  lora_params = random_lora(lora)
  save_adapter(tmp_path / 'new', lora_params, adapted_by(lora), 'base', Heads({}, EXPERTS))
  shared = dataclasses.replace(lora, per_expert=False)
  for e, name in enumerate(EXPERTS):
    model = random_llama(SIZES)
    params = decoder_params(model, SIZES)
    own = {key: value[e] for key, value in lora_params.items()}
    theirs = peft.PeftModel.from_pretrained(model, str(tmp_path / 'new' / name)).eval()
    close(read(SIZES, params, own, shared), torch_read(theirs))
    alone, config, _ = load_adapter(tmp_path / 'new' / name, SIZES)
    assert config == shared
    same(alone, own)


def test_order_of_experts_is_the_callers_and_must_be_the_savers(tmp_path):
  lora = LoraConfig(rank=2, per_expert=True)
  lora_params = random_lora(lora)
  save_adapter(tmp_path / 'new', lora_params, adapted_by(lora), 'base', Heads({}, EXPERTS))
  same(load_adapter(tmp_path / 'new', SIZES, EXPERTS)[0], lora_params)
  with pytest.raises(ValueError, match=r"experts must be \('preference', 'qualification'\)"):
    load_adapter(tmp_path / 'new', SIZES, EXPERTS[::-1])
  (tmp_path / 'new' / 'jobrec_heads.safetensors').unlink()  # two of PEFT's folders in one
  with pytest.raises(ValueError, match=r"name the experts .*\['preference', 'qualification'\]"):
    load_adapter(tmp_path / 'new', SIZES)
  swapped, _, _ = load_adapter(tmp_path / 'new', SIZES, EXPERTS[::-1])
  same(swapped, {key: value[::-1] for key, value in lora_params.items()})
  edit(tmp_path / 'new' / 'qualification' / 'adapter_config.json', lora_alpha=1)
  with pytest.raises(ValueError, match=r'adapter_config.json: must be what preference has'):
    load_adapter(tmp_path / 'new', SIZES, EXPERTS)


@pytest.mark.parametrize('prefix', ['', 'model.', 'base_model.model.', 'base_model.model.model.'])
@pytest.mark.parametrize('suffix', ['.weight', '.default.weight'])
def test_names_with_and_without_the_wrappers(saved, prefix, suffix):
  expected = load_adapter(saved, SIZES)[0]
  path = saved / 'adapter_model.safetensors'
  tensors = {
    name.replace('base_model.model.model.', prefix).replace('.weight', suffix): tensor
    for name, tensor in load_file(path).items()
  }
  save_file(tensors, path)
  same(load_adapter(saved, SIZES)[0], expected)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('peft_type', 'LOHA'), ('use_dora', True), ('bias', 'lora_only'), ('lora_bias', True),
    ('rank_pattern', {'q_proj': 0}), ('rank_pattern', {'(': 8}), ('alpha_pattern', {'o': '1'}),
    ('alpha_pattern', ['o']), ('fan_in_fan_out', True), ('layers_to_transform', [0, -1]),
    ('layers_to_transform', True), ('init_lora_weights', 'pissa'), ('loftq_config', {'bits': 4}),
    ('trainable_token_indices', [3]), ('target_modules', ''), ('target_modules', []),
    ('target_modules', ['lm_head']), ('r', 0), ('r', 2.0), ('r', True), ('lora_alpha', '32'),
    ('lora_dropout', 1.0), ('use_rslora', 1), ('a_key_of_tomorrow', 'on'),
  ],
)
def test_config_errors_name_file_key_and_way_out(saved, key, value):
  edit(saved / 'adapter_config.json', **{key: value})
  with pytest.raises(ValueError) as error:
    load_adapter(saved, SIZES)
  text = str(error.value)
  assert text.startswith(f'{saved / "adapter_config.json"}: must be a plain LoRA adapter')
  assert 'merge_and_unload' in text
  assert f'\n{key} must be ' in text and text.endswith(f', got {value!r}')


def test_one_error_has_every_fault_of_a_config(saved):
  edit(saved / 'adapter_config.json', use_dora=True, bias='all', r=-1)
  with pytest.raises(ValueError) as error:
    load_adapter(saved, SIZES)
  assert [line.split(' ')[0] for line in str(error.value).split('\n')[1:]] == [
    'r', 'bias', 'use_dora']


def test_one_error_has_every_wrong_name_and_shape(saved):
  path = saved / 'adapter_model.safetensors'
  tensors = load_file(path)
  home = 'base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.weight'
  tensors[home.format(0, 'q', 'A')] = tensors[home.format(0, 'q', 'A')].T.copy()
  del tensors[home.format(1, 'v', 'B')]
  tensors[home.format(3, 'q', 'A')] = tensors[home.format(2, 'q', 'A')]
  tensors['base_model.model.lm_head.weight'] = np.zeros((2, 2), np.float32)
  save_file(tensors, path)
  with pytest.raises(ValueError) as error:
    load_adapter(saved, SIZES)
  heading, *lines, way_out = str(error.value).split('\n')
  assert heading.startswith(str(path)) and 'merge_and_unload' in way_out
  assert lines == [
    '  missing: layers.1.self_attn.v_proj.lora_B.weight',
    '  extra: layers.3.self_attn.q_proj.lora_A.weight, lm_head.weight',
    '  shapes: layers.0.self_attn.q_proj.lora_A.weight must be (3, 24), got (24, 3)',
  ]


def test_a_matrix_under_two_names_is_refused(saved):
  path = saved / 'adapter_model.safetensors'
  tensors = load_file(path)
  name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight'
  tensors['model.layers.0.self_attn.q_proj.lora_A.default.weight'] = tensors[name] + 1
  save_file(tensors, path)
  with pytest.raises(ValueError, match=r'must hold every matrix once\n.*repeats'):
    load_adapter(saved, SIZES)


def test_pickles_are_refused_unread(saved):
  path = saved / 'adapter_model.safetensors'
  path.with_name('adapter_model.bin').write_bytes(b'never read')
  load_adapter(saved, SIZES)  # the other one is there
  path.unlink()
  with pytest.raises(ValueError, match=r'adapter_model.bin: .*a pickle.*safe_serialization=True'):
    load_adapter(saved, SIZES)


def test_missing_and_broken_files_are_named(saved):
  path, config = saved / 'adapter_model.safetensors', saved / 'adapter_config.json'
  data = path.read_bytes()
  for broken in (b'', data[:50], data[:-1]):
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r'adapter_model.safetensors: must be a readable'):
      load_adapter(saved, SIZES)
  path.unlink()
  with pytest.raises(ValueError, match=r'adapter_model.safetensors: must be a readable'):
    load_adapter(saved, SIZES)
  config.write_text('{\n"r": 3,,}')
  with pytest.raises(ValueError, match=r'adapter_config.json:2: must be JSON'):
    load_adapter(saved, SIZES)
  config.write_text('[]')
  with pytest.raises(ValueError, match=r'adapter_config.json: must be a JSON object, got list'):
    load_adapter(saved, SIZES)
  config.unlink()
  with pytest.raises(ValueError, match=r'adapter_config.json: must be a readable file'):
    load_adapter(saved, SIZES)


def test_a_broken_calibration_is_named(saved):
  (saved / 'calibration.json').write_text('{"b": 0}')
  with pytest.raises(ValueError, match=r'calibration.json: must hold numbers b and t'):
    load_adapter(saved, SIZES)


@pytest.mark.parametrize('names', ['["a"', '{"a": 1}', '[1]'])
def test_broken_names_of_experts_are_named(saved, names):
  save_file({'x': np.zeros(1, np.float32)}, saved / 'jobrec_heads.safetensors', {'experts': names})
  with pytest.raises(ValueError, match=r'jobrec_heads.safetensors: experts must be '):
    load_adapter(saved, SIZES)


def test_a_folder_that_holds_something_stays_as_it_is(saved):
  before = {path.name: path.read_bytes() for path in saved.iterdir()}
  with pytest.raises(ValueError, match='must be a new or empty folder'):
    save_adapter(saved, random_lora(PUBLISHED), adapted_by(PUBLISHED), 'base', Heads({}))
  assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_save_that_fails_leaves_nothing(tmp_path):
  class Unreadable:
    def __array__(self, *args, **kwargs):
      raise RuntimeError('gone')

  with pytest.raises(RuntimeError, match='gone'):
    save_adapter(tmp_path / 'new', random_lora(PUBLISHED), adapted_by(PUBLISHED), 'base',
                 Heads({'readouts': Unreadable()}))
  assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_taken(tmp_path):
  save_adapter(tmp_path, random_lora(PUBLISHED), adapted_by(PUBLISHED), 'base', Heads({}))
  assert load_adapter(tmp_path, SIZES)[1] == PUBLISHED


def test_arguments_that_do_not_fit_are_named(tmp_path):
  lora = LoraConfig(rank=2, targets=('q',))
  own = dataclasses.replace(lora, per_expert=True)

  def save(params, config=lora, extras=None, experts=()):
    save_adapter(tmp_path / 'new', params, adapted_by(config), 'base', Heads(extras or {}, experts))

  params = random_lora(lora)
  with pytest.raises(ValueError) as error:
    save({'q_a': params['q_a'][:2], 'k_a': params['q_a']})
  assert str(error.value).split('\n')[1:] == [
    '  missing: q_b', '  extra: k_a', '  shapes: q_a must be (3, 24, 2), got (2, 24, 2)']
  with pytest.raises(ValueError, match=r'decoder\.lora must say how .*, got None'):
    save(params, None)
  with pytest.raises(ValueError, match='experts must be one name for each expert'):
    save(random_lora(own), own)
  with pytest.raises(ValueError, match=r'q_a must be \(1, 3, 24, 2\), got \(2, 3, 24, 2\)'):
    save(random_lora(own), own, experts=('one',))
  for names in (('a', 'a'), ('a/b', 'c'), ('..', 'a'), ('', 'a')):
    with pytest.raises(ValueError, match='experts must be distinct names of subfolders'):
      save(random_lora(own), own, experts=names)
  with pytest.raises(ValueError, match=r"names without '/', got \['head.a/b', 'boxed'\]"):
    save(params, extras={'head': {'a/b': np.zeros(2)}, 'boxed': object()})
  assert not list(tmp_path.iterdir())


def test_published_targets_are_the_attention_of_every_layer(tmp_path):
  save_adapter(tmp_path, random_lora(PUBLISHED), adapted_by(PUBLISHED), 'base', Heads({}))
  names = load_file(tmp_path / 'adapter_model.safetensors')
  assert names.keys() == {
    f'base_model.model.model.layers.{i}.self_attn.{target}_proj.lora_{part}.weight'
    for i in range(3) for target in ATTENTION for part in 'AB'
  }
  assert names['base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight'].shape == (16, 16)
  assert names['base_model.model.model.layers.2.self_attn.o_proj.lora_A.weight'].shape == (16, 32)
