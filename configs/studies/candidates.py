"""How what the experts know grows with the number of candidates that a log has: a learning curve.

  python -m experiments.study --study=configs/studies/candidates.py --seeds=1 --data_seeds=3

Experts stand as they start, with their linear part alone, which on this market training does not
better; so nothing here depends on a training seed. As many candidates are held out in each.
"""

from configs.studies.funnel import STILL
from jobrec_jax.pipeline.study import Study, Variant

RIVALS = ('factorization machine with words',)


def get_study() -> Study:
  return Study('How many candidates would it take?', {
      f'{count}': Variant(f'{count} candidates', STILL | {
          'market.candidates': count, 'evaluate.candidates': 120, 'evaluate.rivals': RIVALS})
      for count in (600, 1200, 2400, 4800)})
