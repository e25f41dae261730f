"""Opening a backbone: what its headers tell is checked before anything of its sizes is made."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tokenizers
from tokenizers import models

from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.weights import huggingface
from jobrec_jax.weights.backbone import locate, open_backbone
from jobrec_jax.weights.huggingface import save_decoder
from tests.reference.gguf_files import exported, header, write
from tests.reference.llama_torch import random_llama

SIZES = DecoderConfig(vocab_size=6, width=8, layers=2, heads=2, kv_heads=1, head_width=4,
                      mlp_width=12)


def words(*names, special=()):
  """A tokenizer with these words, and special tokens at the ids behind them."""
  vocabulary = {name: i for i, name in enumerate(names) if name}
  tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token='a'))
  tokenizer.add_special_tokens(list(special))
  return tokenizer


@pytest.fixture(scope='module')
def params():
  made = nn.unbox(jax.jit(Decoder(SIZES).init)(jax.random.key(0), jnp.ones((1, 2), jnp.int32)))
  return jax.device_get(made['params'])


@pytest.fixture
def folder(tmp_path, params):
  save_decoder(tmp_path / 'model', params, SIZES, 'llama')
  return tmp_path / 'model'


@pytest.mark.parametrize(('changes', 'message'), [
  ({'num_hidden_layers': 10**7}, r'layers must be at most that of its tensors, 20, got 10000000'),
  ({'vocab_size': 10**12}, r'embed_tokens.weight must be \(1000000000000, 8\), got \(6, 8\)'),
  ({'intermediate_size': 10**9}, r'mlp.up_proj.weight must be \(1000000000, 8\)'),
])
def test_sizes_in_a_directory(folder, changes, message, monkeypatch):
  content = json.loads((folder / 'config.json').read_text())
  (folder / 'config.json').write_text(json.dumps(content | changes))
  monkeypatch.setattr(huggingface, 'load_decoder', None)  # nothing is loaded
  with pytest.raises(ValueError, match=message):
    open_backbone(str(folder), 'float32')


def test_sizes_in_a_gguf_file(tmp_path):
  for key, value, message in (('block_count', 10**9, 'layers must be at most that of its tensors'),
                              ('feed_forward_length', 10**9, 'blk.0.ffn_up.weight must be')):
    path = write(tmp_path / 'm.gguf', header(SIZES) | {f'llama.{key}': value},
                 exported(random_llama(SIZES)))
    with pytest.raises(ValueError, match=rf'm\.gguf: .*(?s:.*){message}'):
      open_backbone(str(path), 'float32')


@pytest.mark.parametrize(('tokenizer', 'greatest'), [
  (words(*'abcdef'), None), (words(*'abcdefg'), 6),
  (words('a', *[''] * 8, 'b'), 9),  # two words, but ids with a gap
  (words(*'abcdef', special=['<image>', '<turn>']), None),  # no text is encoded as these
])
def test_every_id_of_a_tokenizer_has_a_row(folder, tokenizer, greatest):
  tokenizer.save(str(folder / 'tokenizer.json'))
  backbone = open_backbone(str(folder), 'float32')
  if greatest is None:
    assert backbone.tokenizer().get_vocab() == tokenizer.get_vocab()
  else:
    with pytest.raises(ValueError, match=f'for each id .* up to {greatest}, got 6 rows'):
      backbone.tokenizer()


def test_places_begin_at_home_and_end_in_any_case(tmp_path, folder, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for name in ('m.gguf', 'M.GGUF', 'n.Gguf'):
    write(tmp_path / name, header(SIZES), exported(random_llama(SIZES)))
    for place in (str(tmp_path / name), f'~/{name}'):
      assert locate(place) == tmp_path / name
      assert open_backbone(place, 'float32').config.layers == SIZES.layers
  assert locate('~/model') == folder
  assert open_backbone('~/model', 'float32').config.width == SIZES.width
