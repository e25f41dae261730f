"""The files that a person opens after a study: results.md and report.html."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobrec_jax.pipeline.reasons import duration
from jobrec_jax.pipeline.study import Study
from jobrec_jax.pipeline.study_results import (
    ORIGIN,
    RESULTS,
    Results,
    read_runs,
    study_origin,
    study_results,
)
from jobrec_jax.pipeline.study_run import Made, todo
from jobrec_jax.report import study_tables
from jobrec_jax.schema.files import write_json, write_text

Origin = dict[str, Any]
KEY = ('The first row is mean ± standard deviation over runs, the others are differences to it. '
       '▲ better, ▼ worse: told apart at {share:.0%} after correction for all tests of the table '
       '(Holm), over candidates, jobs and seeds.')


def write_study(study: Study, made: Made, folder: Path, store: Path,
                level: float) -> tuple[Results, Origin]:
  """Writes results.json, origin.json, results.md and report.html of the runs that are complete."""
  results = study_results(study, read_runs(made.complete, store), level)
  write_json(folder / RESULTS, results, indent=1)
  origin = study_origin(todo(made.complete), store)
  write_json(folder / ORIGIN, origin, indent=1)
  write_text(folder / 'results.md', text(results))
  return results, origin


def costs(origin: Mapping[str, Any]) -> str:
  """What sharing saved."""
  return (f"Stages took {duration(origin['once'])}; each run alone, {duration(origin['alone'])} in "
          f"all ({origin['once'] / origin['alone']:.2f}).")


def text(results: Mapping[str, Any]) -> str:
  """The study for a terminal and for results.md."""
  parts = [f"# {results['question']}"]
  if results['compared']:
    parts += [study_tables.differences(results), KEY.format(share=1 - results['level']),
              study_tables.told_apart(results)]
  return '\n\n'.join([*parts, study_tables.purposes(results)]) + '\n'
