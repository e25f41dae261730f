"""What each requirement of the policy brings, and whether it was kept."""

import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.control import ControlRow, control_rows, is_monotone
from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.evaluate.leave_one_out import (
    expectations,
    ranking_metrics_without,
    top_means,
    violation_rate_without,
)
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import Estimate, exact
from jobrec_jax.pipeline.measures.subject import (
    ELIGIBILITY,
    STAGE_2,
    TRUE_PREFERENCE,
    Measured,
    Subject,
    Values,
    row_slices,
    some,
)
from jobrec_jax.pipeline.scores import HELD_OUT
from jobrec_jax.scoring.policy import Policy

NDCG = 'ndcg@5'


def policy_measures(
    of: Subject, taus: list[float], stage_2: RankingLists, level: float, believed: bool = True,
) -> tuple[list[Measured], list[ControlRow], dict[str, Values]]:
  """The measures of each requirement.

  Args:
    of: what is measured.
    taus: what the policy is asked for; 0 asks for nothing.
    stage_2: the lists that it was trained on.
    level: of the intervals of the control rows.
    believed: whether tau binds what the expert believes; else belief need not be near tau.

  Returns:
    The measures, asked and reached eligibility, and the values of each list by
    'split/policy/policy at tau'.
  """
  rows, values, by_where = [], {}, {}
  for where, measure in ((HELD_OUT, held_out), (of.lists.split, wanted)):
    by_where[where] = {}
    for tau in taus:
      means = measure(of, tau)
      values[f'{where}/policy/policy at {tau:g}'] = means.values
      found = by_where[where][tau] = means.estimates()
      rows += [Measured('policy', tau, where, 'preference' if m == NDCG else 'policy', m, e)
               for m, e in found.items()]
  asked = [tau for tau in taus if tau]
  trained = [on_stage_2(of, stage_2, tau) for tau in asked]
  held = [by_where[HELD_OUT][tau] for tau in asked]
  control = control_rows(asked, trained, [e['predicted C'] for e in held], level,
                         None if of.truth is None else [e['true C'] for e in held])
  for c, estimate in zip(control, trained):
    rows.append(Measured('policy', c.tau, STAGE_2, 'policy', 'predicted C', estimate))
    if believed:
      rows += [Measured('policy', c.tau, STAGE_2, 'policy', '|C − τ|',
                        exact(c.gap, estimate.n, of.groups)),
               Measured('policy', c.tau, HELD_OUT, 'policy', 'τ in the interval of C',
                        exact(c.covered, len(of.lists.held_out), of.groups))]
  for where, metric in ((HELD_OUT, 'true C'), (of.lists.split, ELIGIBILITY)):
    if of.truth is not None:
      rises = is_monotone([e[metric].value for e in by_where[where].values()])
      rows.append(Measured('policy', None, where, 'policy', f'monotone {metric}',
                           exact(rises, len(taus), of.groups)))
  return rows, control, values


def held_out(of: Subject, tau: float) -> ListMeans:
  """What a requirement brings on lists like stage 2's."""
  lists, means = of.lists.held_out, ListMeans(of.groups)
  scores, pairs = policy_scores(of, lists, tau), (lists.candidate, lists.job)
  expected = {'predicted C': np.asarray(
      of.calibration.probability(of.scores.of(lists).qualification))}
  if of.truth is not None:
    expected |= {'true C': of.truth.qualification[pairs],
                 'expected true preference': of.truth.preference[pairs]}
  values, without = bound_means(of.trained.policy, scores, expected, lists.mask)
  means.add(lists, values | ndcg(scores, lists, ranking_metrics),
            without | ndcg(scores, lists, ranking_metrics_without))
  return means


def wanted(of: Subject, tau: float) -> ListMeans:
  """What a requirement brings on the lists on which systems are compared first."""
  lists, means = of.lists.wanted, ListMeans(of.groups)
  for at in row_slices(lists):
    part = some(lists, at)
    scores, pairs = policy_scores(of, part, tau), (part.candidate, part.job)
    values = ndcg(scores, part, ranking_metrics)
    without = ndcg(scores, part, ranking_metrics_without)
    if of.truth is not None:
      eligible = of.truth.eligible[pairs], part.mask, 5
      q = of.truth.qualification[pairs], part.mask, 5
      values[ELIGIBILITY] = 1 - violation_rate_at_k(scores, *q)
      without[ELIGIBILITY] = 1 - violation_rate_without(scores, *q)
      p = of.truth.preference[pairs], part.mask, 5
      values[TRUE_PREFERENCE] = 1 - violation_rate_at_k(scores, *p)
      without[TRUE_PREFERENCE] = 1 - violation_rate_without(scores, *p)
      values['violation@5'] = violation_rate_at_k(scores, *eligible)
      without['violation@5'] = violation_rate_without(scores, *eligible)
    means.add(part, values, without)
  return means


def on_stage_2(of: Subject, lists: RankingLists, tau: float) -> Estimate:
  """Predicted C on the lists that stage 2 trained on."""
  inputs, policy, means = of.inputs['inputs'], of.trained.policy, ListMeans(of.groups)
  scores, mask = np.asarray(policy.scores_at(inputs, tau), np.float64), np.asarray(inputs.mask)
  q = 1 / (1 + np.exp(-np.asarray(inputs.z_qual, np.float64)))
  means.add(lists, *bound_means(policy, scores, {'C': q}, mask))
  return means.estimates()['C']


def bound_means(policy: Policy, scores: np.ndarray, values: Values,
                mask: np.ndarray) -> tuple[Values, Values]:
  """The means of values that tau binds, by name, and the same without each item.

  Args:
    policy: says whether they are over the policy's expectation or over the best few.
    scores: [N, J] of the policy.
    values: by name, [N, J].
    mask: [N, J] bool.

  Returns:
    By name [N], and [N, J].
  """
  if policy.top_k:
    return top_means(scores, values, mask, policy.top_k)
  found = {name: expectations(scores, x, mask, policy.temperature) for name, x in values.items()}
  return tuple({name: x[i] for name, x in found.items()} for i in range(2))


def policy_scores(of: Subject, lists: RankingLists, tau: float | np.ndarray) -> np.ndarray:
  """[N, J] scores of lists at a requirement, or [T, N, J] at several."""
  experts = of.scores.of(lists)
  return of.trained.policy.at(of.scores.lam_of(lists), experts.preference,
                              of.calibration.logit(experts.qualification), tau)[0]


def ndcg(scores: np.ndarray, lists: RankingLists, metrics) -> Values:
  """Args: metrics: `ranking_metrics`, or those without each item."""
  return {NDCG: metrics(scores, lists.relevance, lists.mask, (5,))[NDCG]}
