"""The experts beside every rival that reads, on many markets: is it ahead on most, or on three?

  python -m experiments.study --study=configs/studies/markets.py --seeds=1 --data_seeds=12

Markets differ more than training seeds do, so that an interval narrows with their number.
"""

from jobrec_jax.pipeline.study import Study, Variant

READERS = ('schema rules', 'conflated', 'naive', 'logistic regression', 'boosted trees with words',
           'logistic regression with words', 'factorization machine with words',
           'funnel likelihood')


def get_study() -> Study:
  return Study('Are the experts ahead on most markets?', {
      'base': Variant('the settings as they are, with rivals that read',
                      {'evaluate.rivals': READERS})})
