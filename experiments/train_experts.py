"""Stages 1A and 1B, and the calibration of the qualification expert.

  python -m experiments.train_experts --config=configs/base.py --workdir=runs/mine
"""

import shlex

from jobrec_jax import command_line
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  run.get(run.road.calibration)
  print('The experts are trained. Next: '
        f'python -m experiments.fit_policy --workdir={shlex.quote(str(run.folder))}')


if __name__ == '__main__':
  command_line.start(main)
