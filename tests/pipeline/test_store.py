"""The store makes each result once, whole, and trusts nothing that was changed after."""

import json
import os
from pathlib import Path
import random
import subprocess
import sys
import textwrap

import filelock
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import ABOUT, Store
from jobrec_jax.schema.files import read_object, replacing, write_json, write_text

ROOT, RENAME, READ = Path(__file__).parents[2], os.replace, read_object


class Counted:
  """Stages that count how often they are made: 'double' stands on 'number'."""

  def __init__(self):
    self.made = []

  def number(self, value=3, version=1):
    def make(bench):
      self.made.append('number')
      write_json(bench.folder / 'value.json', bench.settings['value'])
      write_text(bench.folder / 'more/note.txt', 'x' * 100)
    return Stage('number', version, {'value': value}, {}, make,
                 lambda bench: json.loads((bench.folder / 'value.json').read_text()))

  def double(self, number, by=2):
    def make(bench):
      self.made.append('double')
      write_json(bench.folder / 'value.json', bench.settings['by'] * bench.inputs['x'])
    return Stage('double', 1, {'by': by}, {'x': number}, make,
                 lambda bench: json.loads((bench.folder / 'value.json').read_text()))


def test_a_result_is_made_once_and_found_by_the_next_store(tmp_path):
  stages = Counted()
  assert Store(tmp_path).get(stages.double(stages.number())) == 6
  assert Store(tmp_path).get(stages.double(stages.number())) == 6
  assert stages.made == ['number', 'double']


def test_blas_has_one_thread_while_a_stage_is_made_and_what_it_had_afterwards(tmp_path):
  def threads():
    return {pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'}
  with threadpool_limits(2, 'blas'):
    found = []
    stage = Stage('fit', 1, {}, {}, lambda bench: found.append(threads()), lambda bench: None)
    Store(tmp_path).make(stage)
    assert found == [{1}] and threads() == {2}


def test_what_differs_late_is_made_anew_and_nothing_before_it(tmp_path):
  stages, store = Counted(), Store(tmp_path)
  store.get(stages.double(stages.number()))
  assert store.get(stages.double(stages.number(), by=5)) == 15
  assert stages.made == ['number', 'double', 'double']
  assert store.get(stages.double(stages.number(version=2))) == 6
  assert stages.made == ['number', 'double', 'double', 'number', 'double']


def test_a_plan_says_what_is_there(tmp_path):
  stages, store = Counted(), Store(tmp_path)
  double = stages.double(stages.number())
  assert [(p.stage.name, p.there, p.seconds) for p in store.plan([double])] == [
      ('number', False, None), ('double', False, None)]
  store.get(double.inputs['x'])
  (number, later) = store.plan([double])
  assert number.there and number.seconds >= 0 and not later.there


def test_an_artefact_says_where_it_comes_from(tmp_path):
  store, number = Store(tmp_path), Counted().number()
  store.make(number)
  about = json.loads((store.path(number) / ABOUT).read_text())
  assert set(about['files']) == {'value.json', 'more/note.txt'}
  assert {'seconds', 'peak_memory_mib', 'commit', 'versions', 'python', 'device'} == set(
      about['provenance'])
  assert about['identity'] == number.identity


def test_an_unfinished_attempt_is_resumed_in_its_own_folder(tmp_path):
  tries = []

  def make(bench):
    tries.append(sorted(p.name for p in bench.folder.iterdir()))
    write_text(bench.folder / 'half.txt', 'half')
    if len(tries) == 1:
      raise ValueError('stopped')
    write_text(bench.folder / 'whole.txt', 'whole')
  stage = Stage('slow', 1, {}, {}, make, lambda bench: 'read')
  with pytest.raises(ValueError, match='stopped'):
    Store(tmp_path).get(stage)
  assert not Store(tmp_path).has(stage)
  assert Store(tmp_path).get(stage) == 'read'
  assert tries == [['.seconds.json'], ['.seconds.json', 'half.txt']]
  assert not list((tmp_path / '.making').iterdir())


def test_what_a_killed_writer_left_is_no_part_of_the_result(tmp_path):
  number = Counted().number()
  making = tmp_path / '.making' / number.key
  writers = [replacing(making / name) for name in ('value.json', 'more/note.txt')]
  for writer in writers:
    writer.__enter__().write('half')
  assert len(list(making.rglob('.*'))) == 2
  Store(tmp_path).make(number)
  about = json.loads((tmp_path / number.key / ABOUT).read_text())
  assert set(about['files']) == {'value.json', 'more/note.txt'}
  assert Store(tmp_path).get(number) == 3


@pytest.mark.parametrize('look', [1, 2, 3, 4])
def test_another_process_may_finish_before_any_look(tmp_path, monkeypatch, look):
  """At whatever is there until the lock is taken."""
  stages, store, looks = Counted(), Store(tmp_path), []
  number, path, alone = stages.number(), Store.path, Store._alone

  def look_at(self, stage):
    if self is store:
      looks.append('path')
      if len(looks) == look and 'lock' not in looks:
        Store(tmp_path).make(number)
    return path(self, stage)

  def locked(self, stage):
    looks.append('lock')
    return alone(self, stage)
  monkeypatch.setattr(Store, 'path', look_at)
  monkeypatch.setattr(Store, '_alone', locked)
  assert store.get(number) == 3 and stages.made == ['number']


def test_a_holder_may_be_done_before_it_is_named(tmp_path, monkeypatch, caplog):
  number = Counted().number()
  lock = tmp_path / f'.locks/{number.key}.lock'
  lock.parent.mkdir()
  held = filelock.FileLock(lock)
  held.acquire()
  lock.with_suffix('.json').write_text('{"process": 7, "host": "here"}')

  def open_too_late(path):
    path.unlink()
    held.release()
    return READ(path)
  monkeypatch.setattr('jobrec_jax.pipeline.store.read_object', open_too_late)
  assert Store(tmp_path).get(number) == 3
  assert 'waiting for process ? on ?' in caplog.text


def test_a_folder_has_its_name_only_when_all_of_it_is_there(tmp_path, monkeypatch):
  """Whoever dies at the renaming leaves an attempt, not an artefact without its digests."""
  number, seen = Counted().number(), []
  monkeypatch.setattr('jobrec_jax.pipeline.store.os.replace', lambda here, there: (
      seen.append((sorted(p.name for p in Path(here).iterdir()), Path(there).exists()))
      if Path(there).name == number.key else RENAME(here, there)))
  Store(tmp_path).make(number)
  assert seen == [([ABOUT, 'more', 'value.json'], False)]
  assert not Store(tmp_path).has(number) and not (tmp_path / number.key).exists()


def test_seconds_of_interrupted_attempts_count(tmp_path, monkeypatch):
  now, tries = [100.0], []
  monkeypatch.setattr('jobrec_jax.pipeline.provenance.time.monotonic', lambda: now[0])

  def make(bench):
    tries.append(1)
    now[0] += 40.0
    write_text(bench.folder / 'some.txt', 'x')
    if len(tries) < 3:
      raise ValueError('stopped')
  stage, store = Stage('slow', 1, {}, {}, make, lambda bench: None), Store(tmp_path)
  for _ in range(2):
    with pytest.raises(ValueError, match='stopped'):
      store.make(stage)
  store.make(stage)
  about = json.loads((store.path(stage) / ABOUT).read_text())
  assert about['provenance']['seconds'] == 120 and set(about['files']) == {'some.txt'}


def test_a_value_is_read_once(tmp_path):
  reads = []
  stage = Stage('one', 1, {}, {}, lambda bench: write_text(bench.folder / 'x', 'x'),
                lambda bench: reads.append(bench.folder.name))
  store = Store(tmp_path)
  for _ in range(3):
    store.get(stage)
  assert reads == [stage.key]


def test_a_refused_start_leaves_nothing_behind(tmp_path):
  def make(bench):
    raise ValueError('the data are wrong')
  with pytest.raises(ValueError, match='the data are wrong'):
    Store(tmp_path / 'run/store').get(Stage('data', 1, {}, {}, make, lambda bench: None))
  assert not (tmp_path / 'run').exists()


def damages(path: Path):
  """Ways in which a file goes wrong, by name."""
  data = path.read_bytes()
  yield 'cut', data[:len(data) // 2]
  yield 'empty', b''
  flipped = bytearray(data)
  flipped[len(data) // 2] ^= 1
  yield 'flipped', bytes(flipped)
  yield 'foreign', b'{"a": NaN}'
  yield 'longer', data + b' '


@pytest.mark.parametrize('name', ['value.json', 'more/note.txt', ABOUT])
def test_nothing_damaged_is_read(tmp_path, name):
  number = Counted().number()
  Store(tmp_path).make(number)
  path = tmp_path / number.key / name
  whole = path.read_bytes()
  for damage, content in damages(path):
    path.write_bytes(content)
    if name == ABOUT and damage in ('flipped', 'longer'):
      continue  # may hit what nothing depends on; see the test of all bits below
    with pytest.raises(ValueError, match=f'{number.key}'):
      Store(tmp_path).get(number)
  path.unlink()
  with pytest.raises(ValueError, match='delete the folder'):
    Store(tmp_path).get(number)
  path.write_bytes(whole)
  (path.parent / 'stranger').write_text('')
  with pytest.raises(ValueError, match='a file that is not its own'):
    Store(tmp_path).get(number)


def test_a_bit_of_artefact_json_never_changes_a_value(tmp_path):
  number = Counted().number()
  Store(tmp_path).make(number)
  path = tmp_path / number.key / ABOUT
  whole, rng = path.read_bytes(), random.Random(0)
  for _ in range(200):
    data = bytearray(whole)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))
    try:
      assert Store(tmp_path).get(number) == 3
    except ValueError as error:
      assert number.key in str(error)


TWO = '''
import json, sys, time
from pathlib import Path
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import Store
from jobrec_jax.schema.files import write_json
place, log = map(Path, sys.argv[1:])

def make(bench):
  with log.open('a') as f:
    f.write('made\\n')
  time.sleep(1)
  write_json(bench.folder / 'value.json', 7)

stage = Stage('slow', 1, {}, {}, make, lambda b: json.loads((b.folder / 'value.json').read_text()))
print(Store(place).get(stage))
'''


def start(code: str, *words: str) -> subprocess.Popen:
  return subprocess.Popen([sys.executable, '-c', textwrap.dedent(code), *words], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=os.environ | {'PYTHONPATH': str(ROOT)})


def test_of_two_processes_one_makes_and_both_get(tmp_path):
  words = str(tmp_path / 'store'), str(tmp_path / 'log')
  both = [start(TWO, *words) for _ in range(2)]
  outs = [p.communicate() for p in both]
  assert [p.returncode for p in both] == [0, 0], outs
  assert [out for out, _ in outs] == ['7\n', '7\n']
  assert (tmp_path / 'log').read_text() == 'made\n'
  assert any('waiting for process' in err for _, err in outs)


def test_a_dead_holder_loses_its_lock(tmp_path):
  words = str(tmp_path / 'store'), str(tmp_path / 'log')
  first = start(TWO, *words)
  while not (tmp_path / 'log').exists():
    assert first.poll() is None
  first.kill()
  first.communicate()
  second = start(TWO, *words)
  out, err = second.communicate()
  assert (second.returncode, out) == (0, '7\n'), err
