"""Two processes run a script: one road, made by both or by the first, and one end."""

import numpy as np
import pytest

from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.speed import PREFIX
from tests.processes import launch, worker


def rows(run, stage):
  """Numbers of the steps that are logged, but for how fast they were."""
  return [{k: x for k, x in row.items() if k != 'stage' and not k.startswith(PREFIX)}
          for row in MetricsWriter(run.store.path(stage) / 'metrics.jsonl').read()]


def key(row):
  return row.split, row.system, row.perspective, row.metric, row.against


@pytest.mark.slow
def test_two_processes_make_the_road_of_one(tmp_path):
  """Each stage once, whole; losses, scores and figures are those of one process."""
  command = ['tests.processes.worker', 'road', str(tmp_path / 'two'), '{port}', '{process}']
  ended = launch.two(command, 1)
  assert [e.status for e in ended] == [0, 0], ended
  command[2] = str(tmp_path / 'one')
  assert launch.one(command).status == 0
  one, two = (worker.road(tmp_path / name) for name in ('one', 'two'))
  assert two.store.missing([two.road.evaluation, two.road.certified]) == []
  (found, _), (expected, _) = (run.get(run.road.calibration) for run in (two, one))
  assert found == pytest.approx(expected, rel=1e-3)
  for stage in (one.road.warm_up, one.road.cooperative):
    for a, b in zip(rows(two, stage), rows(one, stage), strict=True):
      assert a == pytest.approx(b, rel=1e-4)
    left = sorted(p.name for p in two.store.path(stage).iterdir())
    assert left == ['artefact.json', 'metrics.jsonl', 'params.safetensors']
  assert not [line for line in ended[1].said if 'warm_up: step' in line]  # the first tells them
  said, expected = (run.get(run.road.scores)[1:] for run in (two, one))
  for a, b in zip(said, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
  found, expected = (run.get(run.road.evaluation).rows for run in (two, one))
  assert [key(row) for row in found] == [key(row) for row in expected]
  np.testing.assert_allclose([row.value for row in found], [row.value for row in expected],
                             rtol=0, atol=1e-3)
  assert not list((tmp_path / 'two' / 'store' / '.making').iterdir())


@pytest.mark.slow
def test_processes_that_do_not_run_the_same_end_with_one_line(tmp_path):
  ended = launch.two(['experiments.train_experts', '--config=configs/small.py',
                      f'--workdir={tmp_path}', '--config.policy.grid={process}7',
                      '--coordinator=127.0.0.1:{port}', '--processes=2', '--process={process}'])
  line = 'error: process 1 must have policy.grid=7 as process 0, got 17'
  assert [e.status for e in ended] == [2, 2]
  said = [[x for x in e.said if 'policy.grid' in x] for e in ended]
  assert said[0] == [line] and len(said[1]) == 1
  assert said[1][0].startswith('process 0 on ') and said[1][0].endswith(f' ended the job: {line}')
  assert not any('Traceback' in x for e in ended for x in e.said)
  assert not list(tmp_path.iterdir())
