"""What came out of a study, kept as rows of numbers: tables and pages are made from them alone.

  STUDY/results.json     every variant beside the reference, and each run's main numbers
  STUDY/origin.json      where they come from: commits, versions, devices, seconds

Nothing in results.json depends on when, where or in which order the runs were made.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
from typing import Any

from jobrec_jax.evaluate.comparison import Combined, combine
from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.pipeline.compare import Key, Member, compare_systems, keyed
from jobrec_jax.pipeline.evaluate import read_estimates
from jobrec_jax.pipeline.measures.subject import (
    BOUND,
    PREFERENCE,
    QUALIFICATION,
    STAGE_2,
    UNIFORM,
)
from jobrec_jax.pipeline.provenance import told
from jobrec_jax.pipeline.scores import HELD_OUT, split_of
from jobrec_jax.pipeline.stage import plain
from jobrec_jax.pipeline.store import ABOUT, check_whole, read_about
from jobrec_jax.pipeline.study import Member as RunOfStudy, Study, road_of
from jobrec_jax.pipeline.tasks import Task
from jobrec_jax.report.compared import ComparedRow
from jobrec_jax.report.findings import LOGGED, LOSS, REGRET, SURPLUS
from jobrec_jax.report.results import ResultRow, range_of
from jobrec_jax.schema.files import null_for_nan, read_json

RESULTS, ORIGIN = 'results.json', 'origin.json'
Results = dict[str, Any]
OWN = {'preference': PREFERENCE, 'qualification': QUALIFICATION}  # the expert of a perspective
SHOWN = re.compile(r'ndcg@5\b.*|true (eligibility|preference)@5')  # of a table of systems


def read_runs(runs: Sequence[RunOfStudy], store: Path) -> dict[str, list[Member]]:
  """The evaluations of a study's runs by variant, in the order of the study.

  Raises:
    ValueError: one is missing or damaged.
  """
  systems: dict[str, list[Member]] = {}
  for run in runs:
    place = store / road_of(run).evaluation.key
    check_whole(place)
    systems.setdefault(run.variant, []).append(
        Member(run.seed, run.data_seed, *read_estimates(place)))
  return systems


def study_results(study: Study, systems: Mapping[str, Sequence[Member]], level: float) -> Results:
  """The study as rows.

  Args:
    study: for its question and purposes.
    systems: variant -> the runs of it that are complete.
    level: of intervals; 1 − level of the tests.

  Returns:
    'question', 'variants' (name -> purpose), 'changes' (name -> settings), 'level', 'compared'
    (rows of `ComparedRow`), 'systems' (of the reference, see `system_rows`), and 'values' (the main
    numbers of each run).
  """
  compared = []
  if study.reference in systems:
    compared = compare_systems(systems, study.reference, level)
  return {
      'question': study.question,
      'variants': {name: v.purpose for name, v in study.variants.items()},
      'changes': {name: plain(dict(v.changes)) for name, v in study.variants.items()},
      'level': level,
      'compared': [null_for_nan(row._asdict()) for row in compared],
      'systems': system_rows(systems.get(study.reference, ()), level),
      'values': [null_for_nan({'variant': name, 'data_seed': m.data_seed, 'seed': m.seed,
                               'requirement': key.requirement, 'tau': row.tau,
                               'system': row.system, 'split': row.split,
                               'perspective': row.perspective, 'metric': row.metric,
                               'value': row.value})
                 for name, members in systems.items() for m in members
                 for key, row in main_rows(m)]}


def system_rows(members: Sequence[Member], level: float) -> list[dict[str, Any]]:
  """Every system's mean over runs with its interval: what knows no requirement, measure by measure.

  Args:
    members: the runs of a variant.
    level: of the intervals, which hold over data seeds and training seeds; see `combine`.

  Returns:
    'system', 'split', 'perspective', 'metric', 'value', 'low', 'high', 'runs', and 'ahead', the
    paired difference of the perspective's own expert to the system as [mean, low, high], or None; a
    measure that some run lacks is left out.
  """
  found = [{key[:1] + key[2:]: estimate for key, estimate in keyed(m).items()
            if not key.requirement and SHOWN.fullmatch(key.metric)} for m in members]
  rows = []
  for key in found[0] if found else ():
    if not all(key in of_run for of_run in found):
      continue
    mean, (least, most) = _over_runs(members, [r[key] for r in found], level), range_of(key[-1])
    numbers = {'value': mean.value, 'low': max(mean.low, least), 'high': min(mean.high, most)}
    own, ahead = (OWN.get(key[2]), *key[1:]), None
    if own != key and all(own in of_run for of_run in found):
      ahead = list(_over_runs(members, [r[own] - r[key] for r in found], level)[:3])
    rows.append(null_for_nan(dict(zip(('system', 'split', 'perspective', 'metric'), key))
                             | numbers | {'runs': len(members), 'ahead': ahead}))
  return rows


def _over_runs(members: Sequence[Member], estimates: Sequence[Estimate], level: float) -> Combined:
  by_data: dict[int, list] = {}
  for member, estimate in zip(members, estimates):
    by_data.setdefault(member.data_seed, []).append(estimate)
  return combine(list(by_data.values()), level)


def main_rows(member: Member) -> list[tuple[Key, ResultRow]]:
  """The rows of a run that tables show: NDCG@5 on both axes, the policy and losses, and pairs."""
  own = [r for r in member.rows if r.against is None]
  split = own[0].split
  return [(key, row) for key, row in zip(keyed(member), own, strict=True)
          if row.split in (UNIFORM, LOGGED) or row.metric in (LOSS, SURPLUS, REGRET)
          or (row.metric in ('ndcg@5', 'auc') and split_of(row.split) == split)
          or (row.system in ('policy', BOUND) and row.split in (HELD_OUT, split, STAGE_2))]


def study_origin(todo: Sequence[Task], store: Path) -> dict[str, Any]:
  """Where the artefacts of some tasks come from.

  Returns:
    'once', the seconds of all stages; 'alone', of the stages of every run as if it had been made
    alone; 'stages', name -> (how many, seconds); 'commits', 'devices', 'versions'.
  """
  abouts = [(task, read_about(store / task.stage.key)['provenance']) for task in todo
            if (store / task.stage.key / ABOUT).is_file()]
  stages, versions = {}, {}
  once = alone = 0.0
  for task, about in abouts:  # no digest protects provenance: what is damaged is left out
    took = told(about, 'seconds', float, 0.0)
    once, alone = once + took, alone + took * len(task.runs)
    stages.setdefault(task.stage.name, []).append(took)
    versions |= told(about, 'versions', dict, {})
  commits, devices = ({told(about, key, str) for _, about in abouts}
                      for key in ('commit', 'device'))
  return {'once': once, 'alone': alone,
          'stages': {name: [len(took), round(sum(took), 1)] for name, took in stages.items()},
          'commits': sorted(commits), 'devices': sorted(d for d in devices if ' x ' in d),
          'versions': versions}


def read_results(path: str | Path) -> Results:
  """Raises ValueError: it is no file that `write_results` wrote."""
  results = read_json(path)
  wanted = {'question', 'variants', 'level', 'compared', 'values'}
  if not isinstance(results, dict) or set(results) < wanted:
    raise ValueError(f'{path}: must be the results of a study with {sorted(wanted)}, got '
                     f'{sorted(results) if isinstance(results, dict) else type(results).__name__}')
  return results


def compared_rows(results: Results) -> list[ComparedRow]:
  """The rows back, null as nan."""
  nan = float('nan')
  return [ComparedRow(**{f: nan if row[f] is None else row[f] for f in ComparedRow._fields})
          for row in results['compared']]
