"""Automata over tokens against llguidance's masks, and against the expressions they come from."""

import os
import re

from llguidance import LLMatcher, LLTokenizer
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from jobrec_jax.data.phrases import add_phrases
from jobrec_jax.data.tokens import corpus
from jobrec_jax.generate.automaton import ROOM, Vocabulary, automaton, stacked
from jobrec_jax.generate.claims import pattern, pieces, read, sayable
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.weights import fetch
from jobrec_jax.weights.gguf_file import open_gguf
from jobrec_jax.weights.gguf_tokenizer import load_tokenizer


def with_spaces():
  """Tokens of Llama 2's kind: '▁' is a space, and bytes have names."""
  words = ['▁', 'e', '▁me', 't', 'met', '▁unm', '<0x2C>', ',', 'major', '▁major', '<s>']
  vocabulary = {w: i for i, w in enumerate(dict.fromkeys([*words, *map(chr, range(33, 127))]))}
  tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token='<s>'))
  tokenizer.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback()])
  tokenizer.add_special_tokens(['<s>'])
  return tokenizer


def smollm2():
  try:
    return load_tokenizer(open_gguf(fetch.fetch('smollm2-135m-instruct')))
  except ConnectionError:
    if not os.environ.get('JOBREC_OFFLINE'):
      raise
    pytest.skip('SmolLM2 is not in the cache, and JOBREC_OFFLINE is set')


@pytest.fixture(params=['own', 'with phrases', 'with spaces', 'SmolLM2'])
def vocabulary(request, tokenizer, dataset):
  if request.param == 'with phrases':
    own = tokenizers.Tokenizer(models.BPE(vocab={
        c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    return Vocabulary(add_phrases(own, corpus(dataset, 50), 40), own.get_vocab_size())
  return Vocabulary({'own': lambda: tokenizer, 'with spaces': with_spaces,
                     'SmolLM2': smollm2}[request.param]())


class Words:
  """The vocabulary as llguidance asks for it; what stands for nothing is a special token."""

  def __init__(self, vocabulary):
    size, self._vocabulary = vocabulary.size, vocabulary
    self.eos_token_id, self.bos_token_id, self.is_tokenizer_wrapper = size, None, True
    self.tokens = [b or b'\xff<%d>' % i for i, b in enumerate(vocabulary.bytes)] + [b'\xff<end>']
    self.special_token_ids = [i for i, b in enumerate(vocabulary.bytes) if not b] + [size]

  def __call__(self, text):
    return self._vocabulary.encode([text.decode() if isinstance(text, bytes) else text])[0]


def language(dataset, candidate, job, perspective):
  said = sayable(dataset.schema, dataset.candidates[candidate], dataset.jobs[job], perspective)
  return said, pattern(said), pieces(said)


def test_masks_agree_with_llguidance_wherever_a_text_goes(dataset, vocabulary):
  words = LLTokenizer(Words(vocabulary), slices=[])
  rng, states = np.random.default_rng(0), 0
  for i in range(8):
    said, expression, parts = language(dataset, i, i, PERSPECTIVES[i % 2])
    made = automaton(expression, parts, vocabulary)
    near = {t for of in vocabulary.within(parts).values() for t in of}
    spoken = [i for i, b in enumerate(vocabulary.bytes) if b]
    asked = sorted(near | set(rng.choice(spoken, 500).tolist()))
    for _ in range(3):
      # Its masks allow one division alone of what is forced; token by token it allows them all.
      oracle = LLMatcher(words, LLMatcher.grammar_from_regex(expression))
      state, text = 0, []
      while True:
        allowed = [t for t in asked if oracle.validate_tokens([t])]
        allowed += [vocabulary.size] * oracle.is_accepting()
        mine = made.allowed(state)
        np.testing.assert_array_equal(allowed, mine[np.isin(mine, [*asked, vocabulary.size])])
        states += 1
        token = int(rng.choice(mine))
        if token == vocabulary.size:
          break
        text.append(token)
        state = made.step(state, token)
        assert oracle.consume_token(token), oracle.get_error()
      written = vocabulary.text(text)
      assert re.fullmatch(expression, written)
      assert all(c.true for c in read(written, dataset.schema, said))
  assert states > 300


def test_every_state_leads_to_an_end_and_no_two_are_the_same(dataset, vocabulary):
  made = automaton(*language(dataset, 0, 0, 'qualification')[1:], vocabulary)
  S = len(made.row) - 1
  rows = [tuple(zip(made.token[a:b], made.next[a:b])) for a, b in zip(made.row, made.row[1:])]
  assert len(set(rows)) == S
  assert [s for s, row in enumerate(rows) if not row] == [S - 1]  # behind the end alone
  assert all(to > s for s, row in enumerate(rows) for _, to in row)
  with pytest.raises(KeyError):
    made.step(S - 1, 0)


def test_a_text_divided_by_the_tokenizer_is_a_way_through(dataset, vocabulary):
  said, expression, parts = language(dataset, 1, 2, 'qualification')
  made = automaton(expression, parts, vocabulary)
  text = ' ' + ', '.join(s.words for s in said if s.words and s.field != 'skills')
  text = ', '.join(text.split(', ')[:3])
  (ids,) = vocabulary.encode([text])
  if vocabulary.text(ids) == text:  # not where it adds spaces or lacks words
    state = 0
    for token in [*ids, vocabulary.size]:
      state = made.step(state, token)
    assert state == len(made.row) - 2


def test_a_vocabulary_that_cannot_spell_it_is_refused():
  with pytest.raises(ValueError, match='must spell a text'):
    automaton(' Ω', (' Ω',), Vocabulary(with_spaces()))


def test_stacked_automata_are_of_few_sizes_and_say_the_same(dataset, vocabulary):
  made = [automaton(*language(dataset, i, i + 1, p)[1:], vocabulary)
          for i in range(2) for p in PERSPECTIVES]
  tables = stacked(made)
  assert all((n & (n - 1)) == 0 and n >= ROOM for n in (tables.row.shape[1] - 1,
                                                       tables.token.shape[1]))
  assert tables.most >= max(np.diff(a.row).max() for a in made)
  for r, a in enumerate(made):
    S, edges = len(a.row), len(a.token)
    np.testing.assert_array_equal(tables.row[r, :S], a.row)
    np.testing.assert_array_equal(np.diff(tables.row[r, S - 1:]), 0)
    np.testing.assert_array_equal(tables.token[r, :edges], a.token)
    np.testing.assert_array_equal(tables.next[r, :edges], a.next)
    np.testing.assert_array_equal(tables.left[r, :S - 1], a.left)


def test_every_state_knows_how_far_the_end_is(dataset, vocabulary):
  made = automaton(*language(dataset, 0, 1, 'qualification')[1:], vocabulary)
  behind = len(made.row) - 2
  far, reached, steps = {behind: 0}, {behind}, 0
  while reached:  # backwards, level by level
    steps += 1
    reached = {s for s in range(behind) if s not in far and reached & set(
        made.next[made.row[s]:made.row[s + 1]].tolist())}
    far |= dict.fromkeys(reached, steps)
  assert made.left.tolist() == [far[s] for s in range(behind + 1)]
  assert made.left[0] >= 2 and made.left[behind] == 0
