"""The alignment of a candidate and a job: verdicts, margins, words and features."""

import numpy as np
import pytest

from jobrec_jax.schema.align import align, alignment_features, rule_score
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS

CANDIDATE = Entity('c-17', {
    'academic_level': 'UG3', 'undergrad_major': 'Economics', 'masters_major': 'None',
    'second_major': 'Statistics', 'gpa': 3.1, 'months_experience': 4, 'num_publications': 0,
    'skills': ('python', 'sql', 'r'), 'proj_1': 'A forecast.', 'hours_per_week': 12,
    'length_of_commitment': 2, 'in_person_commitment': 'Online', 'interests': ('NLP', 'CV'),
    'student_llm_output': 'Likes language.'})
JOB = Entity('j-42', {
    'min_academic_level': 'MS1', 'acceptable_majors': ('Statistics', 'Applied Math'),
    'min_gpa': 3.5, 'min_months_experience': 3, 'required_skills': ('python', 'c++', 'sql', 'jax'),
    'min_hours_per_week': 15, 'min_length_of_commitment': 1,
    'job_in_person_commitment': 'No Preference', 'industry': 'Theory', 'job_llm_output': 'Proofs.'})
EXPECTED = {
    'level': ('unmet', -2, 'level unmet by 2 levels'),
    'major': ('met', None, 'major met (Statistics)'),
    'gpa': ('unmet', -0.4, 'gpa unmet by 0.4'),
    'months': ('met', 1, 'months met by 1 months'),
    'papers': ('unknown', None, 'papers unknown'),
    'skills': ('met', 0, 'skills met (2 of 4)'),
    'hours': ('unmet', -3, 'hours unmet by 3 hours'),
    'terms': ('met', 1, 'terms met by 1 terms'),
    'mode': ('met', None, 'mode met'),
    'industry': ('unmet', None, 'industry unmet'),
}


@pytest.fixture
def alignment():
  return align(STUDENTS, CANDIDATE, JOB)


def test_verdict_margin_and_words_of_each_field(alignment):
  found = {f.field.name: (f.verdict, f.comparison.margin, f.in_words())
           for f in alignment.fields() if f.verdict is not None}
  assert found == EXPECTED


def test_layers_and_fields_follow_the_schema(alignment):
  assert tuple(l.layer for l in alignment.layers) == STUDENTS.layers
  assert tuple(f.field for f in alignment.fields()) == STUDENTS.fields


def test_layers_count_verdicts_and_texts_count_nowhere(alignment):
  counts = {l.layer.name: tuple(l.count(v) for v in ('met', 'unmet', 'unknown'))
            for l in alignment.layers}
  assert counts == {'eligibility': (2, 2, 1), 'competence': (1, 0, 0), 'logistics': (2, 1, 0),
                    'interest': (0, 1, 0), 'narrative': (0, 0, 0)}
  assert alignment.layers[1].reasons() == ['skills met (2 of 4)']
  assert alignment.layers[4].reasons() == []


def test_rule_score_averages_the_fields_of_a_perspective(alignment):
  # Preference: skills and mode met, industry unmet. Qualification: 5 met, 3 unmet, 1 unknown.
  assert rule_score(alignment, 'preference') == pytest.approx(2 / 3)
  assert rule_score(alignment, 'qualification') == pytest.approx(5.5 / 9)


def test_nothing_known_is_all_unknown_and_scores_one_half():
  empty = align(STUDENTS, Entity('c', {}), Entity('j', {}))
  assert {f.verdict for f in empty.fields()} == {'unknown', None}
  assert rule_score(empty, 'preference') == rule_score(empty, 'qualification') == 0.5


def test_features_are_four_numbers_a_field(alignment):
  expected = [x for verdict, margin, _ in EXPECTED.values()
              for x in (verdict == 'met', verdict == 'unknown', min(margin or 0, 0),
                        max(margin or 0, 0))]
  assert any(x < 0 for x in expected[2::4]) and any(x > 0 for x in expected[3::4])
  features = alignment_features(alignment)
  assert features.dtype == np.float32
  np.testing.assert_allclose(features, expected)


def test_aligning_again_gives_equal_results(alignment):
  assert align(STUDENTS, CANDIDATE, JOB) == alignment
