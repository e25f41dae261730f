"""Processes killed at random moments of every stage: what is lost, and what the resumed runs give.

  python -m benchmarks.kills --out=runs/kills      goes on with the kills that are not kept yet
  python -m benchmarks.kills                       writes the table of RESULTS.md again

Chains of runs: each run of the quickstart is killed once, the next resumes it, the last ends, and
its figures and losses are compared with those of an undisturbed run. A kill comes a random time
after its stage began, within what the stage took undisturbed, or behind a random step. Rows go to
benchmarks/results/kills.json.

| kind | what |
|---|---|
| one | SIGKILL to a process drawn among all |
| all | SIGKILL to all at once |
| term | SIGTERM to a process drawn among all |
"""

from collections.abc import Iterator, Mapping, Sequence
import os
from pathlib import Path
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

from absl import flags

from jobrec_jax.command_line import launch
from jobrec_jax.pipeline import provenance
from jobrec_jax.schema.files import digest, read_json, write_rows, write_text
from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.speed import PREFIX

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks/results/kills.json'
PAGE = ROOT / 'benchmarks/RESULTS.md'
MARK = re.compile(r'(<!-- KILLS -->\n).*?(<!-- end -->)', re.S)
SMALL = {
    'market.candidates': 60, 'market.jobs': 20, 'log_every': 1, 'save_seconds': 0.3,
    'tokenizer.vocab_size': 600, 'tokenizer.candidate': 64, 'tokenizer.job': 40,
    'tokenizer.alignment': 20, 'warm_up.steps': 30, 'warm_up.batch': 8, 'cooperative.steps': 30,
    'cooperative.batch': 8, 'policy.list_length': 8, 'policy.lists': 60, 'policy.held_out': 24,
    'policy.grid': 4, 'features.batch': 8}
# What a figure may differ by where the devices of a chain change, as in the tests.
TOLERANCE = 1e-3
LONGEST = 600  # seconds that a run may take until its kill, or its end
TRAINED = 'warm_up', 'cooperative'
NAMED = re.compile(r'(process \d+ (?:on|at) .*)')


class Kill(NamedTuple):
  """A run of so many processes, of so many devices each, and what ends it in which stage."""

  stage: str
  kind: str
  processes: int = 2
  devices: int = 1


RIVAL = 'rival-logistic-regression-with-words'
# The run that ends a chain has as many processes and devices as its first.
CHAINS = {
    'two': [Kill('data', 'one'), Kill('warm_up', 'one'), Kill('warm_up', 'all'),
            Kill('warm_up', 'term'), Kill('censoring', 'one'), Kill('cooperative', 'one'),
            Kill('cooperative', 'term'), Kill('calibration', 'all'), Kill('policy', 'one'),
            Kill('scores', 'one'), Kill('evaluation', 'term'), Kill('evaluation', 'one'),
            Kill('certified', 'one'), Kill('report', 'one')],
    'changing': [Kill('tokenizer', 'all', 1, 2), Kill('warm_up', 'one', 2, 1),
                 Kill('warm_up', 'term', 1, 1), Kill('cooperative', 'one', 2, 1),
                 Kill('cooperative', 'all', 1, 2), Kill('inputs', 'one', 2, 1),
                 Kill('logged', 'all', 1, 1), Kill('frontier', 'one', 2, 1)],
    'one': [Kill(stage, kind, 1) for stage, kind in (
        ('lists', 'all'), ('warm_up', 'all'), ('cooperative', 'term'), ('blanked', 'all'),
        ('canaries', 'all'), (RIVAL, 'all'), ('catalogue', 'all'), ('dial', 'all'))],
}
REFERENCES = {'two': (2, 1), 'changing': (1, 1), 'one': (1, 1)}


class Process(NamedTuple):
  """One of a job, and the file of what it says."""

  popen: subprocess.Popen
  log: Path

  def said(self) -> list[str]:
    return self.log.read_text(errors='replace').splitlines()


def started(folder: Path, logs: Path, count: int, devices: int,
            settings: Mapping[str, Any] = SMALL) -> list[Process]:
  """The processes of a job that makes the run of a folder."""
  command = [sys.executable, '-m', 'experiments.quickstart', '--config=configs/small.py',
             f'--workdir={folder}', *(f'--config.{k}={v}' for k, v in settings.items())]
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  environment = os.environ | {
      'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(folder.parent / 'jit'),
      # Programs run for milliseconds here and compile for seconds.
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} '
                   '--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false'}
  logs.mkdir(parents=True, exist_ok=True)
  job = []
  for process in range(count):
    others = [] if count == 1 else [f'--coordinator=127.0.0.1:{port}', f'--processes={count}',
                                    f'--process={process}']
    with open(logs / f'{process}.log', 'w') as log:
      job.append(Process(subprocess.Popen([*command, *others], cwd=ROOT, env=environment,
                                          stdout=subprocess.DEVNULL, stderr=log), Path(log.name)))
  return job


def ended(job: Sequence[Process], seconds: float) -> float | None:
  """Seconds until all have ended; None where some had not within so many, and were killed."""
  start = time.monotonic()
  while any(p.popen.poll() is None for p in job):
    if time.monotonic() > start + seconds:
      send(job, signal.SIGKILL)
      return None
    time.sleep(0.05)
  return time.monotonic() - start


def send(job: Sequence[Process], signum: int) -> None:
  for process in job:
    if process.popen.poll() is None:
      process.popen.send_signal(signum)


def stages(said: Sequence[str]) -> Iterator[str]:
  """The stages that a process says it starts."""
  for line in said:
    found = re.search(r' stage (?:\d+ of \d+: )?([\w-]+), ', line)
    if found or ' report: drawing' in line:
      yield found[1] if found else 'report'


def wait_for(job: Sequence[Process], begun: re.Pattern) -> bool:
  """Whether process 0 says such a line before it ends."""
  until = time.monotonic() + LONGEST
  while time.monotonic() < until:
    over = job[0].popen.poll() is not None
    if any(begun.search(line) for line in job[0].said()):
      return not over
    if over:
      return False
    time.sleep(0.01)
  return False


def durations(folder: Path, logs: Path) -> dict[str, float]:
  """Seconds of each stage of an undisturbed run."""
  found = {}
  for path in folder.glob('store/*/artefact.json'):
    about = read_json(path)
    found[about['identity']['name']] = about['provenance']['seconds']
  clock = [sum(int(x) * unit for x, unit in zip(line[:8].split(':'), (3600, 60, 1)))
           for line in (logs / '0.log').read_text().splitlines()
           if re.match(r'[\d:]{8} report: ', line)]
  return found | {'report': float(clock[-1] - clock[0]) % 86400}


def checkpoints(folder: Path) -> tuple[list[int], int]:
  """Steps whose checkpoints took their names in stages that are not done, and how many did not."""
  names = [path.name for path in folder.glob('store/.making/*/checkpoints/*')]
  return sorted(int(n) for n in names if n.isdecimal()), sum('tmp' in n for n in names)


def there(folder: Path) -> dict[str, str]:
  """Digests of what describes each finished stage."""
  return {path.parent.name: digest(path) for path in folder.glob('store/*/artefact.json')}


def killed_run(plan: Kill, folder: Path, logs: Path, seconds: Mapping[str, float],
               draw: random.Random) -> dict[str, Any]:
  """Starts a job, kills it, and tells how it ended."""
  job = started(folder, logs, plan.processes, plan.devices)
  begun = re.compile(rf' stage (\d+ of \d+: )?{plan.stage}, |{plan.stage}: drawing')
  step, delay = None, draw.uniform(0, seconds[plan.stage])
  which = draw.randrange(plan.processes)
  if plan.stage in TRAINED:
    first = max(checkpoints(folder)[0], default=0)
    last = SMALL[f'{plan.stage}.steps'] - 1
    step, delay = draw.randint(min(first + 1, last), last), draw.uniform(0, 0.3)
    begun = re.compile(rf' {plan.stage}: step {step}/')
  reached = wait_for(job, begun)
  time.sleep(delay if reached else 0)
  alive = all(p.popen.poll() is None for p in job)
  chosen = job if plan.kind == 'all' else [job[which]]
  send(chosen, signal.SIGTERM if plan.kind == 'term' else signal.SIGKILL)
  took = ended(job, LONGEST)
  others = [p for p in job if p not in chosen]
  lines = [found[1] for p in others for line in p.said() if (found := NAMED.search(line))]
  on_disk, unfinished = checkpoints(folder)
  return {'stage': plan.stage, 'kind': plan.kind, 'processes': plan.processes,
          'devices': plan.devices, 'killed': None if plan.kind == 'all' else which,
          'reached': reached and alive, 'step': step, 'delay_s': round(delay, 3),
          'in_stage': ([*stages(job[0].said())] or [None])[-1],
          'ended_s': None if took is None else round(took, 1),
          'status': [p.popen.returncode for p in job], 'said': lines[:1],
          'checkpoints': on_disk, 'unfinished': unfinished}


def resumption(said: Sequence[str], before: Mapping[str, str], row: dict[str, Any]
               ) -> dict[str, Any]:
  """What the run behind a kill began with, to be put into the row of the kill."""
  again = {name.rsplit('-', 1)[0] for name in before} & set(stages(said))
  steps = [int(found[1]) for line in said if (found := re.search(r'resumed at step (\d+) ', line))]
  newest = max(row['checkpoints'], default=None)
  return {'resumed_step': steps[0] if steps else None, 'lost': newest not in (None, *steps[:1]),
          'made_again': sorted(again), 'damaged': sum('damaged' in line for line in said)}


def compared(folder: Path, reference: Path) -> dict[str, Any]:
  """A run's figures and its losses step by step against another's."""
  rows, expected = (read_json(f / 'results.json') for f in (folder, reference))
  figures = [abs(a[k] - b[k]) for a, b in zip(rows, expected, strict=True)
             for k in ('value', 'low', 'high') if a[k] is not None and b[k] is not None]
  missing = [k for a, b in zip(rows, expected, strict=True) for k in b
             if k not in ('value', 'low', 'high', 'tau') and a[k] != b[k]]
  losses, order = [], True
  for stage in TRAINED:
    a, b = ([{k: v for k, v in row.items() if not k.startswith(PREFIX)} for row in
             MetricsWriter(next(f.glob(f'store/{stage}-*/metrics.jsonl'))).read()]
            for f in (folder, reference))
    order &= [r['step'] for r in a] == [r['step'] for r in b]
    losses += [abs(x['train/loss'] - y['train/loss']) for x, y in zip(a, b)]
  return {'same_bits': digest(folder / 'results.json') == digest(reference / 'results.json'),
          'same_rows': not missing, 'same_steps': order, 'greatest_difference': max(figures),
          'greatest_of_losses': max(losses)}


def undisturbed(out: Path, count: int, devices: int) -> Path:
  """An undisturbed run, made where it is not there."""
  folder = out / f'reference-{count}x{devices}'
  if not (folder / 'results.json').is_file():
    job = started(folder, out / 'logs' / folder.name, count, devices)
    if ended(job, LONGEST) is None or any(p.popen.returncode for p in job):
      raise ValueError(f'{folder}: must end well, got the words in {job[0].log}')
  return folder


def chain(name: str, out: Path, seed: int, rows: list[dict], about: dict[str, Any]) -> None:
  """Kills and resumes one run until it ends; rows grow behind each kill."""
  count, devices = REFERENCES[name]
  reference = undisturbed(out, count, devices)
  seconds = durations(reference, out / 'logs' / reference.name)
  folder, kills = out / name, CHAINS[name]
  done = [r for r in rows if r['chain'] == name]
  for k in range(len(done), len(kills)):
    before, logs = there(folder), out / 'logs' / f'{name}-{k}'
    row = killed_run(kills[k], folder, logs, seconds, random.Random(f'{seed} {name} {k}'))
    if k:
      done[-1] |= resumption((logs / '0.log').read_text().splitlines(), before, done[-1])
    row = {'chain': name, 'kill': k, **row, **about}
    rows.append(row)
    done.append(row)
    print({k: v for k, v in row.items() if k not in about}, flush=True)
    write_rows(RESULTS, rows)
  before, logs = there(folder), out / 'logs' / f'{name}-end'
  job = started(folder, logs, count, devices)
  took = ended(job, LONGEST)
  done[-1] |= resumption(job[0].said(), before, done[-1])
  if took is None or any(p.popen.returncode for p in job):
    raise ValueError(f'{folder}: must end well, got the words in {job[0].log}')
  rows.append({'chain': name, 'kind': 'end', **compared(folder, reference), **about})
  print({k: v for k, v in rows[-1].items() if k not in about}, flush=True)
  write_rows(RESULTS, rows)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """A line for each kill, and one for what its chain gave."""
  head = ('chain', 'stage', 'signal', 'to', 'processes × devices', 'ended after, s', 'statuses',
          'named', 'newest checkpoint', 'resumed at')
  lines = [head, ('---',) * len(head)]
  for row in rows:
    if row['kind'] == 'end':
      continue
    to = 'all' if row['kind'] == 'all' else f"process {row['killed']}"
    named = re.match(r'process \d+', row['said'][0])[0] if row['said'] else ''
    lines.append((
        row['chain'], row['in_stage'] or row['stage'],
        'SIGTERM' if row['kind'] == 'term' else 'SIGKILL', to,
        f"{row['processes']} × {row['devices']}",
        'did not' if row['ended_s'] is None else f"{row['ended_s']:.1f}",
        ' '.join(map(str, row['status'])), named, str(max(row['checkpoints'], default='')),
        str(row.get('resumed_step') or '')))
  lines = [f"| {' | '.join(line)} |" for line in lines]
  for row in rows:
    if row['kind'] == 'end':
      same = 'equal to the bit' if row['same_bits'] else (
          f"greatest difference {row['greatest_difference']:.1g}")
      losses = row['greatest_of_losses']
      losses = f'within {losses:.1g}' if losses else 'equal to the bit'
      lines.append(f"\nChain `{row['chain']}` against an undisturbed run: figures {same}, losses "
                   f'of all steps {losses}.')
  return '\n'.join(lines)


def render(page: str, rows: Sequence[Mapping[str, Any]]) -> str:
  return MARK.sub(lambda match: f'{match[1]}{table(rows)}\n{match[2]}', page)


def main(argv: Sequence[str]) -> None:
  del argv
  rows = read_json(RESULTS) if RESULTS.is_file() else []
  if flags.FLAGS.out:
    out = Path(flags.FLAGS.out).absolute()
    about = {'commit': provenance.commit(), 'machine': platform.machine(), 'cores': os.cpu_count(),
             'python': platform.python_version(), **provenance.versions()}
    for name in flags.FLAGS.chains:
      if not any(r['chain'] == name and r['kind'] == 'end' for r in rows):
        chain(name, out, flags.FLAGS.seed, rows, about)
  write_text(PAGE, render(PAGE.read_text(), rows))


if __name__ == '__main__':
  flags.DEFINE_string('out', '', 'folder for runs and logs; empty: nothing is run')
  flags.DEFINE_integer('seed', 0, 'of moments and of who is killed')
  flags.DEFINE_list('chains', list(CHAINS), 'which chains')
  launch(main)
