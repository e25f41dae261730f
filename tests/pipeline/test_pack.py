"""One file holds what recommending needs; a file that pack did not write is refused."""

import json
import stat
import zipfile

import pytest

from jobrec_jax.pipeline.load import load
from jobrec_jax.pipeline.pack import pack


@pytest.fixture(scope='module')
def packed(tiny_folder, tmp_path_factory):
  path = tmp_path_factory.mktemp('packed') / 'tiny.zip'
  pack(tiny_folder, path)
  return path


@pytest.mark.slow
def test_it_recommends_as_the_run_does(packed, tiny_run, tiny_folder):
  (candidate, *_), whole = tiny_run.get(tiny_run.road.data).dataset.candidates, load(tiny_folder)
  tau = float(whole.policy.knots[-1])
  loaded = load(packed)
  assert loaded.recommend(candidate, tau) == whole.recommend(candidate, tau)
  assert loaded.results == whole.results and loaded.settings == whole.settings


@pytest.mark.slow
def test_it_holds_no_candidates_and_has_the_same_bytes_again(packed, tiny_folder, tmp_path):
  with zipfile.ZipFile(packed) as file:
    names = file.namelist()
  assert {n.split('/')[1].split('-')[0] for n in names if n.startswith('store/')} == {
      'tokenizer', 'cooperative', 'calibration', 'policy', 'catalogue', 'inputs'}
  assert [n for n in names if '/inputs-' in n and not n.endswith('artefact.json')] == []
  assert not [n for n in names if 'candidates' in n or 'interactions' in n]
  pack(tiny_folder, tmp_path / 'again.zip')
  assert (tmp_path / 'again.zip').read_bytes() == packed.read_bytes()

  with pytest.raises(ValueError, match=r'again\.zip: must not exist yet'):
    pack(tiny_folder, tmp_path / 'again.zip')


def entry(name, mode=0o100644, compress=zipfile.ZIP_STORED):
  info = zipfile.ZipInfo(name)
  info.external_attr, info.compress_type = mode << 16, compress
  return info


@pytest.mark.parametrize('info, problem', [
    (entry('../out'), 'a path that leads out'), (entry('/out'), 'a path that leads out'),
    (entry('store/../../out'), 'a path that leads out'), (entry('c:out'), 'a path that leads out'),
    (entry('link', stat.S_IFLNK | 0o777), 'no plain file'), (entry('folder/'), 'no plain file'),
    (entry('big', compress=zipfile.ZIP_DEFLATED), 'a compressed or encrypted one')])
def test_a_file_that_would_write_elsewhere_is_refused(tmp_path, info, problem):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as file:
    file.writestr(info, b'x' * 100, compress_type=info.compress_type)
  with pytest.raises(ValueError, match=rf'x\.zip: must hold plain files .* got {problem}'):
    load(tmp_path / 'x.zip')
  assert [p.name for p in tmp_path.iterdir()] == ['x.zip']


@pytest.mark.slow
def test_damage_is_found(packed, tmp_path):
  data = bytearray(packed.read_bytes())
  for at in (len(data) // 3, len(data) // 2):
    broken = data.copy()
    broken[at] ^= 1
    (tmp_path / 'broken.zip').write_bytes(bytes(broken))
    with pytest.raises(ValueError, match='must be'):
      load(tmp_path / 'broken.zip')
  (tmp_path / 'cut.zip').write_bytes(bytes(data[:-100]))
  with pytest.raises(ValueError, match=r'cut\.zip: must be a run folder or a packed run'):
    load(tmp_path / 'cut.zip')


@pytest.mark.slow
def test_another_parameter_under_the_same_name_is_found(packed, tmp_path):
  """Zip's own sums hold there; only the artefact's digests tell."""
  with zipfile.ZipFile(packed) as file, zipfile.ZipFile(tmp_path / 'x.zip', 'w') as out:
    for info in file.infolist():
      data = file.read(info)
      if info.filename.endswith('calibration.json'):
        data = json.dumps(json.loads(data) | {'b': 9.0}).encode()
      out.writestr(entry(info.filename), data)
  with pytest.raises(ValueError, match=r'calibration\.json: must be as it was made, got another'):
    load(tmp_path / 'x.zip')


def test_a_text_is_no_packed_run(tmp_path):
  (tmp_path / 'x').write_text('no zip')
  with pytest.raises(ValueError, match='must be a run folder or a packed run'):
    load(tmp_path / 'x')
