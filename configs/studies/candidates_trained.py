"""Whether training betters the experts' linear start where a log has many candidates.

  python -m experiments.study --study=configs/studies/candidates_trained.py --seeds=3

As many steps for each of 2,400 candidates as the quickstart has for each of its 600.
"""

from configs.studies.funnel import STILL
from jobrec_jax.pipeline.study import Study, Variant

MARKET = {'market.candidates': 2400, 'evaluate.candidates': 120, 'evaluate.rivals': ()}
TIMES = 2400 // 600
TRAINED = {'warm_up.steps': 120 * TIMES, 'cooperative.steps': 180 * TIMES}


def get_study() -> Study:
  return Study('Does training better the start where there are many candidates?', {
      'start': Variant('2,400 candidates, experts as they start', MARKET | STILL),
      'trained': Variant(f'{TIMES} times the steps', MARKET | TRAINED)})
