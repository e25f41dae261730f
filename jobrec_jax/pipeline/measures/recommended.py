"""What is recommended, and to whom: the catalogue's share of it, popular jobs, and groups."""

from collections.abc import Iterator, Sequence
import itertools

import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.exposure import exposure_estimates
from jobrec_jax.evaluate.leave_one_out import ranking_metrics_without, top_means
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.pipeline.measures.policy import NDCG, ndcg, policy_scores
from jobrec_jax.pipeline.measures.ranking import systems
from jobrec_jax.pipeline.measures.subject import (
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    Measured,
    Subject,
    row_slices,
    some,
)
from jobrec_jax.pipeline.scores import across
from jobrec_jax.report.results import CANARY
from jobrec_jax.schema.schema import Attribute

COVERAGE, GINI, POPULARITY = 'catalogue coverage@5', 'Gini of exposure@5', 'popularity@5'
NOT_GIVEN, BINS = 'not given', 4


def recommended_measures(of: Subject, taus: Sequence[float]) -> list[Measured]:
  """Coverage, exposure and popularity of the top five of the experts and of the policy.

  Popularity is a job's share of the applications of the train split.
  """
  if (of.lists.split, 'preference') not in of.lists.cases:
    return []
  lists, dataset = of.lists.wanted, of.inputs['data'].dataset
  experts, train = of.scores.of(lists), dataset.interactions.of('train')
  applied = np.bincount(train.job[train.preference == 1], minlength=len(dataset.jobs))
  popular = applied / max(applied.sum(), 1)
  shown = [(name, None, getattr(experts, p)) for name, p in (
      (PREFERENCE, 'preference'), (QUALIFICATION, 'qualification')) if p in of.taught]
  shown += [('policy', tau, policy_scores(of, lists, tau)) for tau in taus]
  rows = []
  for system, tau, scores in shown:
    means = ListMeans(of.groups)
    for at in row_slices(lists):
      part = some(lists, at)
      means.add(part, *top_means(scores[at], {POPULARITY: popular[part.job]}, part.mask, 5))
    found = dict(zip((COVERAGE, GINI), exposure_estimates(lists, scores, 5, of.groups)))
    rows += [Measured(system, tau, of.lists.split, 'policy', name, estimate)
             for name, estimate in (found | means.estimates()).items()]
  return rows


def group_measures(of: Subject, taus: Sequence[float], names: Sequence[str]) -> list[Measured]:
  """NDCG@5 and true eligibility@5 of jobs of a candidate, for each group of candidates.

  Args:
    of: what is measured.
    taus: what the policy is asked for.
    names: attributes of candidates.
  """
  rows, split = [], of.lists.split
  dataset = of.inputs['data'].dataset
  about = {a.name: a for a in dataset.schema.attributes('candidate')}
  for case in ((split, 'preference'), across(split, 'qualification')):
    if case not in of.lists.cases:
      continue
    lists = of.lists.cases[case]
    shown = [(name, None, scores) for name, scores in systems(of, case)
             if not name.startswith(CANARY)]
    if case[1] == 'preference':
      shown += [('policy', tau, policy_scores(of, lists, tau)) for tau in taus]
    for name in names:
      owners = [dataset.candidates[u][name] for u in lists.candidate[:, 0]]
      for label, at in grouped(about[name], owners):
        for system, tau, scores in shown:
          for metric, estimate in of_group(of, some(lists, at), scores[at]).items():
            perspective = 'policy' if tau is not None and metric != NDCG else case[1]
            rows.append(Measured(system, tau, f'{split}, {name} {label}', perspective,
                                 metric, estimate))
  return rows


def of_group(of: Subject, lists: RankingLists, scores: np.ndarray) -> dict:
  """The estimates of some lists by metric."""
  means = ListMeans(of.groups)
  values = ndcg(scores, lists, ranking_metrics)
  without = ndcg(scores, lists, ranking_metrics_without)
  if of.truth is not None:
    q = {ELIGIBILITY: of.truth.qualification[lists.candidate, lists.job]}
    values, without = (x | y for x, y in zip(
        (values, without), top_means(scores, q, lists.mask, 5)))
  means.add(lists, values, without)
  return means.estimates()


def grouped(attribute: Attribute, values: Sequence) -> Iterator[tuple[str, np.ndarray]]:
  """The groups of an attribute's values: quarters of numbers, else each value.

  Args:
    attribute: of one value.
    values: [N], None where it is missing.

  Yields:
    A group's name and [n] the places of its members.
  """
  there = np.array([v is not None for v in values])
  known = [v for v in values if v is not None]
  if attribute.kind in ('number', 'integer'):
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1), method='nearest')
                      if known else [])
    for low, high in itertools.pairwise(edges) if len(edges) > 1 else zip(edges, edges):
      last = high == edges[-1]
      member = np.array([v is not None and low <= v and (v <= high if last else v < high)
                         for v in values])
      yield f'{low:g} to {"" if last else "below "}{high:g}', np.flatnonzero(member)
  else:
    order = attribute.values or sorted(set(known))
    for value in order:
      member = np.array([v == value for v in values])
      if member.any():
        name = {True: 'yes', False: 'no'}.get(value, value)
        yield name, np.flatnonzero(member)
  if not there.all():
    yield NOT_GIVEN, np.flatnonzero(~there)
