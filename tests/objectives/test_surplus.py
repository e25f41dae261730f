"""Expected surplus is the integral that it stands for, and ranking by it is best."""

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import logistic

from jobrec_jax.objectives.expected_surplus import expected_surplus


@pytest.mark.parametrize('x', [-8.0, -1.0, 0.0, 2.5, 8.0])
@pytest.mark.parametrize('q', [0.0, 0.3, 1.0])
def test_it_is_the_chance_of_the_job_times_the_gain_of_who_applies(x, q):
  gain = quad(lambda e: max(0.0, x + e) * logistic.pdf(e), -x, 60)[0]
  assert expected_surplus(x, q) == pytest.approx(q * gain, abs=1e-7)


def test_it_orders_neither_as_preference_nor_as_qualification_nor_as_hires():
  p, q = np.array([0.99, 0.95, 0.7, 0.4]), np.array([0.05, 0.5, 0.8, 0.95])
  worth = expected_surplus(np.log(p / (1 - p)), q)
  assert worth == pytest.approx(-q * np.log(1 - p))
  assert [np.argmax(v) for v in (p, q, p * q, worth)] == [0, 3, 2, 1]


def test_no_other_five_are_worth_more():
  rng = np.random.default_rng(0)
  worth = expected_surplus(rng.normal(0, 3, 12), rng.random(12))
  best = max(worth[list(c)].sum() for c in itertools.combinations(range(12), 5))
  assert worth[np.argsort(-worth)[:5]].sum() == pytest.approx(best)


def test_far_logits_stay_finite():
  np.testing.assert_allclose(expected_surplus(np.array([-1e4, 1e4]), np.array([1.0, 0.5])),
                             [0, 5e3])
