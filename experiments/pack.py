"""Packs what recommending needs of a finished run into one file.

  python -m experiments.pack runs/quickstart quickstart.zip
  python -m experiments.recommend --run quickstart.zip --tau 0.6 \\
      --candidate experiments/examples/students.json
"""

from collections.abc import Sequence
from pathlib import Path

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.pack import pack


def main(argv: Sequence[str]) -> None:
  _, run, file = argv
  pack(run, file)
  print(f'{file}: {Path(file).stat().st_size / 2**20:.1f} MiB. jobrec_jax.load and the flag --run '
        'of experiments.recommend take it as they take a run folder.')


if __name__ == '__main__':
  launch(main, ('RUN', 'FILE'))
