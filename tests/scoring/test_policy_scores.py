"""The policy on the host: one lambda for each requirement, and what it refuses."""

import dataclasses

import jax
import numpy as np
import pytest

from jobrec_jax.models.policy import PolicyHead, at_requirement
from jobrec_jax.scoring import policy as module
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import ExpertFeatures
from jobrec_jax.scoring.policy import Policy, eligibility, probabilities

HEAD = PolicyHead(widths=(4,), outputs=3)
KNOTS = np.array([0.4, 0.5, 0.7], np.float32)
CALIBRATION = Calibration(0.2, 0.5)


@pytest.fixture(scope='module')
def policy():
  rng = np.random.default_rng(0)
  params = HEAD.init(jax.random.key(0), *np.zeros((2, 1, 6), np.float32))['params']
  params['lambda']['kernel'] = rng.normal(size=(4, 3)).astype(np.float32)
  return Policy(HEAD, params, KNOTS, 1.0)


@pytest.fixture(scope='module')
def features():
  rng = np.random.default_rng(1)
  hidden, *scores = (rng.normal(size=size).astype(np.float32)
                     for size in ((5, 7, 2, 6), (5, 7), (5, 7)))
  return ExpertFeatures(hidden, *scores)


def test_requirements_are_read_between_the_knots(policy, features):
  lam = policy.head.apply({'params': policy.params}, features.hidden[..., 0, :],
                          features.hidden[..., 1, :])
  z = (features.qualification - 0.2) / 0.5
  taus = np.array([0.1, 0.4, 0.45, 0.5, 0.66, 0.7])
  scores, at = policy.at(np.asarray(lam), features.preference, z, taus)
  assert scores.shape == at.shape == (6, 5, 7) and scores.dtype == at.dtype == np.float32
  for t, tau in enumerate(taus):
    expected = at_requirement(lam, KNOTS, tau)
    np.testing.assert_allclose(at[t], expected, atol=1e-6)
    np.testing.assert_allclose(scores[t], features.preference + expected * z, atol=1e-5)
    alone = policy.at(np.asarray(lam), features.preference, z, tau)
    np.testing.assert_allclose(alone, (scores[t], at[t]), atol=1e-6)


def test_the_head_runs_once_for_all_requirements(policy, features, monkeypatch):
  calls = []
  run = module.compiled_lambda
  monkeypatch.setattr(module, 'compiled_lambda', lambda *x: calls.append(1) or run(*x))
  many, lam = policy.score(features, CALIBRATION, np.array([0.3, 0.45, 0.6, 0.7]))
  assert len(calls) == 1 and many.shape == lam.shape == (4, 5, 7)
  np.testing.assert_allclose(policy.score(features, CALIBRATION, 0.6)[0], many[2], atol=1e-6)


def test_probabilities_and_eligibility_of_padded_lists():
  rng = np.random.default_rng(0)
  scores, z = rng.normal(size=(2, 3, 5)).astype(np.float32)
  mask = np.arange(5) < np.array([[5], [3], [1]])
  for T in (0.5, 2.0):
    weights = np.where(mask, np.exp(scores / T), 0)
    pi = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(scores, mask, T), pi, atol=1e-6)
    np.testing.assert_allclose(eligibility(scores, z, mask, T), (pi / (1 + np.exp(-z))).sum(1),
                               atol=1e-6)


@pytest.mark.parametrize('tau', [np.nan, 0.71, np.array([0.5, np.nan]), np.array([0.5, 0.8])])
def test_a_requirement_beyond_the_training_is_named(policy, tau):
  with pytest.raises(ValueError, match=r'\[0.4, 0.7\].*; got (nan|0\.71|0\.8)$'):
    policy.at(np.zeros((2, 3)), np.zeros(2), np.zeros(2), tau)
  with pytest.raises(ValueError, match='; got 0'):
    Policy(HEAD, policy.params, KNOTS, 1.0, 'equality').check(0.3)


def test_a_limit_is_taken_as_it_is_printed(policy):
  exact = np.array([0.40004, 0.5, 0.70706], np.float32)
  for constraint in ('inequality', 'equality'):
    limited = Policy(HEAD, policy.params, exact, 1.0, constraint)
    with pytest.raises(ValueError, match=r'\[0.4, 0.7071\]'):
      limited.check(0.7072)
    for printed, limit in ((0.4, exact[0]), (0.7071, exact[-1])):
      lam = np.array([[1.0, 2.0, 4.0]])
      np.testing.assert_array_equal(limited.at(lam, [0.0], [1.0], printed),
                                    limited.at(lam, [0.0], [1.0], limit))


@pytest.mark.parametrize('tau', [-0.1, np.array([0.5, -1e-9])])
def test_a_requirement_below_0_is_refused(policy, tau):
  for constraint in ('inequality', 'equality'):
    with pytest.raises(ValueError, match=r'tau must be at least 0, .*, got -(0\.1|1e-09)$'):
      dataclasses.replace(policy, constraint=constraint).check(tau)


@pytest.mark.parametrize('where', ['lam', 'preference', 'z_qual'])
def test_numbers_that_are_none_are_named(policy, where):
  inputs = {'lam': np.zeros((2, 3)), 'preference': np.zeros(2), 'z_qual': np.zeros(2)}
  inputs[where][0] = np.nan
  with pytest.raises(ValueError, match=rf'{where} must be finite, got'):
    policy.at(**inputs, tau=0.5)


@pytest.mark.parametrize('change, message', [
    ({'temperature': 0.0}, 'temperature must be a finite number above 0, got 0.0'),
    ({'temperature': float('nan')}, 'temperature must be .* got nan'),
    ({'temperature': 'equality'}, "temperature must be .* got 'equality'"),
    ({'constraint': 'both'}, 'constraint must be one of .* got'),
    ({'knots': KNOTS[:2]}, 'knots must be 3 finite numbers, ascending'),
    ({'knots': KNOTS[::-1]}, 'knots must be 3 finite numbers, ascending'),
    ({'knots': np.array([0.4, np.nan, 0.7])}, 'knots must be 3 finite numbers')])
def test_fields_are_checked(policy, change, message):
  fields = {'head': HEAD, 'params': policy.params, 'knots': KNOTS, 'temperature': 1.0}
  with pytest.raises(ValueError, match=message):
    Policy(**fields | change)


def test_the_temperature_has_no_default(policy):
  with pytest.raises(TypeError, match='temperature'):
    Policy(HEAD, policy.params, KNOTS)
