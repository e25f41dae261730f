"""The settings as they are, at several seeds: how much training and the market move every figure.

  python -m experiments.study --study=configs/studies/seeds.py --seeds=5 --data_seeds=3
"""

from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  return Study('How far do training seeds and markets move the figures?',
               {'base': Variant('the settings as they are')})
