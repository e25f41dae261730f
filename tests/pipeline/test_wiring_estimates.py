"""How far candidates and jobs move the numbers of the tiny run, by leaving each out by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.pipeline.evaluate import read_estimates
from jobrec_jax.pipeline.measures.subject import (
    BOUND,
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    STAGE_2,
    TRUE_PREFERENCE,
    UNIFORM,
    groups_of,
    of_the_way,
)
from jobrec_jax.pipeline.policy import stage_2_lists
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.scores import HELD_OUT
from jobrec_jax.report.findings import AT_EQUAL, LOSS
from jobrec_jax.report.results import range_of
from jobrec_jax.schema.files import load_arrays
from tests.pipeline.test_wiring import Kept, mean, measures, softmax
from tests.pipeline.tiny import tiny_settings

pytestmark = pytest.mark.slow
S = tiny_settings()
T = S.policy.temperature


class WithEstimates(Kept):
  """The tiny run with its estimates by row."""

  def __init__(self, run):
    super().__init__(run)
    folder = run.store.path(run.road.evaluation)
    self.rows, estimates = read_estimates(folder)
    self.by_row = {self.key(r): e for r, e in zip(self.rows, estimates)}
    assert len(self.by_row) == len(self.rows)
    self.groups = groups_of(self.dataset)

  @staticmethod
  def key(r):
    return r.system, r.tau, r.split, r.perspective, r.metric, r.against

  def estimate(self, *about, **more):
    return self.by_row[self.key(self.row(*about, **more))]

  def check(self, estimate, statistic, pairs):
    """Args: statistic: of the pairs that stay, given as a function (u, j) -> bool."""
    assert estimate.value == pytest.approx(statistic(lambda u, j: True), rel=1e-4, abs=1e-5)
    for side, psi in ((0, estimate.candidates), (1, estimate.jobs)):
      there = sorted({int(p[side]) for p in pairs})
      left_out = [statistic(lambda *pair, e=e, side=side: int(pair[side]) != e) for e in there]
      expected = np.zeros(len(psi))
      scale = math.sqrt((len(there) - 1) / len(there))
      at = (self.groups.candidate, self.groups.job)[side][there]
      assert len(set(at.tolist())) == len(there)  # few: everyone is a group of one
      expected[at] = scale * (np.array(left_out) - np.mean(left_out))
      np.testing.assert_allclose(psi, expected, rtol=2e-3, atol=1e-5)
      assert estimate.groups[side] == len(there) and abs(expected).max() > 1e-4


@pytest.fixture(scope='module')
def kept(tiny_folder):
  return WithEstimates(Run(tiny_folder, tiny_settings()))


def half_width(e):
  """Of an 80% interval: candidates and jobs, less once what is a pair's own."""
  u, j, pairs = (float(x @ x) for x in (e.candidates, e.jobs, e.pairs))
  if max(u, j) <= 1e-24 * max(abs(e.value), 1) ** 2:
    return 0.0
  own = min(max(pairs - u / e.groups[1] - j / e.groups[0], 0), u, j)
  total = u + j - own
  parts = (u, e.groups[0] - 1), (j, e.groups[1] - 1), (own, len(e.pairs) - 1)
  df = total ** 2 / sum(v ** 2 / d for v, d in parts)
  return stats.t.ppf(0.9, df) * math.sqrt(total)


def pairs_of(lists):
  return list(zip(lists.candidate[lists.mask].tolist(), lists.job[lists.mask].tolist()))


@pytest.mark.parametrize('system, case, metrics', [
    (PREFERENCE, ('cold candidates', 'preference'), ('ndcg@5', 'mrr', ELIGIBILITY)),
    (QUALIFICATION, ('cold candidates', 'qualification'), ('ndcg@5', 'recall@3', 'mean_rank')),
    ('popularity', ('both cold', 'qualification'), ('ndcg@5', 'mrr')),
    (PREFERENCE, ('cold candidates, candidates of a job', 'preference'), ('ndcg@5', 'mrr')),
    (QUALIFICATION, ('cold candidates, jobs of a candidate', 'qualification'),
     ('ndcg@5', ELIGIBILITY))])
def test_rankings(kept, system, case, metrics):
  lists = kept.lists.cases[case]
  rows = [[(i, int(u), int(j)) for i, (u, j) in enumerate(zip(lists.candidate[n], lists.job[n]))]
          for n in range(len(lists))]
  scores = [[kept.score(system, case, n, i, u, j) for i, u, j in row] for n, row in enumerate(rows)]
  found = {}

  def statistic(keep):
    """All metrics at once, kept for the next."""
    left = tuple(keep(u, j) for row in rows for _, u, j in row)
    if left not in found:
      by_list = []
      for n, row in enumerate(rows):
        items = [(i, u, j) for i, u, j in row if keep(u, j)]
        if items:
          by_list.append(measures(
              [scores[n][i] for i, _, _ in items], [bool(lists.relevance[n, i])
                                                    for i, _, _ in items],
              [float(kept.truth.qualification[u, j]) for _, u, j in items]))
      found[left] = {m: mean([x[m] for x in by_list])[0] for m in metrics}
    return found[left]
  for metric in metrics:
    kept.check(kept.estimate(system, *case, metric), lambda keep, m=metric: statistic(keep)[m],
               pairs_of(lists))


def test_a_difference_of_systems_is_the_difference_of_their_estimates(kept):
  checked = 0
  curves = kept.results.families
  for row in kept.rows:
    if row.against and row.metric != AT_EQUAL:
      if row.metric == LOSS and curves[row.against][:, 0].max() < curves['policy'][:, 0].max():
        continue  # over the requirements that both reach
      a, b = (kept.estimate(s, row.split, row.perspective, row.metric)
              for s in (row.system, row.against))
      e = kept.by_row[kept.key(row)]
      for mine, own, other in ((e.candidates, a.candidates, b.candidates),
                               (e.jobs, a.jobs, b.jobs)):
        # A group without which one of them is nan moves neither it nor the difference, whose mean
        # is then over the others.
        there = mine != 0 if row.metric == LOSS else np.ones(len(mine), bool)
        gap = (mine - own + other)[there]
        unmoved = (own[~there] != 0).any()
        np.testing.assert_allclose(gap, gap.mean() if unmoved else 0.0, atol=1e-7)
      assert e.value == pytest.approx(a.value - b.value, nan_ok=True)
      checked += np.ptp(e.jobs) > 0
  assert checked > 10


def test_every_interval_has_the_level_that_was_asked_for(kept):
  checked = clipped = 0
  for row in kept.rows:
    e = kept.by_row[kept.key(row)]
    if e.groups == (0, 0):
      assert math.isnan(row.low) and row.metric.split()[0] in (
          'monotone', '|C', 'τ', 'effective'), row
      continue
    if math.isnan(e.value):  # an eligibility that the policy, or a plug-in, does not reach
      assert math.isnan(row.value) and math.isnan(row.low) and (
          row.metric.endswith('of the way') or row.metric in (LOSS, AT_EQUAL))
      continue
    half = half_width(e)
    least, most = range_of(row.metric)
    if row.against:
      least, most = least - most, most - least
    ends = max(e.value - half, least), min(e.value + half, most)
    clipped += ends != (e.value - half, e.value + half)
    assert (row.value, row.low, row.high) == pytest.approx((e.value, *ends), rel=1e-5, abs=1e-7)
    assert row.n == e.n
    checked += 1
  assert checked > 500 and clipped > 5


def test_the_policy_on_held_out_lists_and_on_stage_2s(kept):
  """Without a job, the others of its list take its share."""
  stage_2 = stage_2_lists(kept.dataset, S.policy.list_length, S.policy.lists, S.seed)
  q_of, tau = kept.truth.qualification, kept.results.taus[2]

  def expectation(lists, score, q):
    def statistic(keep):
      by_list = []
      for u, j in zip(lists.candidate.tolist(), lists.job.tolist()):
        items = [p for p in zip(u, j) if keep(*p)]
        if items:
          pi = softmax([score[p] for p in items], T)
          by_list.append(sum(w * q[p] for w, p in zip(pi, items)))
      return sum(by_list) / len(by_list)
    return statistic
  pairs = pairs_of(kept.lists.held_out)
  score = {p: kept.policy_score(*p, tau) for p in pairs}
  held = kept.estimate('policy', HELD_OUT, 'policy', 'predicted C', tau)
  for metric, q in (('predicted C', {p: kept.p_qual(*p) for p in pairs}),
                    ('true C', {p: float(q_of[p]) for p in pairs})):
    kept.check(kept.estimate('policy', HELD_OUT, 'policy', metric, tau),
               expectation(kept.lists.held_out, score, q), pairs)
  seen = pairs_of(stage_2)
  z = dict(zip(seen, np.asarray(kept.inputs.z_qual).ravel().tolist()))
  policy = kept.trained.policy
  score = dict(zip(seen, np.asarray(policy.scores_at(kept.inputs, tau)).ravel().tolist()))
  trained = kept.estimate('policy', STAGE_2, 'policy', 'predicted C', tau)
  kept.check(trained, expectation(stage_2, score, {p: 1 / (1 + math.exp(-z[p])) for p in seen}),
             seen)
  half = half_width(Estimate(0.0, held.candidates - trained.candidates, held.jobs - trained.jobs, 1,
                             tuple(map(max, held.groups, trained.groups)),
                             held.pairs - trained.pairs))
  inside = kept.row('policy', HELD_OUT, 'policy', 'τ in the interval of C', tau)
  assert inside.value == (abs(held.value - tau) <= half)
  row = kept.row('policy', HELD_OUT, 'policy', 'predicted C', tau)
  (control,) = [c for c in kept.results.control if c.tau == tau]
  assert tuple(control.heldout) == pytest.approx((row.value, row.low, row.high, row.n))
  assert control.covered == bool(inside.value)


def test_preference_at_equal_eligibility(kept):
  """Means, the way from P to Q and the place on the policy's course all without the one left."""
  lists, knots = kept.lists.wanted, kept.trained.policy.knots.tolist()
  pairs = pairs_of(lists)
  P, Q = kept.truth.preference, kept.truth.qualification
  ranked = [{p: kept.policy_score(*p, tau) for p in pairs} for tau in knots]
  ranked += [{p: float(P[p]) for p in pairs}, {p: float(Q[p]) for p in pairs}]
  e_of = {}

  def statistic(keep):
    points = []
    for score in ranked:
      by_list = []
      for u, j in zip(lists.candidate.tolist(), lists.job.tolist()):
        items = [p for p in zip(u, j) if keep(*p)]
        above = [sum(score[o] > score[p] for o in items) for p in items]
        level = [sum(score[o] == score[p] for o in items) for p in items]
        share = [min(max((5 - a) / n, 0), 1) for a, n in zip(above, level)]  # of ties, an even one
        by_list.append([sum(s * float(truth[p]) for s, p in zip(share, items)) / sum(share)
                        for truth in (Q, P)] if items else [None, None])
      points.append([mean(side)[0] for side in zip(*by_list)])
    *course, (low, _), (high, _) = points
    e = e_of[len(e_of)] = low + 0.1 * (high - low)
    found = [y for x, y in course if x >= e]
    for (x0, y0), (x1, y1) in itertools.pairwise(course):
      if min(x0, x1) < e < max(x0, x1):
        found.append(y0 + (e - x0) / (x1 - x0) * (y1 - y0))
    return max(found)
  about = kept.lists.split, 'policy'
  kept.check(kept.estimate('policy', *about, of_the_way(TRUE_PREFERENCE, 0.1)), statistic, pairs)
  assert kept.estimate(BOUND, *about, of_the_way(ELIGIBILITY, 0.1)).value == pytest.approx(e_of[0])


def test_calibration_and_correlation(kept):
  pairs = [p for case in kept.lists.pair_cases('preference')
           for p in pairs_of(kept.lists.cases[case])]
  u, j = (np.array(x) for x in zip(*pairs))
  q, p = kept.truth.qualification[u, j], kept.truth.preference[u, j]
  predicted, s_pref = (np.array([f(*x) for x in pairs]) for f in (kept.p_qual, kept.s_pref))
  bins = np.empty(len(pairs), int)
  bins[np.argsort(predicted, kind='stable')] = np.arange(len(pairs)) * 15 // len(pairs)

  def kept_rows(keep):
    return np.array([keep(*x) for x in pairs])

  def error(keep):
    at = kept_rows(keep)
    return sum(abs((predicted - q)[at & (bins == b)].sum()) for b in range(15)) / at.sum()

  def correlation(keep):
    """Within candidates, whose means are of the jobs that stay."""
    at = kept_rows(keep)
    s, own, whose = s_pref[at], np.log(p / (1 - p))[at], u[at]
    return np.corrcoef(*(x - np.array([x[whose == c].mean() for c in whose])
                         for x in (s, own)))[0, 1]
  kept.check(kept.estimate(QUALIFICATION, UNIFORM, 'qualification', 'calibration error'), error,
             pairs)
  kept.check(kept.estimate(PREFERENCE, UNIFORM, 'policy', 'correlation with P, within candidates'),
             correlation, pairs)


def test_values_of_lists_are_kept_as_well(kept):
  values = load_arrays(kept.run.store.path(kept.run.road.evaluation) / 'values.npz')
  checked = 0
  for row in kept.rows:
    system = row.system if row.tau is None else f'policy at {row.tau:g}'
    perspective = row.perspective if row.tau is None else 'policy'
    found = values.get(f'{row.split}/{perspective}/{system}|{row.metric}')
    if found is not None and not row.against and not np.isnan(found).all():
      assert row.value == pytest.approx(np.nanmean(found)) and row.n == (~np.isnan(found)).sum()
      checked += 1
  assert checked > 200
