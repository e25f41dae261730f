"""A finished run is loaded without its data, whole or not at all, in the first second."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import jobrec_jax
from jobrec_jax.pipeline import load as loading
from jobrec_jax.pipeline.export_weights import export_weights
from jobrec_jax.pipeline.load import load, load_experts, opened
from jobrec_jax.pipeline.record import sealed
from jobrec_jax.pipeline.run import Run
from jobrec_jax.report.results import read_results
from jobrec_jax.schema.files import read_object
from jobrec_jax.sharding import MeshConfig
from tests.pipeline.tiny import tiny_settings

HEAVY = ('optax', 'orbax', 'grain', 'ml_collections', 'sklearn', 'matplotlib', 'tensorflow',
         'jobrec_jax.pipeline.settings', 'jobrec_jax.train')


def imported_by(code: str) -> set[str]:
  """The modules that a new process holds after some code."""
  code = f'{code}\nimport sys\nprint(*sys.modules)'
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return set(out.stdout.split())


def test_the_package_is_imported_at_once_and_shows_its_names():
  assert not {'jax', 'numpy'} & imported_by('import jobrec_jax')
  assert set(jobrec_jax.__all__) <= set(dir(jobrec_jax))
  assert jobrec_jax.load is load and jobrec_jax.Run is Run
  assert isinstance(jobrec_jax.__version__, str) and jobrec_jax.__version__
  with pytest.raises(AttributeError, match="no attribute 'lood'"):
    _ = jobrec_jax.lood


def test_loading_imports_nothing_of_training():
  assert not set(HEAVY) & imported_by('import jobrec_jax\njobrec_jax.load')


@pytest.fixture
def folder(tiny_folder, tmp_path):
  """A copy of the run that a test may change."""
  return shutil.copytree(tiny_folder, tmp_path / 'run')


def place(folder, name):
  (found,) = (folder / 'store').glob(f'{name}-*')
  return found


def rewrite(folder, **changes):
  record = json.loads((folder / 'run.json').read_text())
  record = {k: v for k, v in record.items() if k != 'digest'} | changes
  (folder / 'run.json').write_text(json.dumps(sealed(record)))


@pytest.mark.parametrize('read', [load, load_experts])
def test_experts_of_another_form_are_not_read_as_ours(folder, monkeypatch, read):
  made = read_object(place(folder, 'cooperative') / 'artefact.json')['identity']['version']
  assert made >= loading.OLDEST['cooperative']
  monkeypatch.setitem(loading.OLDEST, 'cooperative', made + 1)
  with pytest.raises(ValueError, match=f'must be of version {made + 1} or later, got {made}'):
    read(folder)


def test_a_missing_writer_names_the_command_that_makes_it(folder):
  record = json.loads((folder / 'run.json').read_text())
  rewrite(folder, artefacts=record['artefacts'] | {'writer': 'writer-0'})
  with pytest.raises(ValueError, match=r'artefact writer, .* python -m experiments\.explain'):
    load(folder)


@pytest.mark.slow
def test_it_scores_as_the_run_did_without_the_runs_data(tiny_run, folder):
  dataset, _ = tiny_run.get(tiny_run.road.data)
  lists = tiny_run.get(tiny_run.road.lists).held_out
  kept = tiny_run.get(tiny_run.road.scores)
  for name in ('data', 'inputs', 'scores', 'evaluation'):
    part = place(folder, name)
    for path in part.rglob('*'):
      if path.is_file() and (name, path.name) != ('inputs', 'artefact.json'):
        path.unlink()
  loaded = load(folder)
  assert loaded.jobs == dataset.jobs and loaded.schema == dataset.schema
  assert list(loaded.results) == read_results(folder / 'results.json')
  assert loaded.settings['seed'] == tiny_run.settings.seed
  scores = loaded.score([dataset.candidates[u] for u in lists.candidate[:, 0]])
  for i in range(len(lists)):
    np.testing.assert_allclose(scores.s_pref[i, lists.job[i]],
                               kept.of(lists).preference[i], atol=2e-5)
    np.testing.assert_allclose(scores.lam[i, lists.job[i]], kept.lam_of(lists)[i], atol=2e-5)
  tau = float(loaded.policy.knots[1])
  (ranked,) = loaded.recommend(dataset.candidates[0], tau, 3)
  assert len(ranked.jobs) == 3 and {j.job_id for j in ranked.jobs} <= {j.id for j in dataset.jobs}


@pytest.mark.slow
def test_experts_need_no_policy(folder):
  shutil.rmtree(place(folder, 'policy'))
  experts, calibration = load_experts(folder)
  assert calibration.t > 0
  kept = read_object(place(folder, 'tokenizer') / 'lengths.json')
  assert experts.form.candidate == kept['candidate'] == tiny_settings().tokenizer.candidate
  with pytest.raises(ValueError, match=r'policy-\w+: must be the artefact policy, got no such '
                                       r'folder; make it: python -m experiments\.fit_policy'):
    load(folder)


@pytest.mark.slow
@pytest.mark.parametrize('name, file', [
    ('policy', 'params.safetensors'), ('cooperative', 'params.safetensors'),
    ('calibration', 'calibration.json'), ('tokenizer', 'tokenizer.json'),
    ('catalogue', 'jobs.jsonl'), ('catalogue', 'schema.json'), ('catalogue', 'reading.json')])
def test_what_is_not_as_it_was_made_is_named(folder, name, file):
  path = place(folder, name) / file
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))
  with pytest.raises(ValueError, match=file):
    load(folder)


@pytest.mark.slow
def test_the_identity_of_what_the_policy_stands_on_is_checked(folder):
  path = place(folder, 'inputs') / 'artefact.json'
  path.write_text(path.read_text().replace('"list_length": 8', '"list_length": 9'))
  with pytest.raises(ValueError, match=r'artefact\.json: must describe inputs-'):
    load(folder)


@pytest.mark.slow
def test_parts_of_two_runs_do_not_pass_as_one(folder):
  record = json.loads((folder / 'run.json').read_text())
  other = Run(folder, tiny_settings(experts={'ips_clip': 4.0}), folder / 'store')
  key = other.road.cooperative.key
  about = json.loads((place(folder, 'cooperative') / 'artefact.json').read_text())
  shutil.copytree(place(folder, 'cooperative'), folder / 'store' / key)
  (folder / 'store' / key / 'artefact.json').write_text(
      json.dumps(about | {'identity': other.road.cooperative.identity}))
  rewrite(folder, artefacts=record['artefacts'] | {'cooperative': key})
  with pytest.raises(ValueError, match=rf'calibration-\w+: must be made from {key}, which '
                                       r'.*run\.json names, got cooperative-'):
    load(folder)


@pytest.mark.slow
def test_changed_results_are_named(folder):
  (folder / 'results.json').write_text('[]')
  with pytest.raises(ValueError, match=r'results\.json: must be as it was written.*evaluate'):
    load(folder)


def test_a_folder_without_a_run_is_named(tmp_path):
  for path in (tmp_path, tmp_path / 'nowhere'):
    with pytest.raises(ValueError, match=r'run\.json: must be a file, got none'):
      load(path)


def test_a_mesh_that_does_not_cover_this_machine_gives_way():
  count = jax.device_count()
  assert loading._fitting(MeshConfig(count // 2, 2)) == MeshConfig(count // 2, 2)
  assert loading._fitting(MeshConfig(-1, 2)) == MeshConfig(-1, 2)
  for other in (MeshConfig(count + 1), MeshConfig(-1, count + 1)):
    assert loading._fitting(other) == MeshConfig()


def test_a_run_may_lie_at_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'run').mkdir()
  with opened('~/run') as place:
    assert place == tmp_path / 'run'
  with pytest.raises(ValueError, match='--to must name a folder that does not exist yet, got /'):
    export_weights('~/run', '~/run', merged=True)
