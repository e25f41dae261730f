"""Stage 2 as the scripts share it: features once, the attainable range, a head for each tau."""

import json
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments.setup import Run, Settings
from experiments.stages import Experts, identity
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lists import policy_lists
from jobrec_jax.evaluate.control import tau_grid
from jobrec_jax.lagrangian.attainable import attainable_range, check_attainable
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.objectives.calibration import Calibration
from jobrec_jax.report.results import write_text
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.policy import (
    PolicyInputs,
    PolicyResult,
    make_policy_trainer,
    policy_eligibility,
    policy_inputs,
)
from jobrec_jax.train.state import stream_key

PyTree = Any


class Policies(NamedTuple):
  """Heads trained for a grid of requirements; tau = 0 under 'inequality' asks for nothing."""

  head: PolicyHead
  params: dict[float, PyTree]  # tau -> parameters
  trained: np.ndarray  # [taus, N] predicted C of stage 2's lists
  attainable: tuple[float, float]


def make_head(config: ConfigDict) -> PolicyHead:
  return PolicyHead(widths=(config.policy.width,), bound=config.policy.bound)


def reach(config: ConfigDict, inputs: PolicyInputs) -> tuple[float, float]:
  """The least and greatest C that lambda in [-bound, bound] can reach on these lists."""
  low, high = (np.asarray(inputs.preference - sign * config.policy.bound * abs(inputs.z_qual))
               for sign in (1, -1))
  return attainable_range(low, high, jax.nn.sigmoid(inputs.z_qual), np.asarray(inputs.mask),
                          config.policy.temperature)


def align(config: ConfigDict, settings: Settings, run: Run, dataset: Dataset, experts: Experts,
          calibration: Calibration) -> Policies:
  """Trains, or restores, a head for every tau of the grid."""
  p = config.policy
  lists = policy_lists(dataset, 'train', p.list_length, p.lists, config.seed)
  features = experts.extractor(config)(lists.candidate, lists.job, 'stage 2 features')
  inputs = policy_inputs(features, lists, calibration)
  head = make_head(config)
  train = make_policy_trainer(head, settings.policy)
  key = stream_key(jax.random.key(config.seed), 'policy')
  metrics = MetricsWriter(run / 'metrics.jsonl')
  # A head does not depend on which others are trained beside it, so that tau can be added later.
  depends = identity(config, dataset, 'market', 'tokenizer', 'model', 'lists', 'experts',
                     'warm_up', 'cooperative', 'backbone', 'lora') | {
      'policy': {k: v for k, v in config['policy'].to_dict().items()
                 if k not in ('taus', 'grid', 'held_out')}}

  def fit(tau: float) -> PyTree:
    checkpoints = Checkpoints(run / f'checkpoints/policy/{tau:.6g}', depends)
    shapes = jax.eval_shape(train, inputs, jnp.float32(tau), key)
    if checkpoints.latest() is not None:
      result = PolicyResult(*checkpoints.restore(tuple(shapes)))
    else:
      result = jax.block_until_ready(train(inputs, jnp.float32(tau), key))
      checkpoints.save(p.epochs, tuple(result))
      for epoch in range(p.epochs):
        metrics.write(stage='policy', tau=tau, step=epoch + 1, **{
            f'train/{k}': float(v[epoch]) for k, v in result.history.items()})
    checkpoints.close()
    return result.params

  low, high = reach(config, inputs)
  params = {}
  if p.constraint == 'inequality':
    params[0.0] = fit(0.0)
    low = float(policy_eligibility(head, params[0.0], inputs, p.temperature).mean())
  logging.info('policy: C can lie in [%.3f, %.3f] on stage 2\'s lists', low, high)
  taus = [round(float(t), 4) for t in (p.taus or tau_grid(low, high, p.grid))]
  for tau in taus:
    check_attainable(tau, (low, high))
  for tau in taus:
    params[tau] = fit(tau)
    reached = policy_eligibility(head, params[tau], inputs, p.temperature).mean()
    logging.info('policy: tau %.4f, C reached %.4f', tau, reached)
  trained = np.stack([policy_eligibility(head, params[t], inputs, p.temperature) for t in taus])
  write_text(run / 'policies.json', json.dumps(
      {'taus': list(params), 'attainable': [low, high], 'lists': lists.fingerprint()}) + '\n')
  return Policies(head, params, trained, (low, high))
