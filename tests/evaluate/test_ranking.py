"""Ranking metrics against the mean over all orders of ties, and scikit-learn."""

import itertools

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from jobrec_jax.evaluate.ranking import first_positive_rank, ranking_metrics, tie_groups

KS = (1, 2, 3, 7)


def brute_force(scores, relevance, mask, ks):
  """The mean of every metric over all orders that agree with the scores; None without positives."""
  items = [i for i in range(len(scores)) if mask[i]]
  positives = sum(relevance[i] for i in items)
  if not positives:
    return None
  values = []
  for order in itertools.permutations(items):
    if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
      continue
    ranks = [r for r, i in enumerate(order, 1) if relevance[i]]
    row = {'mrr': 1 / ranks[0], 'mean_rank': sum(ranks) / positives}
    others = [r for r, i in enumerate(order, 1) if not relevance[i]]
    pairs = [r < o for r in ranks for o in others]
    row['auc'] = sum(pairs) / len(pairs) if pairs else np.nan
    for k in ks:
      row[f'recall@{k}'] = sum(r <= k for r in ranks) / positives
      ideal = sum(1 / np.log2(r + 1) for r in range(1, min(k, positives) + 1))
      row[f'ndcg@{k}'] = sum(1 / np.log2(r + 1) for r in ranks if r <= k) / ideal
    values.append(row)
  return {name: np.mean([v[name] for v in values]) for name in values[0]}


item = st.tuples(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), st.booleans(), st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6).flatmap(
    lambda j: st.lists(st.lists(item, min_size=j, max_size=j), min_size=1, max_size=3)))
def test_equals_the_mean_over_all_tie_breakings(lists):
  scores, relevance, mask = (np.array([[i[c] for i in row] for row in lists]) for c in range(3))
  got = ranking_metrics(scores, relevance, mask, KS)
  for n in range(len(lists)):
    expected = brute_force(scores[n], relevance[n], mask[n], KS)
    for name, values in got.items():
      if expected is None:
        assert np.isnan(values[n])
      else:
        np.testing.assert_allclose(values[n], expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize('n', [2, 7, 50])
def test_constant_scorer_earns_only_chance(n):
  relevance = np.arange(n)[None] == 1
  got = ranking_metrics(np.zeros((1, n)), relevance, np.ones((1, n), bool))
  harmonic = np.sum(1 / np.arange(1, n + 1))
  np.testing.assert_allclose(got['recall@1'], 1 / n)
  np.testing.assert_allclose(got['recall@5'], min(5, n) / n)
  np.testing.assert_allclose(got['mrr'], harmonic / n)
  np.testing.assert_allclose(got['mean_rank'], (n + 1) / 2)
  np.testing.assert_allclose(got['auc'], 0.5)


def test_one_tied_positive_has_the_closed_forms():
  # g = 2 above, e = 3 tied.
  scores = np.array([[9.0, 8.0, 5.0, 5.0, 5.0, 1.0]])
  relevance = np.array([[0, 0, 0, 1, 0, 0]], bool)
  got = ranking_metrics(scores, relevance, np.ones((1, 6), bool), (1, 3, 4, 5))
  np.testing.assert_allclose([got[f'recall@{k}'][0] for k in (1, 3, 4, 5)], [0, 1 / 3, 2 / 3, 1])
  np.testing.assert_allclose(got['mrr'][0], (1 / 3 + 1 / 4 + 1 / 5) / 3)
  np.testing.assert_allclose(got['ndcg@4'][0], (1 / np.log2(4) + 1 / np.log2(5)) / 3)


@pytest.mark.parametrize('k', [1, 3, 10])
def test_ndcg_agrees_with_scikit_learn(k):
  rng = np.random.default_rng(k)
  scores = rng.integers(0, 6, (40, 12)).astype(float)
  relevance = rng.random((40, 12)) < 0.3
  relevance[:, 0] = True
  got = ranking_metrics(scores, relevance, np.ones((40, 12), bool), (k,))[f'ndcg@{k}']
  expected = [ndcg_score(relevance[i:i + 1], scores[i:i + 1], k=k) for i in range(40)]
  np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_mrr_agrees_with_scikit_learn_on_one_untied_positive():
  rng = np.random.default_rng(0)
  scores, relevance = rng.normal(size=(30, 20)), np.arange(20) == rng.integers(0, 20, (30, 1))
  got = ranking_metrics(scores, relevance, np.ones((30, 20), bool))['mrr']
  expected = label_ranking_average_precision_score(relevance, scores)
  np.testing.assert_allclose(got.mean(), expected, rtol=1e-12)


def test_padding_never_counts():
  rng = np.random.default_rng(1)
  scores, relevance = rng.integers(0, 4, (5, 6)).astype(float), rng.random((5, 6)) < 0.5
  relevance[:, 0] = True
  short = ranking_metrics(scores, relevance, np.ones((5, 6), bool))
  pad = np.array([np.nan, 99.0, -np.inf])
  padded = ranking_metrics(
      np.c_[np.tile(pad, (5, 1)), scores], np.c_[np.ones((5, 3), bool), relevance],
      np.c_[np.zeros((5, 3), bool), np.ones((5, 6), bool)])
  for name, values in short.items():
    np.testing.assert_allclose(padded[name], values, err_msg=name)


def test_float32_ties_stay_ties():
  scores = np.array([[0.1, 0.1, 0.2]], np.float32)
  groups = tie_groups(scores, np.ones((1, 3), bool))
  np.testing.assert_array_equal(groups.start, [[0, 1, 1]])
  np.testing.assert_array_equal(groups.end, [[1, 3, 3]])


def test_nan_scores_name_their_list():
  scores = np.zeros((4, 3))
  scores[2, 1] = np.nan
  with pytest.raises(ValueError, match='nan in list 2 at item 1'):
    ranking_metrics(scores, np.ones((4, 3), bool), np.ones((4, 3), bool))


def test_wrong_shapes_and_cut_offs_are_named():
  ones = np.ones((2, 3), bool)
  with pytest.raises(ValueError, match='scores and mask'):
    ranking_metrics(np.zeros((2, 4)), ones, ones)
  with pytest.raises(ValueError, match='relevance'):
    ranking_metrics(np.zeros((2, 3)), np.ones((2, 1), bool), ones)
  with pytest.raises(ValueError, match='ks must be at least 1'):
    ranking_metrics(np.zeros((2, 3)), ones, ones, (0, 5))


@pytest.mark.parametrize('n', range(1, 8))
def test_first_positive_rank_counts_orders(n):
  for m in range(1, n + 1):
    first = [min(c) for c in itertools.combinations(range(n), m)]
    expected = np.bincount(first, minlength=n - m + 1) / len(first)
    np.testing.assert_allclose(first_positive_rank(n, m), expected, atol=1e-14)
