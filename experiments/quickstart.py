"""The whole road: simulate, train the experts, calibrate, fit the policy, evaluate, report.

  python -m experiments.quickstart --config=configs/quickstart.py --workdir=runs/quickstart
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import main_text, report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  if run.is_complete():
    print(f'The run is complete: {run / "report.html"}')
    return
  results = report(run)
  print(main_text(results))
  print(f'The whole report: {run / "report.html"}\nJobs for a candidate that no run has seen, at '
        f'any tau up to {results.taus[-1]:.4f}:\n'
        f'  python -m experiments.recommend --run {run.folder} --tau {results.taus[-1]:.4f} '
        '--candidate experiments/examples/builder.json')


if __name__ == '__main__':
  command_line.start(main, 'configs/quickstart.py', 'runs/quickstart')
