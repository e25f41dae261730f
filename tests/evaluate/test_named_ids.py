"""Ids in texts: found as whole words whatever they look like, and judged against chance."""

import itertools
import re

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from scipy import stats

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.evaluate.named_ids import Told, named_ids
from jobrec_jax.schema.schema import Attribute, Entity, Schema

NOTES = Schema('notes', (Attribute('note', 'text'), Attribute('tags', 'set')),
               (Attribute('advert', 'text'),), ())


def world(notes, adverts, pairs, names=('S{}', 'J{}')):
  """Candidates with these notes, jobs with these adverts, and a log of these pairs."""
  u, j = np.array(pairs, np.int32).reshape(-1, 2).T
  log = Interactions(u, j, *np.zeros((3, len(u)), np.int8), np.ones(len(u), np.float32))
  return Dataset(NOTES, *(tuple(
      Entity(name.format(i), {key: text}) for i, text in enumerate(texts))
      for name, key, texts in zip(names, ('note', 'advert'), (notes, adverts))), log)


NAMED = ('J0001', 'job-12a', 'S-1-77', 'a1b', '123456', 'x:9/2', '12-34.56', 'É7 é', '2019', 'abc',
         'J1', 'data', '12', 'two words')


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([*NAMED, 'ordinary', '7', 'two']),
                          st.sampled_from(['', ' ', '-', '_', '.', 'x', '0', '/'])),
                min_size=1, max_size=6), st.sampled_from([NAMED, NAMED[:8]]))
def test_ids_are_found_as_whole_words(pieces, names):
  text = ''.join(itertools.chain(*pieces))
  jobs = tuple(Entity(name, {}) for name in names)
  data = world([text], [], [(0, i) for i in range(len(names))])
  expected = {n for n in names
              if re.search(rf'(?<!\w){re.escape(n.casefold())}(?!\w)', text.casefold())}
  found = named_ids(Dataset(NOTES, data.candidates, jobs, data.interactions))['candidate']
  assert found.records == bool(expected) == found.pair.count
  assert not expected or found.first.removeprefix('note of candidate S0 names job ') in expected


def test_a_text_that_tells_its_own_record_more_often_than_chance_leaks():
  notes = ['I am 7.'] * 10 + [f'My name is S{i}.' for i in range(10, 14)] + ['Quiet.'] * 86
  found = named_ids(world(notes, ['None.'], []))['candidate']
  assert found.own == Told(4, pytest.approx(0.04), pytest.approx(stats.binom.sf(3, 4, 0.01)))
  assert found.own.leaks and not found.pair.leaks and found.records == 4
  notes[11:14] = ['Quiet.'] * 3
  assert not named_ids(world(notes, ['None.'], []))['candidate'].own.leaks


def test_numbers_and_words_of_prose_are_no_leak():
  rng = np.random.default_rng(0)
  notes = [f'Since {rng.integers(200)} with {rng.integers(200)} others.' for _ in range(200)]
  pairs = rng.integers(0, (200, 50), (2000, 2))
  found = named_ids(world(notes, ['For 3 to 9 people.'] * 50, pairs, ('{}', '{}')))
  assert found['candidate'].records == 200 and found['job'].records == 50
  for side in found.values():
    assert not side.own.leaks and not side.pair.leaks
    assert abs(side.own.count - side.own.chance) < 5
  # Those who name the jobs that they meet do so, however common the number.
  told = [f'Since {j}.' for j in pairs[np.unique(pairs[:, 0], return_index=True)[1], 1]]
  found = named_ids(world(told, [''] * 50, pairs, ('C{}', '{}')))
  assert found['candidate'].pair.leaks and not found['candidate'].own.count


def test_a_pair_tells_in_both_directions_and_every_id_of_a_text_counts():
  pairs = [(i, i) for i in range(40)]
  adverts = [f'Wanted: S{i} or S{39 - i}.' for i in range(40)]
  found = named_ids(world(['Hello.'] * 40, adverts, pairs))['job']
  assert found.pair.count == 40 and found.pair.chance == pytest.approx(40 * 2 / 40)
  assert found.pair.leaks and found.records == 40
  mixed = [f'Wanted: S{(i + 1) % 40}.' for i in range(40)]
  found = named_ids(world(['Hello.'] * 40, mixed, pairs))['job']
  assert found.pair.count == 0 and found.pair.p_value == 1 and found.records == 40


def test_a_data_set_without_records():
  assert named_ids(world([], [], []))['job'].own == Told(0, 0.0, 1.0)
