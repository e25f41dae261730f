"""Inverse propensity weights for labels of which only some are observed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.objectives.censoring import ips_weights


@pytest.mark.parametrize('seed', range(5))
def test_recovers_the_population_mean_where_the_naive_mean_does_not(seed):
  """The outcome and being observed both rise with x: applicants are better than the population."""
  rng = np.random.default_rng(seed)
  x = rng.normal(size=40_000)
  outcome = rng.random(len(x)) < 1 / (1 + np.exp(-x))
  propensity = np.clip(1 / (1 + np.exp(1 - 1.5 * x)), 0.02, 1)
  observed = rng.random(len(x)) < propensity
  w = np.asarray(ips_weights(jnp.asarray(propensity), jnp.asarray(observed), clip=100))
  population = outcome.mean()
  assert abs((w * outcome).sum() / observed.sum() - population) < 0.02
  assert outcome[observed].mean() - population > 0.1


def test_mean_is_one_over_the_observed_and_the_rest_is_zero():
  p = jnp.array([0.5, 0.25, 0.125, 0.9, 0.1])
  observed = jnp.array([True, True, True, False, False])
  w = np.asarray(ips_weights(p, observed, clip=10))
  np.testing.assert_allclose(w, np.array([2, 4, 8, 0, 0]) * 3 / 14, rtol=1e-6)
  np.testing.assert_allclose(jax.jit(lambda p, o: ips_weights(p, o, 10))(p, observed), w, rtol=1e-6)


def test_clips_at_a_multiple_of_the_mean_and_normalises_again():
  p = jnp.array([1.0, 1.0, 1.0, 0.1])       # Raw 1, 1, 1, 10: mean 3.25.
  w = ips_weights(p, jnp.ones(4, bool), clip=2)
  expected = np.minimum(np.array([1, 1, 1, 10]) / 3.25, 2)
  np.testing.assert_allclose(w, expected / expected.mean(), rtol=1e-6)


def test_floor_bounds_what_a_tiny_propensity_can_do():
  w = ips_weights(jnp.array([0.0, 1.0]), jnp.ones(2, bool), clip=1e6, floor=0.25)
  np.testing.assert_allclose(w, [1.6, 0.4], rtol=1e-6)


def test_what_is_known_of_a_propensity_has_no_floor():
  """1 / (max(p, floor) e): the least chance of having been shown counts as what it is."""
  p, e = jnp.array([0.0, 1.0, 0.5, 0.1]), jnp.array([1.0, 0.001, 0.5, 0.2])
  w = ips_weights(p, jnp.ones(4, bool), clip=1e6, floor=0.25, known=e)
  raw = np.array([4, 1000, 4, 20])
  np.testing.assert_allclose(w, raw / raw.mean(), rtol=1e-6)
  np.testing.assert_allclose(ips_weights(p, jnp.ones(4, bool), clip=2, floor=0.25, known=0.3),
                             ips_weights(p, jnp.ones(4, bool), clip=2, floor=0.25), rtol=1e-6)


def test_nothing_observed_gives_zeros_and_no_gradient_ever_flows():
  none = jnp.zeros(3, bool)
  np.testing.assert_array_equal(ips_weights(jnp.full(3, 0.5), none, clip=5), 0)
  for observed in (none, ~none):
    gradient = jax.grad(lambda p, o: (ips_weights(p, o, 5) * jnp.arange(3.0)).sum())(
        jnp.array([0.2, 0.5, 0.9]), observed)
    np.testing.assert_array_equal(gradient, 0)


def test_refuses_clip_below_one_and_floor_zero():
  p, o = jnp.ones(2), jnp.ones(2, bool)
  with pytest.raises(ValueError, match='clip must be at least 1'):
    ips_weights(p, o, clip=0.5)
  for floor in (0.0, -0.1):
    with pytest.raises(ValueError, match='floor must be above 0'):
      ips_weights(p, o, clip=5, floor=floor)
