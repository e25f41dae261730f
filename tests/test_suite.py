"""What the suite promises: CI skips nothing, and no program lands in the user's own cache."""

import os
from pathlib import Path
import subprocess
import sys

import jax
import pytest

from jobrec_jax.pipeline.compilation_cache import use_compilation_cache

ROOT = Path(__file__).parents[1]
MARKED = """
import pytest

def test_that_runs():
  pass

@pytest.mark.skip(reason='no browser')
def test_marked():
  pass

def test_that_skips():
  pytest.skip('no files')

@pytest.mark.xfail
def test_known_to_fail():
  raise AssertionError
"""
WHOLE = """
import pytest
pytest.skip('no library', allow_module_level=True)
"""


@pytest.fixture
def run(tmp_path):
  (tmp_path / 'test_marked.py').write_text(MARKED)
  (tmp_path / 'test_whole.py').write_text(WHOLE)

  def run(no_skips, *flags):
    command = [sys.executable, '-m', 'pytest', '-p', 'tests.no_skips', '-c', os.devnull, *flags,
               f'--rootdir={tmp_path}', str(tmp_path)]
    environment = os.environ | {'JOBREC_NO_SKIPS': no_skips, 'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=False)
  return run


def test_a_skip_fails_only_where_nothing_may_be_skipped(run):
  allowed = run('0')
  assert allowed.returncode == 0 and '1 passed, 3 skipped, 1 xfailed' in allowed.stdout
  for flags in ((), ('-p', 'xdist', '-n1')):
    refused = run('1', '--continue-on-collection-errors', *flags)
    assert refused.returncode == 1 and 'skipped' not in refused.stdout.splitlines()[-1]
    for reason in ('no browser', 'no files', 'no library'):
      assert f'must run where JOBREC_NO_SKIPS=1, got: Skipped: {reason}' in refused.stdout


def test_programs_are_kept_in_the_repository_alone():
  shortest = jax.config.jax_persistent_cache_min_compile_time_secs
  use_compilation_cache()
  jax.config.update('jax_persistent_cache_min_compile_time_secs', shortest)
  assert Path(jax.config.jax_compilation_cache_dir) == ROOT / '.cache' / 'jax'
  assert os.environ['JAX_COMPILATION_CACHE_DIR'] == str(ROOT / '.cache' / 'jax')


@pytest.mark.parametrize('asked', [None, 'cuda,cpu'])
def test_tests_run_on_cpus_unless_another_platform_is_asked_for(asked):
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_PLATFORMS'}
  environment |= {} if asked is None else {'JAX_PLATFORMS': asked}
  command = [sys.executable, '-c',
             "import os, tests.conftest; print(os.environ['JAX_PLATFORMS'])"]
  said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True,
                        check=True).stdout
  assert said.strip() == (asked or 'cpu')
