"""The tokenizer that a GGUF file carries, as llama.cpp cuts: byte-level BPE or SentencePiece's.

It adds no token of its own at start or end, and text that spells a control token stays text.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from absl import logging
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from jobrec_jax.weights.gguf_file import GgufFile

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # kinds of tokens
# How text is cut before merges apply. None: as GPT-2, by ByteLevel itself.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_OTHERS = r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
_PATTERNS = {
  'gpt-2': None,
  'smollm': None,
  'llama-bpe': rf'{_WORDS}|\p{{N}}{{1,3}}|{_OTHERS}',
  'qwen2': rf'{_WORDS}|\p{{N}}|{_OTHERS}',
}
# Other names that llama.cpp has for the same.
_ALIASES = {
  **dict.fromkeys(('default', 'phi-2', 'jina-es', 'jina-de', 'jina-v2-es', 'jina-v2-de'), 'gpt-2'),
  **dict.fromkeys(('llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'),
                  'llama-bpe'),
  'deepseek-r1-qwen': 'qwen2',
}
_SPACE = '▁'  # what stands for a space in SentencePiece's tokens


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
  """Tokens in the order of their ids, and of each its kind and, where there are some, its score."""

  tokens: Sequence[str]
  kinds: Sequence[int]
  scores: Sequence[float]

  def of(self, kind: int) -> list[str]:
    return [token for token, k in zip(self.tokens, self.kinds) if k == kind]

  @property
  def ids(self) -> dict[str, int]:
    return {token: i for i, token in enumerate(self.tokens)}


def load_tokenizer(file: GgufFile) -> tokenizers.Tokenizer:
  """The file's tokenizer. A byte-level one that does not say how it cuts text is warned of.

  Args:
    file: see `open_gguf`.

  Raises:
    ValueError: another kind of vocabulary or of pre-tokenizer, or one that is not consistent.
  """
  model = _read(file, 'model')
  file.require(model in _MODELS, 'tokenizer.ggml.model',
               "'gpt2' (byte-level BPE) or 'llama' (SentencePiece's BPE)", model)
  vocabulary = _vocabulary(file)
  tokenizer = _MODELS[model](file, vocabulary)
  tokenizer.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False)
                                for token in vocabulary.of(_CONTROL)])
  tokenizer.add_tokens([tokenizers.AddedToken(token, special=False, normalized=False)
                        for token in vocabulary.of(_USER_DEFINED)])
  tokenizer.encode_special_tokens = True
  return tokenizer


def _read(file: GgufFile, name: str, default: Any = None) -> Any:
  return file.metadata.get(f'tokenizer.ggml.{name}', default)


def _vocabulary(file: GgufFile) -> _Vocabulary:
  tokens, kinds, scores = (_read(file, name, []) for name in ('tokens', 'token_type', 'scores'))
  file.require(isinstance(tokens, list), 'tokenizer.ggml.tokens', 'a list', tokens)
  different = len(set(tokens))
  file.require(different == len(tokens) > 0, 'tokenizer.ggml.tokens', 'tokens, all different',
               f'{different} different ones of {len(tokens)}')
  for name, values in (('token_type', kinds), ('scores', scores)):
    file.require(isinstance(values, list), f'tokenizer.ggml.{name}', 'a list', values)
    file.require(len(values) in (0, len(tokens)), f'tokenizer.ggml.{name}',
                 f'one for each of {len(tokens)} tokens', f'{len(values)} of them')
  return _Vocabulary(tokens, kinds or [_NORMAL] * len(tokens), scores)


def _byte_level(file: GgufFile, vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
  given = _read(file, 'pre')
  if given is None:
    logging.warning("%s: tokenizer.ggml.pre is absent, so text is cut as by GPT-2; a newer "
                    'conversion of the model says how it is', file.path)
  pre = _ALIASES.get(given or 'default', given)
  file.require(pre in _PATTERNS, 'tokenizer.ggml.pre', f'one of {(*_PATTERNS, *_ALIASES)}', given)
  pattern = _PATTERNS[pre]
  try:
    merges = [tuple(merge.split(' ')) for merge in _read(file, 'merges', [])]
    # Llama 3 takes a word that is a token whole, whatever the merges say.
    bpe = models.BPE(vocabulary.ids, merges, ignore_merges=pre == 'llama-bpe')
  except Exception as error:  # The library raises nothing narrower.
    raise ValueError(f'{file.path}: tokenizer.ggml.merges must be pairs of tokens, got: {error}'
                     ) from error
  cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
  if pattern is not None:
    cut = pre_tokenizers.Sequence(
      [pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated'), cut])
  elif pre == 'smollm':
    cut = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), cut])
  tokenizer = tokenizers.Tokenizer(bpe)
  tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
  return tokenizer


def _sentencepiece(file: GgufFile, vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
  """Of two neighbours those merge whose union has the highest score; what is left goes as bytes."""
  file.require(len(vocabulary.scores) > 0, 'tokenizer.ggml.scores', 'one for each token', [])
  prefix = _read(file, 'add_space_prefix', True)
  file.require(isinstance(prefix, bool), 'tokenizer.ggml.add_space_prefix', 'true or false', prefix)
  unknown = vocabulary.of(_UNKNOWN)
  file.require(unknown or len(vocabulary.of(_BYTE)) == 256, 'tokenizer.ggml.token_type',
               'those of a token for each byte, or for what is unknown',
               f'{len(vocabulary.of(_BYTE))} of bytes and none of the unknown')
  tokenizer = tokenizers.Tokenizer(models.BPE(
    vocabulary.ids, _merges(vocabulary), byte_fallback=True, fuse_unk=True,
    unk_token=unknown[0] if unknown else None))
  spaces = normalizers.Replace(' ', _SPACE)
  tokenizer.normalizer = (
    normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefix else spaces)
  steps = [decoders.Replace(_SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()]
  tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(' ', 1, 0)] if prefix else []))
  return tokenizer


def _merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
  """Every way to put a normal token together from two, those of the highest scores first."""
  rank = {token: -score for token, kind, score
          in zip(vocabulary.tokens, vocabulary.kinds, vocabulary.scores) if kind == _NORMAL}
  found = [(rank[token], i, token[:i], token[i:]) for token in rank for i in range(1, len(token))
           if token[:i] in rank and token[i:] in rank]
  return [(left, right) for *_, left, right in sorted(found)]


_MODELS = {'gpt2': _byte_level, 'llama': _sentencepiece}
