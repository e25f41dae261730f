"""The whole road on a market so small that nothing is learnt: what it writes, and a second run."""

import json
import math
import shutil

from experiments.evaluation import BLANKED, CEILINGS, PREFERENCE, QUALIFICATION, RIVALS
import jax
import pytest

from configs import quickstart as settings
from experiments import align_policy, evaluate, quickstart
from jobrec_jax.report.results import read_results

SYSTEMS = {PREFERENCE, QUALIFICATION, *RIVALS, *CEILINGS.values(), BLANKED, 'policy',
           'canary: constant', 'canary: random', 'canary: id hash', 'canary: position',
           'canary: train negative'}


def tiny():
  c = settings.get_config()
  with c.unlocked():
    c.market.candidates, c.market.jobs = 60, 20
    c.tokenizer.vocab_size = 600
    c.model.width, c.model.heads, c.model.kv_heads, c.model.head_width = 32, 2, 1, 16
    c.model.layers, c.model.mlp_width, c.model.head_widths = 1, 64, (32,)
    c.lists.preference_negatives = c.lists.qualification_negatives = 3
    c.warm_up.steps, c.cooperative.steps = 30, 40
    c.warm_up.warmup = c.cooperative.warmup = 2
    c.features.list_length = 10
    c.policy.list_length, c.policy.lists, c.policy.held_out = 8, 20, 12
    c.policy.epochs, c.policy.batch, c.policy.grid, c.policy.width = 5, 10, 5, 8
    c.evaluate.resamples = 50
  return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  before = {k: getattr(jax.config, k) for k in (
      'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')}
  path = tmp_path_factory.mktemp('quickstart') / 'run'
  quickstart.main(tiny(), str(path))
  yield path
  for key, value in before.items():
    jax.config.update(key, value)


@pytest.mark.slow
def test_writes_every_result(folder):
  rows = read_results(folder / 'results.json')
  assert {r.system for r in rows} >= SYSTEMS
  assert {r.split for r in rows} >= {'cold candidates', 'both cold', 'held-out lists',
                                     'stage 2 lists', 'uniform test pairs'}
  assert len({r.tau for r in rows} - {None, 0.0}) == 5
  for r in rows:
    if r.metric in ('ndcg@5', 'predicted C', 'true C', 'true eligibility@5', 'calibration error'):
      assert math.isfinite(r.value), r
  for name in ('config.json', 'metrics.jsonl', 'results.md', 'calibration.json', 'policy.json',
               'tokenizer.json', 'checkpoints/warm_up', 'checkpoints/cooperative',
               'checkpoints/policy', 'figures/training.png', 'figures/tradeoff.png',
               'figures/control.png', 'figures/reliability.png'):
    assert (folder / name).exists(), name


@pytest.mark.slow
def test_the_report_stands_alone(folder):
  page = (folder / 'report.html').read_text()
  assert page.count('data:image/png;base64,') == 4
  assert 'http:' not in page and 'https:' not in page and '<script' not in page


@pytest.mark.slow
def test_align_policy_sets_the_policy_beside_separate_heads_and_the_exact_dual(
    folder, tmp_path, capsys):
  run = tmp_path / 'run'
  shutil.copytree(folder, run)
  config = tiny()
  with config.unlocked():
    config.sweep.seeds, config.sweep.learning_rates = (0, 1), (1e-3, 5e-3)
  align_policy.main(config, str(run))
  rows = json.loads((run / 'frontier.json').read_text())
  systems = {r['system'] for r in rows}
  assert {'one policy', 'exact dual', 'a head for each τ, learning_rate 0.005, seed 1'} <= systems
  assert len(systems) == 2 + 4 and {r['lists'] for r in rows} == {'stage 2 lists', 'held-out lists'}
  for name in ('stage 2 lists', 'held-out lists'):
    assert sum(r['lists'] == name and r['system'] == 'one policy' for r in rows) == 5
  assert (run / 'frontier.md').read_text() in capsys.readouterr().out
  assert (run / 'figures/frontier.png').stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_run_says_that_it_is_complete(folder, capsys):
  before = (folder / 'results.json').stat().st_mtime_ns
  quickstart.main(tiny(), str(folder))
  assert f'complete: {folder / "report.html"}' in capsys.readouterr().out
  assert (folder / 'results.json').stat().st_mtime_ns == before


@pytest.mark.slow
def test_another_config_is_refused(folder):
  other = tiny()
  other.policy.epochs = 6
  with pytest.raises(ValueError, match=r"another config \(different: \['policy'\]\)"):
    quickstart.main(other, str(folder))


@pytest.mark.slow
def test_evaluate_alone_finds_the_same_numbers(folder):
  before = (folder / 'results.json').read_text()
  evaluate.main(tiny(), str(folder))
  assert (folder / 'results.json').read_text() == before
