"""Records and alignments as the text of a prompt."""

import csv
import re

from hypothesis import given, strategies as st
import pytest

from jobrec_jax.schema.align import FieldAlignment, align
from jobrec_jax.schema.comparators import AtLeast, Comparison, Contains, Semantic
from jobrec_jax.schema.render import (
    LAYOUTS,
    is_missing,
    render_alignment,
    render_entity,
    rendered_attributes,
)
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.shipped import STUDENTS
from jobrec_jax.schema.words import quoted
from tests.data.entities import entities

SIDES = ('candidate', 'job')
TOY = Schema(
    'toy',
    candidate=(Attribute('story', 'text', words='narrative'), Attribute('likes', 'set'),
               Attribute('gpa', 'number'), Attribute('summer', 'boolean'),
               Attribute('secret', 'text', rendered=False)),
    job=(Attribute('field', 'category'), Attribute('about', 'text', words='narrative'),
         Attribute('min_gpa', 'number', words='gpa')),
    layers=(
        Layer('eligibility', (
            AlignedField('gpa', ('gpa',), 'min_gpa', AtLeast(), 'qualification'),), hard=True),
        Layer('interest', (
            AlignedField('field', ('likes',), 'field', Contains(), 'preference'),)),
        Layer('narrative', (
            AlignedField('story', ('story', 'secret'), 'about', Semantic(), 'both'),))))
CANDIDATE = Entity('c-17', {'gpa': 3.0, 'likes': ('CV', 'NLP'), 'summer': True,
                            'story': 'Builds robots.', 'secret': 'hidden words'})
JOB = Entity('j-42', {'min_gpa': 3.25, 'field': 'CV', 'about': 'We grade robots.'})


def test_blocks_in_full():
  assert render_entity(TOY, 'candidate', CANDIDATE) == (
      'candidate; eligibility: gpa 3; interest: likes CV, NLP; narrative: Builds robots.; '
      'other: summer yes')
  assert render_entity(TOY, 'job', JOB) == (
      'job; eligibility: gpa 3.25; interest: field CV; narrative: We grade robots.')
  assert render_alignment(align(TOY, CANDIDATE, JOB)) == (
      'alignment; eligibility: gpa unmet by 0.25; interest: field met')


def test_raw_text_is_a_flat_list_in_the_sides_own_order():
  assert render_entity(TOY, 'candidate', CANDIDATE, 'raw') == (
      'candidate; Builds robots., likes CV, NLP, gpa 3, summer yes')
  assert render_entity(TOY, 'job', JOB, 'raw') == 'job; field CV, We grade robots., gpa 3.25'


def test_text_without_a_layer_leaves_out_what_the_layer_alone_uses():
  left = TOY.without(('narrative', 'eligibility'))
  assert render_entity(left, 'candidate', CANDIDATE) == (
      'candidate; interest: likes CV, NLP; other: summer yes')
  assert render_entity(left, 'candidate', CANDIDATE, 'raw') == (
      'candidate; likes CV, NLP, summer yes')
  assert render_entity(left, 'job', JOB) == 'job; interest: field CV'
  assert render_alignment(align(left, CANDIDATE, JOB)) == 'alignment; interest: field met'


def layer_order(schema, block):
  names = [layer.name for layer in schema.layers] + ['other']
  return [n for n in re.findall(r'; (\w+):', block) if n in names]


def full(schema, side):
  """A record with a value of every attribute."""
  plain = {'number': 2.5, 'integer': 3, 'boolean': True, 'text': 'Some prose.'}
  return Entity('x', {a.name: plain.get(a.kind) or (
      ('one', 'two') if a.kind == 'set' else (a.values or ('word',))[0])
      for a in schema.attributes(side)})


@pytest.mark.parametrize('schema', [TOY, STUDENTS], ids=lambda s: s.name)
def test_sides_and_verdicts_follow_the_layers_of_the_schema(schema):
  names = [layer.name for layer in schema.layers] + ['other']
  candidate, job = (full(schema, side) for side in SIDES)
  blocks = [render_entity(schema, 'candidate', candidate), render_entity(schema, 'job', job),
            render_alignment(align(schema, candidate, job))]
  for block in blocks:
    order = layer_order(schema, block)
    assert len(order) >= 2
    assert order == sorted(order, key=names.index) and len(set(order)) == len(order)


@pytest.mark.parametrize('schema', [TOY, STUDENTS], ids=lambda s: s.name)
@pytest.mark.parametrize('side', SIDES)
def test_each_rendered_attribute_appears_once_and_missing_ones_take_no_room(schema, side):
  whole = full(schema, side)
  block = render_entity(schema, side, whole)
  rendered = [a for a in schema.attributes(side) if a.rendered]
  assert rendered_attributes(schema, side, 'raw') == rendered
  for a in rendered:
    said = 'Some prose.' if a.kind == 'text' else f'{a.label} '
    assert len(re.findall(rf'(: |, ){re.escape(said)}', block)) >= 1
    for nothing in (None, ' \n') if a.kind in ('text', 'category') else (None,):
      less = render_entity(schema, side, Entity('x', whole.attributes | {a.name: nothing}))
      assert block.count(said) == less.count(said) + 1 and len(less) <= len(block) - len(said)
      assert 'unknown' not in less and ', ,' not in less and ': ,' not in less
  for layout in LAYOUTS:
    assert render_entity(schema, side, Entity('x', {}), layout) == side
  assert sorted(a.name for a in rendered_attributes(schema, side)) == sorted(
      a.name for a in rendered)


def test_a_layer_without_any_value_is_left_out():
  assert render_entity(TOY, 'candidate', Entity('c', {'likes': ('CV',), 'story': ''})) == (
      'candidate; interest: likes CV')
  assert render_entity(TOY, 'candidate', Entity('c', {'summer': False, 'likes': None}), 'raw') == (
      'candidate; summer no')


def test_what_holds_a_separator_is_quoted():
  values = {'likes': ('C, C++', 'the "one"', 'x; y', 'plain'), 'gpa': 3,
            'story': 'First  this;\n then, "that".'}
  assert render_entity(TOY, 'candidate', Entity('c', values)) == (
      'candidate; eligibility: gpa 3; interest: likes "C, C++", "the ""one""", "x; y", plain; '
      'narrative: "First this; then, ""that""."')
  assert render_entity(TOY, 'job', Entity('j', {'field': 'Arts,\ncrafts', 'about': 'a, b'})) == (
      'job; interest: field "Arts, crafts"; narrative: a, b')
  major = Comparison('met', None, 'a; b')
  assert FieldAlignment(TOY.fields[1], major).in_words() == 'field met ("a; b")'


@given(st.data())
def test_no_value_breaks_the_layers(data):
  (entity,) = data.draw(entities(TOY, 'candidate', 1))
  block = render_entity(TOY, 'candidate', entity)
  assert block == ' '.join(block.split())
  parts = re.sub('"[^"]*"', 'QUOTED', block).split('; ')  # of doubled quotes, one behind another
  assert parts[0] == 'candidate' and '"' not in ''.join(parts)
  used = {'eligibility': ['gpa'], 'interest': ['likes'], 'narrative': ['story'],
          'other': ['summer']}
  assert [p.split(': ')[0] for p in parts[1:]] == [
      layer for layer, names in used.items() if not all(is_missing(entity[n]) for n in names)]


@given(st.lists(st.text(max_size=6).filter(lambda t: not set(t) & set('\r\n')), min_size=1))
def test_members_are_told_apart_again(members):
  """As the csv module reads them, with white space as it is rendered."""
  text = ', '.join(map(quoted, members))
  assert next(csv.reader([text], skipinitialspace=True)) == [' '.join(m.split()) for m in members]


@given(st.text('0123456789abcdef', min_size=8, max_size=16))
def test_no_id_enters_the_text(name):
  candidate, job = (Entity(name, e.attributes) for e in (CANDIDATE, JOB))
  same = [render_entity(TOY, 'candidate', candidate), render_entity(TOY, 'job', job),
          render_alignment(align(TOY, candidate, job))]
  assert same == [render_entity(TOY, 'candidate', CANDIDATE), render_entity(TOY, 'job', JOB),
                  render_alignment(align(TOY, CANDIDATE, JOB))]
  assert not any(name in text for text in same)


def test_what_is_not_rendered_does_not_appear():
  assert 'hidden' not in render_entity(TOY, 'candidate', CANDIDATE)


def test_values_in_words():
  values = {'gpa': 0.1 + 0.2, 'likes': (), 'summer': False}
  assert render_entity(TOY, 'candidate', Entity('c', values)) == (
      'candidate; eligibility: gpa 0.3; interest: likes none; other: summer no')


def test_symbols_are_the_verdicts_in_the_schemas_order(dataset):
  alignment = align(dataset.schema, dataset.candidates[3], dataset.jobs[2])
  verdicts = [f.verdict for f in alignment.fields() if f.verdict]
  text = render_alignment(alignment, 'symbols')
  assert text == ''.join({'met': ' +', 'unmet': ' -', 'unknown': ' ?'}[v] for v in verdicts)
