"""The audit script: tables, files and exit status, on files with and without planted faults."""

import dataclasses
import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from configs import published
from experiments import audit
from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.files.paper_csv import write_published
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline.audit import AS_IT_LIES, REBUILT, audit_all
from jobrec_jax.pipeline.data import Source, draw_or_read
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import build

PUBLISHED = os.environ.get('JOBREC_PUBLISHED')
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A market in the published layout; the test's negatives stand in train as well."""
  dataset, _ = simulate(MarketConfig(candidates=80, jobs=24), seed=1)
  log = dataset.interactions
  shared = (log.split == SPLITS.index('test')) & (log.preference == 0)
  order = np.random.default_rng(0).permutation(len(log) + shared.sum())
  doubled = {f.name: np.concatenate([getattr(log, f.name), getattr(log, f.name)[shared]])[order]
             for f in dataclasses.fields(log)}
  doubled['split'][np.flatnonzero(order >= len(log))] = SPLITS.index('train')
  path = tmp_path_factory.mktemp('files')
  write_published(dataclasses.replace(dataset, interactions=dataclasses.replace(log, **doubled)),
                  path)
  return path, int(shared.sum())


def audited(config, workdir, capsys):
  """Exit status, what was printed, and the rows of audit.json."""
  try:
    audit.main(Run(workdir, config))
    status = 0
  except SystemExit as end:
    status = end.code
  text = capsys.readouterr().out
  assert (workdir / 'audit.txt').read_text() == text
  return status, text, json.loads((workdir / 'audit.json').read_text())


def config_of(folder, *known, drop=False):
  return build(Settings, {'data': {
      'source': 'published', 'folder': str(folder), 'known_faults': known,
      'drop_shared_negatives': drop}})


def test_a_simulated_market_is_clean(tmp_path, capsys):
  config = build(Settings, {'market': {'candidates': 100, 'jobs': 24},
                            'policy': {'list_length': 10}})
  status, text, rows = audited(config, tmp_path / 'new', capsys)
  assert status == 0 and text.splitlines()[-1] == 'Verdict: as it lies, no errors'
  assert {r['data'] for r in rows} == {'as it lies'}
  assert not [r for r in rows if r['severity'] == 'error']


@pytest.mark.parametrize('drop', [False, True])
def test_shared_negatives_fail_and_the_rebuilt_lists_are_audited_too(folder, drop, tmp_path,
                                                                     capsys):
  path, shared = folder
  status, text, rows = audited(config_of(path, drop=drop), tmp_path, capsys)
  assert status == 1
  tables = text.split('== The data ')[1:]
  assert [t.split(':')[0] for t in tables] == ['as it lies', 'rebuilt without shared negatives']
  found = {(r['data'], r['name']): r for r in rows}
  for title, n, severity in ((AS_IT_LIES, shared, 'error'), (REBUILT, 0, 'info')):
    row = found[title, 'shared_negatives/preference/train-test']
    assert (row['value'], row['severity']) == (n, severity)
  lookup = 'train_negative_lookup/preference/test'
  assert found[AS_IT_LIES, lookup]['value'] == 1
  assert found[REBUILT, lookup]['value'] == pytest.approx(
      found[REBUILT, lookup]['chance'])
  verdict = text.splitlines()[-1]
  assert verdict.startswith('Verdict: as it lies, ') and 'shared_negatives (1)' in verdict
  assert verdict.endswith('rebuilt without shared negatives, no errors')


def test_known_faults_pass(folder, tmp_path, capsys):
  known = ('shared_negatives', 'pair_overlap/preference', 'train_negative_lookup')
  status, text, _ = audited(config_of(folder[0], *known), tmp_path, capsys)
  assert status == 0
  assert 'as it lies, no errors; known faults: pair_overlap (1)' in text.splitlines()[-1]
  assert len([l for l in text.splitlines() if l.startswith('known ')]) >= 3


def test_training_gets_the_rebuilt_lists(folder, tmp_path):
  """What the second table audits is what data.drop_shared_negatives makes of the files."""
  config = config_of(folder[0], drop=True)
  raw, _ = draw_or_read(Source.of(config))
  rebuilt = audit_all(raw, config.data.seed)[REBUILT][0].interactions
  run = Run(tmp_path, config)
  trained = run.get(run.road.data).dataset.interactions
  rows = [sorted(zip(*(getattr(log, f.name).tolist() for f in dataclasses.fields(log))))
          for log in (rebuilt, trained)]
  assert rows[0] == rows[1]
  run = Run(tmp_path, config_of(folder[0]))
  with pytest.raises(ValueError, match=r'the audit found \d+ errors:\nerror  shared_negatives'):
    run.get(run.road.data)


def test_exit_status_and_messages_of_the_command(folder, tmp_path):
  def run(*flags):
    return subprocess.run([sys.executable, '-m', 'experiments.audit', f'--workdir={tmp_path}',
                           '--config=configs/published.py', *flags], cwd=ROOT, text=True,
                          capture_output=True, check=False)
  found = run(f'--config.data.folder={folder[0]}')
  assert found.returncode == 1 and found.stdout.splitlines()[-1].startswith('Verdict: ')
  assert 'Traceback' not in found.stderr
  wrong = run(f'--config.data.folder={tmp_path / "nowhere"}')
  assert wrong.returncode == 2 and wrong.stdout == '' and 'nowhere' in wrong.stderr


@pytest.mark.skipif(not PUBLISHED,
                    reason='JOBREC_PUBLISHED does not name a folder with the published files')
def test_the_published_files(tmp_path, capsys):
  config = published.get_config()
  config.data.folder, config.data.allow_unknown_users = PUBLISHED, True
  status, text, _ = audited(build(Settings, config.to_dict()), tmp_path, capsys)
  assert status == 1
  raw, rebuilt = text.split('== The data ')[1:]
  assert raw.count('36,547 negatives in both') == 3
  assert 'MRR 1.0000' in next(l for l in raw.splitlines()
                              if 'train_negative_lookup  preference/test ' in l)
  assert '\nerror' not in rebuilt
  assert text.splitlines()[-1].count('no errors') == 1
