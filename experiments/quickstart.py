"""The whole road: simulate, train the experts, calibrate, fit the policy, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

import shlex

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import main_text, report
from jobrec_jax.pipeline.run import Run

EXAMPLES = {'students': 'builder.json', 'nursing': 'nurse.json'}  # a candidate of each schema


def main(run: Run) -> None:
  if run.is_complete():
    print(f'The run is complete: {run / "report.html"}')
    return
  results = report(run)
  print(main_text(results))
  print(f'The whole report: {run / "report.html"}')
  candidate = EXAMPLES[run.store.get(run.road.data).dataset.schema.name]
  print('Jobs for a candidate that no run has seen, at any tau up to '
        f'{results.taus[-1]:.4f}:\n'
        f'  python -m experiments.recommend --run {shlex.quote(str(run.folder))} '
        f'--tau {results.taus[-1]:.4f} --candidate experiments/examples/{candidate}')


if __name__ == '__main__':
  command_line.start(main, 'configs/quickstart.py', 'runs/quickstart')
