"""The words of students and research positions in the first version."""

from jobrec_jax.data.market.grammar import Axis
from jobrec_jax.data.market.notes.grammar import Grammar

# Two cultures of work: building things together, or thinking them through alone.
CULTURE = Axis(
    candidate=(('shipping every week', 'the rush of a launch', 'quick demos', 'fast decisions',
                'things I can touch', 'machines on the bench', 'pairing with others',
                'a lively group'),
               ('long hard questions', 'time to think alone', 'proofs before products',
                'slow careful science', 'my own agenda', 'a quiet library',
                'choosing my problems', 'writing that lasts')),
    job=(('we release daily', 'a sprinting startup', 'prototypes by Friday', 'launch dates loom',
          'our lab is full of rigs', 'you will build devices', 'joint work all day',
          'a chatty open office'),
         ('months of study', 'deep inquiry', 'no deadlines but rigour', 'a fundamental problem',
          'you set your goals', 'pick any topic', 'silence in the afternoon',
          'we publish books')))

GRAMMAR = Grammar(
    axes=(CULTURE,),
    lean=(0.3, 0.15, 0.1, 0.15, 0.3),
    contrasts=0.3,
    openings=(('I look for:', 'I would like:', 'What matters to me:', 'My ideal place:'),
              ('With us:', 'You will find:', 'Our place:', 'What we offer:')),
    contrast='{a}. Not {b}',
    outcomes=(('left half done', 'never ran to the end', 'dropped after a month'),
              ('handed in late', 'worked on toy data', 'followed a tutorial'),
              ('met its goals', 'used by classmates', 'well documented'),
              ('beat the course record', 'adopted by a lab', 'presented at a workshop'),
              ('won a national prize', 'published and cited', 'runs in production')),
    project='Project on {skill}, {outcome}.',
    small_talk=(
        (('Raised on a farm', 'From the coast', 'Grew up in a port', 'From a mountain village',
          'Moved five times', 'Eldest of four', 'From a mining town', 'Raised by grandparents',
          'Child of teachers', 'From the capital', 'Came here at ten', 'From a river town',
          'First to study at home', 'Back from abroad', 'A twin', 'From a bakery family'),
         ('plays chess', 'runs a film club', 'coaches juniors', 'sings in a choir', 'keeps bees',
          'rows at dawn', 'repairs bicycles', 'writes short stories', 'hikes in winter',
          'paints signs', 'bakes bread', 'plays the cello', 'fences', 'restores radios',
          'grows tomatoes', 'collects maps')),
        (('Near the station', 'By the canal', 'On the old campus', 'Above the market',
          'In a former mill', 'Next to the museum', 'Across the park', 'In two buildings'),
         ('the canteen is cheap', 'parking is free', 'there is a garden', 'the lift works again',
          'the coffee is good', 'bikes can be hired', 'the windows face south',
          'the hall was repainted'))))
