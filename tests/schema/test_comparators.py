"""Comparators: margins agree with verdicts, are monotone, and know what is missing."""

from hypothesis import given, strategies as st
import pytest

from jobrec_jax.schema.comparators import (
  AnyMemberOf,
  AtLeast,
  Comparison,
  CompatibleMode,
  Contains,
  OrdinalAtLeast,
  Semantic,
  SetCoverage,
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
    CompatibleMode(): (st.sampled_from('ab'), st.sampled_from('ab')),
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
    assert c.verdict in ('met', 'unmet') or job == ()


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


def test_contains_and_compatible_mode():
  assert Contains().compare((('a', 'b'),), 'b').verdict == 'met'
  assert Contains().compare((('ab',),), 'b').verdict == 'unmet'
  assert Contains().compare(((),), 'b').verdict == 'unmet'
  mode = CompatibleMode(anything='any')
  assert [mode.compare((c,), j).verdict for c, j in
          [('x', 'x'), ('x', 'y'), ('any', 'y'), ('x', 'any')]] == ['met', 'unmet', 'met', 'met']


def test_semantic_has_no_verdict_even_when_texts_are_missing():
  assert Semantic().compare(('a', None), None) == Comparison(None)
