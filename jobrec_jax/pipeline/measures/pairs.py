"""What is measured over pairs: calibration, de-conflation, and errors against the truth."""

from typing import NamedTuple

import jax
import numpy as np

from jobrec_jax.baselines.rivals import RIVALS
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.deconflation import SCORE, deconflation_rows, logit, truth_correlation
from jobrec_jax.evaluate.eligibility import calibration_estimates
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.truth_errors import spearman, variance_parts
from jobrec_jax.pipeline.measures.subject import (
    APPLICANTS,
    QUALIFICATION,
    UNIFORM,
    Measured,
    Subject,
)
from jobrec_jax.pipeline.scores import case_scores
from jobrec_jax.report.findings import EXPERTS, LETTERS, WITHIN
from jobrec_jax.schema.schema import PERSPECTIVES


def measured_pairs(of: Subject) -> list[RankingLists]:
  """Uniform pairs of held-out candidates; without truths the labelled applicants."""
  perspective = 'preference' if of.truth is not None and 'preference' in of.taught else (
      'qualification')
  return [of.lists.cases[case] for case in of.lists.pair_cases(perspective)]


def calibration_measures(of: Subject) -> tuple[np.ndarray, np.ndarray, list[Measured]]:
  """The error of p_qual beside that of others, over all pairs and by job.

  The others are the raw logit's sigmoid, and p_qual with a shift for each job. Against the true Q
  of uniform pairs; without truths against the labels of test applicants, who are no uniform pairs.

  Returns:
    [pairs] p_qual, [pairs] what it should be, and the measures; of no pair where no label teaches
    qualification, or no list of the test tells it.
  """
  if 'qualification' not in of.taught or not measured_pairs(of):
    return np.zeros(0), np.zeros(0), []

  def flat(value):
    return np.concatenate([value(lists)[lists.mask] for lists in measured_pairs(of)])
  logits = flat(lambda x: of.scores.of(x).qualification)
  candidate, job = flat(lambda x: x.candidate), flat(lambda x: x.job)
  if of.truth is None:
    split, outcome = APPLICANTS, flat(lambda x: x.relevance).astype(np.float64)
  else:
    split = UNIFORM
    outcome = flat(lambda x: of.truth.qualification[x.candidate, x.job])
  predicted = np.asarray(of.calibration.probability(logits))
  shifted = of.calibration.logit(logits) + of.inputs['calibration'].job_offsets[job]
  rows = []
  for system, p in ((QUALIFICATION, predicted),
                    (f'{QUALIFICATION}, recalibrated by job', sigmoid(shifted)),
                    (f'{QUALIFICATION}, uncalibrated', sigmoid(logits))):
    names = ['calibration error', 'calibration error by job']
    if of.truth is None:  # of a handful of labels a job, it would be mostly their noise
      del names[1]
    rows += [Measured(system, None, split, 'qualification', *found) for found in zip(
        names, calibration_estimates(p, outcome, of.groups.of(candidate, job), job))]
  return predicted, outcome, rows


class Scored(NamedTuple):
  """Uniform pairs of held-out candidates, every one of a grid, by candidate and then by job.

  Attributes:
    candidate, job: [U, J].
    true: [U, J] probability of each truth.
    systems: [U, J] scores of the expert of a perspective and of its rivals.
  """

  candidate: np.ndarray
  job: np.ndarray
  true: dict[str, np.ndarray]
  systems: dict[str, np.ndarray]


def scored_grid(of: Subject, perspective: str) -> Scored:
  """All systems that learn a perspective, on the pairs of its grid."""
  u, j, by_system = [], [], {}
  for case in of.lists.pair_cases(perspective):
    lists = of.lists.cases[case]
    u.append(lists.candidate.ravel())
    j.append(lists.job.ravel())
    by_system.setdefault(EXPERTS[perspective], []).append(
        getattr(of.scores.of(lists), perspective).ravel())
    for name, scores in case_scores(of.inputs, case):
      if name in RIVALS:
        by_system.setdefault(name, []).append(scores.ravel())
  u, j = np.concatenate(u), np.concatenate(j)
  at = np.lexsort((j, u)).reshape(len(np.unique(u)), -1)
  u, j = u[at], j[at]
  return Scored(u, j, {name: getattr(of.truth, name)[u, j] for name in PERSPECTIVES},
                {name: np.concatenate(parts)[at] for name, parts in by_system.items()})


def truth_measures(of: Subject) -> list[Measured]:
  """What only truths can tell of every system, over uniform pairs; nothing where they are unknown.

  Its correlation with both truths, plain and given the other, and theirs given it: of preference
  within candidates. Its
  rank correlation with its own truth within a candidate and within a job. Where its score is a
  logit, the error of that by part.
  """
  if of.truth is None:
    return []
  rows, grid = [], None
  for perspective in of.taught:
    grid = scored_grid(of, perspective)
    for system, scores in grid.systems.items():
      if system in RIVALS and not np.ptp(scores):
        continue  # such as popularity of candidates whom nobody has seen
      if perspective == 'qualification' and system == QUALIFICATION:
        scores = np.asarray(of.calibration.logit(scores))
      rows += correlation_measures(of, grid, perspective, system, scores)
      rows += rank_measures(of, grid, perspective, system, scores)
      if system in EXPERTS.values() or RIVALS[system].logit:
        rows += part_measures(of, grid, perspective, system, scores)
  u, j = grid.candidate.ravel(), grid.job.ravel()
  truths = tuple(grid.true[name].ravel() for name in PERSPECTIVES)
  rows += [Measured('true P', None, UNIFORM, 'policy', f'correlation with Q{within}',
                    truth_correlation(truths, of.groups.of(u, j), candidate))
           for within, candidate in (('', None), (WITHIN, u))]
  return sorted(rows, key=lambda r: r.system in RIVALS)


def correlation_measures(of: Subject, grid: Scored, perspective: str, system: str,
                         scores: np.ndarray) -> list[Measured]:
  """A system's correlations with both truths; of preference of what is left within candidates."""
  u, j = grid.candidate.ravel(), grid.job.ravel()
  centre, within = (u, WITHIN) if perspective == 'preference' else (None, '')
  rows, truths = [], tuple(grid.true[name].ravel() for name in PERSPECTIVES)
  for r in deconflation_rows(scores.ravel(), truths, perspective, of.groups.of(u, j), centre):
    if r.given == SCORE:  # a table of all correlations would be too wide
      table, what = perspective, f'of P and Q given {SCORE}'
    else:
      given = f' given {LETTERS[r.given]}' if r.given else ''
      table, what = 'policy', f'with {LETTERS[r.truth]}{given}'
    rows.append(Measured(system, None, UNIFORM, table, f'correlation {what}{within}',
                         r.correlation))
  return rows


def rank_measures(of: Subject, grid: Scored, perspective: str, system: str,
                  scores: np.ndarray) -> list[Measured]:
  """Spearman's correlation with the own truth, the mean over candidates and that over jobs."""
  rows, true = [], grid.true[perspective]
  for centre, turn in (('candidate', lambda x: x), ('job', np.transpose)):
    pairs = [turn(x) for x in (grid.candidate, grid.job)]
    if pairs[0].shape[1] < 2:
      continue
    name, means = f'Spearman with {LETTERS[perspective]} within a {centre}', ListMeans(of.groups)
    lists = RankingLists(perspective, *pairs, np.zeros(pairs[0].shape, bool),
                         np.ones(pairs[0].shape, bool), centre)
    whole, without = spearman(turn(scores), turn(true))
    means.add(lists, {name: whole}, {name: without})
    estimate = means.estimates()[name]
    if estimate.n:  # a score of jobs alone says nothing within a job
      rows.append(Measured(system, None, UNIFORM, perspective, name, estimate))
  return rows


def part_measures(of: Subject, grid: Scored, perspective: str, system: str,
                  scores: np.ndarray) -> list[Measured]:
  """The mean of a logit minus the true one, and its variance between candidates, jobs and pairs."""
  u, j = grid.candidate.ravel(), grid.job.ravel()
  found = variance_parts(scores.ravel() - logit(grid.true[perspective].ravel()),
                         of.groups.of(u, j), u, j)
  name = f'error of logit {LETTERS[perspective]}'
  return [Measured(system, None, UNIFORM, perspective, f'{name}, {part}', estimate)
          for part, estimate in zip(('mean', 'variance of candidates', 'variance of jobs',
                                     'variance of pairs'), found)]


def sigmoid(z: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.sigmoid(z))
