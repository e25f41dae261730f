"""What stages 1A and 1B hand to training: lists, weights, keys and parameters, without a step."""

import dataclasses
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data import lists as listing, training_lists as training
from jobrec_jax.data.lengths import choose_lengths
from jobrec_jax.data.market.simulator import simulate
from jobrec_jax.data.missing import MissingLists, Versions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.pipeline import experts
from jobrec_jax.pipeline.censoring import Censoring
from jobrec_jax.pipeline.data import Data
from jobrec_jax.pipeline.linear_start import doubt_moves, make_linear, moved, read_linear
from jobrec_jax.pipeline.road import resources, road
from jobrec_jax.pipeline.tokenizer import make_tokenizer, read_tokenizer
from jobrec_jax.schema import streams
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.train.experts import Kind
from jobrec_jax.train.state import stream_key
from tests.pipeline.tiny import tiny_settings

SETTINGS = tiny_settings(market={'candidates': 60, 'jobs': 20, 'version': '1'},
                         policy={'list_length': 8},
                         warm_up={'patience': 5}, cooperative={'patience': 5})
DOUBT = 0.3
# Of each stage in the order of its batches: a quarter of 8 lists is around the other side.
WARM_UP = {Kind('preference', 'candidate'): 6, Kind('preference', 'job'): 2}
COOPERATIVE = WARM_UP | {Kind('qualification', 'job'): 6, Kind('qualification', 'candidate'): 2}


class Recorded:
  """What a stage asked for, with training left out."""

  def __init__(self, monkeypatch):
    self.lists, self.loops, self.losses = [], [], []
    monkeypatch.setattr(experts, 'list_dataset', self.list_dataset)
    monkeypatch.setattr(experts, 'train', self.train)
    monkeypatch.setattr(experts, 'iterate', lambda *data, start: (data, start))
    monkeypatch.setattr(experts, 'make_update', lambda loss_fn, tx: loss_fn)
    for name in ('warm_up_loss', 'cooperative_loss', 'held_out_loss'):
      monkeypatch.setattr(experts.losses, name, lambda *given, name=name: (name, *given[1:]))

  def list_dataset(self, source, finish, batch, seed, rows):
    assert rows is None  # one process makes all
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
def weighed(monkeypatch):
  """What is asked of validation after stage 1B, which here keeps some of either expert."""
  asked = []

  def kept_shares(*given):
    asked.append(given)
    return {'preference': 0.25, 'qualification': 0.75}
  monkeypatch.setattr(experts, 'kept_shares', kept_shares)
  return asked


@pytest.fixture
def stages(bench, recorded, weighed, data):
  """Both stages, one after the other; 1B with weights that can be told apart."""
  of_tokenizer = bench('tokenizer')
  make_tokenizer(of_tokenizer)
  tokenizer = read_tokenizer(of_tokenizer)
  of_linear = bench('linear', tokenizer=tokenizer)
  make_linear(of_linear)
  linear = read_linear(of_linear)
  first = bench('warm_up', tokenizer=tokenizer, linear=linear)
  experts.make_warm_up(first)
  warm = experts.read_experts(first)
  warm.params['preference'] = jax.tree.map(lambda x: x + 0.5, warm.params['preference'])
  weights = 1 + np.arange(len(data.dataset.interactions)) / 1000
  experts.make_cooperative(bench('cooperative', tokenizer=tokenizer, warm_up=warm, linear=linear,
                                 censoring=Censoring(weights, DOUBT)))
  return recorded, warm, weights


def same_log(a, b):
  for field in ('candidate', 'job', 'preference', 'qualification'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


@pytest.mark.slow
def test_each_stage_has_its_lists_its_weights_and_its_streams(stages, data):
  recorded, _, weights = stages
  log, train = data.dataset.interactions, data.dataset.interactions.of('train')
  s, seed = SETTINGS, SETTINGS.seed
  kinds = [('warm_up', *kind) for kind in WARM_UP.items()] + [
      ('cooperative', *kind) for kind in COOPERATIVE.items()]
  assert [batch for _, batch, _ in recorded.lists] == [batch for *_, batch in kinds]
  assert [drawn for *_, drawn in recorded.lists] == [
      streams.seed32(seed, f'{stage}, {kind.perspective} lists of one {kind.centre}')
      for stage, kind, _ in kinds]
  for (lists, *_), (_, kind, _) in zip(recorded.lists, kinds):
    assert isinstance(lists, training.LabelledLists)
    assert lists.negatives == getattr(s.lists, f'{kind.perspective}_negatives')
    same_log(lists._log, train)
    np.testing.assert_array_equal(lists._label, getattr(train, kind.perspective))
    np.testing.assert_array_equal(lists._centre, getattr(train, kind.centre))
    np.testing.assert_array_equal(lists._weights, weights[log.split == 0] if (
        kind.perspective == 'qualification') else 1)


@pytest.mark.slow
@pytest.mark.parametrize('across, sizes', [(0.0, (8,)), (0.1, (8,)), (0.5, (4, 4)), (0.9, (1, 7))])
def test_a_share_of_the_lists_is_around_the_other_side(bench, stages, across, sizes):
  _, warm, _ = stages
  of_stage = bench('cooperative', tokenizer=read_tokenizer(bench('tokenizer')), warm_up=warm)
  of_stage.settings = of_stage.settings | {
      'lists': of_stage.settings['lists'] | {'across': across}}
  trainer = experts._Trainer.of(of_stage)
  for name, centre in listing.CENTRES.items():
    centres = centre, 'job' if centre == 'candidate' else 'candidate'
    assert trainer.kinds(of_stage.settings['stage'], [name]) == {
        Kind(name, centre): size for centre, size in zip(centres, sizes)}
  of_stage.settings = of_stage.settings | {
      'lists': of_stage.settings['lists'] | {'preference_policy': 'uniform'}}
  (kind, size), = experts._Trainer.of(of_stage).kinds(
      of_stage.settings['stage'], ['preference']).items()
  assert (kind, size) == (Kind('preference', 'candidate'), 8)  # whom else would a job be shown to?
  assert isinstance(experts._Trainer.of(of_stage).lists(kind, 'train'), training.SampledLists)


@pytest.mark.slow
def test_lists_that_no_device_has_a_part_of_are_told(bench, stages, caplog):
  _, warm, _ = stages
  trainer = experts._Trainer.of(
      bench('cooperative', tokenizer=read_tokenizer(bench('tokenizer')), warm_up=warm))
  count = jax.device_count()
  trainer = dataclasses.replace(trainer, mesh=make_mesh(MeshConfig(count // 2, 2)))
  with caplog.at_level(logging.WARNING, 'absl'):
    trainer.data('cooperative', {Kind('preference', 'candidate'): 2 * count,
                                 Kind('preference', 'job'): count + 1})
  said, = (r.getMessage() for r in caplog.records)
  assert f'a batch has {count + 1} preference lists of one job, which do not divide' in said
  assert f'data {count // 2} x fsdp 2, so that each device computes all of them' in said


@pytest.mark.slow
def test_each_stage_has_its_key_its_length_and_its_loss(stages, bench, data):
  recorded, warm, _ = stages
  first, second = recorded.loops
  s, root = SETTINGS, jax.random.key(SETTINGS.seed)
  assert (first.loop.stage, first.loop.steps) == ('warm_up', s.warm_up.steps)
  assert (second.loop.stage, second.loop.steps) == ('cooperative', s.cooperative.steps)
  for found in (first, second):
    assert (found.loop.log_every, found.loop.save_seconds) == (s.log_every, s.save_seconds)
    assert found.key == stream_key(root, found.loop.stage)
    assert not found.loop.checkpoints.folder.exists()  # the artefact is the parameters
  assert first.data == ((0, 1), 7) and second.data == ((2, 3, 4, 5), 7)
  assert first.update == ('warm_up_loss', [*WARM_UP], s.experts.beta)
  name, kinds, weighting, beta, doubt = second.update
  assert name == 'cooperative_loss' and beta == s.experts.beta and doubt == DOUBT
  assert kinds == [*COOPERATIVE]
  assert set(weighting.init()) == {'log_variance'} and set(
      second.state.trainable['task_weights']) == {'log_variance'}
  assert set(first.state.frozen['model']) == {'qualification'} and not second.state.frozen
  log = data.dataset.interactions
  start = jax.tree.map(jnp.asarray, warm.params)
  fits = read_linear(bench('linear', tokenizer=read_tokenizer(bench('tokenizer'))))
  start = moved(start, doubt_moves(fits, warm.blocks(data.dataset), log.of('train'), DOUBT))
  assert not np.array_equal(start['number_weights'][0], warm.params['number_weights'][0])
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(second.state.trainable['model']),
               jax.device_get(start))


@pytest.mark.slow
def test_validation_weighs_what_training_added_to_the_linear_models(stages, weighed, bench, data):
  recorded, *_ = stages
  (start, end, log, taught, doubt), = weighed
  validation = data.dataset.interactions.of('validation')
  same_log(log, validation.where((validation.preference >= 0) | (validation.qualification >= 0)))
  assert taught == ('preference', 'qualification') and doubt == DOUBT
  trained = jax.device_get(recorded.loops[1].state.trainable['model'])
  of_tokenizer = read_tokenizer(bench('tokenizer'))
  kept = experts.read_experts(bench('cooperative', tokenizer=of_tokenizer))
  # Half a unit was added to all of preference's head, and to nothing of qualification.
  np.testing.assert_array_equal(start.qualification, end.qualification)
  assert np.abs(start.preference - end.preference).min() > 0.1
  for name, share in (('preference', 0.25), ('qualification', 0.75)):
    logit = kept.params[name]['logit']
    np.testing.assert_allclose(logit['kernel'], share * trained[name]['logit']['kernel'], rtol=1e-6)
    np.testing.assert_array_equal(kept.params[name]['hidden_0']['kernel'],
                                  trained[name]['hidden_0']['kernel'])
  np.testing.assert_allclose(kept.params['number_weights'], trained['number_weights'], rtol=1e-4,
                             atol=1e-6)
  said = PairScorer(kept, kept.blocks(data.dataset), make_mesh(SETTINGS.mesh),
                    SETTINGS.features).scores(log.candidate, log.job)
  np.testing.assert_allclose(said.preference, 0.75 * start.preference + 0.25 * end.preference,
                             atol=1e-3)


@pytest.mark.slow
def test_stages_stop_by_fixed_lists_of_the_validation_split(stages, data):
  """The same builders, streams of their own, no weights, as many batches as are cheap."""
  recorded, warm, _ = stages
  log, s, blocks = data.dataset.interactions.of('validation'), SETTINGS, warm.blocks(data.dataset)
  for found, kinds in zip(recorded.loops, (WARM_UP, COOPERATIVE)):
    held_out = found.loop.held_out
    assert held_out.patience == 5 and len(held_out.batches) == 4
    assert all([len(part['mask']) for part in b] == [*kinds.values()] for b in held_out.batches)
    for n, (kind, size) in enumerate(kinds.items()):
      source = training.LabelledLists(log, *kind, getattr(s.lists, f'{kind.perspective}_negatives'))
      drawn = training.fixed_lists(source, 4 * size, streams.seed32(
          s.seed, f'held-out {found.loop.stage}, {kind.perspective} lists of one {kind.centre}'))
      lists = {k: np.concatenate([b[n][k] for b in held_out.batches])
               for k in held_out.batches[0][n]}
      u, j = drawn['candidate'], drawn['job']
      expected = {'candidate': blocks.candidates[u[:, 0] if kind.centre == 'candidate' else u],
                  'job': blocks.jobs[j], 'numbers': blocks.numbers(u, j),
                  'alignment': blocks.alignments(u, j)}
      expected |= {k: drawn[k] for k in ('mask', 'weight', 'label')}
      assert set(lists) == set(expected)
      for name, x in expected.items():
        np.testing.assert_array_equal(lists[name], x)


@pytest.mark.slow
def test_the_held_out_loss_is_of_the_stages_kinds_and_doubt(stages):
  recorded, *_ = stages
  beta = SETTINGS.experts.beta
  assert [found.loop.held_out.measure for found in recorded.loops] == [
      ('held_out_loss', [*WARM_UP], beta), ('held_out_loss', [*COOPERATIVE], beta, DOUBT)]


@pytest.mark.slow
@pytest.mark.parametrize('keep, measured, said', [
    (lambda log: log.split != 1, set(), ['preference', 'qualification']),
    (lambda log: (log.split != 1) | (log.qualification != 0), set(WARM_UP), ['qualification'])])
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
    found = trainer.held_out('cooperative', list, COOPERATIVE)
  assert [(r.levelname, r.getMessage()) for r in caplog.records
          if 'validation' in r.getMessage()] == [('WARNING', (
              f'cooperative: the validation split holds no {name} list with a negative; '
              f"{'the validation loss leaves it out' if measured else 'all steps are trained'}; a "
              'greater share of data.shares, or a split by groups, would give it some'))
                                                      for name in said]
  assert (set(found.measure) if found else set()) == measured
  assert found is None or all(len(b) == len(measured) for b in found.batches)
  stage = dataclasses.replace(of_stage.settings['stage'], patience=0)
  of_stage.settings = of_stage.settings | {'stage': stage}
  assert trainer.held_out('cooperative', list, WARM_UP) is None


def test_attributes_are_missing_in_training_alone(data, bench, recorded):
  """The validation's lists are those of whole records; without a share, so are training's."""
  of_tokenizer = bench('tokenizer')
  of_tokenizer.settings = of_tokenizer.settings | {'missing': 0.5}
  make_tokenizer(of_tokenizer)
  text = read_tokenizer(of_tokenizer)
  whole = BlockEncoder(data.dataset, text.tokenizer, text.spec.tokenizer.form, text.components)
  found = {}
  for share in (0.0, 0.5):
    of_stage = bench('cooperative', tokenizer=text)
    of_stage.settings = of_stage.settings | {'missing': share}
    found[share] = trainer = experts._Trainer.of(of_stage)
    kind = Kind('preference', 'candidate')
    trainer.data('cooperative', {kind: 8})
    held_out = trainer.held_out('cooperative', list, {kind: 8})
    drawn = training.fixed_lists(trainer.lists(kind, 'validation'), 4 * 8, streams.seed32(
        SETTINGS.seed, 'held-out cooperative, preference lists of one candidate'))
    expected = whole.candidate_lists(drawn['candidate'][:, 0], drawn['job'])
    for name, blocks in expected.items():
      came = np.concatenate([b[0][name] for b in held_out.batches])
      np.testing.assert_array_equal(came, blocks[..., :came.shape[-1]])
  (plain, *rest), (thinned, *other) = recorded.lists
  assert isinstance(plain, training.LabelledLists) and found[0.0].versions is None
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
                                lists['alignment'], lists['numbers'])['params']
  embedding = jax.tree.leaves(expected['decoder']['embedding'])[0]
  np.testing.assert_allclose(recorded.loops[0].state.trainable['model']['decoder']['embedding'],
                             embedding, atol=1e-6)


@pytest.mark.slow
def test_numbers_have_the_scale_of_the_train_split(stages, bench, data):
  """1 / root mean square of each number, whatever the other splits hold; 0 where all are 0."""
  recorded, *_ = stages
  text = read_tokenizer(bench('tokenizer'))
  log = data.dataset.interactions.of('train')
  blocks = BlockEncoder(data.dataset, text.tokenizer, text.spec.tokenizer.form, text.components)
  x = blocks.numbers(log.candidate, log.job).astype(float)
  size = np.sqrt((x ** 2).mean(0))
  assert (size > 0).sum() > 10 and text.spec.numbers == x.shape[1]
  expected = np.divide(1, size, out=np.zeros_like(size), where=size > 0)
  params = recorded.loops[0].state.trainable['model']
  np.testing.assert_allclose(params['number_scale'], expected, rtol=1e-5)
  assert params['match'].shape == (2, 16, 16) and text.spec.matched == 16


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
  first = bench('warm_up', tokenizer=read_tokenizer(of_tokenizer), linear=None)
  stage = dataclasses.replace(first.settings['stage'], steps=0)
  first.settings = first.settings | {'stage': stage}
  experts.make_warm_up(first)
  assert not recorded.loops and [p.name for p in first.folder.iterdir()] == ['params.safetensors']
  jax.tree.map(np.testing.assert_array_equal, experts.read_experts(first).params,
               jax.device_get(experts._Trainer.of(first).initial()))
