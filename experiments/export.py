"""Writes a data set to files: a simulated market of any size, or any source in another layout.

  python -m experiments.export --workdir=runs/world --config.market.candidates=1000000 \\
      --config.market.jobs=10000 --config.market.exposure=0.001 --config.export.workers=8
  python -m experiments.export --workdir=runs/recbole --config.export.format=recbole

The files are in WORKDIR/data; of a market written as JSON lines the truth of its exposed pairs lies
apart, in WORKDIR/truth.
"""

from jobrec_jax import command_line
from jobrec_jax.pipeline.export import export
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  print(f'The data set is in {export(run)}')


if __name__ == '__main__':
  command_line.start(main, devices=False)
