"""Flags become settings; whatever goes wrong is one line and an exit status."""

import json
import logging
from pathlib import Path
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from jobrec_jax.command_line import SILENCE, Sparing

ROOT = Path(__file__).parents[1]
TIME = re.compile(r'\d\d:\d\d:\d\d ')  # that lines of the log begin with
# Imports once, then forks for each command: what is imported takes longer than what is tested.
DRIVER = '''
import json, os, sys
sys.modules['wandb'] = None  # as where it is not installed
import jobrec_jax.pipeline.run, ml_collections, configs.base
from jobrec_jax import command_line

def show(run):
  print(json.dumps([str(run.folder), run.settings.seed, run.settings.policy.grid]))
  run.write()

def watched(run):
  w = run.store.resources.watching
  print(json.dumps([w.watch, w.profile, w.folder]))

def ours(run):
  raise AssertionError('a fault of our own')

def logs(run):
  from absl import logging
  logging.info('told')
  logging.warning('careful')

def spared(run):
  command_line.spare_logs('somewhere.elsewhere')
  logs(run)

def theirs(run):
  json.loads('{')

def interrupted(run):
  raise KeyboardInterrupt

def terminated(run):
  os.kill(os.getpid(), 15)

def words(argv):
  print(json.dumps(argv[1:]))

results = []
for name, place, flags in json.load(sys.stdin):
  pid = os.fork()
  if not pid:
    for number in (1, 2):
      os.dup2(os.open(f'{place}.{number}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = ['script', *flags]
    if name == 'words':
      command_line.launch(words, ('RUN', 'FILE'))
    else:
      command_line.start(globals()[name.split()[0]], continues=name.endswith('continues'))
    os._exit(99)
  results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(results))
'''


class Ended(NamedTuple):
  """How a command ended."""

  status: int
  out: str
  error: str


REFUSED = {
    'no folder': ([], '--workdir must name a folder, got None'),
    'an empty folder': (['--workdir='], "--workdir must name a folder, got ''"),
    'an empty store': (['--workdir=RUN', '--store='], "--store must name a folder, got ''"),
    'an unknown flag': (['--workdir=RUN', '--wrokdir=x'], "Unknown command line flag 'wrokdir'"),
    'a word': (['--workdir=RUN', 'word'], "arguments must be flags alone, got ['word']"),
    'an unknown key': (['--workdir=RUN', '--config.experts.bata=1'],
                       "--config: there is no setting 'bata' Did you mean \"beta\""),
    'an unknown section': (['--workdir=RUN', '--config.polcy.grid=3'],
                           "--config: there is no setting 'polcy'"),
    'a word for a number': (['--workdir=RUN', '--config.policy.grid=many'], 'many'),
    'a wrong type': (['--workdir=RUN', '--config.sweep.seeds=(1,"a")'], 'seeds'),
    'a value out of range': (['--workdir=RUN', '--config.policy.grid=1'],
                             'policy.grid must be an integer at least 2, got 1'),
    'a mesh too large': (['--workdir=RUN', '--config.mesh.data=3'], 'mesh.data'),
    'no such config': (['--workdir=RUN', '--config=configs/nowhere.py'], 'nowhere.py'),
    'a file as a folder': (['--workdir=RUN.file/run'], 'RUN.file'),
    'an unknown watch': (['--workdir=RUN', '--watch=tensorboard,wand'],
                         "watch must be a tuple, each one of ('tensorboard', 'wandb'), got 'wand'"),
    'processes and no coordinator': (['--workdir=RUN', '--processes=2', '--process=0'],
                                     '--coordinator must be given beside --processes'),
    'a process out of range': (['--workdir=RUN', '--coordinator=host:1', '--processes=2',
                                '--process=2'], '--process must lie in [0, 2), got 2'),
    'a watch that is not installed': (['--workdir=RUN', '--watch=wandb'],
                                      "pip install 'jobrec_jax[wandb]'"),
}


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
  """Runs (name, flags) in one go; RUN in a flag is the run folder."""
  folder = tmp_path_factory.mktemp('commands')

  def run(*given: tuple[str, list[str]]) -> list[Ended]:
    place = folder / str(len(list(folder.iterdir())))
    place.mkdir()
    (place / 'run.file').write_text('')
    cases = [(name, str(place / str(i)), [f.replace('RUN', str(place / 'run')) for f in flags])
             for i, (name, flags) in enumerate(given)]
    done = subprocess.run([sys.executable, '-c', DRIVER], input=json.dumps(cases), cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    texts = [[Path(f'{where}.{n}').read_text().replace(str(place / 'run'), 'RUN') for n in (1, 2)]
             for _, where, _ in cases]
    return [Ended(status, *text) for status, text in
            zip(json.loads(done.stdout.splitlines()[-1]), texts)]
  return run


@pytest.fixture(scope='module')
def refused(commands):
  return dict(zip(REFUSED, commands(*(('show', flags) for flags, _ in REFUSED.values()))))


@pytest.mark.parametrize('name', REFUSED)
def test_what_is_wrong_is_one_line_and_status_2(refused, name):
  ended = refused[name]
  assert ended.status == 2
  (line,) = (l for l in ended.error.splitlines() if not TIME.match(l))
  assert line.startswith('error: ') and REFUSED[name][1] in line


def test_flags_become_settings_and_a_run_goes_on_with_its_own(commands):
  first, second, base = commands(
      ('show', ['--workdir=RUN', '--config.seed=4', '--config.policy.grid=3']),
      ('show continues', ['--workdir=RUN', '--config.policy.grid=5']),
      ('show continues', ['--workdir=RUN', '--config=configs/base.py']))
  assert [json.loads(x.out) for x in (first, second, base)] == [
      ['RUN', 4, 3], ['RUN', 4, 5], ['RUN', 0, 6]]
  assert first.status == second.status == base.status == 0


def test_folders_may_begin_at_home(commands, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  first, second = commands(('show', ['--workdir=~/a', '--config.seed=4']),
                           ('show continues', ['--workdir=~/a', '--store=~/b']))
  assert [json.loads(x.out)[:2] for x in (first, second)] == [[str(tmp_path / 'a'), 4]] * 2
  assert (tmp_path / 'a' / 'run.json').is_file()


def test_what_is_watched_follows_from_flags_and_enters_no_setting(commands):
  plain, both = commands(('watched', ['--workdir=RUN']), ('watched', [
      '--workdir=RUN', '--watch=tensorboard', '--profile']))
  assert json.loads(plain.out) == [[], False, 'RUN']
  assert json.loads(both.out) == [['tensorboard'], True, 'RUN']


def test_a_line_of_the_log_is_its_time_and_what_it_says(commands):
  plain, spared, full = commands(('logs', ['--workdir=RUN']), ('spared', ['--workdir=RUN']),
                                 ('spared', ['--workdir=RUN', '--v=1']))
  for ended, told in ((plain, ['told', 'warning: careful']), (spared, ['warning: careful']),
                      (full, ['told', 'warning: careful'])):
    lines = [x for x in ended.error.splitlines() if 'told' in x or 'careful' in x]
    assert all(TIME.match(x) for x in lines) and [x[9:] for x in lines] == told


def test_a_module_tells_what_goes_on_and_others_where_it_is_silent():
  now = [100.0]
  sparing = Sparing('a.program', clock=lambda: now[0])

  def passes(module, level=logging.INFO):
    return sparing.filter(logging.LogRecord('absl', level, f'{module}.py', 1, '', (), None))
  assert not passes('other') and passes('program') and passes('other', logging.WARNING)
  now[0] += SILENCE - 1
  assert not passes('other')
  now[0] += 1
  assert passes('other') and not passes('other')
  now[0] += SILENCE - 1
  assert passes('program')
  now[0] += 1
  assert not passes('other')


def test_exit_statuses(commands):
  flags = ['--workdir=RUN']
  ours, theirs, interrupted, terminated, words, few = commands(
      ('ours', flags), ('theirs', flags), ('interrupted', flags), ('terminated', flags),
      ('words', ['a', 'b']), ('words', ['a']))
  for fault in (ours, theirs):  # nothing that a user can mend
    assert fault.status == 1 and 'Traceback' in fault.error
  for ended, status in ((interrupted, 130), (terminated, 143)):
    assert ended.status == status
    assert ended.error.splitlines()[-1] == 'interrupted; the same command resumes'
    assert 'Traceback' not in ended.error
  assert (words.status, json.loads(words.out)) == (0, ['a', 'b'])
  assert few.status == 2 and "arguments must be RUN FILE, got ['a']" in few.error


@pytest.mark.parametrize('name', sorted(p.stem for p in (ROOT / 'experiments').glob('[a-z]*.py')))
def test_every_script_helps(name):
  done = subprocess.run([sys.executable, '-m', f'experiments.{name}', '--help'], cwd=ROOT,
                        capture_output=True, text=True, check=False)
  assert done.returncode == 0 and not done.stderr
  about, flags = done.stdout.split('\nFlags:\n')
  assert f'python -m experiments.{name}' in about
  source = (ROOT / f'experiments/{name}.py').read_text()
  own = set(re.findall(r"DEFINE_\w+\(\s*'(\w+)'", source))
  if 'command_line.start' in source:
    own |= {'config', 'workdir', 'store', 'mirror'}
    assert re.search(r"--config: settings; .* \(default: 'configs/\w+.py'\)", flags)
  shown = set(re.findall(r'^  --(?:\[no\])?(\w+): .', flags, flags=re.M))
  assert own <= shown and (own or not shown)
  assert max(map(len, done.stdout.splitlines())) <= 100
