"""The whole road: simulate, train the experts, calibrate, fit the policy, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

import shlex

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import main_text, report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  if run.is_complete():
    print(f'The run is complete: {run / "report.html"}')
    return
  print(main_text(report(run)))
  print(f'The whole report: {run / "report.html"}')
  highest = f'{run.get(run.road.policy).policy.knots[-1]:.4f}'
  schema = run.get(run.road.data).dataset.schema.name
  print(f'Jobs for a candidate that no run has seen, at any tau up to {highest}:\n'
        f'  python -m experiments.recommend --run {shlex.quote(str(run.folder))} --tau {highest} '
        f'--candidate experiments/examples/{schema}.json')


if __name__ == '__main__':
  command_line.start(main, 'configs/quickstart.py', 'runs/quickstart')
