"""Scripts on a pretrained backbone: a small random Llama in a Hugging Face directory."""

import dataclasses
import json

from experiments.backbone import open_backbone
from experiments.setup import Run, load_data, validate
from experiments.trained import load_trained
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from experiments import stages
from experiments.export_weights import export_adapter, export_merged
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import corpus, save_tokenizer, train_tokenizer
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.recommend import TrainedExperts
from jobrec_jax.schema.files import write_text
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.train.checkpoint import load_params
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


def config_for(place, **changes):
  c = base.get_config()
  c.market.candidates, c.market.jobs = 60, 20
  c.backbone.path, c.backbone.dtype = str(place), 'float32'
  c.model.head_widths = (16,)
  c.lora.rank = 2
  c.lists.preference_negatives = c.lists.qualification_negatives = 3
  c.warm_up.steps, c.cooperative.steps = 4, 4
  c.warm_up.warmup = c.cooperative.warmup = 1
  c.warm_up.batch = c.cooperative.batch = c.cooperative.qualification_batch = 8
  c.experts.censoring = 'none'
  for key, value in changes.items():
    section, name = key.split('__')
    c[section][name] = value
  return c


def train(config, folder):
  settings, run = validate(config), Run(folder)
  run.folder.mkdir(parents=True, exist_ok=True)
  dataset, _ = load_data(config, settings.market)
  return run, dataset, stages.train_experts(config, settings, run, dataset)


CHANGES = {
    'exact, shared': {},
    'factored, per expert, quantised': {
        'model__attention': 'factored', 'tokenizer__verdicts': 'vectors', 'lora__per_expert': True,
        'tokenizer__phrases': 60, 'backbone__dtype': 'nf4'},
}


@pytest.fixture(scope='module', params=CHANGES)
def trained(request, pretrained, tmp_path_factory):
  config = config_for(pretrained, **CHANGES[request.param])
  return config, *train(config, tmp_path_factory.mktemp('run'))


@pytest.mark.slow
def test_only_adapters_embeddings_and_heads_learn(trained):
  config, run, dataset, experts = trained
  decoder = open_backbone(config).load(None)
  # Frozen weights never change a bit, and no checkpoint holds them.
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(experts.params['decoder']),
               jax.device_get(decoder))
  stored = load_params(run / 'checkpoints/cooperative', dataset.schema.fingerprint())['model']
  learned = {'verdicts', 'phrases'} if config.tokenizer.phrases else set()
  assert set(stored) == {'lora', 'readouts', 'preference', 'qualification'} | learned
  for name, part in stored['lora'].items():
    assert np.abs(part).max() > 0, name  # b starts at zero
  again = stages.load_experts(config, validate(config), run, dataset)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(again.params),
               jax.device_get(experts.params))
  scores = experts.extractor(config)(np.arange(10), np.arange(10))
  assert np.isfinite(scores.preference).all() and np.ptp(scores.preference) > 0


@pytest.mark.slow
def test_exported_weights_score_alike(trained, tmp_path):
  config, run, _, experts = trained
  run.start(config, 'test')
  write_text(run / 'calibration.json', json.dumps({'b': 0.5, 't': 2.0}))
  given = load_trained(run).experts
  export_adapter(given, 'the/base', tmp_path / 'adapter', run / 'tokenizer.json')
  export_merged(given, tmp_path / 'merged', run / 'tokenizer.json')

  c = experts.model.config
  lora, lora_config, extras = load_adapter(tmp_path / 'adapter', c.decoder, c.experts)
  assert lora_config == c.decoder.lora and extras.pop('calibration') == Calibration(0.5, 2.0)
  read = experts.params | extras | {'lora': lora}
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(experts.params), jax.device_get(read))

  pairs = np.arange(6), np.arange(6)
  expected = experts.extractor(config)(*pairs)
  for name in c.experts:
    folder = tmp_path / 'merged' / (name if c.decoder.lora.per_expert else '')
    plain = config_for(folder, **{'model__attention': c.attention,
                                  'tokenizer__verdicts': config.tokenizer.verdicts})
    backbone = open_backbone(plain)
    backbone = backbone._replace(config=dataclasses.replace(backbone.config, lora=None))
    assert backbone.tokenizer().get_vocab() == given.tokenizer.get_vocab()
    merged = experts._replace(
        model=stages.make_model(plain, given.tokenizer.get_vocab_size(), backbone),
        params=extras | {'decoder': backbone.load(None)})
    np.testing.assert_allclose(getattr(merged.extractor(plain)(*pairs), name),
                               getattr(expected, name), atol=1e-4)


@pytest.mark.slow
def test_states_on_disk_serve_every_extractor_of_a_run(trained, tmp_path):
  config, _, _, experts = trained
  kept = config.copy_and_resolve_references()
  kept.features.states = str(tmp_path)
  if config.model.attention == 'exact':
    with pytest.raises(ValueError, match=r"allowed with model\.attention='factored'"):
      experts.extractor(kept)
    return
  pairs = np.arange(6), np.arange(6)
  ours, expected = (experts.extractor(c)(*pairs) for c in (kept, config))
  np.testing.assert_allclose(ours.preference, expected.preference, atol=0.02)  # bfloat16 states
  written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.npy')}
  assert len(written) == 12
  experts.extractor(kept)(*pairs)
  assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.npy')}


def test_a_run_without_adapters_exports_none(model, blocks, tokenizer, tmp_path):
  experts = TrainedExperts(model, {}, tokenizer, blocks, Calibration(0.0, 1.0))
  with pytest.raises(ValueError, match='has no adapter: use --merged'):
    export_adapter(experts, '', tmp_path / 'adapter', tmp_path / 'tokenizer.json')


def test_the_backbone_says_its_own_sizes(pretrained):
  backbone = open_backbone(config_for(pretrained))
  for name in ('vocab_size', 'width', 'layers', 'heads', 'kv_heads', 'head_width', 'mlp_width'):
    assert getattr(backbone.config, name) == getattr(SIZES, name)
  assert backbone.config.lora.rank == 2 and backbone.tokenizer().get_vocab_size() <= 600
  assert open_backbone(config_for('')) is None


def test_phrases_belong_to_a_pretrained_tokenizer(pretrained):
  with pytest.raises(ValueError, match=r'tokenizer\.phrases: allowed 0 without backbone\.path'):
    validate(config_for('', tokenizer__phrases=5))
  with pytest.raises(ValueError, match=r'tokenizer\.phrases must be at least 0, got -1'):
    validate(config_for(pretrained, tokenizer__phrases=-1))


def test_bad_backbones_are_named(pretrained, tmp_path):
  with pytest.raises(ValueError, match=r"backbone\.dtype must be .* got 'int4'"):
    open_backbone(config_for(pretrained, backbone__dtype='int4'))
  for name in ('model.bin', 'x.gguf'):
    path = tmp_path / name
    path.write_bytes(b'\x80\x04 no weights')
    with pytest.raises(ValueError, match=name):
      open_backbone(config_for(path))
  folder = tmp_path / 'pickled'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps({'model_type': 'llama'}))
  (folder / 'pytorch_model.bin').write_bytes(b'\x80\x04')
  with pytest.raises(ValueError, match='safetensors'):
    open_backbone(config_for(folder))
