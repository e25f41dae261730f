"""The quickstart at several seeds: what the README shows, as mean and standard deviation.

  python -m benchmarks.quickstart --workdir=runs/seeds --seeds=5 [--render]

Every seed draws a market of its own and trains on it. benchmarks/results/quickstart.json keeps each
run's rows that the tables are made from; --render makes the tables of them again without a run.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from pathlib import Path
import statistics

from absl import flags

from jobrec_jax.command_line import launch, use_compilation_cache
from jobrec_jax.schema.files import null_for_nan, read_json, write_rows

RESULTS = Path(__file__).parent / 'results/quickstart.json'
SYSTEMS = ('preference expert', 'qualification expert', 'preference expert, narratives blanked',
           'logistic regression', 'schema rules', 'popularity', 'canary: constant')
CEILING = 'the truth (ceiling)'


def measure(folder: Path, seeds: int) -> list[dict]:
  """Rows of every run; a finished run is read and not made again."""
  from jobrec_jax.pipeline.report import report
  from jobrec_jax.pipeline.run import Run
  from jobrec_jax.pipeline.settings import DataSettings, Settings
  rows = []
  for seed in range(seeds):
    run = Run(folder / f'seed-{seed}', Settings(seed=seed, data=DataSettings(seed=seed)))
    results = report(run)
    for r in results.rows:
      level = results.taus.index(r.tau) if r.tau is not None else None
      rows.append({'seed': seed, 'level': level, **dataclasses.asdict(r)})
  return [null_for_nan(r) for r in rows if needed(r)]


def needed(row: dict) -> bool:
  """Whether a table shows the row."""
  if row['level'] is not None or row['split'] == 'uniform test pairs':
    return True
  return row['split'] == 'cold candidates' and row['metric'] == 'ndcg@5'


def over_seeds(rows: Iterable[dict], **where) -> str:
  """'0.895 ± 0.012' of the rows that agree with `where`, one a seed; '' without any."""
  values = [r['value'] for r in rows if all(r[k] == v for k, v in where.items())]
  if not values:
    return ''
  if len({r['seed'] for r in rows}) != len(values):
    raise ValueError(f'{where} must be one row a seed, got {len(values)}')
  return f'{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}'


def tables(rows: Sequence[dict]) -> str:
  """Markdown."""
  plain = {'split': 'cold candidates', 'metric': 'ndcg@5', 'against': None, 'tau': None}
  lines = ['| system | preference | qualification |', '|---|---:|---:|']
  for system in SYSTEMS:
    cells = [over_seeds(rows, system=system, perspective=p, **plain)
             for p in ('preference', 'qualification')]
    lines.append(f'| {system.removeprefix("canary: ")} | {" | ".join(cells)} |')
  cells = [over_seeds(rows, system=f'true {letter} (ceiling)', perspective=p, **plain)
           for letter, p in (('P', 'preference'), ('Q', 'qualification'))]
  lines += [f'| {CEILING} | {" | ".join(cells)} |', '',
            '| requirement | τ | C, stage 2\'s lists | C, held-out lists | true C, held-out '
            '| true eligibility of the top 5 | preference NDCG@5 |',
            '|---|---:|---:|---:|---:|---:|---:|']
  for level in sorted({r['level'] for r in rows if r['level'] is not None}):
    at = [r for r in rows if r['level'] == level]
    where = (('stage 2 lists', 'policy', 'predicted C'), ('held-out lists', 'policy',
                                                          'predicted C'),
             ('held-out lists', 'policy', 'true C'),
             ('cold candidates', 'policy', 'true eligibility@5'),
             ('cold candidates', 'preference', 'ndcg@5'))
    cells = [over_seeds(at, split=s, perspective=p, metric=m) for s, p, m in where]
    tau = statistics.mean({r['seed']: r['tau'] for r in at}.values())
    asked = [f'{level} of 6', f'{tau:.3f}'] if level else ['none', '']
    lines.append(f'| {" | ".join([*asked, *cells])} |')
  lines += ['', '| uniform pairs of held-out candidates | mean ± sd over seeds |', '|---|---:|']
  found = dict.fromkeys((r['system'], r['metric']) for r in rows
                        if r['split'] == 'uniform test pairs')
  for system, metric in found:
    where = {'system': system, 'metric': metric, 'split': 'uniform test pairs'}
    lines.append(f'| {system}: {metric} | {over_seeds(rows, **where)} |')
  return '\n'.join(lines)


def main(argv: Sequence[str]) -> None:
  del argv
  if not flags.FLAGS.render:
    use_compilation_cache()
    write_rows(RESULTS, measure(Path(flags.FLAGS.workdir), flags.FLAGS.seeds))
  print(tables(read_json(RESULTS)))


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/seeds', 'where the runs lie')
  flags.DEFINE_integer('seeds', 5, 'how many', lower_bound=2)
  flags.DEFINE_bool('render', False, 'print the tables of the kept rows')
  launch(main)
