"""A second domain: nurses and posts on a ward. Nothing but its tables knows it."""

from jobrec_jax.schema.comparators import (
    AtLeast,
    CompatibleMode,
    Contains,
    OrdinalAtLeast,
    Semantic,
    SetCoverage,
)
from jobrec_jax.schema.schema import AlignedField, Attribute, Layer, Schema

LICENCES = ('Nursing Assistant', 'Practical Nurse', 'Registered Nurse', 'Specialist Nurse',
            'Nurse Practitioner')
SHIFTS = ('Days', 'Nights', 'Rotating', 'Any Shift')
CARE = ('Emergency', 'Intensive Care', 'Paediatrics', 'Surgery', 'Geriatrics')

NURSING = Schema(
    name='nursing',
    candidate=(
        Attribute('licence', 'category', LICENCES),
        Attribute('years_on_wards', 'integer', low=0, high=50, words='years'),
        Attribute('exam_mark', 'number', low=0, high=100, words='mark'),
        Attribute('procedures', 'set'),
        Attribute('case_1', 'text', words=''),
        Attribute('case_2', 'text', words=''),
        Attribute('shift', 'category', SHIFTS),
        Attribute('weekends_a_month', 'integer', low=0, high=5, words='weekends'),
        Attribute('driving_licence', 'boolean', words='drives', rendered=False),
        Attribute('care_wanted', 'set', CARE, words='wants'),
        Attribute('letter', 'text'),
    ),
    job=(
        Attribute('min_licence', 'category', LICENCES, words='licence'),
        Attribute('min_years', 'integer', low=0, high=50, words='years'),
        Attribute('min_mark', 'number', low=0, high=100, words='mark'),
        Attribute('procedures_needed', 'set', words='procedures'),
        Attribute('shift_offered', 'category', SHIFTS, words='shift'),
        Attribute('weekends_needed', 'integer', low=0, high=5, words='weekends'),
        Attribute('care', 'category', CARE),
        Attribute('ward_life', 'text', words='ward'),
    ),
    layers=(
        Layer('licensure', (
            AlignedField('licence', ('licence',), 'min_licence', OrdinalAtLeast(LICENCES),
                         'qualification'),
            AlignedField('years', ('years_on_wards',), 'min_years', AtLeast('years'),
                         'qualification'),
            AlignedField('mark', ('exam_mark',), 'min_mark', AtLeast('points'), 'qualification'),
        ), hard=True),
        Layer('practice', (
            AlignedField('procedures', ('procedures',), 'procedures_needed', SetCoverage(), 'both'),
            AlignedField('cases', ('case_1', 'case_2'), 'ward_life', Semantic(), 'both'),
        )),
        Layer('roster', (
            AlignedField('shift', ('shift',), 'shift_offered', CompatibleMode('Any Shift'), 'both'),
            AlignedField('weekends', ('weekends_a_month',), 'weekends_needed',
                         AtLeast('weekends'), 'qualification'),
        )),
        Layer('calling', (
            AlignedField('care', ('care_wanted',), 'care', Contains(), 'preference'),
        )),
        Layer('narrative', (
            AlignedField('letter', ('letter',), 'ward_life', Semantic(), 'both'),
        )),
    ))
