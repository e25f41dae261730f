"""Trains a writer of reasons on a run of a simulated market, and judges what it writes.

  python -m experiments.explain --workdir=runs/quickstart

Scores stay what they are. Prints each system's numbers and the first reasons, unedited, with marks,
and writes them to reasons.json; report.html shows them once it is written again. Afterwards
experiments.recommend --explain writes reasons.
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import explain_report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(explain_report(run))


if __name__ == '__main__':
  command_line.start(main, continues=True)
