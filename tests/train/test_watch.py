"""Watching: courses without doubled steps, a trace of the right steps, and the same bits."""

import gzip
import json
import logging
from pathlib import Path
import shutil
import struct
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jobrec_jax.train.watch import TensorBoard, Wandb, Watching
from tests.train import tiny


def events(path: Path):
  """The events of a file: a length with its checksum, then the message with its own."""
  data, at = path.read_bytes(), 0
  while at < len(data):
    length, = struct.unpack_from('<Q', data, at)
    yield Event.FromString(data[at + 12:at + 12 + length])
    at += 16 + length


def course(folder: Path, name: str) -> list[tuple[int, float]]:
  """(step, value) as TensorBoard shows them: a session hides what was logged from its step on."""
  shown: list[tuple[int, float]] = []
  for path in sorted(folder.glob('events.*'), key=lambda p: next(events(p)).wall_time):
    for event in events(path):
      if event.session_log.status == SessionLog.START:
        shown = [(step, value) for step, value in shown if step < event.step]
      shown += [(event.step, v.simple_value) for v in event.summary.value if v.tag == name]
  return shown


def test_steps_that_are_written_again_are_shown_once(tmp_path, monkeypatch):
  """Files are named after the second in which they are made: here another for each attempt."""
  for attempt, steps in enumerate((range(1, 6), range(4, 8))):
    monkeypatch.setattr('tensorboardX.event_file_writer.time.time', lambda n=attempt: 1e9 + n)
    sink = TensorBoard(tmp_path)
    for step in steps:
      sink.write(step, {'train/loss': float(attempt), 'other': 0.0})
    sink.close()
  assert course(tmp_path, 'train/loss') == [(1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0), (5, 1.0),
                                            (6, 1.0), (7, 1.0)]


def watched(folder, steps, watching, **options):
  with watching.stage('tiny-0123', {'seed': 1}) as watch:
    return tiny.run(folder, steps, watch=watch, **options)


@pytest.mark.parametrize('lost', [False, True])
def test_a_watched_stage_has_the_same_bits_and_its_course_is_its_metrics(tmp_path, lost):
  watching = Watching(('tensorboard',), folder=str(tmp_path / 'run'))
  plain = tiny.run(tmp_path / 'plain', 7)
  watched(tmp_path / 'watched', 4, watching)
  if lost:  # with the process that was to write them
    shutil.rmtree(tmp_path / 'run')
  state = watched(tmp_path / 'watched', 7, watching)
  assert tiny.bits(state) == tiny.bits(plain)
  shown = course(tmp_path / 'run/tensorboard/tiny-0123', 'train/loss')
  assert shown == [(row['step'], pytest.approx(row['train/loss']))
                   for row in tiny.rows(tmp_path / 'plain')]
  assert not (tmp_path / 'run/profile').exists()


def test_a_trace_holds_a_few_steps_behind_compilation(tmp_path, caplog):
  with caplog.at_level(logging.INFO, 'absl'):
    state = watched(tmp_path / 'a', 9, Watching(profile=True, folder=str(tmp_path)))
  assert tiny.bits(state) == tiny.bits(tiny.run(tmp_path / 'plain', 9))
  folder = tmp_path / 'profile/tiny-0123'
  path, = folder.glob('plugins/profile/*/*.trace.json.gz')
  found = json.loads(gzip.decompress(path.read_bytes()))['traceEvents']
  assert [e['args']['step_num'] for e in found if e.get('name') == 'train'] == ['3', '4', '5']
  assert any(e.get('name') == 'PjitFunction(update)' for e in found)
  assert any(str(folder) in record.getMessage() for record in caplog.records)


def test_a_stage_that_ends_in_its_trace_leaves_it(tmp_path):
  watched(tmp_path / 'a', 4, Watching(profile=True, folder=str(tmp_path)))
  watched(tmp_path / 'b', 4, Watching(profile=True, folder=str(tmp_path / 'next')))  # none is on
  assert list(tmp_path.glob('profile/tiny-0123/plugins/profile/*/*.xplane.pb'))


class FakeWandb(ModuleType):
  """What of wandb is used; runs by id go on where they were."""

  class Error(Exception):
    """As wandb's own."""

  def __init__(self, refuse=''):
    super().__init__('wandb')
    self.inits, self.runs, self.refuse = [], {}, refuse

  def init(self, **options):
    if self.refuse:
      raise self.Error(self.refuse)
    self.inits.append(options)
    rows = self.runs.setdefault(options['id'], [])
    run = SimpleNamespace(step=rows[-1][0] + 1 if rows else 0, finish=lambda: None)
    run.log = lambda scalars, step: rows.append((step, scalars))
    return run


@pytest.fixture
def wandb(monkeypatch):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, 'wandb', fake)
  return fake


def test_a_stage_is_one_run_at_wandb_however_often_it_is_resumed(wandb, tmp_path, monkeypatch):
  monkeypatch.delenv('WANDB_PROJECT', raising=False)
  for steps in (range(1, 6), range(4, 8)):
    sink = Wandb(tmp_path, 'tiny-0123', {'seed': 1})
    for step in steps:
      sink.write(step, {'train/loss': 1 / step})
    sink.close()
  Wandb(tmp_path, 'other-0123', {}).write(1, {'a': 0.0})
  first, second, other = wandb.inits
  assert first == second and first['id'] != other['id']
  assert first | {'id': 0} == {
      'id': 0, 'resume': 'allow', 'name': 'tiny-0123', 'group': tmp_path.name, 'dir': str(tmp_path),
      'config': {'seed': 1}, 'project': 'jobrec_jax'}
  assert [step for step, _ in wandb.runs[first['id']]] == [1, 2, 3, 4, 5, 6, 7]
  assert json.loads((tmp_path / 'wandb.json').read_text()) == {
      'tiny-0123': first['id'], 'other-0123': other['id']}


def test_the_loop_tells_wandb(wandb, tmp_path):
  watched(tmp_path / 'a', 3, Watching(('wandb',), folder=str(tmp_path)))
  rows, = wandb.runs.values()
  assert [step for step, _ in rows] == [1, 2, 3] and 'train/loss' in rows[0][1]


def test_wandb_that_refuses_is_one_line(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, 'wandb', FakeWandb('no API key\nconfigured'))
  with pytest.raises(ValueError, match=r'wandb must be .*no API key configured.*offline$'):
    Wandb(tmp_path, 'a', {}).write(1, {})


def test_wandb_is_imported_only_when_it_is_asked_for(monkeypatch):
  monkeypatch.setitem(sys.modules, 'wandb', None)  # importing it fails
  Watching(('tensorboard',))
  with pytest.raises(ValueError, match=r"wandb needs .*pip install 'jobrec_jax\[wandb\]'$"):
    Watching(('wandb',))


def test_an_unknown_place_is_named():
  with pytest.raises(ValueError, match=r"watch must be .*'tensorboard', 'wandb'.*got 'wand'"):
    Watching(('wand',))
