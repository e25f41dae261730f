"""Correlations that tell whether an expert tracks the other truth."""

import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.evaluate.deconflation import SCORE, deconflation_rows, logit, truth_correlation
from jobrec_jax.evaluate.statistics import Groups, interval


def pairs(n_candidates=300, n_jobs=15, rho=0.6, seed=0):
  """Correlated truths whose logits carry a share of their own for each candidate."""
  rng = np.random.default_rng(seed)
  candidate = np.repeat(np.arange(n_candidates), n_jobs)
  draws = [rng.normal(size=n_candidates)[candidate] + rng.normal(size=len(candidate))
           for _ in range(4)]
  x, y = draws[0], rho * draws[0] + np.sqrt(1 - rho ** 2) * draws[1]
  return candidate, x, y, draws[2], draws[3]


def residual(x, z):
  design = np.stack([np.ones_like(z), z], axis=1)
  return x - design @ np.linalg.lstsq(design, x, rcond=None)[0]


def grouped(candidate):
  """Pairs by candidate, the n-th pair of each with the n-th job."""
  job = np.arange(len(candidate)) - np.searchsorted(candidate, candidate)
  return Groups(candidate, job, (candidate.max() + 1, job.max() + 1))


def within(x, candidate):
  """The same without each candidate's mean."""
  means = np.array([x[candidate == u].mean() for u in np.unique(candidate)])
  return x - means[np.unique(candidate, return_inverse=True)[1]]


def by_name(own, *about, **more):
  return {(r.truth, r.given): interval(r.correlation)
          for r in deconflation_rows(*about[:1], about[1:3], own, *about[3:], **more)}


def both(s_pref, s_qual, P, Q, candidate):
  """Rows of a preference and of a qualification score, as they are told."""
  groups = grouped(candidate)
  return {'preference': by_name('preference', s_pref, P, Q, groups, candidate=candidate),
          'qualification': by_name('qualification', s_qual, P, Q, groups)}


def test_correlations_equal_those_of_residuals():
  candidate, x, y, e1, e2 = pairs(n_candidates=60)
  s_pref, s_qual = 40 + x + 0.3 * y + e1, 1e-3 * (y - 0.5 * x + e2)
  rows = both(s_pref, s_qual, expit(x), expit(y), candidate)
  for own, s in (('preference', s_pref), ('qualification', s_qual)):
    assert len(rows[own]) == 5
    truth = {'preference': x, 'qualification': y}
    if own == 'preference':
      s, truth = within(s, candidate), {k: within(v, candidate) for k, v in truth.items()}
    for (t, g), got in rows[own].items():
      a, b = s, truth[t]
      if g == SCORE:
        a, b = residual(truth[own], s), residual(b, s)
      elif g:
        a, b = residual(a, truth[g]), residual(b, truth[g])
      assert got.value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6), (own, t, g)
      assert got.low < got.value < got.high and got.n == 900


def test_no_function_of_the_candidate_changes_what_is_told_of_preference():
  """It changes no ranking of a candidate's jobs; of qualification it is part of the truth."""
  candidate, x, y, e1, e2 = pairs(n_candidates=40)
  rng = np.random.default_rng(3)
  P, Q = expit(x), expit(y)
  plain = both(x + e1, y + e2, P, Q, candidate)
  for f in (7.0 * rng.normal(size=40), np.linspace(-50, 80, 40), y.reshape(40, -1).mean(1) * 9):
    moved = both(x + e1 + f[candidate], y + e2 + f[candidate], P, Q, candidate)
    for key, got in moved['preference'].items():
      np.testing.assert_allclose(got, plain['preference'][key], rtol=1e-9, atol=1e-12)
    key = 'qualification', None
    assert abs(moved['qualification'][key].value - plain['qualification'][key].value) > 0.01


def test_deconflated_experts_do_not_track_the_other_truth():
  candidate, x, y, e1, e2 = pairs()
  rows = both(x + e1, 2 * y + e2, expit(x), expit(y), candidate)
  for own, other in (('preference', 'qualification'), ('qualification', 'preference')):
    assert rows[own][own, None].low > 0.6
    assert rows[own][other, None].low > 0.3  # the truths correlate
    partial = rows[own][other, own]
    assert partial.low < 0 < partial.high and abs(partial.value) < 0.1


def test_a_conflated_expert_shows():
  candidate, x, y, e1, e2 = pairs()
  rows = both(x + y + e1, y + e2, expit(x), expit(y), candidate)
  assert rows['preference']['qualification', 'preference'].low > 0.3


def test_what_an_estimate_does_not_know_is_told_from_what_it_takes_for_its_own():
  """Attenuation gives a partial correlation with the other truth; given the score none is left."""
  candidate, known, y, unknown, e = pairs()
  x = known + unknown  # s = E[x | what is known], whose error is unrelated to y
  rows = both(known, y + e, expit(x), expit(y), candidate)['preference']
  a, b = (within(v, candidate) for v in (x, y))
  r, c = np.corrcoef(within(known, candidate), a)[0, 1], np.corrcoef(a, b)[0, 1]
  told = rows['qualification', 'preference']
  assert told.low > 0.2
  assert told.value == pytest.approx(c * np.sqrt(1 - r * r) / (r * np.sqrt(1 - c * c)), abs=0.03)
  left = rows['qualification', SCORE]
  assert left.low < 0 < left.high and abs(left.value) < 0.05
  mixed = both(known + y, y + e, expit(x), expit(y), candidate)['preference']
  assert mixed['qualification', SCORE].high < -0.1


def test_every_candidate_and_every_job_is_left_out():
  candidate, x, y, e1, e2 = pairs(n_candidates=12, n_jobs=7)
  groups, s_pref, s_qual = grouped(candidate), x + 0.3 * y + e1, y + e2
  truths = expit(x), expit(y)
  rows = {own: {(r.truth, r.given): r.correlation for r in found} for own, found in (
      ('preference', deconflation_rows(s_pref, truths, 'preference', groups, candidate)),
      ('qualification', deconflation_rows(s_qual, truths, 'qualification', groups)))}
  assert truth_correlation(truths, groups, candidate).value == pytest.approx(
      np.corrcoef(within(x, candidate), within(y, candidate))[0, 1])
  for own, key, a, b, given in (
      ('preference', ('preference', None), s_pref, x, None),
      ('preference', ('qualification', 'preference'), s_pref, y, x),
      ('qualification', ('preference', 'qualification'), s_qual, x, y)):
    found = rows[own][key]
    for index, psi in ((candidate, found.candidates), (groups.job, found.jobs)):
      left_out = []
      for e in np.unique(index):
        keep = index != e
        c, d, z = (v if v is None else v[keep] for v in (a, b, given))
        if own == 'preference':  # whose centres move, too
          c, d, z = (v if v is None else within(v, candidate[keep]) for v in (c, d, z))
        if z is not None:
          c, d = residual(c, z), residual(d, z)
        left_out.append(np.corrcoef(c, d)[0, 1])
      g = len(left_out)
      np.testing.assert_allclose(
          psi, np.sqrt((g - 1) / g) * (left_out - np.mean(left_out)), atol=1e-7)
    assert found.groups == (12, 7)


def test_jobs_that_leave_together_move_the_centres_together():
  """Groups of several jobs, as in a large market."""
  candidate, x, y, e1, _ = pairs(n_candidates=12, n_jobs=7)
  of, job = grouped(candidate), np.arange(len(candidate)) % 7
  groups = of._replace(job=of.job // 3, counts=(12, 3))
  (row, *_) = deconflation_rows(x + e1, (expit(x), expit(y)), 'preference', groups, candidate)
  left_out = []
  for g in range(3):
    keep = job // 3 != g
    left_out.append(np.corrcoef(*(within(v[keep], candidate[keep]) for v in (x + e1, x)))[0, 1])
  np.testing.assert_allclose(row.correlation.jobs, np.sqrt(2 / 3)
                             * (left_out - np.mean(left_out)), atol=1e-9)


def test_a_constant_expert_has_no_correlation():
  candidate, x, y, _, e2 = pairs(n_candidates=30)
  rows = both(0.1 + candidate * 1e5, y + e2, expit(x), expit(y), candidate)
  assert np.isnan(rows['preference']['preference', None].value)  # one score for all jobs
  assert rows['qualification']['qualification', None].value > 0.5


def test_logit_is_finite_at_certainty():
  got = logit(np.array([0.0, 0.25, 1.0]))
  np.testing.assert_allclose(got, [-13.8155, -1.0986, 13.8155], atol=1e-4)


def test_bad_values_are_named():
  ones = np.full(4, 0.5)
  with pytest.raises(ValueError, match='score of qualification must be finite'):
    deconflation_rows(np.full(4, np.nan), (ones, ones), 'qualification', grouped(np.arange(4)))
  with pytest.raises(ValueError, match='alike'):
    deconflation_rows(ones[:2], (ones, ones), 'preference', grouped(np.arange(4)))
  with pytest.raises(ValueError, match=r'groups must be \[4\]'):
    deconflation_rows(ones, (ones, ones), 'preference', grouped(np.arange(3)))
