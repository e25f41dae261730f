"""A language as an automaton over tokens, held as compressed rows that lie on the device.

  state s may be followed by token[k], which leads to next[k], for row[s] <= k < row[s + 1]

outlines-core makes the automaton of a regular expression and a vocabulary. Here states that lead
nowhere are cut off and equal ones made one, from the end on, which is possible as no reason is
endless. All ways to divide a text into tokens are allowed, as there are no two of them to a model
that reads letters.

Reference: Willard and Louf, Efficient guided generation for large language models, 2023.
"""

from collections.abc import Mapping, Sequence
import contextlib
import functools
import json
import re
from typing import NamedTuple

import numpy as np
import tokenizers
from tokenizers import pre_tokenizers

# The end of a text is a byte of its own, that no text has: outlines-core 0.2.14 loses what may
# follow where a text may end as well.
_END = b'\n'
_BYTE = re.compile(r'<0x([0-9A-F]{2})>')
ROOM = 256  # states and edges of stacked automata are rounded up to powers of two from here on


class Automaton(NamedTuple):
  """The tokens that may follow; state 0 is where a text begins.

  Attributes:
    row: [S + 1] int32, where each state's edges start.
    token: [edges] int32, rising within a state; the end of a text is the vocabulary's size.
    next: [edges] int32, the state that each leads to; behind the end it is a state without edges.
    left: [S] int32, how many tokens each state is from being behind the end, at least.
  """

  row: np.ndarray
  token: np.ndarray
  next: np.ndarray
  left: np.ndarray

  def allowed(self, state: int) -> np.ndarray:
    """The tokens that may follow a state."""
    return self.token[self.row[state]:self.row[state + 1]]

  def step(self, state: int, token: int) -> int:
    """The state behind a token; raises a KeyError where it may not follow."""
    first = self.row[state]
    at = first + np.searchsorted(self.allowed(state), token)
    if at == self.row[state + 1] or self.token[at] != token:
      raise KeyError(token)
    return int(self.next[at])


class Vocabulary:
  """The tokens of a tokenizer as the bytes that they stand for in a text.

  Special tokens stand for nothing, and are in no automaton. Phrases that were added to a pretrained
  tokenizer are left out: they swallow the space before them, so that nobody could tell what a text
  of theirs says letter by letter.

  Args:
    tokenizer: byte-level, or with '▁' for spaces and bytes as '<0x0A>'.
    words: its size before phrases were added; None for all of it.

  Attributes:
    size: how many words there are; the id of the end of a text.
    bytes: of each word; b'' of special ones.
  """

  def __init__(self, tokenizer: tokenizers.Tokenizer, words: int | None = None):
    self.size = tokenizer.get_vocab_size() if words is None else words
    plain = json.loads(tokenizer.to_str())
    plain['added_tokens'] = [t for t in plain['added_tokens'] if t['id'] < self.size]
    self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
    self._plain.encode_special_tokens = True  # a text that spells a special token stays text
    special = set(tokenizer.get_added_tokens_decoder())
    byte_level = 'ByteLevel' in str(tokenizer.decoder)
    self.bytes = tuple(
        b'' if i in special or (text := tokenizer.id_to_token(i)) is None else
        _bytes(text, byte_level) for i in range(self.size))
    pairs = [np.frombuffer(b, np.uint8).astype(np.uint16) for b in self.bytes]
    self._codes = np.concatenate([x[:-1] * 256 + x[1:] for x in pairs])
    self._starts = np.cumsum([0, *(max(len(x) - 1, 0) for x in pairs)])
    self._single = [i for i, b in enumerate(self.bytes) if len(b) == 1]

  def encode(self, texts: Sequence[str]) -> list[list[int]]:
    """The words of texts as the tokenizer divides them, without an end."""
    return [e.ids for e in self._plain.encode_batch(texts, add_special_tokens=False)]

  def text(self, tokens: Sequence[int]) -> str:
    """What tokens say, up to the end of the text."""
    whole = b''.join(self.bytes[t] if t < self.size else b'' for t in tokens)
    return whole.decode('utf-8', 'replace')

  def within(self, pieces: Sequence[str]) -> dict[bytes, list[int]]:
    """The tokens of which every three bytes in a row stand in a piece, by their bytes."""
    raw = [p.encode() for p in pieces]
    follows = np.zeros(1 << 16, bool)
    for p in raw:
      x = np.frombuffer(p, np.uint8).astype(np.uint16)
      follows[x[:-1] * 256 + x[1:]] = True
    long = np.flatnonzero(np.diff(self._starts))
    fits = np.logical_and.reduceat(follows[self._codes], self._starts[long])
    threes = {p[i:i + 3] for p in raw for i in range(len(p) - 2)}
    out: dict[bytes, list[int]] = {}
    for token in long[fits].tolist():
      b = self.bytes[token]
      if all(b[i:i + 3] in threes for i in range(len(b) - 2)):
        out.setdefault(b, []).append(token)
    letters = set(b''.join(raw))
    for token in self._single:
      if self.bytes[token][0] in letters:
        out.setdefault(self.bytes[token], []).append(token)
    return out


@functools.cache
def _letters() -> dict[str, int]:
  """The byte of each letter of byte-level tokens, as GPT-2 writes them."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  letters = {chr(b): b for b in plain}
  letters |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in plain)}
  assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
  return letters


def _bytes(text: str, byte_level: bool) -> bytes:
  if byte_level:
    return bytes(_letters()[x] for x in text) if all(x in _letters() for x in text) else b''
  byte = _BYTE.fullmatch(text)
  return bytes([int(byte[1], 16)]) if byte else text.replace('▁', ' ').encode()


def automaton(pattern: str, pieces: Sequence[str], vocabulary: Vocabulary) -> Automaton:
  """The automaton of a language.

  Args:
    pattern: a regular expression without a loop.
    pieces: what its texts are made of.
    vocabulary: of the model.

  Raises:
    ValueError: no tokens spell any text of it.
  """
  from outlines_core import Index, Vocabulary as Words  # here, for scoring needs no grammar
  end = vocabulary.size
  words = vocabulary.within(pieces) | {_END: [end]}
  made = None
  with contextlib.suppress(ValueError):  # that no token leads on from a state
    index = Index(pattern + _END.decode(), Words(end + 1, words))
    made = _merged(index.get_transitions(), index.get_initial_state(), end)
  if made is None:
    raise ValueError(f'the vocabulary of {vocabulary.size} tokens must spell a text of the '
                     f'grammar, got none of {pattern[:200]!r}')
  return made


def _merged(edges: Mapping[int, Mapping[int, int]], start: int, end: int) -> Automaton | None:
  """Compressed rows of the states from which an end is reached, equal ones as one."""
  order, waiting, seen = [], [(start, False)], set()
  while waiting:  # depth first: what a state leads to stands before it
    state, done = waiting.pop()
    if done:
      order.append(state)
    elif state not in seen:
      seen.add(state)
      waiting.append((state, True))
      waiting += [(to, False) for t, to in edges.get(state, {}).items() if t < end]
  number, rows, known = {}, [()], {(): 0}  # 0: behind the end, without edges
  for state in order:
    followed = edges.get(state, {}).items()
    row = [(t, number[to]) for t, to in followed if t < end and to in number]
    row = tuple(sorted(row + [(end, 0)] * any(t == end for t, _ in followed)))
    if row:
      number[state] = known.setdefault(row, len(rows))
      if number[state] == len(rows):
        rows.append(row)
  if start not in number:
    return None
  left = [0]
  for row in rows[1:]:
    left.append(1 + min(left[to] for _, to in row))
  rows = rows[::-1]  # the start was numbered last
  tokens, nexts = ([e[i] for row in rows for e in row] for i in (0, 1))
  return Automaton(np.cumsum([0, *map(len, rows)]).astype(np.int32), np.array(tokens, np.int32),
                   len(rows) - 1 - np.array(nexts, np.int32), np.array(left[::-1], np.int32))


class Tables(NamedTuple):
  """R automata side by side, padded to one size.

  Attributes:
    row: [R, S + 1] int32.
    token, next: [R, edges] int32.
    left: [R, S] int32.
    most: how many edges a state has at most, rounded up to a power of two.
  """

  row: np.ndarray
  token: np.ndarray
  next: np.ndarray
  left: np.ndarray
  most: int


def stacked(automata: Sequence[Automaton]) -> Tables:
  """Sizes are powers of two, so that a few programs serve all."""
  S = _rounded(max(len(a.row) - 1 for a in automata))
  edges = _rounded(max(len(a.token) for a in automata))
  most = _rounded(max(int(np.diff(a.row).max()) for a in automata), 32)

  def padded(x: np.ndarray, size: int) -> np.ndarray:
    return np.pad(x, (0, size - len(x)), mode='edge')
  return Tables(np.stack([padded(a.row, S + 1) for a in automata]),
                *(np.stack([padded(getattr(a, k), edges) for a in automata])
                  for k in ('token', 'next')),
                np.stack([padded(a.left, S) for a in automata]), most)


def _rounded(size: int, least: int = ROOM) -> int:
  return max(least, 1 << (size - 1).bit_length())
