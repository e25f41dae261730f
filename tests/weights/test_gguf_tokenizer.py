"""Tokenizers of GGUF files, against those that were written and PyTorch transformers' reading."""

import json

import gguf
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
    add = writer.add_string if isinstance(value, str) else writer.add_array
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
  ('model', 'llama'), ('pre', 'tekken'), ('tokens', ['a', 'a']), ('token_type', [1, 1]),
  ('merges', ['a', 'b c']), ('merges', ['no such']),
])
def test_other_tokenizers_are_refused(tmp_path, key, value):
  file = write(tmp_path / 'm.gguf', trained('gpt-2', []), **{'pre': 'gpt-2', key: value})
  with pytest.raises(ValueError, match=rf'm\.gguf: tokenizer\.ggml\.{key} must be'):
    load_tokenizer(file)
