"""Tasks on Dask's workers: what fails, what is there already, who refuses, who tries again."""

import json
import threading

import pytest

from jobrec_jax.pipeline import tasks
from jobrec_jax.pipeline.cluster import check_workers
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import Store
from jobrec_jax.pipeline.tasks import Task, make_with_dask, refusal
from jobrec_jax.schema.files import write_json
from tests.pipeline.tiny import tiny_settings


@pytest.fixture(scope='module')
def client():
  """Two workers that are threads of this process."""
  from distributed import Client, LocalCluster
  with LocalCluster(n_workers=2, threads_per_worker=1, processes=False,
                    dashboard_address='127.0.0.1:0',
                    resources={'accelerator': 1}) as local, Client(local) as client:
    yield client


@pytest.fixture
def make(client, monkeypatch):
  """Makes stages in a store: (names of what was made, failures)."""
  def make(store, *stages):
    monkeypatch.setattr(tasks, '_workplace', lambda store, settings: (
        Store(store), {s.key: s for s in stages}))
    done = []
    todo = [Task(s, tiny_settings(), ('a',)) for s in stages]
    failures = make_with_dask(client, store, todo, lambda task: done.append(task.stage.name))
    return done, failures
  return make


def stage(name, *inputs, make=None):
  def write(bench):
    write_json(bench.folder / 'value.json', [bench.inputs[i.name] for i in inputs])
  return Stage(name, 1, {}, {s.name: s for s in inputs}, make or write,
               lambda bench: json.loads((bench.folder / 'value.json').read_text()))


def test_inputs_come_first_and_what_is_there_is_not_sent(make, client, tmp_path, monkeypatch):
  first = stage('first')
  last = stage('last', stage('second', first), first)
  done, failures = make(tmp_path, *last.walk())
  assert sorted(done) == ['first', 'last', 'second'] and not failures
  assert Store(tmp_path).get(last) == [[[]], []]
  monkeypatch.setattr(client, 'submit', None)
  assert make(tmp_path, *last.walk()) == (['first', 'second', 'last'], [])


def test_a_store_is_made_while_a_client_keeps_the_tasks_of_another(make, client, tmp_path):
  only = stage('only')
  name = []
  own = client.submit

  def kept(*arguments, **words):
    name.append(own(*arguments, **words))
    return name[-1]
  client.submit = kept
  try:
    for store in ('one', 'other'):
      make(tmp_path / store, only)
      assert (tmp_path / store / only.key / 'artefact.json').is_file()
  finally:
    client.submit = own
  assert all(future.key.startswith(only.key) for future in name)


@pytest.mark.parametrize('error, tries, message', [
    (ValueError('value must be\nbetter, got 1'), 1, 'value must be better, got 1'),
    (ZeroDivisionError('no'), 1, 'ZeroDivisionError: no\nTraceback'),
    (OSError('the disk hiccups'), 3, 'OSError: the disk hiccups')])
def test_what_stands_on_a_failure_names_it(make, tmp_path, error, tries, message):
  came = []

  def fail(bench):
    came.append(1)
    raise error
  bad = stage('bad', make=fail)
  done, failures = make(tmp_path, *stage('on-on-bad', stage('on-bad', bad)).walk(), stage('good'))
  assert done == ['good'] and len(came) == tries
  assert [(f.stage.name, f.cause) for f in failures] == [
      ('bad', None), ('on-bad', bad.key), ('on-on-bad', bad.key)]
  assert failures[0].message.startswith(message)
  assert failures[1].message == f'{bad.key} failed'


def test_a_fault_of_the_machine_is_tried_again(make, tmp_path):
  came = []

  def fail_once(bench):
    came.append(1)
    if len(came) == 1:
      raise OSError('stale file handle')
    write_json(bench.folder / 'value.json', 3)
  once = stage('once', make=fail_once)
  assert make(tmp_path, once) == (['once'], []) and Store(tmp_path).get(once) == 3


def test_an_interrupt_gives_up_what_is_left(client, tmp_path, monkeypatch):
  started, go = threading.Event(), threading.Event()

  def wait(bench):
    started.set()
    go.wait()
  stages = [stage('quick'), *stage('after', stage('slow', make=wait)).walk()]
  monkeypatch.setattr(tasks, '_workplace', lambda store, settings: (
      Store(store), {s.key: s for s in stages}))

  def stop(task):
    started.wait()
    raise KeyboardInterrupt
  try:
    with pytest.raises(KeyboardInterrupt):
      make_with_dask(client, tmp_path, [Task(s, tiny_settings(), ('a',)) for s in stages], stop)
  finally:
    go.set()
  client.run(int)  # what was cancelled is gone by now
  assert not client.futures
  assert not (tmp_path / stages[-1].key).exists()


def test_a_worker_that_cannot_is_told_before_anything_is_made(client, tmp_path):
  """Its version of the code has no such stage, no such setting, or it sees no store."""
  with pytest.raises(ValueError, match=r'worker inproc.*odd-\w+: must be a stage of this version'):
    make_with_dask(client, tmp_path, [Task(stage('odd'), tiny_settings(), ('a',))])
  away = tmp_path / 'away'
  for _ in range(2):
    assert f'{away}: must be a folder that every worker sees' in refusal(str(away), {}, 'x')
    away.mkdir(exist_ok=True)  # of that name, and of another machine
  told = refusal(str(tmp_path), {'new_setting': 1}, 'x')
  assert 'new_setting' in told and 'all workers must run the same commit' in told
  with pytest.raises(ValueError, match=r'worker inproc.*: ZeroDivisionError'):
    check_workers(client, lambda: 1 / 0)
  check_workers(client, lambda: None)
