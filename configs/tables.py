"""A user's own tables, as a schema file beside them describes them.

  python -m experiments.quickstart --config=configs/tables.py \\
      --config.data.schema=FOLDER/schema.toml --workdir=runs/mine
"""

from configs import base


def get_config():
  c = base.get_config()
  with c.unlocked():
    c.data.source = 'tables'
    c.experts.missing = 0.1  # people leave cells empty, and a recommendation must know it
    c.warm_up.patience = c.cooperative.patience = 5  # small data are soon learned by heart
  return c
