"""A run folder: what is shared between runs, what damage does to it, and what a kill does not."""

import ast
import json
import os
from pathlib import Path
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import jobrec_jax
from jobrec_jax.command_line import ending
from jobrec_jax.pipeline import sections
from jobrec_jax.pipeline.record import FILE, read_record
from jobrec_jax.pipeline.report import report
from jobrec_jax.pipeline.road import road
from jobrec_jax.pipeline.run import Run, settings_of
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.report.canvas import Picture
from jobrec_jax.schema import streams
from jobrec_jax.schema.settings import build
from tests.pipeline.tiny import tiny_settings

ROOT = Path(__file__).parents[2]


def differing(**sections) -> set[str]:
  """The stages whose result a change of settings makes new."""
  a, b = road(tiny_settings()), road(tiny_settings(**sections))
  keys = {s.name: s.key for s in [*a.evaluation.walk(), *a.certified.walk()]}
  others = {s.name: s.key for s in [*b.evaluation.walk(), *b.certified.walk()]}
  return {name for name in {*keys, *others} if keys.get(name) != others.get(name)}


def test_late_settings_train_nothing_again():
  assert differing(evaluate={'level': 0.9}) == {'evaluation'}
  assert differing(certify={'alpha': 0.6}) == {'certified'}
  assert differing(certify={'draws': 21}) == set()
  assert differing(policy={'epochs': 61}) == {'policy', 'scores', 'evaluation', 'certified'}
  assert differing(policy={'grid': 5}) == {'evaluation'}
  late = differing(policy={'held_out': 13})
  assert not late & {'policy', 'inputs', 'cooperative'} and 'lists' in late
  assert differing(features={'batch': 16}) == differing(log_every=5) == set()
  assert differing(mesh={'data': 1}) == differing(save_seconds=1.0) == set()


def test_early_settings_make_what_follows_new():
  late = differing(experts={'task_weights': 'fixed'})
  assert 'cooperative' in late and 'warm_up' not in late and 'tokenizer' not in late
  assert 'data' not in differing(seed=4) and 'warm_up' in differing(seed=4)
  assert {'data', 'tokenizer', 'policy', 'evaluation'} <= differing(data={'seed': 6})
  assert 'censoring' in differing(experts={'censoring': 'none'})
  assert 'warm_up' not in differing(experts={'ips_clip': 4.0})


DRAWERS = {'rng', 'seed32', 'pair_uniform', 'pair_normal', 'draw_lists'}


def stream_names() -> list[str]:
  """The name of every stream that the source draws from, those of arguments as '{}'."""
  names = []
  for path in (ROOT / 'jobrec_jax').rglob('*.py'):
    for call in ast.walk(ast.parse(path.read_text())):
      if isinstance(call, ast.Call) and ast.unparse(call.func).split('.')[-1] in DRAWERS:
        for given in call.args:
          if isinstance(given, ast.Constant) and isinstance(given.value, str):
            names.append(given.value)
          elif isinstance(given, ast.JoinedStr):
            names.append(''.join(p.value if isinstance(p, ast.Constant) else '{}'
                                 for p in given.values))
  return names


def test_no_two_uses_share_a_stream():
  """But for two that mean to: the sweep's heads are those that the policy would be."""
  names = stream_names()
  assert {'stage 2 lists', 'held-out lists', 'certificate lists', 'certificate check',
          '{}, {} lists of one {}', 'exposed', 'canary'} <= set(names)
  shared = {name for name in names if names.count(name) > 1}
  assert shared == {'policy'}


def test_the_streams_of_seeds_never_meet():
  names = set(stream_names())
  assert len(names) > 20
  drawn = {(seed, name): streams.rng(seed, name).random() for seed in range(10) for name in names}
  assert len(set(drawn.values())) == len(drawn)
  small = {streams.seed32(seed, name) for seed in range(10) for name in names}
  assert len(small) == len(drawn)


def test_keys_of_stages_and_seeds_never_meet():
  import jax

  from jobrec_jax.train.state import stream_key
  keys = {tuple(jax.random.key_data(stream_key(jax.random.key(seed), name, step)).tolist())
          for seed in range(5) for name in ('init', 'warm_up', 'cooperative', 'policy', 'dropout')
          for step in range(3)}
  assert len(keys) == 5 * 5 * 3


def test_run_json_names_what_is_there_and_nothing_else(tmp_path):
  settings = tiny_settings()
  run = Run(tmp_path / 'run', settings)
  run.get(run.road.lists)
  record = read_record(run.folder)
  assert record['artefacts'] == {'data': run.road.data.key, 'lists': run.road.lists.key}
  assert all((run.store.folder / key / ABOUT).is_file() for key in record['artefacts'].values())
  assert record['report'] == {} and record['store'] == 'store'
  assert build(Settings, record['settings']) == settings


@pytest.mark.parametrize('changes, message', [
    ({'market': {'exposure': 1e-4}}, 'the log must hold applications'),
    ({'market': {'exposure': 0.02, 'preference_mean': -9.0}}, 'got none of them in 52 pairs')])
def test_sizes_are_checked_before_anything_is_trained(tmp_path, changes, message):
  run = Run(tmp_path / 'run', tiny_settings(**changes))
  for stage in (run.road.warm_up, run.road.policy):
    with pytest.raises(ValueError, match=message):
      run.get(stage)
  assert {p.name.split('-')[0] for p in run.store.folder.iterdir() if p.name[0] != '.'} == {'data'}


@pytest.mark.slow
def test_a_second_call_finds_all_of_it(tiny_run):
  before = {p: p.stat().st_mtime_ns for p in tiny_run.folder.rglob('*') if p.is_file()}
  assert tiny_run.is_complete() and settings_of(tiny_run.folder) == tiny_settings()
  report(tiny_run)
  made = {p for p in tiny_run.store.folder.rglob('*') if p.is_file()
          and before.get(p) != p.stat().st_mtime_ns and '.locks' not in p.parts}
  assert not made
  assert not Run(tiny_run.folder, tiny_settings(seed=9)).is_complete()
  assert not Run(tiny_run.folder, tiny_settings(log_every=7)).is_complete()  # keys as before


@pytest.mark.slow
def test_the_record_names_every_artefact(tiny_run):
  record = read_record(tiny_run.folder)
  assert {p.name for p in tiny_run.store.folder.iterdir() if not p.name.startswith('.')} == set(
      record['artefacts'].values())
  assert set(record['report']) == {'results.json', 'results.md', 'report.html'}
  names = ('tradeoff', 'families', 'predicted_frontier', 'control', 'ranking', 'separation',
           'reliability', 'training', 'policy_training')
  for name in names:
    assert (tiny_run / f'figures/{name}.png').read_bytes().startswith(b'\x89PNG')
    assert (tiny_run / f'figures/{name}.pdf').read_bytes().startswith(b'%PDF')
  page = (tiny_run / 'report.html').read_text()
  assert page.count('<figure ') == len(names) and page.count('<svg') == 2 * len(names)
  links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)|@import', page)
  assert links and all((a or b).startswith('#') for a, b in links)


@pytest.mark.slow
def test_a_run_that_moved_works_and_shares(tiny_folder, tmp_path):
  moved = tmp_path / 'elsewhere/run'
  shutil.copytree(tiny_folder, moved)
  assert Run(moved, tiny_settings()).is_complete()
  other = Run(tmp_path / 'other', tiny_settings(evaluate={'level': 0.7}), moved / 'store')
  trained = {p.name for p in (moved / 'store').iterdir()}
  report(other)
  new = {p.name for p in (moved / 'store').iterdir()} - trained
  assert {name.split('-')[0] for name in new} == {'evaluation'}
  assert jobrec_jax.load(tmp_path / 'other').recommend(
      Run(moved, tiny_settings()).get(other.road.data).dataset.candidates[0], tau=0.0)


def damaged(content: bytes, rng: random.Random) -> bytes:
  flipped = bytearray(content or b'x')
  flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
  return rng.choice([content[:rng.randrange(len(content) + 1)], b'', bytes(flipped),
                     b'{"b": NaN, "t": 0}', b'\x00' * len(content), content + b'\n[]'])


@pytest.mark.slow
def test_damage_never_gives_a_traceback_or_a_wrong_answer(tiny_folder, tmp_path, monkeypatch):
  """Forty files of a run folder, each damaged in its own copy."""
  monkeypatch.setattr(sections, 'save', lambda *_: Picture('', '', 1.0))  # figures read no file
  rng = random.Random(0)
  run = Run(tiny_folder, tiny_settings())
  candidate = run.get(run.road.data).dataset.candidates[7]
  expected = [(j.job_id, j.score) for j in
              jobrec_jax.load(tiny_folder).recommend(candidate, tau=0.41)[0].jobs]
  rows = json.loads((tiny_folder / 'results.json').read_text())
  files = sorted(p.relative_to(tiny_folder) for p in tiny_folder.rglob('*') if p.is_file()
                 and '.locks' not in p.parts)
  parts = ('tokenizer', 'cooperative', 'calibration', 'policy', 'catalogue')
  needed = [f for f in files if f.name == FILE or (
      f.parts[0] == 'store' and f.parts[1].split('-')[0] in parts)]
  refused = 0
  for n in range(40):
    name = rng.choice(needed if n % 2 else files)
    copy = tmp_path / 'copy'
    shutil.copytree(tiny_folder, copy, copy_function=os.link)
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    if rng.random() < 0.9:
      (copy / name).write_bytes(damaged(content, rng))
    try:
      ranked = jobrec_jax.load(copy).recommend(candidate, tau=0.41)[0].jobs
      assert [(j.job_id, j.score) for j in ranked] == expected, name
    except ValueError as error:
      assert ending(error)[1] == 2 and '\n' not in str(error) and str(copy) in str(error), name
      refused += 1
    try:
      report(Run(copy, tiny_settings()))
      assert json.loads((copy / 'results.json').read_text()) == rows, name
    except ValueError as error:
      assert ending(error)[1] == 2 and '\n' not in str(error) and str(copy) in str(error), name
    shutil.rmtree(copy)
  assert refused > 10


KILLS = int(os.environ.get('JOBREC_KILLS', '3'))
ROAD = ('from tests.pipeline.tiny import tiny_settings; from jobrec_jax.pipeline.run import Run; '
        'from jobrec_jax.pipeline.report import report; import sys; '
        'report(Run(sys.argv[1], tiny_settings(save_seconds=0.2)))')


def start(folder: Path) -> subprocess.Popen:
  env = os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
  log = (folder.parent / f'{folder.name}.log').open('a')
  return subprocess.Popen([sys.executable, '-c', ROAD, str(folder)], cwd=ROOT, env=env,
                          stdout=log, stderr=subprocess.STDOUT)


def contents(folder: Path) -> dict[str, dict[str, str]]:
  """artefact -> file -> digest; metrics of steps that were done twice stand there twice."""
  found = {}
  for about in folder.glob(f'store/*/{ABOUT}'):
    files = json.loads(about.read_text())['files']
    found[about.parent.name] = {k: v for k, v in files.items() if k != 'metrics.jsonl'}
  return found


@pytest.mark.slow
def test_two_processes_share_a_folder_and_kills_change_no_bit(tmp_path):
  """Two at once make one road; then SIGKILL at random moments of it, and the same command again."""
  begun = time.monotonic()
  both = [start(tmp_path / 'whole') for _ in range(2)]
  assert [process.wait() for process in both] == [0, 0], (tmp_path / 'whole.log').read_text()
  length, rng = time.monotonic() - begun, np.random.default_rng(0)
  killed = 0
  while killed < KILLS:
    process = start(tmp_path / 'killed')
    try:
      process.wait(rng.uniform(2, max(8, 1.5 * length / KILLS + 4)))
      shutil.rmtree(tmp_path / 'killed')  # it came through: the next kills are of a new road
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
      killed += 1
  assert start(tmp_path / 'killed').wait() == 0, (tmp_path / 'killed.log').read_text()
  assert contents(tmp_path / 'killed') == contents(tmp_path / 'whole')
  assert len(contents(tmp_path / 'whole')) > 14


@pytest.mark.slow
def test_a_policy_that_diverges_is_one_line_and_blocks_nothing(tiny_folder, tmp_path):
  shutil.copytree(tiny_folder, tmp_path / 'run')
  bad = Run(tmp_path / 'run', tiny_settings(policy={'learning_rate': 1e30}))
  with pytest.raises(ValueError, match=r'lower policy\.learning_rate'):
    bad.get(bad.road.policy)
  assert not bad.store.has(bad.road.policy)
  good = Run(tmp_path / 'run', tiny_settings())
  assert good.get(good.road.policy).policy.knots.shape == (5,)
