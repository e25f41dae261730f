"""Words that meet none of the other side's, against plain loops."""

from hypothesis import given, strategies as st

from jobrec_jax.schema.comparators import AnyMemberOf, AtLeast, Contains, Same, SetCoverage
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.unmatched import (
    Unmatched,
    Word,
    fields_of_words,
    unmatched,
    unmatched_words,
    vocabulary,
)
from jobrec_jax.schema.words import fold
from tests.data.entities import entities

COOKS = Schema(
    'cooks',
    (Attribute('dishes', 'set'), Attribute('first', 'category'), Attribute('second', 'category'),
     Attribute('place', 'category'), Attribute('years', 'integer')),
    (Attribute('menu', 'set'), Attribute('kitchens', 'set'), Attribute('town', 'category'),
     Attribute('dish', 'category'), Attribute('min_years', 'integer')),
    (Layer('skill', (
        AlignedField('dishes', ('dishes',), 'menu', SetCoverage(), 'both'),
        AlignedField('kitchen', ('first', 'second'), 'kitchens', AnyMemberOf('none'), 'both'),
        AlignedField('years', ('years',), 'min_years', AtLeast(), 'both'))),
     Layer('wish', (
        AlignedField('town', ('place',), 'town', Same('anywhere'), 'both'),
        AlignedField('level', ('years',), 'min_years', Same(), 'both'),
        AlignedField('dish', ('dishes',), 'dish', Contains(), 'preference')))))
COOK = Entity('c', {'dishes': ('Coq au vin', 'pho', 'Ramen'), 'first': 'Thai', 'second': 'None',
                    'place': 'Anywhere', 'years': 3})
JOBS = (Entity('a', {'menu': ('RAMEN', 'pad thai'), 'kitchens': ('French', 'none'), 'town': 'Bern',
                     'dish': 'coq\u00a0au-vin', 'min_years': 4}),
        Entity('b', {'menu': ('pad-thai',), 'dish': 'ramen'}))


def test_words_of_a_candidate_that_no_job_has():
  expected = {'dishes': ('Coq au vin', 'pho'), 'kitchen': ('Thai',), 'dish': ('pho',)}
  assert unmatched(COOKS, COOK, JOBS) == expected
  assert unmatched(COOKS, COOK, vocabulary(COOKS, 'job', JOBS)) == expected
  assert unmatched(COOKS, Entity('c', {}), JOBS) == {}
  assert unmatched(COOKS, COOK, ()) == {
      'dishes': COOK['dishes'], 'kitchen': ('Thai',), 'dish': COOK['dishes']}


def test_fields_of_words_are_those_that_ask_for_the_same_word():
  assert [f.name for f in fields_of_words(COOKS)] == ['dishes', 'kitchen', 'town', 'dish']


def test_both_sides_are_counted_and_the_most_used_stand_first():
  cooks = (COOK, COOK, Entity('d', {'dishes': ('PHO', 'pho', 'Borscht', 'apple pie')}))
  found = {(u.field, u.side): u for u in unmatched_words(COOKS, cooks, JOBS)}
  assert found['dishes', 'candidate'] == Unmatched(
      'dishes', 'candidate',
      (Word('pho', 3), Word('Coq au vin', 2), Word('apple pie', 1), Word('Borscht', 1)), 5, 9)
  assert found['dishes', 'job'] == Unmatched('dishes', 'job', (Word('pad thai', 2),), 2, 3)
  assert found['town', 'candidate'] == Unmatched('town', 'candidate', (), 0, 0)
  assert found['town', 'job'].words == (Word('Bern', 1),)
  assert len(found) == 8


@given(st.data())
def test_each_word_is_told_by_plain_loops(data):
  cooks = data.draw(entities(COOKS, 'candidate', 3))
  jobs = data.draw(entities(COOKS, 'job', 3))

  def has(entity, name):
    return {fold(w) for w in (entity[name] or ()) if fold(w)}
  met = set().union(*(has(job, 'menu') for job in jobs))
  found = {(u.field, u.side): u for u in unmatched_words(COOKS, cooks, jobs)}
  alone = {fold(w.written): w.uses for w in found['dishes', 'candidate'].words}
  assert alone == {key: sum(key in has(c, 'dishes') for c in cooks)
                   for c in cooks for key in has(c, 'dishes') - met}
  for cook in cooks:
    own = unmatched(COOKS, cook, jobs).get('dishes', ())
    assert {fold(w) for w in own} == has(cook, 'dishes') - met
