"""Comparators: margins agree with verdicts, are monotone, and know what is missing."""

from hypothesis import given, strategies as st
import pytest

from jobrec_jax.schema.comparators import (
  AnyMemberOf,
  AtLeast,
  AtMost,
  Comparison,
  Contains,
  Near,
  OrdinalAtLeast,
  Same,
  Semantic,
  SetCoverage,
  Within,
)

LEVELS = ('low', 'middle', 'high')
NUMBERS = st.floats(-1e4, 1e4) | st.integers(-10_000, 10_000)
WORDS = st.lists(st.sampled_from('abcdefgh'), max_size=8).map(tuple)
# A comparator beside strategies of a single present candidate value and of a present job value.
PRESENT = {
    AtLeast(): (NUMBERS, NUMBERS),
    OrdinalAtLeast(LEVELS): (st.sampled_from(LEVELS), st.sampled_from(LEVELS)),
    AnyMemberOf(): (st.sampled_from('abc'), WORDS),
    SetCoverage(): (WORDS, WORDS),
    SetCoverage(0.34): (WORDS, WORDS),
    Contains(): (WORDS, st.sampled_from('abc')),
    SetCoverage(0.5, 'candidate'): (WORDS, WORDS),
    SetCoverage(1, 'smaller'): (WORDS, WORDS),
    Same(): (st.sampled_from('ab'), st.sampled_from('ab')),
    AtMost(): (NUMBERS, NUMBERS),
    Within(2): (NUMBERS, NUMBERS),
    Near(5, (('a', 'b', 3), ('c', 'b', 9))): (st.sampled_from('ab'), st.sampled_from('bc')),
}


@pytest.mark.parametrize('comparator', PRESENT, ids=repr)
@given(data=st.data())
def test_missing_on_either_side_is_unknown(comparator, data):
  candidate, job = (data.draw(s) for s in PRESENT[comparator])
  for pair in ((None, job), (candidate, None), (None, None)):
    assert comparator.compare((pair[0],), pair[1]) == Comparison('unknown')


@pytest.mark.parametrize('comparator', PRESENT, ids=repr)
@given(data=st.data())
def test_margin_sign_agrees_with_the_verdict(comparator, data):
  candidate, job = (data.draw(s) for s in PRESENT[comparator])
  c = comparator.compare((candidate,), job)
  if c.margin is not None:
    assert c.verdict == ('met' if c.margin >= 0 else 'unmet')
    assert not str(c.margin).startswith('-0.0') or c.margin < 0
  else:
    assert c.verdict in ('met', 'unmet') or () in (candidate, job) or comparator.compare(
        (job,), candidate) == Comparison('unknown')


@given(NUMBERS, NUMBERS, NUMBERS)
def test_at_least_is_monotone_in_the_candidate_and_falls_in_the_job(a, b, job):
  lower, higher = sorted((a, b))
  first, second = (AtLeast().compare((v,), job) for v in (lower, higher))
  assert first.margin <= second.margin
  assert not (first.verdict == 'met' and second.verdict == 'unmet')
  stricter = AtLeast().compare((lower,), job + 1)
  assert stricter.margin < first.margin


@given(st.integers(0, 400), st.integers(0, 400))
def test_at_least_on_hundredths_equals_exact_arithmetic(value, needed):
  """0.1 + 0.2 never misses a requirement of 0.3."""
  c = AtLeast().compare((value / 100,), needed / 100)
  assert c.verdict == ('met' if value >= needed else 'unmet')
  assert round(c.margin * 100) == value - needed


@given(st.sampled_from(LEVELS), st.sampled_from(LEVELS), st.sampled_from(LEVELS))
def test_ordinal_is_monotone(a, b, job):
  lower, higher = sorted((a, b), key=LEVELS.index)
  first, second = (OrdinalAtLeast(LEVELS).compare((v,), job) for v in (lower, higher))
  assert first.margin <= second.margin
  assert first.margin == LEVELS.index(lower) - LEVELS.index(job)


def test_ordinal_does_not_guess_levels_it_does_not_know():
  assert OrdinalAtLeast(LEVELS).compare(('other',), 'low').verdict == 'unknown'
  assert OrdinalAtLeast(LEVELS).compare(('low',), 'other').verdict == 'unknown'


@given(WORDS, WORDS.filter(len), st.sampled_from('abcdefgh'))
def test_coverage_counts_distinct_words_and_grows_with_the_candidate(value, job, more):
  c = SetCoverage().compare((value,), job)
  shared, total = len({*value} & {*job}), len({*job})
  assert c.words == f'{shared} of {total}'
  assert c.verdict == ('met' if 2 * shared >= total else 'unmet')
  assert c.margin == pytest.approx(shared / total - 0.5, abs=1e-4)
  assert SetCoverage().compare(((*value, more),), job).margin >= c.margin


def test_coverage_of_nothing_required_is_unknown():
  assert SetCoverage().compare((('a',),), ()) == Comparison('unknown')


@pytest.mark.parametrize('candidate, job, expected', [
    (('a', 'None', 'None'), ('a', 'b'), Comparison('met', None, 'a')),
    (('z', 'b', 'a'), ('a', 'b'), Comparison('met', None, 'b')),
    (('z', 'None', 'None'), ('a',), Comparison('unmet')),
    (('None', 'None', 'None'), ('None', 'a'), Comparison('unmet')),
    (('z', None, 'None'), ('a',), Comparison('unknown')),   # The missing one might be 'a'.
    (('a', None, None), ('a',), Comparison('met', None, 'a')),
    ((None, None, None), ('a',), Comparison('unknown')),
    (('a', 'b', 'c'), None, Comparison('unknown')),
    (('a',), (), Comparison('unmet')),
])
def test_any_member_of(candidate, job, expected):
  assert AnyMemberOf().compare(candidate, job) == expected


def test_contains_and_same():
  assert Contains().compare((('a', 'b'),), 'b').verdict == 'met'
  assert Contains().compare((('ab',),), 'b').verdict == 'unmet'
  assert Contains().compare(((),), 'b').verdict == 'unmet'
  mode = Same(anything='any')
  assert [mode.compare((c,), j).verdict for c, j in
          [('x', 'x'), ('x', 'y'), ('any', 'y'), ('x', 'any')]] == ['met', 'unmet', 'met', 'met']


def test_semantic_has_no_verdict_even_when_texts_are_missing():
  assert Semantic().compare(('a', None), None) == Comparison(None)


def test_at_most_and_within_mirror_at_least():
  assert AtMost('km').compare((3,), 5) == Comparison('met', 2)
  assert AtMost().compare((5.5,), 5) == Comparison('unmet', -0.5)
  assert [Within(2).compare((x,), 10).margin for x in (8, 10, 12, 13)] == [0, 2, 0, -1]
  with pytest.raises(ValueError, match='within: by must be a number of at least 0, got -1'):
    Within(-1)


def test_same_compares_what_is_not_text_too_and_has_no_joker_of_its_own():
  assert [Same().compare((c,), j).verdict for c, j in
          [(True, True), (True, False), (3, 3), ('No Preference', 'x')]] == [
              'met', 'unmet', 'met', 'unmet']


def test_coverage_counts_whose_set_it_is_asked_for():
  has, needs = ('a', 'b', 'c', 'd'), ('a', 'x')
  assert SetCoverage(0.5, 'job').compare((has,), needs) == Comparison('met', 0, '1 of 2')
  assert SetCoverage(0.5, 'candidate').compare((has,), needs) == Comparison('unmet', -0.25,
                                                                            '1 of 4')
  assert SetCoverage(0.5, 'smaller').compare((needs,), has) == Comparison('met', 0, '1 of 2')
  assert SetCoverage(0.5, 'candidate').compare(((),), needs) == Comparison('unknown')
  for bad, message in (((1.5,), r'needed must lie in \[0, 1\], got 1.5'),
                       ((0.5, 'both'), "of must be one of .* got 'both'")):
    with pytest.raises(ValueError, match=message):
      SetCoverage(*bad)


def test_near_knows_the_distances_that_it_is_given_either_way_round():
  near = Near(30, (('Bonn', 'Köln', 25), ('Bonn', 'Essen', 90)), 'km')
  found = [near.compare((c,), j) for c, j in [
      ('Köln', 'bonn'), ('Essen', 'Bonn'), ('Essen', 'Essen'), ('Essen', 'Köln')]]
  assert found == [Comparison('met', 5), Comparison('unmet', -60), Comparison('met', 30),
                   Comparison('unknown')]
  with pytest.raises(ValueError, match="a pair must have one distance, got 'a' and 'b' twice"):
    Near(1, (('a', 'b', 1), ('b', 'A', 2)))
  with pytest.raises(ValueError, match=r"distances must be triples of .*, got 'km.csv'"):
    Near(1, ('km.csv',))
  with pytest.raises(ValueError, match="distances must be numbers of at least 0, got -1"):
    Near(1, (('a', 'b', -1),))


@pytest.mark.parametrize('written', ['machine learning', 'Machine\u00a0Learning',
                                     ' MACHINE  learning ', 'machine-learning',
                                     'machine\u2013learning', '\uff4dachine learning'])
def test_spellings_of_a_word_are_equal_wherever_words_are_compared(written):
  word = 'machine learning'
  for comparator, candidate, job in (
      (SetCoverage(1), (written, 'c++'), (word, 'C++')), (Contains(), (written,), word),
      (AnyMemberOf(), written, (word, 'x')), (Same(), written, word),
      (Near(0, ()), written, word)):
    assert comparator.compare((candidate,), job).verdict == 'met', comparator
    assert comparator.compare((candidate,), ('y', 'z') if isinstance(job, tuple) else 'y'
                              ).verdict != 'met', comparator
