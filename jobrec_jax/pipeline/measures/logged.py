"""What the log alone says of the policy's eligibility, and how far its propensities are right."""

import numpy as np

from jobrec_jax.evaluate.eligibility import calibration_estimates
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.off_policy import LoggedLists
from jobrec_jax.evaluate.statistics import Estimate, exact
from jobrec_jax.pipeline.measures.policy import bound_means, policy_scores
from jobrec_jax.pipeline.measures.subject import Measured, Subject
from jobrec_jax.report.findings import EFFECTIVE_SHARE, LOGGED, PROPENSITY


def logged_measures(of: Subject, taus: list[float]) -> list[Measured]:
  """C at each requirement over jobs that were drawn for test candidates, and the propensities.

  'predicted C' is what the expert believes, 'estimated C' what the outcomes of applicants make of
  it, doubly robust, and 'true C' what the market knows. Of the estimated chances to apply: the
  calibration error over pairs, and by candidate; against the truth, or, where that is not known,
  against who of those shown a job applied to it.

  Args:
    of: what is measured.
    taus: what the policy is asked for.

  Returns:
    The measures; none where the log does not tell.
  """
  log: LoggedLists | None = of.inputs['logged'].test
  if log is None:
    return []
  lists, policy, rows = log.lists, of.trained.policy, []
  pairs = lists.candidate, lists.job
  values = {'predicted C': log.believed, 'estimated C': log.outcomes}
  if of.truth is not None:
    values['true C'] = of.truth.qualification[pairs]
  for tau in taus:
    scores = policy_scores(of, lists, tau)
    means = ListMeans(of.groups)
    means.add(lists, *bound_means(policy, scores, values, lists.mask))
    rows += [Measured('policy', tau, LOGGED, 'policy', name, estimate)
             for name, estimate in means.estimates().items()]
  return rows + propensity_measures(of, log)


def propensity_measures(of: Subject, log: LoggedLists) -> list[Measured]:
  """The error of the estimated chance to apply, and how many outcomes the weights leave."""
  pairs = log.lists.candidate, log.lists.job
  if of.truth is None:
    there = ~np.isnan(log.exposure)
    outcome = log.lists.relevance.astype(np.float64)
  else:
    there, outcome = log.lists.mask, of.truth.application[pairs]
  candidate, job = (x[there] for x in pairs)
  predicted, outcome = (x[there].astype(np.float64) for x in (log.applies, outcome))
  errors = calibration_estimates(predicted, outcome, of.groups.of(candidate, job), candidate)
  names = ['calibration error', 'calibration error by candidate']
  if of.truth is None:  # of a handful of labels a candidate it would be mostly their noise
    names, errors = names[:1], errors[:1]
  where = PROPENSITY, None, LOGGED, 'policy'
  share: Estimate = exact(log.effective_share, int((log.label >= 0).sum()), of.groups)
  return [*(Measured(*where, name, error) for name, error in zip(names, errors)),
          Measured(*where, EFFECTIVE_SHARE, share)]
