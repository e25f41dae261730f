import dataclasses

import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.data.dataset import SPLITS, Dataset, Truth
from jobrec_jax.data.simulator import MIN_APPLICATION, MIN_EXPOSURE, MarketConfig, simulate

SMALL = MarketConfig(candidates=80, jobs=30)


def test_the_same_seed_gives_the_same_bits():
  first, second, other = simulate(SMALL, 1), simulate(SMALL, 1), simulate(SMALL, 2)
  assert first[0].fingerprint() == second[0].fingerprint() != other[0].fingerprint()
  for field in dataclasses.fields(Truth):
    a, b = (getattr(run[1], field.name) for run in (first, second))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('rho', [-0.6, 0.0, 0.2, 0.7])
def test_the_asked_conflation_is_reached(rho):
  config = MarketConfig(candidates=200, jobs=50, rho_x=rho)
  _, truth = simulate(config, 0)
  p, q = (logit(x.astype(np.float64)).ravel() for x in (truth.preference, truth.qualification))
  assert abs(np.corrcoef(p, q)[0, 1] - rho) < 0.05


def test_the_latent_outcomes_have_the_true_probabilities():
  _, truth = simulate(MarketConfig(candidates=300, jobs=60), 5)
  for outcome, probability in ((truth.wants, truth.preference),
                               (truth.eligible, truth.qualification)):
    for low in np.arange(0, 1, 0.2):
      within = (probability >= low) & (probability < low + 0.2)
      error = np.sqrt(0.25 / within.sum())
      assert abs(outcome[within].mean() - probability[within].mean()) < 4 * error


def test_hidden_confounding_ties_the_outcomes():
  def residual(rho_e):
    _, t = simulate(dataclasses.replace(SMALL, rho_x=0.0, rho_e=rho_e), 4)
    return np.mean((t.wants - t.preference) * (t.eligible - t.qualification))
  assert residual(0.8) > residual(0.0) + 0.03 > residual(-0.8) + 0.06


@pytest.mark.parametrize('logging', ['uniform', 'popularity'])
def test_propensities_have_a_floor(logging):
  config = dataclasses.replace(SMALL, self_censoring=1.0, exposure=0.02, logging=logging)
  dataset, truth = simulate(config, 0)
  assert truth.application.min() >= MIN_APPLICATION - 1e-6
  assert dataset.interactions.exposure.min() >= MIN_EXPOSURE - 1e-7


def test_a_dataset_does_not_reach_the_truth():
  dataset, truth = simulate(SMALL, 0)
  assert {f.name for f in dataclasses.fields(Dataset)} == {
      'schema', 'candidates', 'jobs', 'interactions', 'notes'}
  secret = [getattr(truth, f.name) for f in dataclasses.fields(Truth)]
  log = dataset.interactions
  for array in vars(log).values():
    assert not any(np.shares_memory(array, s) for s in secret)
  known = {a.name for side in ('candidate', 'job') for a in dataset.schema.attributes(side)}
  for entity in (*dataset.candidates, *dataset.jobs):
    assert set(entity.attributes) <= known


def test_splits_are_disjoint():
  dataset, _ = simulate(SMALL, 0)
  log = dataset.interactions
  pairs = log.candidate.astype(np.int64) * len(dataset.jobs) + log.job
  assert len(np.unique(pairs)) == len(pairs)
  people = [set(log.of(s).candidate.tolist()) for s in SPLITS]
  assert all(people)
  assert sum(map(len, people)) == len(set.union(*people))
  early = set(np.concatenate([log.of(s).job for s in SPLITS[:3]]).tolist())
  cold = set(log.of('test').job.tolist()) - early
  assert len(cold) == round(0.2 * len(dataset.jobs))


def test_only_applicants_have_a_qualification_label():
  log = simulate(SMALL, 0)[0].interactions
  assert (log.qualification[log.preference == 0] == -1).all()
  assert (log.qualification[log.preference == 1] >= 0).all()
  assert (log.preference == 0).any() and (log.qualification == 0).any()


@pytest.mark.parametrize('change', [{'rho_x': 1.0}, {'exposure': 0.0}, {'logging': 'random'},
                                    {'candidates': 3}, {'self_censoring': 1.5}])
def test_a_knob_out_of_range_is_named(change):
  with pytest.raises(ValueError, match=f'market.{next(iter(change))}'):
    MarketConfig(**change)
