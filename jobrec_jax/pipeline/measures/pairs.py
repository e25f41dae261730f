"""Whether predicted eligibility is right, and whether the experts are de-conflated: over pairs."""

import jax
import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.deconflation import deconflation_rows
from jobrec_jax.evaluate.eligibility import calibration_estimates
from jobrec_jax.pipeline.measures.subject import (
    APPLICANTS,
    PREFERENCE,
    QUALIFICATION,
    UNIFORM,
    Measured,
    Subject,
)
from jobrec_jax.schema.schema import PERSPECTIVES


def measured_pairs(of: Subject) -> list[RankingLists]:
  """Uniform pairs of held-out candidates; without truths the labelled applicants."""
  perspective = 'preference' if of.truth is not None and 'preference' in of.taught else (
      'qualification')
  return [lists for case, lists in of.lists.cases.items() if case[1] == perspective]


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


def correlation_measures(of: Subject) -> list[Measured]:
  """Each expert's correlation with both truths, plain and given the other truth."""
  if of.truth is None or len(of.taught) < 2:
    return []
  pairs = measured_pairs(of)
  u, j = (np.concatenate([getattr(x, name).ravel() for x in pairs])
          for name in ('candidate', 'job'))
  experts = [of.scores.of(x) for x in pairs]
  s_pref, s_qual = (np.concatenate([getattr(x, name).ravel() for x in experts])
                    for name in PERSPECTIVES)
  letter = {'preference': 'P', 'qualification': 'Q'}
  systems = {'preference': PREFERENCE, 'qualification': QUALIFICATION, 'truth': 'true P'}
  rows = []
  for r in deconflation_rows(s_pref, s_qual, of.truth.preference[u, j],
                             of.truth.qualification[u, j], of.groups.of(u, j)):
    given = f' given {letter[r.given]}' if r.given else ''
    rows.append(Measured(systems[r.expert], None, UNIFORM, 'policy',
                         f'correlation with {letter[r.truth]}{given}', r.correlation))
  return rows


def sigmoid(z: np.ndarray) -> np.ndarray:
  return np.asarray(jax.nn.sigmoid(z))
