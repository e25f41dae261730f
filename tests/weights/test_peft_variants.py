"""Adapters whose rank, scale or layers differ from module to module, against PEFT's own reading."""

import json

import numpy as np
import peft
import pytest
from safetensors.numpy import load_file, save_file
import torch

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.weights.peft import Heads, load_adapter, save_adapter, start_from
from tests.reference.llama_torch import random_llama

SIZES = DecoderConfig(vocab_size=61, width=24, layers=3, heads=4, kv_heads=2, head_width=8,
                      mlp_width=40, tie_embeddings=False)
BASE = {'r': 4, 'lora_alpha': 8, 'target_modules': ['q_proj', 'up_proj']}
VARIANTS = {
  'ranks': {'rank_pattern': {'layers.1.self_attn.q_proj': 7, 'up_proj': 2}},
  'alphas': {'alpha_pattern': {r'.*\.2\..*': 3, 'q_proj': 32}},
  'both, rank-stabilised': {'rank_pattern': {'q_proj': 6}, 'alpha_pattern': {'up_proj': 1},
                            'use_rslora': True},
  'alphas alone': {'lora_alpha': 0, 'alpha_pattern': {'q_proj': 5}},
  'some layers': {'layers_to_transform': [0, 2]},
  'one layer': {'layers_to_transform': 1, 'layers_pattern': 'layers'},
  'an expression': {'target_modules': r'.*\.[02]\..*(v_proj|down_proj)'},
  'named by layer': {'target_modules': ['model.layers.1.self_attn.q_proj', 'layers.2.mlp.up_proj']},
  'all but some': {'exclude_modules': ['layers.1.mlp.up_proj']},
}


def write(folder, options):
  """An adapter with random weights as PEFT saves it; returns each module's change of its weight."""
  model = peft.get_peft_model(
    random_llama(SIZES), peft.LoraConfig(task_type='CAUSAL_LM', **{**BASE, **options})).eval()
  torch.manual_seed(1)
  for name, weight in model.named_parameters():
    if 'lora_' in name:
      torch.nn.init.normal_(weight)
  model.save_pretrained(folder)
  return {name.removeprefix('base_model.model.model.'): module.get_delta_weight('default')
          for name, module in model.named_modules() if hasattr(module, 'get_delta_weight')}


def changes(arrays, config):
  """The same of our arrays."""
  out = {}
  for target in config.targets:
    home = 'self_attn' if target in 'qkvo' else 'mlp'
    for layer in range(SIZES.layers):
      a, b = (arrays[f'{target}_{part}'][layer].astype(np.float64) for part in 'ab')
      out[f'layers.{layer}.{home}.{target}_proj'] = (a @ b).T * config.scale
  return out


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_are_what_peft_makes_of_them(tmp_path, variant):
  theirs = write(tmp_path, VARIANTS[variant])
  arrays, config, _ = load_adapter(tmp_path, SIZES)
  ours = changes(arrays, config)
  assert theirs and set(theirs) <= set(ours)
  for name, change in ours.items():
    want = theirs[name].detach().numpy() if name in theirs else 0.0
    np.testing.assert_allclose(change, np.broadcast_to(want, change.shape), atol=1e-5)
  # Written and read again it is plain LoRA, and the same.
  decoder = DecoderConfig(**{**vars(SIZES), 'lora': config})
  save_adapter(tmp_path / 'again', arrays, decoder, 'some/base', Heads({}))
  again, plain, _ = load_adapter(tmp_path / 'again', SIZES)
  assert plain == config
  for name, x in arrays.items():
    np.testing.assert_array_equal(again[name], x)


def edit(folder, **values):
  path = folder / 'adapter_config.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add(folder, **tensors):
  path = folder / 'adapter_model.safetensors'
  save_file({**load_file(path), **tensors}, path)


def test_what_changes_nothing_is_let_pass(tmp_path):
  write(tmp_path, {})
  before, config, _ = load_adapter(tmp_path, SIZES)
  assert config == LoraConfig(4, 8.0, 0.0, ('q', 'up'))
  edit(tmp_path, modules_to_save=['score'], unsloth_fixed=True, ensure_weight_tying=True,
       runtime_config={'ephemeral_gpu_offload': True}, init_lora_weights='eva',
       eva_config={'rho': 2.0, 'tau': 0.99})
  add(tmp_path, **{'base_model.model.score.weight': np.zeros((2, 24), np.float32)})
  after, same, _ = load_adapter(tmp_path, SIZES)
  assert same == config
  for name, x in before.items():
    np.testing.assert_array_equal(after[name], x)


@pytest.mark.parametrize('name', ['base_model.model.model.embed_tokens.weight',
                                  'base_model.model.lm_head.weight'])
def test_embeddings_beside_an_adapter_are_refused_with_the_way_out(tmp_path, name):
  write(tmp_path, {})
  add(tmp_path, **{name: np.zeros((65, 24), np.float32)})
  with pytest.raises(ValueError, match=r'(?s)embeddings of its own.*merge it .*merge_and_unload'):
    load_adapter(tmp_path, SIZES)


@pytest.mark.parametrize(('options', 'change', 'message'), [
  ({}, {'rank_pattern': {'q_proj': 9}}, r'lora_A.weight must be \(9, 24\), got \(4, 24\)'),
  ({}, {'layers_to_transform': [0]}, r'extra: layers.1.mlp.up_proj.lora_A.weight'),
  ({'layers_to_transform': [0]}, {'layers_to_transform': None}, r'missing: layers.1.mlp.up_proj'),
  ({}, {'layers_to_transform': [3]}, 'layers_to_transform must be below the 3 layers .*got 3'),
  ({}, {'target_modules': ['layers.3.mlp.up_proj']}, 'target_modules must name projections'),
  ({'rank_pattern': {'q_proj': 9}}, {'rank_pattern': None}, r'must be \(4, 24\), got \(9, 24\)'),
])
def test_a_config_that_does_not_fit_its_tensors(tmp_path, options, change, message):
  write(tmp_path, options)
  edit(tmp_path, **change)
  with pytest.raises(ValueError, match=message):
    load_adapter(tmp_path, SIZES)


def test_half_of_a_module_is_refused(tmp_path):
  write(tmp_path, {'target_modules': r'.*q_proj'})
  path = tmp_path / 'adapter_model.safetensors'
  lost = 'base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight'
  save_file({name: x for name, x in load_file(path).items() if name != lost}, path)
  with pytest.raises(ValueError, match=r'missing: layers.1.self_attn.q_proj.lora_B.weight'):
    load_adapter(tmp_path, SIZES)


def adapted_by(**changes):
  config = LoraConfig(**{'rank': 4, 'alpha': 4.0, 'targets': ('up', 'q'), **changes})
  return DecoderConfig(**{**vars(SIZES), 'lora': config})


def test_training_starts_from_what_was_read(tmp_path):
  write(tmp_path, {})
  arrays, found, _ = load_adapter(tmp_path, SIZES)
  decoder = adapted_by()
  started = start_from(tmp_path, decoder, ('one', 'two'))
  for name, change in changes(started, decoder.lora).items():  # at half the scale
    np.testing.assert_allclose(change, changes(arrays, found)[name], atol=1e-5)
  own = start_from(tmp_path, adapted_by(per_expert=True), ('one', 'two'))
  for name, x in started.items():
    np.testing.assert_array_equal(own[name], [x, x])


@pytest.mark.parametrize(('change', 'message'), [
  ({'rank': 8}, 'lora.rank must be 4, as in .*, got 8'),
  ({'targets': ('q',)}, r"lora.targets must be \('q', 'up'\), as in .*, got \('q',\)"),
])
def test_training_starts_from_adapters_of_its_own_form(tmp_path, change, message):
  write(tmp_path, {})
  with pytest.raises(ValueError, match=message):
    start_from(tmp_path, adapted_by(**change), ('one',))


def test_another_decoder_is_refused(tmp_path):
  write(tmp_path, {'target_modules': ['v_proj']})
  with pytest.raises(ValueError, match=r'v_proj.lora_B.weight must be \(32, 4\), got \(16, 4\)'):
    load_adapter(tmp_path, DecoderConfig(**{**vars(SIZES), 'kv_heads': 4}))
