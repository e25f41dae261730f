"""The files that a person opens after a study: results.md, report.html, and every system beside
every other as systems.md and systems.tex."""

from collections.abc import Mapping
from pathlib import Path
import shlex
from typing import Any

from jobrec_jax.baselines.rivals import RIVALS
from jobrec_jax.pipeline.measures.subject import PREFERENCE, QUALIFICATION, TRUE_PREFERENCE
from jobrec_jax.pipeline.reasons import duration
from jobrec_jax.pipeline.scores import rival_stage, rivals_among
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
from jobrec_jax.report import study_tables
from jobrec_jax.report.compared import OTHER, sampled
from jobrec_jax.report.html import Section
from jobrec_jax.report.results import Table, to_latex, to_markdown
from jobrec_jax.report.study import write_page
from jobrec_jax.schema.files import write_json, write_text

Origin = dict[str, Any]
TRAINING = ('tokenizer', 'linear', 'warm_up', 'censoring', 'cooperative')
WARM = ('† knows whom it ranks for by interactions alone: whom training has not seen it ranks by '
        'popularity.')
KEY = ('The first row is mean ± standard deviation over runs, the others are differences to it. '
       '▲ better, ▼ worse: told apart at {share:.0%} after correction for all tests of the table '
       '(Holm), over {over}. = stands on the same results.')
ASKED = (' (τ) was asked for another τ at this rank of its grid, so that nothing is tested '
         '(policy.taus asks all for the same, where all reach it).')
KEPT = (' At 10% of the way: the true preference of the best five where their true eligibility has '
        'gone 10% of the way from the choice of the truth P to that of the truth Q, the same for '
        'all variants. –: in some run the policy never gets so eligible, and nothing is tested; '
        'where that is the first row, the others show means.')


def write_study(study: Study, made: Made, folder: Path, store: Path,
                level: float) -> tuple[Results, Origin]:
  """Writes results.json, origin.json, results.md, systems.md, systems.tex and report.html of the
  runs that are complete."""
  results = study_results(study, read_runs(made.complete, store), level)
  write_json(folder / RESULTS, results, indent=1)
  origin = study_origin(todo(made.complete), store)
  write_json(folder / ORIGIN, origin, indent=1)
  write_text(folder / 'results.md', text(results))
  write_systems(folder, results, origin)
  write_page(folder / 'report.html', study.question, compared_rows(results), purposes(results), [
      ('variants', str(len(study.variants))), ('complete runs', str(len(made.complete))),
      ('runs that lack something', str(len(made.lost))),
      *((f'{name} seeds', str(len({r[key] for r in results['values']})))
        for name, key in (('training', 'seed'), ('data', 'data_seed')))],
      [Section('What it took', costs(origin), tables=[cost_table(origin)], terms=[
          ('commits', ', '.join(origin['commits'])), ('devices', ', '.join(origin['devices'])),
          ('versions', ', '.join(f'{name} {v}' for name, v in origin['versions'].items()))]),
       *failures(made)])
  return results, origin


def write_systems(folder: Path, results: Results, origin: Origin) -> None:
  """Writes systems.md and systems.tex: of the first variant every system × measure, and seconds."""
  rows, took = results['systems'], origin['stages']
  seconds = {name: took[stage][1] / took[stage][0] for name in rivals_among(
      r['system'] for r in rows) if (stage := rival_stage(name)) in took}
  expert = [took[name][1] / took[name][0] for name in TRAINING if name in took]
  seconds |= dict.fromkeys((PREFERENCE, QUALIFICATION), sum(expert)) if expert else {}
  warm = [name for name, rival in RIVALS.items() if rival.warm_only]
  tables = study_tables.systems(rows, seconds, warm)
  noted = any('†' in row[0] for table in tables for row in table.rows)
  runs = rows[0]['runs'] if rows else 0
  notes = [f"{results['question']} Means over {runs} runs with intervals at "
           f"{results['level']:.0%}; seconds of the stage that fits a rival and scores its lists, "
           'and of the stages that train both experts.', *([WARM] if noted else [])]
  ahead = ['## The expert of a perspective less its rivals, NDCG@5, paired run by run\n',
           study_tables.ahead(rows), ''] if rows else []
  write_text(folder / 'systems.md', '\n'.join([*(f'{n}\n' for n in notes), *ahead,
                                               *map(to_markdown, tables)]))
  write_text(folder / 'systems.tex', '\n'.join([*(f'% {n}' for n in notes), '',
                                                *map(to_latex, tables)]))


def purposes(results: Results) -> list[tuple[str, str]]:
  """Each variant with its purpose, and the settings that it changes."""
  return [(name, ': '.join(filter(None, (why, ', '.join(
      f'{key} = {value}' for key, value in results['changes'][name].items())))))
      for name, why in results['variants'].items()]


def key(results: Results) -> str:
  """What the marks of the table of differences mean."""
  rows = compared_rows(results)
  asked = ASKED if any(r.verdict == OTHER for r in rows) else ''
  kept = KEPT if any(TRUE_PREFERENCE in r.metric for r in rows) else ''
  return KEY.format(share=1 - results['level'], over=sampled(rows)) + asked + kept


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
    parts += [study_tables.differences(results), key(results),
              study_tables.told_apart(results)]
  return '\n\n'.join([*parts, study_tables.purposes(results)]) + '\n'


def ending(results: Results, made: Made, folder: Path) -> str:
  """What a terminal shows of a study: what was told apart, and what shows the rest."""
  lines = [f"# {results['question']}", '']
  if results['compared']:
    lines += [study_tables.told_apart(results), '']
  lines.append(f"The tables: {folder / 'results.md'}, {folder / 'report.html'}")
  command = compare_command(results, made, folder)
  if command:
    lines += ['With intervals and p-values, row by row:', '', f'  {command}', '']
  return '\n'.join(lines)


def compare_command(results: Results, made: Made, folder: Path) -> str:
  """The command that compares a study's complete runs; '' where the reference has none, or no
  other variant. Folders are named one by one where runs of earlier calls lie beside them."""
  found = {}
  for name in results['variants']:
    places = {str(folder / m.place) for m in made.complete if m.variant == name}
    beside = {str(p) for p in (folder / 'runs' / name).glob('*')}
    if places:
      found[name] = (' '.join(map(shlex.quote, sorted(places))) if beside - places
                     else f"{shlex.quote(str(folder))}/runs/{name}/*")
  if len(found) < 2 or next(iter(results['variants'])) not in found:
    return ''
  places = ' '.join(found.values())
  return f'python -m experiments.compare {places}'
