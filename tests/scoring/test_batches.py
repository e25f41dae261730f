"""Lists lose no pair, batches waste little, and the thread that makes them ends."""

import threading

import numpy as np
import pytest

from jobrec_jax.scoring.batches import ahead, calls, ladder, lists_of
from jobrec_jax.sharding import MeshConfig, make_mesh


def test_lists_hold_one_candidate_each_and_every_pair_once():
  rng = np.random.default_rng(0)
  for longest in (1, 3, 20):
    candidate = np.sort(rng.integers(0, 9, rng.integers(0, 60)))
    start, length = lists_of(candidate, longest)
    rows = [np.arange(s, s + n) for s, n in zip(start, length)]
    np.testing.assert_array_equal(np.concatenate([np.zeros(0), *rows]), np.arange(len(candidate)))
    assert all(len(np.unique(candidate[r])) == 1 for r in rows)
    assert all(1 <= n <= longest for n in length)
    assert len(start) == sum(-(-n // longest) for n in np.bincount(candidate))


@pytest.mark.parametrize('sizes', [(16, 4, 1), (1,), (16, 8), (3, 1)])
def test_a_request_goes_into_batches_of_one_size(sizes):
  for lists in range(70):
    made = list(calls(lists, sizes))
    assert [at for at, _ in made] == np.cumsum([0, *(n for _, n in made)])[:-1].tolist()
    assert len({size for _, size in made}) == (lists > 0)
    slots = sum(size for _, size in made)
    if lists >= sizes[0]:  # many: full batches, the last filled up
      assert made[0][1] == sizes[0] and slots - lists < sizes[0]
    else:  # few waste less than half
      assert slots >= lists and (2 * lists > slots or sizes[-1] > 1 or not lists)


def test_sizes_divide_over_the_devices(one_device):
  assert ladder(16, one_device) == (16, 4, 1) and ladder(1, one_device) == (1,)
  assert ladder(6, make_mesh(MeshConfig())) == (8,)
  assert ladder(40, make_mesh(MeshConfig(fsdp=4))) == (40, 16, 8)


def test_the_host_works_ahead_and_no_further():
  made, before = [], threading.active_count()

  def items():
    for i in range(9):
      made.append(i)
      yield i
  taken = ahead(items(), 2)
  assert next(taken) == 0
  assert next(taken) == 1
  assert len(made) <= 4  # the two that were taken, and two ahead
  taken.close()
  assert threading.active_count() == before and len(made) <= 4
  assert list(ahead(items(), 3)) == list(range(9))


def test_what_the_iterator_raises_comes_at_its_place():
  def items():
    yield 1
    raise ValueError('no second')
  before, taken = threading.active_count(), ahead(items(), 2)
  assert next(taken) == 1
  with pytest.raises(ValueError, match='no second'):
    next(taken)
  assert threading.active_count() == before
