"""The settings as they are, at several seeds, and the linear models that the experts start from.

  python -m experiments.study --study=configs/studies/seeds.py --seeds=5 --data_seeds=3

How much training and the market move every figure, and what training adds to the start.
"""

from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  stages = 'warm_up', 'cooperative'
  still = {f'{stage}.{key}': value for stage in stages
           for key, value in (('steps', 1), ('warmup', 0), ('learning_rate', 0.0))}
  return Study('How far do training seeds and markets move the figures?', {
      'base': Variant('the settings as they are'),
      'start': Variant('the linear models that the experts start from, without a step of training',
                       still)})
