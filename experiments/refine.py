"""Refines noisy labels: doubtful pairs are chosen, experts judge them, their verdicts aggregated.

  python -m experiments.refine --config=configs/base.py --workdir=runs/refine
  python -m experiments.refine --config=configs/base.py --workdir=runs/refine-by-people \\
      --config.refine.reviewers=people --config.refine.budget=0.002

With people, the first call writes a page and a sheet for each of them; every later one reads what
lies in the run folder's verdicts/ and aggregates that.
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.refine import refine_labels
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(refine_labels(run))


if __name__ == '__main__':
  command_line.start(main, devices=False)
