"""Stage 2: one policy for every requirement, beside separate heads and the exact dual.

  python -m experiments.fit_policy --workdir=runs/mine
  ... --config.sweep.seeds='(0,1,2)' --config.sweep.learning_rates='(1e-3,5e-3)'
  ... --config.sweep.rules='((.3,0.,0.,0.),(.3,.5,0.,.5))'

The settings are the run's own, with what is overridden. frontier.md, frontier.json and
figures/frontier.* hold what came out.
"""

import shlex

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import sweep_report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(sweep_report(run))
  print('The policy is trained. Next: python -m experiments.evaluate '
        f'--workdir={shlex.quote(str(run.folder))}')


if __name__ == '__main__':
  command_line.start(main, continues=True)
