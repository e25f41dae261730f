"""The evaluation with experts that know the truth in place of trained ones."""

import dataclasses
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.baselines.rivals import DEFAULT, make_rival
from jobrec_jax.data.dataset import UNOBSERVED
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.evaluate.certification import CertifiedRow, CertifyConfig
from jobrec_jax.pipeline import scores
from jobrec_jax.pipeline.data import Data
from jobrec_jax.pipeline.measures import recommended, subject, surplus, tradeoff
from jobrec_jax.pipeline.sections import certified_section
from jobrec_jax.report.findings import (
    AT_EQUAL,
    INDEX,
    LOSS,
    PLUG_IN,
    REGRET,
    SURPLUS,
    findings,
)
from jobrec_jax.report.results import range_of
from tests.pipeline.measured import evaluation


@pytest.fixture(scope='module')
def market():
  return simulate(MarketConfig(candidates=80, jobs=24), 0)


@pytest.fixture(scope='module')
def evaluated(market, tmp_path_factory):
  return evaluation(tmp_path_factory.mktemp('evaluation'), *market, True)


def value(results, **where):
  found = [r for r in results.rows if all(getattr(r, k) == v for k, v in where.items())]
  assert len(found) == 1, where
  return found[0]


def test_no_row_occurs_twice_and_main_numbers_are_finite(evaluated):
  keys = [(r.system, r.tau, r.split, r.perspective, r.metric, r.against) for r in evaluated.rows]
  assert len(keys) == len(set(keys)) > 300
  for r in evaluated.rows:
    if r.metric == 'ndcg@5':
      assert all(map(math.isfinite, (r.value, r.low, r.high))), r


@pytest.mark.parametrize('split', ['cold candidates', 'both cold'])
@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
@pytest.mark.parametrize('other', [False, True])
def test_true_experts_reach_the_ceiling(evaluated, split, perspective, other):
  where = {'split': scores.across(split, perspective)[0] if other else split,
           'perspective': perspective, 'metric': 'ndcg@5', 'against': None, 'tau': None}
  own = value(evaluated, system=f'{perspective} expert', **where)
  ceiling = value(evaluated, system=subject.CEILINGS[perspective], **where)
  constant = value(evaluated, system='canary: constant', **where)
  assert own.value == pytest.approx(ceiling.value, abs=1e-9)
  # A candidate's list holds but the four jobs that are cold, most of them open to many.
  assert own.value > constant.value + (0.05 if other else 0.1)


def test_a_constant_scorer_recalls_one_in_n(market, evaluated):
  row = value(evaluated, split='cold candidates', perspective='preference',
              system='canary: constant', metric='recall@1')
  assert row.value == pytest.approx(1 / len(np.unique(market[0].interactions.of('train').job)))


def test_differences_are_paired_and_blanking_loses(evaluated):
  for rival in (*DEFAULT, subject.BLANKED):
    row = value(evaluated, split='cold candidates', perspective='preference', against=rival)
    rows = [value(evaluated, split='cold candidates', perspective='preference', tau=None,
                  metric='ndcg@5', system=s, against=None) for s in (subject.PREFERENCE, rival)]
    assert row.value == pytest.approx(rows[0].value - rows[1].value)
    assert row.low <= row.value <= row.high
    assert row.value > 0


def test_policy_rows_follow_lambda(evaluated):
  def over_tau(metric, split):
    return [value(evaluated, system='policy', tau=t, metric=metric, split=split,
                  perspective='policy').value for t in (0.0, 0.3, 0.5)]
  for metric, split in (('predicted C', 'held-out lists'), ('true C', 'held-out lists'),
                        ('true eligibility@5', 'cold candidates')):
    values = over_tau(metric, split)
    assert values == sorted(values)
    assert values[0] < values[-1]
  # Calibrated experts that know the truth predict it.
  np.testing.assert_allclose(over_tau('predicted C', 'held-out lists'),
                             over_tau('true C', 'held-out lists'), atol=1e-5)
  assert value(evaluated, metric='monotone true C').value == 1
  assert value(evaluated, metric='|C − τ|', tau=0.3).value == pytest.approx(0.2)  # p_qual is 1/2
  assert [c.tau for c in evaluated.control] == [0.3, 0.5] and evaluated.taus == [0.0, 0.3, 0.5]
  free = value(evaluated, system='policy', tau=0.0, metric='ndcg@5', split='cold candidates')
  expert = value(evaluated, system=subject.PREFERENCE, metric='ndcg@5', against=None,
                 split='cold candidates', perspective='preference')
  assert free.value == pytest.approx(expert.value)


def test_preference_is_kept_at_equal_eligibility_as_far_as_the_bound_allows(market, evaluated):
  """Experts that know the truth, and a policy that weighs logits where the bound weighs P and Q."""
  def at(metric, share, **where):
    return value(evaluated, metric=subject.of_the_way(metric, share), **where).value
  ends = [value(evaluated, system=subject.CEILINGS['preference'], metric=subject.ELIGIBILITY,
                split='cold candidates').value]
  lists = scores.ranked_lists({'seed': 0, 'candidates': 0, 'source': 'simulated'}, *market, '')[
      'cold candidates', 'preference']
  ends.append(-np.sort(-market[1].qualification[lists.candidate, lists.job])[:, :5].mean())
  reached = [value(evaluated, system='policy', tau=t, metric=subject.ELIGIBILITY).value
             for t in (0.3, 0.5)]
  for share in subject.SHARES:
    e = at(subject.ELIGIBILITY, share, system=subject.BOUND)
    assert e == pytest.approx(ends[0] + share * (ends[1] - ends[0]))
    own, bound = (at(subject.TRUE_PREFERENCE, share, system=s, against=None)
                  for s in ('policy', subject.BOUND))
    lost = at(subject.TRUE_PREFERENCE, share, system='policy', against=subject.BOUND)
    if e > max(reached):
      assert math.isnan(own)
      continue
    assert bound > own > bound - 0.05 and lost == pytest.approx(own - bound)
  assert ends[0] + 0.1 * (ends[1] - ends[0]) < max(reached)
  free = value(evaluated, system='policy', tau=0.0, metric=subject.TRUE_PREFERENCE)
  expert = value(evaluated, system=subject.PREFERENCE, metric=subject.TRUE_PREFERENCE,
                 split='cold candidates')
  assert free.value == pytest.approx(expert.value)


def test_every_family_is_compared_at_the_policys_eligibilities(market, evaluated):
  """Experts that know the truth: their plug-in is the truth's own frontier, and loses nothing."""
  curves = evaluated.families
  assert list(curves) == [tradeoff.KNOTS, 'policy', subject.BOUND, PLUG_IN, tradeoff.THRESHOLD,
                          tradeoff.FILTER, tradeoff.DUAL]
  for metric, side in ((subject.ELIGIBILITY, 0), (subject.TRUE_PREFERENCE, 1)):
    np.testing.assert_allclose(curves['policy'][:, side], [
        value(evaluated, system='policy', tau=t, metric=metric).value for t in (0.3, 0.5)])
  np.testing.assert_allclose(curves[PLUG_IN], curves[subject.BOUND], atol=1e-6)
  assert value(evaluated, system=PLUG_IN, metric=LOSS).value == pytest.approx(0, abs=1e-6)

  def kept(name, e):
    """By hand: the best of the points that are eligible enough, and of the lines between."""
    found = [y for x, y in curves[name] if x >= e]
    for (x0, y0), (x1, y1) in itertools.pairwise(curves[name].tolist()):
      if min(x0, x1) < e < max(x0, x1):
        found.append(y0 + (e - x0) / (x1 - x0) * (y1 - y0))
    return max(found) if found else math.nan
  at = curves['policy'][:, 0]
  lost = {name: np.array([kept(subject.BOUND, e) - kept(name, e) for e in at]) for name in curves}
  for name in list(curves)[3:]:
    there = ~np.isnan(lost[name])
    row = value(evaluated, system=name, metric=LOSS)
    if not there.any():
      assert math.isnan(row.value)
      continue
    assert row.value == pytest.approx(lost[name][there].mean()) and row.value > -1e-3
    gap = value(evaluated, system='policy', metric=LOSS, against=name)
    assert gap.value == pytest.approx((lost['policy'] - lost[name])[there].mean())
    assert gap.low <= gap.value <= gap.high
  for tau, more in zip((0.3, 0.5), lost[PLUG_IN] - lost['policy']):
    row = value(evaluated, system='policy', metric=AT_EQUAL, tau=tau)
    assert row.value == pytest.approx(more) and row.against == PLUG_IN
  said = [f for f in findings(evaluated.rows) if PLUG_IN in f.text]
  assert len(said) == 1 and said[0].text.startswith('At no requirement can more true preference')


def test_regrets_of_surplus_are_those_of_the_top_five(market, evaluated):
  """Experts that know the truth: the index is the ceiling."""
  _, truth = market
  lists = scores.ranked_lists({'seed': 0, 'candidates': 0, 'source': 'simulated'}, *market, '')[
      'cold candidates', 'preference']
  P, Q = (getattr(truth, k)[lists.candidate, lists.job].astype(float)
          for k in ('preference', 'qualification'))
  worth = -Q * np.log(1 - P)
  best = (worth * shares(worth)).sum(1).mean() / 5
  assert value(evaluated, system=surplus.CEILING, metric=SURPLUS).value == pytest.approx(best, 1e-5)
  assert value(evaluated, system=INDEX, metric=REGRET).value == pytest.approx(0, abs=1e-6)
  for system, by in ((subject.PREFERENCE, P), (subject.QUALIFICATION, Q)):
    reached = (worth * shares(by.astype(np.float32))).sum(1).mean() / 5
    row = value(evaluated, system=system, metric=REGRET)
    assert row.value == pytest.approx(best - reached, rel=1e-3) and row.low <= row.value <= row.high
    assert row.value > 0.02
  free = value(evaluated, system='policy', tau=0.0, metric=REGRET)
  assert free.value == pytest.approx(
      value(evaluated, system=subject.PREFERENCE, metric=REGRET).value, rel=1e-3)
  said, = (f for f in findings(evaluated.rows) if f.text.startswith('Ranked by the surplus'))
  assert said.verdict == 'yes' and said.place[1] == INDEX


def test_filters_put_first_what_passes(market, evaluated):
  dataset, truth = market
  lists = scores.ranked_lists({'seed': 0, 'candidates': 0, 'source': 'simulated'}, *market, '')[
      'cold candidates', 'preference']
  P, Q = (getattr(truth, k)[lists.candidate, lists.job] for k in ('preference', 'qualification'))
  rules = make_rival('schema rules', dataset).fit(dataset, 'qualification').score(
      lists.candidate.ravel(), lists.job.ravel()).reshape(P.shape).astype(np.float32)
  for name, score in ((tradeoff.THRESHOLD, Q), (tradeoff.FILTER, rules)):
    curve = evaluated.families[name]
    for k, cut in ((0, score.min()), (len(curve) - 1, np.quantile(score, 0.95, method='nearest'))):
      share = shares(P + 2.0 * (score >= cut - 1e-6))
      np.testing.assert_allclose(curve[k], [(x * share).mean(0).sum() / 5 for x in (Q, P)],
                                 atol=1e-6)


def shares(score):
  """The chance of each item to be among the five best of its list, ties drawn at random."""
  above, level = ((f(score[:, None, :], score[:, :, None])).sum(-1) for f in (
      np.greater, np.equal))
  return np.clip((5 - above) / level, 0, 1)


def test_what_is_recommended_is_counted_over_the_catalogue(market, evaluated):
  dataset, truth = market
  lists = scores.ranked_lists({'seed': 0, 'candidates': 0, 'source': 'simulated'}, *market, '')[
      'cold candidates', 'preference']
  P = truth.preference[lists.candidate, lists.job]
  share, jobs = shares(P), np.unique(lists.job)
  count = np.array([share[lists.job == j].sum() for j in jobs])
  missed = np.array([np.prod(1 - share[lists.job == j]) for j in jobs])
  train = dataset.interactions.of('train')
  popular = np.bincount(train.job[train.preference == 1], minlength=24) / (
      train.preference == 1).sum()
  about = {'system': subject.PREFERENCE, 'split': 'cold candidates', 'perspective': 'policy'}
  expected = {recommended.COVERAGE: 1 - missed.mean(),
              recommended.POPULARITY: (popular[lists.job] * share).sum() / share.sum(),
              recommended.GINI: abs(count[:, None] - count).mean() / (2 * count.mean())}
  for metric, known in expected.items():
    row = value(evaluated, metric=metric, **about)
    assert row.value == pytest.approx(known) and row.low <= row.value <= row.high
    free = value(evaluated, system='policy', tau=0.0, metric=metric)
    assert free.value == pytest.approx(known)  # which ranks by preference alone


def test_groups_of_candidates_are_measured_apart(market, tmp_path):
  dataset, truth = market
  results = evaluation(tmp_path, dataset, truth, True, groups=('academic_level', 'gpa'))
  rows = [r for r in results.rows if r.split.startswith('cold candidates, ')
          and scores.split_of(r.split) == r.split]
  lists = scores.ranked_lists({'seed': 0, 'candidates': 0, 'source': 'simulated'}, *market, '')[
      'cold candidates', 'preference']
  level = np.array([dataset.candidates[u]['academic_level'] for u in lists.candidate[:, 0]])
  for name in np.unique(level):
    of = [r for r in rows if r.split == f'cold candidates, academic_level {name}'
          and r.system == subject.CEILINGS['preference']]
    mine = level == name
    P, Q = (getattr(truth, k)[lists.candidate, lists.job][mine] for k in (
        'preference', 'qualification'))
    found = {r.metric: r for r in of}
    assert set(found) == {'ndcg@5', subject.ELIGIBILITY}
    assert found[subject.ELIGIBILITY].value == pytest.approx(
        (Q * shares(P)).sum() / (5 * mine.sum()))
    assert found[subject.ELIGIBILITY].n == mine.sum()
  quarters = {r.split: r.n for r in rows if ' gpa ' in r.split and r.metric == subject.ELIGIBILITY
              and r.system == 'policy'}
  assert len(quarters) >= 4 and sum(quarters.values()) == 20
  keys = [(r.system, r.tau, r.split, r.perspective, r.metric, r.against) for r in results.rows]
  assert len(keys) == len(set(keys))


def test_labels_stand_for_truths_where_pairs_have_both(market, tmp_path):
  """As where outcomes of people who did not apply are known."""
  dataset, truth = market
  log = dataset.interactions
  both = dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, qualification=truth.eligible[log.candidate, log.job].astype(np.int8)))
  results = evaluation(tmp_path, both, truth, False)
  loss = value(results, system=PLUG_IN, metric='loss of labelled preference@5')
  assert 0 <= loss.value < 1 and 'labelled preference' in ' '.join(
      f.text for f in findings(results.rows))


def test_no_interval_leaves_the_range_of_its_metric(evaluated):
  ends = 0
  for r in evaluated.rows:
    low, high = range_of(r.metric)
    if r.against is None and math.isfinite(r.low):
      assert low <= r.low <= r.high <= high, r
      ends += r.value not in (low, high) and (r.low == low or r.high == high)
  assert ends > 0


def test_calibration_and_correlations(evaluated):
  calibrated = value(evaluated, system='qualification expert', metric='calibration error')
  raw = value(evaluated, system='qualification expert, uncalibrated', metric='calibration error')
  assert calibrated.value < 1e-5 < 0.02 < raw.value
  own = value(evaluated, system='qualification expert', metric='correlation with Q')
  assert own.value == pytest.approx(1, abs=1e-6)
  assert calibrated.n == own.n == 20 * 24  # every test candidate with every job


def test_experts_that_know_the_truth_make_no_error_and_rivals_do(evaluated):
  for perspective, letter in (('preference', 'P'), ('qualification', 'Q')):
    def found(metric, system, **more):
      return value(evaluated, split=subject.UNIFORM, metric=metric, system=system, **more)
    expert = f'{perspective} expert'
    for side, n in (('candidate', 20), ('job', 24)):
      own, rival, rules = (found(f'Spearman with {letter} within a {side}', s) for s in (
          expert, 'logistic regression', 'schema rules'))
      assert own.value == pytest.approx(1) and own.n == n and 0.95 > rival.value > rival.low
      assert rules.high > rules.value > rules.low
    for part in ('mean', 'variance of candidates', 'variance of jobs', 'variance of pairs'):
      metric = f'error of logit {letter}, {part}'
      own, rival = (found(metric, s) for s in (expert, 'logistic regression'))
      assert own.value == pytest.approx(0, abs=1e-6) and rival.low < rival.value < rival.high
      assert abs(rival.value) > 0.01
      assert not [r for r in evaluated.rows if (r.metric, r.system) == (metric, 'popularity')]


def test_every_system_is_compared_with_both_truths(market, evaluated):
  """Preference within candidates, so that popularity's correlations are of jobs alone."""
  dataset, truth = market
  u, j = (x.ravel() for x in np.meshgrid(np.unique(dataset.interactions.of(
      'cold_candidates').candidate), np.arange(24), indexing='ij'))
  fitted = make_rival('popularity', dataset).fit(dataset, 'preference')
  s, P = fitted.score(u, j).astype(np.float32), logit(truth.preference[u, j])
  centred = [x.reshape(20, 24) - x.reshape(20, 24).mean(1, keepdims=True) for x in (s, P)]
  found = value(evaluated, system='popularity', metric='correlation with P, within candidates')
  assert found.value == pytest.approx(np.corrcoef(*(x.ravel() for x in centred))[0, 1], abs=1e-6)
  for system in ('preference expert', *DEFAULT):
    for metric in ('P', 'Q', 'P given Q', 'Q given P'):
      assert value(evaluated, system=system,
                   metric=f'correlation with {metric}, within candidates').n == 480
  assert value(evaluated, system='schema rules', metric='correlation with P given Q').n == 480


def test_without_truths_labels_are_ranked(market, tmp_path):
  dataset, truth = market
  results = evaluation(tmp_path, dataset, truth, False)
  assert {r.split for r in results.rows} == {
      'test', 'test, candidates of a job', 'test, jobs of a candidate', 'held-out lists',
      'stage 2 lists', 'test applicants'}
  assert not any('true' in r.system or 'true' in r.metric for r in results.rows)
  test = dataset.interactions.of('test')
  assert value(results, system='qualification expert', metric='calibration error').n <= (
      test.qualification != UNOBSERVED).sum()
  # Applicants' outcomes are not their probabilities, which these experts know.
  assert value(results, system='qualification expert', metric='calibration error').value > 0.01
  assert not [r for r in results.rows if r.metric == 'calibration error by job']  # mostly noise


def test_no_pair_is_scored_twice(market, monkeypatch, tmp_path):
  dataset, truth = market
  cases = scores.ranked_lists({'seed': 1, 'candidates': 0, 'source': 'simulated'}, *market, '')
  seen = []

  class Slow:
    def fit(self, data, perspective):
      return self

    def score(self, u, j):
      seen.append(len(set(zip(u.tolist(), j.tolist()))) == len(u) == 20 * 24)
      return u * 100.0 + j
  monkeypatch.setattr(scores.rivals, 'make_rival', lambda name, data: Slow())
  bench = SimpleNamespace(folder=tmp_path, settings={'rival': 'popularity'}, inputs={
      'data': Data(dataset, truth), 'lists': scores.EvaluationLists(cases, None)})
  scores.make_rival(bench)
  assert seen == [True, True]
  for case, found in scores.read_list_scores(bench).items():
    lists = cases[tuple(case.split('/'))]
    np.testing.assert_array_equal(found, lists.candidate * 100.0 + lists.job)


def test_ranking_in_parts_is_ranking_at_once(market, monkeypatch, tmp_path, evaluated):
  monkeypatch.setattr(subject, 'AT_ONCE', 30)
  again = evaluation(tmp_path, *market, True)
  assert len(again.rows) == len(evaluated.rows)
  for a, b in zip(again.rows, evaluated.rows):
    assert (a.system, a.metric, a.n) == (b.system, b.metric, b.n)
    assert a.value == pytest.approx(b.value, rel=1e-12, nan_ok=True)


def test_offsets_are_added_to_the_calibrated_logit(market, tmp_path):
  """Experts whose logits lack a shift by job are right once it is added."""
  offsets = np.linspace(-1.5, 1.5, len(market[0].jobs))
  results = evaluation(tmp_path, *market, True, offsets)
  error = {system: value(results, system=system, metric='calibration error').value for system in (
      'qualification expert', 'qualification expert, recalibrated by job')}
  assert error['qualification expert, recalibrated by job'] < 1e-5 < 0.03 < error[
      'qualification expert']


def test_two_certificates_are_not_told_as_if_they_held_together():
  c = CertifyConfig(alpha=0.4, delta=0.1, k=3)
  rows = [CertifiedRow(loss, 'learn then test', 0.5, 0.7, 0.7, 0.7, 60)
          for loss in ('whole distribution', 'top 3')]
  (section,) = certified_section(c, rows)
  assert ('Each certificate is one alone: that both of learn-then-test hold together has a '
          'probability of at least 0.8.') in section.text
