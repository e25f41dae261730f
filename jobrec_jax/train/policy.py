"""Stage 2: the policy head learns under the eligibility requirement; all below it is frozen."""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.lagrangian.ascent import DualState, dual_ascent
from jobrec_jax.models.policy import PolicyHead, policy_scores
from jobrec_jax.objectives.calibration import Calibration
from jobrec_jax.objectives.contrastive import info_nce
from jobrec_jax.train.features import ExpertFeatures
from jobrec_jax.train.state import TrainState, create_state, stream_key

PyTree = Any


@struct.dataclass
class PolicyInputs:
  """Stage 2's lists as the frozen experts see them, computed once.

  Attributes:
    hidden: [N, J, E, D] readout states.
    preference: [N, J] s_pref.
    z_qual: [N, J] calibrated qualification logit.
    positive: [N] int32 index of each list's applied job.
    mask: [N, J] bool.
  """

  hidden: jax.Array
  preference: jax.Array
  z_qual: jax.Array
  positive: jax.Array
  mask: jax.Array


def policy_inputs(features: ExpertFeatures, lists: RankingLists,
                  calibration: Calibration) -> PolicyInputs:
  return PolicyInputs(
      jnp.asarray(features.hidden), jnp.asarray(features.preference),
      jnp.asarray(calibration.logit(features.qualification), jnp.float32),
      jnp.asarray(lists.relevance.argmax(1), jnp.int32), jnp.asarray(lists.mask))


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Settings of stage 2.

  Attributes:
    epochs, batch: passes over the lists, and lists in a step.
    learning_rate: of AdamW, decayed to zero along a cosine.
    dual_learning_rate: eta of the multiplier.
    constraint: 'inequality' (eligibility at least tau) or 'equality'.
    temperature: T of the softmax over a list.
    clip: greatest global norm of a gradient.

  Raises:
    ValueError: a setting lies outside its range.
  """

  epochs: int = 40
  batch: int = 32
  learning_rate: float = 1e-3
  dual_learning_rate: float = 0.5
  constraint: str = 'inequality'
  temperature: float = 1.0
  clip: float = 1.0

  def __post_init__(self):
    for name in ('epochs', 'batch', 'learning_rate', 'dual_learning_rate', 'temperature', 'clip'):
      if getattr(self, name) <= 0:
        raise ValueError(f'policy.{name} must be positive, got {getattr(self, name)}')


class PolicyResult(NamedTuple):
  """A trained head: its parameters, its multiplier, and the course of [epochs] means."""

  params: PyTree
  duals: DualState
  history: dict[str, jax.Array]


def eligibility(scores: jax.Array, z_qual: jax.Array, mask: jax.Array,
                temperature: float) -> jax.Array:
  """`C_l = sum_j pi_j p_qual_j` of each list, `pi = softmax(s / T)`: [N, J] -> [N]."""
  pi = jax.nn.softmax(jnp.where(mask, scores / temperature, -jnp.inf), axis=-1)
  return (pi * jax.nn.sigmoid(z_qual)).sum(-1)


def make_policy_trainer(head: PolicyHead, config: PolicyConfig) -> Callable[..., PolicyResult]:
  """A jitted (inputs, tau, key) -> PolicyResult; every tau runs through the same program.

  Solves `min_theta max_mu E[InfoNCE(s)] + mu (tau - C)` by a step of AdamW on theta and one of
  ascent on mu for each batch. The last iterate counts; nothing is selected.
  """
  dual_init, dual_update = dual_ascent(config.dual_learning_rate, constraint=config.constraint)

  def loss_fn(params: PyTree, batch: PolicyInputs, multiplier: jax.Array, tau: jax.Array):
    lam = head.apply({'params': params}, batch.hidden[..., 0, :], batch.hidden[..., 1, :])
    scores = policy_scores(batch.preference, lam, batch.z_qual)
    nce = info_nce(scores / config.temperature, batch.positive, batch.mask).mean()
    reached = eligibility(scores, batch.z_qual, batch.mask, config.temperature).mean()
    return nce + multiplier * (tau - reached), {'info_nce': nce, 'eligibility': reached}

  def train(inputs: PolicyInputs, tau: jax.Array, key: jax.Array) -> PolicyResult:
    lists = len(inputs.preference)
    batch = min(config.batch, lists)
    per_epoch = lists // batch
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.epochs * per_epoch)
    tx = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule))
    params = head.init(stream_key(key, 'init'), inputs.hidden[:1, :, 0], inputs.hidden[:1, :, 1])
    state = create_state(params['params'], (), tx, dual_init(()))

    def step(state: TrainState, rows: jax.Array):
      multiplier = state.duals.multiplier
      (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
          state.trainable, jax.tree.map(lambda x: x[rows], inputs), multiplier, tau)
      updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
      state = state.replace(
          step=state.step + 1, trainable=optax.apply_updates(state.trainable, updates),
          opt_state=opt_state,
          duals=dual_update(state.duals, violation=tau - metrics['eligibility']))
      return state, metrics | {'multiplier': multiplier}

    def epoch(state: TrainState, index: jax.Array):
      order = jax.random.permutation(stream_key(key, 'order', index), lists)
      state, metrics = jax.lax.scan(step, state, order[:per_epoch * batch].reshape(-1, batch))
      return state, jax.tree.map(jnp.mean, metrics)

    state, history = jax.lax.scan(epoch, state, jnp.arange(config.epochs))
    return PolicyResult(state.trainable, state.duals, history)

  return jax.jit(train)


def policy_eligibility(head: PolicyHead, params: PyTree, inputs: PolicyInputs,
                       temperature: float) -> np.ndarray:
  """Predicted C of each list under a head: [N]."""
  lam = head.apply({'params': params}, inputs.hidden[..., 0, :], inputs.hidden[..., 1, :])
  scores = policy_scores(inputs.preference, lam, inputs.z_qual)
  return np.asarray(eligibility(scores, inputs.z_qual, inputs.mask, temperature))


def apply_policy(head: PolicyHead, params: PyTree, features: ExpertFeatures,
                 calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
  """Policy scores and lambda of pairs of any shape [...], on the host."""
  lam = np.asarray(head.apply({'params': params}, features.hidden[..., 0, :],
                              features.hidden[..., 1, :]))
  return policy_scores(features.preference, lam, calibration.logit(features.qualification)), lam
