"""A try of minutes: a small market, a small decoder, few steps. Its numbers mean little.

  python -m experiments.quickstart --config=configs/small.py --workdir=runs/small
"""

from configs import base


def get_config():
  c = base.get_config()
  c.market.candidates, c.market.jobs = 200, 50
  c.model.width, c.model.layers = 32, 1
  c.warm_up.steps = c.cooperative.steps = 40
  c.warm_up.warmup = c.cooperative.warmup = 5
  return c
