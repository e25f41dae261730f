"""Rivals that read, and those that know interactions alone: a planted signal is found, and nothing
but train and, for tuning, validation is learnt from."""

import dataclasses
import logging
import zlib

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

from jobrec_jax.baselines import base, embeddings, factorization, rivals, tuning, words
from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.collaborative import EASE, ItemKNN, Similar
from jobrec_jax.baselines.popularity import Popularity
from jobrec_jax.baselines.words import LogisticSetting, LogisticWords, PairWords, TreesSetting
from jobrec_jax.data.dataset import SPLITS, Dataset, Interactions
from jobrec_jax.pipeline.settings import EvaluateSettings
from jobrec_jax.schema.comparators import AtLeast, Semantic
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.weights import fetch

CANDIDATES, JOBS = 60, 16
TRAIN, VALIDATION, TEST = (SPLITS.index(s) for s in ('train', 'validation', 'test'))
READING = [n for n in rivals.RIVALS if n.endswith(('words', 'with MiniLM')) or n in (
    'conflated', 'naive')]
WITH_WORDS = words.LogisticWords, words.TreesWords, factorization.FactorizationWords
COLLABORATIVE = [n for n, r in rivals.RIVALS.items() if r.warm_only]
SCHEMA = Schema(
    'toy', candidate=(Attribute('gpa', 'number', low=0, high=4), Attribute('about', 'text')),
    job=(Attribute('min_gpa', 'number', low=0, high=4), Attribute('post', 'text')),
    layers=(Layer('eligibility', (
        AlignedField('gpa', ('gpa',), 'min_gpa', AtLeast(), 'qualification'),)),
            Layer('narrative', (
                AlignedField('text', ('about',), 'post', Semantic(), 'preference'),))))
# What candidates write and what jobs write share no word: only together do they say who wants what.
SAYS = (('quiet corners', 'library desk'), ('crowds and noise', 'festival stage'))


def market():
  """Candidates want jobs whose text goes with theirs, and are accepted where their gpa suffices;
  the last third of them is not in train."""
  rng = np.random.default_rng(0)
  candidates = tuple(Entity(f'c{i}', {
      'gpa': round(rng.uniform(2, 4), 2), 'about': f'I like {SAYS[i % 2][0]}'})
      for i in range(CANDIDATES))
  jobs = tuple(Entity(f'j{i}', {
      'min_gpa': 2.5 + 0.1 * (i // 2), 'post': f'At the {SAYS[i % 2][1]}'}) for i in range(JOBS))
  c, j = (a.ravel().astype(np.int32) for a in np.mgrid[:CANDIDATES, :JOBS])
  wants = ((c + j) % 2 == 0) ^ (rng.random(len(c)) < 0.05)
  gpa, least = (np.array([e[k] for e in s]) for s, k in ((candidates, 'gpa'), (jobs, 'min_gpa')))
  fits = (gpa[c] >= least[j]) ^ (rng.random(len(c)) < 0.05)
  split = np.select([c < 40, c < 50], [TRAIN, VALIDATION], TEST)
  split = np.where((split == TRAIN) & (rng.random(len(c)) < 0.2), TEST, split)
  return Dataset(SCHEMA, candidates, jobs, Interactions(
      c, j, wants.astype(np.int8), np.where(wants, fits, -1).astype(np.int8),
      split.astype(np.int8), np.ones(len(c), np.float32)))


def with_log(dataset, **arrays):
  return dataclasses.replace(dataset, interactions=dataclasses.replace(
      dataset.interactions, **arrays))


@pytest.fixture
def dataset():
  return market()


@pytest.fixture
def few(monkeypatch):
  """Two settings for each that reads: what the tests ask does not need more."""
  monkeypatch.setattr(words.LogisticWords, 'settings', (
      LogisticSetting(True, 1, 0.3), LogisticSetting(False, 1, 0.3)))
  monkeypatch.setattr(words.TreesWords, 'settings', (TreesSetting(True, 1, 8),))
  monkeypatch.setattr(factorization.FactorizationWords, 'settings', (
      factorization.FactorizationSetting(64, 1, 1), factorization.FactorizationSetting(64, 1, 0)))


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
  """In place of MiniLM's: each word has a direction of its own."""
  def embed(texts):
    out = np.zeros((len(texts), 64), np.float32)
    for row, text in enumerate(texts):
      for word in text.split():
        out[row, zlib.crc32(word.encode()) % 64] += 1
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)
  monkeypatch.setattr(embeddings, 'minilm', lambda: embed)
  monkeypatch.setattr(fetch, 'has_encoder', lambda name: True)


def shuffled(dataset):
  """Labels outside of train and validation turned round, and records of whom neither has seen
  given to each other."""
  log = dataset.interactions
  test = log.split == TEST
  seen = np.unique(log.candidate[~test])
  unseen = np.setdiff1d(np.arange(CANDIDATES), seen)
  records = list(dataset.candidates)
  for a, b in zip(unseen, unseen[::-1]):
    records[a] = dataclasses.replace(dataset.candidates[b], id=dataset.candidates[a].id)
  changed = with_log(dataset, **{
      p: np.where(test, 1 - getattr(log, p) ** 2, getattr(log, p)).astype(np.int8)
      for p in ('preference', 'qualification')})
  return dataclasses.replace(changed, candidates=tuple(records)), np.isin(log.candidate, seen)


@pytest.mark.usefixtures('few')
@pytest.mark.parametrize('name', READING)
def test_what_two_texts_say_together_is_found_in_preference(dataset, name):
  """Of candidates that training has not seen; a conflated label blurs it and does not hide it."""
  log = dataset.interactions
  cold = log.candidate >= 50
  fitted = rivals.make_rival(name, dataset).fit(dataset, 'preference')
  scores = fitted.score(log.candidate[cold], log.job[cold])
  assert scores.shape == (cold.sum(),) and scores.dtype == np.float64
  truth = (log.candidate[cold] + log.job[cold]) % 2 == 0
  assert roc_auc_score(truth, scores) > (0.95 if name != 'conflated' else 0.8)
  plain = rivals.make_rival('logistic regression', dataset).fit(dataset, 'preference')
  assert roc_auc_score(truth, plain.score(log.candidate[cold], log.job[cold])) < 0.6


@pytest.mark.usefixtures('few')
@pytest.mark.parametrize('name', [kind.name for kind in WITH_WORDS])
def test_margins_are_found_in_qualification_and_scores_are_logits(dataset, name):
  log = dataset.interactions
  cold = log.candidate >= 50
  fitted = rivals.make_rival(name, dataset).fit(dataset, 'qualification')
  scores = fitted.score(log.candidate[cold], log.job[cold])
  fits = [dataset.candidates[c]['gpa'] >= dataset.jobs[j]['min_gpa']
          for c, j in zip(log.candidate[cold], log.job[cold])]
  assert roc_auc_score(fits, scores) > 0.9 and rivals.RIVALS[name].logit
  assert np.mean(1 / (1 + np.exp(-scores))) == pytest.approx(np.mean(fits), abs=0.15)


@pytest.mark.usefixtures('few')
@pytest.mark.parametrize('name', [n for n in rivals.RIVALS
                                  if n != 'BM25' and n not in rivals.CENSORED])
@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_labels_of_the_test_and_records_of_the_unseen_change_no_score(dataset, name, perspective):
  changed, seen = shuffled(dataset)
  log = dataset.interactions
  c, j = log.candidate[seen], log.job[seen]
  a, b = (rivals.make_rival(name, d).fit(d, perspective).score(c, j) for d in (dataset, changed))
  np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('name', ['BM25', 'MiniLM'])
def test_shared_words_come_first_and_no_label_is_read(dataset, name):
  records = tuple(dataclasses.replace(e, attributes={**e.attributes, 'about': SAYS[i % 2][1]})
                  for i, e in enumerate(dataset.candidates[:-1]))
  same = dataclasses.replace(dataset, candidates=(*records, Entity('nothing', {})))
  log = same.interactions
  blind = with_log(same, preference=np.full(len(log), -1, np.int8))
  for perspective in ('preference', 'qualification'):
    fitted = rivals.make_rival(name, same).fit(same, perspective)
    kept = log.candidate < CANDIDATES - 1
    scores = fitted.score(log.candidate[kept], log.job[kept])
    goes = (log.candidate[kept] + log.job[kept]) % 2 == 0
    assert scores[goes].min() > scores[~goes].max()
    np.testing.assert_array_equal(
        scores, rivals.make_rival(name, blind).fit(blind, perspective).score(
            log.candidate[kept], log.job[kept]))
    assert np.isfinite(fitted.score(np.array([CANDIDATES - 1]), np.array([0]))).all()


@pytest.mark.parametrize('name', COLLABORATIVE)
def test_collaborative_rivals_know_who_trained_and_nobody_else(dataset, name):
  log = dataset.interactions
  fitted = rivals.make_rival(name, dataset).fit(dataset, 'preference')
  warm = (log.split == TEST) & (log.candidate < 40)
  cold = log.candidate >= 50
  truth = (log.candidate + log.job) % 2 == 0
  assert roc_auc_score(truth[warm], fitted.score(log.candidate[warm], log.job[warm])) > 0.9
  np.testing.assert_array_equal(
      fitted.score(log.candidate[cold], log.job[cold]),
      Popularity().fit(dataset, 'preference').score(log.candidate[cold], log.job[cold]))


def test_collaborative_rivals_rank_candidates_for_jobs_in_qualification(dataset):
  """Queries are jobs there: a candidate whom nobody accepted scores 0."""
  fitted = EASE().fit(dataset, 'qualification')
  np.testing.assert_array_equal(fitted.score(np.arange(50, 60), np.zeros(10, int)), np.zeros(10))
  assert fitted.score(np.arange(40), np.zeros(40, int)).any()


def test_ease_is_its_closed_form():
  """Each column of B minimises |x_i − X b|² + λ |b|² among those with b_i = 0."""
  x = (np.random.default_rng(0).random((12, 5)) < 0.5).astype(np.float64)
  like = EASE()._learn(2.0, sparse.csr_matrix(x)).like
  for i in range(5):
    rest = np.delete(np.arange(5), i)
    solved = np.linalg.solve(x[:, rest].T @ x[:, rest] + 2.0 * np.eye(4), x[:, rest].T @ x[:, i])
    np.testing.assert_allclose(like[rest, i], solved, atol=1e-10)
    assert like[i, i] == pytest.approx(0, abs=1e-12)
  assert Similar(sparse.csr_matrix(x), like).score(np.array([3, 0]), np.array([1, 4])) == (
      pytest.approx([(x @ like)[3, 1], (x @ like)[0, 4]]))


def test_itemknn_is_the_cosine_of_columns():
  x = (np.random.default_rng(1).random((12, 5)) < 0.5).astype(np.float32)
  length = np.sqrt((x ** 2).sum(0))
  np.testing.assert_allclose(ItemKNN()._learn(5, sparse.csr_matrix(x)).like,
                             x.T @ x / length[:, None] / length, atol=1e-6)


def test_tuning_takes_the_least_validation_loss(dataset, monkeypatch):
  """The one setting that can see the signal wins wherever it stands; ties go to the first."""
  for settings in ((False, True), (True, False)):
    monkeypatch.setattr(LogisticWords, 'settings',
                        tuple(LogisticSetting(crossed, 1, 0.3) for crossed in settings))
    fitted = rivals.make_rival('logistic regression with words', dataset).fit(
        dataset, 'preference')
    assert fitted._words._b is not None
  assert tuning.best_of('x', (1, 2, 3), lambda s: s, lambda m: {1: 2.0, 2: 1.0, 3: 1.0}[m]) == 2
  assert tuning.best_of('x', (1, 2), lambda s: s, lambda m: np.nan) == 1
  z, y = np.array([0.0, 2.0, -800.0]), np.array([True, False, False])
  assert tuning.log_loss(z, y) == pytest.approx((np.log(2) + np.log1p(np.exp(2))) / 3)
  with pytest.raises(ValueError, match='settings must be 1 to 8, got 9'):
    tuning.best_of('x', range(9), lambda s: s, None)


def test_every_tuned_rival_has_the_same_budget():
  tuned = [*WITH_WORDS,
           *(rivals._class('collaborative', name) for name in COLLABORATIVE)]
  assert {len(set(kind.settings)) for kind in tuned} == {tuning.BUDGET}


@pytest.mark.parametrize('name', [kind.name for kind in WITH_WORDS])
def test_without_labels_held_back_the_first_setting_is_taken(dataset, name, caplog):
  log = dataset.interactions
  blind = with_log(dataset, preference=np.where(
      log.split == VALIDATION, -1, log.preference).astype(np.int8))
  caplog.set_level(logging.INFO, 'absl')
  fitted = rivals.make_rival(name, blind).fit(blind, 'preference')
  assert f'{name}, preference: untuned, for no labels are held back' in caplog.text
  assert np.isfinite(fitted.score(log.candidate, log.job)).all()


def test_data_without_a_word_leave_the_margins(dataset):
  mute = dataclasses.replace(
      dataset, schema=dataclasses.replace(SCHEMA, candidate=SCHEMA.candidate[:1],
                                          job=SCHEMA.job[:1], layers=SCHEMA.layers[:1]))
  mute = dataclasses.replace(mute, candidates=tuple(
      Entity(e.id, {'gpa': e['gpa']}) for e in mute.candidates), jobs=tuple(
          Entity(e.id, {'min_gpa': e['min_gpa']}) for e in mute.jobs))
  log = mute.interactions
  features = AlignmentFeatures(mute)
  assert words.Reader(['', '1 2'], 2)(['', 'word']).shape == (2, 0)
  for embed in (None, lambda texts: np.zeros((len(texts), 4))):
    crossed = PairWords(mute, features, True, 2, embed)
    assert crossed(log.candidate, log.job).shape == PairWords(mute, features, False, 2)(
        log.candidate, log.job).shape
  fitted = LogisticWords(features).fit(mute, 'qualification')
  assert np.isfinite(fitted.score(log.candidate, log.job)).all()


def test_labels_of_the_usual_mistakes(dataset, monkeypatch):
  log = dataset.interactions.of('train')
  found = base.accepted(dataset, 'train', 'preference')
  np.testing.assert_array_equal(found.label, log.qualification == 1)
  assert len(found.label) == len(log)
  found = base.naive(dataset, 'train', 'qualification')
  assert len(found.label) == 40 * JOBS  # unlogged pairs too
  assert found.label.sum() == (log.qualification == 1).sum()
  monkeypatch.setattr(base, 'NAIVE_PAIRS', 50)
  assert base.naive(dataset, 'train', 'qualification').label.sum() == found.label.sum()
  assert len(base.naive(with_log(dataset, split=np.full(
      len(dataset.interactions), TEST, np.int8)), 'train', 'preference').label) == 0


def test_who_can_learn_from_what(dataset):
  log = dataset.interactions
  applied = with_log(dataset, preference=np.where(log.preference == 1, 1, -1).astype(np.int8))
  can = [name for name, r in rivals.RIVALS.items() if r.can_learn(applied, 'preference')]
  assert can == ['schema rules', 'BM25', 'MiniLM', *COLLABORATIVE, 'conflated', 'naive']
  silent = with_log(dataset, qualification=np.full(len(log), -1, np.int8))
  can = [name for name, r in rivals.RIVALS.items() if r.can_learn(silent, 'qualification')]
  assert can == ['schema rules', 'BM25', 'MiniLM']
  with pytest.raises(ValueError, match='both classes'):
    rivals.make_rival('conflated', silent).fit(silent, 'preference')
  with pytest.raises(ValueError, match='must hold positive labels of qualification, got none'):
    EASE().fit(silent, 'qualification')


def test_names_are_checked_and_so_is_what_is_installed(dataset, monkeypatch):
  assert EvaluateSettings().rivals == rivals.DEFAULT
  for wrong in (('logistic',), ('EASE', 'EASE')):
    with pytest.raises(ValueError, match=r'^rivals must be some of .*, each once, got'):
      EvaluateSettings(rivals=wrong)
  assert EvaluateSettings(rivals=()).rivals == ()
  monkeypatch.setattr(rivals.importlib.util, 'find_spec', lambda name: None)
  rivals.check_installed(('EASE', *rivals.DEFAULT))
  monkeypatch.setattr(fetch, 'has_encoder', lambda name: False)
  with pytest.raises(ValueError, match=r"got 'MiniLM'; python -m jobrec_jax.weights.fetch minilm"):
    rivals.make_rival('MiniLM', dataset)
  with pytest.raises(ValueError, match=r"got 'BM25', which stands on bm25s; pip install 'jobrec"):
    rivals.make_rival('BM25', dataset)
