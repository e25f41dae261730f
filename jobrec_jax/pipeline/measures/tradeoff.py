"""What the policy keeps of true preference, beside the truth's frontier and what needs no training.

A family is a row of rankings by one parameter, from preference to eligibility: the policy over its
requirements, plug-ins over a weight or a threshold, the exact dual over its multiplier.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import UNOBSERVED
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.leave_one_out import top_means
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.evaluate.tradeoff import kept_preference, preference_lost
from jobrec_jax.lagrangian.exact import Objective, policy as exact_policy
from jobrec_jax.pipeline.measures.pairs import sigmoid
from jobrec_jax.pipeline.measures.policy import policy_scores
from jobrec_jax.pipeline.measures.subject import (
    BOUND,
    ELIGIBILITY,
    SHARES,
    TRUE_PREFERENCE,
    Measured,
    Subject,
    Values,
    of_the_way,
    row_slices,
    some,
)
from jobrec_jax.pipeline.scores import case_scores, pair_codes
from jobrec_jax.report.findings import AT_EQUAL, LOSS, PLUG_IN

MULTIPLIERS = np.r_[0.0, np.geomspace(0.03, 30.0, 19)]
DUAL_MULTIPLIERS = np.r_[0.0, np.geomspace(0.1, 300.0, 19)]
POLICY, KNOTS = 'policy', 'policy at its knots'
THRESHOLD, FILTER = 'plug-in p_pref where p_qual ≥ t', 'plug-in p_pref where schema rules pass'
DUAL = 'exact dual, s_pref + μ p_qual'
QUANTILES = np.r_[0.0, np.linspace(0.1, 0.9, 9), 0.95]
RULES = 'schema rules'


class Sides(NamedTuple):
  """P and Q of lists, [N, J] each, where both are known.

  Attributes:
    preference, qualification: probabilities, or labels 0 and 1.
    mask: [N, J] bool, which pairs have both.
    true: whether they are truths.
  """

  preference: np.ndarray
  qualification: np.ndarray
  mask: np.ndarray
  true: bool


class Families(NamedTuple):
  """The top five of families of rankings on the wanted lists.

  Attributes:
    means: 'Q k' and 'P k' of ranking k, families one after another.
    sizes: how many rankings each family has, by its name.
    true: whether by truths; else by labels.
  """

  means: ListMeans
  sizes: dict[str, int]
  true: bool

  def statistic(self, of_families: Callable[[Values, Values], np.ndarray]) -> list[Estimate]:
    """Estimates of what follows from the mean Q and P of every ranking, [R, K] by family."""
    count = sum(self.sizes.values())
    ends = np.cumsum(list(self.sizes.values()))[:-1]

    def of_means(means: np.ndarray) -> np.ndarray:
      return of_families(*(dict(zip(self.sizes, np.split(side, ends, axis=1)))
                           for side in np.split(means, 2, axis=1)))
    return self.means.statistic([f'{side} {k}' for side in 'QP' for k in range(count)], of_means)

  def curves(self) -> dict[str, np.ndarray]:
    """[K, 2] mean (Q, P) of each family."""
    values = self.means.values
    points = np.array([[np.nanmean(values[f'{side} {k}']) for side in 'QP']
                       for k in range(sum(self.sizes.values()))])
    ends = np.cumsum(list(self.sizes.values()))
    return dict(zip(self.sizes, np.split(points, ends[:-1])))


def tradeoff_measures(of: Subject, taus: list[float], objective: Objective = 'expected_score',
                      ) -> tuple[list[Measured], dict[str, np.ndarray]]:
  """True preference of the top five at equal true eligibility; see `evaluate.tradeoff`.

  Args:
    of: what is measured.
    taus: what the policy is asked for.
    objective: of stage 2.

  Returns:
    The measures, and [K, 2] mean (eligibility, preference) of every family; both empty where
    neither truths nor labels of both kinds tell. With labels in place of truths, losses alone.
  """
  known = sides(of)
  asked = [tau for tau in taus if tau]
  if known is None or not asked:
    return [], {}
  families = top_five(of, known, asked, objective)
  rows = shares_of_the_way(of, families) if known.true else []
  return rows + losses(of, families, asked), families.curves()


def sides(of: Subject) -> Sides | None:
  """The truths of the wanted lists; else the labels of pairs that have both, if both vary."""
  lists = of.lists.wanted
  if of.truth is not None:
    pairs = lists.candidate, lists.job
    return Sides(of.truth.preference[pairs], of.truth.qualification[pairs], lists.mask, True)
  log = of.inputs['data'].dataset.interactions.of('test')
  log = log.where((log.preference != UNOBSERVED) & (log.qualification != UNOBSERVED))
  codes = log.candidate.astype(np.int64) * of.scores.jobs + log.job
  order = np.argsort(codes)
  at = np.searchsorted(codes, pair_codes(lists, of.scores.jobs), sorter=order)
  rows = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(lists.job.shape, int)
  there = lists.mask & np.isin(pair_codes(lists, of.scores.jobs), codes)
  if not there.any():
    return None
  P, Q = (np.where(there, x[rows], 0).astype(float) for x in (log.preference, log.qualification))
  varied = all(0 < x[there].mean() < 1 for x in (P, Q))
  return Sides(P, Q, there, False) if varied else None


def top_five(of: Subject, known: Sides, taus: list[float], objective: Objective) -> Families:
  """Eligibility 'Q k' and preference 'P k' of the top five of each ranking k of all families."""
  lists, means, sizes = of.lists.wanted, ListMeans(of.groups), {}
  p_qual = of.calibration.probability(of.scores.of(lists).qualification)
  rules = rules_scores(of)
  cuts = {THRESHOLD: (p_qual, quantiles(p_qual[lists.mask]))}
  if rules is not None:
    cuts[FILTER] = rules, quantiles(rules[lists.mask])
  for at in row_slices(lists):
    part = some(dataclasses.replace(lists, mask=known.mask), at)
    truths = {'Q': known.qualification[at], 'P': known.preference[at]}
    k, values, without = 0, {}, {}
    filters = {name: (score[at], steps) for name, (score, steps) in cuts.items()}
    for name, rankings in families_of(of, part, truths, taus, filters, objective):
      for sizes[name], scores in enumerate(rankings, 1):
        for kept, new in zip((values, without), top_means(scores, truths, part.mask, 5)):
          kept |= {f'{side} {k}': x for side, x in new.items()}
        k += 1
    means.add(part, values, without)
  return Families(means, sizes, known.true)


def families_of(of: Subject, part: RankingLists, truths: Values, taus: list[float],
                filters: dict[str, tuple[np.ndarray, np.ndarray]], objective: Objective,
                ) -> Iterator[tuple[str, Iterable[np.ndarray]]]:
  """The families with their rankings [N, J] of some lists, each from preference to eligibility.

  Args:
    of: what is measured.
    part: the lists.
    truths: 'P' and 'Q' of their pairs.
    taus: of the policy.
    filters: by name a score, and the values that it must reach for a pair to be put first.
    objective: that the exact dual solves.
  """
  policy, experts = of.trained.policy, of.scores.of(part)
  p_pref, p_qual = sigmoid(experts.preference), of.calibration.probability(experts.qualification)
  yield KNOTS, policy_scores(of, part, policy.knots)
  yield POLICY, policy_scores(of, part, np.array(taus))
  yield BOUND, (*(truths['P'] + mu * truths['Q'] for mu in MULTIPLIERS), truths['Q'])
  yield PLUG_IN, (*(p_pref + mu * p_qual for mu in MULTIPLIERS), p_qual)
  for name, (score, steps) in filters.items():
    yield name, (p_pref + 2.0 * (score >= step) for step in steps)  # 2: above every p_pref
  a, q = np.asarray(experts.preference, np.float64), np.asarray(p_qual, np.float64)
  if objective != 'info_nce':
    yield DUAL, (*(a + mu * q for mu in DUAL_MULTIPLIERS), q)
  else:
    yield DUAL, (*(exact_policy(a, q, part.mask, mu, objective='info_nce',
                                temperature=policy.temperature) for mu in DUAL_MULTIPLIERS), q)


def rules_scores(of: Subject) -> np.ndarray | None:
  """[N, J] how well the wanted pairs pass the schema's rules of qualification; None without."""
  codes, scores = [], []
  for case, lists in of.lists.cases.items():
    if case[1] == 'qualification':
      for name, values in case_scores(of.inputs, case):
        if name == RULES:
          codes.append(pair_codes(lists, of.scores.jobs)[lists.mask])
          scores.append(values[lists.mask])
  if not codes:
    return None
  known, first = np.unique(np.concatenate(codes), return_index=True)
  wanted = pair_codes(of.lists.wanted, of.scores.jobs)
  if not np.isin(wanted, known).all():
    return None
  return np.concatenate(scores)[first][np.searchsorted(known, wanted)]


def quantiles(values: np.ndarray) -> np.ndarray:
  """The distinct values that shares of pairs fall below, ascending."""
  return np.unique(np.quantile(values, QUANTILES, method='nearest'))


def shares_of_the_way(of: Subject, families: Families) -> list[Measured]:
  """What the policy at its knots and the bound keep at shares of the way from P to Q.

  e_s = E_P + s (E_Q − E_P), where E_P and E_Q are the true eligibilities of the five jobs that the
  truth P, and the truth Q, put first. They are the same for every run over these lists. The bound
  ranks by P + μ Q from P to Q: no ranking keeps more.

  Returns:
    For each share s what the policy keeps, what the bound keeps, their paired difference, and e_s
    itself.
  """
  found = families.statistic(kept_at_shares)
  rows, count = [], len(SHARES)
  for share, kept, bound, e in zip(SHARES, *(found[i * count:][:count] for i in range(3))):
    preference, eligibility = (of_the_way(m, share) for m in (TRUE_PREFERENCE, ELIGIBILITY))
    where = None, of.lists.split, 'policy'
    rows += [Measured('policy', *where, preference, kept),
             Measured(BOUND, *where, preference, bound),
             Measured('policy', *where, preference, kept - bound, BOUND),
             Measured(BOUND, *where, eligibility, e)]
  return rows


def kept_at_shares(x: Values, y: Values) -> np.ndarray:
  """[R, K] eligibility and preference by family to [R, 3 S]: what the policy keeps at each share,
  what the bound keeps, and e_s."""
  low, high = x[BOUND][:, :1], x[BOUND][:, -1:]
  e = low + np.array(SHARES) * (high - low)
  return np.concatenate([kept_preference(x[KNOTS], y[KNOTS], e),
                         kept_preference(x[BOUND], y[BOUND], e), e], axis=1)


def losses(of: Subject, families: Families, taus: list[float]) -> list[Measured]:
  """What each family loses of preference at the eligibilities that the policy has at its taus.

  Returns:
    The loss against the frontier of the truth, the mean over those taus whose eligibility the
    family reaches; the policy's less that of each other family, over those that it reaches; and at
    each tau what the policy keeps more than the plug-in of one parameter.
  """
  name, equal = (LOSS, AT_EQUAL) if families.true else (
      word.replace('true', 'labelled') for word in (LOSS, AT_EQUAL))
  others = [f for f in families.sizes if f not in (KNOTS, POLICY, BOUND)]
  curves = {f: curve.T[:, None] for f, curve in families.curves().items()}
  lost = preference_lost(*({f: c[i] for f, c in curves.items()} for i in range(2)), POLICY, BOUND)
  reached = {f: ~np.isnan(x[0]) for f, x in lost.items()}
  where, rows = (of.lists.split, 'policy'), []

  def columns(x: Values, y: Values) -> np.ndarray:
    by_family = preference_lost(x, y, POLICY, BOUND)
    mean = [_mean(by_family[f], reached[f]) for f in (POLICY, *others)]
    gap = [_mean(by_family[POLICY] - by_family[f], reached[f]) for f in others]
    return np.concatenate([np.stack(mean + gap, 1), by_family[PLUG_IN] - by_family[POLICY]], 1)
  found = iter(families.statistic(columns))
  rows = [Measured(f, None, *where, name, next(found)) for f in (POLICY, *others)]
  rows += [Measured(POLICY, None, *where, name, next(found), f) for f in others]
  return rows + [Measured(POLICY, tau, *where, equal, next(found), PLUG_IN) for tau in taus]


def _mean(values: np.ndarray, at: np.ndarray) -> np.ndarray:
  """[R] means over some of [R, T]; nan over none."""
  return values[:, at].mean(1) if at.any() else np.full(len(values), np.nan)
