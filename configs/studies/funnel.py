"""What the funnel hides, and which estimators bring it back: worlds of known truth.

  python -m experiments.study --study=configs/studies/funnel.py --seeds=1 --data_seeds=3

Each world is a variant: how much doubt keeps candidates from applying, whether hidden causes move
preference and qualification alike (rho_e), and whether a recommender chose what was shown. In each,
one linear model of margins and words learns qualification under every estimator of
`jobrec_jax.censoring.estimators`; beside them stand the usual mistakes, the likelihood of the whole
funnel, and the experts, whose linear part alone is fitted: nothing here depends on a training seed.
"""

from jobrec_jax.censoring.estimators import ESTIMATORS
from jobrec_jax.pipeline.study import Study, Variant

DOUBT = {'none': 0.0, 'mild': 0.3, 'strong': 1.0}
HIDDEN = {'': 0.0, '-hidden': 0.5}
SHOWN = {'uniform': {'market.logging': 'uniform', 'market.exposure': 0.7},
         'recommender': {'market.logging': 'recommender', 'market.recommender_quality': 0.9,
                         'market.exposure': 0.3}}
# Nothing is learned beyond the linear start.
STILL = {f'{stage}.{key}': value for stage in ('warm_up', 'cooperative')
         for key, value in (('steps', 1), ('warmup', 0), ('learning_rate', 0.0))}
RIVALS = ('conflated', 'naive', 'logistic regression with words', 'funnel likelihood', *ESTIMATORS)


def get_study() -> Study:
  return Study('What does the funnel hide, and what brings it back?', {
      f'{name}-{shown}{hidden}': Variant(
          f'self-censoring {doubt:g}, rho_e {rho:g}, shown by '
          f'{"a recommender" if shown == "recommender" else "chance"}',
          STILL | SHOWN[shown] | {'market.self_censoring': doubt, 'market.rho_e': rho,
                                  'evaluate.rivals': RIVALS})
      for name, doubt in DOUBT.items() for hidden, rho in HIDDEN.items() for shown in SHOWN})
