"""The step that is compiled ahead is the one that trains; what cannot be is told in one line."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys

import jax
import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.pipeline import compile_ahead as ahead
from jobrec_jax.pipeline.model import BackboneSettings, ModelSettings, ModelSpec, TokenizerSettings
from jobrec_jax.pipeline.settings import (
    CooperativeSettings,
    ExpertSettings,
    ListSettings,
    Settings,
)
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.sharding import MeshConfig, layout, make_mesh, shard_batch
from jobrec_jax.train import ahead as trained
from jobrec_jax.train.ahead import Chip, compile_step, held
from jobrec_jax.train.experts import Kind

ROOT = Path(__file__).parents[2]
LLAMA = {'model_type': 'llama', 'hidden_size': 64, 'intermediate_size': 128,
         'num_attention_heads': 4, 'num_hidden_layers': 3, 'num_key_value_heads': 2,
         'vocab_size': 512, 'tie_word_embeddings': False}
SETTINGS = Settings(
    mesh=MeshConfig(1, 4, 2), tokenizer=TokenizerSettings(candidate=24, job=16, alignment=8),
    backbone=BackboneSettings('some/llama'), lora=LoraConfig(rank=4), features=ScoringConfig(5, 8),
    model=ModelSettings(remat='full', unroll=1, dtype='bfloat16', head_widths=(16,)),
    lists=ListSettings(preference_negatives=3, qualification_negatives=2),
    cooperative=CooperativeSettings(batch=8, qualification_batch=8))


@pytest.fixture(scope='module')
def llama(tmp_path_factory):
  file = tmp_path_factory.mktemp('llama') / 'config.json'
  file.write_text(json.dumps(LLAMA))
  return file


@pytest.fixture(scope='module')
def row(llama):
  """What is told of eight devices of this machine, as if they were chips."""
  mesh = make_mesh(SETTINGS.mesh)
  step = ahead.make_step(SETTINGS, llama, mesh)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(trained, 'CHIPS', {'cpu': Chip(2**30, 1e12, 1e9)})
    return step, compile_step(step.update, step.state, step.batch, mesh)


@pytest.mark.slow
def test_what_a_chip_holds_is_what_the_compiler_says(row):
  step, told = row
  parts = {name: size for name, (size, _) in told['parts'].items()}
  assert told['fits'] and not told['refused'] and told['memory']['temporaries'] > 0
  assert 0 <= sum(parts.values()) - told['memory']['arguments'] < 64  # the key, where none drops
  kernels = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128) + 2 * 512 * 64  # divided by 8
  vectors = (2 * 3 + 1) * 64  # divided by 4
  assert parts['frozen'] == 2 * (kernels // 8 + vectors // 4)
  assert {x.dtype.name for x in jax.tree.leaves(step.state.frozen)} == {'bfloat16'}
  assert parts['moments'] == pytest.approx(2 * parts['trainable'], abs=64)
  assert parts['best'] == pytest.approx(parts['trainable'], abs=64)
  assert told['memory']['total'] < told['memory']['there'] == 2**30


@pytest.mark.slow
def test_layers_are_gathered_one_at_a_time(row):
  _, told = row
  gathers = {c['in_loop']: c for c in told['collectives'] if c['kind'] == 'all-gather'}
  assert gathers[True]['bytes'] > gathers[False]['bytes'] and not told['gathers_all_layers']
  exchanged = sum(c['bytes'] for c in told['collectives'])
  assert exchanged and told['seconds_exchanging'] == pytest.approx(exchanged / 1e9)
  assert told['chips'] == 8 and told['mesh'] == {'data': 1, 'fsdp': 4, 'tensor': 2}


@pytest.mark.slow
def test_operations_are_those_of_all_tokens_and_weights(row):
  """A weight takes 2 for a token forward, as many backward, and most again where remat asks."""
  _, told = row
  weights = 3 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
  around_candidate = 24 + 4 * (16 + 8 + 2)  # short lists are padded where several kinds are one
  around_job = 4 * (24 + 16 + 8 + 2)  # each pair is read alone
  total = sum(told['flops'].values())
  assert 5 < total / (weights * 8 * (around_candidate + around_job)) < 8  # 0 to 2: all the rest
  assert told['seconds_at_peak'] == pytest.approx(total / 8e12)


def test_what_the_compiler_lacks_is_one_sentence():
  said = ('RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total '
          'memory required for HLO temporaries (18.64G) exceeds available HBM (15.75G). HLO '
          'module: f.\nSee https://openxla.org/xla/errors/error_1000 for more details.')
  assert trained._reason(said) == ('Ran out of memory on HBM, the total memory required for HLO '
                                   'temporaries (18.64G) exceeds available HBM (15.75G)')
  assert trained._reason('RESOURCE_EXHAUSTED: no room.\nat all') == 'RESOURCE_EXHAUSTED: no room'


def test_the_words_name_parts_and_verdict(row):
  about = {'topology': 'v5e:2x4', 'lists': [6, 2, 6, 2], 'remat': 'full'}
  words = ahead.in_words(about | row[1])
  assert 'v5e:2x4: 8 x cpu, mesh data 1 x fsdp 4 x tensor 2, 6 + 2 + 6 + 2 lists' in words
  assert f"at least {row[1]['seconds_exchanging']:.3f} s over all links" in words
  assert 'It fits' in words and 'all-gather, in loops' in words
  refused = {'fits': False, 'refused': '(20G) exceeds (15G)', 'memory': {
      'arguments': 1, 'replicated': 0, 'there': 2}}
  assert 'It does not fit: (20G) exceeds (15G)' in ahead.in_words(about | row[1] | refused)


@pytest.mark.parametrize('attention', ['exact', 'factored'])
@pytest.mark.parametrize('verdicts', ['words', 'none'])
def test_lists_are_those_of_the_loader(dataset, tokenizer, attention, verdicts):
  """Their names, types and ranks; lengths are bounds there, and taken as given here."""
  t = TokenizerSettings(candidate=40, job=24, alignment=16, verdicts=verdicts, components=0)
  settings = dataclasses.replace(SETTINGS, tokenizer=t, model=ModelSettings(attention=attention))
  blocks = BlockEncoder(dataset, tokenizer, BlockFormat(40, 24, t.form.alignment,
                                                        verdicts=verdicts, numbers=True))
  spec = ModelSpec(t, numbers=ahead.count_numbers(t, dataset.schema))
  for kind in (Kind('preference', 'candidate'), Kind('preference', 'job'),
               Kind('qualification', 'job')):
    negatives = getattr(settings.lists, f'{kind.perspective}_negatives')
    lists = LabelledLists(dataset.interactions.of('train'), *kind, negatives)
    (real,) = next(iterate(list_dataset(lists, finisher(blocks, kind.centre,
                                                        attention == 'factored'), 4, 0)))
    ours = ahead.lists_of(settings, spec, kind, 4)
    assert {k: (v.dtype, v.ndim, v.shape[:2]) for k, v in ours.items() if v.ndim > 2} == {
        k: (v.dtype, v.ndim, v.shape[:2]) for k, v in real.items() if v.ndim > 2}
    assert {k: (v.dtype, v.ndim, v.shape[0]) for k, v in ours.items()} == {
        k: (v.dtype, v.ndim, v.shape[0]) for k, v in real.items()}
    assert ours['numbers'].shape == real['numbers'].shape


@pytest.mark.slow
def test_the_step_runs_on_arrays_of_these_shapes(llama):
  """Of arrays filled with something both losses come out, and parameters keep their places."""
  mesh = make_mesh(SETTINGS.mesh)
  step = ahead.make_step(SETTINGS, llama, mesh)

  def fill(x):
    if x.dtype == bool:
      return np.ones(x.shape, bool)
    return (np.ones(x.shape) * 0.02).astype(x.dtype)
  state = jax.tree.map(lambda x: jax.device_put(fill(x), x.sharding), step.state)
  batch = shard_batch(jax.tree.map(fill, step.batch), mesh)
  with layout(mesh):
    after, told = jax.jit(step.update)(state, batch, jax.random.key(0))
  assert np.isfinite(told['train/preference_loss']) and np.isfinite(told['train/grad_norm'])
  assert held(step.state.trainable)[0] < held(step.state.frozen)[0]
  jax.tree.map(lambda x, before: x.sharding.is_equivalent_to(before.sharding, x.ndim) or
               pytest.fail(str(x.sharding)), after.trainable, step.state.trainable)


def test_a_step_that_finds_no_room_is_told(row, monkeypatch):
  def refuse(*args):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory on HBM')
  step, _ = row
  monkeypatch.setattr(trained, 'CHIPS', {'cpu': Chip(2**30, 1e12, 1e9)})
  monkeypatch.setattr(jax.stages.Lowered, 'compile', refuse)
  told = compile_step(step.update, step.state, step.batch, make_mesh(SETTINGS.mesh))
  assert not told['fits'] and told['refused'] == 'Ran out of memory on HBM'
  assert told['memory'].keys() == {'arguments', 'replicated', 'there'} and told['flops']


@pytest.mark.slow
def test_a_program_that_cannot_be_read_back_is_told_without_its_collectives(row, monkeypatch):
  def newer(self):
    raise jax.errors.JaxRuntimeError('INTERNAL: operands, got 3\n*** stack')
  step, known = row
  monkeypatch.setattr(trained, 'CHIPS', {'cpu': Chip(2**30, 1e12, 1e9)})
  monkeypatch.setattr(jax.stages.Compiled, 'as_text', newer)
  told = compile_step(step.update, step.state, step.batch, make_mesh(SETTINGS.mesh))
  assert told['unread'] == 'INTERNAL: operands, got 3' and told['memory'] == known['memory']
  assert 'collectives' not in told and 'gathers_all_layers' not in told
  words = ahead.in_words({'topology': 'x', 'lists': [1], 'remat': 'full'} | told)
  assert words.splitlines()[-2].endswith('are not known: INTERNAL: operands, got 3')


def test_what_cannot_be_compiled_is_told(llama, monkeypatch):
  def compile_for(topology='v5e:2x4', file=llama, **changes):
    return ahead.compile_ahead(dataclasses.replace(SETTINGS, **changes), topology, file)
  with pytest.raises(ValueError, match=r'--topology must be one of v5e:1x1, .*got .v5e:3x5'):
    compile_for('v5e:3x5')
  monkeypatch.setattr(ahead, 'topology_devices', lambda name: jax.devices())
  with pytest.raises(ValueError, match='must multiply to the 8 devices there are, got 1, 2 and 2'):
    compile_for(mesh=MeshConfig(1, 2, 2))
  with pytest.raises(ValueError, match=r'tokenizer\.job must be a length, for no text is read'):
    compile_for(tokenizer=TokenizerSettings(candidate=24, alignment=8))
  with pytest.raises(ValueError, match=r'experts\.chain must be 0, for nothing is written here'):
    compile_for(experts=ExpertSettings(chain=4))
  with pytest.raises(ValueError, match=r"--decoder must name a config.json .* got '' with 'some/"):
    compile_for(file=None)
  with pytest.raises(ValueError, match=r"backbone\.dtype must be 'bfloat16' or 'float32'"):
    compile_for(backbone=BackboneSettings('some/llama', 'int8'))
  with pytest.raises(ValueError, match=r"devices must be of a kind among .*got 'cpu'"):
    compile_for()


def run(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run([sys.executable, '-m', 'experiments.compile_ahead', *arguments], cwd=ROOT,
                        capture_output=True, text=True, check=False)


def test_without_the_compiler_the_script_says_how_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(ValueError, match='pip install libtpu'):
    ahead.topology_devices('v5e:2x2')
  done = run('--topology=v9', '--config=configs/pods.py:v5e-16')
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
  assert "--topology must be one of v5e:1x1" in done.stderr
  done = run('--topology=v5e:4x4', '--config=configs/pods.py:v9-1')
  assert done.returncode == 2 and 'followed by one of gpu, gpu-8, v5e-16' in done.stderr


if importlib.util.find_spec('libtpu'):  # 140 MB that no other test needs: see BUILD.md

  @pytest.mark.slow
  def test_the_compiler_for_tpus_takes_the_step(tmp_path):
    file = tmp_path / 'config.json'  # heads as wide as splash attention reads them
    file.write_text(json.dumps(LLAMA | {'head_dim': 64}))
    flags = [f'--config.{k}={v}' for k, v in {
        'mesh.data': 1, 'mesh.fsdp': 4, 'tokenizer.candidate': 24, 'tokenizer.job': 16,
        'tokenizer.alignment': 8, 'model.unroll': 1, 'model.remat': 'full',
        'backbone.path': 'some/llama', 'model.dtype': 'bfloat16', 'lists.across': 0.0,
        'lists.preference_negatives': 3, 'lists.qualification_negatives': 3}.items()]
    done = run(*flags, '--topology=v5e:2x2', f'--decoder={file}', f'--out={tmp_path}/row.json')
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / 'row.json').read_text())
    assert told['fits'] and told['device'] == 'TPU v5 lite' and 'It fits' in done.stdout
    assert not told['gathers_all_layers']
    assert {c['in_loop'] for c in told['collectives']} == {True, False}
    assert os.sep not in done.stderr  # nothing of libtpu's own about this machine
