import dataclasses
import itertools
import os

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.published import read_published
from jobrec_jax.evaluate.audit import (
    audit,
    chance_mrr,
    first_positive_rank,
    list_reciprocal_ranks,
)
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.students import STUDENTS

PUBLISHED = os.environ.get('JOBREC_PUBLISHED')
SIZES = {'train': 60, 'validation': 30, 'calibration': 30, 'test': 40}
JOBS = 40


def make_log(seed, popularity=0.0, shuffle=True):
  """Candidate-disjoint splits; applications and verdicts by chance, and by the job's popularity."""
  rng = np.random.default_rng(seed)
  split = np.repeat(np.arange(4), list(SIZES.values()))
  appeal = popularity * np.linspace(1, -1, JOBS)
  rows = []
  for u, s in enumerate(split):
    shown = rng.permutation(JOBS)[:20] if shuffle else np.sort(rng.permutation(JOBS)[:20])
    for j in shown:
      applied = rng.random() < 1 / (1 + np.exp(1 - appeal[j]))
      rows.append((u, j, applied, rng.integers(2) if applied else UNOBSERVED, s))
  return np.asarray(rows)


def make_dataset(rows):
  rows = np.asarray(rows)
  log = Interactions(*rows[:, :2].T.astype(np.int32), *rows[:, 2:].T.astype(np.int8),
                     np.ones(len(rows), np.float32))
  return Dataset(STUDENTS, tuple(Entity(f'S{i}', {}) for i in range(rows[:, 0].max() + 1)),
                 tuple(Entity(f'J{i}', {}) for i in range(rows[:, 1].max() + 1)), log)


def by_name(report):
  return {f.name: f for f in report.findings}


@pytest.mark.parametrize('seed', range(5))
def test_a_clean_log_has_no_errors(seed):
  report = audit(make_dataset(make_log(seed)), seed)
  assert report.failed() == ()
  found = by_name(report)
  judged = {f.name.split('/')[0] for f in report.findings if f.p_value is not None}
  assert judged == {'constant', 'random', 'id_hash', 'first_in_list', 'last_in_list',
                    'train_negative_lookup'}
  assert 'train_negative_lookup/preference/train' not in found
  constant = found['constant/preference/test']
  assert constant.value == pytest.approx(constant.chance, abs=1e-12) and constant.p_value == 1
  assert found['candidate_overlap/any/train-test'].value == 0
  assert found['job_overlap/any/train-test'].value == JOBS
  assert found['job_overlap/any/train-test'].severity == 'info'


@pytest.mark.parametrize('sign, name', [(-1, 'first_in_list'), (1, 'last_in_list')])
def test_sorted_positions_are_found(sign, name):
  rows = make_log(0)
  at = rows[:, 4] == SPLITS.index('test')
  test = rows[at]
  rows[at] = test[np.lexsort((sign * test[:, 2], test[:, 0]))]
  report = audit(make_dataset(rows))
  assert f'{name}/preference/test' in report.failed()
  assert by_name(report)[f'{name}/preference/test'].value == 1
  assert all('in_list' in n for n in report.failed())
  assert report.failed(known=[name]) == ()


def test_positions_leak_in_qualification_lists_too():
  rows = make_log(1)
  rows = rows[np.argsort(-rows[:, 3], kind='stable')]
  failed = audit(make_dataset(rows)).failed()
  assert set(failed) >= {f'first_in_list/qualification/{split}' for split in SPLITS}


def test_shared_negatives_are_found():
  rows = make_log(2)
  train = rows[(rows[:, 4] == 0) & (rows[:, 2] == 0)]
  copied = train.copy()
  copied[:, 4] = SPLITS.index('test')
  unseen = [(u, j, 1, UNOBSERVED, 3) for u in np.unique(train[:, 0])
            for j in sorted(set(range(JOBS)) - set(rows[rows[:, 0] == u, 1]))[:2]]
  leaked = np.concatenate([rows, copied, unseen])
  order = np.random.default_rng(0).permutation(len(leaked))
  report = audit(make_dataset(leaked[order]))
  assert set(report.failed()) == {
      'pair_overlap/preference/train-test', 'shared_negatives/preference/train-test',
      'train_negative_lookup/preference/test'}
  found = by_name(report)
  assert found['shared_negatives/preference/train-test'].value == len(train)
  assert found['candidate_overlap/any/train-test'].value == SIZES['train']
  assert report.failed(known=['pair_overlap', 'shared_negatives/preference/train-test']) == (
      'train_negative_lookup/preference/test',)
  assert report.failed(known=['train_negative_lookup/preference/te']) == report.failed()


def test_a_pair_that_is_positive_in_two_splits_is_an_error():
  rows = make_log(3)
  positive = rows[(rows[:, 4] == 0) & (rows[:, 2] == 1)][:1].copy()
  positive[:, 3:] = UNOBSERVED, SPLITS.index('test')
  report = audit(make_dataset(np.concatenate([rows, positive])))
  assert report.failed() == ('pair_overlap/preference/train-test',)
  # A pair with another perspective's label in another split is no error.
  positive[:, 2:4] = UNOBSERVED, 1
  rows[:, 3] = np.where(rows[:, 4] == 0, UNOBSERVED, rows[:, 3])
  report = audit(make_dataset(np.concatenate([rows, positive])))
  assert report.failed() == () and by_name(report)['pair_overlap/any/train-test'].value == 1


def test_popularity_in_entity_order_is_not_taken_for_a_leak():
  report = audit(make_dataset(make_log(4, popularity=3.0, shuffle=False)))
  assert report.failed() == ()
  assert 'not judged' in by_name(report)['position_in_list/preference/test'].text
  assert 'first_in_list/preference/test' not in by_name(report)


def test_report_without_lists():
  rows = make_log(5)
  report = audit(make_dataset(rows[rows[:, 2] == 1][:, [0, 1, 2, 2, 4]]))
  assert report.failed() == () and all(f.p_value is None for f in report.findings)


def test_table_and_rows_say_the_same():
  report = audit(make_dataset(make_log(6)))
  lines = report.table().splitlines()
  assert len(lines) == len(report.rows) == len(report.findings)
  assert all(row['name'] in line and row['text'] in line for row, line in zip(report.rows, lines))
  balance = by_name(report)['label_balance/preference/train']
  log = make_dataset(make_log(6)).interactions.of('train')
  assert balance.value == pytest.approx(log.preference.mean())


@pytest.mark.parametrize('n', range(1, 8))
def test_first_positive_rank_counts_orders(n):
  for m in range(1, n + 1):
    first = [min(c) for c in itertools.combinations(range(n), m)]
    expected = np.bincount(first, minlength=n - m + 1) / len(first)
    np.testing.assert_allclose(first_positive_rank(n, m), expected, atol=1e-14)


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


@pytest.mark.skipif(not PUBLISHED,
                    reason='JOBREC_PUBLISHED does not name a folder with the published files')
def test_the_published_faults_are_found_and_can_be_dropped():
  found = by_name(audit(read_published(PUBLISHED, allow_unknown_users=True)))
  for pair in ('train-validation', 'train-test', 'validation-test'):
    assert found[f'shared_negatives/preference/{pair}'].value == 36547
    assert found[f'shared_negatives/preference/{pair}'].severity == 'error'
  for split in ('validation', 'test'):
    assert found[f'train_negative_lookup/preference/{split}'].value == 1
    assert found[f'train_negative_lookup/preference/{split}'].severity == 'error'
  assert found['first_in_list/preference/test'].severity == 'error'  # positives stand first

  dataset = read_published(PUBLISHED, allow_unknown_users=True, drop_shared_negatives=True)
  report = audit(dataset)
  assert report.failed(known=['first_in_list']) == ()
  lookup = by_name(report)['train_negative_lookup/preference/test']
  assert lookup.value == pytest.approx(lookup.chance, abs=1e-12)
  shuffled = np.random.default_rng(0).permutation(len(dataset.interactions))
  dataset = dataclasses.replace(dataset, interactions=dataset.interactions.where(shuffled))
  assert audit(dataset).failed() == ()
