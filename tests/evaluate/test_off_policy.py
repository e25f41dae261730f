"""What a log of applicants says of C, on logs whose every chance is known."""

import numpy as np
import pytest
from scipy.special import expit, logit, softmax

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.off_policy import LoggedLists, rising, shrunk_gap
from jobrec_jax.lagrangian.top_k import mean_of_best

N, J, LOGS = 60, 12, 200


class World:
  """Pairs with known chances; `hidden` moves applying and eligibility alike."""

  def __init__(self, hidden=0.0):
    rng = np.random.default_rng(0)
    wish, skill = rng.normal(0, 1.5, (2, N, J))
    self.cause = hidden * rng.normal(0, 2, (LOGS, N, J))
    self.preference, self.z = wish, skill
    self.P, self.Q = expit(wish + self.cause), expit(skill + self.cause)
    self.exposure = rng.uniform(0.3, 0.9, (N, J))
    rows, columns = np.indices((N, J))
    self.lists = RankingLists('preference', rows, columns, np.zeros((N, J), bool),
                              np.ones((N, J), bool))

  def log(self, seed, applies, z):
    """One draw of the log, read with the given chances and beliefs."""
    rng = np.random.default_rng(100 + seed)
    shown = rng.random((N, J)) < self.exposure
    applied = shown & (rng.random((N, J)) < self.P[seed])
    eligible = rng.random((N, J)) < self.Q[seed]
    lists = RankingLists('preference', self.lists.candidate, self.lists.job, applied,
                         self.lists.mask)
    return LoggedLists(lists, self.preference, z, applies,
                       np.where(shown, self.exposure, np.nan),
                       np.where(applied, eligible, -1).astype(np.int8))

  def scores(self):
    return self.preference + 2 * expit(self.z)


def estimates(world, applies, z, weigh):
  """[LOGS] of C by the log, less the truth."""
  found = [weigh(world.log(seed, applies, z).outcomes) for seed in range(LOGS)]
  return np.array(found) - np.mean([weigh(q) for q in world.Q])


def over_all(world):
  pi = softmax(world.scores(), axis=-1)
  return lambda outcomes: (pi * outcomes).sum(-1).mean()


def over_the_best(world):
  return lambda outcomes: mean_of_best(world.scores(), outcomes, world.lists.mask, 3).mean()


@pytest.mark.parametrize('of', [over_all, over_the_best])
@pytest.mark.parametrize(('right', 'wrong_by'), [
    ('both', 0.0), ('propensities', 1.0), ('beliefs', 1.0)])
def test_it_is_unbiased_where_either_model_is_right(of, right, wrong_by):
  world = World()
  z = world.z + (wrong_by if right == 'propensities' else 0.0)
  applies = expit(world.preference - (wrong_by if right == 'beliefs' else 0.0))
  errors = estimates(world, applies, z, of(world))
  assert abs(errors.mean()) < 3 * errors.std(ddof=1) / np.sqrt(LOGS)
  if right == 'propensities':  # what is believed is far off
    assert of(world)(expit(z)) - np.mean([of(world)(q) for q in world.Q]) > 0.05


def test_it_is_biased_where_both_are_wrong_and_where_a_hidden_cause_moves_both():
  world = World()
  errors = estimates(world, expit(world.preference - 1), world.z + 1, over_all(world))
  assert abs(errors.mean()) > 10 * errors.std(ddof=1) / np.sqrt(LOGS)
  world = World(hidden=1.0)
  errors = estimates(world, world.P.mean(0), logit(world.Q.mean(0)), over_all(world))
  assert errors.mean() > 10 * errors.std(ddof=1) / np.sqrt(LOGS)


def test_outcomes_and_the_share_that_weights_leave_by_hand():
  lists = RankingLists('preference', *np.zeros((2, 1, 3), int), np.array([[True, True, False]]),
                       np.ones((1, 3), bool))
  log = LoggedLists(lists, np.zeros((1, 3)), logit(np.array([[0.5, 0.2, 0.9]])),
                    np.array([[0.5, 0.8, 0.1]]), np.array([[0.5, 0.25, np.nan]]),
                    np.array([[1, 0, -1]], np.int8))
  np.testing.assert_allclose(log.outcomes, [[0.5 + 4 * 0.5, 0.2 - 5 * 0.2, 0.9]])
  assert log.effective_share == pytest.approx(9 ** 2 / (2 * (16 + 25)))


def test_a_gap_that_is_noise_is_none_and_a_clear_one_stays():
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 1, (300, 100))
  found = shrunk_gap(noise, np.zeros((300, 100)))
  assert np.mean(found == 0) > 0.6
  clear = shrunk_gap(noise + 5, np.zeros((300, 100)))
  np.testing.assert_allclose(clear, 5 + noise.mean(1), atol=0.01)
  assert (np.abs(found) <= np.abs(noise.mean(1))).all()


def test_what_should_rise_does():
  x = rising(np.array([0.3, 0.5, 0.4, 0.4, 0.7]))
  assert (np.diff(x) > 0).all()
  np.testing.assert_allclose(x, [0.3, *[1.3 / 3] * 3, 0.7], atol=1e-7)
