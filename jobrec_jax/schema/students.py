"""The domain of the JobRec paper: students and research positions, in the published columns."""

from jobrec_jax.schema.comparators import (
    AnyMemberOf,
    AtLeast,
    CompatibleMode,
    Contains,
    OrdinalAtLeast,
    Semantic,
    SetCoverage,
)
from jobrec_jax.schema.schema import AlignedField, Attribute, Layer, Schema

LEVELS = ('UG1', 'UG2', 'UG3', 'UG4', 'MS1', 'MS2', 'PhD')
MAJORS = ('Computer Science', 'Electrical Engineering', 'Applied Data Science', 'Applied Math',
          'Statistics', 'Economics', 'Quantitative Biology')
MODES = ('Online', 'In Person', 'Hybrid', 'No Preference')
INDUSTRIES = ('Robotics', 'Theory', 'NLP', 'CV', 'Reinforcement Learning', 'Applications (Other)')
_OPTIONAL_MAJORS = (*MAJORS, 'None')

_CANDIDATE = (
    Attribute('academic_level', 'category', LEVELS, words='level'),
    Attribute('undergrad_major', 'category', _OPTIONAL_MAJORS, words='major'),
    Attribute('masters_major', 'category', _OPTIONAL_MAJORS),
    Attribute('second_major', 'category', _OPTIONAL_MAJORS),
    Attribute('gpa', 'number', low=0, high=4),
    Attribute('undergrad_gpa', 'number', low=0, high=4, rendered=False),
    Attribute('months_experience', 'integer', low=0, high=600, words='months'),
    Attribute('num_publications', 'integer', low=0, high=1000, words='papers'),
    Attribute('skills', 'set'),
    Attribute('proj_1', 'text', words=''),
    Attribute('proj_2', 'text', words=''),
    Attribute('proj_3', 'text', words=''),
    Attribute('hours_per_week', 'integer', low=0, high=100, words='hours'),
    Attribute('length_of_commitment', 'integer', low=0, high=20, words='terms'),
    Attribute('in_person_commitment', 'category', MODES, words='mode'),
    Attribute('commit_to_summer', 'boolean', words='summer', rendered=False),
    Attribute('interests', 'set', INDUSTRIES),
    Attribute('student_llm_output', 'text', words='narrative'),
    Attribute('extrac_1', 'text', words=''),
    Attribute('extrac_2', 'text', words=''),
)

_JOB = (
    Attribute('min_academic_level', 'category', LEVELS, words='level'),
    Attribute('acceptable_majors', 'set', MAJORS, words='majors'),
    Attribute('min_gpa', 'number', low=0, high=4, words='gpa'),
    Attribute('min_months_experience', 'integer', low=0, high=600, words='months'),
    Attribute('min_num_publications', 'integer', low=0, high=1000, words='papers'),
    Attribute('required_skills', 'set', words='skills'),
    Attribute('min_hours_per_week', 'integer', low=0, high=100, words='hours'),
    Attribute('min_length_of_commitment', 'integer', low=0, high=20, words='terms'),
    Attribute('job_in_person_commitment', 'category', MODES, words='mode'),
    Attribute('industry', 'category', INDUSTRIES),
    Attribute('job_llm_output', 'text', words='narrative'),
)

STUDENTS = Schema(
    name='students',
    candidate=_CANDIDATE,
    job=_JOB,
    layers=(
        Layer('eligibility', (
            AlignedField('level', ('academic_level',), 'min_academic_level', OrdinalAtLeast(LEVELS),
                         'qualification'),
            AlignedField('major', ('undergrad_major', 'masters_major', 'second_major'),
                         'acceptable_majors', AnyMemberOf(), 'qualification'),
            AlignedField('gpa', ('gpa',), 'min_gpa', AtLeast(), 'qualification'),
            AlignedField('months', ('months_experience',), 'min_months_experience',
                         AtLeast('months'), 'qualification'),
            AlignedField('papers', ('num_publications',), 'min_num_publications', AtLeast('papers'),
                         'qualification'),
        ), hard=True),
        Layer('competence', (
            AlignedField('skills', ('skills',), 'required_skills', SetCoverage(), 'both'),
            AlignedField('projects', ('proj_1', 'proj_2', 'proj_3'), 'job_llm_output', Semantic(),
                         'both'),
        )),
        Layer('logistics', (
            AlignedField('hours', ('hours_per_week',), 'min_hours_per_week', AtLeast('hours'),
                         'qualification'),
            AlignedField('terms', ('length_of_commitment',), 'min_length_of_commitment',
                         AtLeast('terms'), 'qualification'),
            AlignedField('mode', ('in_person_commitment',), 'job_in_person_commitment',
                         CompatibleMode(), 'both'),
        )),
        Layer('interest', (
            AlignedField('industry', ('interests',), 'industry', Contains(), 'preference'),
        )),
        Layer('narrative', (
            AlignedField('story', ('student_llm_output', 'extrac_1', 'extrac_2'), 'job_llm_output',
                         Semantic(), 'both'),
        )),
    ))
