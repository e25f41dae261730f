"""The whole road on a laptop: simulate, train from scratch, align, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import base


def get_config():
  return base.get_config()
