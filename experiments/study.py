"""Named variants of one run, each at several seeds: made once what they share, compared honestly.

  python -m experiments.study --study=configs/studies/ablations.py --seeds=5
  python -m experiments.study --study=... --dry_run            what would run, why, what it takes
  python -m experiments.study --study=... --workers=2          on workers of this machine
  python -m experiments.study --study=... --scheduler=ADDRESS  on a Dask cluster
  python -m experiments.study --study=... --shard=0/4          every fourth run: plain job arrays

The same command resumes. --config is what the variants change; configs/small.py makes a try of
minutes. What came out is kept in WORKDIR/results.md and report.html, every system of the first
variant beside every other in systems.md and systems.tex; the command for intervals and p-values is
printed. The log has a line a stage at most, and every warning; with --v=1 all lines. Exit status 1:
a stage failed; the others are made. docs/tutorial.md goes through one.
"""

import sys

from absl import flags, logging

from jobrec_jax import command_line
from jobrec_jax.pipeline import study_run
from jobrec_jax.pipeline.cluster import cluster
from jobrec_jax.pipeline.reasons import plan_text
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.study import members, read_study, shard, unread
from jobrec_jax.pipeline.study_report import costs, ending, write_study

FLAGS = flags.FLAGS


def main(run: Run) -> None:
  study = read_study(FLAGS.study or '')
  runs = members(study, run.settings, FLAGS.seeds, FLAGS.data_seeds)
  mine = shard(runs, FLAGS.shard) if FLAGS.shard else runs
  for sentence in unread(study, run.settings):
    logging.warning('%s', sentence)
  store = run.store.folder if FLAGS.store else study_run.store_of(run.folder) or run.store.folder
  if FLAGS.dry_run:
    print(plan_text(study_run.plan(mine, store)))
    return
  with cluster(FLAGS.scheduler, FLAGS.workers) as client:
    if client is None:
      command_line.use_devices(run.settings)
    command_line.spare_logs(study_run.__name__)
    made = study_run.make(study, mine, run.folder, store, client, run.store.mirror)
  if made.complete and not FLAGS.shard:
    results, origin = write_study(study, made, run.folder, store, run.settings.evaluate.level)
    if made.lost:
      print(f'Of {len(runs)} runs {len(made.complete)} came through: the table is of these.\n')
    print(f'{ending(results, made, run.folder)}\n{costs(origin)}')
  print(study_run.told(made))
  if made.failures:
    sys.exit(1)


if __name__ == '__main__':
  flags.DEFINE_string('study', None, 'a Python file whose get_study() names the variants; '
                      'it must be given')
  flags.DEFINE_integer('seeds', 5, 'training seeds of each variant', lower_bound=1)
  flags.DEFINE_integer('data_seeds', 1, 'seeds of the data, each with all training seeds',
                       lower_bound=1)
  flags.DEFINE_bool('dry_run', False, 'say what is there, what would run and why, and stop')
  flags.DEFINE_integer('workers', 0, 'Dask workers to start on this machine; 0: this process',
                       lower_bound=0)
  flags.DEFINE_string('scheduler', None, 'address or file of a Dask scheduler whose workers see '
                      'WORKDIR')
  flags.DEFINE_string('shard', None, "'i/n': only every n-th run from the i-th on")
  command_line.start(main, 'configs/quickstart.py', 'runs/study', devices=False)
