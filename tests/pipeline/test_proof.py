"""Certificates of a run and their check on a fresh population: what is written, by plain loops."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from experiments import certify
from jobrec_jax.data.lists import uniform_lists
from jobrec_jax.data.market.simulator import simulate
from jobrec_jax.evaluate.certification import LTT, WHOLE
from jobrec_jax.pipeline.certify import THIRDS, Scored, applicants_losses, thirds
from jobrec_jax.pipeline.road import proof_stage, road
from jobrec_jax.pipeline.run import Run
from tests.pipeline.tiny import tiny_settings


@pytest.mark.slow
def test_a_run_is_certified_and_checked(tiny_folder, tmp_path, capsys):
  run = Run(shutil.copytree(tiny_folder, tmp_path / 'run'), tiny_settings())
  before = (run / 'results.json').read_bytes()
  certify.main(run)
  out = capsys.readouterr().out
  assert '## Certified eligibility' in out and '20 calibration sets of 40 lists' in out
  found = json.loads((run / 'certificates.json').read_text())
  assert (run / 'figures/certificates.png').read_bytes().startswith(b'\x89PNG')
  assert len(found['taus']) == 4 and found['settings']['population'] == 120
  assert {r['loss'] for r in found['certified']} == {WHOLE, 'top 2'} == set(found['held_back'])
  assert found['wrong_at_most'] == pytest.approx(0.1 + 2 * np.sqrt(0.1 * 0.9 / 20))
  log = run.get(run.road.data).dataset.interactions
  held_back = np.unique(log.candidate[log.split == 2])[1::2]
  assert {r['n'] for r in found['certified']} == {len(held_back)}
  assert {r['labels'] for r in found['proof']} == {
      'all labels', "applicants' labels", *THIRDS, 'any group'}
  for r in found['proof']:
    if r['labels'] == 'all labels' and r['method'] == LTT:
      assert r['wrong'] <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 20)  # delta and the draws above
  assert (run / 'results.json').read_bytes() == before
  assert 'Certified' in (run / 'report.html').read_text()


def test_a_source_without_truth_is_refused(tmp_path):
  settings = tiny_settings(data={'source': 'jsonl', 'folder': str(tmp_path)})
  with pytest.raises(ValueError, match=r"data\.source must be 'simulated'.* got 'jsonl'"):
    proof_stage(settings, road(settings))


def test_applicants_losses_look_at_their_applications_alone():
  settings = tiny_settings(market={'candidates': 60})
  people, truth = simulate(dataclasses.replace(settings.market, exposure=0.1), 0)
  lists = uniform_lists(truth.eligible, np.arange(60), np.arange(20), 8, 0)
  scores = np.random.default_rng(0).normal(size=(3, 60, 8))
  s = {'certify': settings.certify, 'temperature': 0.6}
  found = applicants_losses(s, people, Scored(lists, scores, None, None, None))[WHOLE]
  log = people.interactions.where(people.interactions.preference == 1)
  label = {(u, j): y for u, j, y in zip(log.candidate.tolist(), log.job.tolist(),
                                        log.qualification.tolist())}
  expected = []
  for i, jobs in enumerate(lists.job.tolist()):
    at = [a for a, j in enumerate(jobs) if (i, j) in label]
    if at:
      pi = np.exp(scores[:, i, at] / 0.6)
      y = np.array([label[i, jobs[a]] for a in at])
      expected.append((pi * (1 - y)).sum(1) / pi.sum(1))
  assert 0 < len(expected) < 60
  np.testing.assert_allclose(found, expected)


def test_thirds_are_of_equal_size_and_in_order():
  p_qual = np.random.default_rng(0).random((90, 5))
  groups = thirds(p_qual)
  means = [p_qual.mean(1)[groups == name] for name in THIRDS]
  assert [len(m) for m in means] == [30] * 3
  assert means[0].max() < means[1].min() and means[1].max() < means[2].min()
