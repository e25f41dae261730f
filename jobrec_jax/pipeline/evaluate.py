"""What is measured on held-out candidates and jobs.

Scores of lists become values (a number for each list, kept), values become tidy rows with
intervals; words and tables are the report's.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from jobrec_jax.data.dataset import Truth
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.control import ControlRow, control_rows, is_monotone
from jobrec_jax.evaluate.deconflation import deconflation_rows
from jobrec_jax.evaluate.eligibility import (
    calibration_error,
    calibration_error_by_group,
    expected_eligibility,
    policy_probabilities,
    violation_rate_at_k,
)
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import Bootstrap, Interval, bootstrap_mean, bootstrap_means
from jobrec_jax.pipeline.policy import TrainedPolicy, reached_by, requirements
from jobrec_jax.pipeline.scores import HELD_OUT, RIVALS, Case, EvaluationLists, case_scores
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.report.results import ResultRow, read_results, write_results
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_arrays, read_json, save_arrays, write_json
from jobrec_jax.schema.schema import PERSPECTIVES

PREFERENCE, QUALIFICATION = 'preference expert', 'qualification expert'
BLANKED = f'{PREFERENCE}, narratives blanked'
CEILINGS = {'preference': 'true P (ceiling)', 'qualification': 'true Q (ceiling)'}
STAGE_2, UNIFORM, APPLICANTS = 'stage 2 lists', 'uniform test pairs', 'test applicants'
ELIGIBILITY = 'true eligibility@5'
AT_ONCE = 1 << 21  # pairs whose ranking is worked on at a time

Values = dict[str, np.ndarray]  # metric -> [N], one for each list


class Evaluation(NamedTuple):
  """The rows of results.json, and what the figures show beside them.

  Attributes:
    rows: every number.
    split: where systems are compared first: 'cold candidates', or 'test' without truths.
    taus: what the policy was asked for; 0 asks for nothing.
    attainable: the least and greatest C on stage 2's lists.
    control: asked and reached eligibility, one for each requirement.
    predicted, outcome: [pairs] p_qual and the true Q; without truths the applicants' labels.
  """

  rows: list[ResultRow]
  split: str
  taus: list[float]
  attainable: tuple[float, float]
  control: list[ControlRow]
  predicted: np.ndarray
  outcome: np.ndarray


class _Measures:
  """The measures of one run; each method gives rows."""

  def __init__(self, bench: Bench):
    s = bench.settings
    self.inputs = bench.inputs
    self.truth: Truth | None = bench.inputs['data'].truth
    self.lists: EvaluationLists = bench.inputs['lists']
    self.trained: TrainedPolicy = bench.inputs['policy']
    self.calibration, self.job_offsets = bench.inputs['calibration']
    self.scores = bench.inputs['scores']
    self.policy_settings = s['policy']
    self.boot = Bootstrap(streams.seed32(s['seed'], 'bootstrap'), s['evaluate'].resamples,
                          s['evaluate'].level)
    self.values: dict[str, Values] = {}  # 'split/perspective/system' -> values, kept

  @property
  def taus(self) -> list[float]:
    asked = requirements(self.policy_settings, self.trained.attainable)
    return [0.0, *asked] if self.trained.policy.constraint == 'inequality' else asked

  def systems(self, case: Case) -> Iterator[tuple[str, np.ndarray]]:
    """Every system's scores of a case, in the order in which they are shown."""
    lists, perspective = self.lists.cases[case], case[1]
    experts = self.scores.of(lists)
    yield PREFERENCE, experts.preference
    yield QUALIFICATION, experts.qualification
    if self.truth is not None:
      yield CEILINGS[perspective], getattr(self.truth, perspective)[lists.candidate, lists.job]
    yield from case_scores(self.inputs, case)
    if case == (self.lists.split, 'preference'):
      yield BLANKED, self.inputs['blanked']

  def ranking_rows(self) -> list[ResultRow]:
    """All ranking metrics of all systems, then the experts' paired differences in NDCG@5."""
    rows, paired = [], []
    for case in self.lists.cases:
      by_system = {name: self.measure(case, scores) for name, scores in self.systems(case)}
      self.values |= {'/'.join((*case, name)): v for name, v in by_system.items()}
      expert = PREFERENCE if case[1] == 'preference' else QUALIFICATION
      rivals = [r for r in (*RIVALS, BLANKED) if r in by_system]
      names = [(s, m) for s, values in by_system.items() for m in values]
      columns = [by_system[s][m] for s, m in names]
      columns += [by_system[expert]['ndcg@5'] - by_system[r]['ndcg@5'] for r in rivals]
      intervals = bootstrap_means(np.stack(columns, 1), self.boot)
      rows += [ResultRow(s, None, *case, m, *i) for (s, m), i in zip(names, intervals)]
      paired += [ResultRow(expert, None, *case, 'ndcg@5', *i, rival)
                 for rival, i in zip(rivals, intervals[len(names):])]
    return rows + paired

  def measure(self, case: Case, scores: np.ndarray) -> Values:
    """Each list's metrics; of candidates' lists also the true eligibility of the best five."""
    lists = self.lists.cases[case]
    parts = []
    for at in row_slices(lists):
      part = ranking_metrics(scores[at], lists.relevance[at], lists.mask[at])
      if self.truth is not None and case[1] == 'preference':
        q = self.truth.qualification[lists.candidate[at], lists.job[at]]
        part[ELIGIBILITY] = 1 - violation_rate_at_k(scores[at], q, lists.mask[at], 5)
      parts.append(part)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

  def policy_scores(self, lists: RankingLists, at: slice, tau: float) -> np.ndarray:
    """[n, J] scores of some of the lists at a requirement."""
    part = RankingLists(lists.perspective, *(x[at] for x in (
        lists.candidate, lists.job, lists.relevance, lists.mask)))
    experts = self.scores.of(part)
    return self.trained.policy.at(self.scores.lam_of(part), experts.preference,
                                  self.calibration.logit(experts.qualification), tau)[0]

  def held_out_values(self, tau: float) -> Values:
    """What a requirement brings on lists like stage 2's."""
    lists = self.lists.held_out
    scores = self.policy_scores(lists, slice(None), tau)
    pi = policy_probabilities(scores, lists.mask, self.trained.policy.temperature)
    p_qual = np.asarray(self.calibration.probability(self.scores.of(lists).qualification))
    values = {'predicted C': expected_eligibility(pi, p_qual, lists.mask)}
    if self.truth is not None:
      pairs = lists.candidate, lists.job
      values['true C'] = expected_eligibility(pi, self.truth.qualification[pairs], lists.mask)
      values['expected true preference'] = expected_eligibility(
          pi, self.truth.preference[pairs], lists.mask)
    return values | {'ndcg@5': ranking_metrics(scores, lists.relevance, lists.mask)['ndcg@5']}

  def wanted_values(self, tau: float) -> Values:
    """What a requirement brings on the lists on which systems are compared first."""
    lists, parts = self.lists.wanted, []
    for at in row_slices(lists):
      scores, mask = self.policy_scores(lists, at, tau), lists.mask[at]
      part = {'ndcg@5': ranking_metrics(scores, lists.relevance[at], mask)['ndcg@5']}
      if self.truth is not None:
        pairs = lists.candidate[at], lists.job[at]
        part[ELIGIBILITY] = 1 - violation_rate_at_k(scores, self.truth.qualification[pairs], mask,
                                                    5)
        part['violation@5'] = violation_rate_at_k(scores, self.truth.eligible[pairs], mask, 5)
      parts.append(part)
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

  def policy_rows(self) -> tuple[list[ResultRow], list[ControlRow]]:
    """What each requirement brings, and whether it was kept."""
    rows, by_where = [], {}
    for where, measure in ((HELD_OUT, self.held_out_values), (self.lists.split,
                                                              self.wanted_values)):
      by_tau = by_where[where] = {tau: measure(tau) for tau in self.taus}
      self.values |= {f'{where}/policy/policy at {tau:g}': v for tau, v in by_tau.items()}
      names = [(tau, m) for tau, values in by_tau.items() for m in values]
      intervals = bootstrap_means(np.stack([by_tau[t][m] for t, m in names], 1), self.boot)
      rows += [ResultRow('policy', tau, where, 'preference' if m == 'ndcg@5' else 'policy', m, *i)
               for (tau, m), i in zip(names, intervals)]
    held_out = by_where[HELD_OUT]
    control = self.control(held_out)
    inputs = self.inputs['inputs']
    for c in control:
      rows += [ResultRow('policy', c.tau, STAGE_2, 'policy', 'predicted C',
                         *exact(c.reached, len(inputs.mask))),
               ResultRow('policy', c.tau, STAGE_2, 'policy', '|C − τ|',
                         *exact(c.gap, len(inputs.mask))),
               ResultRow('policy', c.tau, HELD_OUT, 'policy', 'τ in the interval of C',
                         *exact(c.covered, len(self.lists.held_out)))]
    for where, metric in ((HELD_OUT, 'true C'), (self.lists.split, ELIGIBILITY)):
      if self.truth is not None:
        rises = is_monotone([v[metric].mean() for v in by_where[where].values()])
        rows.append(ResultRow('policy', None, where, 'policy', f'monotone {metric}',
                              *exact(rises, len(self.taus))))
    return rows, control

  def control(self, held_out: dict[float, Values]) -> list[ControlRow]:
    """Asked and reached for each requirement that asks for something."""
    asked = [tau for tau in self.taus if tau]
    trained = reached_by(self.trained.policy, self.inputs['inputs'], asked)
    true = None
    if self.truth is not None:
      true = np.stack([held_out[t]['true C'] for t in asked])
    return control_rows(asked, trained, np.stack([held_out[t]['predicted C'] for t in asked]),
                        self.boot, true)

  def measured_pairs(self) -> list[RankingLists]:
    """Uniform pairs of held-out candidates; without truths the labelled applicants."""
    perspective = 'qualification' if self.truth is None else 'preference'
    return [lists for case, lists in self.lists.cases.items() if case[1] == perspective]

  def calibration_rows(self) -> tuple[np.ndarray, np.ndarray, list[ResultRow]]:
    """The error of p_qual beside that of others, over all pairs and by job.

    The others are the raw logit's sigmoid, and p_qual with a shift for each job. Against the true
    Q of uniform pairs; without truths against the labels of test applicants, who are no uniform
    pairs.
    """
    def flat(of):
      return np.concatenate([of(lists)[lists.mask] for lists in self.measured_pairs()])
    logits, job = flat(lambda x: self.scores.of(x).qualification), flat(lambda x: x.job)
    if self.truth is None:
      split, outcome = APPLICANTS, flat(lambda x: x.relevance).astype(np.float64)
    else:
      split = UNIFORM
      outcome = flat(lambda x: self.truth.qualification[x.candidate, x.job])
    predicted = np.asarray(self.calibration.probability(logits))
    shifted = self.calibration.logit(logits) + self.job_offsets[job]
    rows = []
    for system, p in ((QUALIFICATION, predicted),
                      (f'{QUALIFICATION}, recalibrated by job', np.asarray(sigmoid(shifted))),
                      (f'{QUALIFICATION}, uncalibrated', np.asarray(sigmoid(logits)))):
      by_job = bootstrap_mean(calibration_error_by_group(p, outcome, job), self.boot)
      rows += [ResultRow(system, None, split, 'qualification', 'calibration error',
                         *exact(calibration_error(p, outcome), len(p))),
               ResultRow(system, None, split, 'qualification', 'calibration error by job',
                         *by_job)]
    return predicted, outcome, rows

  def correlation_rows(self) -> list[ResultRow]:
    """Each expert's correlation with both truths, plain and given the other truth."""
    if self.truth is None:
      return []
    pairs = self.measured_pairs()
    u, j = (np.concatenate([getattr(x, name).ravel() for x in pairs])
            for name in ('candidate', 'job'))
    experts = [self.scores.of(x) for x in pairs]
    s_pref, s_qual = (np.concatenate([getattr(x, name).ravel() for x in experts])
                      for name in PERSPECTIVES)
    letter = {'preference': 'P', 'qualification': 'Q'}
    systems = {'preference': PREFERENCE, 'qualification': QUALIFICATION, 'truth': 'true P'}
    rows = []
    for r in deconflation_rows(s_pref, s_qual, self.truth.preference[u, j],
                               self.truth.qualification[u, j], u, self.boot):
      given = f' given {letter[r.given]}' if r.given else ''
      rows.append(ResultRow(systems[r.expert], None, UNIFORM, 'policy',
                            f'correlation with {letter[r.truth]}{given}', *r.correlation))
    return rows


def sigmoid(z: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.sigmoid(z))


def exact(value: float, n: int) -> Interval:
  """A number without an interval."""
  return Interval(float(value), np.nan, np.nan, n)


def row_slices(lists: RankingLists) -> Iterator[slice]:
  """Some of the lists at a time, so that the work on their pairs stays within memory."""
  rows = max(1, AT_ONCE // lists.job.shape[1])
  for start in range(0, len(lists), rows):
    yield slice(start, start + rows)


def make_evaluation(bench: Bench) -> None:
  """Measures every system, and keeps rows, values by list, and what the figures need."""
  measures = _Measures(bench)
  rows = measures.ranking_rows()
  policy, control = measures.policy_rows()
  predicted, outcome, calibrated = measures.calibration_rows()
  rows += policy + calibrated + measures.correlation_rows()
  write_results(bench.folder, rows)
  save_arrays(bench.folder / 'values.npz', {f'{system}|{metric}': x
                                            for system, values in measures.values.items()
                                            for metric, x in values.items()})
  save_arrays(bench.folder / 'reliability.npz', {'predicted': predicted, 'outcome': outcome})
  write_json(bench.folder / 'control.json', {
      'split': measures.lists.split, 'taus': measures.taus,
      'attainable': list(measures.trained.attainable),
      'rows': [row._asdict() | {'heldout': row.heldout, 'true': row.true,
                                'covered': bool(row.covered)} for row in control]})


def read_evaluation(bench: Bench) -> Evaluation:
  about = read_json(bench.folder / 'control.json')
  control = [ControlRow(**row | {'heldout': Interval(*row['heldout']),
                                 'true': row['true'] and Interval(*row['true'])})
             for row in about['rows']]
  pairs = load_arrays(bench.folder / 'reliability.npz')
  return Evaluation(read_results(bench.folder / 'results.json'), about['split'], about['taus'],
                    tuple(about['attainable']), control, pairs['predicted'], pairs['outcome'])


def read_values(bench: Bench) -> dict[str, np.ndarray]:
  """[N] values of each list by 'split/perspective/system|metric'."""
  return load_arrays(bench.folder / 'values.npz')
