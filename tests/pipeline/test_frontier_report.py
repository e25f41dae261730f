"""The policy beside separate heads and the exact dual: what is written, and what has no number."""

import json
import shutil

import numpy as np
import pytest

from experiments import fit_policy
from jobrec_jax.evaluate.frontier import FrontierPoint
from jobrec_jax.pipeline.policy import requirements
from jobrec_jax.pipeline.report import report, sweep_tables
from jobrec_jax.pipeline.road import road, sweep_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.sweep import Frontier
from jobrec_jax.report.results import to_markdown
from tests.pipeline.tiny import tiny_settings


@pytest.mark.slow
def test_the_policy_stands_beside_separate_heads_and_the_exact_dual(tiny_folder, tmp_path, capsys):
  settings = tiny_settings(sweep={'seeds': (0, 7), 'learning_rates': (1e-3, 5e-3)})
  run = Run(shutil.copytree(tiny_folder, tmp_path / 'run'), settings)
  fit_policy.main(run)
  out = capsys.readouterr().out
  rows = json.loads((run / 'frontier.json').read_text())
  assert {r['system'] for r in rows} == {
      'one policy', 'exact dual', *(f'a head for each τ, learning_rate {rate}, seed {seed}'
                                    for rate in ('0.001', '0.005') for seed in (0, 7))}
  taus = requirements(settings.policy, run.get(run.road.policy).attainable)
  for name in ('stage 2 lists', 'held-out lists'):
    for system in ('one policy', 'a head for each τ, learning_rate 0.005, seed 7'):
      assert [r['tau'] for r in rows if (r['lists'], r['system']) == (name, system)] == taus
  assert (run / 'frontier.md').read_text() in out
  assert (run / 'figures/frontier.png').stat().st_size > 10_000
  assert out.splitlines()[-1].endswith(f'python -m experiments.evaluate --workdir={run.folder}')
  stage = sweep_stage(settings, run.road)
  again = Run(run.folder, settings).get(stage)  # read, not made
  assert [p.reached for p in again.points['stage 2 lists']] == [
      r['reached'] for r in rows if r['lists'] == 'stage 2 lists']
  assert 'a head for each' not in (run / 'report.html').read_text()  # made before the heads were
  report(run)
  assert 'One policy beside a head for each requirement' in (run / 'report.html').read_text()


def test_without_an_exact_point_its_share_is_a_dash():
  point = FrontierPoint('one policy', 0.9, 0.5, 1.0, np.nan, np.inf)
  found = Frontier({'lists': [point]}, {'lists': {'one policy': 0.25}},
                   {'lists': np.zeros((0, 2))})
  text = '\n'.join(map(to_markdown, sweep_tables(found)))
  assert '| one policy, τ 0.9000 | 0.5000 | 1.0000 | – | – |' in text
  assert '| one policy | 0.2500 | – |' in text


def test_the_sweeps_key_covers_what_it_shows_and_the_policys_does_not():
  one, two = tiny_settings(), tiny_settings(sweep={'seeds': (5,)})
  assert road(one).policy.key == road(two).policy.key
  assert sweep_stage(one, road(one)).key != sweep_stage(two, road(two)).key


@pytest.mark.slow
def test_a_policy_of_another_eligibility_is_fitted_and_says_why_no_frontier_is_written(
    tiny_folder, tmp_path, capsys):
  run = Run(shutil.copytree(tiny_folder, tmp_path / 'run'),
            tiny_settings(policy={'start': 'exact', 'top_k': 3, 'eligibility': 'estimated'}))
  fit_policy.main(run)
  out = capsys.readouterr().out
  assert out.startswith('No frontier is written, for heads apart') and "got 3, 'estimated'" in out
  assert run.get(run.road.policy).policy.top_k == 3 and not (run / 'frontier.json').exists()
