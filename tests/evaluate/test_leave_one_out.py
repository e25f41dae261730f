"""Metrics without an item, against the metrics of the list from which it was taken."""

import numpy as np
import pytest

from jobrec_jax.evaluate.eligibility import (
    expected_eligibility,
    policy_probabilities,
    violation_rate_at_k,
)
from jobrec_jax.evaluate.leave_one_out import (
    expectations,
    ranking_metrics_without,
    top_means,
    violation_rate_without,
)
from jobrec_jax.evaluate.ranking import ranking_metrics


def drawn(seed, n=30, j=9, levels=4):
  """Lists with many ties, some without positives, some short."""
  rng = np.random.default_rng(seed)
  scores = rng.integers(0, levels, (n, j)).astype(float)
  relevance = rng.random((n, j)) < rng.choice([0.0, 0.1, 0.5, 1.0], (n, 1))
  mask = rng.random((n, j)) < rng.choice([0.3, 1.0], (n, 1))
  return scores, relevance, mask, rng.random((n, j))


def taken_away(mask):
  """(item, the mask without it) for every item."""
  for i in range(mask.shape[1]):
    yield i, mask & (np.arange(mask.shape[1]) != i)


@pytest.mark.parametrize('seed,levels', [(0, 4), (1, 2), (2, 1), (3, 1000)])
def test_every_metric_without_every_item(seed, levels):
  scores, relevance, mask, q = drawn(seed, levels=levels)
  found = ranking_metrics_without(scores, relevance, mask, (1, 3, 20))
  violation = violation_rate_without(scores, q, mask, 3)
  checked = 0
  for i, rest in taken_away(mask):
    expected = ranking_metrics(scores, relevance, rest, (1, 3, 20))
    at = mask[:, i]
    assert set(found) == set(expected)
    for name in expected:
      np.testing.assert_allclose(found[name][at, i], expected[name][at], rtol=1e-10, err_msg=name)
      checked += (~np.isnan(expected[name][at])).sum()
      assert np.isnan(found[name][~at, i]).all()
    np.testing.assert_allclose(violation[at, i], violation_rate_at_k(scores, q, rest, 3)[at],
                               rtol=1e-10, atol=1e-12)
  assert checked > 500


@pytest.mark.parametrize('k', [1, 3, 20])
def test_means_of_the_top_with_and_without_every_item(k):
  scores, relevance, mask, q = drawn(7)
  mask[0] = False
  whole, without = top_means(scores, {'q': q, 'y': relevance}, mask, k)
  for name, value in (('q', q), ('y', relevance)):
    np.testing.assert_allclose(whole[name], 1 - violation_rate_at_k(scores, value, mask, k))
    np.testing.assert_allclose(without[name], 1 - violation_rate_without(scores, value, mask, k),
                               rtol=1e-10, atol=1e-12)
  assert np.isnan(whole['q'][0]) and np.isfinite(whole['q']).any()


@pytest.mark.parametrize('temperature', [0.02, 0.7])
def test_the_policy_without_every_item(temperature):
  """At 0.02 an item has nearly all of the policy, and the rest are found anew."""
  scores, _, mask, q = drawn(5, levels=1000)
  scores = scores / 300
  whole, found = expectations(scores, q, mask, temperature)
  np.testing.assert_allclose(whole, expected_eligibility(
      policy_probabilities(scores, mask, temperature), q, mask))
  doubled, left = expectations(scores, 2 * q - 3, mask, temperature)  # no probabilities
  np.testing.assert_allclose(doubled, 2 * whole - 3)
  np.testing.assert_allclose(left, 2 * found - 3)
  certain = policy_probabilities(scores, mask, temperature)[mask.sum(1) > 1] > 0.99
  assert certain.any() == (temperature < 0.1)
  for i, rest in taken_away(mask):
    at = mask[:, i]
    pi = policy_probabilities(scores, rest, temperature)
    np.testing.assert_allclose(found[at, i], expected_eligibility(pi, q, rest)[at], rtol=1e-9)
    assert np.isnan(found[~at, i]).all()
