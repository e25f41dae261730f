"""What stages 1A and 1B hand to training: lists, weights, keys and parameters, without a step."""

import dataclasses
import logging
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.data import lists as listing
from jobrec_jax.data.lengths import choose_lengths
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.missing import MissingLists, Versions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.pipeline import experts
from jobrec_jax.pipeline.data import Data
from jobrec_jax.pipeline.road import resources, road
from jobrec_jax.pipeline.tokenizer import make_tokenizer, read_tokenizer
from jobrec_jax.schema import streams
from jobrec_jax.scoring.calibration import fit_calibration, fit_offsets
from jobrec_jax.scoring.experts import PairScores
from jobrec_jax.train.state import stream_key
from tests.pipeline.tiny import tiny_settings

SETTINGS = tiny_settings(market={'candidates': 60, 'jobs': 20}, policy={'list_length': 8},
                         warm_up={'patience': 5}, cooperative={'patience': 5})


class Recorded:
  """What a stage asked for, with training left out."""

  def __init__(self, monkeypatch):
    self.lists, self.loops, self.losses = [], [], []
    monkeypatch.setattr(experts, 'list_dataset', self.list_dataset)
    monkeypatch.setattr(experts, 'train', self.train)
    monkeypatch.setattr(experts, 'iterate', lambda *data, start: (data, start))
    monkeypatch.setattr(experts, 'make_update', lambda loss_fn, tx: loss_fn)
    for name in ('warm_up_loss', 'cooperative_loss'):
      monkeypatch.setattr(experts.losses, name, lambda *given, name=name: (name, *given[1:]))

  def list_dataset(self, source, finish, batch, seed):
    self.lists.append((source, batch, seed))
    return len(self.lists) - 1

  def train(self, loop, update, state, data, key, mesh):
    self.loops.append(SimpleNamespace(loop=loop, update=update, state=state, data=data(7), key=key))
    return state


@pytest.fixture(scope='module')
def data():
  return Data(*simulate(SETTINGS.market, 0))


@pytest.fixture
def recorded(monkeypatch):
  return Recorded(monkeypatch)


@pytest.fixture
def bench(data, tmp_path):
  """(stage, folder, inputs) -> a bench of the road's own settings."""
  road_of = road(SETTINGS)

  def make(stage, **inputs):
    folder = tmp_path / stage
    folder.mkdir(exist_ok=True)
    return SimpleNamespace(folder=folder, settings=getattr(road_of, stage).settings,
                           inputs={'data': data, **inputs}, resources=resources(SETTINGS))
  return make


@pytest.fixture
def stages(bench, recorded, data):
  """Both stages, one after the other; 1B with weights that can be told apart."""
  of_tokenizer = bench('tokenizer')
  make_tokenizer(of_tokenizer)
  tokenizer = read_tokenizer(of_tokenizer)
  first = bench('warm_up', tokenizer=tokenizer)
  experts.make_warm_up(first)
  warm = experts.read_experts(first)
  warm.params['preference'] = jax.tree.map(lambda x: x + 0.5, warm.params['preference'])
  weights = 1 + np.arange(len(data.dataset.interactions.of('train'))) / 1000
  experts.make_cooperative(bench('cooperative', tokenizer=tokenizer, warm_up=warm,
                                 censoring=weights))
  return recorded, warm, weights


def same_log(a, b):
  for field in ('candidate', 'job', 'preference', 'qualification'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.slow
def test_each_stage_has_its_lists_its_weights_and_its_streams(stages, data):
  recorded, _, weights = stages
  train = data.dataset.interactions.of('train')
  s, seed = SETTINGS, SETTINGS.seed
  (warm, *_), (preference, *_), (qualification, *_) = recorded.lists
  assert [batch for _, batch, _ in recorded.lists] == [
      s.warm_up.batch, s.cooperative.batch, s.cooperative.qualification_batch]
  assert [drawn for *_, drawn in recorded.lists] == [streams.seed32(seed, name) for name in (
      'warm_up, preference lists', 'cooperative, preference lists',
      'cooperative, qualification lists')]
  for lists in (warm, preference):
    assert lists.negatives == s.lists.preference_negatives
    np.testing.assert_array_equal(
        lists.positives, np.stack([train.candidate, train.job], 1)[train.preference == 1])
  assert qualification.negatives == s.lists.qualification_negatives
  same_log(qualification._log, train)
  np.testing.assert_array_equal(qualification._weights, weights)
  drawn = qualification.draw(qualification.positives[0], np.random.default_rng(0))
  assert drawn['weight'][0] == np.float32(weights[qualification.positives[0]])


@pytest.mark.slow
def test_each_stage_has_its_key_its_length_and_its_loss(stages):
  recorded, warm, _ = stages
  first, second = recorded.loops
  s, root = SETTINGS, jax.random.key(SETTINGS.seed)
  assert (first.loop.stage, first.loop.steps) == ('warm_up', s.warm_up.steps)
  assert (second.loop.stage, second.loop.steps) == ('cooperative', s.cooperative.steps)
  for found in (first, second):
    assert (found.loop.log_every, found.loop.save_seconds) == (s.log_every, s.save_seconds)
    assert found.key == stream_key(root, found.loop.stage)
    assert not found.loop.checkpoints.folder.exists()  # the artefact is the parameters
  assert first.data == ((0,), 7) and second.data == ((1, 2), 7)
  assert first.update == ('warm_up_loss',)
  name, weighting, beta = second.update
  assert name == 'cooperative_loss' and beta == s.experts.beta
  assert set(weighting.init()) == {'log_variance'} and set(
      second.state.trainable['task_weights']) == {'log_variance'}
  assert set(first.state.frozen['model']) == {'qualification'} and not second.state.frozen
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(second.state.trainable['model']),
               jax.device_get(warm.params))


@pytest.mark.slow
def test_stages_stop_by_fixed_lists_of_the_validation_split(stages, data):
  """The same builders, streams of their own, no weights, as many batches as are cheap."""
  recorded, warm, _ = stages
  log, s, blocks = data.dataset.interactions.of('validation'), SETTINGS, warm.blocks(data.dataset)
  sources = {'preference': listing.PreferenceLists(log, s.lists.preference_negatives),
             'qualification': listing.QualificationLists(log, s.lists.qualification_negatives)}
  for found, perspectives in zip(recorded.loops, (['preference'], [*sources])):
    held_out = found.loop.held_out
    assert held_out.patience == 5 and len(held_out.batches) == 4
    for name in perspectives:
      drawn = listing.fixed_lists(sources[name], 4 * 8, streams.seed32(
          s.seed, f'{found.loop.stage}, held-out {name} lists'))
      lists = {k: np.concatenate([b[name][k] for b in held_out.batches])
               for k in held_out.batches[0][name]}
      assert all(set(b) == set(perspectives) and len(b[name]['mask']) == 8
                 for b in held_out.batches)
      np.testing.assert_array_equal(lists['candidate'], blocks.candidates[drawn['candidate']])
      job = drawn['job'] if name == 'preference' else np.repeat(
          drawn['job'][:, None], drawn['candidate'].shape[1], 1)
      np.testing.assert_array_equal(lists['job'], blocks.jobs[job])
      np.testing.assert_array_equal(lists['mask'], drawn['mask'])
      assert (lists.get('weight', np.ones(1)) == 1).all()


@pytest.mark.slow
@pytest.mark.parametrize('keep, measured, said', [
    (lambda log: log.split != 1, set(), ['preference', 'qualification']),
    (lambda log: (log.split != 1) | (log.qualification != 0), {'preference'}, ['qualification'])])
def test_perspectives_without_validation_lists_are_left_out(data, bench, keep, measured, said,
                                                            caplog):
  log = data.dataset.interactions
  less = dataclasses.replace(data.dataset, interactions=log.where(keep(log)))
  of_tokenizer = bench('tokenizer')
  make_tokenizer(of_tokenizer)
  of_stage = bench('cooperative', tokenizer=read_tokenizer(of_tokenizer),
                   data=Data(less, None))
  trainer = experts._Trainer.of(of_stage)
  with caplog.at_level(logging.INFO, 'absl'):
    found = trainer.held_out('cooperative', None, {'preference': 8, 'qualification': 8})
  assert [(r.levelname, r.getMessage()) for r in caplog.records
          if 'validation' in r.getMessage()] == [('WARNING', (
              f'cooperative: the validation split holds no {name} list with a negative; the '
              'validation loss leaves it out; a greater share of data.shares, or a split by '
              'groups, would give it some')) for name in said]
  assert (set(found.batches[0]) if found else set()) == measured
  stage = dataclasses.replace(of_stage.settings['stage'], patience=0)
  of_stage.settings = of_stage.settings | {'stage': stage}
  assert trainer.held_out('cooperative', None, {'preference': 8}) is None


def test_attributes_are_missing_in_training_alone(data, bench, recorded):
  """The validation's lists are those of whole records; without a share, so are training's."""
  of_tokenizer = bench('tokenizer')
  of_tokenizer.settings = of_tokenizer.settings | {'missing': 0.5}
  make_tokenizer(of_tokenizer)
  text = read_tokenizer(of_tokenizer)
  whole = BlockEncoder(data.dataset, text.tokenizer, text.spec.tokenizer.form)
  found = {}
  for share in (0.0, 0.5):
    of_stage = bench('cooperative', tokenizer=text)
    of_stage.settings = of_stage.settings | {'missing': share}
    found[share] = trainer = experts._Trainer.of(of_stage)
    trainer.data(trainer.preference('train'), 'cooperative', 'preference', 8)
    held_out = trainer.held_out('cooperative', None, {'preference': 8})
    drawn = listing.fixed_lists(trainer.preference('validation'), 4 * 8, streams.seed32(
        SETTINGS.seed, 'cooperative, held-out preference lists'))
    expected = whole.candidate_lists(drawn['candidate'], drawn['job'])
    for name, blocks in expected.items():
      came = np.concatenate([b['preference'][name] for b in held_out.batches])
      np.testing.assert_array_equal(came, blocks[..., :came.shape[-1]])
  (plain, *rest), (thinned, *other) = recorded.lists
  assert isinstance(plain, listing.PreferenceLists) and found[0.0].versions is None
  assert isinstance(thinned, MissingLists) and isinstance(found[0.5].versions, Versions)
  assert rest == other
  assert len(found[0.0].blocks.candidates) == len(data.dataset.candidates)
  assert len(found[0.5].blocks.candidates) > 2 * len(data.dataset.candidates)


@pytest.mark.slow
def test_initial_parameters_follow_from_the_seed_by_a_key_of_their_own(stages, bench, data):
  recorded, *_ = stages
  tokenizer = read_tokenizer(bench('tokenizer'))
  trainer = experts._Trainer.of(bench('warm_up', tokenizer=tokenizer))
  blocks = trainer.blocks
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  key = stream_key(jax.random.key(SETTINGS.seed), 'init')
  expected = trainer.model.init(key, np.zeros_like(blocks.candidates[:1]), lists['job'],
                                lists['alignment'])['params']
  embedding = jax.tree.leaves(expected['decoder']['embedding'])[0]
  np.testing.assert_allclose(recorded.loops[0].state.trainable['model']['decoder']['embedding'],
                             embedding, atol=1e-6)


def test_lengths_that_the_settings_leave_open_follow_the_texts(bench, data):
  of_tokenizer = bench('tokenizer')
  spec = of_tokenizer.settings['spec']
  left_open = dataclasses.replace(spec.tokenizer, candidate=0, alignment=0)
  of_tokenizer.settings = of_tokenizer.settings | {
      'spec': dataclasses.replace(spec, tokenizer=left_open)}
  make_tokenizer(of_tokenizer)
  text = read_tokenizer(of_tokenizer)
  form, _ = choose_lengths(data.dataset, text.tokenizer, left_open.form,
                           streams.seed32(SETTINGS.seed, 'lengths'))
  assert text.spec.tokenizer.form == form and form.candidate > 64 and form.job == 40
  trainer = experts._Trainer.of(bench('warm_up', tokenizer=text))
  assert trainer.model.config.job_start == form.candidate
  assert 64 < trainer.blocks.candidates.shape[1] <= form.candidate


@pytest.mark.slow
def test_without_steps_stage_1a_keeps_the_initial_parameters(bench, recorded):
  of_tokenizer = bench('tokenizer')
  make_tokenizer(of_tokenizer)
  first = bench('warm_up', tokenizer=read_tokenizer(of_tokenizer))
  stage = dataclasses.replace(first.settings['stage'], steps=0)
  first.settings = first.settings | {'stage': stage}
  experts.make_warm_up(first)
  assert not recorded.loops and [p.name for p in first.folder.iterdir()] == ['params.safetensors']
  jax.tree.map(np.testing.assert_array_equal, experts.read_experts(first).params,
               jax.device_get(experts._Trainer.of(first).initial()))


class FakeScorer:
  """Logits that follow the truth, somewhat off, so that a scale has something to do."""

  def __init__(self, truth):
    self.logits = [(1.5 * logit(x.astype(np.float64)) + 0.4).astype(np.float32)
                   for x in (truth.preference, truth.qualification)]

  def scores(self, candidate, job):
    return PairScores(*(x[candidate, job] for x in self.logits))


def inverse(scorer, log, rows, clip, exposure):
  """Weights by the definition: the chance of being shown, times that of applying then."""
  fit = np.flatnonzero((log.split == 1) & (log.preference >= 0))

  def s_pref(at):
    return scorer.scores(log.candidate[at], log.job[at]).preference
  scale = fit_calibration(s_pref(fit), log.preference[fit], 1 / exposure[fit])
  p = 1 / (1 + np.exp(-(s_pref(rows) - scale.b) / scale.t))
  raw = 1 / np.maximum(p * exposure[rows], 0.01)
  weights = np.minimum(raw / raw.mean(), clip)
  return weights / weights.mean()


def test_weights_undo_both_exposure_and_application(monkeypatch, tmp_path):
  """Where exposure varies: under a uniform logging policy no mean would show it."""
  dataset, truth = simulate(MarketConfig(candidates=150, jobs=20, logging='recommender',
                                         recommender_quality=0.9, exposure=0.4), 0)
  log, scorer, clip = dataset.interactions, FakeScorer(truth), 2.5
  monkeypatch.setattr(experts, 'scorer', lambda *_: scorer)
  bench = SimpleNamespace(folder=tmp_path, settings={
      'censoring': 'ips', 'ips_clip': clip, 'calibration': 'applicants'},
                          inputs={'data': Data(dataset, truth), 'warm_up': None, 'experts': None})
  experts.make_censoring(bench)
  found, of_train = experts.read_censoring(bench), np.flatnonzero(log.split == 0)
  seen = log.qualification[of_train] >= 0
  rows = of_train[seen]
  np.testing.assert_allclose(found[seen], inverse(scorer, log, rows, clip, log.exposure), rtol=1e-4)
  assert (found[~seen] == 0).all() and len(found) == len(of_train)
  flat = np.ones(len(log))
  for change in (inverse(scorer, log, rows, clip, flat), inverse(scorer, log, rows, 99, flat)):
    assert abs(found[seen] - change).max() > 0.1

  experts.make_calibration(bench)
  fitted, offsets = experts.read_calibration(bench)
  half = np.unique(log.candidate[log.split == 2])[::2]
  rows = np.flatnonzero((log.split == 2) & (log.qualification >= 0) & np.isin(log.candidate, half))
  weights = inverse(scorer, log, rows, clip, log.exposure)
  scores, labels = scorer.scores(log.candidate[rows], log.job[rows]).qualification, (
      log.qualification[rows])
  assert fitted == pytest.approx(fit_calibration(scores, labels, weights), rel=1e-3)
  np.testing.assert_allclose(offsets, fit_offsets(fitted.logit(scores), labels, weights,
                                                  log.job[rows], 20), atol=1e-3)

  monkeypatch.setitem(bench.settings, 'censoring', 'none')
  experts.make_calibration(bench)
  plain = fit_calibration(scores, labels, np.ones(len(rows)))
  assert experts.read_calibration(bench).calibration == pytest.approx(plain, rel=1e-6)
  assert abs(plain.b - fitted.b) > 1e-3

  monkeypatch.setitem(bench.settings, 'calibration', 'none')  # p_qual is that of the raw logit
  experts.make_calibration(bench)
  (b, t), offsets = experts.read_calibration(bench)
  assert (b, t) == (0, 1) and offsets.tolist() == [0] * 20


class Flat(FakeScorer):
  """Logits that are all alike."""

  def __init__(self, truth):
    self.logits = [np.full(truth.preference.shape, 0.5, np.float32)] * 2


@pytest.mark.parametrize('scorer, keep, said', [
    (FakeScorer, lambda log: (log.qualification == 1) | (log.split != 2),
     r'calibration: of \d+ applicants \d+ positives and 0 negatives are few; it leans on the prior '
     r'b=0, t=1'),
    (Flat, lambda log: log.split < 9, r'calibration: of \d+ applicants all scores are alike; it '),
    (FakeScorer, lambda log: log.split != 2,
     r'calibration: no labelled applicant of 0 candidates in half of the calibration split; p_qual '
     r'= sigmoid\(s_qual\), b=0, t=1')])
def test_no_calibration_is_refused_after_training(scorer, keep, said, monkeypatch, tmp_path,
                                                  caplog):
  dataset, truth = simulate(MarketConfig(candidates=300, jobs=20), 0)
  log = dataset.interactions
  dataset = dataclasses.replace(dataset, interactions=log.where(keep(log)))
  monkeypatch.setattr(experts, 'scorer', lambda *_: scorer(truth))
  bench = SimpleNamespace(folder=tmp_path, settings={
      'censoring': 'none', 'ips_clip': 2.5, 'calibration': 'applicants'},
                          inputs={'data': Data(dataset, truth), 'experts': None})
  experts.make_calibration(bench)
  (b, t), offsets = experts.read_calibration(bench)
  assert np.isfinite([b, t, *offsets]).all() and t > 0
  assert [r.levelname for r in caplog.records if re.match(said, r.getMessage())] == ['WARNING']
