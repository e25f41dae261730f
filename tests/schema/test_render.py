"""Records and alignments as the text of a prompt."""

import re

from hypothesis import given, strategies as st
import pytest

from jobrec_jax.schema.align import align
from jobrec_jax.schema.comparators import AtLeast, Contains, Semantic
from jobrec_jax.schema.render import render_alignment, render_entity
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.shipped import STUDENTS

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


@pytest.mark.parametrize('schema', [TOY, STUDENTS], ids=lambda s: s.name)
def test_sides_and_verdicts_follow_the_layers_of_the_schema(schema):
  names = [layer.name for layer in schema.layers] + ['other']
  candidate, job = Entity('c', {}), Entity('j', {})
  blocks = [render_entity(schema, 'candidate', candidate), render_entity(schema, 'job', job),
            render_alignment(align(schema, candidate, job))]
  for block in blocks:
    order = layer_order(schema, block)
    assert len(order) >= 2
    assert order == sorted(order, key=names.index) and len(set(order)) == len(order)


@pytest.mark.parametrize('schema', [TOY, STUDENTS], ids=lambda s: s.name)
@pytest.mark.parametrize('side', SIDES)
def test_each_rendered_attribute_appears_once_and_missing_ones_are_unknown(schema, side):
  block = render_entity(schema, side, Entity('x', {}))
  rendered = [a for a in schema.attributes(side) if a.rendered]
  assert block.count(' unknown') == len(rendered)
  for a in rendered:
    assert len(re.findall(rf'(: |, ){re.escape(a.label)} unknown', block)) >= 1


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
      'candidate; eligibility: gpa 0.3; interest: likes none; narrative: narrative unknown; '
      'other: summer no')


def test_symbols_are_the_verdicts_in_the_schemas_order(dataset):
  alignment = align(dataset.schema, dataset.candidates[3], dataset.jobs[2])
  verdicts = [f.verdict for f in alignment.fields() if f.verdict]
  text = render_alignment(alignment, 'symbols')
  assert text == ''.join({'met': ' +', 'unmet': ' -', 'unknown': ' ?'}[v] for v in verdicts)
