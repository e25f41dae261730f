"""Runs the stages of an evaluation with experts that know the truth in place of trained ones."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logit

from jobrec_jax.baselines.rivals import DEFAULT
from jobrec_jax.pipeline import evaluate, scores
from jobrec_jax.pipeline.calibration import Calibrated
from jobrec_jax.pipeline.data import Data
from jobrec_jax.pipeline.logged import Logged
from jobrec_jax.pipeline.policy import TrainedPolicy, make_head
from jobrec_jax.pipeline.settings import EvaluateSettings, PolicySettings
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.policy import Policy, PolicyInputs

CALIBRATION = Calibration(b=0.0, t=2.0)  # the fake expert's logits are twice too large
POLICY = PolicySettings(list_length=8, held_out=30, width=4, taus=(0.3, 0.5), lists=50)


def policy():
  """Constant lambda 0, 0.5 and 2 at the requirements 0.1, 0.3 and 0.5."""
  head = make_head(POLICY, 3)
  hidden = np.zeros((1, 1, 4), np.float32)
  params = head.init(jax.random.key(0), hidden, hidden)['params']
  params['lambda']['bias'] = np.array([0.0, 0.5, 2.0], np.float32)
  return Policy(head, params, np.array([0.1, 0.3, 0.5], np.float32), 1.0)


def kept_scores(dataset, truth, lists, offsets=0.0):
  """Logits of the truth for every pair, the qualification's on the fake expert's scale.

  Without the offsets by job, where there are any.
  """
  jobs = len(dataset.jobs)
  codes = scores.distinct([*lists.cases.values(), lists.held_out], jobs)
  u, j = np.divmod(codes, jobs)
  lam = np.tile(np.array([0.0, 0.5, 2.0], np.float32), (len(codes), 1))
  return scores.KeptScores(jobs, codes, logit(truth.preference[u, j]),
                           CALIBRATION.t * (logit(truth.qualification[u, j])
                                            - np.broadcast_to(offsets, jobs)[j]), codes, lam)


def evaluation(folder, dataset, truth, known, offsets=0.0, groups=()):
  """Runs the stages of an evaluation; `known`: whether the truth is given to it."""
  data = Data(dataset, truth if known else None)
  resources = SimpleNamespace(folder='')

  def run(make, read, settings, **inputs):
    place = folder / f'{make.__name__}{len(list(folder.iterdir()))}'
    place.mkdir()
    bench = SimpleNamespace(folder=place, settings=settings, inputs={'data': data, **inputs},
                            resources=resources)
    make(bench)
    return read(bench)
  lists = run(scores.make_lists, scores.read_lists, {
      'seed': 0, 'held_out': 30, 'list_length': 8, 'candidates': 0, 'source': 'simulated',
      'size': ''})
  rivals = {name: run(scores.make_rival, scores.read_list_scores, {'rival': name}, lists=lists)
            for name in DEFAULT}
  canaries = run(scores.make_canaries, scores.read_list_scores, {'seed': 0}, lists=lists)
  inputs = PolicyInputs(jnp.zeros((50, 8, 2, 4)), jnp.zeros((50, 8)), jnp.zeros((50, 8)),
                        jnp.zeros(50, int), jnp.ones((50, 8), bool))
  return run(evaluate.make_evaluation, evaluate.read_evaluation,
             {'seed': 0, 'policy': POLICY, 'evaluate': EvaluateSettings(groups=groups)},
             lists=lists, policy=TrainedPolicy(policy(), (0.1, 0.6), {}),
             calibration=Calibrated(CALIBRATION, np.broadcast_to(offsets, len(dataset.jobs))),
             scores=kept_scores(dataset, truth, lists, offsets), inputs=inputs, canaries=canaries,
             logged=Logged(None, None), blanked=np.zeros(lists.wanted.job.shape, np.float32),
             **rivals)
