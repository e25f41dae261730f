"""The words of nurses and wards in the first version."""

from jobrec_jax.data.market.grammar import Axis
from jobrec_jax.data.market.notes.grammar import Grammar

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
