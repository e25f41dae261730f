"""Calibration and offsets of groups against scikit-learn and SciPy."""

import warnings

from hypothesis import given, settings, strategies as st
import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from jobrec_jax.scoring.calibration import Calibration, fit_calibration, fit_offsets


def sample(seed, n=3000, b=1.5, t=2.5, loc=0.0):
  rng = np.random.default_rng(seed)
  s = loc + 4 * rng.normal(size=n)
  y = (rng.random(n) < expit((s - b) / t)).astype(int)
  return s, y, rng.uniform(0.2, 3, n)


def sklearn_fit(s, y, w):
  """The maximum-likelihood fit, no prior: slope and intercept."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(s[:, None], y, w)
  return model.coef_[0, 0], model.intercept_[0]


@pytest.mark.parametrize('seed', range(3))
def test_equals_sklearn_on_platt_targets(seed):
  """Each pair twice, as a positive and a negative, weighted by its smoothed target."""
  s, y, w = sample(seed, 300)
  v = w / w.mean()
  pos, neg = v[y == 1].sum(), v[y == 0].sum()
  target = np.where(y == 1, (pos + 1) / (pos + 2), 1 / (neg + 2))
  slope, intercept = sklearn_fit(np.tile(s, 2), np.repeat([1, 0], len(s)),
                                 np.concatenate([v * target, v * (1 - target)]))
  fit = fit_calibration(s, y, w)
  np.testing.assert_allclose([1 / fit.t, -fit.b / fit.t], [slope, intercept], atol=1e-4)


def test_prior_fades_to_sklearn_without_it():
  s, y, w = sample(4, 200_000)
  slope, intercept = sklearn_fit(s, y, w)
  fit = fit_calibration(s, y, w)
  np.testing.assert_allclose([1 / fit.t, -fit.b / fit.t], [slope, intercept], atol=1e-4)
  np.testing.assert_allclose(fit, (1.5, 2.5), atol=0.06)


def test_weights_restore_the_base_rate_of_uniform_pairs():
  """Pairs sampled 1 positive to 1 negative, weighted back to 1 in 20."""
  rng = np.random.default_rng(5)
  y = rng.integers(0, 2, 20_000)
  s = rng.normal(size=len(y)) + 2.0 * y
  fit = fit_calibration(s, y, np.where(y == 1, 0.05, 0.95))
  uniform = rng.random(200_000) < 0.05
  p = fit.probability(rng.normal(size=len(uniform)) + 2.0 * uniform)
  assert abs(p.mean() - 0.05) < 0.003


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_units_of_scores_and_scale_of_weights_do_not_matter(scale, shift, heavier):
  s, y, w = sample(6, 400)
  fit, other = fit_calibration(s, y, w), fit_calibration(s * scale + shift, y, w * heavier)
  np.testing.assert_allclose(other.logit(s * scale + shift), fit.logit(s), rtol=1e-5, atol=1e-6)


def test_separable_labels_stay_finite_and_deterministic():
  s = np.array([-3.0, -2.0, 2.0, 3.0])
  fit = fit_calibration(s, [0, 0, 1, 1], np.ones(4))
  assert np.isfinite(fit).all() and fit.t > 0 and abs(fit.b) < 1e-6
  assert fit == fit_calibration(s, [0, 0, 1, 1], np.ones(4))
  # A single positive among many, far away: the hardest for an undamped Newton step.
  s = np.concatenate([np.linspace(-1, 1, 2000), [500.0]])
  fit = fit_calibration(s, s > 100, np.ones(len(s)))
  assert np.isfinite(fit).all() and fit.t > 0


def test_logit_and_probability():
  c = Calibration(b=1.0, t=2.0)
  assert c.logit(5.0) == 2.0
  np.testing.assert_allclose(jax.jit(c.probability)(np.array([1.0, 5.0])), expit([0, 2]), rtol=1e-6)


def test_shifts_by_group_are_the_minimum_that_scipy_finds():
  rng = np.random.default_rng(7)
  z, groups, w = 3 * rng.normal(size=300), rng.integers(0, 6, 300), rng.uniform(0.2, 3, 300)
  y = (rng.random(300) < expit(z + np.array([-2, -1, 0, 0, 1, 2])[groups])).astype(int)
  found = fit_offsets(z, y, w, groups, 8, spread=0.7)
  v = w / w.mean()
  for g in range(6):
    i = groups == g
    best = minimize_scalar(lambda d: v[i] @ (np.logaddexp(0, z[i] + d) - y[i] * (z[i] + d))  # noqa: B023
                           + d * d / (2 * 0.49), bounds=(-9, 9), options={'xatol': 1e-9})
    assert abs(found[g] - best.x) < 1e-6
  assert found[6] == found[7] == 0
  assert found[0] < 0 < found[4]


def test_shifts_mend_the_groups_and_shrink_where_labels_are_few():
  rng = np.random.default_rng(8)
  true = rng.normal(size=20)
  z, groups = 2 * rng.normal(size=20_000), rng.integers(0, 20, 20_000)
  y = rng.random(20_000) < expit(z + true[groups])
  np.testing.assert_allclose(fit_offsets(z, y, np.ones(20_000), groups, 20), true, atol=0.35)
  few = fit_offsets(np.full(3, -6.0), np.array([1, 1, 0]), np.ones(3), np.array([0, 0, 1]), 2, 1.0)
  assert 0 < few[0] < 3 and -0.1 < few[1] < 0  # eight or so without the prior


@pytest.mark.parametrize('spread', [0.0, 0.4, 1.6])
def test_the_prior_follows_from_the_labels(spread):
  """The shifts are as large as the truth's: nearly none where there are none to find."""
  rng = np.random.default_rng(9)
  true = spread * rng.normal(size=200)
  z, groups = rng.normal(size=4000), np.arange(4000) % 200
  y = rng.random(4000) < expit(z + true[groups])
  found = fit_offsets(z, y, np.ones(4000), groups, 200)
  if spread:
    assert np.corrcoef(found, true)[0, 1] > 0.6
    assert np.mean((found - true) ** 2) < 0.7 * np.mean(true ** 2)
  else:
    assert np.abs(found).max() < 0.2


@pytest.mark.parametrize('change, message', [
    ({'groups': np.array([0, 3])}, r'groups must be \[2\] ints in \[0, 2\)'),
    ({'groups': np.array([0])}, 'groups must be'), ({'spread': 0.0}, 'spread must be above 0')])
def test_explains_what_it_cannot_shift(change, message):
  with pytest.raises(ValueError, match=message):
    fit_offsets(np.zeros(2), np.array([0, 1]), np.ones(2),
                **{'groups': np.array([0, 1]), 'count': 2} | change)


@pytest.mark.parametrize('s, y, w, message', [
    ([1.0, 2, 3, 4], [1, 1, 0, 0], [1, 1, 1, 1], 'labels fall as scores rise'),
    ([1.0, 2], [1, 1], [1, 1], 'positives and negatives'),
    ([1.0, 2], [0, 1], [1, 0], 'positives and negatives'),
    ([2.0, 2], [0, 1], [1, 1], 'scores that differ'),
    ([0.1, 0.1, 0.1], [0, 1, 1], [1, 1, 1], 'scores that differ'),
    ([1.0, np.nan], [0, 1], [1, 1], '1 scores are not finite'),
    ([1.0, 2], [0, 2], [1, 1], 'labels must be 0 or 1'),
    ([1.0, 2], [0, 1], [1, -1], 'weights must be finite'),
    ([1.0, 2], [0, 1], [0, 0], 'weights must be finite'),
    ([1.0, 2], [0, 1], [1], 'alike'),
    ([], [], [], 'N > 0'),
])
def test_explains_what_it_cannot_fit(s, y, w, message):
  with pytest.raises(ValueError, match=message):
    fit_calibration(np.array(s), np.array(y), np.array(w))
