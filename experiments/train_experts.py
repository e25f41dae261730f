"""Stages 1A and 1B, and the calibration of the qualification expert.

  python -m experiments.train_experts --config=configs/base.py --workdir=runs/mine
"""

import shlex

from jobrec_jax import command_line
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  run.get(run.road.calibration)
  taught = perspectives(run.get(run.road.data).dataset)
  what, script = (('experts are', 'fit_policy') if len(taught) > 1 else
                  (f'{taught[0]} expert is', 'evaluate'))
  print(f'The {what} trained. Next: '
        f'python -m experiments.{script} --workdir={shlex.quote(str(run.folder))}')


if __name__ == '__main__':
  command_line.start(main)
