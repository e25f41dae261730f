"""Canaries find labels that follow ids or positions, and stay silent on luck."""

import itertools

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.evaluate.canaries import (
    LEVEL,
    chance_mrr,
    id_hash_scores,
    judge_canaries,
    labelled,
    list_reciprocal_ranks,
)
from jobrec_jax.evaluate.ranking import first_positive_rank
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS

NAMES = {'constant', 'random', 'id_hash', 'first_in_list', 'last_in_list', 'train_negative_lookup'}


def make_dataset(rows):
  """From rows of candidate, job, preference, qualification, split."""
  rows = np.asarray(rows)
  log = Interactions(*rows[:, :2].T.astype(np.int32), *rows[:, 2:].T.astype(np.int8),
                     np.ones(len(rows), np.float32))
  return Dataset(STUDENTS, *(tuple(Entity(f'{c}{i:04d}', {}) for i in range(rows[:, k].max() + 1))
                             for k, c in enumerate('SJ')), log)


def make_rows(seed, sizes=(60, 30, 30, 40), jobs=40, shown=20, cold=8, warm=0):
  """A log in random order whose labels are luck; the last `cold` jobs are the test's alone, and the
  test's first `warm` candidates are in train too."""
  rng = np.random.default_rng((1, seed))
  rows = []
  for u, split in enumerate(np.repeat(range(4), sizes)):
    order = rng.permutation(jobs if split == 3 else jobs - cold)[:shown]
    at = u - sum(sizes[:3])
    for i, j in enumerate(order):
      applied = rng.random() < 0.3
      here = 0 if 0 <= at < warm and i < 3 and j < jobs - cold else split
      rows.append((u, j, applied, rng.integers(2) if applied else UNOBSERVED, here))
  return rng.permutation(rows)


def judged(rows, seed=0):
  return {c.name: c for c in judge_canaries(make_dataset(rows), seed)[0]}


def leaks(rows, seed=0):
  return {name for name, c in judged(rows, seed).items() if c.leaks}


@pytest.mark.parametrize('seed', range(5))
def test_a_log_of_luck_has_no_leak(seed):
  found = judged(make_rows(seed), seed)
  assert {name.split('/')[0] for name in found} == NAMES
  assert 'train_negative_lookup/preference/train' not in found
  assert {name.split('/')[2] for name in found} == {*SPLITS, 'test.cold_candidates',
                                                    'test.both_cold'}
  constant = found['constant/preference/test']
  assert constant.mrr == pytest.approx(constant.chance, abs=1e-12) and constant.p_value == 1
  assert not any(c.leaks for c in found.values())


def test_false_alarms_are_as_rare_as_promised():
  """Of 150 logs of luck 0.15 may raise an alarm; p is not all 1, so that alarms are possible."""
  found = [judged(make_rows(seed, (12, 6, 6, 8), 12, 9, 3), seed) for seed in range(150)]
  assert sum(any(c.leaks for c in f.values()) for f in found) <= 1
  p = [c.p_value for f in found for c in f.values()]
  assert min(p) < 0.05
  for level in (0.01, 0.1):
    assert np.mean(np.asarray(p) <= level) <= level


@pytest.mark.parametrize('place', [*SPLITS, 'test.warm', 'test.both_cold'])
@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_a_label_that_follows_the_ids_is_found(place, perspective):
  rows = make_rows(7, (60, 30, 30, 200), warm=100)
  dataset = make_dataset(rows)
  part = labelled(dataset.interactions)[perspective, place]
  high = id_hash_scores(dataset, part) > np.quantile(id_hash_scores(dataset, part), 0.8)
  leak = {(u, j, s): y for u, j, s, y in zip(part.candidate, part.job, part.split, high)}
  column = 2 if perspective == 'preference' else 3
  for row in rows:
    row[column] = leak.get((row[0], row[1], row[4]), row[column])
  found = leaks(rows)
  assert f'id_hash/{perspective}/{place}' in found
  assert {name.split('/')[0] for name in found} == {'id_hash'}
  assert f'id_hash/{perspective}/train' not in found or place == 'train'


def test_an_order_that_leaks_for_cold_jobs_alone_is_found():
  rows = make_rows(8, cold=10)
  cold = (rows[:, 4] == 3) & (rows[:, 1] >= 30)
  rows[cold] = rows[cold][np.argsort(-rows[cold][:, 2], kind='stable')]
  found = leaks(rows)
  assert 'first_in_list/preference/test.both_cold' in found
  assert 'first_in_list/preference/test.cold_candidates' not in found


def test_places_are_splits_and_kinds_of_test_rows():
  rows = np.asarray([(0, 0, 1, 1, 0), (0, 1, 0, -1, 0), (0, 2, 1, -1, 3), (1, 0, 0, 1, 3),
                     (1, 3, -1, 0, 3), (2, 1, 1, 0, 1)])
  found = labelled(make_dataset(rows).interactions)
  sizes = {place: len(part) for place, part in found.items()}
  assert sizes == {
      ('preference', 'train'): 2, ('preference', 'validation'): 1, ('preference', 'test'): 2,
      ('preference', 'test.cold_jobs'): 1, ('preference', 'test.cold_candidates'): 1,
      ('qualification', 'train'): 1, ('qualification', 'validation'): 1,
      ('qualification', 'test'): 2, ('qualification', 'test.cold_candidates'): 1,
      ('qualification', 'test.both_cold'): 1}
  # A test of one kind has no kinds of its own.
  assert {place for _, place in labelled(make_dataset(rows[[0, 1, 3]]).interactions)} == {
      'train', 'test'}


@pytest.mark.parametrize('order', [1, -1])
def test_position_is_not_judged_in_entity_order(order):
  rows = make_rows(9)
  rows = rows[np.lexsort((order * rows[:, 1], rows[:, 0]))]
  judged_, unplaced = judge_canaries(make_dataset(rows), 0)
  assert not [c for c in judged_ if 'in_list' in c.name]
  assert unplaced['preference/test'] == judged(rows)['constant/preference/test'].lists
  assert len(unplaced) == 12


def test_the_level_is_shared_by_all_canaries():
  rows = make_rows(10)
  rows = rows[np.argsort(-rows[:, 2], kind='stable')]
  found = judged(rows).values()
  assert [c.leaks for c in found] == [c.p_value < LEVEL / len(found) for c in found]
  assert any(c.leaks for c in found)


def test_no_list_no_canary():
  rows = make_rows(11)
  assert judge_canaries(make_dataset(rows[rows[:, 2] == 1][:, [0, 1, 2, 2, 4]]), 0) == ([], {})
  empty = make_dataset(rows)
  empty = Dataset(STUDENTS, (), (), empty.interactions.where(np.zeros(len(rows), bool)))
  assert judge_canaries(empty, 0) == ([], {})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5)
                .filter(lambda l: any(y for _, y in l)), min_size=1, max_size=3))
def test_tied_lists_get_the_mean_over_tie_breaks(ranked):
  def reciprocal(order):
    return 1 / (1 + next(i for i, (_, y) in enumerate(order) if y))

  expected = []
  for l in ranked:
    orders = [o for o in itertools.permutations(l)
              if all(a[0] >= b[0] for a, b in itertools.pairwise(o))]
    expected.append(np.mean([reciprocal(o) for o in orders]))
  lists = np.repeat(np.arange(len(ranked)), [len(l) for l in ranked])
  scores, relevant = (np.asarray(c) for c in zip(*itertools.chain(*ranked)))
  shuffle = np.random.default_rng(0).permutation(len(lists))
  got = list_reciprocal_ranks(lists[shuffle], relevant[shuffle], scores[shuffle])
  np.testing.assert_allclose(got, expected, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda t: (max(t), min(t))),
                min_size=1, max_size=4))
def test_the_bound_is_never_below_the_exact_tail(kinds):
  sizes, positives = (np.asarray(c) for c in zip(*kinds))
  chance, tail = chance_mrr(sizes, positives)
  laws = [first_positive_rank(n, m) for n, m in kinds]
  outcomes = [(np.mean([1 / (r + 1) for r in ranks]),
               np.prod([law[r] for law, r in zip(laws, ranks)]))
              for ranks in itertools.product(*(range(len(law)) for law in laws))]
  assert chance == pytest.approx(sum(x * p for x, p in outcomes))
  for x, _ in outcomes:
    exact = sum(p for y, p in outcomes if y >= x - 1e-12)
    assert tail(x) >= exact * (1 - 1e-9)
  assert tail(1.0) == pytest.approx(np.prod([law[0] for law in laws]), rel=1e-6)


def test_the_bound_is_near_the_exact_tail_of_many_lists():
  """Exact by convolution of one list's law on a grid, rounded down and up; theory: 5 deviations
  out, Chernoff's bound is about 5 sqrt(2 pi) = 12.5 times the tail."""
  lists, step = 100, 1e-4
  law, reciprocal = first_positive_rank(20, 1), 1 / np.arange(1, 21)
  deviation = np.sqrt((law @ reciprocal ** 2 - (law @ reciprocal) ** 2) / lists)
  chance, tail = chance_mrr(np.full(lists, 20), np.ones(lists, int))
  observed = chance + 5 * deviation
  exact = []
  for rounded in (np.floor, np.ceil):
    grid = np.bincount(rounded(reciprocal / step - 1e-9).astype(int), law, minlength=2 ** 20)
    total = np.fft.irfft(np.fft.rfft(grid) ** lists, 2 ** 20)
    exact.append(total[int(np.ceil(observed * lists / step)):].sum())
  assert exact[1] < 1.1 * exact[0]
  assert exact[1] < tail(observed) < 20 * exact[0]
  assert tail(chance) == pytest.approx(1, abs=1e-2)
