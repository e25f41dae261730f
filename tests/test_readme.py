"""The README's example runs, and its map names what is there."""

from pathlib import Path
import re

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


@pytest.mark.parametrize('number, said', [(0, 'truth'), (1, 'mu after a step 0.0')])
def test_the_library_examples_run(capsys, number, said):
  examples = re.findall(r'```python\n(.*?)```', README, flags=re.S)
  assert len(examples) == 2
  exec(compile(examples[number], 'README.md', 'exec'), {})
  assert said in capsys.readouterr().out


def test_the_map_names_every_room_and_nothing_else():
  rooms = {p.name + '/' for p in (ROOT / 'jobrec_jax').iterdir()
           if p.is_dir() and p.name != '__pycache__'}
  (section,) = re.findall(r'## The map\n(.*?)\n## ', README, flags=re.S)
  named = set(re.findall(r'^  ([a-z_]+/)', section, flags=re.M))
  assert named == rooms


def test_the_commands_exist():
  makefile = (ROOT / 'Makefile').read_text()
  for target in set(re.findall(r'`make (\w+)`', README)):
    assert re.search(rf'^{target}:', makefile, flags=re.M), target
  for script in set(re.findall(r'python -m (experiments\.\w+)', README)):
    assert (ROOT / (script.replace('.', '/') + '.py')).is_file(), script
