"""The script for a GPU runs where there is none, on sizes that a CPU has time for."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_lists_and_steps_are_measured_beside_pytorch(tokenizer, tmp_path):
  tokenizer.save(str(tmp_path / 'tokenizer.json'))
  done = subprocess.run(
      [sys.executable, '-m', 'benchmarks.gpu', '--model=tiny', '--quick', '--parts=lists',
       '--systems=peak,exact,torch_step', f'--tokenizer={tmp_path}/tokenizer.json',
       f'--out={tmp_path}'], cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  rows = json.loads((tmp_path / 'gpu_lists.json').read_text())
  found = {(r['system'], r['dtype'], r['lists']): r for r in rows if r['system'] != 'peak'}
  assert set(found) == {(system, dtype, lists) for system in ('exact', 'torch_step')
                        for dtype in ('bfloat16', 'float32') for lists in (1, 2)}
  for row in found.values():
    assert row['pairs'] == 50 * row['lists'] and row['calls'] == 2 and row['device'] == 'cpu'
    assert row['pairs_per_second'] == pytest.approx(row['pairs'] / row['seconds'], rel=1e-3)
    assert row['share_of_peak'] > 0
