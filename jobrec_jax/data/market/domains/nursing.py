"""Nurses and posts on a ward: the vocabulary and the domain of the schema `NURSING`."""

from jobrec_jax.data.market.domain import (
    Amount,
    Choice,
    Coin,
    Domain,
    Field,
    Fields,
    Narrative,
    Project,
    Requirement,
    Skills,
    Spread,
)
from jobrec_jax.data.market.grammar import Axis, Grammar
from jobrec_jax.schema.shipped import NURSING

PROCEDURES = {
    'Emergency': ('triage', 'splinting', 'wound suturing', 'defibrillation', 'burn dressing',
                  'intraosseous access', 'trauma logging', 'airway clearing', 'poison protocols'),
    'Intensive Care': ('ventilator weaning', 'arterial lines', 'sedation scoring', 'dialysis runs',
                       'prone positioning', 'blood gas reading', 'pressure monitoring',
                       'tube feeding', 'delirium screening'),
    'Paediatrics': ('growth charting', 'play preparation', 'neonatal warming', 'vaccination',
                    'breastfeeding support', 'fever counselling', 'incubator care',
                    'dose by weight', 'school liaison'),
    'Surgery': ('sterile setup', 'instrument counting', 'drain removal', 'recovery watch',
                'skin stapling', 'anaesthesia assistance', 'stoma care', 'graft checks',
                'pain pumps'),
    'Geriatrics': ('fall prevention', 'memory testing', 'pressure sore care', 'medication review',
                   'palliative comfort', 'transfer lifting', 'swallow testing', 'foot care',
                   'family conferences'),
}

TEMPO = Axis(
    candidate=(('sirens', 'hands full', 'split-second calls', 'adrenaline', 'a new face each hour'),
               ('unhurried rounds', 'knowing each patient', 'calm corridors', 'steady routines',
                'time to listen')),
    job=(('we never stand still', 'admissions at all hours', 'alarms go off', 'a hectic floor',
          'beds turn over fast'),
         ('patients stay for months', 'tea at four', 'a slow ward', 'no rush at the bedside',
          'mornings are silent')))
VOICE = Axis(
    candidate=(('clear orders', 'a strict protocol', 'a firm charge nurse', 'written checklists',
                'ranks that hold'),
               ('a say in things', 'room to improvise', 'flat teams', 'my own judgement',
                'trying new ways')),
    job=(('the manual decides', 'a tight chain of command', 'we audit every step',
          'senior staff lead', 'procedures are fixed'),
         ('nurses write the rules', 'ideas are tried at once', 'you decide at the bedside',
          'no hierarchy here', 'we vote on rosters')))

GRAMMAR = Grammar(
    axes=(TEMPO, VOICE),
    lean=(0.4, 0.2, 0.4),
    contrasts=0.3,
    openings=(('I thrive on:', 'I hope for:', 'Give me:'),
              ('On our ward:', 'Life here:', 'Expect this:')),
    contrast='{a}. Less {b}',
    outcomes=(('botched and redone', 'handed over in a panic', 'left undocumented'),
              ('needed constant help', 'took twice as long', 'missed two steps'),
              ('went by the book', 'signed off as planned', 'no complaints'),
              ('praised by the consultant', 'taught to others', 'ahead of schedule'),
              ('saved a life', 'became the ward standard', 'written up in a journal')),
    project='A case of {skill}, {outcome}.',
    small_talk=(
        (('Mother of three', 'From the islands', 'A former baker', 'Trained in the army',
          'From a family of midwives', 'Late starter', 'Came by ship', 'Raised in a hostel',
          "A pastor's child", 'From the north', 'Once a waiter', 'From a desert town'),
         ('knits', 'swims in lakes', 'plays the organ', 'keeps goats', 'dances tango', 'sails',
          'reads crime novels', 'referees football', 'makes pots', 'tends roses', 'rides horses',
          'plays bridge')),
        (('Third floor', 'Old wing', 'Opposite the chapel', 'By the helipad', 'New annex',
          'Ground floor'),
         ('staff parking', 'lockers for all', 'a day nursery', 'fresh uniforms', 'a roof terrace',
          'a late bus home'))))

DOMAIN = Domain(
    schema=NURSING,
    grammar=GRAMMAR,
    fields=PROCEDURES,
    candidate={
        'licence': Choice(p=(0.15, 0.2, 0.35, 0.2, 0.1)),
        'years_on_wards': Amount(0, 45, base=3, per=('licence', 3), noise=4),
        'exam_mark': Amount(50, 100, base=74, ability=6, noise=7),
        'procedures': Skills(),
        'case_1': Project(0),
        'case_2': Project(1),
        'shift': Choice(),
        'weekends_a_month': Spread(0, 4),
        'driving_licence': Coin(0.7),
        'care_wanted': Fields(),
        'letter': Narrative(),
    },
    job={
        'min_licence': Choice(p=(0.2, 0.3, 0.35, 0.1, 0.05)),
        'min_years': Spread(0, 10),
        'min_mark': Spread(55, 80),
        'procedures_needed': Skills(),
        'shift_offered': Choice(),
        'weekends_needed': Spread(0, 3),
        'care': Field(),
        'ward_life': Narrative(),
    },
    requirements=(
        Requirement('licence', 2.0),
        Requirement('years', 1.2, per=5.0, cap=1.5),
        # A better licence than asked makes up for some missing marks.
        Requirement('mark', 1.6, per=10.0, cap=1.5, spared_by='licence', spare=3.0, spare_cap=2),
        Requirement('procedures', 2.0, per=1.0),
        Requirement('weekends', 0.6),
        Requirement('shift', 0.8),
    ),
    wishes={'care': 1.0, 'procedures': 0.6, 'shift': 0.7},
    optional=('years_on_wards', 'exam_mark', 'shift', 'weekends_a_month'),
    projects=2,
    prefixes=('N', 'W'))
