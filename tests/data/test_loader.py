"""Batches of lists: their order, their shapes, and where a restored iterator goes on."""

import itertools

import jax
import numpy as np
import pytest

from jobrec_jax.data.lists import PreferenceLists, QualificationLists
from jobrec_jax.data.loader import (
    iterate,
    list_dataset,
    preference_finisher,
    qualification_finisher,
)


@pytest.fixture(scope='module')
def lists(dataset):
  return PreferenceLists(dataset.interactions.of('train'), 3)


def same(a, b) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


def positives(batches, lists, epoch):
  """(candidate, job) of each list of an epoch, in order."""
  return [(int(b['candidate'][0]), int(b['job'][0, 0]))
          for b in (batches[i] for i in range(epoch * len(lists), (epoch + 1) * len(lists)))]


def test_positives_are_shuffled_by_the_seed_and_anew_in_each_epoch(lists):
  """Of the positives themselves: negatives would differ without any shuffle."""
  one, again, two = (list_dataset(lists, dict, 1, seed) for seed in (1, 1, 2))
  orders = [list(map(tuple, lists.positives.tolist())), positives(one, lists, 0),
            positives(one, lists, 1), positives(two, lists, 0)]
  assert positives(again, lists, 0) == orders[1]
  assert all(sorted(order) == sorted(orders[0]) for order in orders)
  for a, b in itertools.combinations(orders, 2):
    assert np.mean([x == y for x, y in zip(a, b)]) < 0.2


def test_the_order_follows_from_the_seed_alone(lists):
  batches = [list(itertools.islice(iterate(list_dataset(lists, dict, 4, seed), threads=threads), 5))
             for seed, threads in ((1, 1), (1, 4), (2, 1))]
  same(batches[0], batches[1])
  assert any((a[0]['job'] != b[0]['job']).any() for a, b in zip(batches[0], batches[2]))


def test_an_epoch_visits_every_positive_once(lists):
  batches = list_dataset(lists, dict, 1, 0)
  seen = [(int(b['candidate'][0]), int(b['job'][0, 0]))
          for b in (batches[i] for i in range(len(lists)))]
  assert sorted(seen) == sorted(map(tuple, lists.positives.tolist()))


def test_batches_of_one_list_iterate(lists):
  batches = list_dataset(lists, dict, 1, 0)
  same(next(iterate(batches, batches)), (batches[0], batches[0]))


def test_negatives_are_drawn_anew_in_each_epoch(lists):
  batches = list_dataset(lists, dict, 1, 0)
  epochs = [{tuple(np.sort(batches[i]['job'][0]).tolist()) for i in range(k, k + len(lists))}
            for k in (0, len(lists))]
  assert epochs[0] != epochs[1]


@pytest.mark.parametrize('processes', [2, 4])
def test_processes_hold_disjoint_parts_of_one_order(lists, processes):
  whole = list_dataset(lists, dict, 8, 5)
  parts = [list_dataset(lists, dict, 8, 5, p, processes) for p in range(processes)]
  for step in (0, 1, 7):
    for p, part in enumerate(parts):
      same(part[step], jax.tree.map(lambda x, p=p: x[p::processes], whole[step]))


def test_a_batch_that_does_not_divide_fails(lists):
  with pytest.raises(ValueError, match='batch must divide by 4 processes, got 6 lists'):
    list_dataset(lists, dict, 6, 0, 0, 4)


@pytest.mark.parametrize('start', [3, 40])  # within the first epoch, and in a later one
def test_an_iterator_that_starts_later_goes_on_in_the_same_order(lists, start):
  data = [list_dataset(lists, dict, 4, 0), list_dataset(lists, dict, 6, 1)]
  assert len(lists) < 40 * 4
  whole = list(itertools.islice(iterate(*data), start + 3))
  same(list(itertools.islice(iterate(*data, start=start), 3)), whole[start:])


def test_both_perspectives_come_zipped_with_static_shapes(dataset, blocks, lists):
  jobs = QualificationLists(dataset.interactions.of('train'), 2)
  data = iterate(list_dataset(lists, preference_finisher(blocks), 4, 0),
                 list_dataset(jobs, qualification_finisher(blocks), 2, 1))
  for preference, qualification in itertools.islice(data, 3):
    assert preference['candidate'].shape == (4, 40)
    assert preference['job'].shape == (4, 4, 24)
    assert preference['alignment'].shape == (4, 4, 16)
    assert preference['mask'].shape == (4, 4)
    assert qualification['candidate'].shape == (2, 3, 40)
    assert qualification['weight'].shape == qualification['mask'].shape == (2, 3)
