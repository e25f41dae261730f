"""Every estimator of what a funnel hides, on one's own data.

  python -m experiments.study --study=configs/studies/estimators.py --seeds=1 \\
      --config=configs/tables.py --config.data.schema=FOLDER/schema.toml

The experts stand beside them as they start: their linear part, fitted to the whole funnel.
configs/studies/funnel.py does the same in worlds of known truth.
"""

from configs.studies.funnel import RIVALS, STILL
from jobrec_jax.pipeline.study import Study, Variant


def get_study() -> Study:
  return Study('Which estimator of what the funnel hides serves these data?', {
      'start': Variant('the settings as they are, nothing trained beyond the linear start',
                       STILL | {'evaluate.rivals': (*RIVALS, 'schema rules', 'popularity')})})
