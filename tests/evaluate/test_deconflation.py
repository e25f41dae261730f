"""Correlations that tell whether an expert tracks the other truth."""

import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.evaluate.deconflation import deconflation_rows, logit
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


def by_name(rows):
  return {(r.expert, r.truth, r.given): interval(r.correlation) for r in rows}


def test_correlations_equal_those_of_residuals():
  candidate, x, y, e1, e2 = pairs(n_candidates=60)
  s_pref, s_qual = 40 + x + 0.3 * y + e1, 1e-3 * (y - 0.5 * x + e2)
  rows = by_name(deconflation_rows(s_pref, s_qual, expit(x), expit(y), grouped(candidate)))
  expert = {'preference': s_pref, 'qualification': s_qual, 'truth': x}
  truth = {'preference': x, 'qualification': y}
  assert len(rows) == 9
  for (e, t, g), got in rows.items():
    a, b = expert[e], truth[t]
    if g:
      a, b = residual(a, truth[g]), residual(b, truth[g])
    assert got.value == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6), (e, t, g)
    assert got.low < got.value < got.high and got.n == 900


def test_deconflated_experts_do_not_track_the_other_truth():
  candidate, x, y, e1, e2 = pairs()
  rows = by_name(deconflation_rows(x + e1, 2 * y + e2, expit(x), expit(y), grouped(candidate)))
  for own, other in (('preference', 'qualification'), ('qualification', 'preference')):
    assert rows[own, own, None].low > 0.6
    assert rows[own, other, None].low > 0.3  # the truths correlate
    partial = rows[own, other, own]
    assert partial.low < 0 < partial.high and abs(partial.value) < 0.1


def test_a_conflated_expert_shows():
  candidate, x, y, e1, e2 = pairs()
  rows = by_name(deconflation_rows(x + y + e1, y + e2, expit(x), expit(y), grouped(candidate)))
  assert rows['preference', 'qualification', 'preference'].low > 0.3


def test_every_candidate_and_every_job_is_left_out():
  candidate, x, y, e1, e2 = pairs(n_candidates=12, n_jobs=7)
  groups, s_pref, s_qual = grouped(candidate), x + 0.3 * y + e1, y + e2
  rows = {(r.expert, r.truth, r.given): r.correlation for r in deconflation_rows(
      s_pref, s_qual, expit(x), expit(y), groups)}
  for key, a, b, given in ((('preference', 'preference', None), s_pref, x, None),
                           (('qualification', 'preference', 'qualification'), s_qual, x, y)):
    for index, psi in ((candidate, rows[key].candidates), (groups.job, rows[key].jobs)):
      left_out = []
      for e in np.unique(index):
        keep = index != e
        c, d = a[keep], b[keep]
        if given is not None:
          c, d = residual(c, given[keep]), residual(d, given[keep])
        left_out.append(np.corrcoef(c, d)[0, 1])
      g = len(left_out)
      np.testing.assert_allclose(
          psi, np.sqrt((g - 1) / g) * (left_out - np.mean(left_out)), atol=1e-7)
    assert rows[key].groups == (12, 7)


def test_a_constant_expert_has_no_correlation():
  candidate, x, y, _, e2 = pairs(n_candidates=30)
  rows = by_name(deconflation_rows(
      np.full_like(x, 0.1), y + e2, expit(x), expit(y), grouped(candidate)))
  assert np.isnan(rows['preference', 'preference', None].value)
  assert rows['qualification', 'qualification', None].value > 0.5


def test_logit_is_finite_at_certainty():
  got = logit(np.array([0.0, 0.25, 1.0]))
  np.testing.assert_allclose(got, [-13.8155, -1.0986, 13.8155], atol=1e-4)


def test_bad_values_are_named():
  ones = np.full(4, 0.5)
  with pytest.raises(ValueError, match='s_qual must be finite'):
    deconflation_rows(ones, np.full(4, np.nan), ones, ones, grouped(np.arange(4)))
  with pytest.raises(ValueError, match='alike'):
    deconflation_rows(ones, ones, ones, ones, grouped(np.arange(3)))
