"""The likelihood of a funnel: its slopes, its optimum, what it tells where doubt is strong."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from jobrec_jax.censoring.likelihood import Linear, Models, fit_funnel, log_loss


def funnel(seed, n, doubt):
  """(features of both, true models, applied, verdict): each field speaks to one alone."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(n, 6))
  masks = np.repeat([[1, 0], [0, 1]], 3, axis=1)
  true = Models(Linear(np.array([1.0, -1, 0.5, 0, 0, 0]), -0.5),
                 Linear(np.array([0.0, 0, 0, 1.5, 1, -0.5]), 0.0))
  parts = tuple(x * mask for mask in masks)
  wants, eligible = (expit(m.logits(part)) for m, part in zip(true, parts))
  applied = rng.random(n) < wants * (1 - doubt * (1 - eligible))
  verdict = np.where(applied, rng.random(n) < eligible, -1)
  return parts, true, applied, verdict


@pytest.mark.parametrize('doubt', [0.0, 0.4, 0.95])
def test_slopes_are_those_of_the_loss(doubt):
  rng = np.random.default_rng(1)
  applied = rng.random(30) < 0.5
  verdict = np.where(applied, rng.integers(-1, 2, 30), -1)

  def nats(s):
    return log_loss(s[:30], s[30:], applied, verdict, doubt)[0]
  s = rng.normal(size=60) * 3
  assert check_grad(nats, lambda s: np.concatenate(
      log_loss(s[:30], s[30:], applied, verdict, doubt)[1:]), s) < 1e-4


def test_is_what_it_says_pair_by_pair():
  s_pref, s_qual, c = 0.4, -0.3, 0.7
  wants, eligible = expit(s_pref), expit(s_qual)
  applies = wants * (1 - c * (1 - eligible))
  for applied, verdict, chance in (
      (True, 1, applies * eligible), (True, 0, applies * (1 - eligible)), (True, -1, applies),
      (False, -1, 1 - applies)):
    found = log_loss(np.r_[s_pref], np.r_[s_qual], np.r_[applied], np.r_[verdict], c)[0]
    assert found == pytest.approx(-np.log(chance))


def test_finds_both_truths_where_verdicts_alone_are_few():
  """Nearly nobody who doubts applies: of 900 applicants verdicts tell less than applications."""
  x, true, applied, verdict = funnel(0, 4000, 0.95)
  both = fit_funnel(x, applied, verdict, 0.95, (0.1, 0.1))
  alone = fit_funnel(x, applied, verdict, 0.0, (0.1, 0.1))  # then the two do not meet
  for name in Models._fields:
    off, other, real = (np.append(*getattr(m, name)) for m in (both, alone, true))
    assert abs(off - real).max() < 0.35
    assert np.square(off - real).sum() < np.square(other - real).sum()
  assert abs(alone.preference.intercept - true.preference.intercept) > 0.5


def test_without_doubt_each_is_its_own_regression():
  from sklearn.linear_model import LogisticRegression
  x, _, applied, verdict = funnel(1, 1500, 0.0)
  found = fit_funnel(x, applied, verdict, 0.0, (2.0, 0.5))
  seen = verdict >= 0
  for mine, part, label, C in ((found.preference, x[0], applied, 0.5),
                               (found.qualification, x[1][seen], verdict[seen], 2.0)):
    other = LogisticRegression(C=C, tol=1e-9).fit(part, label)
    np.testing.assert_allclose(mine.weights, other.coef_[0], atol=2e-3)
    assert mine.intercept == pytest.approx(other.intercept_[0], abs=2e-3)


def test_what_one_does_not_read_stays_at_nothing_and_the_start_changes_nothing():
  x, true, applied, verdict = funnel(2, 800, 0.5)
  found = fit_funnel(x, applied, verdict, 0.5, (1.0, 1.0))
  assert not found.preference.weights[3:].any() and not found.qualification.weights[:3].any()
  other = fit_funnel(x, applied, verdict, 0.5, (1.0, 1.0), true)
  for a, b in zip(found, other):
    np.testing.assert_allclose(np.append(*a), np.append(*b), atol=5e-3)
