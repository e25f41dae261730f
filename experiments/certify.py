"""Certifies a run on a simulated market, and checks the promise on a fresh population.

  python -m experiments.certify --workdir=runs/quickstart
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.report import certify_report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(certify_report(run))


if __name__ == '__main__':
  command_line.start(main, continues=True)
