"""Narratives say what the leanings are, projects how they went, and order alone tells of half."""

from collections import Counter
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.data.market.grammar import SIDES, Style, write
from jobrec_jax.data.market.simulator import MarketConfig, make_market


def bag(text):
  """The words and marks of a text, as they are written, without their order."""
  return tuple(sorted(re.findall(r"[\w'-]+|[^\w\s]", text)))


def leanings_of(grammar, side, text):
  """Reads a narrative back: of each axis the statements, 1 where they speak for its first pole."""
  read = [[] for _ in grammar.axes]
  said = {s.text: s for s in grammar.statement_tables[side]}
  for sentence in re.findall(r'[^.]+\.', text):
    if statement := said.get(sentence.strip()):
      read[statement.axis].append(1 - statement.pole)
  return read


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('syntax', [0, 0.5, 1])
def test_a_narrative_says_what_it_was_asked_to(name, side, syntax):
  grammar = load_domain(name).grammar
  rng = np.random.default_rng(0)
  leanings = grammar.draw_leanings(rng, 300)
  rows = grammar.draw_narratives(rng, side, leanings, Style(2, syntax))
  for text, asked in zip(write(grammar.narrative_tables[side], rows), leanings):
    read = leanings_of(grammar, side, text)
    assert [len(r) for r in read] == [grammar.statements] * len(grammar.axes)
    assert [sum(r) for r in read] == asked.tolist()
  assert np.mean([len(set(row)) == len(row) for row in rows.tolist()]) > 0.95  # hardly one twice
  turned = {s.text: s.turned for s in grammar.statement_tables[side]}
  table = grammar.narrative_tables[side]
  drawn = [turned[table[k]] for k in rows.ravel() if table[k] in turned]
  assert abs(np.mean(drawn) - syntax) <= 4 * np.sqrt(syntax * (1 - syntax) / len(drawn))
  forms = [s.text for s in grammar.statement_tables[side] if s.turned == (syntax == 1)]
  if syntax in (0, 1):  # every phrase and every form comes up
    assert len({table[k] for k in rows.ravel()} & set(forms)) > 0.3 * min(len(forms), len(drawn))


@pytest.mark.parametrize('name', names())
def test_sentences_of_different_meaning_differ(name):
  domain = load_domain(name)
  for side in SIDES:
    table = domain.grammar.narrative_tables[side]
    assert len(set(table)) == len(table)
  assert len(set(domain.project_table)) == len(domain.project_table)


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('side', SIDES)
def test_turned_statements_of_both_poles_have_the_same_words_equally_often(name, side):
  """Over the enumerated grammar; capitals and marks included, and each bag as a whole."""
  grammar = load_domain(name).grammar
  for axis in range(len(grammar.axes)):
    said = [[bag(s.text) for s in grammar.statement_tables[side]
             if s.axis == axis and s.turned and s.pole == pole] for pole in (0, 1)]
    assert len(said[0]) > 100
    assert Counter(said[0]) == Counter(said[1])  # hence unigrams, too
    assert Counter(w for b in said[0] for w in b) == Counter(w for b in said[1] for w in b)
    plain = [{bag(s.text) for s in grammar.statement_tables[side]
              if s.axis == axis and not s.turned and s.pole == pole} for pole in (0, 1)]
    assert not plain[0] & plain[1]


@pytest.mark.parametrize('name', names())
def test_turned_projects_of_mirrored_grades_have_the_same_words(name):
  grammar = load_domain(name).grammar
  for turned, table in ((True, grammar.turned), (False, grammar.plain)):
    assert len(table) == 5 and len({len(forms) for forms in table}) == 1
    for grade, forms in enumerate(table[:2]):
      for poor, good in zip(forms, table[4 - grade]):
        assert poor != good and (bag(poor) == bag(good)) == turned
  assert {(g, t) for _, g, t in grammar.project_forms} == {
      (g, t) for g in range(5) for t in (False, True)}


@pytest.mark.parametrize('name', names())
def test_a_project_says_how_it_went(name):
  domain, rng = load_domain(name), np.random.default_rng(0)
  skill, grade = rng.integers(len(domain.skills), size=600), rng.integers(5, size=600)
  rows = domain.grammar.draw_projects(rng, skill, grade, Style(1, 0.5))
  forms = domain.grammar.project_forms
  kinds = []
  for text, s, g in zip(write(domain.project_table, rows), skill, grade):
    meant = [(t, form) for form, of, t in forms
             if of == g and form.format(skill=domain.skills[s])[1:] == text[1:-1]]
    assert len(meant) == 1, text
    kinds.append(meant[0][0])
  assert abs(np.mean(kinds) - 0.5) < 4 * np.sqrt(0.25 / 600)


def bag_auc(texts, positive):
  words = CountVectorizer(token_pattern=r'\w+').fit_transform(texts)
  guess = cross_val_predict(LogisticRegression(C=0.3, solver='liblinear'), words, positive, cv=3,
                            method='predict_proba')[:, 1]
  return roc_auc_score(positive, guess)


@pytest.mark.parametrize('name', names())
def test_where_all_is_turned_a_bag_of_words_reads_neither_taste_nor_evidence(name):
  market = make_market(MarketConfig(domain=name, texts='sentences', candidates=1600, jobs=10,
                                    syntax=1.0), 0)
  columns, grammar = market.columns(0), market.domain.grammar
  people = market.candidates(columns)
  narrative, project = (next(t for t in people[0].attributes if t in of) for of in (
      ('student_llm_output', 'letter'), ('proj_1', 'case_1')))
  half = grammar.statements / 2
  for axis in range(len(grammar.axes)):
    leans = columns.leanings[:, axis] != half
    said = [p[narrative] for p, kept in zip(people, leans) if kept]
    assert abs(bag_auc(said, columns.leanings[leans, axis] > half) - 0.5) < 0.06
  grade = columns.latents.grades[:, 0]
  said = [p[project] for p, kept in zip(people, grade != 2) if kept]
  assert abs(bag_auc(said, grade[grade != 2] > 2) - 0.5) < 0.06


def test_where_nothing_is_turned_a_bag_of_words_reads_both():
  market = make_market(MarketConfig(candidates=1500, jobs=10, texts='sentences', syntax=0.0), 0)
  columns = market.columns(0)
  people = market.candidates(columns)
  leans, grade = columns.leanings[:, 0] != 2, columns.latents.grades[:, 0]
  said = [p['student_llm_output'] for p, kept in zip(people, leans) if kept]
  assert bag_auc(said, columns.leanings[leans, 0] > 2) > 0.99
  said = [p['proj_1'] for p, kept in zip(people, grade != 2) if kept]
  assert bag_auc(said, grade[grade != 2] > 2) > 0.99


def test_the_share_turned_changes_the_telling_alone():
  """Not the attributes, not the truth: what is said with other words is the same."""
  markets = [make_market(MarketConfig(candidates=60, jobs=20, texts='sentences', syntax=s), 1)
             for s in (0.0, 0.8)]
  few, many = (m.columns(0) for m in markets)
  for name, codes in few.codes.items():
    text = few.domain.attribute('candidate', name).kind == 'text'
    assert (codes == many.codes[name]).all() != (text and not name.startswith('extrac')), name
  u, j = np.arange(60)[:, None], np.arange(20)
  for a, b in zip(markets[0].logits(few, u, j), markets[1].logits(many, u, j)):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_no_two_of_5000_candidates_tell_the_same_story(seed):
  market = make_market(MarketConfig(candidates=5000, jobs=10), seed)
  texts = [c['student_llm_output'] for b in range(market.blocks)
           for c in market.candidates(market.columns(b))]
  assert len(texts) == len(set(texts)) == 5000
