"""A bag of words' ceiling: no reader without order is above it, and the card prints it."""

from collections import Counter
from importlib.resources import files
import re

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from jobrec_jax.data.market.ceiling import (
    evidence_share,
    expected_leanings,
    expected_preference,
    statement_auc,
    taste_share,
)
from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.data.market.grammar import SIDES, Style
from jobrec_jax.data.market.logits import variance_parts
from jobrec_jax.data.market.simulator import MarketConfig, make_market
from jobrec_jax.evaluate.ranking import ranking_metrics


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('side', SIDES)
def test_the_ceiling_of_a_statement_is_that_of_the_enumerated_grammar(name, side):
  """The best score of a bag is its likelihood ratio; the AUC follows from its two distributions."""
  grammar, syntax = load_domain(name).grammar, 0.6
  said = [s for s in grammar.statement_tables[side] if s.axis == 0]
  kinds = Counter((s.turned, s.pole, len(s.text.split())) for s in said)
  odds = {}  # of each bag, how likely it is for pole 0 and for pole 1
  for s in said:
    share = syntax if s.turned else 1 - syntax
    alike = sum(n for (turned, pole, _), n in kinds.items() if (turned, pole) == (s.turned, s.pole))
    odds.setdefault(tuple(sorted(re.findall(r'\w+', s.text))), [0, 0])[s.pole] += share / alike
  p = np.array(list(odds.values()))
  ratio = p[:, 1] / p.sum(1)
  wins = (ratio[:, None] < ratio) + 0.5 * (np.abs(ratio[:, None] - ratio) < 1e-12)
  assert abs(p[:, 0] @ wins @ p[:, 1] - statement_auc(syntax)) < 1e-9


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('syntax', [0.5, 0.8])
def test_a_logistic_regression_on_words_stays_below_the_ceiling_of_a_statement(name, syntax):
  grammar, rng = load_domain(name).grammar, np.random.default_rng(0)
  leanings = grammar.draw_leanings(rng, 3000)
  rows = grammar.draw_narratives(rng, 'candidate', leanings, Style(0, syntax))[:, 0]
  table = grammar.statement_tables['candidate']
  said = [table[k - len(grammar.small_talk_tables['candidate'])] for k in rows]
  said = [s for s in said if s.axis == 0]
  words = CountVectorizer(token_pattern=r'\w+').fit_transform([s.text for s in said])
  pole = np.array([s.pole for s in said])
  guess = cross_val_predict(LogisticRegression(solver='liblinear'), words, pole, cv=3,
                            method='predict_proba')[:, 1]
  reached = roc_auc_score(pole, guess)
  error = 1 / np.sqrt(3 * min(pole.sum(), (1 - pole).sum()))
  assert statement_auc(1.0) + 0.05 < reached < statement_auc(syntax) + 3 * error


@pytest.mark.parametrize('name', names())
def test_the_shares_known_are_what_simulated_texts_give(name):
  market = make_market(MarketConfig(domain=name, texts='sentences', candidates=4000, jobs=10,
                                    syntax=0.6), 0)
  columns = market.columns(0)
  known = expected_leanings(columns)
  for axis in range(len(market.domain.grammar.axes)):
    truth, best = columns.leanings[:, axis], known[:, axis]
    assert abs(np.cov(truth, best)[0, 1] / best.var() - 1) < 0.05  # an expectation: slope 1
    assert abs(best.var() / truth.var() - taste_share(market.domain.grammar, 0.6)) < 0.05
  # A project's grade where it is plain, the middle one where it is turned.
  codes = columns.codes[next(name for name in columns.codes if name in ('proj_1', 'case_1'))][:, 0]
  _, of, turned = (np.array(x) for x in zip(*market.domain.grammar.project_forms))
  form = codes % len(of)
  grade, best = columns.latents.grades[:, 0], np.where(turned[form], 2, of[form])
  assert abs(np.cov(grade, best)[0, 1] / best.var() - 1) < 0.05
  assert abs(best.var() / grade.var() - evidence_share(0.6)) < 0.05


def expectations(syntax, seed):
  """Slope and offset of logit P against what the best reader expects, and its share."""
  market = make_market(MarketConfig(candidates=200, jobs=200, texts='sentences', syntax=syntax),
                       seed)
  columns, pairs = market.columns(0), (np.arange(200)[:, None], np.arange(200))
  truth, best = market.logits(columns, *pairs)[0], expected_preference(market, columns, *pairs)
  slope = ((truth - truth.mean()) * best).mean() / best.var()
  return slope - 1, truth.mean() - best.mean(), best.var() / truth.var()


@pytest.mark.parametrize('syntax', [0.6, 1.0])
def test_expected_logits_are_expectations(syntax):
  """The truth is, on average over markets, what is expected: 1 for 1, and nothing beyond it."""
  drawn = np.array([expectations(syntax, seed) for seed in range(8)])
  error = 3.5 * drawn.std(0, ddof=1) / np.sqrt(8)
  assert (np.abs(drawn.mean(0)) < error)[:2].all() and error[:2].max() < 0.2
  assert (drawn[:, 2] < 0.85).all()


def test_who_reads_in_order_expects_the_truth():
  np.testing.assert_allclose(expectations(0.0, 0), [0, 0, 1], atol=1e-9)


def test_the_shares_are_one_or_nothing_at_the_ends():
  for name in names():
    grammar = load_domain(name).grammar
    assert abs(taste_share(grammar, 0) - 1) < 1e-12 and abs(taste_share(grammar, 1)) < 1e-12
  assert [statement_auc(s) for s in (0, 1)] == [1, 0.5]
  assert [evidence_share(s) for s in (0, 1)] == [1, 0]


def ndcg(scores, relevance):
  return np.nanmean(ranking_metrics(scores, relevance, np.ones(scores.shape, bool), (5,))['ndcg@5'])


def figures(name):
  """What the card prints of a domain: of the default market, data seed 0."""
  market = make_market(MarketConfig(domain=name, texts='sentences'), 0)
  columns, pairs = market.columns(0), (np.arange(600)[:, None], np.arange(100))
  (p, q), best = market.logits(columns, *pairs), expected_preference(market, columns, *pairs)
  nothing = make_market(MarketConfig(domain=name, texts='sentences', syntax=1.0), 0)
  unread = expected_preference(nothing, nothing.columns(0), *pairs)
  wants = market.truth(columns, *pairs).wants
  parts = [' / '.join(f'{100 * share:.0f}' for share in variance_parts(x)) for x in (p, q)]
  syntax = market.config.syntax
  return [*parts, f'{statement_auc(syntax):.3f}',
          f'{100 * taste_share(market.domain.grammar, syntax):.0f}',
          f'{100 * evidence_share(syntax):.0f}', f'{ndcg(unread, wants):.3f}',
          f'{ndcg(best, wants):.3f}', f'{ndcg(p, wants):.3f}']


@pytest.mark.parametrize('name', names())
def test_the_card_prints_what_is_computed(name):
  card = files('jobrec_jax.data.market.jobrec_synth').joinpath('README.md').read_text()
  assert f'| `{name}` | {" | ".join(figures(name))} |' in card
