"""What a ranking says in words: what is missing by name, which requirement is unmet."""

import pytest

from jobrec_jax.schema.document import parse_schema, schema_document
from jobrec_jax.schema.explain import missing, reasons, unmet_requirements
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.words import printable

FARM = {
    'name': 'farm', 'title': 'post',
    'candidate': {'crops': {'kind': 'set'}, 'licence': {'kind': 'category'},
                  'second': {'kind': 'category'}, 'days': {'kind': 'integer'},
                  'notes': {'kind': 'text', 'rendered': False}},
    'job': {'post': {'kind': 'text'}, 'grows': {'kind': 'set'}, 'crop': {'kind': 'category'},
            'licences': {'kind': 'set'}, 'min_days': {'kind': 'integer'}},
    'layers': {
        'land': {'crops': {'candidate': 'crops', 'job': 'grows', 'compare': 'covers',
                           'needed': 0.5, 'perspective': 'qualification'},
                 'wishes': {'candidate': 'crops', 'job': 'grows', 'compare': 'covers',
                            'of': 'candidate', 'perspective': 'preference'},
                 'crop': {'candidate': 'crops', 'job': 'crop', 'compare': 'contains',
                          'perspective': 'preference', 'hard': True}},
        'papers': {'hard': True,
                   'licence': {'candidate': ['licence', 'second'], 'job': 'licences',
                               'compare': 'any_of', 'perspective': 'qualification'},
                   'days': {'candidate': 'days', 'job': 'min_days', 'compare': 'at_least',
                            'perspective': 'both', 'against': 'qualification'}}}}
SCHEMA = parse_schema(FARM, 'farm')
CANDIDATE = Entity('c', {'crops': ('Rye', 'oats'), 'licence': 'B', 'second': 'None', 'days': 2})
JOB = Entity('j', {'grows': ('barley', 'OATS', 'wheat'), 'crop': 'hops', 'licences': ('C', 'T'),
                   'min_days': 4})


def test_words_that_are_missing_are_named_as_they_are_written():
  assert reasons(SCHEMA, CANDIDATE, JOB) == {
      'land': ['crops unmet (1 of 3; missing: barley, wheat)',
               'wishes met (1 of 2; missing: Rye)', 'crop unmet (missing: hops)'],
      'papers': ['licence unmet (missing: C, T)', 'days unmet by 2']}
  full = Entity('c', {'crops': ('wheat', 'barley', 'oats', 'hops'), 'licence': 't'})
  assert reasons(SCHEMA, full, JOB)['land'] == [
      'crops met (3 of 3)', 'wishes met (3 of 4; missing: hops)', 'crop met']
  assert reasons(SCHEMA, Entity('c', {}), JOB)['papers'] == ['licence unknown', 'days unknown']


def test_requirements_are_hard_fields_that_speak_for_qualification():
  """`crop` is hard and speaks for preference; an unmet `days` speaks for qualification."""
  assert unmet_requirements(SCHEMA, CANDIDATE, JOB) == ['licence']
  assert unmet_requirements(SCHEMA, Entity('c', {}), JOB) == []


def test_what_is_missing_is_what_prompts_would_show():
  assert missing(SCHEMA, CANDIDATE) == []
  assert missing(SCHEMA, Entity('c', {'crops': (), 'days': 0})) == ['licence', 'second']


def test_a_document_keeps_the_title():
  assert schema_document(SCHEMA)['title'] == 'post'
  assert parse_schema(schema_document(SCHEMA), 'again') == SCHEMA
  assert 'title' not in schema_document(parse_schema(
      {k: v for k, v in FARM.items() if k != 'title'}, 'farm'))
  with pytest.raises(ValueError, match=r"^farm: .*title must .*\['post', 'crop'\], got 'grows'"):
    parse_schema(FARM | {'title': 'grows'}, 'farm')


@pytest.mark.parametrize('text, shown', [
    ('Zoë Łuk 猫 \U0001f600', 'Zoë Łuk 猫 \U0001f600'), ('a\tb\r\n', r'a\tb\r\n'),
    ('\x1b]0;x\x07', r'\x1b]0;x\x07'), ('\x9b31m', r'\x9b31m'), ('a\u2028b', r'a\u2028b'),
    ('a\u202eb\u2066', r'a\u202eb\u2066')])
def test_a_terminal_is_shown_no_control_characters(text, shown):
  assert printable(text) == shown
  assert printable('a\nb\x1b', keep='\n') == 'a\nb\\x1b'
