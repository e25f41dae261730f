"""The tokenizer that a GGUF file carries: byte-level BPE as llama.cpp cuts text."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jobrec_jax.weights.gguf_file import GgufFile

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens
# How text is cut before merges apply. None: as GPT-2, by ByteLevel itself.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
_PRE_TOKENIZERS = {
  'default': None,
  'gpt-2': None,
  'smollm': None,
  'llama-bpe': rf'{_WORDS}|\p{{N}}{{1,3}}|{_OTHERS}',
  'qwen2': rf'{_WORDS}|\p{{N}}|{_OTHERS}',
}


def load_tokenizer(file: GgufFile) -> tokenizers.Tokenizer:
  """The file's byte-level BPE tokenizer; it adds no token of its own at start or end.

  Text that spells a control token stays text.

  Args:
    file: see `open_gguf`.

  Raises:
    ValueError: another kind of vocabulary or of pre-tokenizer, or one that is not consistent.
  """

  def read(name: str, default: Any = None) -> Any:
    return file.metadata.get(f'tokenizer.ggml.{name}', default)

  model, pre = read('model'), read('pre', 'default')
  file.require(model == 'gpt2', 'tokenizer.ggml.model', "'gpt2' (byte-level BPE)", model)
  file.require(pre in _PRE_TOKENIZERS, 'tokenizer.ggml.pre',
               f'one of {tuple(_PRE_TOKENIZERS)}', pre)
  tokens, kinds, merges = (read(name, []) for name in ('tokens', 'token_type', 'merges'))
  vocabulary = {token: i for i, token in enumerate(tokens)}
  file.require(len(vocabulary) == len(tokens) > 0, 'tokenizer.ggml.tokens',
               'tokens, all different', f'{len(vocabulary)} different ones of {len(tokens)}')
  file.require(len(kinds) in (0, len(tokens)), 'tokenizer.ggml.token_type',
               f'one for each of {len(tokens)} tokens', f'{len(kinds)} of them')
  try:
    # Llama 3 takes a word that is a token whole, whatever the merges say.
    bpe = models.BPE(vocabulary, [tuple(merge.split(' ')) for merge in merges],
                     ignore_merges=pre == 'llama-bpe')
  except Exception as error:  # The library raises nothing narrower.
    raise ValueError(f'{file.path}: tokenizer.ggml.merges must be pairs of tokens, got: {error}'
                     ) from error
  tokenizer = tokenizers.Tokenizer(bpe)
  tokenizer.pre_tokenizer = _pre_tokenizer(pre)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)
                                for token, kind in zip(tokens, kinds) if kind == _CONTROL])
  tokenizer.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False)
                        for token, kind in zip(tokens, kinds) if kind == _USER_DEFINED])
  tokenizer.encode_special_tokens = True
  return tokenizer


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
  pattern = _PRE_TOKENIZERS[name]
  cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
  if pattern is not None:
    cut = pre_tokenizers.Sequence(
      [pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'), cut])
  elif name == 'smollm':
    cut = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), cut])
  return cut
