"""Stage 2 as the scripts share it: features, the attainable range, one policy for every tau."""

import json
from typing import NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments.setup import FREE, Run, Settings
from experiments.stages import Experts, identity
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lists import policy_lists
from jobrec_jax.evaluate.control import tau_grid
from jobrec_jax.lagrangian.attainable import attainable_range, check_attainable
from jobrec_jax.lagrangian.diagnosis import diagnose
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.schema.files import write_text
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.policy import (
  Policy,
  PolicyInputs,
  eligibility,
  head_scores,
  policy_inputs,
)
from jobrec_jax.train.checkpoint import Checkpoints, load_params
from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.policy import PolicyResult, make_policy_trainer, policy_trial

MARGIN = 0.08  # share of the attainable range above the last knot


class Policies(NamedTuple):
  """The policy, and the requirements that it is reported at.

  Attributes:
    policy: for every tau in its range.
    taus: ascending; the first is 0 under 'inequality' and asks for nothing.
    trained: [taus that ask for something, N] predicted C of stage 2's lists.
    attainable: the least and greatest C on these lists.
    inputs: stage 2's lists.
  """

  policy: Policy
  taus: list[float]
  trained: np.ndarray
  attainable: tuple[float, float]
  inputs: PolicyInputs


def make_head(config: ConfigDict, outputs: int) -> PolicyHead:
  return PolicyHead(widths=(config.policy.width,), bound=config.policy.bound, outputs=outputs)


def reach(config: ConfigDict, inputs: PolicyInputs) -> tuple[float, float]:
  """The least and greatest C that lambda in [-bound, bound] can reach on these lists."""
  low, high = (np.asarray(inputs.preference - sign * config.policy.bound * abs(inputs.z_qual))
               for sign in (1, -1))
  return attainable_range(low, high, jax.nn.sigmoid(inputs.z_qual), np.asarray(inputs.mask),
                          config.policy.temperature)


def stage_2_inputs(config: ConfigDict, dataset: Dataset, experts: Experts,
                   calibration: Calibration) -> PolicyInputs:
  p = config.policy
  lists = policy_lists(dataset, 'train', p.list_length, p.lists, config.seed)
  logging.info("policy: stage 2's lists have fingerprint %s", lists.fingerprint())
  features = experts.extractor(config)(lists.candidate, lists.job, 'stage 2 features')
  return policy_inputs(features, lists, calibration)


def reached_by(policy: Policy, inputs: PolicyInputs, tau: float, temperature: float) -> np.ndarray:
  """[N] predicted C of each list at a requirement."""
  return np.asarray(eligibility(policy.scores_at(inputs, tau), inputs.z_qual, inputs.mask,
                                temperature))


def align(config: ConfigDict, settings: Settings, run: Run, dataset: Dataset, experts: Experts,
          calibration: Calibration) -> Policies:
  """Trains, or restores, the policy."""
  p = config.policy
  inputs = stage_2_inputs(config, dataset, experts, calibration)
  metrics = MetricsWriter(run / 'metrics.jsonl')
  depends = identity(config, dataset, 'market', 'tokenizer', 'model', 'lists', 'experts',
                     'warm_up', 'cooperative', 'backbone', 'lora') | {
      'head': 'standardised inputs',
      'policy': {k: v for k, v in config['policy'].to_dict().items()
                 if k not in FREE}}

  def fit(name: str, taus: np.ndarray) -> PolicyResult:
    train = jax.jit(make_policy_trainer(make_head(config, len(taus)), settings.policy))
    trial = policy_trial(settings.policy, taus, config.seed)
    checkpoints = Checkpoints(run / f'checkpoints/{name}', depends | {'taus': taus.tolist()})
    if checkpoints.latest() is not None:
      here = jax.sharding.SingleDeviceSharding(jax.devices()[0])  # whatever device wrote it
      like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
                          tuple(jax.eval_shape(train, inputs, trial)))
      result = PolicyResult(*checkpoints.restore(like))
    else:
      result = jax.block_until_ready(train(inputs, trial))
      checkpoints.save(p.epochs, tuple(result))
      history = {k: np.asarray(v) for k, v in result.history.items()}
      for k, tau in enumerate(taus):
        for epoch in range(p.epochs):
          metrics.write(stage=name, tau=float(tau), step=epoch + 1,
                        **{f'train/{m}': float(v[epoch, k]) for m, v in history.items()})
    checkpoints.close()
    return result

  low, high = reach(config, inputs)
  if p.constraint == 'inequality':  # what a policy of the same kind does of its own accord
    free = make_head(config, 1), fit('free_policy', np.zeros(1, np.float32)).params
    scores = head_scores(*free, inputs)[0]
    low = float(eligibility(scores, inputs.z_qual, inputs.mask, p.temperature).mean())
  logging.info("policy: C can lie in [%.3f, %.3f] on stage 2's lists", low, high)
  asked = [round(float(t), 4) for t in (p.taus or tau_grid(low, high, p.grid))]
  for tau in asked:
    # As an inequality, less than what comes of its own accord asks for nothing.
    check_attainable(max(tau, low) if p.constraint == 'inequality' else tau, (low, high))
  knots = np.linspace(low, max(high - MARGIN * (high - low), *asked), p.knots, dtype=np.float32)
  result = fit('policy', knots)
  policy = Policy(make_head(config, p.knots), result.params, knots, p.constraint)
  report_multipliers(result, knots)
  trained = np.stack([reached_by(policy, inputs, t, p.temperature) for t in asked])
  for tau, reached in zip(asked, trained):
    logging.info('policy: tau %.4f, C reached %.4f', tau, reached.mean())
  write_text(run / 'policy.json', json.dumps(
      {'knots': knots.tolist(), 'constraint': p.constraint, 'attainable': [low, high],
       'taus': asked}) + '\n')
  taus = [0.0, *asked] if p.constraint == 'inequality' else asked
  return Policies(policy, taus, trained, (low, high), inputs)


def report_multipliers(result: PolicyResult, knots: np.ndarray) -> None:
  """Logs what each multiplier's course says, where it says anything but 'settled'."""
  mu, reached = (np.asarray(result.history[k]) for k in ('multiplier', 'eligibility'))
  if len(mu) < 8:
    return  # too few epochs to say anything
  for k, tau in enumerate(knots):
    said = diagnose(mu[:, k], tau - reached[:, k], tolerance=0.01, name=f'C >= {tau:.4f}')
    if said.verdict != 'settled':
      logging.info('policy: %s', said.message)


def load_policy(config: ConfigDict, run: Run, schema: str) -> Policy:
  """The policy that a run folder holds.

  Raises:
    ValueError: there is none, or it was trained under another schema or by an earlier version.
  """
  said = run.read_json('policy.json', 'experiments.align_policy')
  params = load_params(run / 'checkpoints/policy', schema)
  if 'mean' not in params:
    raise ValueError(f'{run / "checkpoints/policy"}: the policy is of an earlier version, whose '
                     'head took its inputs as they are; run experiments.align_policy on a copy of '
                     'the run folder without policy.json and checkpoints/*policy')
  knots = np.asarray(said['knots'], np.float32)
  return Policy(make_head(config, len(knots)), jax.tree.map(jnp.asarray, params), knots,
                said['constraint'])
