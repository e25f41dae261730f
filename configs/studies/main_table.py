"""Every rival beside the experts, under one protocol: systems.md and systems.tex.

Estimators of what the funnel hides stand in a study of their own, configs/studies/funnel.py.

  python -m experiments.study --study=configs/studies/main_table.py --seeds=5 --data_seeds=12

Some of them: configs/studies/seeds.py with --config.evaluate.rivals="('EASE', 'BM25')".
"""

from jobrec_jax.baselines.rivals import CENSORED, RIVALS
from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  return Study('How do the experts rank beside every rival?', {
      'base': Variant('the settings as they are, with every rival',
                      {'evaluate.rivals': tuple(r for r in RIVALS if r not in CENSORED)})})
