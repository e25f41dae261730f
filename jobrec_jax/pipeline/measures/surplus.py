"""What the five recommended are worth to a candidate, and what is missing to the best possible."""

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.special import logit

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.leave_one_out import top_means
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.objectives.expected_surplus import expected_surplus
from jobrec_jax.pipeline.measures.policy import policy_scores
from jobrec_jax.pipeline.measures.subject import (
    PREFERENCE,
    QUALIFICATION,
    Measured,
    Subject,
    row_slices,
    some,
)
from jobrec_jax.report.findings import INDEX, REGRET, SURPLUS

CEILING = 'true surplus (ceiling)'
_SURE = 1e-9  # a truth of 0 or 1 has no logit


def surplus_measures(of: Subject, taus: Sequence[float]) -> list[Measured]:
  """Expected surplus of the top five on the wanted lists, and the regret against the ceiling.

  Compared are rankings by each expert alone, by the surplus that both expect, and by the policy at
  each requirement; the ceiling ranks by the surplus of the truths.

  Args:
    of: what is measured.
    taus: what the policy is asked for; 0 asks for nothing.

  Returns:
    The measures; none where truths are not known, or an expert has no labels.
  """
  if of.truth is None or len(of.taught) < 2 or (of.lists.split, 'preference') not in of.lists.cases:
    return []
  lists, means = of.lists.wanted, ListMeans(of.groups)
  shown = []
  for at in row_slices(lists):
    part = some(lists, at)
    worth = true_surplus(of, part)
    values, without, shown = {}, {}, []
    for k, (name, tau, scores) in enumerate(rankings(of, part, worth, taus)):
      for kept, new in zip((values, without), top_means(scores, {str(k): worth}, part.mask, 5)):
        kept |= new
      shown.append((name, tau))
    means.add(part, values, without)
  found, where = means.estimates(), (of.lists.split, 'policy')
  by_system = [(*system, found[str(k)]) for k, system in enumerate(shown)]
  rows = [Measured(name, tau, *where, SURPLUS, worth) for name, tau, worth in by_system]
  return rows + [Measured(name, tau, *where, REGRET, found['0'] - worth)
                 for name, tau, worth in by_system[1:]]


def true_surplus(of: Subject, lists: RankingLists) -> np.ndarray:
  """[N, J] of the truths."""
  pairs = lists.candidate, lists.job
  P = np.clip(of.truth.preference[pairs].astype(np.float64), _SURE, 1 - _SURE)
  return expected_surplus(logit(P), of.truth.qualification[pairs])


def rankings(of: Subject, lists: RankingLists, worth: np.ndarray, taus: Sequence[float],
             ) -> Iterator[tuple[str, float | None, np.ndarray]]:
  """(system, tau, [N, J] scores), the ceiling first."""
  experts = of.scores.of(lists)
  yield CEILING, None, worth
  yield INDEX, None, expected_surplus(experts.preference,
                                      of.calibration.probability(experts.qualification))
  yield PREFERENCE, None, experts.preference
  yield QUALIFICATION, None, experts.qualification
  for tau in taus:
    yield 'policy', tau, policy_scores(of, lists, tau)
