"""Variants of text and model for ablations: each is trained, kept, loaded, and scores as it did."""

import jax
import numpy as np
import pytest

import jobrec_jax
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.pipeline import calibration
from jobrec_jax.pipeline.artefacts import load_params
from jobrec_jax.pipeline.export_weights import export_weights
from jobrec_jax.pipeline.model import ModelSpec, TokenizerSettings, make_model
from jobrec_jax.pipeline.pack import pack
from jobrec_jax.pipeline.run import Run
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.sharding import MeshConfig, make_mesh
from tests.pipeline.tiny import tiny_settings

STAGE = {'steps': 4, 'warmup': 1}
VARIANTS = {
    'raw': {'tokenizer': {'layout': 'raw'}},
    'raw, factored, last token': {
        'tokenizer': {'layout': 'raw'},
        'model': {'attention': 'factored', 'readout': 'last_token'}},
    'layers left out, adapters apart': {
        'tokenizer': {'without_layers': ('interest', 'narrative')},
        'lora': {'per_expert': True, 'rank': 2}},
    'last token, vectors': {
        'tokenizer': {'verdicts': 'vectors'}, 'model': {'readout': 'last_token'}},
}


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  return tmp_path_factory.mktemp('variants') / 'store'  # the data are drawn once


@pytest.fixture(params=VARIANTS)
def run(request, store, tmp_path, monkeypatch):
  settings = tiny_settings(warm_up=STAGE, cooperative=STAGE, experts={'censoring': 'none'},
                           policy={'epochs': 2}, **VARIANTS[request.param])
  # Four steps teach too little to calibrate.
  monkeypatch.setattr(calibration, 'fit_calibration', lambda *_: Calibration(0.5, 2.0))
  return Run(tmp_path / 'run', settings, store)


@pytest.mark.slow
def test_a_variant_is_loaded_and_scores_as_its_run(run, tmp_path):
  run.get(run.road.policy)
  dataset = run.get(run.road.data).dataset
  experts = run.get(run.road.cooperative)
  scorer = PairScorer(experts, experts.blocks(dataset), make_mesh(MeshConfig()))
  u, j = np.mgrid[:6, :len(dataset.jobs)]
  expected = scorer.scores(u, j)
  assert np.ptp(expected.preference) > 0 and np.ptp(expected.qualification) > 0
  pack(run.folder, tmp_path / 'packed')
  for place in (run.folder, tmp_path / 'packed'):
    loaded = jobrec_jax.load(place)
    assert loaded.experts.form == experts.form == run.settings.tokenizer.form
    found = loaded.score(dataset.candidates[:6])
    np.testing.assert_allclose(found.s_pref, expected.preference, atol=2e-5)
    np.testing.assert_allclose(found.z_qual, (expected.qualification - 0.5) / 2, atol=2e-5)
  # Reasons are those of the whole schema, whatever the experts read.
  (ranked,) = loaded.recommend(dataset.candidates[0], float(loaded.policy.knots[0]), 1)
  assert set(ranked.jobs[0].reasons) == {'eligibility', 'competence', 'logistics', 'interest'}


def adapted_run(tmp_path, monkeypatch):
  monkeypatch.setattr(calibration, 'fit_calibration', lambda *_: Calibration(0.5, 2.0))
  run = Run(tmp_path / 'run', tiny_settings(
      warm_up=STAGE, cooperative=STAGE, experts={'censoring': 'none'},
      lora={'per_expert': True, 'rank': 2}))
  run.get(run.road.calibration)
  return run


@pytest.mark.slow
def test_a_decoder_from_scratch_learns_beside_the_adapters_of_each_expert(tmp_path, monkeypatch):
  run = adapted_run(tmp_path, monkeypatch)
  first, last = (load_params(run.store.path(stage) / 'params.safetensors')['model']
                 for stage in (run.road.warm_up, run.road.cooperative))
  assert set(last) == {'decoder', 'lora', 'readouts', 'preference', 'qualification',
                       'number_weights', 'number_scale', 'match'}
  assert (first['number_scale'] == last['number_scale']).all()
  for name in ('q_b', 'o_b'):  # from zero: stage 1A moves the preference expert's, 1B both
    assert first['lora'][name][0].any() and not first['lora'][name][1].any()
    assert last['lora'][name][1].any()
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), first['decoder'], last['decoder'])
  assert all(jax.tree.leaves(moved))

  with pytest.raises(ValueError, match=r'trained its decoder itself, .* use --merged'):
    export_weights(run.folder, tmp_path / 'adapter', merged=False)
  export_weights(run.folder, tmp_path / 'merged', merged=True)
  assert {p.name for p in (tmp_path / 'merged').iterdir()} >= {'preference', 'qualification'}


def test_adapters_that_all_share_are_for_pretrained_decoders_alone(tokenizer):
  def lora(**changes):
    return make_model(ModelSpec(lora=LoraConfig(**changes)), tokenizer, None).config.decoder.lora
  assert lora() is None and lora(rank=3) is None
  assert lora(rank=3, per_expert=True) == LoraConfig(rank=3, per_expert=True)


def test_raw_text_spends_no_token_on_alignments():
  form = TokenizerSettings(layout='raw', alignment=30).form
  assert (form.alignment, form.layout, form.verdicts) == (0, 'raw', 'words')
  assert form.codes == 0
