import json
from pathlib import Path
import re
import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest

from configs import base
from experiments import recommend as script, trained
from experiments.alignment import make_head
from experiments.setup import Run
from experiments.stages import make_model
from jobrec_jax.data.files.records import read_entity_json, write_entities
from jobrec_jax.data.tokens import BlockLengths, save_tokenizer
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.recommend import TrainedExperts, recommend
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.students import STUDENTS
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.policy import Policy
from jobrec_jax.train.checkpoint import Checkpoints

EXAMPLES = Path(script.__file__).parent / 'examples'
LENGTHS = BlockLengths(40, 24, 16)
CALIBRATION = Calibration(0.1, 0.5)
TEXT = np.zeros((1, 4), np.int32)


def head_params(head: PolicyHead, width: int, value: float):
  """A head whose lambda is `value` everywhere."""
  params = head.init(jax.random.key(1), *np.zeros((2, 1, width), np.float32))['params']
  params['lambda']['bias'] = np.broadcast_to(np.float32(value), head.outputs).copy()
  return params


def expert_params(model):
  return jax.device_get(nn.unbox(
      model.init(jax.random.key(0), TEXT, TEXT[:, None], TEXT[:, None])['params']))


@pytest.fixture(scope='module')
def experts(model, tokenizer):
  return TrainedExperts(model, expert_params(model), tokenizer, LENGTHS, CALIBRATION)


@pytest.fixture(scope='module')
def ranked(dataset, experts, one_device):
  """lam -> the whole catalogue ranked under a policy of that constant lambda."""
  head = PolicyHead(widths=(8,))

  def rank(lam, jobs=dataset.jobs, **more):
    candidate = read_entity_json(EXAMPLES / 'builder.json', STUDENTS, 'candidate')
    policy = Policy(head, head_params(head, 16, lam), np.array([0.5], np.float32))
    return recommend(STUDENTS, candidate, jobs, experts, policy, 0.5, one_device,
                     **{'top_k': 20, 'items': 8, 'batch': 2} | more)
  return rank


def test_scores_and_eligibility_follow_their_formulas(ranked, dataset):
  result = ranked(2.0, temperature=0.5)
  s, pref, p, lam = np.array([[j.score, j.preference, j.qualification, j.lam]
                              for j in result.jobs]).T
  assert {j.job_id for j in result.jobs} == {j.id for j in dataset.jobs}
  assert (np.diff(s) <= 0).all() and (lam == 2).all()
  np.testing.assert_allclose(s, pref + lam * np.log(p / (1 - p)), atol=1e-4)
  pi = np.exp(2 * (s - s.max()))
  np.testing.assert_allclose(result.eligibility, (pi * p).sum() / pi.sum(), atol=1e-5)


def test_lambda_moves_the_ranking_from_preference_to_qualification(ranked):
  free, strict = ranked(0.0), ranked(5.0)
  assert [j.score for j in free.jobs] == [j.preference for j in free.jobs]
  assert strict.eligibility > free.eligibility


def test_a_jobs_scores_do_not_depend_on_its_catalogue(ranked, dataset):
  whole = {j.job_id: j for j in ranked(1.0).jobs}
  for job in ranked(1.0, jobs=dataset.jobs[4:7]).jobs:
    np.testing.assert_allclose(job.score, whole[job.job_id].score, atol=1e-5)


def test_reasons_are_grouped_by_layer(ranked):
  job = Entity('X', {'min_gpa': 3.8, 'min_months_experience': 10, 'industry': 'CV'})
  (only,) = ranked(1.0, jobs=[job]).jobs
  assert set(only.reasons) == {'eligibility', 'competence', 'logistics', 'interest'}
  assert {'gpa unmet by 0.4', 'months met', 'level unknown'} <= set(only.reasons['eligibility'])
  assert only.reasons['interest'] == ['industry met']


@pytest.mark.parametrize('change, message', [
    ({'jobs': []}, 'at least one job'), ({'top_k': 0}, 'top_k must be positive, got 0'),
    ({'jobs': [Entity('X', {'min_gpa': 9.0})]}, r"job 'X': min_gpa must lie in \[0, 4\]")])
def test_bad_input_is_named(ranked, change, message):
  with pytest.raises(ValueError, match=message):
    ranked(1.0, **change)


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory, dataset, tokenizer):
  """A finished run folder of small untrained experts, without its data set."""
  run = Run(tmp_path_factory.mktemp('run'))
  config = base.get_config()
  config.model.update(width=16, layers=1, heads=2, kv_heads=1, head_width=8, mlp_width=16,
                      head_widths=(8,))
  config.tokenizer.update(candidate=40, job=24, alignment=16)
  (run / 'config.json').write_text(config.to_json())
  save_tokenizer(tokenizer, run / 'tokenizer.json')
  write_entities(run / 'jobs.json', dataset.jobs)
  (run / 'calibration.json').write_text(json.dumps(CALIBRATION._asdict()))
  (run / 'policy.json').write_text(json.dumps({'knots': [0.4, 0.5, 0.6],
                                               'constraint': 'inequality'}))
  params = expert_params(make_model(config, tokenizer.get_vocab_size()))
  head = head_params(make_head(config, 3), 16, np.array([0.0, 1.0, 3.0]))
  stages = {'cooperative': {'trainable': {'model': params}, 'frozen': {}, 'opt_state': ()},
            'policy': (head, {'mu': np.ones(1)})}
  for name, state in stages.items():
    checkpoints = Checkpoints(run / f'checkpoints/{name}', {'schema': STUDENTS.fingerprint()})
    checkpoints.save(1, state)
    checkpoints.close()
  return run


@pytest.mark.parametrize('name', ['builder', 'scholar'])
def test_a_run_ranks_its_own_catalogue_for_a_candidate_it_never_saw(run_folder, dataset, name):
  result = script.run_recommend(run_folder, EXAMPLES / f'{name}.json', 0.6, 3, None)
  assert len(result.jobs) == 3
  assert {j.job_id for j in result.jobs} <= {j.id for j in dataset.jobs}
  assert all(j.lam == 3 for j in result.jobs)


def test_a_run_ranks_a_catalogue_given_by_file(run_folder, tmp_path):
  (tmp_path / 'jobs.json').write_text(json.dumps([{'id': 'new', 'industry': 'CV'}, {}]))
  result = script.run_recommend(run_folder, EXAMPLES / 'builder.json', 0.0, 5,
                                tmp_path / 'jobs.json')
  assert {j.job_id for j in result.jobs} == {'new', 'job-1'}


@pytest.mark.parametrize('tau, lam', [(0.0, 0.0), (0.4, 0.0), (0.45, 0.5), (0.5, 1.0), (0.55, 2.0)])
def test_every_requirement_has_its_lambda(run_folder, tau, lam):
  result = script.run_recommend(run_folder, EXAMPLES / 'builder.json', tau, 3, None)
  np.testing.assert_allclose([j.lam for j in result.jobs], lam, atol=1e-5)


def test_a_requirement_beyond_the_training_names_the_range(run_folder):
  with pytest.raises(ValueError, match=r'\[0.4, 0.6\], or below it to ask for nothing; got 0.7'):
    script.run_recommend(run_folder, EXAMPLES / 'builder.json', 0.7, 3, None)


def test_a_policy_of_an_earlier_version_is_named(run_folder, tmp_path):
  run = Run(tmp_path / 'run')
  shutil.copytree(run_folder.folder, run.folder)
  shutil.rmtree(run / 'checkpoints/policy')
  checkpoints = Checkpoints(run / 'checkpoints/policy', {'schema': STUDENTS.fingerprint()})
  checkpoints.save(1, ({'lambda': np.zeros(3)}, {'mu': np.ones(1)}))
  checkpoints.close()
  with pytest.raises(ValueError, match='policy: the policy is of an earlier version'):
    script.run_recommend(run, str(EXAMPLES / 'builder.json'), 0.5, 3, None)


def test_what_is_too_long_is_counted(dataset, model, tokenizer, one_device):
  experts = TrainedExperts(model, expert_params(model), tokenizer, BlockLengths(10, 24, 16),
                           CALIBRATION)
  head = PolicyHead(widths=(8,))
  candidate = read_entity_json(EXAMPLES / 'builder.json', STUDENTS, 'candidate')
  policy = Policy(head, head_params(head, 16, 0.0), np.array([0.5], np.float32))
  said = recommend(STUDENTS, candidate, dataset.jobs[:3], experts, policy, 0.0, one_device, items=8,
                   batch=2).cut
  assert said['candidate'] == 1 and set(said) == {'candidate', 'job', 'alignment'}


def test_a_folder_without_a_run_is_named(tmp_path):
  with pytest.raises(ValueError, match='not there; run experiments'):
    script.run_recommend(Run(tmp_path), EXAMPLES / 'builder.json', 0.6, 3, None)


def test_a_config_with_an_unknown_key_is_named(run_folder, tmp_path):
  values = json.loads((run_folder / 'config.json').read_text())
  values['model']['depth'] = 3
  (tmp_path / 'config.json').write_text(json.dumps(values))
  with pytest.raises(ValueError, match=r'config.json: .*depth'):
    trained.read_config(Run(tmp_path))


def test_the_table_is_aligned_and_holds_every_reason(ranked):
  result = ranked(1.0, top_k=2)
  lines = script.table(result, 0.6).splitlines()
  assert lines[0].split() == list(script.COLUMNS)
  rows = [l for l in lines if re.match(r'\s*\d+  J\d', l)]
  assert [r.split()[1] for r in rows] == [j.job_id for j in result.jobs]
  assert {len(r) for r in rows} == {len(lines[0])}
  for job in result.jobs:
    for layer, words in job.reasons.items():
      assert any(l.split() == f'{layer} {", ".join(words)}'.split() for l in lines)
  assert lines[-1].endswith(f'{result.eligibility:.3f} (asked for 0.6)')
