"""The documentation's examples run, its map names what is there, and its links lead somewhere."""

from pathlib import Path
import re
import shutil
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
PAGES = [ROOT / 'README.md', ROOT / 'BUILD.md', *sorted((ROOT / 'docs').glob('*.md'))]


def examples(page: str) -> list[str]:
  return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), flags=re.S)


@pytest.mark.parametrize('page, said', [
    ('docs/dual.md', 'mu after a step 0.0'), ('docs/runs.md', "[('data', False)")])
def test_the_examples_run(capsys, monkeypatch, tmp_path, page, said):
  monkeypatch.chdir(tmp_path)
  (example,) = examples(page)
  exec(compile(example, page, 'exec'), {})
  assert said in capsys.readouterr().out


@pytest.mark.slow
def test_an_installed_package_loads_a_run_outside_the_repository(tiny_folder, tmp_path):
  """The README's script, with nothing of the repository on the path."""
  source, site = tmp_path / 'source', tmp_path / 'site'
  source.mkdir()
  for name in ('pyproject.toml', 'README.md', 'requirements.txt'):
    shutil.copy(ROOT / name, source)
  shutil.copytree(ROOT / 'jobrec_jax', source / 'jobrec_jax')
  subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target',
                  str(site), str(source)], check=True)
  shutil.rmtree(source)
  away = tmp_path / 'away'
  shutil.copytree(tiny_folder, away / 'run')
  (example,) = examples('README.md')
  assert len([line for line in example.splitlines() if line]) <= 10
  (away / 'script.py').write_text(example)
  candidate = ROOT / 'experiments/examples/builder.json'
  done = subprocess.run([sys.executable, 'script.py', 'run', str(candidate)], cwd=away,
                        env={'PYTHONPATH': str(site), 'PATH': '', 'HOME': str(tmp_path)},
                        capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'p_qual (1, 20)' in done.stdout and done.stdout.count('{') == 3
  assert (site / 'jobrec_jax/py.typed').is_file()
  version = subprocess.run(
      [sys.executable, '-c',
       'import jobrec_jax; print(jobrec_jax.__version__, jobrec_jax.__file__)'],
      cwd=away, env={'PYTHONPATH': str(site)}, capture_output=True, text=True).stdout
  assert version.startswith('0.1.0') and str(site) in version


def test_every_room_says_what_it_is():
  for path in (ROOT / 'jobrec_jax').rglob('__init__.py'):
    if path.parent.name not in ('domains', 'jobrec_synth'):
      assert path.read_text().startswith('"""'), path


def test_the_map_names_every_room_and_nothing_else():
  rooms = {p.name + '/' for p in (ROOT / 'jobrec_jax').iterdir()
           if p.is_dir() and p.name != '__pycache__'}
  (section,) = re.findall(r'## The map\n(.*?)\n## ', README, flags=re.S)
  named = set(re.findall(r'^  ([a-z_]+/)', section, flags=re.M))
  assert named == rooms


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_commands_and_links_exist(page):
  text, makefile = page.read_text(), (ROOT / 'Makefile').read_text()
  for target in set(re.findall(r'`make (\w+)`', text)):
    assert re.search(rf'^{target}:', makefile, flags=re.M), target
  for script in set(re.findall(r'python -m ((?:experiments|benchmarks)\.\w+)', text)):
    assert (ROOT / (script.replace('.', '/') + '.py')).is_file(), script
  for link in re.findall(r'\]\((?!http)([^)#]+)\)', text):
    assert (page.parent / link).exists(), link
