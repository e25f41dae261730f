"""Calibration and offsets of groups against scikit-learn and SciPy."""

import warnings

from hypothesis import given, settings, strategies as st
import jax
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from jobrec_jax.scoring.calibration import (
    Calibration,
    doubts,
    fit_calibration,
    fit_offsets,
)


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


def penalised(theta, s, y, w):
  """The loss by its definition; theta: log slope and intercept, -log t and -b / t."""
  v = w / w.mean()
  pos, neg = v[y == 1].sum(), v[y == 0].sum()
  target = np.where(y == 1, (pos + 1) / (pos + 2), 1 / (neg + 2))
  z = np.exp(theta[0]) * s + theta[1]
  return (v @ (np.logaddexp(0, z) - target * z) + theta[0] ** 2 / (2 * 4 ** 2)
          + theta[1] ** 2 / (2 * 8 ** 2))


SMALL = {
    'usual': sample(0, 300), 'few': sample(1, 12), 'one pair': (np.r_[2.0], np.r_[1], np.r_[3.0]),
    'falling': (np.arange(40.0), (np.arange(40) < 17).astype(int), np.ones(40)),
    'accepted alone': (np.linspace(-3, 1, 20), np.ones(20, int), np.ones(20)),
    'rejected alone': (np.linspace(-3, 1, 20), np.zeros(20, int), np.ones(20)),
    'separable': (np.r_[-3.0, -2, 2, 3], np.r_[0, 0, 1, 1], np.ones(4)),
    'steep': (np.linspace(-1e-3, 1e-3, 50), (np.arange(50) > 30).astype(int), np.ones(50)),
    'alike': (np.full(9, 0.1), np.arange(9) % 2, np.ones(9)),
    'weightless class': (np.r_[1.0, 2], np.r_[0, 1], np.r_[1.0, 0]),
    'far away': sample(2, 60, b=900, t=7, loc=900)}


@pytest.mark.parametrize('name', SMALL)
def test_is_the_penalised_minimum_that_scipy_finds(name):
  s, y, w = SMALL[name]
  fit = fit_calibration(s, y, w)
  theta = np.array([-np.log(fit.t), -fit.b / fit.t])
  assert np.isfinite(fit).all() and fit.t > 0
  found = [minimize(penalised, start, (s, y, w), method='Nelder-Mead', options={
      'xatol': 1e-7, 'fatol': 1e-12, 'maxiter': 5000})
           for start in (theta, (0, 0), (-3, 0), (5, 0))]
  assert penalised(theta, s, y, w) <= min(r.fun for r in found) + 1e-8


def test_the_prior_moves_no_fit_that_is_well_determined():
  """By less than 1% of a standard error from one without it, with 300 applicants; it fades."""
  for n, share in ((300, 0.01), (3000, 0.004)):
    moved = []
    for seed in range(10):
      s, y, _ = sample(seed, n)
      fit = fit_calibration(s, y, np.ones(n))
      target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / (n - y.sum() + 2))
      slope, intercept = sklearn_fit(np.tile(s, 2), np.repeat([1, 0], n),
                                     np.concatenate([target, 1 - target]))
      p = expit(slope * s + intercept)
      design = np.stack([slope * s, np.ones(n)], 1)
      error = np.sqrt(np.diag(np.linalg.inv(design.T @ ((p * (1 - p))[:, None] * design))))
      moved.append(abs(np.array([-np.log(fit.t) - np.log(slope), -fit.b / fit.t - intercept]))
                   / error)
    assert np.mean(moved, 0).max() < share


def test_where_labels_tell_nothing_scores_are_logits_and_p_the_share_of_positives():
  p = fit_calibration(np.linspace(-2, 2, 400), np.tile([0, 0, 0, 1], 100), np.ones(400)).probability
  assert abs(p(np.linspace(-2, 2, 9)) - 0.25).max() < 0.06
  b, t = fit_calibration(np.r_[1.0], np.r_[1], np.ones(1))
  assert abs(b) < 1 and 0.5 < t < 2
  falling = SMALL['falling'][:2]
  assert 0.3 < fit_calibration(*falling, np.ones(40)).probability(20.0) < 0.55


@pytest.mark.parametrize('name, said', [
    ('usual', []), ('few', ['6 positives and 6 negatives are few']),
    ('falling', ['they fall as scores rise']),
    ('accepted alone', ['20 positives and 0 negatives are few']),
    ('separable', ['2 positives and 2 negatives are few',
                   'a threshold of the score separates them']),
    ('steep', ['a threshold of the score separates them']),
    ('alike', ['4 positives and 5 negatives are few', 'all scores are alike'])])
def test_says_where_a_fit_leans_on_its_prior(name, said):
  assert doubts(*SMALL[name][:2]) == said


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
@given(st.floats(1e-6, 1e6))
def test_the_scale_of_weights_does_not_matter(heavier):
  s, y, w = sample(6, 400)
  np.testing.assert_allclose(fit_calibration(s, y, w * heavier), fit_calibration(s, y, w),
                             rtol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 5), st.floats(-5, 5))
def test_units_of_scores_matter_as_little_as_the_prior(scale, shift):
  s, y, w = sample(6, 2000)
  fit, other = fit_calibration(s, y, w), fit_calibration(s * scale + shift, y, w)
  assert abs(other.logit(s * scale + shift) - fit.logit(s)).max() < 0.1  # of 12 logits


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
