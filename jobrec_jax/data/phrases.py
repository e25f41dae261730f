"""Phrases of a domain as tokens of a pretrained tokenizer."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import tokenizers

from jobrec_jax.data.tokens import padded, train_tokenizer


def add_phrases(tokenizer: tokenizers.Tokenizer, texts: Sequence[str],
                limit: int) -> tokenizers.Tokenizer:
  """A copy of a pretrained tokenizer that reads phrases of the domain as a token each.

  A phrase is one or more whole words with the punctuation behind them: a label and its value, a
  skill, a stock sentence. Candidates are what BPE merges on the texts; those are kept that save
  most tokens there. No text is lost but white space around phrases.

  Args:
    tokenizer: a backbone's.
    texts: training text, of training candidates and jobs alone.
    limit: upper bound of the phrases, positive. Only what the texts repeat becomes one.

  Returns:
    A tokenizer whose phrases have the ids that follow on the old ones.

  Raises:
    ValueError: the old ids have gaps.

  Reference:
    Gee et al., Fast vocabulary transfer for language model compression, 2022.
  """
  first, last = tokenizer.get_vocab_size(), max(tokenizer.get_vocab().values())
  if first != last + 1:
    raise ValueError(f'tokenizer must have ids without gaps to take phrases, got {first} tokens '
                     f'with ids up to {last}')
  merged = train_tokenizer(texts, 2**15, min_frequency=2)
  uses = Counter()
  for i, count in Counter(i for e in merged.encode_batch(texts) for i in e.ids).items():
    uses[merged.decode([i]).strip()] += count
  found = sorted(phrase for phrase in uses if uses[phrase] > 1 and phrase[:1].isalnum()
                 and tokenizer.token_to_id(phrase) is None)
  saved = {phrase: uses[phrase] * (len(pieces) - 1)
           for phrase, pieces in zip(found, _pieces(tokenizer, found))}
  best = sorted(saved, key=saved.get, reverse=True)[:limit]
  met = {i for e in _with_phrases(tokenizer, best).encode_batch(texts) for i in e.ids}
  return _with_phrases(tokenizer, [phrase for n, phrase in enumerate(best)  # no parts of words
                                   if saved[phrase] and first + n in met])


def _with_phrases(tokenizer: tokenizers.Tokenizer, phrases: list[str]) -> tokenizers.Tokenizer:
  out = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  out.encode_special_tokens = tokenizer.encode_special_tokens
  # Where whatever follows a phrase gets a space before it, its own has to go.
  out.add_tokens([
      tokenizers.AddedToken(phrase, single_word=True, lstrip=True,
                            rstrip=_adds_spaces(tokenizer), normalized=False)
      for phrase in phrases])
  return out


def _adds_spaces(tokenizer: tokenizers.Tokenizer) -> bool:
  """Whether it puts a space before every text, though one is there (Llama 2, Mistral)."""
  normalizer = tokenizer.normalizer
  return bool(normalizer) and normalizer.normalize_str(' a').startswith('▁▁')


def _pieces(tokenizer: tokenizers.Tokenizer, phrases: Sequence[str]) -> list[list[int]]:
  """Ids of phrases that stand behind others."""
  space = '' if _adds_spaces(tokenizer) else ' '
  encodings = tokenizer.encode_batch([space + p for p in phrases], add_special_tokens=False)
  return [encoding.ids for encoding in encodings]


def phrase_pieces(words: tokenizers.Tokenizer, tokenizer: tokenizers.Tokenizer) -> np.ndarray:
  """What each phrase that `add_phrases` added to `words` consists of: [N, L] ids of `words`."""
  added = range(words.get_vocab_size(), tokenizer.get_vocab_size())
  return padded(_pieces(words, [tokenizer.id_to_token(i) for i in added]))
