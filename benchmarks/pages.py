"""The tables and pictures of README.md and docs, from kept rows of studies.

  python -m experiments.study --study=configs/studies/main_table.py --workdir=runs/main
  python -m benchmarks.pages --take=runs/main       keeps its rows in benchmarks/results/studies
  python -m benchmarks.pages                        writes tables and picture again

A table stands between `<!-- STUDY TABLE -->` and `<!-- end -->`, where TABLE is one of `TABLES`.
"""

from collections.abc import Callable, Mapping, Sequence
import functools
from pathlib import Path
import re
import statistics
from typing import Any

from absl import flags

from benchmarks import kept, requirements, worlds
from benchmarks.pictures import Point, trade_off
from jobrec_jax.command_line import launch
from jobrec_jax.report import study_tables
from jobrec_jax.report.results import CEILING
from jobrec_jax.schema.files import write_text

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', ROOT / 'docs/results.md', ROOT / 'docs/funnel.md',
         ROOT / 'docs/requirement.md')
PICTURES = ROOT / 'docs/pictures'
Results = Mapping[str, Any]
FRONT = (*study_tables.EXPERTS, study_tables.CHANCE, 'conflated',
         'logistic regression with words', 'factorization machine with words', 'funnel likelihood')


def of_reference(table: Callable[[Sequence[dict]], str]) -> Callable[[Results, Results], str]:
  """A table of the values of a study's first variant."""
  def written(results: Results, origin: Results) -> str:
    del origin
    first = next(iter(results['variants']))
    return table([r for r in results['values'] if r['variant'] == first])
  return written


def of_worlds(measure: worlds.Measure, hidden: bool) -> Callable[[Results, Results], str]:
  """A table of a measure over worlds, with hidden causes or without."""
  return lambda results, origin: worlds.table(results, measure, hidden)


def origin_line(results: Results, origin: Results) -> str:
  """Where the rows come from, and what they took."""
  seeds, markets = ({r[k] for r in results['values']} for k in ('seed', 'data_seed'))
  commits = ', '.join(c or 'unknown' for c in origin['commits'])
  return (f"{len(results['variants'])} variant{'s' * (len(results['variants']) > 1)}, "
          f"{len(seeds)} training seed{'s' * (len(seeds) > 1)}, "
          f"{len(markets)} data seed{'s' * (len(markets) > 1)}: "
          f"{results['runs']} runs. Their stages took {origin['once'] / 60:.0f} minutes; each run "
          f"alone, {origin['alone'] / 60:.0f} ({origin['once'] / origin['alone']:.2f}). Made by "
          f"{', '.join(origin['devices'])}, at commit {commits}, with "
          + ', '.join(f'{name} {v}' for name, v in origin['versions'].items()) + '.')


TABLES: dict[str, Callable[[Results, Results], str]] = {
    'ranking': of_reference(study_tables.ranking),
    'front': of_reference(lambda rows: study_tables.ranking([
        r for r in rows if r['system'] in FRONT or CEILING in r['system']])),
    'auc': of_reference(functools.partial(study_tables.ranking, metric='auc')),
    'policy': of_reference(study_tables.policy),
    'kept': of_reference(study_tables.kept),
    **{table.__name__: of_reference(table) for table in (
        study_tables.across, study_tables.losses, study_tables.surplus,
        study_tables.calibration, study_tables.separation)},
    **{f'errors-{own.lower()}': of_reference(functools.partial(study_tables.errors, own=own))
       for own in 'PQ'},
    'ahead': lambda results, origin: study_tables.ahead(results['systems']),
    'differences': lambda results, origin: study_tables.differences(results),
    'purposes': lambda results, origin: study_tables.purposes(results), 'origin': origin_line,
    'curve': lambda results, origin: requirements.candidates(results),
    'against': lambda results, origin: worlds.against(results),
    'assumptions': lambda results, origin: worlds.assumptions(),
    **{f'bound-{name}': functools.partial(lambda of, results, origin: of(results), of)
       for name, of in requirements.TABLES.items()},
    **{f'{name}{end}': of_worlds(measure, bool(end)) for name, measure in (
        ('rank-q', worlds.RANK_Q), ('rank-p', worlds.RANK_P), ('mean-q', worlds.MEAN_Q),
        ('mixed-q', worlds.MIXED_Q), ('mixed-p', worlds.MIXED_P)) for end in ('', worlds.HIDDEN)}}
MARK = re.compile(rf'(<!-- ([\w-]+) ({"|".join(TABLES)}) -->\n).*?(<!-- end -->)', re.S)


def render(page: str, folder: Path = kept.KEPT) -> str:
  """A page with its tables written from kept rows."""
  def written(match: re.Match) -> str:
    start, study, table, end = match.groups()
    told = TABLES[table](kept.read(study, folder), kept.origin(study, folder))
    return f'{start}{told}\n{end}'
  return MARK.sub(written, page)


def picture(results: Results) -> str:
  """Preference against true eligibility of the top five, a point for each requirement."""
  first = next(iter(results['variants']))
  rows = [r for r in results['values'] if r['variant'] == first and r['requirement']]
  split = results['values'][0]['split']
  names = list(dict.fromkeys(r['requirement'] for r in rows))
  points = []
  for name in names:
    at = [r for r in rows if r['requirement'] == name and r['split'] == split]
    x, y = ([r['value'] for r in at if (r['perspective'], r['metric']) == where]
            for where in (('policy', 'true eligibility@5'), ('preference', 'ndcg@5')))
    tau = statistics.mean({(r['data_seed'], r['seed']): r['tau'] for r in at}.values())
    label = 'no requirement' if not tau else f'τ = {tau:.2f}' if name == names[-1] else ''
    points.append(Point(label, statistics.mean(x), statistics.stdev(x), statistics.mean(y),
                        statistics.stdev(y)))
  return trade_off(points, 'true eligibility of the top five', 'preference NDCG@5')


def main(argv: Sequence[str]) -> None:
  del argv
  if flags.FLAGS.take:
    kept.take(Path(flags.FLAGS.take))
  for page in PAGES:
    write_text(page, render(page.read_text()))
  write_text(PICTURES / 'result.svg', picture(kept.read('main')))
  write_text(PICTURES / 'funnel.svg', worlds.picture(kept.read('funnel')))


if __name__ == '__main__':
  flags.DEFINE_string('take', None, 'the folder of a finished study whose rows are to be kept')
  launch(main)
