"""Many pairs at once say what `align` says of each."""

import dataclasses
import threading

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data import pairs
from jobrec_jax.data.pairs import PairAligner
from jobrec_jax.schema.align import (
  VERDICT_CODES,
  align,
  alignment_features,
  rule_score,
  verdict_codes,
)
from jobrec_jax.schema.comparators import (
  MET,
  TEXT,
  UNMET,
  AtLeast,
  Comparison,
  Semantic,
)
from jobrec_jax.schema.schema import PERSPECTIVES, AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.shipped import NURSING, STUDENTS
from tests.data.entities import entities


def one_field(comparator, kind='number') -> Schema:
  return Schema('one', (Attribute('has', kind),), (Attribute('needs', kind),), (
      Layer('only', (AlignedField('x', ('has',), 'needs', comparator, 'preference'),)),))


def people(*values) -> tuple[Entity, ...]:
  return tuple(Entity('c', {'has': v}) for v in values)


def works(*values) -> tuple[Entity, ...]:
  return tuple(Entity('j', {'needs': v}) for v in values)


def every_pair(candidates, jobs) -> tuple[np.ndarray, np.ndarray]:
  u, j = np.mgrid[:len(candidates), :len(jobs)].reshape(2, -1)
  return u, j


def check(aligner, schema, candidates, jobs, u, j) -> None:
  """Every array is, bit for bit, what the pairs say one by one."""
  found = aligner(u, j)
  one_by_one = [align(schema, candidates[a], jobs[b]) for a, b in zip(u, j)]
  judged = [[f for f in alignment.fields() if f.verdict] for alignment in one_by_one]
  assert found.fields == tuple(f.field for f in judged[0])
  assert found.verdict.dtype == np.int8 and found.margin.dtype == np.float32
  np.testing.assert_array_equal(
      found.verdict, [[VERDICT_CODES[f.verdict] for f in fields] for fields in judged])
  margins = [[f.comparison.margin or 0 for f in fields] for fields in judged]
  np.testing.assert_array_equal(found.margin, np.array(margins, np.float32))
  assert [[found.clauses[i] for i in row] for row in found.clause] == [
      [(n, f.in_words()) for n, f in enumerate(fields)] for fields in judged]
  assert len(set(found.clauses)) == len(found.clauses)
  features = np.stack([alignment_features(alignment) for alignment in one_by_one])
  assert found.features().dtype == features.dtype
  np.testing.assert_array_equal(found.features(), features)
  for perspective in PERSPECTIVES:
    assert found.rule_scores(perspective).tolist() == [
        rule_score(alignment, perspective) for alignment in one_by_one]
  assert found.verdict_codes().tolist() == [verdict_codes(a) for a in one_by_one]
  check_over_jobs(aligner, u, j, features)


def check_over_jobs(aligner, u, j, features):
  """One candidate with all jobs, by field, is what its pairs are."""
  for candidate in np.unique(u):
    fields = [values[row] for values, row in aligner.over_jobs(candidate)]
    mine = u == candidate
    for f, field in enumerate(fields):
      np.testing.assert_array_equal(field[j[mine]], features[mine, 4 * f:4 * f + 4])


@pytest.mark.parametrize('schema', [STUDENTS, NURSING], ids=lambda s: s.name)
@pytest.mark.parametrize('keys, kept', [(pairs._KEYS, pairs.KEPT), (3, 5)],
                         ids=['remembering', 'forgetting'])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_many_pairs_say_what_each_says(schema, keys, kept, data):
  candidates = data.draw(entities(schema, 'candidate'))
  jobs = data.draw(entities(schema, 'job'))
  u, j = every_pair(candidates, jobs)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pairs, '_KEYS', keys)  # so few that keys drive each other out
    patch.setattr(pairs, 'KEPT', kept)
    aligner = PairAligner(schema, candidates, jobs)
    check(aligner, schema, candidates, jobs, u, j)
    check(aligner, schema, candidates, jobs, u[::-2], j[::-2])
    check(PairAligner(schema, (), jobs).with_candidates(candidates), schema, candidates, jobs, u, j)


def test_a_market_says_what_its_pairs_say(dataset):
  aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
  u, j = every_pair(dataset.candidates, dataset.jobs)
  check(aligner, dataset.schema, dataset.candidates, dataset.jobs, u, j)


@dataclasses.dataclass(frozen=True)
class Counting:
  """AtLeast that notes what it compares."""

  seen: list = dataclasses.field(hash=False)

  def compare(self, candidate, job):
    self.seen.append((candidate[0], job))
    return AtLeast().compare(candidate, job)


def test_each_key_is_compared_once_however_many_pairs_have_it():
  seen = []
  aligner = PairAligner(one_field(Counting(seen)), people(1, 2, 1, 2, 1, None), works(3, 0, 3))
  rng = np.random.default_rng(0)
  for _ in range(3):
    aligner(rng.integers(0, 6, 200), rng.integers(0, 3, 200))
  assert len(seen) == 6 and set(seen) == {(c, j) for c in (1, 2, None) for j in (3, 0)}


def test_memory_has_a_bound(monkeypatch):
  """Of keys and of outcomes, though no two pairs here have the same."""
  monkeypatch.setattr(pairs, '_KEYS', 7)
  monkeypatch.setattr(pairs, 'KEPT', 20)
  numbers = [17.0 * n for n in range(40)]
  aligner = PairAligner(one_field(AtLeast()), people(*numbers), works(*[n / 3 for n in numbers]))
  u, j = every_pair(numbers, numbers)
  for start in range(0, len(u), 10):
    aligner(u[start:start + 10], j[start:start + 10])
    assert len(aligner._ids) <= 30 and len(aligner._key) == 7


def test_what_was_handed_out_keeps_its_meaning_when_all_is_forgotten(monkeypatch):
  monkeypatch.setattr(pairs, 'KEPT', 0)
  aligner = PairAligner(one_field(AtLeast()), people(1, 2), works(5))
  first = aligner(np.array([0]), np.array([0]))
  aligner(np.array([1]), np.array([0]))
  assert first.clauses[first.clause[0, 0]] == (0, 'x unmet by 4')


@dataclasses.dataclass(frozen=True)
class Truth:
  """Met by `True` alone."""

  def compare(self, candidate, job):
    return MET if candidate[0] is True else UNMET


def test_values_of_other_types_are_other_values():
  aligner = PairAligner(one_field(Truth()), people(1, True, 1.0), works(None))
  assert aligner(np.arange(3), np.zeros(3, int)).verdict[:, 0].tolist() == [1, 0, 1]


@dataclasses.dataclass(frozen=True)
class Picky:
  """Says nothing of 0, and cannot read words."""

  def compare(self, candidate, job):
    return TEXT if candidate[0] == 0 else Comparison('met', float(candidate[0]) + job)


def test_no_verdict_where_one_is_due_is_refused():
  aligner = PairAligner(one_field(Picky()), people(0), works(1))
  with pytest.raises(ValueError, match=r'x: verdict must be one of \(.met., .unmet., .unknown.\) '
                     'under any comparator but Semantic, got None'):
    aligner(np.zeros(1, int), np.zeros(1, int))


def test_an_error_leaves_nothing_half_done():
  """The pairs before it in the same call, and the same pairs again, say what they say alone."""
  candidates, jobs = people(3, 'word', 5), works(1, 2)
  schema = one_field(Picky())
  aligner = PairAligner(schema, candidates, jobs)
  u, j = every_pair(candidates, jobs)
  for _ in range(2):
    with pytest.raises(ValueError, match='could not convert'):
      aligner(u, j)
    check(aligner, schema, candidates, jobs, u[u != 1], j[u != 1])


def test_threads_share_an_aligner(dataset, monkeypatch):
  monkeypatch.setattr(pairs, '_KEYS', 5)
  monkeypatch.setattr(pairs, 'KEPT', 50)
  aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
  u, j = every_pair(dataset.candidates, dataset.jobs)
  expected = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)(u, j).features()
  wrong = []

  def work(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
      rows = rng.integers(0, len(u), 9)
      found = aligner(u[rows], j[rows])
      if (found.features() != expected[rows]).any():
        wrong.append(rows)
  threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not wrong


def test_texts_alone_have_no_fields():
  aligner = PairAligner(one_field(Semantic(), 'text'), people('a', 'b'), works('c'))
  found = aligner(np.arange(2), np.zeros(2, int))
  assert found.features().shape == (2, 0) and found.verdict_codes().shape == (2, 0)
  assert found.rule_scores('preference').tolist() == [0.5, 0.5]
  assert aligner.all_clauses() == []


def test_no_pairs_are_no_rows():
  found = PairAligner(STUDENTS, people(1), works(2))(*np.zeros((2, 0), int))
  assert found.features().shape == (0, 40) and found.rule_scores('preference').shape == (0,)


def test_all_clauses_are_those_of_all_pairs(dataset, monkeypatch):
  aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
  listed = aligner.all_clauses()
  found = aligner(*every_pair(dataset.candidates, dataset.jobs))
  assert sorted(listed) == sorted(found.clauses)
  monkeypatch.setattr(pairs, '_LISTED', 10)
  assert aligner.all_clauses() is None


def test_chunks_cover_every_pair_once(monkeypatch):
  monkeypatch.setattr(pairs, 'CHUNK', 4)
  assert [np.arange(9)[part].tolist() for part in pairs.chunks(9)] == [
      [0, 1, 2, 3], [4, 5, 6, 7], [8]]
  assert list(pairs.chunks(0)) == []
