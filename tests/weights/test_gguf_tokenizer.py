"""Tokenizers of GGUF files, against those that were written and transformers' reading."""

import itertools
import json

import gguf
from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from jobrec_jax.weights.gguf_file import open_gguf
from jobrec_jax.weights.gguf_tokenizer import load_tokenizer

TEXTS = [
  'gpa 3.45, 12345 months; skills: Python, C++', ' leading', "it's WE'LL don't", 'a\n\nb\r\n c\t d',
  'über naïve 漢字 かな 🎉 é', 'x  y   z ', '(a)[b]{c} -> d/e_f', '', '  ', '½ ²³ ٣٤',
]


def trained(pre, control):
  """A byte-level BPE tokenizer with the pre-tokenizer of the model of that name."""
  split = {
    'llama-bpe': r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                 r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    'qwen2': r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
             r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
  }
  steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in split)]
  if pre in split:
    steps.insert(0, pre_tokenizers.Split(tokenizers.Regex(split[pre]), 'isolated'))
  if pre == 'smollm':
    steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
  tokenizer.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(
    vocab_size=450, special_tokens=control, show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  return tokenizer


def write(path, tokenizer, pre, control=(), **changes):
  """Writes a file that holds no tensors, but a Llama's sizes and this vocabulary."""
  model = json.loads(tokenizer.to_str())['model']
  tokens = sorted(model['vocab'], key=model['vocab'].get)
  metadata = {
    'model': 'gpt2',
    'pre': pre,
    'tokens': tokens,
    'token_type': [3 if token in control else 1 for token in tokens],
    'merges': [' '.join(merge) for merge in model['merges']],
  }
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_block_count(1)
  writer.add_embedding_length(8)
  writer.add_head_count(1)
  for key, value in {**metadata, **changes}.items():
    if value is not None:
      add = {str: writer.add_string, bool: writer.add_bool, list: writer.add_array}[type(value)]
      add(f'tokenizer.ggml.{key}', value)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return open_gguf(path)


@pytest.mark.parametrize('pre', ['smollm', 'llama-bpe', 'qwen2', 'gpt-2', 'default'])
def test_tokenizer_equals_the_one_written_and_transformers(tmp_path, pre):
  control = ['<|end|>', '<|start|>']
  written = trained(pre, control)
  tokenizer = load_tokenizer(write(tmp_path / 'm.gguf', written, pre, control))
  assert tokenizer.get_vocab() == written.get_vocab()
  theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file='m.gguf')
  for text in TEXTS:
    ids = tokenizer.encode(text).ids
    assert ids == written.encode(text).ids
    assert tokenizer.decode(ids) == text
    # Transformers cuts a GGUF file's text before spaces and digits as GPT-2 does, smollm or not.
    assert pre == 'smollm' or ids == theirs(text)['input_ids']
  spelled = tokenizer.encode('a<|end|>')
  assert tokenizer.token_to_id('<|end|>') == 0 not in spelled.ids
  assert tokenizer.decode(spelled.ids) == 'a<|end|>'


def test_user_defined_tokens_stay_whole(tmp_path):
  written = trained('gpt-2', ['<think>'])
  kinds = [4] + [1] * (written.get_vocab_size() - 1)
  file = write(tmp_path / 'm.gguf', written, 'gpt-2', token_type=kinds)
  assert load_tokenizer(file).encode('a<think>').tokens == ['a', '<think>']


@pytest.mark.parametrize(('key', 'value'), [
  ('model', 'bert'), ('pre', 'tekken'), ('tokens', ['a', 'a']), ('token_type', [1, 1]),
  ('merges', ['a', 'b c']), ('merges', ['no such']), ('tokens', 'a'), ('scores', [1.0]),
])
def test_other_tokenizers_are_refused(tmp_path, key, value):
  file = write(tmp_path / 'm.gguf', trained('gpt-2', []), **{'pre': 'gpt-2', key: value})
  with pytest.raises(ValueError, match=rf'm\.gguf: tokenizer\.ggml\.{key} must be'):
    load_tokenizer(file)


@pytest.mark.parametrize(('alias', 'pre'), [
  ('llama3', 'llama-bpe'), ('llama-v3', 'llama-bpe'), ('pixtral', 'llama-bpe'),
  ('deepseek-r1-qwen', 'qwen2'), ('phi-2', 'gpt-2'),
])
def test_other_names_of_a_pre_tokenizer(tmp_path, alias, pre):
  written = trained(pre, [])
  ours = load_tokenizer(write(tmp_path / 'm.gguf', written, alias))
  same = load_tokenizer(write(tmp_path / 'same.gguf', written, pre))
  assert ours.to_str() == same.to_str()
  for text in TEXTS:
    assert ours.encode(text).ids == written.encode(text).ids


def test_a_missing_pre_tokenizer_is_warned_of(tmp_path, caplog):
  written = trained('gpt-2', [])
  tokenizer = load_tokenizer(write(tmp_path / 'm.gguf', written, None))
  assert f'{tmp_path}/m.gguf: tokenizer.ggml.pre is absent' in caplog.text
  assert [tokenizer.encode(text).ids for text in TEXTS] == [
    written.encode(text).ids for text in TEXTS]
  caplog.clear()
  load_tokenizer(write(tmp_path / 'told.gguf', written, 'default'))
  assert not caplog.text


BYTES = [f'<0x{byte:02X}>' for byte in range(256)]
WORDS = ['▁', *'abcdefghi', '▁a', 'ab', 'bc', 'abc', '▁ab', 'de', 'def', 'ef', '▁abc', 'hi', 'aa',
         'aaa', '▁▁', 'é']


def sentencepiece(path, **changes):
  """A file with SentencePiece's kind of vocabulary: controls, a phrase, bytes, and scored words."""
  tokens = ['<unk>', '<s>', '</s>', '\n\n', *BYTES, *WORDS]
  scores = np.random.default_rng(0).permutation(len(WORDS)).astype(float)
  values = {
    'model': 'llama', 'merges': None, 'tokens': tokens, 'token_type':
      [2, 3, 3, 4] + [6] * 256 + [1] * len(WORDS), 'scores': [0.0] * 260 + scores.tolist()}
  return write(path, trained('gpt-2', []), None, **{**values, **changes})


def read_by_hand(file, text):
  """Of all neighbours those merge whose union has the highest score, the first of equals."""
  values = zip(*(file.metadata[f'tokenizer.ggml.{n}'] for n in ('tokens', 'scores', 'token_type')))
  score = {token: score for token, score, kind in values if kind == 1}
  parts = list(text.replace(' ', '▁'))
  while len(parts) > 1:
    best, at = max((score.get(a + b, -1e9), -i)
                   for i, (a, b) in enumerate(itertools.pairwise(parts)))
    if best == -1e9:
      break
    parts[-at:-at + 2] = [parts[-at] + parts[-at + 1]]
  return [token for part in parts for token in (
    [part] if part in score else [f'<0x{byte:02X}>' for byte in part.encode()])]


@pytest.fixture(scope='module')
def pieces(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pieces')
  return {prefix: sentencepiece(folder / f'{prefix}.gguf', add_space_prefix=prefix)
          for prefix in (True, False)}


@given(st.text('abcdefghi é漢\t', max_size=12))
@settings(max_examples=150, deadline=None)
def test_sentencepiece_equals_its_algorithm(pieces, text):
  for prefix, file in pieces.items():
    tokenizer = load_tokenizer(file)
    found = tokenizer.encode(text)
    assert found.tokens == read_by_hand(file, ' ' + text if prefix and text else text)
    assert tokenizer.decode(found.ids) == text


def test_sentencepiece_keeps_controls_and_phrases_apart(pieces):
  tokenizer = load_tokenizer(pieces[False])
  assert tokenizer.encode('ab\n\nab').tokens == ['ab', '\n\n', 'ab']
  ids = tokenizer.encode('a</s>').ids
  assert tokenizer.token_to_id('</s>') == 2 not in ids and tokenizer.decode(ids) == 'a</s>'


@pytest.mark.parametrize(('key', 'value', 'message'), [
  ('scores', None, 'scores must be one for each token'),
  ('token_type', [1] * (260 + len(WORDS)), 'token_type must be those of a token for each byte'),
])
def test_sentencepiece_without_its_parts_is_refused(tmp_path, key, value, message):
  with pytest.raises(ValueError, match=rf'm\.gguf: tokenizer\.ggml\.{message}'):
    load_tokenizer(sentencepiece(tmp_path / 'm.gguf', **{key: value}))
