"""The documentation's examples run, its map names what is there, and its links lead somewhere."""

from pathlib import Path
import re
import shutil
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from benchmarks import kept, pages, worlds
from jobrec_jax.weights import families

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
LINES, WORDS = 150, 900  # at most, for a page that is read through
PAGES = [ROOT / 'README.md', ROOT / 'BUILD.md', *sorted((ROOT / 'docs').glob('*.md'))]


def examples(page: str) -> list[str]:
  return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), flags=re.S)


@pytest.mark.parametrize('page, said', [
    ('docs/dual.md', ['mu after a step 0.0']), ('docs/runs.md', ["[('data', False)"]),
    ('docs/extend.md', ['loss 0.313 0.693', 'shared skills (3,)',
                        "reached {'eligible': 0.6, 'not popular': 0.6}",
                        'heads of width 16', 'runs 12', 'precision@2 [0.75]',
                        'years unmet by 1 years; taste: kitchen met'])])
def test_the_examples_run(capsys, monkeypatch, tmp_path, page, said):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(families, 'FAMILIES', dict(families.FAMILIES))  # an example adds to it
  for example, words in zip(examples(page), said, strict=True):
    exec(compile(example, page, 'exec'), {})
    assert words in capsys.readouterr().out


def test_the_readme_is_read_through():
  assert len(README.splitlines()) <= LINES and len(README.split()) <= WORDS


def test_the_readme_leads_to_every_page():
  links = set(re.findall(r'\]\(([^)#]+)\)', README))
  assert {str(p.relative_to(ROOT)) for p in PAGES} - {'README.md'} <= links


@pytest.mark.parametrize('name', sorted(p.name for p in ROOT.glob('docs/pictures/*')))
def test_pictures_are_shown_and_have_words(name):
  """They are drawn for light and dark pages alike: no ground, no black or white."""
  picture = ElementTree.parse(ROOT / 'docs/pictures' / name).getroot()
  (title,) = picture.findall('{*}title')
  assert title.text and picture.get('role') == 'img'
  assert re.search(rf'!\[[^\]]{{30,}}\]\(docs/pictures/{name}\)', README)
  text = (ROOT / 'docs/pictures' / name).read_text()
  for colour in re.findall(r'#([0-9a-f]{6})\b', text):
    for ground in ('ffffff', '0d1117'):
      lights = sorted(light(c) + 0.05 for c in (colour, ground))
      assert lights[1] / lights[0] >= 3, f'{colour} on {ground}'


def light(colour: str) -> float:
  """Relative luminance, as WCAG 2 defines it."""
  parts = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
  linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


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
  candidate = ROOT / 'experiments/examples/students.json'
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
  page = (ROOT / 'docs/architecture.md').read_text()
  (section,) = re.findall(r'## The map\n(.*?)\n## ', page, flags=re.S)
  named = set(re.findall(r'^  ([a-z_]+/)', section, flags=re.M))
  assert named == rooms
  others = {p.name for p in (ROOT / 'jobrec_jax').glob('[a-z]*.py')}
  assert set(re.findall(r'^  (\w+\.py)', section, flags=re.M)) == others


def test_the_table_of_scripts_names_each_once():
  page = (ROOT / 'docs/scripts.md').read_text()
  named = re.findall(r'^\| `python -m experiments\.(\w+)` \|', page, flags=re.M)
  scripts = sorted(p.stem for p in ROOT.glob('experiments/[a-z]*.py'))
  assert sorted(named) == scripts


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_commands_and_links_exist(page):
  text, makefile = page.read_text(), (ROOT / 'Makefile').read_text()
  for target in set(re.findall(r'`make (\w+)`', text)):
    assert re.search(rf'^{target}:', makefile, flags=re.M), target
  for script in set(re.findall(r'python -m ((?:experiments|benchmarks)\.\w+)', text)):
    assert (ROOT / (script.replace('.', '/') + '.py')).is_file(), script
  for link in re.findall(r'\]\((?!http)([^)#]+)\)', text):
    assert (page.parent / link).exists(), link


@pytest.mark.parametrize('page', pages.PAGES, ids=lambda p: p.name)
def test_the_tables_are_those_of_the_kept_rows(page):
  assert pages.MARK.search(page.read_text())
  assert pages.render(page.read_text()) == page.read_text()


def test_what_is_shown_is_of_five_training_seeds_and_of_twelve_markets():
  for name in ('main', 'requirement', 'seeds', 'published', 'ablations'):
    results = kept.read(name)
    assert len({r['seed'] for r in results['values']}) >= 5
    if name in ('main', 'requirement'):
      assert len({r['data_seed'] for r in results['values']}) >= 12
  assert pages.picture(kept.read('main')) == (
      pages.PICTURES / 'result.svg').read_text()
  assert worlds.picture(kept.read('funnel')) == (
      pages.PICTURES / 'funnel.svg').read_text()
