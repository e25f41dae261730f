"""One tiny run for the whole session, whatever the number of workers; its store has locks."""

import os
from pathlib import Path

import pytest

from jobrec_jax.pipeline.report import report
from jobrec_jax.pipeline.run import Run
from tests.pipeline.tiny import tiny_settings


@pytest.fixture(scope='session')
def tiny_folder(tmp_path_factory) -> Path:
  """The folder of a finished run, to be read or copied and never changed."""
  base = tmp_path_factory.getbasetemp()
  base = base.parent if os.environ.get('PYTEST_XDIST_WORKER') else base
  run = Run(base / 'tiny', tiny_settings())
  report(run)
  return run.folder


@pytest.fixture
def tiny_run(tiny_folder) -> Run:
  return Run(tiny_folder, tiny_settings())
