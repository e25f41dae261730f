"""Words of the simulated labour market: skills by industry, and sentences that carry latents.

A candidate's narrative is the only place that shows taste; the projects are the only place that
shows how well the work was done. Cultures are what a workplace can be like.
"""

import numpy as np

SKILLS = {
    'Robotics': ('motion planning', 'state estimation', 'grasp synthesis', 'visual servoing',
                 'legged locomotion', 'simulation', 'sensor calibration', 'trajectory control',
                 'mapping', 'embedded systems', 'haptics', 'swarm coordination'),
    'Theory': ('convex analysis', 'random matrices', 'minimax bounds', 'graph algorithms',
               'complexity', 'bandit theory', 'measure theory', 'game theory', 'sketching',
               'information theory', 'coding theory', 'approximation'),
    'NLP': ('parsing', 'machine translation', 'dialogue', 'tokenization', 'summarization',
            'retrieval', 'speech', 'annotation', 'language modeling', 'semantics',
            'text classification', 'question answering'),
    'CV': ('segmentation', 'detection', 'tracking', 'stereo', 'image synthesis', 'pose estimation',
           'medical imaging', 'video', 'optical flow', 'face analysis', 'rendering',
           'image compression'),
    'Reinforcement Learning': ('policy gradients', 'value iteration', 'exploration',
                               'offline learning', 'reward design', 'self-play', 'model learning',
                               'imitation', 'credit assignment', 'curriculum design',
                               'safe learning', 'multi-agent learning'),
    'Applications (Other)': ('forecasting', 'survey design', 'databases', 'dashboards',
                             'causal inference', 'fraud detection', 'web services', 'optimization',
                             'bioinformatics', 'econometrics', 'data cleaning', 'visualization'),
}

# Two cultures of work, in a candidate's words and in a job's; they share few words on purpose.
CULTURES = {
    'builder': (
        ('shipping every week', 'the rush of a launch', 'quick demos', 'fast decisions',
         'things I can touch', 'machines on the bench', 'pairing with others', 'a lively group'),
        ('we release daily', 'a sprinting startup', 'prototypes by Friday', 'launch dates loom',
         'our lab is full of rigs', 'you will build devices', 'joint work all day',
         'a chatty open office')),
    'scholar': (
        ('long hard questions', 'time to think alone', 'proofs before products',
         'slow careful science', 'my own agenda', 'a quiet library', 'choosing my problems',
         'writing that lasts'),
        ('months of study', 'deep inquiry', 'no deadlines but rigour', 'a fundamental question',
         'you set your goals', 'pick any topic', 'silence in the afternoon', 'we publish books')),
}
PHRASES = 4  # in a narrative

# How a project went, from unfinished to outstanding: evidence of ability that no number shows.
OUTCOMES = (('left half done', 'never ran to the end', 'dropped after a month'),
            ('handed in late', 'worked on toy data', 'followed a tutorial'),
            ('met its goals', 'used by classmates', 'well documented'),
            ('beat the course record', 'adopted by a lab', 'presented at a workshop'),
            ('won a national prize', 'published and cited', 'runs in production'))

_PASTIMES = ('plays chess', 'runs a film club', 'coaches juniors', 'sings in a choir',
             'keeps bees', 'rows at dawn', 'repairs bicycles', 'writes short stories')


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
  return options[rng.integers(len(options))]


def narrative(rng: np.random.Generator, side: str, builder: int) -> str:
  """Sentences that reveal a culture: `builder` of `PHRASES` phrases are a builder's.

  Args:
    rng: picks the phrases and their order.
    side: 'candidate', for what one looks for, or 'job', for what one finds.
    builder: 0 to `PHRASES`.
  """
  opening, column = ('I look for:', 0) if side == 'candidate' else ('With us:', 1)
  said = [*rng.permutation(CULTURES['builder'][column])[:builder],
          *rng.permutation(CULTURES['scholar'][column])[:PHRASES - builder]]
  return ' '.join([opening, *(f'{p}.' for p in rng.permutation(said))])


def project(rng: np.random.Generator, skill: str, grade: int) -> str:
  """One project: the skill it used and how it went, `grade` indexing `OUTCOMES`."""
  return f'Project on {skill}, {_pick(rng, OUTCOMES[grade])}.'


def pastime(rng: np.random.Generator) -> str:
  return f'{_pick(rng, _PASTIMES).capitalize()}.'
