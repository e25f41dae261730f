"""How well every system ranks the held-out lists."""

from collections.abc import Iterator

import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.evaluate.leave_one_out import ranking_metrics_without, violation_rate_without
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.pipeline.measures.subject import (
    BLANKED,
    CEILINGS,
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    TRUE_PREFERENCE,
    Measured,
    Subject,
    Values,
    row_slices,
    some,
)
from jobrec_jax.pipeline.scores import Case, case_scores, pair_codes, rivals_among


def ranking_measures(of: Subject) -> tuple[list[Measured], dict[str, Values]]:
  """All ranking metrics of all systems, then the experts' paired differences in NDCG@5.

  Returns:
    The measures, and the values of each list by 'split/perspective/system'.
  """
  rows, paired, values = [], [], {}
  for case in of.lists.cases:
    by_system = {}
    for name, scores in systems(of, case):
      means = measure(of, case, scores)
      values['/'.join((*case, name))] = means.values
      by_system[name] = means.estimates()
      rows += [Measured(name, None, *case, m, e) for m, e in by_system[name].items()]
    expert = PREFERENCE if case[1] == 'preference' else QUALIFICATION
    paired += [Measured(expert, None, *case, 'ndcg@5',
                        by_system[expert]['ndcg@5'] - by_system[rival]['ndcg@5'], rival)
               for rival in (*rivals_among(by_system), BLANKED) if rival in by_system]
  return rows + paired, values


def systems(of: Subject, case: Case) -> Iterator[tuple[str, np.ndarray]]:
  """Every system's scores of a case, in the order in which they are shown."""
  lists, perspective = of.lists.cases[case], case[1]
  experts = of.scores.of(lists)
  for name, expert in (('preference', PREFERENCE), ('qualification', QUALIFICATION)):
    if name in of.taught:
      yield expert, getattr(experts, name)
  if of.truth is not None:
    yield CEILINGS[perspective], getattr(of.truth, perspective)[lists.candidate, lists.job]
  yield from case_scores(of.inputs, case)
  if perspective == 'preference':
    yield from blanked(of, lists)


def blanked(of: Subject, lists: RankingLists) -> Iterator[tuple[str, np.ndarray]]:
  """The preference expert without narratives, of lists all of whose pairs it has read so."""
  if (of.lists.split, 'preference') in of.lists.cases:
    kept, codes = (pair_codes(x, of.scores.jobs) for x in (of.lists.wanted, lists))
    if np.isin(codes, kept).all():
      order = np.argsort(kept, axis=None)
      at = order[np.searchsorted(kept.ravel(), codes, sorter=order)]
      yield BLANKED, of.inputs['blanked'].ravel()[at]


def measure(of: Subject, case: Case, scores: np.ndarray) -> ListMeans:
  """Each list's metrics; where it is of a candidate also the true Q and P of the best five."""
  lists, means = of.lists.cases[case], ListMeans(of.groups)
  for at in row_slices(lists):
    part = some(lists, at)
    ranked = scores[at], part.relevance, part.mask
    values, without = ranking_metrics(*ranked), ranking_metrics_without(*ranked)
    if of.truth is not None and lists.centre == 'candidate':
      for name, truth in ((ELIGIBILITY, of.truth.qualification),
                          (TRUE_PREFERENCE, of.truth.preference)):
        true = truth[part.candidate, part.job], part.mask, 5
        values[name] = 1 - violation_rate_at_k(scores[at], *true)
        without[name] = 1 - violation_rate_without(scores[at], *true)
    means.add(part, values, without)
  return means
