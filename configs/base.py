"""The settings of jobrec_jax/pipeline/settings.py, where each is commented, as a config.

  python -m experiments.train_experts --config=configs/base.py --workdir=runs/mine
  python -m experiments.train_experts --config=configs/base.py --config.experts.beta=0.5 ...

Other configs change some of its keys.
"""

import ml_collections

from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import as_mapping


def get_config() -> ml_collections.ConfigDict:
  return ml_collections.ConfigDict(as_mapping(Settings())).lock()
