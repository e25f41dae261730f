"""The quickstart at several seeds: what the README shows, as mean and standard deviation.

  python -m benchmarks.quickstart --workdir=runs/seeds --seeds=5
  python -m benchmarks.quickstart --render

Every seed draws a market of its own and trains on it. benchmarks/results/quickstart.json keeps each
run's rows that the tables are made from. --render writes their tables into README.md and
docs/results.md, between their marks, and draws docs/pictures/result.svg, without a run.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from pathlib import Path
import statistics

from absl import flags

from benchmarks.pictures import Point, trade_off
from jobrec_jax.command_line import launch
from jobrec_jax.pipeline.compilation_cache import use_compilation_cache
from jobrec_jax.schema.files import null_for_nan, read_json, write_rows, write_text

RESULTS = Path(__file__).parent / 'results/quickstart.json'
SYSTEMS = ('preference expert', 'qualification expert', 'preference expert, narratives blanked',
           'logistic regression', 'schema rules', 'popularity', 'canary: constant')
PAGES = [Path(__file__).parents[1] / name for name in ('README.md', 'docs/results.md')]
PICTURE = Path(__file__).parents[1] / 'docs/pictures/result.svg'


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


def ranking_table(rows: Sequence[dict]) -> str:
  """NDCG@5 of every system, for both perspectives."""
  plain = {'split': 'cold candidates', 'metric': 'ndcg@5', 'against': None, 'tau': None}
  lines = ['| system | preference | qualification |', '|---|---:|---:|']
  for system in SYSTEMS:
    cells = [over_seeds(rows, system=system, perspective=p, **plain)
             for p in ('preference', 'qualification')]
    lines.append(f'| {system.removeprefix("canary: ")} | {" | ".join(cells)} |')
  cells = [over_seeds(rows, system=f'true {letter} (ceiling)', perspective=p, **plain)
           for letter, p in (('P', 'preference'), ('Q', 'qualification'))]
  return '\n'.join([*lines, f'| the truth (ceiling) | {" | ".join(cells)} |'])


def policy_table(rows: Sequence[dict]) -> str:
  """What each requirement of the grid brings; each seed has a grid of its own."""
  lines = ["| requirement | τ | C, stage 2's lists | C, held-out lists | true C, held-out | true "
           'eligibility of the top 5 | preference NDCG@5 |', '|---|---:|---:|---:|---:|---:|---:|']
  levels = sorted({r['level'] for r in rows if r['level'] is not None})
  where = (('stage 2 lists', 'policy', 'predicted C'), ('held-out lists', 'policy', 'predicted C'),
           ('held-out lists', 'policy', 'true C'),
           ('cold candidates', 'policy', 'true eligibility@5'),
           ('cold candidates', 'preference', 'ndcg@5'))
  for level in levels:
    at = [r for r in rows if r['level'] == level]
    cells = [over_seeds(at, split=s, perspective=p, metric=m) for s, p, m in where]
    tau = statistics.mean({r['seed']: r['tau'] for r in at}.values())
    asked = [f'{level} of {levels[-1]}', f'{tau:.3f}'] if level else ['none', '']
    lines.append(f'| {" | ".join([*asked, *cells])} |')
  return '\n'.join(lines)


def picture(rows: Sequence[dict]) -> str:
  """Preference against true eligibility of the top five, a point for each requirement."""
  levels = sorted({r['level'] for r in rows if r['level'] is not None})
  points = []
  for level in levels:
    at = [r for r in rows if r['level'] == level and r['split'] == 'cold candidates']
    x, y = ([r['value'] for r in at if (r['perspective'], r['metric']) == where]
            for where in (('policy', 'true eligibility@5'), ('preference', 'ndcg@5')))
    tau = statistics.mean({r['seed']: r['tau'] for r in at}.values())
    label = 'no requirement' if not level else f'τ = {tau:.2f}' if level == levels[-1] else ''
    points.append(Point(label, statistics.mean(x), statistics.stdev(x), statistics.mean(y),
                        statistics.stdev(y)))
  return trade_off(points, 'true eligibility of the top five', 'preference NDCG@5')


def pairs_table(rows: Sequence[dict]) -> str:
  """Calibration and de-conflation over uniform pairs of held-out candidates."""
  lines = ['| uniform pairs of held-out candidates | mean ± sd over seeds |', '|---|---:|']
  found = dict.fromkeys((r['system'], r['metric']) for r in rows
                        if r['split'] == 'uniform test pairs')
  for system, metric in found:
    where = {'system': system, 'metric': metric, 'split': 'uniform test pairs'}
    lines.append(f'| {system}: {metric} | {over_seeds(rows, **where)} |')
  return '\n'.join(lines)


def render(text: str, rows: Sequence[dict]) -> str:
  """A page with the tables between its marks."""
  for name, table in (('ranking', ranking_table), ('policy', policy_table), ('pairs', pairs_table)):
    start, end = f'<!-- quickstart {name} -->\n', f'\n<!-- end {name} -->'
    if start in text:
      before, rest = text.split(start)
      text = before + start + table(rows) + end + rest.split(end)[1]
  return text


def main(argv: Sequence[str]) -> None:
  del argv
  if flags.FLAGS.render:
    for page in PAGES:
      write_text(page, render(page.read_text(), read_json(RESULTS)))
    write_text(PICTURE, picture(read_json(RESULTS)))
    return
  use_compilation_cache()
  rows = measure(Path(flags.FLAGS.workdir), flags.FLAGS.seeds)
  write_rows(RESULTS, rows)
  print('\n\n'.join(table(rows) for table in (ranking_table, policy_table, pairs_table)))


if __name__ == '__main__':
  flags.DEFINE_string('workdir', 'runs/seeds', 'where the runs lie')
  flags.DEFINE_integer('seeds', 5, 'how many', lower_bound=2)
  flags.DEFINE_bool('render', False, 'write the tables of the kept rows into the pages')
  launch(main)
