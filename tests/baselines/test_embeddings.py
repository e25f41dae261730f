"""The encoder of sentences against transformers', on random weights and on MiniLM's own."""

import json

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from jobrec_jax.baselines.embeddings import Encoder
from jobrec_jax.weights.fetch import fetch_encoder

WORDS = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', 'we', 'like', 'long', 'quiet', 'days', '##s', 'noise')
TEXTS = ['we like quiet days', 'noise', '', 'we like long long long days', 'noise', '  ']


@pytest.fixture
def folder(tmp_path):
  """A small BERT in Hugging Face's layout."""
  torch.manual_seed(0)
  model = transformers.BertModel(transformers.BertConfig(
      vocab_size=len(WORDS), hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
      intermediate_size=40, max_position_embeddings=300, initializer_range=0.5))
  model.save_pretrained(tmp_path)
  words = tokenizers.Tokenizer(tokenizers.models.WordPiece(
      {w: i for i, w in enumerate(WORDS)}, unk_token='[UNK]'))
  words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  words.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
  words.enable_padding(length=64)  # as such files have it
  words.save(str(tmp_path / 'tokenizer.json'))
  return tmp_path


def expected(folder, texts):
  """Mean over tokens of transformers' last layer, one text at a time."""
  model = transformers.BertModel.from_pretrained(folder).eval()
  tokenizer = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
  tokenizer.no_padding()
  tokenizer.enable_truncation(256)
  out = []
  with torch.no_grad():
    for text in texts:
      mean = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].mean(0)
      out.append((mean / mean.norm()).numpy())
  return np.stack(out)


def test_embeddings_are_transformers(folder):
  found = Encoder(folder)(TEXTS)
  assert found.shape == (6, 24) and found.dtype == np.float32
  there = [0, 1, 3, 4]
  np.testing.assert_allclose(found[there], expected(folder, [TEXTS[i] for i in there]), atol=1e-5)
  assert not found[[2, 5]].any()
  long = ['noise ' * 400]
  np.testing.assert_allclose(Encoder(folder)(long), expected(folder, long), atol=1e-5)


def test_words_that_are_not_known_are_one(folder):
  config = json.loads((folder / 'config.json').read_text())
  assert config['model_type'] == 'bert'
  a, b = Encoder(folder)(['unheard', 'of'])
  np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_minilm_is_transformers_and_knows_what_is_alike():
  folder = fetch_encoder('minilm')
  texts = ['Quiet work in a library.', 'A calm desk among books.', 'Deep-sea welding at night.']
  found = Encoder(folder)(texts)
  np.testing.assert_allclose(found, expected(folder, texts), atol=1e-5)
  assert found[0] @ found[1] > 0.35 > 0.25 > found[0] @ found[2]
