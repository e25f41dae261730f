"""What may be said of a pair, and how what was said is read."""

import re

import numpy as np
import pytest

from jobrec_jax.generate.claims import MOST, clauses, pattern, pieces, read, reason, sayable, spans
from jobrec_jax.schema.schema import PERSPECTIVES, Entity
from jobrec_jax.schema.shipped import STUDENTS

CANDIDATE = Entity('S1', {
    'academic_level': 'UG3', 'undergrad_major': 'Economics', 'masters_major': 'None',
    'second_major': 'None', 'gpa': 3.0, 'skills': ('parsing', 'speech'), 'hours_per_week': 10,
    'in_person_commitment': 'Online', 'interests': ('NLP',),
    'student_llm_output': 'I look for: A quiet library. Not "talks"! My own agenda.',
    'proj_1': 'Project on parsing, met its goals.'})
JOB = Entity('J1', {
    'min_academic_level': 'UG1', 'acceptable_majors': ('Statistics',), 'min_gpa': 3.4,
    'required_skills': ('parsing', 'speech', 'dialogue'), 'min_hours_per_week': 8,
    'job_in_person_commitment': 'In Person', 'industry': 'NLP',
    'job_llm_output': 'Months of study.'})
WANTED, FIT = (sayable(STUDENTS, CANDIDATE, JOB, p) for p in PERSPECTIVES)


def drawn(said, rng):
  """Claims of some fields, in the order in which they are said."""
  some = rng.choice(len(said), rng.integers(1, min(MOST, len(said)) + 1), replace=False)
  return [said[i].claim(str(rng.choice(('for', 'against'))), [
      str(rng.choice(s)) for s in said[i].quotes]) for i in sorted(some)]


def test_what_is_known_can_be_said_in_the_words_of_prompts_and_text_is_quoted():
  assert {s.field: s.words or s.quotes for s in FIT} == {
      'projects': (('Project on parsing, met its goals',),),
      'story': (('A quiet library', 'My own agenda'),), 'level': 'level met by 2 levels',
      'major': 'major unmet', 'gpa': 'gpa unmet by 0.4', 'skills': 'skills met (2 of 3)',
      'hours': 'hours met by 2 hours', 'mode': 'mode unmet'}  # months, papers, terms: unknown
  assert [s.field for s in WANTED] == ['projects', 'story', 'skills', 'mode', 'industry']
  assert WANTED[1].quotes == (('A quiet library', 'My own agenda'), ('Months of study',))
  assert WANTED[1].claim('for', ['My own agenda', 'Months of study']) == (
      'story for ("My own agenda" with "Months of study")')


@pytest.mark.parametrize('said', [WANTED, FIT], ids=PERSPECTIVES)
def test_every_reason_of_the_language_is_read_back_as_true_claims(said):
  language, rng = re.compile(pattern(said)), np.random.default_rng(0)
  for _ in range(200):
    claims = drawn(said, rng)
    text = reason(claims)
    assert language.fullmatch(text)
    found = read(text, STUDENTS, said)
    assert [c.words for c in found] == claims
    assert all(c.true and c.field and not c.contradicts for c in found)
    assert {text[i:i + 3] for i in range(len(text) - 2)} <= {
        p[i:i + 3] for p in pieces(said) for i in range(len(p) - 2)}


@pytest.mark.parametrize('text', [
    '', ' ', 'mode unmet', ' mode unmet,', ' mode unmet, ', ' mode unmet,gpa unmet by 0.4',
    '  mode unmet', ' mode  unmet', ' mode unmet, mode unmet', ' mode unmet, skills met (2 of 3)',
    ' mode met', ' gpa unmet by 0.3', ' gpa unmet', ' months met', ' story for ("My agenda")',
    ' story for ("A quiet library" with "Months of study")',
    ' level met by 2 levels, major unmet, gpa unmet by 0.4, mode unmet'])
def test_nothing_else_is_of_the_language(text):
  """No optional white space, no field twice or out of order, nothing untrue, no fourth claim."""
  assert not re.fullmatch(pattern(FIT), text)


def test_what_anything_wrote_is_judged_claim_by_claim():
  found = read('gpa met by 0.4, mode unmet, story for ("A loud library"), months met, hello, '
               'story against ("My own agenda"), skills met (2 of 3', STUDENTS, FIT)
  assert [(c.field, c.side, c.true, c.contradicts) for c in found] == [
      ('gpa', '', False, True), ('mode', '', True, False), ('story', 'for', False, False),
      ('months', '', False, False), ('', '', False, False), ('story', 'against', True, False),
      ('skills', '', False, False)]


def test_clauses_part_at_commas_outside_quotes_and_brackets():
  assert clauses(' a (b, c), d ("e, (f"), ,g') == ['a (b, c)', 'd ("e, (f")', 'g']


def test_spans_are_letters_of_the_text():
  text = 'Here: ' + 'word ' * 30 + '. Short one. Short one! A "quoted" one.\nLast'
  found = spans([text, None, 'Short one.'])
  assert [len(s) for s in found] == [79, 9, 4] and all(s in text for s in found)
  assert found[1:] == ('Short one', 'Last')
  assert not sayable(STUDENTS, Entity('a', {}), Entity('b', {}), 'preference')
  assert pattern(()) == ''
