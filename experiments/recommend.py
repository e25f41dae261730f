"""Ranks jobs for one candidate, or for a file of them, from a finished run or a packed file.

  python -m experiments.recommend --run runs/quickstart --tau 0.6 --top_k 5 \\
      --candidate experiments/examples/students.json [--catalogue CSV [--retrieve]] [--format json]
  python -m experiments.recommend --run runs/quickstart --tau 0.6 \\
      --candidates FILE --out RANKED.jsonl [--workers=2 | --scheduler=ADDRESS]
  python -m experiments.recommend --run runs/quickstart --job J0001 --candidates FILE

Files may be CSV, JSON, JSON lines, Parquet or RecBole's; where the run's data came from tables,
their columns are those of its schema file. The second command, killed, resumes; its output does not
depend on the workers. The third one ranks candidates for a job.
"""

from collections.abc import Sequence
import sys

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.pipeline.load import load
from jobrec_jax.pipeline.recommend_one import Asked, candidates_for, jobs_for, warn

FLAGS = flags.FLAGS


def define_flags() -> None:
  flags.DEFINE_string('run', None, 'a finished run folder, or a file that pack wrote',
                      required=True)
  flags.DEFINE_string('candidate', None, 'file with one candidate, or with several and --id')
  flags.DEFINE_string('id', '', 'with --candidate: which of several, by its id')
  flags.DEFINE_string('candidates', None, 'file of many candidates')
  flags.DEFINE_string('out', None, 'with --candidates: the file of JSON lines to write')
  flags.DEFINE_float('tau', None, 'the eligibility C asked for, a probability; 0 asks for '
                     'nothing; not with --job, nor where a run has one expert alone')
  flags.DEFINE_bool('resolve', False, 'let --tau bind the mean C over these candidates and this '
                    'catalogue, not over lists of stage 2')
  flags.DEFINE_bool('retrieve', False, 'of a large catalogue, score a shortlist alone in full')
  flags.DEFINE_integer('top_k', 5, 'how many to give', lower_bound=1)
  flags.DEFINE_string('catalogue', None, "file of jobs; the run's own without it")
  flags.DEFINE_string('applied', None, 'table of applications, which are left out: ids of jobs '
                      'and, for many candidates, of candidates')
  flags.DEFINE_string('job', None, 'with --candidates: rank them for the job with this id')
  flags.DEFINE_enum('by', None, ('qualification', 'preference'), 'with --job: what ranks '
                    'candidates; without it qualification, where its expert is trained')
  flags.DEFINE_enum('format', 'table', ('table', 'json'), 'for people, or for programs')
  flags.DEFINE_bool('explain', False, 'with --candidate: what decided, and what would change it')
  flags.DEFINE_integer('workers', 0, 'with --candidates: Dask workers to start on this machine',
                       lower_bound=0)
  flags.DEFINE_string('scheduler', None, 'with --candidates: address or file of a Dask scheduler '
                      'whose workers see all of these files')
  flags.DEFINE_integer('shard_size', 256, 'with --candidates: how many are ranked together, and '
                       'lost with a worker', lower_bound=1)
  flags.mark_flags_as_mutual_exclusive(('candidate', 'candidates'), required=True)


def main(argv: Sequence[str]) -> None:
  del argv
  if FLAGS.resolve and FLAGS.tau is None:
    raise ValueError('--resolve must come with --tau, the mean C asked for, got none')
  if FLAGS.retrieve and (FLAGS.resolve or FLAGS.job is not None):
    raise ValueError('--retrieve must come without --resolve and --job, which ask for all scores')
  if FLAGS.job is not None and (FLAGS.candidates is None or FLAGS.out or FLAGS.tau is not None):
    raise ValueError('--job must come with --candidates, and without --tau and --out')
  if FLAGS.explain and FLAGS.candidate is None:
    raise ValueError('--explain must come with --candidate, got --candidates')
  if FLAGS.candidates is None or FLAGS.job is not None:
    few()
  else:
    many()


def many() -> None:
  from jobrec_jax.pipeline import cluster, recommend_many  # here, for one candidate needs neither
  if not FLAGS.out:
    raise ValueError(f'--out must name the file to write, got {FLAGS.out!r}')
  asked = recommend_many.Request(
      FLAGS.run, FLAGS.candidates, FLAGS.tau, FLAGS.top_k, FLAGS.catalogue or '',
      FLAGS.applied or '', FLAGS.resolve, retrieve=FLAGS.retrieve)
  with cluster.cluster(FLAGS.scheduler, FLAGS.workers) as client:
    count = recommend_many.recommend_many(asked, FLAGS.out, FLAGS.shard_size, client)
  print(f'{FLAGS.out}: jobs for {count} candidates')


def few() -> None:
  use_compilation_cache()
  run, asked = load(FLAGS.run), Asked(
      FLAGS.tau, FLAGS.top_k, FLAGS.catalogue or '', FLAGS.applied or '', FLAGS.resolve,
      FLAGS.format == 'json', FLAGS.explain, FLAGS.retrieve)
  text, warnings = (jobs_for(run, FLAGS.candidate, FLAGS.id, asked) if FLAGS.job is None else
                    candidates_for(run, FLAGS.candidates, FLAGS.job, FLAGS.by, asked))
  if warnings:
    print(warn(warnings), file=sys.stderr)
  print(text)


if __name__ == '__main__':
  define_flags()
  launch(main)
