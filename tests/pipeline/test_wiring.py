"""Every number of a run again, by plain loops from what was kept: what hands on whose values."""

import itertools
import math

import jax
import numpy as np
import pytest

from jobrec_jax.data.lists import calibration_halves
from jobrec_jax.pipeline.certify import draw_lists
from jobrec_jax.pipeline.measures.subject import (
    BLANKED,
    CEILINGS,
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    STAGE_2,
    UNIFORM,
)
from jobrec_jax.pipeline.scores import HELD_OUT, rivals_among, split_of
from jobrec_jax.scoring.calibration import fit_calibration
from tests.pipeline.tiny import tiny_settings

pytestmark = pytest.mark.slow
T = tiny_settings().policy.temperature


class Kept:
  """What the stages of the tiny run left."""

  def __init__(self, run):
    self.run, road = run, run.road
    self.dataset, self.truth = run.get(road.data)
    self.lists, self.scores = run.get(road.lists), run.get(road.scores)
    self.trained = run.get(road.policy)
    self.calibration, self.offsets = run.get(road.calibration)
    self.results = run.get(road.evaluation)
    self.inputs = run.get(road.inputs)
    stages = road.evaluation.inputs
    self.rivals = {name: run.get(stages[name]) for name in rivals_among(stages)}
    self.canaries, self.blanked = run.get(stages['canaries']), run.get(stages['blanked'])
    wanted = self.lists.wanted
    self.blanked_at = {(int(u), int(j)): float(x) for u, j, x in zip(
        wanted.candidate.ravel(), wanted.job.ravel(), self.blanked.ravel())}
    at = {int(code): i for i, code in enumerate(self.scores.codes)}
    self.pair = lambda u, j: at[int(u) * len(self.dataset.jobs) + int(j)]

  def s_pref(self, u, j):
    return float(self.scores.preference[self.pair(u, j)])

  def s_qual(self, u, j):
    return float(self.scores.qualification[self.pair(u, j)])

  def z(self, u, j):
    return (self.s_qual(u, j) - self.calibration.b) / self.calibration.t

  def p_qual(self, u, j):
    return 1 / (1 + math.exp(-self.z(u, j)))

  def mu(self, tau):
    return float(np.interp(tau, *self.trained.policy.tilts))

  def policy_score(self, u, j, tau):
    """s_pref + mu(tau) p_qual + lambda(tau) z, both read between what they are known for."""
    knots, k = self.trained.policy.knots.astype(float), None
    code = int(u) * len(self.dataset.jobs) + int(j)
    lam = self.scores.lam[int(np.flatnonzero(self.scores.policy_codes == code)[0])].astype(float)
    tau = max(tau, knots[0])
    k = max(i for i in range(len(knots) - 1) if knots[i] <= tau + 1e-9)
    share = (tau - knots[k]) / (knots[k + 1] - knots[k])
    lam = (1 - share) * lam[k] + share * lam[k + 1]
    return self.s_pref(u, j) + self.mu(tau) * self.p_qual(u, j) + lam * self.z(u, j)

  def score(self, system, case, n, i, u, j):
    prefix = '/'.join(case)
    if system == PREFERENCE:
      return self.s_pref(u, j)
    if system == QUALIFICATION:
      return self.s_qual(u, j)
    if system == BLANKED:
      return self.blanked_at[int(u), int(j)]
    if system == CEILINGS['preference']:
      return float(self.truth.preference[u, j])
    if system == CEILINGS['qualification']:
      return float(self.truth.qualification[u, j])
    kept = self.rivals.get(system)
    return float((self.canaries[f'{prefix}/{system}'] if kept is None else kept[prefix])[n, i])

  def row(self, system, split, perspective, metric, tau=None, against=None):
    found = [r for r in self.results.rows if (r.system, r.split, r.perspective, r.metric, r.against)
             == (system, split, perspective, metric, against)
             and (r.tau == tau or (tau is not None and r.tau is not None
                                   and abs(r.tau - tau) < 1e-9))]
    assert len(found) == 1, (system, split, perspective, metric, tau, against, len(found))
    return found[0]


@pytest.fixture(scope='module')
def kept(tiny_folder):
  from jobrec_jax.pipeline.run import Run
  return Kept(Run(tiny_folder, tiny_settings()))


def gains(scores, relevance):
  """The expected relevance at each rank, tied items sharing theirs."""
  order = sorted(range(len(scores)), key=lambda i: -scores[i])
  out, at = [], 0
  while at < len(order):
    tied = [i for i in order[at:] if scores[i] == scores[order[at]]]
    out += [sum(relevance[i] for i in tied) / len(tied)] * len(tied)
    at += len(tied)
  return out


def reciprocal_rank(scores, relevance):
  """The expected 1 / rank of the first positive over random orders of ties."""
  best = max(s for s, r in zip(scores, relevance) if r)
  above = sum(s > best for s in scores)
  tied = [r for s, r in zip(scores, relevance) if s == best]
  n, m = len(tied), sum(tied)
  return sum(math.comb(n - r, m - 1) / math.comb(n, m) / (above + r) for r in range(1, n - m + 2))


def measures(scores, relevance, eligible=None):
  """The metrics of one list; None where it has no positive."""
  gain, positives = gains(scores, relevance), sum(relevance)
  out = {}
  for k in (1, 3, 5, 10, 20):
    ideal = sum(1 / math.log2(r + 2) for r in range(min(k, positives)))
    out[f'recall@{k}'] = sum(gain[:k]) / positives if positives else None
    out[f'ndcg@{k}'] = (sum(g / math.log2(r + 2) for r, g in enumerate(gain[:k])) / ideal
                        if positives else None)
  out['mean_rank'] = (sum(g * (r + 1) for r, g in enumerate(gain)) / positives
                      if positives else None)
  out['mrr'] = reciprocal_rank(scores, relevance) if positives else None
  items = list(zip(scores, relevance))
  right = [(a > b) + (a == b) / 2 for a, r in items for b, s in items
           if r and not s]
  out['auc'] = sum(right) / len(right) if right else None
  if eligible is not None:
    out[ELIGIBILITY] = sum(gains(scores, eligible)[:5]) / min(5, len(scores))
  return out


def mean(values):
  there = [v for v in values if v is not None]
  return sum(there) / len(there), len(there)


def softmax(scores, temperature):
  top = max(scores)
  weights = [math.exp((s - top) / temperature) for s in scores]
  return [w / sum(weights) for w in weights]


def test_every_ranking_row(kept):
  checked = 0
  for case, lists in kept.lists.cases.items():
    systems = {r.system for r in kept.results.rows if (r.split, r.perspective) == case
               and r.against is None and r.tau is None}
    by_system = {}
    for system in systems:
      by_list = []
      for n in range(len(lists)):
        pairs = [(i, int(u), int(j)) for i, (u, j) in enumerate(zip(lists.candidate[n],
                                                                    lists.job[n]))]
        relevance = [bool(x) for x in lists.relevance[n]]
        scores = [kept.score(system, case, n, i, u, j) for i, u, j in pairs]
        eligible = None
        if lists.centre == 'candidate':
          eligible = [float(kept.truth.qualification[u, j]) for _, u, j in pairs]
        by_list.append(measures(scores, relevance, eligible))
      by_system[system] = by_list
      for metric in by_list[0]:
        value, n = mean([m[metric] for m in by_list])
        row = kept.row(system, *case, metric)
        assert row.value == pytest.approx(value, rel=1e-5, abs=1e-6), row
        assert row.n == n and not row.low > row.value and not row.high < row.value
        checked += 1
    expert = PREFERENCE if case[1] == 'preference' else QUALIFICATION
    for rival in (*kept.rivals, BLANKED):
      if rival in by_system:
        value, _ = mean([a['ndcg@5'] - b['ndcg@5'] if a['ndcg@5'] is not None else None
                         for a, b in zip(by_system[expert], by_system[rival])])
        row = kept.row(expert, *case, 'ndcg@5', against=rival)
        assert row.value == pytest.approx(value, rel=1e-5, abs=1e-6)
        checked += 1
  assert checked > 800


def test_relevance_is_the_latent_outcome_and_position_says_nothing(kept):
  for (where, perspective), lists in kept.lists.cases.items():
    assert (lists.centre == 'candidate') == (
        perspective == 'preference') ^ (where != split_of(where))
    outcome = kept.truth.wants if perspective == 'preference' else kept.truth.eligible
    np.testing.assert_array_equal(lists.relevance, outcome[lists.candidate, lists.job])
    assert len({tuple(row) for row in np.argsort(lists.job if lists.centre == 'candidate'
                                                 else lists.candidate, axis=1).tolist()}) > 1


def test_the_lists_are_of_their_splits(kept):
  log = kept.dataset.interactions
  train = set(log.candidate[log.split == 0].tolist())
  warm = set(log.job[log.split == 0].tolist())
  assert not train & set(kept.lists.held_out.candidate.ravel().tolist())
  applied = set(zip(*(getattr(log, k)[log.preference == 1].tolist() for k in ('candidate', 'job'))))
  for row, (u, j) in enumerate(zip(kept.lists.held_out.candidate, kept.lists.held_out.job)):
    positives = [(int(a), int(b)) in applied for a, b in zip(u, j)]
    assert positives == kept.lists.held_out.relevance[row].tolist() and sum(positives) == 1
  for (split, _), lists in kept.lists.cases.items():
    assert not train & set(lists.candidate.ravel().tolist())
    jobs = set(lists.job.ravel().tolist())
    assert jobs == warm if split_of(split) == 'cold candidates' else not jobs & warm


def test_every_row_of_the_policy(kept):
  assert kept.results.taus[0] == 0 and len(kept.results.taus) == 5
  q_of, p_of = kept.truth.qualification, kept.truth.preference
  wanted, held_out = kept.lists.wanted, kept.lists.held_out
  means = {}
  for tau in kept.results.taus:
    by_list = []
    for n in range(len(held_out)):
      pairs = list(zip(held_out.candidate[n].tolist(), held_out.job[n].tolist()))
      scores = [kept.policy_score(u, j, tau) for u, j in pairs]
      pi = softmax(scores, T)
      by_list.append({
          'predicted C': sum(w * kept.p_qual(u, j) for w, (u, j) in zip(pi, pairs)),
          'true C': sum(w * float(q_of[u, j]) for w, (u, j) in zip(pi, pairs)),
          'expected true preference': sum(w * float(p_of[u, j]) for w, (u, j) in zip(pi, pairs)),
          'ndcg@5': measures(scores, held_out.relevance[n].tolist())['ndcg@5']})
    for metric in by_list[0]:
      perspective = 'preference' if metric == 'ndcg@5' else 'policy'
      value, n = mean([m[metric] for m in by_list])
      row = kept.row('policy', HELD_OUT, perspective, metric, tau)
      assert row.value == pytest.approx(value, rel=2e-5, abs=2e-6) and row.n == n, row
      means[HELD_OUT, metric, tau] = value
    by_list = []
    for n in range(len(wanted)):
      pairs = list(zip(wanted.candidate[n].tolist(), wanted.job[n].tolist()))
      scores = [kept.policy_score(u, j, tau) for u, j in pairs]
      q = [float(q_of[u, j]) for u, j in pairs]
      eligible = [bool(kept.truth.eligible[u, j]) for u, j in pairs]
      m = measures(scores, wanted.relevance[n].tolist(), q)
      by_list.append({'ndcg@5': m['ndcg@5'], ELIGIBILITY: m[ELIGIBILITY],
                      'violation@5': 1 - sum(gains(scores, eligible)[:5]) / 5})
    for metric in by_list[0]:
      perspective = 'preference' if metric == 'ndcg@5' else 'policy'
      value, _ = mean([m[metric] for m in by_list])
      row = kept.row('policy', kept.results.split, perspective, metric, tau)
      assert row.value == pytest.approx(value, rel=2e-5, abs=2e-6), row
      means[kept.results.split, metric, tau] = value
  for where, metric in ((HELD_OUT, 'true C'), (kept.results.split, ELIGIBILITY)):
    course = [means[where, metric, tau] for tau in kept.results.taus]
    rises = all(a <= b for a, b in itertools.pairwise(course))
    assert kept.row('policy', where, 'policy', f'monotone {metric}').value == rises


def test_the_policy_on_stage_2s_lists(kept):
  """Its head by hand, on the kept hidden states."""
  p = jax.device_get(kept.trained.policy.params)
  x = np.concatenate([kept.inputs.hidden[..., 0, :], kept.inputs.hidden[..., 1, :]], -1)
  x = (x - p['mean']) / p['scale']
  x = np.maximum(x @ p['hidden_0']['kernel'] + p['hidden_0']['bias'], 0)
  bound = tiny_settings().policy.bound
  lam = np.clip(x @ p['lambda']['kernel'] + p['lambda']['bias'], -bound, bound)
  knots = kept.trained.policy.knots.astype(float)
  q = 1 / (1 + np.exp(-np.asarray(kept.inputs.z_qual)))
  reached_by = {}
  for row in (r for r in kept.results.rows if r.split == STAGE_2 and r.metric == 'predicted C'):
    total = []
    for n in range(len(q)):
      at = [np.interp(row.tau, knots, lam[n, j]) for j in range(q.shape[1])]
      scores = [float(kept.inputs.preference[n, j] + kept.mu(row.tau) * q[n, j]
                      + at[j] * kept.inputs.z_qual[n, j])
                for j in range(q.shape[1])]
      total.append(sum(w * float(q[n, j]) for j, w in enumerate(softmax(scores, T))))
    assert row.value == pytest.approx(sum(total) / len(total), rel=1e-4)
    reached_by[row.tau] = row.value
    gap = kept.row('policy', STAGE_2, 'policy', '|C − τ|', row.tau)
    assert gap.value == pytest.approx(abs(row.value - row.tau), abs=1e-6)
  assert len(reached_by) == 4 and len({round(v, 3) for v in reached_by.values()}) > 1


def test_calibration_and_correlation_rows(kept):
  cases = kept.lists.pair_cases('preference')
  assert cases == [('cold candidates', 'preference'), ('both cold', 'preference')]
  pairs = [(int(u), int(j)) for lists in map(kept.lists.cases.get, cases)
           for u, j in zip(lists.candidate.ravel(), lists.job.ravel())]
  q = np.array([float(kept.truth.qualification[u, j]) for u, j in pairs])
  p = np.array([float(kept.truth.preference[u, j]) for u, j in pairs])
  s_pref, s_qual = (np.array([f(u, j) for u, j in pairs]) for f in (kept.s_pref, kept.s_qual))
  z = np.array([kept.z(u, j) for u, j in pairs])
  shift = np.array([float(kept.offsets[j]) for _, j in pairs])

  def error(logit):
    """Fifteen bins of equal mass, by hand."""
    b = 1 / (1 + np.exp(-logit))
    order = np.argsort(b, kind='stable')
    bins = [order[len(order) * i // 15:len(order) * (i + 1) // 15] for i in range(15)]
    return sum(abs(b[i].mean() - q[i].mean()) * len(i) for i in bins) / len(b)
  for system, logit in ((QUALIFICATION, z), (f'{QUALIFICATION}, uncalibrated', s_qual),
                        (f'{QUALIFICATION}, recalibrated by job', z + shift)):
    row = kept.row(system, UNIFORM, 'qualification', 'calibration error')
    assert row.value == pytest.approx(error(logit), abs=2e-5) and row.n == len(pairs)
  assert abs(error(z) - error(s_qual)) > 100 * 2e-5  # so that none is taken for another

  def logit(x):
    x = np.clip(x, 1e-6, 1 - 1e-6)
    return np.log(x / (1 - x))

  def partial(x, y, given):
    design = np.stack([given, np.ones_like(given)], 1)
    rest = [v - design @ np.linalg.lstsq(design, v, rcond=None)[0] for v in (x, y)]
    return np.corrcoef(*rest)[0, 1]
  P, Q = logit(p), logit(q)
  candidates = np.array([u for u, _ in pairs])

  def within(x):
    return x - np.array([x[candidates == u].mean() for u in candidates])
  logistic = {perspective: np.concatenate([kept.rivals['logistic regression'][f'{w}/{perspective}']
                                           .ravel() for w in where])
              for perspective, where in (
                  ('preference', ('cold candidates', 'both cold')),
                  ('qualification', ('cold candidates, jobs of a candidate',
                                     'both cold, jobs of a candidate')))}
  of_lists = [kept.lists.cases[f'{w}, jobs of a candidate', 'qualification']
              for w in ('cold candidates', 'both cold')]
  at = {(int(u), int(j)): x for (u, j), x in zip(
      ((u, j) for lists in of_lists for u, j in zip(lists.candidate.ravel(), lists.job.ravel())),
      logistic['qualification'])}
  l_qual = np.array([at[pair] for pair in pairs])
  for system, s, own, other, letters, end in (
      (PREFERENCE, *map(within, (s_pref, P, Q)), 'PQ', ', within candidates'),
      ('logistic regression', *map(within, (logistic['preference'], P, Q)), 'PQ',
       ', within candidates'),
      (QUALIFICATION, s_qual, Q, P, 'QP', ''), ('logistic regression', l_qual, Q, P, 'QP', '')):
    expected = {f'correlation with {letters[0]}{end}': np.corrcoef(s, own)[0, 1],
                f'correlation with {letters[1]}{end}': np.corrcoef(s, other)[0, 1],
                f'correlation with {letters[0]} given {letters[1]}{end}': partial(s, own, other),
                f'correlation with {letters[1]} given {letters[0]}{end}': partial(s, other, own)}
    for metric, value in expected.items():
      assert kept.row(system, UNIFORM, 'policy', metric).value == pytest.approx(value, abs=1e-4)


def test_kept_scores_are_the_experts_own(kept):
  """Some pairs read one by one by the parameters that stage 1B left.

  Validation may keep nothing of what 1B adds to its start, so that scores do not tell the stages
  apart: what the scores are made from does.
  """
  assert kept.run.road.scores.inputs['experts'] is kept.run.road.cooperative
  experts = kept.run.get(kept.run.road.cooperative)
  blocks = experts.blocks(kept.dataset)
  apply = jax.jit(lambda lists: experts.model.apply(
      {'params': experts.params},
      *(lists[k] for k in ('candidate', 'job', 'alignment', 'numbers'))).scores)
  rng, own = np.random.default_rng(0), []
  for code in rng.choice(kept.scores.codes, 12, replace=False):
    u, j = divmod(int(code), len(kept.dataset.jobs))
    own.append(np.asarray(apply(blocks.candidate_lists(np.array([u]), np.array([[j]]))))[0, 0])
    np.testing.assert_allclose([kept.s_pref(u, j), kept.s_qual(u, j)], own[-1], atol=2e-4)
  assert (np.std(own, axis=0) > 0.1).all()


def propensities(kept, experts, rows):
  """What the preference expert makes of an application, put on a scale by validation."""
  from jobrec_jax.scoring.features import PairScorer
  from jobrec_jax.sharding import make_mesh
  s, log = tiny_settings(), kept.dataset.interactions
  score = PairScorer(experts, experts.blocks(kept.dataset), make_mesh(s.mesh), s.features)
  fit = np.flatnonzero((log.split == 1) & (log.preference >= 0))
  scale = fit_calibration(score.scores(log.candidate[fit], log.job[fit]).preference,
                          log.preference[fit], 1 / log.exposure[fit])
  logits = score.scores(log.candidate[rows], log.job[rows]).preference
  return score, 1 / (1 + np.exp(-(logits - scale.b) / scale.t))


def clipped(raw, clip):
  weights = raw / raw.mean()
  weights = np.minimum(weights, clip)
  return weights / weights.mean()


def test_censoring_weights(kept):
  stage = kept.run.road.cooperative.inputs['censoring']
  weights, log = kept.run.get(stage).weights, kept.dataset.interactions
  rows = np.flatnonzero((log.split == 0) & (log.qualification >= 0))
  np.testing.assert_allclose(weights[rows], weights_of(kept, rows), rtol=2e-3)
  assert np.ptp(weights[rows]) > 0.1  # not all alike
  assert (np.delete(weights, rows) == 0).all()


def weights_of(kept, rows):
  """Of train applicants: the chances of being shown and, after stage 1A, of applying."""
  exposure = kept.dataset.interactions.exposure[rows]
  _, p = propensities(kept, kept.run.get(kept.run.road.warm_up), rows)
  return clipped(1 / (np.maximum(p, 0.01) * exposure), tiny_settings().experts.ips_clip)


def test_the_doubt_is_that_of_the_log(kept):
  from jobrec_jax.pipeline.censoring import self_censoring
  found = kept.run.get(kept.run.road.cooperative.inputs['censoring']).doubt
  assert found == self_censoring(kept.dataset) and 0 <= found < 1


def test_the_calibration_is_that_of_validation_and_its_half(kept):
  log = kept.dataset.interactions
  half, _ = calibration_halves(kept.dataset)
  rows = np.flatnonzero(((log.split == 1) | (log.split == 2) & np.isin(log.candidate, half))
                        & (log.qualification >= 0))
  score, _ = propensities(kept, kept.run.get(kept.run.road.cooperative), rows)
  fit = fit_calibration(score.scores(log.candidate[rows], log.job[rows]).qualification,
                        log.qualification[rows], np.ones(len(rows)))
  assert kept.calibration == pytest.approx(fit, rel=1e-2)


def test_stage_2s_lists_and_inputs(kept):
  from jobrec_jax.data.lists import policy_lists
  from jobrec_jax.schema import streams
  s = tiny_settings()
  lists = policy_lists(kept.dataset, 'train', s.policy.list_length, s.policy.lists,
                       streams.seed32(s.seed, 'stage 2 lists'))
  np.testing.assert_array_equal(kept.inputs.positive, lists.relevance.argmax(1))
  experts = kept.run.get(kept.run.road.cooperative)
  score, _ = propensities(kept, experts, np.arange(4))
  found = score.scores(lists.candidate, lists.job)
  np.testing.assert_allclose(kept.inputs.preference, found.preference, atol=1e-4)
  np.testing.assert_allclose(kept.inputs.z_qual, (found.qualification - kept.calibration.b)
                             / kept.calibration.t, atol=1e-3)


def test_certificates_are_of_held_back_candidates_and_true_labels(kept):
  stage = kept.run.road.certified
  rows, s = kept.run.get(stage), tiny_settings()
  half = calibration_halves(kept.dataset)[1]
  log = kept.dataset.interactions
  assert {r.n for r in rows} == {len(half)}
  warm = np.unique(log.job[log.split == 0])
  lists = draw_lists({'seed': s.seed, 'list_length': s.policy.list_length}, kept.truth, half, warm,
                     'certificate lists')
  np.testing.assert_array_equal(lists.relevance, kept.truth.eligible[lists.candidate, lists.job])
  assert {r.loss for r in rows} == {'whole distribution', 'top 2'}
