"""Ranks jobs for one candidate, or for a file of them, from a finished run or a packed file.

  python -m experiments.recommend --run runs/quickstart --tau 0.6 --top_k 5 \\
      --candidate experiments/examples/students.json [--catalogue JOBS.json] [--format json]
  python -m experiments.recommend --run runs/quickstart --tau 0.6 \\
      --candidates FILE.jsonl --out RANKED.jsonl [--workers=2 | --scheduler=ADDRESS]

The second command, killed, resumes; its output does not depend on the workers.
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
from jobrec_jax.recommend import ranking_table

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a finished run folder, or a file that pack wrote',
                      required=True)
  flags.DEFINE_string('candidate', None, 'JSON file with one candidate')
  flags.DEFINE_string('candidates', None, 'file of JSON lines, a candidate each')
  flags.DEFINE_string('out', None, 'with --candidates: the file of JSON lines to write')
  flags.DEFINE_float('tau', None, 'the eligibility C asked for, a probability; 0 asks for '
                     'nothing', required=True)
  flags.DEFINE_integer('top_k', 5, 'how many jobs to give', lower_bound=1)
  flags.DEFINE_string('catalogue', None, 'JSON or CSV file of jobs; the run\'s own without it')
  flags.DEFINE_enum('format', 'table', ('table', 'json'), 'for people, or for programs')
  flags.DEFINE_integer('workers', 0, 'with --candidates: Dask workers to start on this machine',
                       lower_bound=0)
  flags.DEFINE_string('scheduler', None, 'with --candidates: address or file of a Dask scheduler '
                      'whose workers see all of these files')
  flags.DEFINE_integer('shard_size', 256, 'with --candidates: how many are ranked together, and '
                       'lost with a worker', lower_bound=1)
  flags.mark_flags_as_mutual_exclusive(('candidate', 'candidates'), required=True)


def main(argv: Sequence[str]) -> None:
  del argv
  if FLAGS.candidates is None:
    one()
  else:
    many()


def many() -> None:
  from jobrec_jax.pipeline import cluster, recommend_many  # here, for one candidate needs neither
  if not FLAGS.out:
    raise ValueError(f'--out must name the file to write, got {FLAGS.out!r}')
  asked = recommend_many.Request(FLAGS.run, FLAGS.candidates, FLAGS.tau, FLAGS.top_k,
                                 FLAGS.catalogue or '')
  with cluster.cluster(FLAGS.scheduler, FLAGS.workers) as client:
    count = recommend_many.recommend_many(asked, FLAGS.out, FLAGS.shard_size, client)
  print(f'{FLAGS.out}: jobs for {count} candidates')


def one() -> None:
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
    print(ranking_table(ranked, FLAGS.tau, run.policy))


if __name__ == '__main__':
  define_flags()
  launch(main)
