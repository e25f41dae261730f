"""Token ids of many pairs' alignments, each clause encoded once where the tokenizer allows it."""

from collections.abc import Sequence
import json
import re
import threading

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from jobrec_jax.data.pairs import KEPT, PairAligner
from jobrec_jax.schema.align import Alignment
from jobrec_jax.schema.render import SYMBOLS, alignment_frame, render_alignment
from jobrec_jax.schema.schema import Schema

_BORDER = re.compile(r'[,;+?-]\s')  # where clauses meet


def at_punctuation() -> pre_tokenizers.PreTokenizer:
  """Where `train_tokenizer` cuts text: at symbols of verdicts, behind punctuation, before amounts.

  A verdict thus stays a token of its own in front of its margin: 'gpa met' + ' by 0.' + '31,'. What
  a full stop ends is a sentence and is cut into its words: those of a stock phrase say the same
  wherever they stand, and a sentence that were one token would share nothing with another.
  """
  return pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(r' [-+?](?= |$)'), 'isolated'),
      pre_tokenizers.Split(tokenizers.Regex(r' (?=[^.,:;]{1,200}\.(?:[ ,;]|$))'),
                           'merged_with_next'),
      pre_tokenizers.Split(tokenizers.Regex('[.,:;]'), 'merged_with_previous'),
      pre_tokenizers.Split(tokenizers.Regex(r' by (?=[0-9])| \((?=[0-9])'), 'merged_with_next'),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def reads_by_clause(tokenizer: tokenizers.Tokenizer) -> bool:
  """Whether an alignment's ids are those of its clauses (`alignment_frame`), one behind the other.

  A clause starts with a space, behind the ',' or ';' of another or behind its symbol. Tokenizers
  are known (`train_tokenizer`'s, GPT-2's, SmolLM2's, Llama 3's, Qwen2's) that read nothing across
  such a place; added tokens, `add_phrases`'s among them, must not either.
  """
  model, pre = tokenizer.model, tokenizer.pre_tokenizer
  added = [token for token in tokenizer.get_added_tokens_decoder().values()
           if not (token.special and tokenizer.encode_special_tokens)]
  return (isinstance(model, models.BPE) and not model.dropout
          and (tokenizer.normalizer is None or isinstance(tokenizer.normalizer, normalizers.NFC))
          and pre is not None and _rules(pre) in map(_rules, _known_rules())
          and not any(token.rstrip or _BORDER.search(token.content) for token in added)
          and tokenizer.truncation is None and tokenizer.padding is None)


def _known_rules() -> list[pre_tokenizers.PreTokenizer]:
  split, sequence = pre_tokenizers.Split, pre_tokenizers.Sequence
  gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
  plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  rules = [at_punctuation(), gpt2]
  rules += [sequence([pre_tokenizers.Digits(apart), gpt2]) for apart in (False, True)]
  for digits in (r'\p{N}{1,3}', r'\p{N}'):  # Llama 3, Qwen2
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits
               + r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+')
    rules.append(sequence([split(tokenizers.Regex(pattern), 'isolated'), plain]))
  return rules


def _rules(pre_tokenizer: pre_tokenizers.PreTokenizer) -> dict:
  """The rules of a pre-tokenizer, without what concerns offsets alone."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizer
  return json.loads(tokenizer.to_str(), object_hook=lambda rule: {
      k: v for k, v in rule.items() if k != 'trim_offsets'})['pre_tokenizer']


class Ragged:
  """Rows of int32 of any length, appended and gathered.

  Attributes:
    length: [rows] int64.
  """

  def __init__(self):
    self._values = np.zeros(1024, np.int32)  # with room to grow into
    self._used = 0
    self._start = self.length = np.zeros(0, np.int64)

  def append(self, rows: Sequence[Sequence[int]]) -> None:
    length = np.array([len(row) for row in rows], np.int64)
    start = self._used + np.cumsum(length) - length
    self._used += int(length.sum())
    if self._used > len(self._values):
      self._values = np.resize(self._values, 2 * self._used)
    self._values[self._used - length.sum():self._used] = [i for row in rows for i in row]
    self._start, self.length = (np.append(self._start, start), np.append(self.length, length))

  def gather(self, rows: np.ndarray) -> np.ndarray:
    """The values of `rows` [N], one behind the other."""
    length = self.length[rows]
    shift = self._start[rows] - (np.cumsum(length) - length)
    return self._values[np.repeat(shift, length) + np.arange(length.sum())]


class AlignmentTokens:
  """Token ids of pairs' alignment blocks: those of `render_alignment`'s whole text, always.

  Args:
    aligner: of the pairs.
    schema: the domain's table.
    tokenizer: of the text.
    verdicts: one of `render.VERDICTS`.
    by_clause: whether a text's ids are those of its clauses, one behind the other, which is a
      property of the tokenizer: then each clause is encoded once. Else each distinct text is.
  """

  def __init__(self, aligner: PairAligner, schema: Schema, tokenizer: tokenizers.Tokenizer,
               verdicts: str, by_clause: bool):
    self._aligner, self._tokenizer = aligner, tokenizer
    self._frame = alignment_frame(schema, verdicts)
    self._by_clause = by_clause and bool(self._frame)
    self._symbols = [(f, symbol) for f in range(len(self._frame)) for symbol in SYMBOLS.values()]
    self._empty = render_alignment(Alignment(()), verdicts)  # of a schema of free text alone
    self._words = verdicts == 'words'
    self._lock = threading.Lock()
    self._forget([])

  def __call__(self, candidate: np.ndarray, job: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids of pairs [N], one pair behind the other, and how many each has: [N] int64."""
    pairs = self._aligner(candidate, job)
    clauses, ids = ((pairs.clauses, pairs.clause) if self._words
                    else (self._symbols, pairs.verdict_codes()))
    with self._lock:
      if clauses is not self._clauses or len(self._texts) > KEPT:
        self._forget(clauses)
      rows = self._clause_rows(ids) if self._by_clause else self._text_rows(ids)
      return self._tokens.gather(rows.ravel()), self._tokens.length[rows].sum(1)

  def longest(self) -> int | None:
    """No block of any pair has more tokens; None where that is not known."""
    if not self._by_clause:
      return None
    clauses = self._aligner.all_clauses() if self._words else self._symbols
    if clauses is None:
      return None
    longest = np.zeros(len(self._frame), int)
    for (field, _), ids in zip(clauses, self._encode([self._framed(*c) for c in clauses])):
      longest[field] = max(longest[field], len(ids))
    return int(longest.sum())

  def _forget(self, clauses: list[tuple[int, str]]) -> None:
    self._clauses = clauses
    self._tokens = Ragged()  # a row for each of `clauses`, or for each text
    self._texts: dict[bytes, int] = {}  # the row of a text, by the ids of its clauses

  def _clause_rows(self, ids: np.ndarray) -> np.ndarray:
    """Rows of `_tokens` [N, F] of clauses [N, F]: the same, once all are encoded."""
    new = self._clauses[len(self._tokens.length):]
    if new:
      self._tokens.append(self._encode([self._framed(*clause) for clause in new]))
    return ids

  def _text_rows(self, ids: np.ndarray) -> np.ndarray:
    """Rows of `_tokens` [N, 1] of the texts of clauses [N, F]."""
    keys = [row.tobytes() for row in np.ascontiguousarray(ids, np.int32)]
    new = {}
    for key, row in zip(keys, ids):
      if key not in self._texts and key not in new:
        new[key] = ''.join([self._framed(*self._clauses[i]) for i in row]) or self._empty
    if new:
      for key in new:
        self._texts[key] = len(self._texts)
      self._tokens.append(self._encode(list(new.values())))
    return np.array([self._texts[key] for key in keys], np.int64)[:, None]

  def _framed(self, field: int, clause: str) -> str:
    before, after = self._frame[field]
    return before + clause + after

  def _encode(self, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
