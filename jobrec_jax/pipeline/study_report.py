"""The files that a person opens after a study: results.md and report.html."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobrec_jax.pipeline.reasons import duration
from jobrec_jax.pipeline.study import Study
from jobrec_jax.pipeline.study_results import (
    ORIGIN,
    RESULTS,
    Results,
    compared_rows,
    read_runs,
    study_origin,
    study_results,
)
from jobrec_jax.pipeline.study_run import Made, todo
from jobrec_jax.report import study as study_page, study_tables
from jobrec_jax.report.html import Section
from jobrec_jax.report.results import Table
from jobrec_jax.report.study import write_page
from jobrec_jax.schema.files import write_json, write_text

Origin = dict[str, Any]
KEY = ('The first row is mean ± standard deviation over runs, the others are differences to it. '
       '▲ better, ▼ worse: told apart at {share:.0%} after correction for all tests of the table '
       '(Holm), over candidates, jobs and seeds. = stands on the same results; (τ) was asked for '
       'another τ at this rank of its grid, so that nothing is tested (policy.taus fixes them).')


def write_study(study: Study, made: Made, folder: Path, store: Path,
                level: float) -> tuple[Results, Origin]:
  """Writes results.json, origin.json, results.md and report.html of the runs that are complete."""
  results = study_results(study, read_runs(made.complete, store), level)
  write_json(folder / RESULTS, results, indent=1)
  origin = study_origin(todo(made.complete), store)
  write_json(folder / ORIGIN, origin, indent=1)
  write_text(folder / 'results.md', text(results))
  write_page(folder / 'report.html', study.question, page_rows(results), [
      ('variants', str(len(study.variants))), ('complete runs', str(len(made.complete))),
      ('runs that lack something', str(len(made.lost))),
      *((f'{name} seeds', str(len({r[key] for r in results['values']})))
        for name, key in (('training', 'seed'), ('data', 'data_seed')))],
      [Section('What it took', costs(origin), tables=[cost_table(origin)], terms=[
          ('commits', ', '.join(origin['commits'])), ('devices', ', '.join(origin['devices'])),
          ('versions', ', '.join(f'{name} {v}' for name, v in origin['versions'].items()))]),
       *failures(made)])
  return results, origin


def page_rows(results: Results) -> list[study_page.ComparedRow]:
  """The compared rows as the page shows them."""
  words = {'better': 'better', 'worse': 'worse', 'not different': 'open', 'no test': 'baseline',
           'the same': 'same', 'another τ': 'other'}
  runs = Counter((r['variant']) for r in {(r['variant'], r['data_seed'], r['seed']): r
                                          for r in results['values']}.values())
  return [study_page.ComparedRow(
      r.system, purpose(results, r.system), row['short'], r.mean, r.sd, r.diff, r.low, r.high,
      r.p_holm, words[r.verdict], runs[r.system])
      for r, row in zip(compared_rows(results), results['compared'])]


def purpose(results: Results, variant: str) -> str:
  """A variant's purpose, and the settings that it changes."""
  changes = ', '.join(f'{key} = {value}' for key, value in results['changes'][variant].items())
  return results['variants'][variant] + (f': {changes}' if changes else '')


def cost_table(origin: Mapping[str, Any]) -> Table:
  """What the stages of each name took."""
  return Table('Stages', ('stage', 'made', 'in all', 'each'), tuple(
      (name, str(count), duration(seconds), duration(seconds / count))
      for name, (count, seconds) in origin['stages'].items()))


def failures(made: Made) -> list[Section]:
  """What could not be made; nothing where all could."""
  rows = tuple((f.stage.key, f.message.splitlines()[0]) for f in made.failures if f.cause is None)
  if not rows:
    return []
  return [Section('What failed', 'Runs that stand on these stages are left out: '
                  + ', '.join(made.lost) + '.', tables=[Table('Failures', ('stage', 'why'), rows)])]


def costs(origin: Mapping[str, Any]) -> str:
  """What sharing saved."""
  return (f"Stages took {duration(origin['once'])}; each run alone would have taken "
          f"{duration(origin['alone'])} in all, so that sharing leaves "
          f"{origin['once'] / origin['alone']:.0%} of it.")


def text(results: Mapping[str, Any]) -> str:
  """The study for a terminal and for results.md."""
  parts = [f"# {results['question']}"]
  if results['compared']:
    parts += [study_tables.differences(results), KEY.format(share=1 - results['level']),
              study_tables.told_apart(results)]
  return '\n\n'.join([*parts, study_tables.purposes(results)]) + '\n'
