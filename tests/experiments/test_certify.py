"""The certify script on a run so small that nothing is learnt, and what it writes."""

import dataclasses
import json

from experiments.certification import Scored
from experiments.setup import Run
import jax
import numpy as np
import pytest

from experiments import certify, quickstart, stages
from jobrec_jax.data.lists import calibration_halves, uniform_lists
from jobrec_jax.data.market.simulator import simulate
from jobrec_jax.evaluate.certification import LTT, WHOLE
from jobrec_jax.report.results import read_results
from jobrec_jax.scoring.features import ExpertFeatures
from tests.experiments.test_quickstart import tiny as tiny_run


def tiny():
  c = tiny_run()
  with c.unlocked():
    c.policy.epochs = 8
    c.certify.alpha, c.certify.points, c.certify.k = 0.7, 4, 2
    c.certify.population, c.certify.draws, c.certify.lists = 120, 20, 40
  return c


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  before = {k: getattr(jax.config, k) for k in (
      'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs')}
  path = tmp_path_factory.mktemp('certify') / 'run'
  quickstart.main(tiny(), str(path))
  yield path
  for key, value in before.items():
    jax.config.update(key, value)


@pytest.mark.slow
def test_a_run_is_certified_and_checked(folder, capsys):
  before = (folder / 'results.json').read_bytes()
  certify.main(tiny(), str(folder))
  out = capsys.readouterr().out
  assert '## Certified eligibility' in out and '20 calibration sets of 40 lists' in out
  said = json.loads((folder / 'certificates.json').read_text())
  assert (folder / 'figures/certificates.png').read_bytes().startswith(b'\x89PNG')
  assert len(said['taus']) == 4 and said['settings']['population'] == 120
  assert {r['loss'] for r in said['certified']} == {WHOLE, 'top 2'} == set(said['held_back'])
  assert {r['n'] for r in said['certified']} == {4}  # half of nine candidates
  assert {r['labels'] for r in said['proof']} == {
      'all labels', "applicants' labels", *certify.THIRDS, 'any group'}
  for r in said['proof']:
    if r['labels'] == 'all labels' and r['method'] == LTT:
      assert r['wrong'] <= said['wrong_at_most']
  assert (folder / 'results.json').read_bytes() == before
  assert 'Certified' in (folder / 'report.html').read_text()
  assert read_results(folder / 'results.json')


@pytest.mark.slow
def test_a_source_without_truth_and_an_empty_run_are_refused(folder, tmp_path):
  config = tiny()
  with pytest.raises(ValueError, match=r'calibration\.json: not there'):
    certify.main(config, str(tmp_path))
  config.data.source, config.data.folder = 'jsonl', str(tmp_path)
  with pytest.raises(ValueError, match=r"data\.source must be 'simulated'.* got 'jsonl'"):
    certify.main(config, str(folder))


def test_applicants_losses_look_at_their_applications_alone():
  config = tiny()
  people, truth = simulate(dataclasses.replace(certify.setup.validate(config).market,
                                               exposure=0.1), 0)
  lists = uniform_lists(truth.eligible, np.arange(60), np.arange(20), 8, 0)
  scores = np.random.default_rng(0).normal(size=(3, 60, 8))
  seen = certify.applicants_losses(config, people, Scored(lists, scores, None, None, None))[WHOLE]
  log = people.interactions.where(people.interactions.preference == 1)
  label = {(u, j): y for u, j, y in zip(log.candidate.tolist(), log.job.tolist(),
                                        log.qualification.tolist())}
  expected = []
  for i, jobs in enumerate(lists.job.tolist()):
    at = [a for a, j in enumerate(jobs) if (i, j) in label]
    if at:
      pi = np.exp(scores[:, i, at])
      y = np.array([label[i, jobs[a]] for a in at])
      expected.append((pi * (1 - y)).sum(1) / pi.sum(1))
  assert 0 < len(expected) < 60
  np.testing.assert_allclose(seen, expected)


def test_thirds_are_of_equal_size_and_in_order():
  p_qual = np.random.default_rng(0).random((90, 5))
  groups = certify.thirds(p_qual)
  means = [p_qual.mean(1)[groups == name] for name in certify.THIRDS]
  assert [len(m) for m in means] == [30] * 3
  assert means[0].max() < means[1].min() and means[1].max() < means[2].min()


def test_calibration_is_fitted_to_its_half_alone(market, tmp_path):
  dataset, _ = market
  asked = []

  def extractor(candidate, job, name=''):
    asked.append(candidate)
    score = np.random.default_rng(0).normal(size=candidate.shape)
    return ExpertFeatures(np.zeros((*candidate.shape, 2, 1)), score, score)
  config = tiny()
  config.experts.censoring = 'none'
  stages.calibrate(config, Run(tmp_path), dataset, extractor)
  fitted, held_back = calibration_halves(dataset)
  assert len(held_back) and set(np.concatenate(asked).tolist()) <= set(fitted.tolist())
