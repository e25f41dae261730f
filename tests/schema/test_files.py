"""Files and folders appear whole or not at all; what is read is strict JSON or one ValueError."""

import json

import numpy as np
import pytest

from jobrec_jax.schema import files


def names(folder):
  return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize('mode', ['w', 'wb'])
def test_a_file_is_replaced_whole_or_stays(tmp_path, mode):
  path = tmp_path / 'new' / 'a.txt'
  content = ('ä\r\n', b'\x00\n')[mode == 'wb']
  with files.replacing(path, mode) as file:
    file.write(content)
    assert not path.exists()
  before = path.read_bytes()
  assert before == (content if mode == 'wb' else content.encode())
  with pytest.raises(RuntimeError, match='gone'), files.replacing(path, mode) as file:
    file.write(content * 2)
    raise RuntimeError('gone')
  assert path.read_bytes() == before and names(path.parent) == ['a.txt']
  assert path.stat().st_mode & 0o777 == 0o644


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'around' / 'folder'
  with pytest.raises(RuntimeError, match='gone'), files.whole_folder(path) as folder:
    (folder / 'a').write_text('1')
    raise RuntimeError('gone')
  assert names(path.parent) == []
  path.mkdir()  # an empty one may lie there
  with files.whole_folder(path) as folder:
    (folder / 'a').write_text('1')
    assert names(path) == []
  assert names(path) == ['a'] and names(path.parent) == ['folder']
  assert path.stat().st_mode & 0o777 == 0o755
  for taken in (path, path / 'a'):
    with pytest.raises(ValueError, match='must be a new or empty folder, got one that holds'), (
        files.whole_folder(taken)):
      raise AssertionError
  assert names(path) == ['a']


def test_json_comes_back_and_holds_finite_numbers_alone(tmp_path):
  path, value = tmp_path / 'a.json', {'ä': [1, None, 0.1], 'b': {}}
  files.write_json(path, value, indent=1)
  assert files.read_json(path) == files.read_object(path) == value and 'ä' in path.read_text()
  files.write_rows(path, [value, 3])
  assert files.read_json(path) == [value, 3]
  assert path.read_text() == '[\n' + json.dumps(value, ensure_ascii=False) + ',\n3\n]\n'
  before = path.read_text()
  for write in (files.write_json, files.write_rows):
    with pytest.raises(ValueError, match=r'a\.json: must hold finite numbers alone'):
      write(path, [float('nan')])
  assert path.read_text() == before and names(tmp_path) == ['a.json']


@pytest.mark.parametrize(('text', 'message'), [
    (b'{\n"a": 1,,}', r'a\.json:2: must be JSON, got'), (b'{"a": 1, "a": 2}', r'a key once.*\[.a'),
    (b'[NaN]', 'NaN is not a JSON value'), (b'"\\ud800"', 'must be JSON, got: .*surrogates'),
    (b'[' * 100_000, 'lie too deep'), (b'\n\xff', r'a\.json:2: must be UTF-8, got byte 0xff'),
    (b'', r'a\.json:1: must be JSON')])
def test_bad_json_is_named_with_its_place(tmp_path, text, message):
  (tmp_path / 'a.json').write_bytes(text)
  with pytest.raises(ValueError, match=message):
    files.read_json(tmp_path / 'a.json')


def test_what_is_no_object_or_no_file_is_named(tmp_path):
  (tmp_path / 'a.json').write_text('\ufeff[]', encoding='utf-8')
  assert files.read_json(tmp_path / 'a.json') == []
  with pytest.raises(ValueError, match=r'a\.json: must be a JSON object, got list'):
    files.read_object(tmp_path / 'a.json')
  for read in (files.read_object, files.read_text, files.digest, files.load_array,
               files.load_arrays):
    with pytest.raises(ValueError, match=r'lost: must '):
      read(tmp_path / 'lost')


def test_arrays_come_back_bit_for_bit_and_hold_no_objects(tmp_path):
  arrays = {'a': np.array([0.1, np.nan], np.float32), 'b': np.arange(3)[:, None]}
  files.save_arrays(tmp_path / 'a.npz', arrays)
  files.save_array(tmp_path / 'a.npy', arrays['a'])
  loaded = files.load_arrays(tmp_path / 'a.npz')
  assert loaded.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(loaded[name], array)
    assert loaded[name].dtype == array.dtype
  np.testing.assert_array_equal(files.load_array(tmp_path / 'a.npy'), arrays['a'])
  with pytest.raises(ValueError, match='Object arrays'):
    files.save_array(tmp_path / 'b.npy', np.array([{}]))
  for name in ('a.npz', 'a.npy'):
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:90])
  for read, name in ((files.load_arrays, 'a.npz'), (files.load_array, 'a.npy')):
    with pytest.raises(ValueError, match=rf'{name}: must '):
      read(tmp_path / name)


def test_the_digest_is_that_of_the_content(tmp_path):
  (tmp_path / 'a').write_bytes(b'abc')
  assert files.digest(tmp_path / 'a') == (
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')


def test_a_path_may_begin_at_home_and_at_no_other_place(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert files.expanded('~/a/~b') == tmp_path / 'a' / '~b' and str(files.expanded('a~')) == 'a~'
  for path, message in (('~none_such/a', '~none_such/a: must begin with the home of a user, got'),
                        ('a\0b', r"'a\\x00b': must be a path, got one with a NUL")):
    for read in (files.expanded, files.open_file, files.read_json, files.digest):
      with pytest.raises(ValueError, match=message):
        read(path)
