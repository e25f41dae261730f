"""What another machine goes on with: finished results whole, unfinished ones from a checkpoint."""

import importlib.util
import json
import logging
import threading

import fsspec
import pytest

from jobrec_jax.pipeline import mirror as mirrors, provenance, study_run
from jobrec_jax.pipeline.mirror import Mirror
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import ABOUT, Store
from jobrec_jax.pipeline.study import Study, Variant
from jobrec_jax.pipeline.tasks import Task
from jobrec_jax.schema.files import read_json, write_json, write_text
from tests.pipeline.tiny import tiny_settings
from tests.train import tiny


@pytest.fixture(params=['memory', 'file'])
def url(request, tmp_path):
  yield f'{request.param}://{tmp_path}/bucket'
  fsspec.filesystem('memory').store.clear()


def number(made, name='number', inputs=None, value=3):
  def make(bench):
    made.append(name)
    write_json(bench.folder / 'value.json', value)
    write_text(bench.folder / 'more' / 'note.txt', name)
  return Stage(name, 1, {'value': value}, inputs or {}, make,
               lambda bench: read_json(bench.folder / 'value.json'))


def road(made):
  return number(made, 'second', {'first': number(made, 'first')}, 4)


def test_another_disk_gets_every_result_and_makes_none(tmp_path, url):
  made = []
  assert Store(tmp_path / 'a', mirror=Mirror(url)).get(road(made)) == 4
  assert made == ['first', 'second']
  other = Store(tmp_path / 'b', mirror=Mirror(url))
  assert other.get(road(made)) == 4 and other.get(road(made).inputs['first']) == 3
  assert made == ['first', 'second']
  assert sorted(p.name for p in other.folder.iterdir() if p.name[0] != '.') == sorted(
      [road([]).key, road([]).inputs['first'].key])
  assert not (other.folder / '.pulling').exists()


def test_what_was_made_without_a_mirror_goes_up(tmp_path, url):
  made, stage = [], road([])
  Store(tmp_path / 'a').make(road(made))
  Store(tmp_path / 'a', mirror=Mirror(url)).get(stage)  # is there, so that nothing is asked for
  with Store(tmp_path / 'a', mirror=Mirror(url)).progress([stage]):
    pass
  Store(tmp_path / 'b', mirror=Mirror(url)).make(road(made))
  assert made == ['first', 'second']


def test_a_result_that_went_up_in_part_is_made_again(tmp_path, url):
  made, stage = [], number([])
  Store(tmp_path / 'a', mirror=Mirror(url)).make(number(made))
  files, root = fsspec.url_to_fs(url)
  files.rm(f'{root}/{stage.key}/{ABOUT}')
  Store(tmp_path / 'b', mirror=Mirror(url)).make(number(made))
  assert made == ['number', 'number'] and files.exists(f'{root}/{stage.key}/{ABOUT}')


def test_a_result_that_was_changed_is_told(tmp_path, url):
  stage = number([])
  Store(tmp_path / 'a', mirror=Mirror(url)).make(stage)
  files, root = fsspec.url_to_fs(url)
  files.pipe_file(f'{root}/{stage.key}/value.json', b'5\n')
  with pytest.raises(ValueError, match=rf'{stage.key}: must be as it was made, .*value\.json.*del'):
    Store(tmp_path / 'b', mirror=Mirror(url)).make(stage)
  assert not (tmp_path / 'b' / stage.key).exists()


def test_files_outside_their_folder_are_refused(tmp_path, url, monkeypatch):
  stage = number([])
  Store(tmp_path / 'a', mirror=Mirror(url)).make(stage)
  mirror = Mirror(url)
  find = mirror._files.find
  monkeypatch.setattr(mirror._files, 'find', lambda start: [*find(start), f'{start}../../evil'])
  with pytest.raises(ValueError, match=r'must hold files of its own alone, got .*evil'):
    Store(tmp_path / 'b', mirror=mirror).make(stage)


def training(steps, began, last=None):
  """A stage that trains the tiny model, and is stopped behind the step `last`.

  Args:
    began: grows by when the stage was first begun, at each attempt.
  """
  def data(step):
    for index, batch in enumerate(tiny.batches(step), step):
      if index == last:
        raise KeyboardInterrupt
      yield batch

  def make(bench):
    began.append(provenance.began(bench.folder))
    write_text(bench.folder / 'bits.txt', tiny.bits(tiny.run(bench.folder, steps, data)))
  return Stage('tiny', 1, {}, {}, make, lambda bench: (bench.folder / 'bits.txt').read_text())


@pytest.mark.slow
def test_a_machine_goes_on_from_the_checkpoint_that_another_left(tmp_path, url, caplog):
  began = []
  whole = Store(tmp_path / 'whole').get(training(6, []))
  stopped, end = training(6, began, last=4), Store(tmp_path / 'a', mirror=Mirror(url))
  with pytest.raises(KeyboardInterrupt):
    end.make(stopped)
  with caplog.at_level(logging.INFO, 'absl'):
    other = Store(tmp_path / 'b', mirror=Mirror(url))
    assert other.get(training(6, began)) == whole
  assert 'tiny: resumed at step 4 of 6' in caplog.text
  rows = [json.loads(line) for line in
          (other.path(stopped) / 'metrics.jsonl').read_text().splitlines()]
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
  assert began[0] == began[1]  # what goodput counts from
  files, root = fsspec.url_to_fs(url)
  assert not files.exists(f'{root}/.making/{stopped.key}')  # it is finished
  assert sorted(p.name for p in (end.making(stopped) / 'checkpoints').iterdir()) == ['3', '4']


@pytest.mark.slow
def test_checkpoints_go_up_while_a_stage_trains_and_old_ones_leave(tmp_path, url, monkeypatch):
  monkeypatch.setattr(mirrors, 'EVERY', 0.05)
  files, root = fsspec.url_to_fs(url)
  seen = []

  def data(step):
    for index, batch in enumerate(tiny.batches(step), step):
      if index in (3, 6):
        for _ in range(200):  # until the copy of the newest is whole
          there = f'{root}/.making/{stage.key}/checkpoints'
          if files.exists(f'{there}/{index}/record.json'):
            break
          threading.Event().wait(0.1)
        threading.Event().wait(0.3)
        seen.append(sorted(path.rstrip('/').rsplit('/', 1)[-1]
                           for path in files.ls(there, detail=False)))
      yield batch
  stage = Stage('tiny', 1, {}, {}, lambda bench: tiny.run(bench.folder, 8, data), lambda b: None)
  Store(tmp_path / 'a', mirror=Mirror(url)).make(stage)
  assert seen == [['2', '3'], ['5', '6']]


def test_a_study_reads_what_is_there_and_copies_each_result(tmp_path, url, monkeypatch):
  made, settings = [], tiny_settings()
  first, second = road(made).inputs['first'], road(made)
  Store(tmp_path / 'a', mirror=Mirror(url)).make(first)
  todo = [Task(first, settings, ('run',)), Task(second, settings, ('run',))]
  monkeypatch.setattr(study_run, 'todo', lambda runs: todo)
  study = Study('?', {'base': Variant('as it is')})
  done = study_run.make(study, [], tmp_path / 'study', tmp_path / 'b', mirror=Mirror(url))
  assert made == ['first', 'second'] and not done.failures
  study_run.make(study, [], tmp_path / 'study', tmp_path / 'c', mirror=Mirror(url))
  assert made == ['first', 'second']


def test_a_server_that_fails_costs_no_result(tmp_path, url, monkeypatch, caplog):
  mirror = Mirror(url)

  def refuse(*_):
    raise OSError('no such bucket')
  monkeypatch.setattr(mirror, '_up', refuse)
  assert Store(tmp_path / 'a', mirror=mirror).get(number([])) == 3
  assert 'not copied (OSError no such bucket); the next command with this --mirror' in caplog.text


@pytest.mark.parametrize('url, said', [
    ('/tmp/x', "without credentials, such as gs://BUCKET/FOLDER, got '/tmp/x'"),
    ('ftp://host/x', "got 'ftp://host/x'"), ('gs://', "got 'gs://'"),
    ('s3://key:secret@bucket/x', "got 'bucket/x'"), ('az://x?sig=secret', "got 'az://x'")])
def test_a_url_of_another_kind_is_refused_and_no_secret_told(url, said):
  with pytest.raises(ValueError, match='--mirror must be a folder of one of gs://') as error:
    Mirror(url)
  assert said in str(error.value)
  assert not any(word in str(error.value) for word in ('secret', 'memory'))


def test_a_package_that_is_missing_is_named(monkeypatch):
  def missing(*_, **__):
    raise ImportError('Please install gcsfs')
  monkeypatch.setattr(mirrors.fsspec, 'url_to_fs', missing)
  with pytest.raises(ValueError, match=r'--mirror=gs://b/x needs the package gcsfs.*pip install'):
    Mirror('gs://b/x/')


if all(importlib.util.find_spec(name) for name in ('moto', 's3fs', 'flask')):
  # A server that speaks S3 takes thirty packages that nothing else needs.

  @pytest.fixture
  def bucket(monkeypatch):
    """An empty bucket of a server on this machine."""
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {'AWS_ACCESS_KEY_ID': 'x', 'AWS_SECRET_ACCESS_KEY': 'x',
                        'AWS_ENDPOINT_URL': f'http://{host}:{port}',
                        'AWS_DEFAULT_REGION': 'us-east-1'}.items():
      monkeypatch.setenv(name, value)
    fsspec.filesystem('s3').mkdir('kept')
    yield 's3://kept/results'
    server.stop()

  @pytest.mark.slow
  def test_a_bucket_of_s3_keeps_results_and_checkpoints(tmp_path, bucket):
    began, made = [], []
    with pytest.raises(KeyboardInterrupt):
      Store(tmp_path / 'a', mirror=Mirror(bucket)).make(training(6, began, last=4))
    Store(tmp_path / 'a', mirror=Mirror(bucket)).make(road(made))
    other = Store(tmp_path / 'b', mirror=Mirror(bucket))
    assert other.get(road(made)) == 4 and made == ['first', 'second']
    assert other.get(training(6, began)) == Store(tmp_path / 'whole').get(training(6, []))
    assert began[0] == began[1]
    with pytest.raises(ValueError, match=r's3://none/x: must be a folder that can be listed'):
      Mirror('s3://none/x')
