"""Rows of finished studies, as benchmarks/results/studies keeps them: no more than tables show.

A file is one JSON array. Its first row has all of a study's results but the values; each other row
is of one `GROUP`, with the runs that have a value, the values to six decimals, and tau of each.
A study of 60 runs with every rival then takes a megabyte.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
import shutil
from typing import Any

from benchmarks import requirements, worlds
from jobrec_jax.pipeline.study_results import ORIGIN, RESULTS, read_results
from jobrec_jax.report.study_tables import PAIRS
from jobrec_jax.schema.files import read_json, write_rows

KEPT = Path(__file__).parent / 'results/studies'
GROUP = 'variant', 'requirement', 'system', 'split', 'perspective', 'metric'
SHOWN = {'ndcg@5', 'auc', 'predicted C', 'true C', 'true eligibility@5',
         'loss of true preference@5', 'expected surplus@5', 'regret of expected surplus@5'}
Row = Mapping[str, Any]
Results = Mapping[str, Any]


def take(study: Path, kept: Path = KEPT) -> None:
  """Keeps the rows of a study under its folder's name.

  Of single runs those of its reference, or where variants are worlds, or requirements of several
  kinds, what is shown of each.
  """
  results = read_results(study / RESULTS)
  first = next(iter(results['variants']))
  few = {}
  if requirements.is_of_requirements(results) or requirements.is_of_candidates(results):
    values, few = requirements.kept_rows(results), {'compared': [], 'systems': []}
  elif worlds.is_of_worlds(results):
    values, few = worlds.kept_rows(results), {'compared': [], 'systems': []}
  else:
    values = [r for r in results['values'] if r['variant'] == first and (
        r['split'] == PAIRS or r['metric'] in SHOWN or r['metric'].endswith(' of the way'))]
  runs = len({(r['variant'], r['data_seed'], r['seed']) for r in results['values']})
  kept.mkdir(parents=True, exist_ok=True)
  write(kept / f'{study.name}.json', results | few | {'runs': runs, 'values': values})
  shutil.copyfile(study / ORIGIN, kept / f'{study.name}.{ORIGIN}')


def write(path: Path, results: Results) -> None:
  write_rows(path, [{k: v for k, v in results.items() if k != 'values'},
                    *_grouped(results['values'])])


def read(study: str, kept: Path = KEPT) -> Results:
  """The results of a study with the values that were kept."""
  about, *groups = read_json(kept / f'{study}.json')
  return about | {'values': [row for group in groups for row in _rows(group)]}


def origin(study: str, kept: Path = KEPT) -> Results:
  """Where a study's rows come from, and what they took."""
  return read_json(kept / f'{study}.{ORIGIN}')


def _grouped(rows: Iterable[Row]) -> list[dict[str, Any]]:
  groups: dict[tuple, dict[str, Any]] = {}
  for row in rows:
    key = tuple(row[k] for k in GROUP)
    group = groups.setdefault(key, dict(zip(GROUP, key)) | {'runs': [], 'value': [], 'tau': []})
    group['runs'].append([row['data_seed'], row['seed']])
    for k in ('value', 'tau'):
      group[k].append(None if row[k] is None else round(row[k], 6))
  return [g | {'tau': None} if set(g['tau']) == {None} else g for g in groups.values()]


def _rows(group: Row) -> list[Row]:
  where = {k: group[k] for k in GROUP}
  tau = group['tau'] or [None] * len(group['runs'])
  return [where | {'data_seed': data_seed, 'seed': seed, 'tau': t, 'value': value}
          for (data_seed, seed), t, value in zip(group['runs'], tau, group['value'])]
