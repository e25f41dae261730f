"""The alignment schema: what it refuses, and its fingerprint."""

import dataclasses

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.schema.comparators import AtLeast, SetCoverage
from jobrec_jax.schema.render import render_entity
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.shipped import STUDENTS
from jobrec_jax.schema.words import fold

CANDIDATE = (Attribute('gpa', 'number', low=0, high=4, required=True), Attribute('skills', 'set'))
JOB = (Attribute('min_gpa', 'number', low=0, high=4), Attribute('needs', 'set'))
GPA = AlignedField('gpa', ('gpa',), 'min_gpa', AtLeast(), 'qualification')
SKILLS = AlignedField('skills', ('skills',), 'needs', SetCoverage(), 'both')
LAYERS = (Layer('eligibility', (GPA,), hard=True), Layer('competence', (SKILLS,)))
TOY = Schema('toy', CANDIDATE, JOB, LAYERS)


def test_layers_left_out_take_along_what_they_alone_use():
  left = STUDENTS.without(('narrative',))
  assert left.layers == STUDENTS.layers[:4]
  for side in ('candidate', 'job'):
    hidden = {a.name for a, b in zip(STUDENTS.attributes(side), left.attributes(side)) if a != b}
    # The job's narrative stays: the layer 'competence' compares projects with it.
    assert hidden == ({'student_llm_output', 'extrac_1', 'extrac_2'} if side == 'candidate' else
                      set())
    assert not any(a.rendered for a in left.attributes(side) if a.name in hidden)
    assert [a.name for a in left.attributes(side)] == [a.name for a in STUDENTS.attributes(side)]
  assert STUDENTS.without(()) is STUDENTS


@pytest.mark.parametrize('names', [('needs',), ('competence', 'x'), ('eligibility', 'competence')])
def test_layers_that_cannot_be_left_out(names):
  with pytest.raises(ValueError, match='tokenizer.without_layers must be some and not all of '
                                       r".*'eligibility', 'competence'.* got .*" + names[-1]):
    TOY.without(names)


@pytest.mark.parametrize('attribute, value, problem', [
    (Attribute('a', 'number', low=0, high=4), 4, None),
    (Attribute('a', 'number', low=0, high=4), 4.01, r'lie in \[0, 4\], got 4.01'),
    (Attribute('a', 'number', low=0), -1.0, r'lie in \[0, inf\], got -1'),
    (Attribute('a', 'number', high=4), 5, r'lie in \[-inf, 4\], got 5'),
    (Attribute('a', 'number', low=0, high=4), float('nan'), 'must be a number, got nan'),
    (Attribute('a', 'number'), float('nan'), 'must be a number, got nan'),
    (Attribute('a', 'number'), '3', "must be a number, got '3'"),
    (Attribute('a', 'number'), True, 'must be a number, got True'),
    (Attribute('a', 'integer', low=0), 3, None),
    (Attribute('a', 'integer', low=0), 3.0, 'must be an integer'),
    (Attribute('a', 'integer'), False, 'must be an integer'),
    (Attribute('a', 'boolean'), False, None),
    (Attribute('a', 'boolean'), 0, 'must be a boolean'),
    (Attribute('a', 'category', ('x', 'y')), 'x', None),
    (Attribute('a', 'category', ('x', 'y')), 'z', "allows x, y; got 'z'"),
    (Attribute('a', 'category'), 'anything', None),
    (Attribute('a', 'set', ('x', 'y')), ('y', 'x'), None),
    (Attribute('a', 'set', ('x', 'y')), ('x', 'z', 'w'), "allows x, y; got 'z', 'w'"),
    (Attribute('a', 'set'), ['x'], 'must be a set'),
    (Attribute('a', 'set'), 'x', 'must be a set'),
    (Attribute('a', 'set'), (1,), 'must be a set of words'),
    (Attribute('a', 'text'), 'some words', None),
    (Attribute('a', 'text'), 5, 'must be a text'),
    (Attribute('a', 'text'), None, None),
    (Attribute('a', 'text', required=True), None, 'is required and missing'),
])
def test_attribute_problems_in_words(attribute, value, problem):
  found = attribute.problem(value)
  if problem is None:
    assert found is None
  else:
    with pytest.raises(ValueError, match=problem):
      raise ValueError(found)


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers())
def test_numbers_pass_exactly_inside_their_range(value):
  allowed = Attribute('a', 'number', low=-2, high=3.5).problem(value) is None
  assert allowed == bool(np.isfinite(float(value)) and -2 <= value <= 3.5)


def test_validate_returns_the_entity_or_names_place_id_and_attribute():
  good = Entity('c1', {'gpa': 3.0})
  assert TOY.validate('candidate', good) is good
  with pytest.raises(ValueError, match=r"people.csv:7: candidate 'c1': gpa must lie in \[0, 4\]"):
    TOY.validate('candidate', Entity('c1', {'gpa': 5.0}), 'people.csv:7')
  with pytest.raises(ValueError, match=r"^candidate 'c1': gpa is required and missing"):
    TOY.validate('candidate', Entity('c1', {}))
  with pytest.raises(ValueError, match=r"job 'j1' has unknown attributes \['gpa'\].*min_gpa"):
    TOY.validate('job', Entity('j1', {'gpa': 3.0}))


def test_absent_attributes_read_as_missing():
  assert Entity('c', {})['gpa'] is None


@pytest.mark.parametrize('change, message', [
    ({'candidate': (*CANDIDATE, CANDIDATE[0])}, 'candidate attribute is listed twice'),
    ({'job': (*JOB, Attribute('needs', 'set'))}, 'job attribute is listed twice'),
    ({'layers': (*LAYERS, Layer('more', (GPA,)))}, 'field name is used twice'),
    ({'layers': (*LAYERS, Layer('competence', ()))}, 'layer name is used twice'),
    ({'candidate': CANDIDATE[1:]}, r"field gpa: no candidate attribute named \['gpa'\].*skills"),
    ({'job': JOB[:1]}, r"field skills: no job attribute named \['needs'\].*min_gpa"),
])
def test_schema_refuses_tables_that_do_not_close(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(TOY, **change)


def test_names_and_ranges_that_no_attribute_has():
  for name in ('', ' ', 'id'):
    with pytest.raises(ValueError, match=rf"name must be one that is not empty .* got '{name}'"):
      Attribute(name, 'text')
  with pytest.raises(ValueError, match=r'attribute a: low must be at most high, got 3 and 2\.5'):
    Attribute('a', 'number', low=3, high=2.5)
  assert Attribute('a', 'number', low=3, high=3).problem(3) is None


def test_unknown_kinds_and_perspectives_are_refused():
  with pytest.raises(ValueError, match=r"attribute a: kind must be one of .*'set'.* got 'list'"):
    Attribute('a', 'list')
  with pytest.raises(ValueError, match=r"field gpa: perspective must be one of .* got 'taste'"):
    dataclasses.replace(GPA, perspective='taste')


def test_fingerprint_changes_with_every_part_of_the_table_and_with_nothing_else():
  replace = dataclasses.replace
  changed = [
      replace(TOY, name='other'),
      replace(TOY, candidate=(replace(CANDIDATE[0], high=5), CANDIDATE[1])),
      replace(TOY, job=(JOB[0], replace(JOB[1], words='skills'))),
      replace(TOY, job=JOB[::-1]),
      replace(TOY, layers=LAYERS[::-1]),
      replace(TOY, layers=(replace(LAYERS[0], hard=False), LAYERS[1])),
      replace(TOY, layers=(LAYERS[0], Layer('competence', (
          replace(SKILLS, comparator=SetCoverage(0.6)),)))),
      replace(TOY, layers=(LAYERS[0], Layer('competence', (
          replace(SKILLS, perspective='preference'),)))),
  ]
  fingerprints = [schema.fingerprint() for schema in (TOY, *changed)]
  assert len(set(fingerprints)) == len(fingerprints)
  assert Schema('toy', CANDIDATE, JOB, LAYERS).fingerprint() == fingerprints[0]


def test_the_title_of_a_job_is_what_people_know_it_by():
  text = (*JOB, Attribute('role', 'text'), Attribute('name', 'category'))
  named = dataclasses.replace(TOY, job=text, title='role')
  job = Entity('j1', {'role': 'Turner', 'name': 'shop 3'})
  assert named.title_of(job) == 'Turner' and named.title_of(Entity('j2', {})) == 'j2'
  by_name = dataclasses.replace(named, title='')
  assert by_name.title_of(job) == 'shop 3' and TOY.title_of(Entity('j1', {'min_gpa': 3.0})) == 'j1'
  assert named.fingerprint() == by_name.fingerprint()  # no model learns it
  for title in ('min_gpa', 'roel', 3):
    with pytest.raises(ValueError, match=rf"title must name a category .*'role', 'name'.*{title}"):
      dataclasses.replace(named, title=title)


def test_the_students_table_is_whole():
  assert [layer.name for layer in STUDENTS.layers] == [
      'eligibility', 'competence', 'logistics', 'interest', 'narrative']
  assert [layer.hard for layer in STUDENTS.layers] == [True, False, False, False, False]
  assert len(STUDENTS.fields) == 12
  assert {f.perspective for f in STUDENTS.layers[0].fields} == {'qualification'}


WORDS = st.text('abCD -\u00e9', min_size=1, max_size=4)


@given(st.lists(WORDS, min_size=1, max_size=5), st.randoms(), st.booleans())
@settings(deadline=None)
def test_order_and_repetition_of_a_set_change_nothing(members, random, closed):
  values = tuple({fold(m): m for m in members}.values()) if closed else ()
  schema = dataclasses.replace(TOY, candidate=(
      CANDIDATE[0], Attribute('skills', 'set', values)))
  again = members * 2
  random.shuffle(again)
  one, other = (schema.validate('candidate', Entity('c', {'gpa': 3.0, 'skills': tuple(m)}))
                for m in (members, again))
  assert {fold(m) for m in one['skills']} == {fold(m) for m in members}
  assert len({fold(m) for m in one['skills']}) == len(one['skills'])
  assert one == other
  assert render_entity(schema, 'candidate', one) == render_entity(schema, 'candidate', other)
