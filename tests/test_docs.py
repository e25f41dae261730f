"""Every command that documents show or scripts print works: it is run, or its flags are parsed.

Run for real, in a folder with a tiny run: what README.md and docs/tutorial.md show of the scripts
in `RUN`, in their order. Of all other commands the script's own flags and settings parse the line,
so that an unknown flag, key or value fails. Commands for machines that are not here (SLURM,
Kubernetes, TPUs) are read by the shell, and by Dask where they are Dask's.
"""

import ast
import itertools
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from jobrec_jax.data.files.records import read_entity
from jobrec_jax.data.market.domain import load_domain, names
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.align import fields_with_verdicts
from jobrec_jax.schema.settings import as_mapping
from tests.documented import (
    PAGES,
    ROOT,
    Command,
    commands_in,
    documented,
    drive,
    shell_blocks,
)

COMMANDS = documented()
# Scripts whose documented commands are run, with what makes them small.
RUN = {
    'experiments.quickstart': ['--config=tiny.py'],
    'experiments.train_experts': ['--config=tiny.py'],
    'experiments.evaluate': [],
    'experiments.recommend': [],
    'experiments.pack': [],
    'experiments.audit': ['--config=tiny.py'],
    'experiments.describe': [],
    'experiments.settings': [],
    'experiments.study': ['--config=tiny.py', '--dry_run'],
}
STORY = ('README.md', 'docs/tutorial.md', 'docs/your_data.md')
OWN = '--config=configs/tables.py'  # of commands on a user's own tables
TINY = '''
from configs import base
from tests.pipeline.tiny import CHANGES

def get_config():
  config = base.get_config()
  config.update(CHANGES)
  return config
'''
# What train_experts prints is taken by the script that is named, as a command line.
NEXT = '''
import contextlib, io, shlex, sys
from absl import flags
from experiments import train_experts
from jobrec_jax import command_line
from jobrec_jax.pipeline.run import Run
from tests.pipeline.tiny import tiny_settings

run = Run('runs/my run', tiny_settings(), 'shared')
run.write()
get = run.get
run.get = lambda stage: get(stage) if stage is run.road.data else None
with contextlib.redirect_stdout(io.StringIO()) as out:
  train_experts.main(run)
print(out.getvalue().strip())
sys.argv = ['fit_policy', *shlex.split(out.getvalue().split('experiments.fit_policy')[1])]
command_line.define_flags('configs/base.py', None)
flags.FLAGS(sys.argv)
again = command_line.open_run(continues=True, devices=False)
print(again.settings == run.settings)
print(again.store.folder)
'''
# What may stand between the braces of a printed command -> what it may become.
VALUES = {
    'folder': ['runs/quickstart'], 'shlex.quote(str(run.folder))': ["'runs/my run'"],
    'tau': ['--tau 0.7071 ', ''], 'who': ['a candidate'],
    'shlex.quote(str(candidate))': ['experiments/examples/nursing.json'],
    'shlex.quote(str(out))': ['examples/shifts/schema.toml'],
    'elsewhere': ['', ' --config.data.folder=examples/shifts'],
    'places': ['runs/mine/runs/base/* runs/mine/runs/hidden/*'],
    'encoder': ['minilm'],
    'step': ['train_experts', 'fit_policy', 'explain'], 'script': ['fit_policy', 'evaluate'],
}
WRONG = '''
`python -m experiments.evaluate --workdri=x` and
  python -m experiments.evaluate --workdir=x --config.policy.gird=3
  python -m experiments.evaluate --workdir=x --config.policy.grid=1   a grid of one
  python -m experiments.pack x
  python -m experiments.pack \\
      x y && ls
  python -m experiments.recommend --run x [--top_k 3] --tau 0
'''


def printed() -> list[Command]:
  """Commands in strings of the library and the scripts that are no docstrings."""
  found = []
  for path in [*ROOT.glob('jobrec_jax/**/*.py'), *ROOT.glob('experiments/*.py')]:
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
              for part in node.values}
    documents = {id(node.body[0].value) for node in ast.walk(tree)
                 if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
                 and isinstance(node.body[0], ast.Expr)}
    for node in ast.walk(tree):
      if id(node) in inside | documents or not isinstance(node, ast.JoinedStr | ast.Constant):
        continue
      for text in texts(node):
        found += commands_in(text, str(path.relative_to(ROOT)))
  return found


def texts(node: ast.JoinedStr | ast.Constant) -> list[str]:
  """All that a string may become; a KeyError names a value that `VALUES` lacks."""
  if isinstance(node, ast.Constant):
    return [node.value] if isinstance(node.value, str) else []
  if 'python -m' not in ast.unparse(node):
    return []
  parts = [[p.value] if isinstance(p, ast.Constant) else VALUES.get(ast.unparse(p.value), ['x'])
           for p in node.values]
  at = [p.value if isinstance(p, ast.Constant) else '' for p in node.values]
  start = next(i for i, text in enumerate(at) if 'python -m' in text)
  for part in node.values[start:]:
    assert isinstance(part, ast.Constant) or ast.unparse(part.value) in VALUES, ast.unparse(part)
  return [''.join(choice) for choice in itertools.product(*parts)]


PRINTED = printed()


@pytest.fixture(scope='module')
def parsed(tmp_path_factory):
  """How the parsing of every command ended."""
  folder = tmp_path_factory.mktemp('parsed')
  wrong = commands_in(WRONG, 'a test')
  cases = [c for c in dict.fromkeys((*COMMANDS, *PRINTED, *wrong)) if not skipped(c)]
  return dict(zip(cases, drive([(c, False, ROOT) for c in cases], folder)))


def skipped(command: Command) -> bool:
  """A name in a sentence; or the fetching of a decoder, which has no flags."""
  return command.named or command.module == 'jobrec_jax.weights.fetch'


@pytest.mark.parametrize('command', dict.fromkeys((*COMMANDS, *PRINTED)), ids=str)
def test_a_command_has_the_scripts_flags(command, parsed):
  assert (ROOT / (command.module.replace('.', '/') + '.py')).is_file()
  if not skipped(command):
    assert parsed[command].status == 0, parsed[command].error


def test_what_is_wrong_in_a_command_is_found(parsed):
  for command, (status, said) in zip(commands_in(WRONG, 'a test'), (
      (2, 'workdri'), (2, 'gird'), (2, 'policy.grid'), (2, 'RUN FILE'), (0, ''),
      (2, 'candidate')), strict=True):
    assert parsed[command].status == status and said in parsed[command].error


def test_all_printed_commands_are_known():
  assert {c.module.removeprefix('experiments.') for c in PRINTED} == {
      'quickstart', 'train_experts', 'fit_policy', 'evaluate', 'recommend', 'audit', 'compare',
      'explain', 'jobrec_jax.weights.fetch'}


@pytest.fixture(scope='module')
def clone(tiny_folder, tmp_path_factory):
  """A folder like a clone of the project, in which the quickstart was run, but for its report."""
  folder = tmp_path_factory.mktemp('clone')
  (folder / 'tiny.py').write_text(TINY)
  (folder / 'own.py').write_text(TINY.replace('import base', 'import tables as base'))
  for name in ('configs', 'examples', 'experiments'):
    (folder / name).symlink_to(ROOT / name)
  run = shutil.copytree(tiny_folder, folder / 'runs/quickstart')
  (run / 'report.html').unlink()
  return folder


def story() -> list[Command]:
  """Documented commands that are run, in the order of their pages; a page's `make quickstart` is
  its script's."""
  first = Command('README.md', 'experiments.quickstart', ('--workdir=runs/quickstart',))
  told = [c for page in STORY for c in COMMANDS if c.where == page and c.module in RUN
          and not skipped(c) and not {'RUN', 'FOLDER'} & set(c.arguments)]
  return list(dict.fromkeys([first, *told]))


def small(command: Command, tau: str) -> Command:
  """The command at a tiny size: the tiny run for any that a study made, and `tau`, for it reaches
  other requirements; of the run on own tables, 0."""
  words = [re.sub(r'runs/mine/runs/[\w./-]+', 'runs/quickstart', w) for w in command.arguments
           if not w.startswith('--config=')]
  if '--tau' in words:
    words[words.index('--tau') + 1] = '0' if 'runs/shifts' in words else tau
  more = ['--config=own.py' if OWN in command.arguments else w for w in RUN[command.module]]
  return command._replace(arguments=(*more, *words))


@pytest.mark.slow
def test_the_story_of_the_documents_runs(clone, tmp_path):
  """What the quickstart prints at its end is run next, as it is printed."""
  first, *rest = story()
  (begun,) = drive([(small(first, ''), True, clone)], tmp_path)
  assert begun.status == 0, begun.error
  (next_,) = commands_in(begun.out, 'what quickstart prints')
  tau = next_.arguments[next_.arguments.index('--tau') + 1]
  for name, text in files_to_write(ROOT / 'docs/tutorial.md'):
    (clone / name).write_text(text)
  ended = drive([(next_, True, clone), *((small(c, tau), True, clone) for c in rest)], tmp_path)
  for command, end in zip((next_, *rest), ended):
    assert end.status == 0, f'{command}: {end.error}'
  assert f'asked for {float(tau):.6g}' in ended[0].out


def files_to_write(page: Path) -> list[tuple[str, str]]:
  """Python blocks whose first line is a comment with the path of a file."""
  block = r'^```python\n(# (\S+\.py)\n.*?)^```'
  found = re.findall(block, page.read_text(), flags=re.S | re.M)
  return [(name, text) for text, name in found]


def test_a_printed_command_goes_on_with_the_runs_own_settings(tmp_path):
  """No flag of the run before is needed, its store's neither, whatever its folder is called."""
  done = subprocess.run([sys.executable, '-c', NEXT], cwd=tmp_path, capture_output=True, text=True,
                        check=False, env=os.environ | {'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stderr
  printed, settings, store = done.stdout.splitlines()
  (command,) = commands_in(printed, 'what train_experts prints')
  assert command.arguments == ('--workdir=runs/my run',)
  assert settings == 'True' and Path(tmp_path, store).resolve() == tmp_path / 'shared'


def test_every_domain_has_an_example():
  schemas = [load_domain(name).schema for name in names()]
  for schema in schemas:
    path = ROOT / f'experiments/examples/{schema.name}.json'
    candidate = read_entity(path, schema, 'candidate')
    judged = {name for field in fields_with_verdicts(schema) for name in field.candidate}
    assert not [name for name in judged if candidate[name] is None]


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_the_shell_reads_every_block(page):
  for block in shell_blocks(page):
    done = subprocess.run(['bash', '-n'], input=block, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f'{block}{done.stderr}'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_every_target_of_make_is_one(page):
  text = page.read_text()
  shown = [t for block in shell_blocks(page) for t in re.findall(r'^\s*make .*$', block, re.M)]
  shown += re.findall(r'`((?:\w+=\S+ )?make [^`]*)`', text)
  for line in shown:
    words = [w for w in shlex.split(line, comments=True)
             if w != 'make' and not re.match(r'JOBREC_\w+=', w)]
    done = subprocess.run(['make', '-n', *words], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, f'{line}: {done.stderr}'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_dask_reads_its_own_commands(page):
  from distributed.cli import dask_scheduler, dask_worker
  programs = {'scheduler': dask_scheduler.main, 'worker': dask_worker.main}
  for block in shell_blocks(page):
    joined = re.sub(r'\s*\\\n\s*', ' ', block)
    for name, rest in re.findall(r'\bdask[ -](scheduler|worker)\b([^\n&|>#]*)', joined):
      programs[name].make_context(f'dask {name}', shlex.split(rest))


def test_keys_that_the_tutorial_names_have_the_defaults_that_it_names():
  page = (ROOT / 'docs/tutorial.md').read_text()
  rows = re.findall(r'^\| (`[a-z_]+\..*?) \| (.*?) \|', page, re.M)
  checked = 0
  for keys, defaults in rows:
    keys, defaults = re.findall(r'`(.*?)`', keys), defaults.replace('`', '').split(', ')
    for key, default in zip(keys, defaults * len(keys) if len(defaults) == 1 else defaults):
      section, name = key.split('.')
      found = as_mapping(Settings())[section][name]  # KeyError: no such setting
      assert default.startswith('a grid') or found == ast.literal_eval(default), key
      checked += 1
  assert checked >= 13
