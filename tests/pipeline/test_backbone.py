"""The road on a pretrained backbone: a small random Llama in a Hugging Face directory."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import corpus, save_tokenizer, train_tokenizer
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.pipeline import calibration
from jobrec_jax.pipeline.artefacts import load_params
from jobrec_jax.pipeline.export_weights import export_weights
from jobrec_jax.pipeline.load import load_experts
from jobrec_jax.pipeline.model import BackboneSettings, ModelSpec, make_model
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import build
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.sharding import MeshConfig, make_mesh
from jobrec_jax.weights.backbone import open_backbone
from jobrec_jax.weights.huggingface import save_decoder
from jobrec_jax.weights.peft import load_adapter

SIZES = DecoderConfig(vocab_size=600, width=32, layers=2, heads=2, kv_heads=1, head_width=16,
                      mlp_width=64)


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pretrained')
  dataset, _ = simulate(MarketConfig(candidates=60, jobs=20), 0)
  save_tokenizer(train_tokenizer(corpus(dataset, pairs=200), 600), folder / 'tokenizer.json')
  made = nn.unbox(jax.jit(Decoder(SIZES).init)(jax.random.key(1), jnp.ones((1, 3), jnp.int32)))
  save_decoder(folder / 'model', jax.device_get(made['params']), SIZES, 'llama',
               [folder / 'tokenizer.json'])
  return folder / 'model'


def settings_for(place, **sections) -> Settings:
  stage = {'steps': 4, 'warmup': 1, 'batch': 8}
  return build(Settings, {
      'market': {'candidates': 60, 'jobs': 20},
      'backbone': {'path': str(place), 'dtype': 'float32'} | sections.pop('backbone', {}),
      'model': {'head_widths': (16,)} | sections.pop('model', {}),
      'lora': {'rank': 2} | sections.pop('lora', {}),
      'lists': {'preference_negatives': 3, 'qualification_negatives': 3},
      'warm_up': stage, 'cooperative': stage | {'qualification_batch': 8},
      'experts': {'censoring': 'none'}, 'policy': {'list_length': 8}, **sections})


CHANGES = {
    'exact, shared': {},
    'factored, per expert, quantised': {
        'model': {'attention': 'factored'}, 'lora': {'per_expert': True},
        'tokenizer': {'verdicts': 'vectors', 'phrases': 60}, 'backbone': {'dtype': 'nf4'}},
}


@pytest.fixture(scope='module', params=CHANGES)
def trained(request, pretrained, tmp_path_factory):
  run = Run(tmp_path_factory.mktemp('run'), settings_for(pretrained, **CHANGES[request.param]))
  with pytest.MonkeyPatch.context() as patch:  # four steps teach too little to calibrate
    patch.setattr(calibration, 'fit_calibration', lambda *_: Calibration(0.5, 2.0))
    run.get(run.road.calibration)
  return run, run.get(run.road.cooperative)


def score(run, experts, **changes) -> PairScorer:
  dataset = run.get(run.road.data).dataset
  return PairScorer(experts, experts.blocks(dataset), make_mesh(MeshConfig()),
                    ScoringConfig(**changes))


@pytest.mark.slow
def test_only_adapters_embeddings_and_heads_learn(trained, pretrained):
  run, experts = trained
  s = run.settings
  decoder = open_backbone(str(pretrained), s.backbone.dtype, lora=s.lora).load(None)
  # Frozen weights never change a bit, and no artefact holds them.
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(experts.params['decoder']),
               jax.device_get(decoder))
  stored = load_params(run.store.path(run.road.cooperative) / 'params.safetensors')['model']
  learned = {'verdicts', 'phrases'} if s.tokenizer.phrases else set()
  assert set(stored) == {'lora', 'readouts', 'preference', 'qualification',
                         'number_weights', 'number_scale', 'match'} | learned
  for name, part in stored['lora'].items():
    assert np.abs(part).max() > 0, name  # b starts at zero
  found = score(run, experts).scores(np.arange(10), np.arange(10))
  assert np.isfinite(found.preference).all() and np.ptp(found.preference) > 0


@pytest.mark.slow
def test_exported_weights_score_alike(trained, tmp_path):
  run, experts = trained
  export_weights(run.folder, tmp_path / 'adapter', merged=False)
  export_weights(run.folder, tmp_path / 'merged', merged=True)
  given, calibration = load_experts(run.folder)

  c = experts.model.config
  lora, lora_config, extras = load_adapter(tmp_path / 'adapter', c.decoder, c.experts)
  assert lora_config == c.decoder.lora and extras.pop('calibration') == calibration
  read = given.params | extras | {'lora': lora}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(experts.params), jax.device_get(read))

  pairs = np.arange(6), np.arange(6)
  expected, spec = score(run, experts).scores(*pairs), run.settings
  for name in c.experts:
    folder = tmp_path / 'merged' / (name if c.decoder.lora.per_expert else '')
    backbone = open_backbone(str(folder), 'float32', lora=None)
    assert backbone.tokenizer().get_vocab() == given.tokenizer.get_vocab()
    lengths = {block: getattr(given.form, block) for block in ('candidate', 'job', 'alignment')}
    plain = ModelSpec(dataclasses.replace(spec.tokenizer, phrases=0, **lengths), spec.model,
                      LoraConfig(), 'float32', True, c.numbers, c.matched)
    merged = dataclasses.replace(
        experts, model=make_model(plain, given.tokenizer, backbone),
        params=extras | {'decoder': backbone.load(None)})
    np.testing.assert_allclose(getattr(score(run, merged).scores(*pairs), name),
                               getattr(expected, name), atol=1e-4)


@pytest.mark.slow
def test_states_on_disk_serve_every_scorer_of_a_run(trained, tmp_path):
  run, experts = trained
  if experts.model.config.attention == 'exact':
    with pytest.raises(ValueError, match=r'features\.states'):
      score(run, experts, states=str(tmp_path))
    return
  pairs = np.arange(6), np.arange(6)
  ours = score(run, experts, states=str(tmp_path)).scores(*pairs)
  np.testing.assert_allclose(ours.preference, score(run, experts).scores(*pairs).preference,
                             atol=0.02)  # bfloat16 states
  written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.npy')}
  assert len(written) == 12
  score(run, experts, states=str(tmp_path)).scores(*pairs)
  assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.npy')}


@pytest.mark.slow
def test_another_backbone_is_another_run_and_is_refused_on_loading(trained, pretrained, tmp_path):
  run, _ = trained
  other = tmp_path / 'model'
  other.mkdir()
  for path in pretrained.iterdir():
    (other / path.name).write_bytes(path.read_bytes())
  assert Run(tmp_path, dataclasses.replace(run.settings, backbone=dataclasses.replace(
      run.settings.backbone, path=str(other)))).road.warm_up.key == run.road.warm_up.key
  load_experts(run.folder, str(other))
  config = json.loads((other / 'config.json').read_text())
  (other / 'config.json').write_text(json.dumps(config | {'rope_theta': 5000.0}))
  with pytest.raises(ValueError, match='must be the decoder that the experts were trained on'):
    load_experts(run.folder, str(other))


@pytest.mark.slow
def test_training_starts_from_an_adapter(trained, pretrained, tmp_path):
  run, experts = trained
  export_weights(run.folder, tmp_path / 'adapter', merged=False)
  s = run.settings
  backbone = dataclasses.replace(s.backbone, adapter=str(tmp_path / 'adapter'))
  still = dataclasses.replace(s.warm_up, steps=0)
  again = Run(tmp_path / 'again', dataclasses.replace(s, backbone=backbone, warm_up=still))
  assert again.road.warm_up.key != Run(
      tmp_path / 'other', dataclasses.replace(s, warm_up=still)).road.warm_up.key
  assert again.road.tokenizer.key == run.road.tokenizer.key
  started = again.get(again.road.warm_up).params
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(started['lora']),
               jax.device_get(experts.params['lora']))
  (tmp_path / 'adapter' / 'calibration.json').write_text('{}')  # content counts, wherever it lies
  changed = Run(tmp_path / 'again', again.settings)
  assert changed.road.warm_up.key != again.road.warm_up.key


def test_the_backbone_says_its_own_sizes(pretrained):
  backbone = open_backbone(str(pretrained), 'float32', lora=LoraConfig(rank=2))
  for name in ('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_width', 'mlp_width'):
    assert getattr(backbone.config, name) == getattr(SIZES, name)
  assert backbone.config.lora.rank == 2 and backbone.tokenizer().get_vocab_size() <= 600


def test_adapters_to_start_from_need_their_decoder():
  with pytest.raises(ValueError, match=r"adapter must be '' without the path .*, got 'there'"):
    BackboneSettings(adapter='there')


def test_bad_backbones_are_named(tmp_path):
  for name in ('model.bin', 'x.gguf'):
    path = tmp_path / name
    path.write_bytes(b'\x80\x04 no weights')
    with pytest.raises(ValueError, match=name):
      open_backbone(str(path), 'float32')
  folder = tmp_path / 'pickled'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
  (folder / 'pytorch_model.bin').write_bytes(b'\x80\x04')
  with pytest.raises(ValueError, match='safetensors'):
    open_backbone(str(folder), 'float32').load(None)
