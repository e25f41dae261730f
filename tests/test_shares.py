"""The suite's two runs have every test once."""

from pathlib import Path

import pytest

from tests import shares


def test_what_needs_eight_devices_is_there():
  assert all(path.exists() for path in shares.EIGHT)


@pytest.mark.parametrize('name', ['processes/test_scripts.py', 'test_sharding.py',
                                  'train/test_loop.py', 'test_readme.py'])
def test_a_file_is_of_one_run_and_of_a_run_of_all(monkeypatch, name):
  path, left_out = shares.HERE / name, {}
  assert path.exists()
  for asked in ('', '2', '8'):
    monkeypatch.setattr(shares, 'ASKED', asked)
    left_out[asked] = shares.pytest_ignore_collect(path) is True
  assert not left_out[''] and left_out['2'] != left_out['8']
  assert left_out['2'] == (name in ('processes/test_scripts.py', 'test_sharding.py'))
  assert shares.pytest_ignore_collect(Path(shares.HERE / 'train')) is None
