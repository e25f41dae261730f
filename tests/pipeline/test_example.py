"""The shipped example of own data goes the whole road, as its notebook shows it."""

import json
from pathlib import Path
import shutil
import subprocess
import sys
import tomllib

import pytest

from jobrec_jax.data.tables.reader import Division, read_tables
from jobrec_jax.schema.schema import PERSPECTIVES
from tests.pipeline.tiny import tiny_settings

EXAMPLE = Path(__file__).parents[2] / 'examples/shifts'
SHARES = (0.5, 0.1, 0.15, 0.25)


def test_the_tables_are_those_that_their_script_draws(tmp_path):
  shutil.copy(EXAMPLE / 'make.py', tmp_path)
  subprocess.run([sys.executable, tmp_path / 'make.py'], check=True)
  for name in ('people.csv', 'shifts.csv', 'log.csv'):
    assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()


def test_the_example_is_small_and_whole():
  assert sum(p.stat().st_size for p in EXAMPLE.iterdir() if p.is_file()) < 150_000
  lines = (EXAMPLE / 'schema.toml').read_text().splitlines()
  assert len(lines) <= 60
  page = (EXAMPLE.parents[1] / 'docs/your_data.md').read_text()
  assert f'in {len(lines)} lines' in page
  dataset = read_tables(EXAMPLE, EXAMPLE / 'schema.toml', Division(0, SHARES, 0.2, 0.1))
  for perspective in PERSPECTIVES:
    for split in ('train', 'validation', 'calibration', 'test'):
      labels = getattr(dataset.interactions.of(split), perspective)
      assert (labels == 0).sum() >= 3 and (labels == 1).sum() >= 3


def test_the_page_names_every_comparator_and_key():
  from jobrec_jax.data.tables.definition import LogTable
  from jobrec_jax.schema.comparators import NAMES
  page = (EXAMPLE.parents[1] / 'docs/your_data.md').read_text()
  for name in NAMES:
    assert f'`{name}`' in page
  for key in LogTable.__dataclass_fields__:
    assert key in page
  for block in page.split('```toml\n')[1:]:
    tomllib.loads(block.split('```')[0])


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'examples/shifts'
  shutil.copytree(EXAMPLE, folder)
  monkeypatch.chdir(folder)
  notebook = json.loads((folder / 'shifts.ipynb').read_text())
  assert notebook['nbformat'] == 4
  names = {}
  for cell in notebook['cells']:
    if cell['cell_type'] == 'code':
      assert cell['outputs'] == [] and cell['execution_count'] is None
      first = 'settings' not in names
      exec(compile(''.join(cell['source']), 'shifts.ipynb', 'exec'), names)
      if first and 'settings' in names:  # the same at a tiny size
        names['settings'] = tiny_settings(data={'source': 'tables', 'schema': 'schema.toml'})
  said = capsys.readouterr().out
  assert '120 people, 30 shifts' in said and 'grade' in said
  assert len(names['ranked'].jobs) == 3 and (tmp_path / 'runs/shifts/report.html').is_file()
