"""Compares finished runs with the first: what differs in settings, and whether results differ.

  python -m experiments.compare runs/plain runs/without_narratives
  python -m experiments.compare runs/plain-* runs/ips-* --all --csv=rows.csv
  python -m experiments.compare runs/study/runs/base/* runs/study/runs/raw/*     of a study

Runs that share all settings but `seed` and `data.seed` are one system. Differences are over the
same candidates and jobs; their intervals take candidates, jobs and seeds.
"""

from collections.abc import Sequence

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.compare_report import compare_report


def main(argv: Sequence[str]) -> None:
  f = flags.FLAGS
  print(compare_report(argv[1:], f.level, f['all'].value, f.csv))


if __name__ == '__main__':
  flags.DEFINE_float('level', 0.95, 'of the intervals', 0.5, 0.9999)
  flags.DEFINE_bool('all', False, 'every row that the runs have in common')
  flags.DEFINE_string('csv', None, 'a file for the rows')
  launch(main, ('RUN', 'RUN', '...'))
