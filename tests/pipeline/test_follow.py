"""What processes beside the first make: stages by their keys, on the same results."""

import dataclasses

import pytest

from jobrec_jax import processes
from jobrec_jax.pipeline import follow
from jobrec_jax.pipeline.road import others
from jobrec_jax.pipeline.run import Run
from jobrec_jax.schema.files import digest
from tests.pipeline.tiny import tiny_settings


@pytest.fixture
def run(tmp_path):
  """A run of which nothing is made."""
  return Run(tmp_path, tiny_settings())


def called(monkeypatch, *calls):
  """Process 0 calls these out, one after another, and ends."""
  left = iter([*calls, None])
  monkeypatch.setattr(processes, 'told', lambda decide: next(left))


def test_every_stage_that_needs_all_processes_can_be_called_out(run):
  """Stages beside the road too: certify, explain and fit_policy make them."""
  stages = [s for s in others(run.settings, run.road) if s.together or s.divided]
  assert {s.name for s in stages} == {'sweep', 'writer', 'proof'}
  assert {s.key for s in stages} <= set(follow.by_key(run))


def test_a_result_that_is_not_what_process_0_has_is_named(run, monkeypatch):
  """A disk of this host alone may hold a result of the same key, made here."""
  data = run.road.data
  run.store.make(data)
  about = run.store.path(data) / 'artefact.json'
  called(monkeypatch, {'key': 'none', 'inputs': {data.key: digest(about)[::-1]}})
  with pytest.raises(ValueError, match=rf'{data.key}: must be what process 0 has there, got another'
                                       ' result; --workdir and --store must be on a shared disk'):
    follow.follow(run)


def test_the_same_result_is_worked_on(run, monkeypatch):
  run.store.make(run.road.data)
  about = digest(run.store.path(run.road.data) / 'artefact.json')
  made = []
  stages = follow.by_key(run)
  stages['x'] = dataclasses.replace(run.road.warm_up, make=lambda bench: made.append('x'))
  monkeypatch.setattr(follow, 'by_key', lambda run: stages)
  called(monkeypatch, {'key': 'x', 'inputs': {run.road.data.key: about}})
  follow.follow(run)
  assert made == ['x']


def test_data_that_differ_are_named_with_the_process(run, monkeypatch):
  def gathered(name, about):
    return [about, about, about | {'stages': about['stages'] | {'data': 'data-0'}}]
  monkeypatch.setattr(processes, 'gathered', gathered)
  with pytest.raises(ValueError, match=r'^process 2 must have stages\.data='
                                       rf"'{run.road.data.key}' as process 0, got 'data-0'$"):
    follow.check_same(run)
