"""The simulated market: its truths, its exposure and its labels."""

import dataclasses
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from scipy.special import logit

import jobrec_jax
from jobrec_jax.data.dataset import SPLITS, Dataset, Truth
from jobrec_jax.data.market import simulator
from jobrec_jax.data.market.columns import margin
from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.data.market.simulator import (
  MIN_APPLICATION,
  MIN_EXPOSURE,
  MarketConfig,
  make_market,
  newcomers,
  simulate,
)
from jobrec_jax.schema.align import align

SMALL = MarketConfig(candidates=80, jobs=30)
RHOS = [-0.9, -0.5, 0.0, 0.2, 0.6, 0.9]


def arrays_equal(a, b):
  for field in dataclasses.fields(a):
    np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_the_same_seed_gives_the_same_bits():
  first, second, other = simulate(SMALL, 1), simulate(SMALL, 1), simulate(SMALL, 2)
  assert first[0].fingerprint() == second[0].fingerprint() != other[0].fingerprint()
  arrays_equal(first[1], second[1])


def test_blocks_and_pairs_can_be_asked_for_in_any_order(monkeypatch):
  monkeypatch.setattr(simulator, 'BLOCK', 16)
  config = dataclasses.replace(SMALL, logging='recommender', rho_e=0.4, candidates=70)
  dataset, truth = simulate(config, 3)
  market = make_market(config, 3)
  records, logs = {}, {}
  for block in (4, 0, 2, 3, 1):
    columns = market.columns(block)
    records[block], logs[block] = market.candidates(columns), market.log(columns)
  assert tuple(c for b in range(5) for c in records[b]) == dataset.candidates
  for field in dataclasses.fields(dataset.interactions):
    parts = np.concatenate([getattr(logs[b], field.name) for b in range(5)])
    np.testing.assert_array_equal(parts, getattr(dataset.interactions, field.name))
  # The truth of scattered pairs of one block is that of the whole grid, bit for bit.
  columns, rng = market.columns(2), np.random.default_rng(0)
  u, j = 32 + rng.integers(16, size=50), rng.integers(30, size=50)
  arrays_equal(market.truth(columns, u, j),
               Truth(*(getattr(truth, f.name)[u, j] for f in dataclasses.fields(Truth))))


def test_newcomers_are_others_of_the_same_world(monkeypatch):
  monkeypatch.setattr(simulator, 'BLOCK', 64)
  config = dataclasses.replace(SMALL, logging='popularity')
  (dataset, truth), market = simulate(config, 3), make_market(config, 3)
  people, theirs = newcomers(market, 150)
  assert people.jobs == dataset.jobs and len(people.candidates) == 150
  assert not {c.id for c in people.candidates} & {c.id for c in dataset.candidates}
  assert len({tuple(map(str, c.attributes.values())) for c in people.candidates}) == 150
  log = people.interactions
  assert set(log.split.tolist()) == {SPLITS.index('calibration')}
  assert log.candidate.min() == 0 and log.candidate.max() == 149
  assert set(log.job.tolist()) == set(np.flatnonzero(~market.splits.cold_job).tolist())
  agrees = theirs.eligible[log.candidate, log.job] == log.qualification
  assert agrees[log.preference == 1].mean() > 0.95  # but for the noise of screening
  # As a market that had them from the start, though for the scales.
  wider = dataclasses.replace(market, config=dataclasses.replace(config, candidates=2 * 64 + 150))
  arrays_equal(theirs, wider.grid(128 + np.arange(150), np.arange(30)))
  assert abs(theirs.qualification.mean() - truth.qualification.mean()) < 0.05
  with pytest.raises(ValueError, match='count must be at least 1, got 0'):
    newcomers(market, 0)


@pytest.mark.parametrize('rho', RHOS)
@pytest.mark.parametrize('name', names())
def test_the_asked_conflation_is_reached(name, rho):
  _, truth = simulate(MarketConfig(domain=name, candidates=500, jobs=50, rho_x=rho), 0)
  p, q = (logit(x.astype(np.float64)).ravel() for x in (truth.preference, truth.qualification))
  assert abs(np.corrcoef(p, q)[0, 1] - rho) < 0.05


@pytest.mark.parametrize('rho', RHOS)
def test_the_asked_conflation_is_reached_beyond_the_pilot(rho, monkeypatch):
  """Scales are measured on the first block; here it is a quarter of the market's candidates."""
  monkeypatch.setattr(simulator, 'BLOCK', 1000)
  monkeypatch.setattr(simulator, '_PILOT_JOBS', 60)
  market = make_market(MarketConfig(candidates=4000, jobs=120, rho_x=rho), 1)
  columns = market.columns(2)
  p, q = market.logits(columns, columns.first + np.arange(1000)[:, None], np.arange(120))
  assert abs(np.corrcoef(p.ravel(), q.ravel())[0, 1] - rho) < 0.05


@pytest.mark.parametrize('rho', RHOS)
def test_the_asked_hidden_confounding_is_reached(rho):
  market = make_market(dataclasses.replace(SMALL, rho_e=rho), 4)
  first, second = market.latents(np.arange(200)[:, None], np.arange(100))
  assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1] - rho) < 0.05


@pytest.mark.parametrize('seed', range(3))
def test_without_hidden_confounding_the_outcomes_are_independent_given_attributes(seed):
  """The product of residuals has mean zero for every weighting by functions of P and Q."""
  def statistics(rho_e):
    _, t = simulate(MarketConfig(candidates=400, jobs=60, rho_x=0.5, rho_e=rho_e), seed)
    product = (t.wants - t.preference) * (t.eligible - t.qualification)
    cells = [(t.preference >= a) & (t.preference < a + 0.25) & (t.qualification >= b)
             & (t.qualification < b + 0.25) for a in np.arange(0, 1, 0.25)
             for b in np.arange(0, 1, 0.25)]
    cells = [product[c] for c in cells if c.sum() > 100]
    return np.array([c.mean() / (c.std() / np.sqrt(len(c))) for c in [product.ravel(), *cells]])
  assert np.abs(statistics(0.0)).max() < 4
  assert statistics(0.8)[0] > 10 and statistics(-0.8)[0] < -10


def test_the_latent_outcomes_have_the_true_probabilities():
  _, truth = simulate(MarketConfig(candidates=300, jobs=60, rho_e=0.5), 5)
  for outcome, probability in ((truth.wants, truth.preference),
                               (truth.eligible, truth.qualification)):
    for low in np.arange(0, 1, 0.2):
      within = (probability >= low) & (probability < low + 0.2)
      error = np.sqrt(0.25 / within.sum())
      assert abs(outcome[within].mean() - probability[within].mean()) < 4 * error


@pytest.mark.parametrize('logging', get_args(get_type_hints(MarketConfig)['logging']))
@pytest.mark.parametrize('exposure', [0.005, 0.5])
def test_propensities_have_a_floor_and_are_what_happens(logging, exposure):
  config = MarketConfig(candidates=3000, jobs=100, self_censoring=1.0, exposure=exposure,
                        logging=logging, recommender_quality=0.9)
  market = make_market(config, 0, cold_jobs=0.0, warm_test=0.0)
  columns = market.columns(0)
  u, j = np.arange(3000)[:, None], np.arange(100)
  truth = market.truth(columns, u, j)
  propensity = market.exposure(market.logits(columns, u, j)[0], u, j)
  log = market.log(columns)
  assert truth.application.min() >= MIN_APPLICATION - 1e-6
  assert propensity.min() >= MIN_EXPOSURE * exposure - 1e-12 and propensity.max() <= 1
  np.testing.assert_allclose(propensity[log.candidate, log.job], log.exposure, rtol=1e-6)
  # The log shows, and the candidates apply, as often as the propensities say, low ones included.
  for low, high in ((0, exposure), (exposure, 1.01)):
    within = (propensity >= low) & (propensity < high)
    if within.any():
      seen = within[log.candidate, log.job].sum()
      assert abs(seen - propensity[within].sum()) < 4.5 * np.sqrt(propensity[within].sum() + 1)
  expected = truth.application[log.candidate, log.job]
  assert abs((log.preference - expected).sum()) < 4.5 * np.sqrt((expected * (1 - expected)).sum())


def test_a_better_recommender_shows_what_is_wanted():
  def applied(quality):
    log = simulate(MarketConfig(logging='recommender', exposure=0.1, recommender_quality=quality),
                   0)[0].interactions
    return log.preference.mean()
  assert applied(0.0) + 0.1 < applied(0.5) < applied(1.0) - 0.1


def test_popular_jobs_are_shown_more():
  dataset, truth = simulate(MarketConfig(logging='popularity', exposure=0.2), 0)
  shown = np.bincount(dataset.interactions.of('cold_candidates').job, minlength=100)
  warm = shown > 0
  assert np.corrcoef(shown[warm], truth.preference.mean(0)[warm])[0, 1] > 0.5


def test_a_job_is_shown_by_its_popularity_beside_the_mean():
  """So that the mean exposure is the asked one, whatever the most popular job."""
  market = make_market(MarketConfig(candidates=200, jobs=40, logging='popularity', exposure=0.1), 0)
  u, j = np.arange(200)[:, None], np.arange(40)
  P = market.grid(u[:, 0], j).preference.astype(np.float64)
  factor = P.mean(0) / P.mean()
  assert factor.max() > 1.2
  shown = market.exposure(logit(P), u, j)
  np.testing.assert_allclose(shown, np.broadcast_to(np.clip(0.1 * factor, 0.01, None), (200, 40)),
                             rtol=1e-5)
  assert abs(shown.mean() - 0.1) < 0.002


def test_doubt_keeps_candidates_from_applying():
  def eligibility_of_applicants(self_censoring):
    dataset, truth = simulate(dataclasses.replace(SMALL, self_censoring=self_censoring), 0)
    log = dataset.interactions.where(dataset.interactions.preference == 1)
    return len(log), truth.qualification[log.candidate, log.job].mean()
  (many, low), (few, high) = eligibility_of_applicants(0.0), eligibility_of_applicants(1.0)
  assert few < 0.8 * many and high > low + 0.1


def test_screening_errs_as_often_as_it_is_told():
  dataset, truth = simulate(MarketConfig(screening_noise=0.3), 0)
  log = dataset.interactions.where(dataset.interactions.qualification >= 0)
  wrong = log.qualification != truth.eligible[log.candidate, log.job]
  assert abs(wrong.mean() - 0.3) < 4 * np.sqrt(0.21 / len(log))


def test_blanks_and_verbosity():
  full, blank = (simulate(dataclasses.replace(SMALL, missing=m, verbosity=v), 0)[0]
                 for m, v in ((0.0, 1), (0.4, 6)))
  optional = load_domain('students').optional
  assert not any(c[a] is None for c in full.candidates for a in optional)
  share = np.mean([c[a] is None for c in blank.candidates for a in optional])
  assert abs(share - 0.4) < 4 * np.sqrt(0.24 / (80 * len(optional)))
  sentences = [np.mean([c['student_llm_output'].count('.') for c in d.candidates])
               for d in (full, blank)]
  assert sentences[1] == sentences[0] + 5


@pytest.mark.parametrize('name', names())
def test_records_are_valid_and_the_truth_agrees_with_the_schema(name):
  config = MarketConfig(domain=name, candidates=60, jobs=20, missing=0.0)
  market = make_market(config, 0)
  columns = market.columns(0)
  people, schema = market.candidates(columns), market.domain.schema
  for side, records in (('candidate', people), ('job', market.jobs)):
    for record in records:
      schema.validate(side, record)
      assert list(record.attributes) == [a.name for a in schema.attributes(side)]
  u, j = np.arange(60)[:, None], np.arange(20)
  margins = {f.name: margin(f, columns, u, market.job_columns, j) for f in schema.fields
             if f.comparator.compare((None,), None).verdict}
  for a in range(60):
    for b in range(20):
      for f in align(schema, people[a], market.jobs[b]).fields():
        if f.verdict and f.field.name not in ('skills', 'procedures'):
          assert (margins[f.field.name][a, b] >= 0) == (f.verdict == 'met'), f.field.name
        elif f.verdict:  # the schema asks for half of a set, the simulator counts all of it
          assert abs(margins[f.field.name][a, b] + 0.5 - f.comparison.margin) < 1e-4


def test_the_second_domain_is_a_table():
  """No code outside its schema, which shipped.py reads, and its vocabulary knows nursing."""
  root = Path(jobrec_jax.__file__).parent
  own = {root / name for name in ('schema/nursing.toml', 'schema/shipped.py',
                                  'data/market/domains/nursing.py',
                                  'data/market/notes/nursing.py')}
  assert all(path.exists() for path in own)
  for path in {*root.rglob('*.py'), *(root.parent / 'experiments').rglob('*.py')} - own:
    assert 'nursing' not in path.read_text().lower(), path
  students, nursing = (load_domain(n).schema for n in ('students', 'nursing'))
  assert not ({a.name for a in students.candidate + students.job}
              & {a.name for a in nursing.candidate + nursing.job})


def test_a_dataset_does_not_reach_the_truth():
  dataset, truth = simulate(SMALL, 0)
  assert {f.name for f in dataclasses.fields(Dataset)} == {
      'schema', 'candidates', 'jobs', 'interactions', 'notes'}
  secret = [getattr(truth, f.name) for f in dataclasses.fields(Truth)]
  for array in vars(dataset.interactions).values():
    assert not any(np.shares_memory(array, s) for s in secret)


def test_only_applicants_have_a_qualification_label():
  log = simulate(SMALL, 0)[0].interactions
  assert (log.qualification[log.preference == 0] == -1).all()
  assert (log.qualification[log.preference == 1] >= 0).all()
  assert (log.preference == 0).any() and (log.qualification == 0).any()
  assert all(len(log.of(s)) for s in SPLITS)


@pytest.mark.parametrize('change', [
    {'rho_x': 1.0}, {'exposure': 0.0}, {'logging': 'random'}, {'candidates': 3},
    {'self_censoring': 1.5}, {'domain': 'plumbing'}, {'recommender_quality': 2.0},
    {'verbosity': -1}, {'syntax': 1.1}, {'qualification_pair': 1.0}, {'version': '3'}])
def test_a_knob_out_of_range_is_named(change):
  with pytest.raises(ValueError, match=f'^{next(iter(change))} must'):
    MarketConfig(**change)
