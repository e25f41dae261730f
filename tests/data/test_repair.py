"""Negatives that several splits share stay in one of them, by a hash of their ids."""

import dataclasses

from hypothesis import given, settings, strategies as st
import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.repair import deal_shared_negatives, id_hash
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS

row = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-1, 1), st.integers(-1, 1),
                st.integers(0, 3))


def make_dataset(rows):
  rows = np.asarray(rows)
  log = Interactions(*rows[:, :2].T.astype(np.int32), *rows[:, 2:].T.astype(np.int8),
                     np.linspace(0.1, 1, len(rows), dtype=np.float32))
  return Dataset(STUDENTS, tuple(Entity(f'S{i}', {}) for i in range(4)),
                 tuple(Entity(f'J{i}', {}) for i in range(3)), log, ('read from a file',))


@settings(max_examples=150, deadline=None)
@given(st.lists(row, min_size=1, max_size=30, unique_by=lambda r: (r[0], r[1], r[4])),
       st.integers(0, 3))
def test_each_shared_negative_stays_where_its_hash_says(rows, seed):
  expected = []
  for i, (u, j, *labels, split) in enumerate(rows):
    kept = list(labels)
    for k in (0, 1):
      holders = sorted(r[4] for r in rows if r[:2] == (u, j) and r[2 + k] == 0)
      if labels[k] == 0 and holders[id_hash(seed, f'S{u}', f'J{j}') % len(holders)] != split:
        kept[k] = UNOBSERVED
    if kept == labels or max(kept) > UNOBSERVED:
      expected.append((u, j, *kept, split, i))
  dataset = make_dataset(rows)
  before = dataset.fingerprint()
  repaired = deal_shared_negatives(dataset, seed)
  log = repaired.interactions
  got = zip(*(getattr(log, f.name).tolist() for f in dataclasses.fields(log)))
  assert [(*e[:5], dataset.interactions.exposure[e[5]].item()) for e in expected] == list(got)
  assert log.preference.dtype == log.split.dtype == np.int8
  assert dataset.fingerprint() == before  # the given one is left alone
  again = deal_shared_negatives(repaired, seed)
  assert again.fingerprint() == repaired.fingerprint()


def test_notes_count_what_was_dealt():
  rows = [(u, j, 0, 1 if s else UNOBSERVED, s) for u in range(4) for j in range(3) for s in (0, 3)]
  repaired = deal_shared_negatives(make_dataset(rows))
  first, preference, qualification = repaired.notes
  assert first == 'read from a file'
  kept = [int((repaired.interactions.of(s).preference == 0).sum()) for s in ('train', 'test')]
  assert sum(kept) == 12 and min(kept) > 0
  assert preference == ('preference: 12 negatives that several splits held were dealt to one each '
                        f'(train {kept[0]}, test {kept[1]}); 12 labels dropped')
  assert qualification.startswith('qualification: 0 negatives')
  assert len(repaired.interactions.of('test')) == 12  # their verdicts keep those rows
  assert len(repaired.interactions.of('train')) == kept[0]


def test_shares_are_even_and_follow_the_seed():
  hashes = np.asarray([[id_hash(seed, f'S{i}', 'J1') % len(SPLITS) for i in range(400)]
                       for seed in (0, 1)])
  assert min(np.bincount(hashes[0], minlength=4)) > 60
  assert 0.15 < np.mean(hashes[0] == hashes[1]) < 0.35
  assert id_hash(0, 'a', 'bc') != id_hash(0, 'ab', 'c')
