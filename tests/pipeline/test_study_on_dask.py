"""A study on a real Dask scheduler, one of whose workers is killed, gives the same numbers."""

import json
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest

from jobrec_jax.baselines.rivals import DEFAULT
from jobrec_jax.pipeline import cluster

ROOT = Path(__file__).parents[2]
CONFIG = '''
import ml_collections
from jobrec_jax.schema.settings import as_mapping
from tests.pipeline.tiny import tiny_settings
def get_config():
  return ml_collections.ConfigDict(as_mapping(tiny_settings())).lock()
'''
STUDY = '''
from jobrec_jax.pipeline.study import Study, Variant
def get_study():
  return Study('Does the temperature matter?', {
      'base': Variant('as it is'), 'hot': Variant('flatter', {'policy.temperature': 1.2}),
      'bad': Variant('it diverges', {'policy.learning_rate': 1e30})})
'''


def start(*words: str, log: Path) -> subprocess.Popen:
  return subprocess.Popen([sys.executable, '-m', *words], cwd=ROOT, stdout=log.open('a'),
                          env=os.environ | {'PYTHONPATH': str(ROOT)}, stderr=subprocess.STDOUT)


def until(condition, process: subprocess.Popen, log: Path) -> None:
  while not condition():
    assert process.poll() is None, log.read_text()
    time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_worker_changes_no_number(tiny_folder, tmp_path):
  log, address = tmp_path / 'log.txt', tmp_path / 'scheduler.json'
  for name, text in (('config.py', CONFIG), ('study.py', STUDY)):
    (tmp_path / name).write_text(text)
  scheduler = start('distributed.cli.dask_scheduler', '--scheduler-file', str(address), '--port',
                    '0', '--no-dashboard', log=log)
  until(address.exists, scheduler, log)
  workers = [start('distributed.cli.dask_worker', '--scheduler-file', str(address), '--nthreads',
                   '1', '--resources', 'accelerator=1', '--no-nanny', '--no-dashboard', log=log)
             for _ in range(2)]
  study = start('experiments.study', f'--study={tmp_path}/study.py', '--seeds=1',
                f'--config={tmp_path}/config.py', f'--workdir={tmp_path}/study',
                f"--scheduler={json.loads(address.read_text())['address']}",
                log=tmp_path / 'study.txt')
  try:
    training = tmp_path / 'study/store/.making'
    until(lambda: list(training.glob('warm_up-*')), study, tmp_path / 'study.txt')
    holder = list((tmp_path / 'study/store/.locks').glob('warm_up-*.json'))
    pid = json.loads(holder[0].read_text())['process'] if holder else workers[0].pid
    os.kill(pid, signal.SIGKILL)  # the worker that trains
    assert study.wait() == 1  # one variant diverges
  finally:
    for process in (study, *workers, scheduler):
      process.kill()
      process.wait()
  told = (tmp_path / 'study.txt').read_text()
  assert 'lower policy.learning_rate' in told and 'runs/bad/data-5-seed-3' in told
  made = list((tmp_path / 'study/store').glob('evaluation-*/results.json'))
  assert len(made) == 2
  (own,) = (tiny_folder / 'store').glob('evaluation-*/results.json')
  there = tmp_path / 'study/store' / own.parent.name / 'results.json'
  assert there.read_bytes() == own.read_bytes()
  lines = (tmp_path / 'study/systems.md').read_text().splitlines()
  for name in DEFAULT:
    assert any(re.fullmatch(rf'\| {name} \| .* \| \d+\.\d \|', line) for line in lines), name
  assert r'\toprule' in (tmp_path / 'study/systems.tex').read_text()


def test_a_scheduler_that_does_not_answer_is_told(monkeypatch):
  monkeypatch.setattr(cluster, 'PATIENCE', 0.3)
  with pytest.raises(ValueError, match='--scheduler must be the address of a Dask scheduler'), \
       cluster.cluster('tcp://127.0.0.1:9', 0):
    pass
  with pytest.raises(ValueError, match='--workers must be left out with --scheduler'), \
       cluster.cluster('tcp://127.0.0.1:9', 2):
    pass
