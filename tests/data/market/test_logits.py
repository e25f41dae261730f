"""The parts of the logits' variances, and the knob for the pair's part of logit Q."""

import numpy as np
import pytest

from jobrec_jax.data.market import simulator
from jobrec_jax.data.market.domain import names
from jobrec_jax.data.market.logits import variance_parts
from jobrec_jax.data.market.simulator import MarketConfig, make_market, newcomers, simulate


def logits(market, block=0):
  columns = market.columns(block)
  rows = columns.first + np.arange(columns.n)[:, None]
  return market.logits(columns, rows, np.arange(market.config.jobs))


def test_the_parts_of_a_grid_are_those_it_was_made_of():
  rng = np.random.default_rng(0)
  u, v, w = (rng.normal(size=shape) for shape in ((50, 1), (1, 40), (50, 40)))
  w -= w.mean(0) + w.mean(1, keepdims=True) - w.mean()
  u, v, w = (x / x.std() for x in (u - u.mean(), v - v.mean(), w))
  parts = variance_parts(7 + 3 * u + 2 * v + np.sqrt(3) * w)
  np.testing.assert_allclose(parts, np.array([9, 4, 3]) / 16, rtol=1e-9)


@pytest.mark.parametrize('name', names())
@pytest.mark.parametrize('rho', [-0.5, 0.0, 0.2, 0.6])
@pytest.mark.parametrize('share', [0.4, 0.6, 0.9])
def test_the_asked_share_is_the_pairs_and_conflation_stays_exact(name, rho, share):
  market = make_market(MarketConfig(domain=name, candidates=300, jobs=60, rho_x=rho,
                                    qualification_pair=share), 0)
  p, q = logits(market)
  assert abs(variance_parts(q).pair - share) < 2e-3
  assert abs(np.corrcoef(p.ravel(), q.ravel())[0, 1] - rho) < 1e-9
  assert abs(q.std() - market.config.qualification_scale) < 1e-9
  assert abs(q.mean() - market.config.qualification_mean) < 1e-9


def test_a_share_that_conflation_rules_out_is_approached():
  """Where Q is nearly P, which is nearly all of the pair, no tilt makes little of it the pair's."""
  shares = [variance_parts(logits(make_market(MarketConfig(
      candidates=300, jobs=60, rho_x=0.9, qualification_pair=s), 0))[1]).pair
            for s in (0.2, 0.4, 0.8)]
  assert shares[0] == shares[1] and 0.6 < shares[1] < 0.8 and abs(shares[2] - 0.8) < 2e-3


def test_the_default_gives_the_pair_two_fifths():
  for seed in range(3):
    assert variance_parts(logits(make_market(MarketConfig(), seed))[1]).pair >= 0.398


def test_the_share_holds_beyond_the_pilot_and_for_newcomers(monkeypatch):
  monkeypatch.setattr(simulator, 'BLOCK', 1000)
  monkeypatch.setattr(simulator, '_PILOT_JOBS', 60)
  market = make_market(MarketConfig(candidates=3000, jobs=120), 1)
  p, q = logits(market, block=2)
  assert abs(variance_parts(q).pair - 0.4) < 0.04
  assert abs(np.corrcoef(p.ravel(), q.ravel())[0, 1] - 0.2) < 0.05
  _, truth = newcomers(market, 1000)
  assert abs(truth.qualification.mean() - simulate(market.config, 1)[1].qualification.mean()) < 0.03


def test_a_pairs_logit_does_not_depend_on_who_else_is_asked_for():
  market = make_market(MarketConfig(candidates=90, jobs=50), 2)
  whole = logits(market)
  columns, rng = market.columns(0), np.random.default_rng(0)
  u, j = rng.integers(90, size=40), rng.integers(50, size=40)
  for some, every in zip(market.logits(columns, u, j), whole):
    np.testing.assert_array_equal(some, every[u, j])
