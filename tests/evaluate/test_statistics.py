"""Estimates over candidates and jobs: against leaving out by hand, and against what is drawn."""

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.leave_one_out import ranking_metrics_without
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import (
    PAIRS,
    Estimate,
    Groups,
    exact,
    interval,
    jackknife,
    make_groups,
    satterthwaite,
    summed,
)

EVERYONE = make_groups((np.zeros(7, bool), np.zeros(5, bool)))


def drawn_lists(seed, perspective):
  """Short lists of 7 candidates and 5 jobs; someone owns two lists, some hold no positive."""
  rng = np.random.default_rng(seed)
  owners, items = (7, 5) if perspective == 'preference' else (5, 7)
  own = np.repeat(np.append(np.arange(owners - 1), 0)[:, None], 4, 1)
  item = np.array([rng.permutation(items)[:4] for _ in own])
  mask = np.arange(4) < rng.integers(2, 5, (len(own), 1))
  relevance = (rng.random(own.shape) < rng.choice([0.0, 0.5, 0.5], (len(own), 1))) & mask
  pair = (own, item) if perspective == 'preference' else (item, own)
  return RankingLists(perspective, *pair, relevance, mask), rng.integers(0, 3, own.shape) * 1.0


def mean_ndcg(lists, scores, keep):
  """The mean NDCG@3 by hand of the pairs that stay."""
  values = []
  for n in range(len(lists)):
    mask = lists.mask[n] & keep[n]
    if (mask & lists.relevance[n]).any():
      values.append(ranking_metrics(scores[n:n + 1], lists.relevance[n:n + 1], mask[None],
                                    (3,))['ndcg@3'][0])
  return np.mean(values) if values else np.nan


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_means_over_lists_are_left_out_by_candidate_and_by_job(perspective):
  lists, scores = drawn_lists(0, perspective)
  means = ListMeans(EVERYONE)
  for at in (slice(0, 3), slice(3, None)):
    part = RankingLists(perspective, *(getattr(lists, k)[at] for k in (
        'candidate', 'job', 'relevance', 'mask')))
    ranked = scores[at], part.relevance, part.mask, (3,)
    means.add(part, ranking_metrics(*ranked), ranking_metrics_without(*ranked))
  found = means.estimates()['ndcg@3']
  everything = np.ones(lists.mask.shape, bool)
  assert found.value == pytest.approx(mean_ndcg(lists, scores, everything))
  assert found.n == (lists.relevance.any(1)).sum() < len(lists)
  for side, psi in (('candidate', found.candidates), ('job', found.jobs)):
    index = getattr(lists, side)
    there = np.unique(index[lists.mask])
    left_out = np.array([mean_ndcg(lists, scores, index != e) for e in there])
    expected = np.zeros(len(psi))
    expected[there] = np.sqrt((len(there) - 1) / len(there)) * (left_out - left_out.mean())
    np.testing.assert_allclose(psi, expected, atol=1e-12)
    assert found.groups[side == 'job'] == len(there) and np.ptp(psi) > 0


def test_groups_of_several_move_a_mean_together():
  rng = np.random.default_rng(1)
  values = rng.normal(size=(12, 4))  # a table of candidates by jobs
  u, j = (x.ravel() for x in np.indices(values.shape))
  groups = Groups(np.arange(12) % 3, np.arange(4), (3, 4)).of(u, j)
  (found,) = jackknife(summed([values.ravel(), np.ones(48)], groups),
                       lambda m: m[:, :1] / m[:, 1:], 48)
  left_out = [values[np.arange(12) % 3 != g].mean() for g in range(3)]
  np.testing.assert_allclose(found.candidates, np.sqrt(2 / 3) * (left_out - np.mean(left_out)))
  # Of a plain mean it is the variance that everyone knows: s² / G.
  assert found.jobs @ found.jobs == pytest.approx(values.mean(0).var(ddof=1) / 4)


def test_a_difference_takes_off_what_moves_both():
  a = Estimate(0.7, np.array([0.3, -0.1]), np.array([0.2, 0.0]), 5, (2, 2))
  b = Estimate(0.5, np.array([0.3, -0.2]), np.array([0.2, 0.1]), 4, (2, 2))
  found = a - b
  assert found.value == pytest.approx(0.2) and found.n == 4 and found.groups == (2, 2)
  np.testing.assert_allclose(found.candidates, [0, 0.1])
  np.testing.assert_allclose(found.jobs, [0, -0.1])
  with pytest.raises(ValueError, match='same groups'):
    _ = a - b._replace(jobs=np.zeros(3))


def test_an_interval_has_satterthwaites_degrees_of_freedom():
  found = interval(Estimate(1.0, np.array([3.0, 0, 0]), np.array([2.0, 2, 0, 0]), 9, (3, 4)), 0.9)
  variance, df = 9 + 8, (9 + 8) ** 2 / (81 / 2 + 64 / 3)
  assert satterthwaite([(9, 2), (8, 3)]) == pytest.approx((variance, df))
  half = stats.t.ppf(0.95, df) * np.sqrt(variance)
  assert found == pytest.approx((1.0, 1 - half, 1 + half, 9))


def test_what_has_no_interval():
  one = Estimate(1.0, np.zeros(3), np.array([0.1, 0.1]), 4, (1, 2))
  for e in (one, exact(1.0, 4, EVERYONE), Estimate(np.nan, np.zeros(2), np.zeros(2), 0, (2, 2))):
    found = interval(e)
    assert np.isnan(found.low) and np.isnan(found.high)
  assert interval(Estimate(1.0, np.zeros(2), np.zeros(2), 4, (2, 2))) == (1.0, 1.0, 1.0, 4)
  with pytest.raises(ValueError, match='level must be in'):
    interval(one, 1.0)


def test_groups_are_the_datas_alone_and_apart_for_whom_training_saw():
  seen = np.arange(50) % 5 == 0, np.arange(9) < 6
  groups = make_groups(seen, 8)
  again = make_groups(seen, 8)
  np.testing.assert_array_equal(groups.candidate, again.candidate)
  assert groups.counts == (16, 9)
  assert set(groups.candidate[seen[0]]) == set(range(8, 16))
  sizes = np.bincount(groups.candidate)
  assert set(sizes[:8]) == {5} and set(sizes[8:]) <= {1, 2}
  np.testing.assert_array_equal(np.sort(groups.job), np.arange(9))  # few: everyone alone
  assert groups.candidate[~seen[0]].tolist() != sorted(groups.candidate[~seen[0]].tolist())


def test_intervals_cover_where_candidates_and_jobs_are_drawn_anew():
  """A table with effects of both sides and of the pair; intervals over one side would not."""
  rng, hits, one_sided = np.random.default_rng(2), [], []
  groups = make_groups((np.zeros(30, bool), np.zeros(20, bool)))
  u, j = (x.ravel() for x in np.indices((30, 20)))
  for _ in range(400):
    values = (rng.normal(size=(30, 1)) + rng.normal(size=(1, 20)) + rng.normal(size=(30, 20)))
    (found,) = jackknife(summed([values.ravel(), np.ones(600)], groups.of(u, j)),
                         lambda m: m[:, :1] / m[:, 1:], 600)
    low, high = interval(found)[1:3]
    hits.append(low <= 0 <= high)
    alone = 1.96 * np.linalg.norm(found.candidates)
    one_sided.append(abs(found.value) <= alone)
  assert 0.93 <= np.mean(hits) <= 0.98  # 400 repeats have an error of about 1.1%
  assert np.mean(one_sided) < 0.85


@pytest.mark.parametrize('share', [0.0, 1.0])
def test_what_is_a_pairs_own_is_counted_once(share):
  """The variance of pairs alone is that of one side; the other side's is taken off."""
  rng, totals, sides, pairs = np.random.default_rng(3), [], [], []
  groups = make_groups((np.zeros(60, bool), np.zeros(40, bool)))
  u, j = (x.ravel() for x in np.indices((60, 40)))
  for _ in range(100):
    values = share * rng.normal(size=(1, 40)) + rng.normal(size=(60, 40))
    (found,) = jackknife(summed([values.ravel(), np.ones(2400)], groups.of(u, j)),
                         lambda m: m[:, :1] / m[:, 1:], 2400)
    totals.append(found.variance[0])
    sides.append(found.candidates @ found.candidates)
    pairs.append(found.pairs @ found.pairs)
  own = 1 / 2400
  assert np.mean(sides) == pytest.approx(own, rel=0.1)
  assert np.mean(pairs) == pytest.approx(own * (1 + share), rel=0.06)
  assert np.mean(totals) == pytest.approx(share / 40 + own, rel=0.25 if share == 0 else 0.1)


def test_pairs_of_lists_lie_in_groups_of_their_own():
  """A list without one of its pairs, less what leaving any pair of it changes."""
  lists, scores = drawn_lists(4, 'preference')
  lists = RankingLists('preference', lists.candidate, lists.job, lists.job < 2,
                       np.ones(lists.mask.shape, bool))  # every list has a positive, or two
  ranked = scores, lists.relevance, lists.mask, (3,)
  values, without = ranking_metrics(*ranked), ranking_metrics_without(*ranked)
  means = ListMeans(EVERYONE)
  means.add(lists, {'recall@3': values['recall@3']}, {'recall@3': without['recall@3']})
  found, n = means.estimates()['recall@3'], len(lists)
  group = EVERYONE.of(lists.candidate, lists.job).pair
  sums, counts = np.zeros(PAIRS), np.zeros(PAIRS)
  for row in range(n):
    changes, fewer = [], []
    for i in range(4):
      rest = np.arange(4) != i
      there = (lists.relevance[row] & rest).any()
      new = ranking_metrics(scores[row:row + 1], lists.relevance[row:row + 1], rest[None],
                            (3,))['recall@3'][0] if there else 0.0
      changes.append(new - values['recall@3'][row])
      fewer.append(there - 1.0)
    for i in range(4):
      sums[group[row, i]] += changes[i] - np.mean(changes)
      counts[group[row, i]] += fewer[i] - np.mean(fewer)
  left_out = (values['recall@3'].sum() + sums) / (n + counts)
  expected = np.sqrt((PAIRS - 1) / PAIRS) * (left_out - left_out.mean())
  np.testing.assert_allclose(found.pairs, expected, atol=1e-12)
  assert np.ptp(found.pairs) > 0.01


def test_what_nothing_moves_has_an_interval_without_width():
  """Rounding moves a constant by 1e-17, which is no variance; nor are its degrees of freedom."""
  rng = np.random.default_rng(0)
  psi = [1e-17 * rng.normal(size=n) for n in (150, 80, PAIRS)]
  assert interval(Estimate(0.05, *psi[:2], 9, (150, 80), psi[2])) == (0.05, 0.05, 0.05, 9)


def test_pairs_that_outweigh_both_sides_leave_the_greater():
  """As for a metric that is almost constant: own pairs' noise far above both sums."""
  u, j, pairs = np.full(100, 0.01), np.full(50, 0.02), np.full(PAIRS, 0.5)
  found = interval(Estimate(0.5, u, j, 9, (100, 50), pairs))
  variance = 50 * 0.02 ** 2
  assert 2 * variance ** 0.5 < found.high - found.value < 2.2 * variance ** 0.5
