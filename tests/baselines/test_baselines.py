import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.logistic import Logistic
from jobrec_jax.baselines.oracle import Oracle
from jobrec_jax.baselines.popularity import Popularity
from jobrec_jax.baselines.random_scorer import Constant, Random
from jobrec_jax.baselines.rules import Rules
from jobrec_jax.data import pairs
from jobrec_jax.data.dataset import SPLITS, Dataset, Interactions, Truth
from jobrec_jax.schema.align import align, alignment_features, rule_score
from jobrec_jax.schema.comparators import AtLeast, Contains
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema

CANDIDATES, JOBS = 12, 4
SCHEMA = Schema(
    'toy',
    candidate=(Attribute('gpa', 'number', low=0, high=4), Attribute('likes', 'set')),
    job=(Attribute('min_gpa', 'number', low=0, high=4), Attribute('field', 'category')),
    layers=(Layer('eligibility', (
        AlignedField('gpa', ('gpa',), 'min_gpa', AtLeast(), 'qualification'),)),
            Layer('interest', (
                AlignedField('field', ('likes',), 'field', Contains(), 'preference'),))))


def make_dataset():
  """Candidates want the fields they like and are accepted where their gpa suffices."""
  rng = np.random.default_rng(0)
  candidates = tuple(Entity(f'c{i}', {'gpa': round(rng.uniform(2, 4), 2),
                                      'likes': ('x',) if i % 2 else ('y',)})
                     for i in range(CANDIDATES))
  jobs = tuple(Entity(f'j{i}', {'min_gpa': 2.5 + 0.3 * i, 'field': 'xy'[i % 2]})
               for i in range(JOBS))
  c, j = (a.ravel().astype(np.int32) for a in np.mgrid[:CANDIDATES, :JOBS])
  wants = np.array([jobs[b]['field'] in candidates[a]['likes'] for a, b in zip(c, j)])
  fits = np.array([candidates[a]['gpa'] >= jobs[b]['min_gpa'] for a, b in zip(c, j)])
  observed = (c + j) % 3 > 0
  # The last candidate is not in train.
  split = np.where(c == CANDIDATES - 1, SPLITS.index('test'), SPLITS.index('train'))
  log = Interactions(c, j, wants.astype(np.int8),
                     np.where(observed, fits, -1).astype(np.int8), split.astype(np.int8),
                     np.ones(len(c), np.float32))
  shape = CANDIDATES, JOBS
  p, q = (0.1 + 0.8 * wants).astype(np.float32), (0.2 + 0.5 * fits).astype(np.float32)
  truth = Truth(p.reshape(shape), q.reshape(shape), wants.reshape(shape), fits.reshape(shape),
                np.full(shape, 0.5, np.float32))
  return Dataset(SCHEMA, candidates, jobs, log), truth


@pytest.fixture
def dataset():
  return make_dataset()[0]


def rivals(dataset, truth=None):
  features = AlignmentFeatures(dataset)
  found = [Popularity(), Rules(features), Logistic(features), Random(0), Constant()]
  return found + ([Oracle(truth)] if truth else [])


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_every_rival_fits_and_scores_alike(perspective):
  dataset, truth = make_dataset()
  log = dataset.interactions
  for rival in rivals(dataset, truth):
    assert rival.fit(dataset, perspective) is rival
    scores = rival.score(log.candidate, log.job)
    assert scores.shape == (len(log),) and scores.dtype == np.float64
    assert np.isfinite(scores).all()
    order = np.random.default_rng(1).permutation(len(log))
    np.testing.assert_array_equal(rival.score(log.candidate[order], log.job[order]), scores[order])


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_only_train_labels_of_the_perspective_are_read(dataset, perspective):
  """Labels outside train, and of the other perspective, may be anything."""
  log = dataset.interactions
  outside = log.split != SPLITS.index('train')
  other = {'preference': 'qualification', 'qualification': 'preference'}[perspective]
  changed = dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, **{perspective: np.where(outside, 1 - getattr(log, perspective) ** 2,
                                    getattr(log, perspective)).astype(np.int8),
              other: np.full(len(log), -1, np.int8)}))
  for a, b in zip(rivals(dataset), rivals(changed)):
    np.testing.assert_array_equal(a.fit(dataset, perspective).score(log.candidate, log.job),
                                  b.fit(changed, perspective).score(log.candidate, log.job))


def test_popularity_by_hand(dataset):
  log = dataset.interactions
  train = log.of('train')
  prior = train.preference.mean()
  expected = [(train.preference[train.job == j].sum() + 2 * prior) / (np.sum(train.job == j) + 2)
              for j in range(JOBS)]
  scores = Popularity(2).fit(dataset, 'preference').score(np.zeros(JOBS, int), np.arange(JOBS))
  np.testing.assert_allclose(scores, expected)

  seen = train.where(train.qualification >= 0)
  prior = seen.qualification.mean()
  scores = Popularity().fit(dataset, 'qualification').score(
      np.arange(CANDIDATES), np.zeros(CANDIDATES, int))
  own = seen.candidate == 3
  assert scores[3] == pytest.approx((seen.qualification[own].sum() + prior) / (own.sum() + 1))
  assert scores[-1] == pytest.approx(prior)
  with pytest.raises(ValueError, match='prior_labels must be above 0'):
    Popularity(0)


def test_rules_and_logistic_find_what_the_schema_shows(dataset):
  log = dataset.interactions
  features = AlignmentFeatures(dataset)
  for perspective in ('preference', 'qualification'):
    labels = getattr(log, perspective)
    judged = labels >= 0
    for rival in (Rules(features), Logistic(features)):
      scores = rival.fit(dataset, perspective).score(log.candidate, log.job)
      assert roc_auc_score(labels[judged], scores[judged]) == 1


def test_features_and_rules_equal_the_schema_chunk_by_chunk(dataset, monkeypatch):
  monkeypatch.setattr(pairs, 'CHUNK', 5)
  features = AlignmentFeatures(dataset)
  c, j = (a.ravel() for a in np.mgrid[:CANDIDATES, :JOBS])
  found = [align(SCHEMA, dataset.candidates[a], dataset.jobs[b]) for a, b in zip(c, j)]
  expected = np.stack([alignment_features(alignment) for alignment in found])
  assert features.width == expected.shape[1]
  np.testing.assert_array_equal(features.features(c, j), expected)
  parts = list(features.chunks(c, j))
  assert [len(x) for _, x in parts] == [5] * 9 + [3]
  for rows, x in parts:
    np.testing.assert_array_equal(x, expected[rows])
  for perspective in ('preference', 'qualification'):
    scores = features.rule_scores(c, j, perspective)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(
        scores, np.array([rule_score(a, perspective) for a in found], np.float32))


def test_logistic_is_scikit_learns_on_all_rows_at_once(dataset, monkeypatch):
  monkeypatch.setattr(pairs, 'CHUNK', 7)
  features, log = AlignmentFeatures(dataset), dataset.interactions
  train = log.of('train')
  found = Logistic(features).fit(dataset, 'preference').score(log.candidate, log.job)
  model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
  model.fit(features.features(train.candidate, train.job).astype(np.float64),
            train.preference == 1)
  expected = model.decision_function(
      features.features(log.candidate, log.job).astype(np.float64))
  np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_pair_is_remembered(dataset):
  """What is kept follows the values, not the pairs."""
  features = AlignmentFeatures(dataset)
  c, j = (a.ravel() for a in np.mgrid[:CANDIDATES, :JOBS])
  features.features(c, j)
  before = len(features._aligner._ids), len(features._aligner._key)
  features.features(np.tile(c, 5), np.tile(j, 5))
  assert (len(features._aligner._ids), len(features._aligner._key)) == before
  assert before[1] <= CANDIDATES * JOBS + 2 * 2


def test_features_belong_to_one_dataset(dataset):
  other = make_dataset()[0]
  for rival in (Rules(AlignmentFeatures(dataset)), Logistic(AlignmentFeatures(dataset))):
    with pytest.raises(ValueError, match='another dataset'):
      rival.fit(other, 'preference')


def test_oracle_gives_the_truth():
  dataset, truth = make_dataset()
  c, j = np.array([0, 5]), np.array([1, 3])
  for perspective in ('preference', 'qualification'):
    np.testing.assert_array_equal(Oracle(truth).fit(dataset, perspective).score(c, j),
                                  getattr(truth, perspective)[c, j])


def test_random_is_uniform_seeded_and_independent_across_either_side(dataset):
  c, j = (a.ravel() for a in np.mgrid[:200, :200])
  scores = Random(0).fit(dataset, 'preference').score(c, j)
  assert scores.min() >= 0 and scores.max() < 1 and len(set(scores)) == len(scores)
  counts = np.histogram(scores, 20, (0, 1))[0]
  assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)
  other = Random(1).score(c, j)
  for a, b in ((scores, other), (scores[:-1], scores[1:]), (scores[:-200], scores[200:])):
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.025


def test_refuses_what_cannot_be_fitted(dataset):
  features = AlignmentFeatures(dataset)
  log = dataset.interactions
  unlabelled = dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, qualification=np.full(len(log), -1, np.int8)))
  for rival in (Popularity(), Logistic(features)):
    with pytest.raises(ValueError, match='train interactions has a qualification label'):
      rival.fit(unlabelled, 'qualification')
  for rival in (Popularity(), Logistic(features), Rules(features), Oracle(make_dataset()[1])):
    with pytest.raises(ValueError, match=r'preference, qualification; got .taste.'):
      rival.fit(dataset, 'taste')
  one_class = dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, preference=np.ones(len(log), np.int8)))
  with pytest.raises(ValueError, match='both classes'):
    Logistic(AlignmentFeatures(one_class)).fit(one_class, 'preference')
