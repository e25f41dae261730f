"""Names and files of a directory's tensors, as people have them: prefixes, heads, strays, sizes."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.weights import huggingface
from jobrec_jax.weights.families import decoder_config
from jobrec_jax.weights.huggingface import load_decoder, open_directory, save_decoder

TIED = DecoderConfig(vocab_size=6, width=8, layers=2, heads=2, kv_heads=1, head_width=4,
                     mlp_width=12)
UNTIED = dataclasses.replace(TIED, tie_embeddings=False)


def load(path):
  directory = open_directory(path)
  config = decoder_config(directory.config)
  return config, load_decoder(directory, config, dtype=jnp.float32)


def rewrite(path, change):
  """Applies `change` to the tensors of a directory's only file."""
  tensors = dict(load_file(path / 'model.safetensors'))
  change(tensors)
  save_file(tensors, path / 'model.safetensors')


@pytest.fixture(scope='module', params=[TIED, UNTIED], ids=['tied', 'untied'])
def case(request):
  """A decoder, and parameters of which no two are equal."""
  made = jax.eval_shape(Decoder(request.param).init, jax.random.key(0), jnp.ones((1, 2), jnp.int32))
  rng = np.random.default_rng(0)
  return request.param, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32),
                                     nn.unbox(made)['params'])


@pytest.fixture
def folder(case, tmp_path):
  config, params = case
  save_decoder(tmp_path / 'model', params, config, 'llama')
  return tmp_path / 'model'


def renamed(prefix):
  def change(tensors):
    for name in list(tensors):
      inner = prefix if name.startswith('model.') else prefix.removesuffix('model.')
      tensors[inner + name.removeprefix('model.')] = tensors.pop(name)
  return change


@pytest.mark.parametrize('prefix', ['', '_orig_mod.model.', 'module.model.', 'lm.model.'])
def test_a_prefix_of_all_names_is_taken_off(case, folder, prefix):
  """That of Qwen3-Embedding, of torch.compile, of DataParallel, and of a part of a larger model."""
  rewrite(folder, renamed(prefix))
  config, params = load(folder)
  assert config == case[0]
  jax.tree.map(np.testing.assert_array_equal, params, case[1])


def test_a_prefix_of_some_names_is_refused(folder):
  rewrite(folder, lambda t: t.update({'a.model.norm.weight': t.pop('model.norm.weight')}))
  with pytest.raises(ValueError, match=r'missing: model.norm.weight\n  extra: a.model.norm.weight'):
    load(folder)


def test_names_that_meet_behind_the_prefix_are_refused(folder):
  rewrite(folder, renamed('a.model.'))
  rewrite(folder, lambda t: t.update({'model.norm.weight': t['a.model.norm.weight']}))
  with pytest.raises(ValueError, match=r"'a.model.', got a.model.norm.+ and model.norm.weight"):
    load(folder)


def test_heads_that_are_not_used_may_be_there_or_absent(case, folder):
  config, params = case
  rewrite(folder, lambda t: t.update({'score.weight': np.zeros((1, 8), np.float32),
                                      'v_head.summary.bias': np.zeros(1, np.float32)}))
  jax.tree.map(np.testing.assert_array_equal, load(folder)[1], params)
  # Without a head of its own, what the decoder reads is the same; its logits would be the table's.
  rewrite(folder, lambda t: t.pop('lm_head.weight', None))
  found, loaded = load(folder)
  assert found == dataclasses.replace(config, tie_embeddings=True)
  rest = {name: part for name, part in params.items() if name != 'lm_head'}
  jax.tree.map(np.testing.assert_array_equal, loaded, rest)


def test_files_beside_an_index_are_named(case, tmp_path, caplog):
  config, params = case
  save_decoder(tmp_path / 'parts', params, config, 'llama', max_shard_bytes=1000)
  load(tmp_path / 'parts')
  assert not caplog.text
  stray = {'x': np.zeros(1, np.float32)}
  save_file(stray, tmp_path / 'parts' / 'model-00099-of-00099.safetensors')
  load(tmp_path / 'parts')
  assert 'index.json: names no tensor of model-00099-of-00099.safetensors' in caplog.text
  save_file(stray, tmp_path / 'parts' / 'model.safetensors')
  with pytest.raises(ValueError, match=r'must hold model.safetensors or .*, got both; remove'):
    open_directory(tmp_path / 'parts')


def test_sizes_are_checked_before_anything_of_them_is_made(folder, monkeypatch):
  content = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(content | {'num_hidden_layers': 10**7}))
  monkeypatch.setattr(huggingface, 'decoder_places', None)
  with pytest.raises(ValueError, match=r'number of layers must be at most that of its tensors, 2.'):
    load(folder)
