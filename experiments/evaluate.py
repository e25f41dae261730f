"""Evaluates what train_experts and fit_policy left in a run folder, and writes the report.

  python -m experiments.evaluate --workdir=runs/mine
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import main_text, report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(main_text(report(run)))
  print(f'The whole report: {run / "report.html"}')


if __name__ == '__main__':
  command_line.start(main, continues=True)
