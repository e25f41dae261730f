"""Progress of the road: which stage of how many, and the time left from like results."""

import logging
import os

import pytest

from jobrec_jax.pipeline.progress import Kept
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import ABOUT, Store
from jobrec_jax.schema import progress
from jobrec_jax.schema.files import read_json, write_json, write_text
from jobrec_jax.schema.progress import TimeLeft, about


def stage(name, inputs=(), **settings) -> Stage:
  return Stage(name, 1, settings, {s.name: s for s in inputs},
               lambda bench: write_text(bench.folder / 'x', name), lambda bench: name)


def keep(store, of, seconds, at=None) -> None:
  """Makes a result that took so long, and was made at a second of the epoch."""
  store.make(of)
  path = store.path(of) / ABOUT
  about = read_json(path)
  about['provenance']['seconds'] = seconds
  write_json(path, about)
  if at is not None:
    os.utime(path, (at, at))


@pytest.fixture
def told(caplog):
  """What was told since it was asked last."""
  caplog.set_level(logging.INFO, 'absl')

  def lines():
    found = [r.getMessage() for r in caplog.records if 'stage' in r.getMessage()]
    caplog.clear()
    return found
  return lines


def road(seed):
  data = stage('data', seed=seed)
  return stage('policy', [stage('experts', [data], seed=seed, steps=5), data], seed=seed)


def test_without_results_there_is_no_estimate(tmp_path, told):
  Store(tmp_path).make(road(0))
  assert told() == [
      '3 stages to make (data, experts, policy), no estimate yet',
      'stage 1 of 3: data, no estimate yet', 'stage 2 of 3: experts, no estimate yet',
      'stage 3 of 3: policy, no estimate yet']


def test_seconds_of_like_results_are_the_time_left(tmp_path, told):
  store, first = Store(tmp_path), road(0)
  for of, seconds in zip(first.walk(), (30.0, 400.0, 50.0)):
    keep(store, of, seconds)
  told()
  with Store(tmp_path).progress([road(1)], 'run 7 of 20'):
    pass
  assert told() == ['run 7 of 20, 3 stages to make (data, experts, policy), about 8 min left']
  Store(tmp_path).make(road(1).inputs['experts'])
  assert told()[1:] == ['stage 1 of 2: data, about 7 min left',
                        'stage 2 of 2: experts, about 7 min left']
  Store(tmp_path).make(road(1))  # what is there is neither counted nor made
  assert told() == ['stage policy, about 50 s left']


def test_only_what_will_be_made_is_counted(tmp_path, told):
  """Who has the experts does not make the data again that they were made from."""
  store, data = Store(tmp_path), stage('data', seed=0)
  experts = stage('experts', [data], seed=0)
  store.make(experts)
  for path in store.path(data).iterdir():
    path.unlink()
  store.path(data).rmdir()
  told()
  policy = stage('policy', [experts], seed=0)
  assert [s.name for s in Store(tmp_path).missing([policy])] == ['policy']
  Store(tmp_path).make(policy)
  assert told() == ['stage policy, no estimate yet']


def test_several_ends_are_one_road_and_what_was_not_planned_makes_it_longer(tmp_path, told):
  store, data = Store(tmp_path), stage('data')
  a, b, other = stage('a', [data]), stage('b', [data]), stage('other')
  with store.progress([a, b]):
    for end in (b, other, a):
      store.make(end)
  assert told()[1:] == [f'stage {n} of {of}: {name}, no estimate yet' for n, of, name in (
      (1, 3, 'data'), (2, 3, 'b'), (3, 4, 'other'), (4, 4, 'a'))]
  store.make(stage('late'))
  assert told() == ['stage late, no estimate yet']


def test_the_most_like_result_counts_then_the_newest(tmp_path):
  def experts(steps, size, seed=0):
    return stage('experts', [stage('data', seed=seed, size=size)], seed=seed, steps=steps)

  def seconds(of):
    (*_, last) = Store(tmp_path).plan([of])
    return last.seconds
  store = Store(tmp_path)
  keep(store, experts(5, 'small'), 10.0, at=100)
  keep(store, experts(5, 'large'), 20.0, at=200)
  keep(store, experts(9, 'small'), 30.0, at=300)
  keep(store, stage('experts-of-another-kind'), 99.0, at=400)
  assert seconds(experts(5, 'small', seed=1)) == 10.0  # differs in seeds alone
  assert seconds(experts(5, 'huge', seed=1)) == 20.0   # its own settings do; the newest of these
  assert seconds(experts(7, 'small')) == 30.0          # the newest of the name
  assert seconds(stage('policy')) is None
  (store.path(experts(9, 'small')) / ABOUT).write_text('{"identity"')
  assert seconds(experts(7, 'small')) == 20.0          # nothing damaged counts


def test_training_takes_as_long_as_it_has_steps(tmp_path):
  store = Store(tmp_path)
  keep(store, stage('experts', seed=0, stage={'steps': 100, 'batch': 8}), 30.0)
  keep(store, stage('data', seed=0, market={'size': 3}), 7.0)

  def seconds(of):
    return Kept(tmp_path, ABOUT).estimates([of])[of.key]
  assert seconds(stage('experts', seed=1, stage={'steps': 1000, 'batch': 8})) == 300.0
  assert seconds(stage('experts', seed=1, stage={'steps': 0, 'batch': 8})) == 30.0
  assert seconds(stage('experts', seed=1)) == 30.0
  assert seconds(stage('data', seed=1, market={'size': 9})) == 7.0


def test_some_estimates_are_told_with_what_they_leave_out(tmp_path, told):
  store, data = Store(tmp_path), stage('data', seed=0)
  keep(store, data, 200.0)
  told()
  other = stage('data', seed=1)
  store.make(stage('evaluation', [stage('policy', [other])]))
  assert told()[1:] == [
      'stage 1 of 3: data, about 3 min left and policy, evaluation, of which there is no '
      'estimate yet', 'stage 2 of 3: policy, no estimate yet',
      'stage 3 of 3: evaluation, no estimate yet']


def test_a_failure_ends_its_road(tmp_path, told):
  def fails(bench):
    raise ValueError('the data are wrong')
  store = Store(tmp_path)
  with pytest.raises(ValueError, match='are wrong'):
    store.make(Stage('bad', 1, {}, {}, fails, lambda bench: None))
  told()
  store.make(stage('good'))
  assert told() == ['stage good, no estimate yet']


@pytest.mark.parametrize('seconds, words', [
    (0.2, 'about 1 s'), (42.4, 'about 42 s'), (99.4, 'about 99 s'), (100, 'about 2 min'),
    (1800, 'about 30 min'), (5969, 'about 99 min'), (6000, 'about 1.7 h')])
def test_times_are_as_exact_as_an_estimate_deserves(seconds, words):
  assert about(seconds) == words


def test_time_left_says_nothing_before_enough_is_done(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(progress.time, 'monotonic', lambda: now[0])
  left, said = TimeLeft(10, least=2), []
  for done in (1, 2, 3, 9, 10):
    said.append(left(done))
    now[0] += 3.0
  assert said == ['', '', ', about 21 s left', ', about 1 s left', '']
