"""Beam search against the same search on the host, and against all texts that there are."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD
from jobrec_jax.generate.automaton import Vocabulary, automaton, stacked
from jobrec_jax.generate.decode import decode, written
from jobrec_jax.models.jobrec import JobRecConfig
from jobrec_jax.models.writer import embed, output_table, read_on, read_pairs
from tests.generate.test_decode import EACH, OWN, made

B, J, MOST = 2, 2, 9
WORDS = [['met', 'unmet'], ['met by', 'unmet', 'met'], ['a b', 'a', 'b a'],
         ['skills', 'no', 'no skill']]
KINDS = {
    'exact': JobRecConfig(OWN, (8,), words=512),
    'factored, adapters for each expert': JobRecConfig(
        dataclasses.replace(OWN, lora=EACH, tie_embeddings=False), (8,), words=512,
        attention='factored', job_start=40, pair_start=80)}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys(), scope='module')
def case(request, blocks, tokenizer):
  """(writing, pairs, start, automata); texts of one to nine tokens, some a part of another."""
  lists = blocks.candidate_lists(np.array([3, 5]), np.array([[1, 2], [4, 7]]))
  writing = made(request.param, lists, seed=2)
  pairs = read_pairs(writing.model, writing.params, lists).of(1)
  start = writing.module.apply({'params': writing.writer}, writing.model, writing.params,
                               pairs.scores, None, method='start').of(1)
  vocabulary = Vocabulary(tokenizer)
  return writing, pairs, start, [automaton(f'({"|".join(w)})', w, vocabulary) for w in WORDS]


@pytest.fixture(scope='module')
def log_p(case):
  """(row, tokens so far, allowed ones) -> log p of each, by a decoder that keeps nothing."""
  w, pairs, start, _ = case
  adapters = w.module.apply({'params': w.writer}, method='adapters')
  table = np.asarray(output_table(w.model, w.params, w.writer['end']))

  @jax.jit
  def compared(tokens):
    x = jnp.concatenate([start.first[:, :, None], embed(w.model, w.params, tokens)
                         + start.scored[:, :, None]], axis=2)
    valid = jnp.concatenate([jnp.ones((B, J, 1), bool), tokens != PAD], axis=2)
    hidden, _ = read_on(w.config, w.params['decoder'], x, valid, pairs, adapters)
    return w.module.apply({'params': w.writer}, hidden)[1]

  @functools.cache
  def states(row, tokens):
    texts = np.full((B * J, MOST), PAD, np.int32)
    texts[row, :len(tokens)] = tokens
    return np.asarray(compared(texts.reshape(B, J, MOST))).reshape(B * J, MOST + 1, -1)

  def found(row, tokens, allowed):
    logits = np.float64(states(row, tokens)[row, len(tokens)] @ table[allowed].T)
    return logits - np.logaddexp.reduce(logits)
  return found


def all_texts(log_p, automata, row, end):
  """(log p, tokens with the end) of every text of a row."""
  out, waiting = [], [((), 0, 0.0)]
  while waiting:
    tokens, state, said = waiting.pop()
    allowed = automata[row].allowed(state)
    for token, p in zip(allowed.tolist(), log_p(row, tokens, allowed)):
      if token == end:
        out.append((said + p, (*tokens, end)))
      else:
        waiting.append(((*tokens, token), automata[row].step(state, token), said + p))
  return out


def on_the_host(log_p, automata, row, end, beams, penalty, most):
  """(log p, tokens) of the best text, by a search in plain Python."""
  kept = [(0.0, (), 0)]
  for _ in range(most):
    if all(tokens and tokens[-1] == end for _, tokens, _ in kept):
      break
    more = [x for x in kept if x[1] and x[1][-1] == end]
    for said, tokens, state in kept:
      if not tokens or tokens[-1] != end:
        allowed = automata[row].allowed(state)
        more += [(said + p, (*tokens, t), automata[row].step(state, t))
                 for t, p in zip(allowed.tolist(), log_p(row, tokens, allowed))]
    kept = sorted(more, key=lambda x: -x[0] / len(x[1]) ** penalty)[:beams]
  said, tokens, _ = next(x for x in kept if x[1][-1] == end)
  return said, tokens


@pytest.mark.parametrize('penalty', [0.0, 1.5])
def test_wide_enough_it_finds_the_best_of_all_texts(case, log_p, penalty):
  writing, pairs, start, automata = case
  texts = decode(writing, pairs, start, stacked(automata), MOST + 1, beams=64,
                 length_penalty=penalty)
  assert np.asarray(texts.whole).all()
  for row, tokens in enumerate(x for of in written(texts) for x in of):
    every = all_texts(log_p, automata, row, writing.end)
    assert len(every) >= 2 and max(len(t) for _, t in every) <= MOST + 1
    said, best = max(every, key=lambda x: x[0] / len(x[1]) ** penalty)
    assert (*tokens, writing.end) == best
    np.testing.assert_allclose(np.ravel(texts.log_likelihood)[row], said, atol=1e-4)


@pytest.mark.parametrize(('beams', 'penalty'), [(2, 0.0), (3, 1.0)])
def test_it_is_the_search_in_plain_python(case, log_p, beams, penalty):
  writing, pairs, start, automata = case
  texts = decode(writing, pairs, start, stacked(automata), MOST + 1, jump=1, beams=beams,
                 length_penalty=penalty)
  for row, tokens in enumerate(x for of in written(texts) for x in of):
    said, best = on_the_host(log_p, automata, row, writing.end, beams, penalty, MOST + 1)
    assert (*tokens, writing.end) == best
    np.testing.assert_allclose(np.ravel(texts.log_likelihood)[row], said, atol=1e-4)


def test_beams_or_a_penalty_change_texts_here(case):
  """Else the tests above would compare greedy texts."""
  writing, pairs, start, automata = case
  found = [written(decode(writing, pairs, start, stacked(automata), MOST + 1, beams=b,
                          length_penalty=a)) for b, a in ((1, 0.0), (64, 0.0), (64, 1.5))]
  assert found[0] != found[1] or found[1] != found[2]


def test_freely_it_says_what_is_likelier_than_the_greedy_text(case):
  """And stops at its turns; what must follow is jumped over and changes no text of one beam."""
  writing, pairs, start, automata = case
  greedy = decode(writing, pairs, start, None, 6)
  wide = decode(writing, pairs, start, None, 6, beams=8)
  assert wide.tokens.shape == greedy.tokens.shape and wide.whole.shape == (B, J)
  same = np.asarray(greedy.whole) == np.asarray(wide.whole)
  assert (np.asarray(wide.log_likelihood) >= np.asarray(greedy.log_likelihood) - 1e-5)[same].all()
  assert written(wide) != written(greedy)
  jumped = decode(writing, pairs, start, stacked(automata), MOST + 1, jump=4, beams=64)
  apart = decode(writing, pairs, start, stacked(automata), MOST + 1, jump=1, beams=64)
  assert written(jumped) == written(apart) and jumped.turns < apart.turns


def test_what_makes_no_sense_is_refused(case):
  writing, pairs, start, _ = case
  for beams, more in ((0, {}), (2, {'temperature': 1.0, 'key': jax.random.key(0)})):
    with pytest.raises(ValueError, match='beams must be at least 1'):
      decode(writing, pairs, start, None, 3, beams=beams, **more)
  for beams, penalty in ((1, 1.0), (2, -1.0)):
    with pytest.raises(ValueError, match='length_penalty must be at least 0'):
      decode(writing, pairs, start, None, 3, beams=beams, length_penalty=penalty)
