"""Ranks jobs for one candidate, from a finished run folder or a packed file.

  python -m experiments.recommend --run runs/quickstart --tau 0.6 --top_k 5 \\
      --candidate experiments/examples/builder.json [--catalogue JOBS.json] [--format json]
"""

from collections.abc import Sequence
import dataclasses
import json
import sys

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.data.files.records import read_catalogue, read_entity_json
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.load import load
from jobrec_jax.recommend import RankedJobs

FLAGS = flags.FLAGS
COLUMNS = ('rank', 'job', 'score', 'preference', 'p_qual', 'lambda')


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a finished run folder, or a file that pack wrote',
                      required=True)
  flags.DEFINE_string('candidate', None, 'JSON file with one candidate', required=True)
  flags.DEFINE_float('tau', None, 'the eligibility C asked for, a probability; 0 asks for '
                     'nothing', required=True)
  flags.DEFINE_integer('top_k', 5, 'how many jobs to print', lower_bound=1)
  flags.DEFINE_string('catalogue', None, 'JSON or CSV file of jobs; the run\'s own without it')
  flags.DEFINE_enum('format', 'table', ('table', 'json'), 'for people, or for programs')


def table(ranked: RankedJobs, tau: float) -> str:
  """The ranking as aligned text, each job's reasons below it."""
  rows = [(str(i + 1), j.job_id, f'{j.score:.3f}', f'{j.preference:.3f}',
           f'{j.qualification:.3f}', f'{j.lam:.3f}') for i, j in enumerate(ranked.jobs)]
  widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]

  def line(cells: Sequence[str]) -> str:
    return '  '.join(c.ljust(w) if name == 'job' else c.rjust(w)
                     for name, c, w in zip(COLUMNS, cells, widths))
  lines = [line(COLUMNS)]
  for row, job in zip(rows, ranked.jobs):
    lines.append(line(row))
    name_width = max(map(len, job.reasons), default=0)
    lines += [f'{"":{widths[0]}}  {name.ljust(name_width)}  {", ".join(words)}'
              for name, words in job.reasons.items()]
  asked = f'asked for {tau:.6g}' if tau else 'no requirement'
  lines.append(f'Eligibility C of the whole list: {ranked.eligibility:.3f} ({asked})')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  del argv
  use_compilation_cache()
  run = load(FLAGS.run)
  candidate = read_entity_json(FLAGS.candidate, run.schema, 'candidate')
  jobs = read_catalogue(FLAGS.catalogue, run.schema) if FLAGS.catalogue else None
  (ranked,) = run.recommend(candidate, FLAGS.tau, FLAGS.top_k, jobs)
  if cut := {block: n for block, n in ranked.cut.items() if n}:
    print(f'warning: longer than what the experts read, their ends are lost: {cut}',
          file=sys.stderr)
  if FLAGS.format == 'json':
    print(json.dumps({'tau': FLAGS.tau, 'eligibility': ranked.eligibility,
                      'jobs': [dataclasses.asdict(job) for job in ranked.jobs]}, indent=2))
  else:
    print(table(ranked, FLAGS.tau))


if __name__ == '__main__':
  define_flags()
  launch(main)
