"""The commands that documents and scripts show, and a driver that parses or runs them.

The driver imports once and forks for each command: what is imported takes longer than what is
tested.
"""

import ast
from collections.abc import Iterator, Sequence
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(p for pattern in ('README.md', 'BUILD.md', 'docs/*.md', 'benchmarks/*.md')
               for p in ROOT.glob(pattern))
SOURCES = sorted(p for pattern in ('experiments/*.py', 'benchmarks/*.py', 'configs/**/*.py')
                 for p in ROOT.glob(pattern))
COMMAND = re.compile(r'python3? -m ((?:experiments|benchmarks|jobrec_jax)\.[\w.]*\w)([^`\n]*)')
# A value that stands for any other -> one that can be parsed.
PLACEHOLDERS = {'--config=FILE': '--config=configs/base.py', '--study=...': '--study=STUDY.py',
                '--config.data.schema=FOLDER/schema.toml':
                '--config.data.schema=examples/shifts/schema.toml', '--process=$i': '--process=0'}
SHELL = ('bash', 'cd', 'dask', 'export', 'git', 'kubectl', 'make', 'pip', 'python', 'sbatch',
         'source', 'srun')

DRIVER = '''
import json, os, pathlib, runpy, sys, traceback
sys.path.insert(0, os.getcwd())
import jax, matplotlib.figure, optax, scipy.stats, sklearn.linear_model
import configs.base, jobrec_jax.pipeline.report, jobrec_jax.pipeline.run
from absl import app, flags
from jobrec_jax import command_line

def parse_only(main, argv=None, flags_parser=flags.FLAGS):
  flags_parser(sys.argv)
  if 'config' in flags.FLAGS:
    command_line.read_settings(pathlib.Path('no such run'), False)

results = []
for module, arguments, execute, where, place in json.load(sys.stdin):
  pid = os.fork()
  if not pid:
    for number in (1, 2):
      os.dup2(os.open(f'{place}.{number}', os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(where)
    sys.argv[1:] = arguments
    if not execute:
      app.run = parse_only
    status = 0
    try:
      runpy.run_module(module, run_name='__main__', alter_sys=True)
    except SystemExit as end:
      status = 0 if end.code is None else end.code
    except BaseException as error:
      known = command_line.ending(error)
      if known is None:
        traceback.print_exc()
      line, status = known or ('', 99)
      print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  results.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(results))
'''


class Command(NamedTuple):
  """A command line.

  Attributes:
    where: the file that shows it.
    module: what `python -m` runs.
    arguments: behind it.
    named: whether it stands in a sentence without any argument, as a name.
  """

  where: str
  module: str
  arguments: tuple[str, ...]
  named: bool = False

  def __str__(self) -> str:
    return f'{self.where}: {shlex.join((self.module, *self.arguments))}'


class Ended(NamedTuple):
  """How a command ended."""

  status: int
  out: str
  error: str


def commands_in(text: str, where: str) -> Iterator[Command]:
  """Every `python -m` command of a text, placeholders filled in.

  Lines that end in a backslash go on; two spaces, a pipe, '&&', '>' or '#' end a command; what is
  in brackets may be left out and is not; '...' is what the line above began with.
  """
  last = ''
  for line in re.sub(r'\s*\\\n\s*', ' ', text).splitlines():
    if line.lstrip().startswith('... --') and last:
      line = line.replace('...', f'python -m {last}', 1)
    for match in COMMAND.finditer(line):
      last, rest = match[1], re.split(r'\s{2,}|&&|[|>#]', match[2])[0]
      words = [PLACEHOLDERS.get(w, w) for w in shlex.split(re.sub(r'[\[\]]', '', rest))]
      arguments = tuple(w for w in words if w != '...')
      yield Command(where, last, arguments, not arguments and line[:match.start()].endswith('`'))


def documented() -> list[Command]:
  """All commands of pages and docstrings."""
  found = []
  for path in PAGES:
    found += commands_in(path.read_text(), str(path.relative_to(ROOT)))
  for path in SOURCES:
    text = ast.get_docstring(ast.parse(path.read_text())) or ''
    found += commands_in(text, str(path.relative_to(ROOT)))
  return found


def fences(path: Path) -> list[tuple[str, str]]:
  """(language, text) of each code block of a page."""
  return re.findall(r'^```(\w*)\n(.*?)^```', path.read_text(), flags=re.S | re.M)


def shell_blocks(path: Path) -> list[str]:
  """The blocks of a page that a shell is to read."""
  return [text for language, text in fences(path)
          if language in ('bash', 'sh') or (not language and text.split(maxsplit=1)[0] in SHELL)]


def drive(cases: Sequence[tuple[Command, bool, Path]], folder: Path) -> list[Ended]:
  """Parses commands, or runs them: (command, whether it is run, in which folder)."""
  given = [(c.module, c.arguments, execute, str(where), str(folder / str(i)))
           for i, (c, execute, where) in enumerate(cases)]
  done = subprocess.run([sys.executable, '-c', DRIVER], input=json.dumps(given), cwd=ROOT,
                        capture_output=True, text=True, check=False,
                        env=os.environ | {'PYTHONPATH': str(ROOT)})
  assert done.returncode == 0, done.stderr
  return [Ended(status, *(Path(f'{place}.{n}').read_text() for n in (1, 2)))
          for status, (*_, place) in zip(json.loads(done.stdout.splitlines()[-1]), given)]
