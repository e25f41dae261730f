"""Batches of lists: their order, their shapes, and where a restored iterator goes on."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.data.training_lists import LabelledLists
from tests.conftest import LENGTHS


@pytest.fixture(scope='module')
def lists(dataset):
  return LabelledLists(dataset.interactions.of('train'), 'preference', 'candidate', 3)


def same(a, b) -> None:
  jax.tree.map(np.testing.assert_array_equal, a, b)


class Anchors:
  """Lists that say of which anchor they are."""

  def __init__(self, lists):
    self.anchors = lists.anchors

  def draw(self, anchor, rng):
    return {'anchor': anchor}


def anchors(batches, lists, epoch):
  """The anchor of each list of an epoch, in order."""
  return [int(batches[i]['anchor'][0])
          for i in range(epoch * len(lists), (epoch + 1) * len(lists))]


def test_anchors_are_shuffled_by_the_seed_and_anew_in_each_epoch(lists):
  """Of the anchors themselves: negatives would differ without any shuffle."""
  one, again, two = (list_dataset(Anchors(lists), dict, 1, seed) for seed in (1, 1, 2))
  orders = [lists.anchors.tolist(), anchors(one, lists, 0), anchors(one, lists, 1),
            anchors(two, lists, 0)]
  assert anchors(again, lists, 0) == orders[1]
  assert all(sorted(order) == sorted(orders[0]) for order in orders)
  for a, b in itertools.combinations(orders, 2):
    assert np.mean([x == y for x, y in zip(a, b)]) < 0.2


def test_the_order_follows_from_the_seed_alone(lists):
  batches = [list(itertools.islice(iterate(list_dataset(lists, dict, 4, seed), threads=threads), 5))
             for seed, threads in ((1, 1), (1, 4), (2, 1))]
  same(batches[0], batches[1])
  assert any((a[0]['job'] != b[0]['job']).any() for a, b in zip(batches[0], batches[2]))


def test_an_epoch_visits_every_positive_once(lists, dataset):
  batches = list_dataset(lists, dict, 1, 0)
  seen = [(int(b['candidate'][0, 0]), int(b['job'][0, 0]))
          for b in (batches[i] for i in range(len(lists))) if b['label'][0]]
  log = dataset.interactions.of('train')
  applied = log.where(log.preference == 1)
  assert sorted(seen) == sorted(zip(applied.candidate.tolist(), applied.job.tolist()))


def test_batches_of_one_list_iterate(lists):
  batches = list_dataset(lists, dict, 1, 0)
  same(next(iterate(batches, batches)), (batches[0], batches[0]))


def test_negatives_are_drawn_anew_in_each_epoch(lists):
  batches = list_dataset(lists, dict, 1, 0)
  epochs = [{tuple(np.sort(batches[i]['job'][0]).tolist()) for i in range(k, k + len(lists))}
            for k in (0, len(lists))]
  assert epochs[0] != epochs[1]


@pytest.mark.parametrize('rows', [[0, 1, 2, 3], [4, 5, 6, 7], [2, 3, 6, 7]], ids=str)
def test_a_process_makes_its_rows_of_the_same_batches(lists, rows):
  """Negatives among them: each list is drawn as it is for whoever makes all."""
  whole, part = list_dataset(lists, dict, 8, 5), list_dataset(lists, dict, 8, 5, np.array(rows))
  for step in (0, 1, 2 * len(lists) // 8 + 1):  # the last in a later epoch
    same(part[step], jax.tree.map(lambda x: x[np.array(rows)], whole[step]))
  same(next(iterate(part, start=7)), (part[7],))


@pytest.mark.parametrize('start', [3, 40])  # within the first epoch, and in a later one
def test_an_iterator_that_starts_later_goes_on_in_the_same_order(lists, start):
  data = [list_dataset(lists, dict, 4, 0), list_dataset(lists, dict, 6, 1)]
  assert len(lists) < 40 * 4
  whole = list(itertools.islice(iterate(*data), start + 3))
  same(list(itertools.islice(iterate(*data, start=start), 3)), whole[start:])


def test_lists_around_both_sides_come_zipped_with_static_shapes(dataset, blocks, lists):
  jobs = LabelledLists(dataset.interactions.of('train'), 'qualification', 'job', 2)
  data = iterate(list_dataset(lists, finisher(blocks, 'candidate'), 4, 0),
                 list_dataset(jobs, finisher(blocks, 'job'), 2, 1),
                 list_dataset(jobs, finisher(blocks, 'job', shared=True), 2, 1))
  sizes = {'candidate': 40, 'job': 24, 'alignment': 16}
  for by_candidate, by_job, shared in itertools.islice(data, 3):
    for batch, B, n, once in ((by_candidate, 4, 4, 'candidate'), (by_job, 2, 3, None),
                              (shared, 2, 3, 'job')):
      assert {k: x.shape for k, x in batch.items()} == {
          k: (B, L) if k == once else (B, n, L) for k, L in sizes.items()} | {
              'mask': (B, n), 'weight': (B, n), 'label': (B,)}
      assert batch['label'].dtype == batch['mask'].dtype == bool
    np.testing.assert_array_equal(by_job['job'][:, 1], shared['job'])


@pytest.mark.parametrize('centre', ['candidate', 'job'])
def test_a_finished_list_holds_what_was_drawn(dataset, tokenizer, blocks, centre):
  """Blocks of the pairs, their numbers where the format has them; the rest as it was."""
  counted = BlockEncoder(dataset, tokenizer, dataclasses.replace(LENGTHS, numbers=True))
  source = LabelledLists(dataset.interactions.of('train'), 'qualification', centre, 2)
  anchor = source.anchors[0]
  drawn = source.draw(anchor, np.random.default_rng(3))
  found = finisher(counted, centre)(drawn)
  u, j = drawn['candidate'], drawn['job']
  expected = {'candidate': blocks.candidates[u if centre == 'job' else u[0]],
              'job': blocks.jobs[j], 'alignment': blocks.alignments(u, j),
              'numbers': counted.numbers(u, j)}
  same(found, expected | {k: drawn[k] for k in ('mask', 'weight', 'label')})
  assert 'numbers' not in finisher(blocks, centre)(drawn)
