"""What is measured on held-out candidates and jobs, as rows with intervals.

Each row is kept as an estimate, too: how far each candidate and each job moves it. So runs over the
same data are compared by subtraction, without a run again. Words and tables are the report's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.control import ControlRow
from jobrec_jax.evaluate.statistics import Estimate, Interval, interval
from jobrec_jax.pipeline.measures.logged import logged_measures
from jobrec_jax.pipeline.measures.pairs import calibration_measures, truth_measures
from jobrec_jax.pipeline.measures.policy import policy_measures
from jobrec_jax.pipeline.measures.ranking import ranking_measures
from jobrec_jax.pipeline.measures.recommended import group_measures, recommended_measures
from jobrec_jax.pipeline.measures.subject import Measured, Subject
from jobrec_jax.pipeline.measures.surplus import surplus_measures
from jobrec_jax.pipeline.measures.tradeoff import tradeoff_measures
from jobrec_jax.pipeline.policy import requirements, stage_2_lists
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.report.results import ResultRow, range_of, read_results, write_results
from jobrec_jax.schema.files import load_arrays, read_json, save_arrays, write_json
from jobrec_jax.scoring.policy import Alone

ESTIMATES, FAMILIES = 'estimates.npz', 'families.npz'


class Evaluation(NamedTuple):
  """The rows of results.json, and what the figures show beside them.

  Attributes:
    rows: every number.
    split: where systems are compared first: 'cold candidates', or 'test' without truths.
    taus: what the policy was asked for; 0 asks for nothing. Empty without a policy.
    attainable: the least and greatest C on stage 2's lists; None without a policy.
    control: asked and reached eligibility, one for each requirement.
    predicted, outcome: [pairs] p_qual and the true Q; without truths the applicants' labels.
    families: [K, 2] mean true eligibility and preference of the top five of families of rankings.
  """

  rows: list[ResultRow]
  split: str
  taus: list[float]
  attainable: tuple[float, float] | None
  control: list[ControlRow]
  predicted: np.ndarray
  outcome: np.ndarray
  families: dict[str, np.ndarray]


def make_evaluation(bench: Bench) -> None:
  """Measures every system, and keeps rows, estimates, values by list, and what figures need."""
  s, of = bench.settings, Subject.of(bench)
  p, level = s['policy'], s['evaluate'].level
  measures, values = ranking_measures(of)
  taus, attainable, control, policy_values, families = [], None, [], {}, {}
  if not isinstance(of.trained, Alone):
    attainable = of.trained.attainable
    asked = requirements(p, attainable)
    taus = [0.0, *asked] if of.trained.policy.constraint == 'inequality' else asked
    lists = stage_2_lists(bench.inputs['data'].dataset, p.list_length, p.lists, s['seed'])
    policy, control, policy_values = policy_measures(of, taus, lists, level,
                                                     p.eligibility == 'believed')
    kept, families = tradeoff_measures(of, taus, p.objective)
    measures += policy + kept + logged_measures(of, taus)
  measures += surplus_measures(of, taus) + recommended_measures(of, taus)
  predicted, outcome, calibrated = calibration_measures(of)
  measures += calibrated + truth_measures(of)
  measures += group_measures(of, taus, s['evaluate'].groups)
  write_results(bench.folder, [result_row(m, level) for m in measures])
  save_estimates(bench.folder / ESTIMATES, [m.estimate for m in measures])
  save_arrays(bench.folder / 'values.npz', {
      f'{system}|{metric}': x for system, by_metric in (values | policy_values).items()
      for metric, x in by_metric.items()})
  save_arrays(bench.folder / FAMILIES, families)
  save_arrays(bench.folder / 'reliability.npz', {'predicted': predicted, 'outcome': outcome})
  write_json(bench.folder / 'control.json', {
      'split': of.lists.split, 'taus': taus, 'attainable': attainable and list(attainable),
      'rows': [row._asdict() | {'covered': bool(row.covered)} for row in control]})


def read_evaluation(bench: Bench) -> Evaluation:
  about = read_json(bench.folder / 'control.json')
  control = [ControlRow(**row | {'heldout': Interval(*row['heldout']),
                                 'true': row['true'] and Interval(*row['true'])})
             for row in about['rows']]
  pairs = load_arrays(bench.folder / 'reliability.npz')
  return Evaluation(read_results(bench.folder / 'results.json'), about['split'], about['taus'],
                    about['attainable'] and tuple(about['attainable']), control,
                    pairs['predicted'], pairs['outcome'], load_arrays(bench.folder / FAMILIES))


def result_row(m: Measured, level: float) -> ResultRow:
  """A measure with its interval, which ends where the metric does."""
  low, high = range_of(m.metric)
  within = (low, high) if m.against is None else (low - high, high - low)
  return ResultRow(m.system, m.tau, m.split, m.perspective, m.metric,
                   *interval(m.estimate, level, within), m.against)


def save_estimates(path: Path, estimates: Sequence[Estimate]) -> None:
  """Writes estimates over the same groups, one a row of each array."""
  save_arrays(path, {
      'value': np.array([e.value for e in estimates]),
      'candidates': np.stack([e.candidates for e in estimates]).astype(np.float32),
      'jobs': np.stack([e.jobs for e in estimates]).astype(np.float32),
      'pairs': np.stack([e.pairs for e in estimates]).astype(np.float32),
      'n': np.array([e.n for e in estimates]),
      'groups': np.array([e.groups for e in estimates])})


def read_estimates(folder: str | Path) -> tuple[list[ResultRow], list[Estimate]]:
  """The rows of an evaluation's folder, and the estimate of each.

  Raises:
    ValueError: a file is missing or damaged, or they are not of the same evaluation.
  """
  rows = read_results(Path(folder) / 'results.json')
  arrays = load_arrays(Path(folder) / ESTIMATES)
  columns = [arrays.get(name, ()) for name in Estimate._fields]
  if any(len(c) != len(rows) for c in columns):
    raise ValueError(f'{Path(folder) / ESTIMATES}: must hold {len(rows)} estimates as results.json '
                     f'does, got {[len(c) for c in columns]}; make the evaluation again')
  return rows, [Estimate(float(v), u.astype(np.float64), j.astype(np.float64), int(n),
                         tuple(map(int, g)), p.astype(np.float64))
                for v, u, j, n, g, p in zip(*columns)]


def read_values(bench: Bench) -> dict[str, np.ndarray]:
  """[N] values of each list by 'split/perspective/system|metric'."""
  return load_arrays(bench.folder / 'values.npz')
