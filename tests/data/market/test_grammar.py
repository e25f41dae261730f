"""Narratives say what the leanings are, in the words of either side."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.data.market.grammar import _sentence, write
from jobrec_jax.data.market.simulator import MarketConfig, make_market


def leanings_of(grammar, side, text):
  """Reads a narrative back: of each axis the statements, 1 where they speak for its first pole."""
  read = []
  for axis in grammar.axes:
    first, second = getattr(axis, side)
    for ours, theirs in ((first, second), (second, first)):
      for a in ours:
        for b in theirs:
          text = text.replace(_sentence(grammar.contrast.format(a=a, b=b)), _sentence(a))
    said = {_sentence(a): int(a in first) for a in first + second}
    body = [f'{s}.' for s in text.split(': ', 1)[1].removesuffix('.').split('. ')]
    read.append([said[s] for s in body if s in said])
  return read


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('side', ['candidate', 'job'])
def test_a_narrative_says_what_it_was_asked_to(name, side):
  grammar = load_domain(name).grammar
  rng = np.random.default_rng(0)
  leanings = grammar.draw_leanings(rng, 300)
  rows = grammar.draw_narratives(rng, side, leanings, small_talk=2)
  for text, asked in zip(write(grammar.narrative_tables[side], rows), leanings):
    read = leanings_of(grammar, side, text)
    assert [len(r) for r in read] == [grammar.statements] * len(grammar.axes)
    assert [sum(r) for r in read] == asked.tolist()
  plain = [set(row[1:].tolist()) for row in rows]
  assert np.mean([len(p) == rows.shape[1] - 1 for p in plain]) > 0.95  # hardly a sentence twice


@pytest.mark.parametrize('name', names())
def test_sentences_of_different_meaning_differ(name):
  grammar = load_domain(name).grammar
  for side in ('candidate', 'job'):
    table = grammar.narrative_tables[side]
    assert len(set(table)) == len(table)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_no_two_of_5000_candidates_tell_the_same_story(seed):
  market = make_market(MarketConfig(candidates=5000, jobs=10), seed)
  texts = [c['student_llm_output'] for b in range(market.blocks)
           for c in market.candidates(market.columns(b))]
  assert len(texts) == len(set(texts)) == 5000


def test_a_bag_of_words_cannot_read_the_taste_perfectly():
  market = make_market(MarketConfig(candidates=4000, jobs=10), 0)
  columns = market.columns(0)
  texts = [c['student_llm_output'] for c in market.candidates(columns)]
  words = CountVectorizer().fit_transform(texts)
  guess = cross_val_predict(LogisticRegression(max_iter=2000), words, columns.leanings[:, 0], cv=3)
  assert 0.5 < (guess == columns.leanings[:, 0]).mean() < 0.9  # who reads in order gets them all
