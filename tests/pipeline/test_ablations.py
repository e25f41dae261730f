"""Ablations go the whole road: training, evaluation, certificates, report, loading, recommending.

Those of stage 2 stand on the experts of the tiny run.
"""

import json
import shutil

import numpy as np
import pytest

import jobrec_jax
from jobrec_jax.pipeline import sections
from jobrec_jax.pipeline.measures.subject import QUALIFICATION, STAGE_2
from jobrec_jax.pipeline.pack import pack
from jobrec_jax.pipeline.report import report, sweep_report
from jobrec_jax.pipeline.road import proof_stage, sweep_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.report.canvas import Picture
from tests.pipeline.tiny import tiny_settings


@pytest.fixture(scope='module')
def store(tiny_folder, tmp_path_factory):
  return shutil.copytree(tiny_folder / 'store', tmp_path_factory.mktemp('ablations') / 'store')


@pytest.fixture
def reported(store, tmp_path, monkeypatch):
  """sections -> (run, its evaluation); what is as in the tiny run is not made again.

  Figures are put together and not written, which takes longer than all else here.
  """
  monkeypatch.setattr(sections, 'save', lambda draw, *_: Picture(str(draw(False)), '', 1.0))

  def make(**sections):
    run = Run(tmp_path / 'run', tiny_settings(**sections), store)
    return run, report(run)
  return make


def recommended(path, run):
  """A run as loaded, and three jobs that it recommends at its middle knot."""
  loaded = jobrec_jax.load(path)
  candidate = run.get(run.road.data).dataset.candidates[0]
  return loaded, loaded.recommend(candidate, float(loaded.policy.knots[2]), 3)[0].jobs


@pytest.mark.slow
@pytest.mark.parametrize('head', ['separate', 'scalar', 'off'])
def test_every_kind_of_head_goes_the_whole_road(reported, tiny_run, tmp_path, head):
  run, results = reported(policy={'head': head})
  usual = tiny_run.get(tiny_run.road.evaluation)
  assert results.taus == usual.taus and results.attainable == usual.attainable  # tables compare
  trained = run.get(run.road.policy)
  assert trained.policy.head.kind == head
  assert all(np.isfinite(x).all() for x in trained.history.values())
  lists, kept = run.get(run.road.lists).held_out, run.get(run.road.scores)
  lam = kept.lam_of(lists)
  assert (lam == 0).all() == (head == 'off')
  assert (np.ptp(lam, axis=(0, 1)).max() < 1e-6) == (head != 'separate')
  reached = [r.value for r in results.rows if (r.split, r.metric) == (STAGE_2, 'predicted C')]
  assert len(reached) == 4 and (np.ptp(reached) < 1e-6) == (head == 'off')

  pack(run.folder, tmp_path / 'packed')
  for path in (run.folder, tmp_path / 'packed'):
    loaded, jobs = recommended(path, run)
    assert loaded.policy.head.kind == head
    assert len({round(j.lam, 6) for j in jobs}) == (3 if head == 'separate' else 1)
    scored = loaded.score(run.get(run.road.data).dataset.candidates[lists.candidate[0, 0]])
    np.testing.assert_allclose(scored.lam[0, lists.job[0]], lam[0], atol=2e-5)
  proof = run.get(proof_stage(run.settings, run.road))
  assert proof.rows and all(np.isfinite(x).all() for x in proof.true.values())
  sweep_report(run)  # heads of the same kind, one for each tau
  frontier = run.get(sweep_stage(run.settings, run.road))
  assert all(np.isfinite(p.reached) for rows in frontier.points.values() for p in rows)


@pytest.mark.slow
@pytest.mark.parametrize('change', [{'constraint': 'equality'}, {'objective': 'info_nce'},
                                    {'objective': 'info_nce', 'head': 'off'}])
def test_published_choices_of_stage_2_go_the_whole_road(reported, change):
  run, results = reported(policy=change)
  policy = run.get(run.road.policy).policy
  assert (0.0 in results.taus) == (policy.constraint == 'inequality')
  asked = [t for t in results.taus if t]
  assert [c.tau for c in results.control] == asked and len(asked) == 4
  assert (run.folder / 'report.html').is_file()
  assert len(recommended(run.folder, run)[1]) == 3


@pytest.mark.slow
@pytest.mark.parametrize('change', [{}, {'constraint': 'equality'}, {'objective': 'info_nce'}])
def test_from_the_exact_dual_every_requirement_is_kept(reported, tmp_path, change):
  run, results = reported(policy={'start': 'exact'} | change)
  trained = run.get(run.road.policy)
  learned = 'objective' in change
  assert (trained.policy.head.kind == 'off') != learned and bool(trained.history) == learned
  asked = [t for t in results.taus if t]
  reached = {r.tau: r.value for r in results.rows
             if (r.split, r.metric) == (STAGE_2, 'predicted C')}
  np.testing.assert_allclose([reached[t] for t in asked], asked, atol=0.01)
  assert np.isfinite(trained.policy.tilts.mu).all() and (trained.policy.tilts.mu != 0).any()
  pack(run.folder, tmp_path / 'packed')
  tables = []
  for path in (run.folder, tmp_path / 'packed'):
    loaded, jobs = recommended(path, run)
    mu = loaded.policy.tilts.at(float(loaded.policy.knots[2]))
    for j in jobs:
      z = np.log(j.qualification / (1 - j.qualification))
      assert j.score == pytest.approx(j.preference + mu * j.qualification + j.lam * z, abs=1e-3)
    tables.append([j.job_id for j in jobs])
  assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_run_without_stage_1a_and_calibration_goes_the_whole_road(reported):
  run, results = reported(
      warm_up={'steps': 0}, cooperative={'steps': 20},
      experts={'censoring': 'none', 'calibration': 'none', 'self_censoring': 'none'})
  assert 'censoring' not in {s.name for s in run.road.evaluation.walk()}
  assert not (run.store.path(run.road.warm_up) / 'metrics.jsonl').exists()
  before, after = (run.get(s).params for s in (run.road.warm_up, run.road.cooperative))
  assert before.keys() == after.keys()
  assert np.any(before['preference']['hidden_0']['kernel']
                != after['preference']['hidden_0']['kernel'])
  assert run.get(run.road.calibration).calibration == (0, 1)
  error = {r.system: r.value for r in results.rows if r.metric == 'calibration error'}
  for other in ('uncalibrated', 'recalibrated by job'):
    assert error[f'{QUALIFICATION}, {other}'] == pytest.approx(error[QUALIFICATION], rel=1e-6)
  assert '<h2>Training</h2>' in (run.folder / 'report.html').read_text()
  assert json.loads((run.folder / 'run.json').read_text())['settings']['warm_up']['steps'] == 0
  loaded, jobs = recommended(run.folder, run)
  assert len(jobs) == 3 and loaded.calibration == (0, 1)
