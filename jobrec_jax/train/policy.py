"""Stage 2: the policy learns under the eligibility requirement; all below it is frozen."""

from collections.abc import Callable
import dataclasses
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jobrec_jax.lagrangian.ascent import DualState, dual_ascent, pid, relative
from jobrec_jax.models.policy import (
  PolicyHead,
  input_statistics,
)
from jobrec_jax.objectives.contrastive import info_nce
from jobrec_jax.objectives.expected_score import expected_score
from jobrec_jax.schema.settings import above, at_least, check, within
from jobrec_jax.scoring.policy import PolicyInputs, eligibility, head_scores
from jobrec_jax.train.state import (
  TrainState,
  create_state,
  merge_params,
  split_params,
  stream_key,
)

PyTree = Any
# A head may miss a requirement, and its multiplier would double until it is no number.
LARGEST_MULTIPLIER = 1e12


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
  """Settings of stage 2.

  Attributes:
    objective: 'info_nce' (the applied job, published), 'expected_score' (the frozen scores and
      entropy, no label) or 'expected_surplus' (the same with the surplus that both experts expect
      in the place of the preference score).
    epochs, batch: passes over the lists, and lists in a step.
    learning_rate: of AdamW, decayed to zero along a cosine.
    dual_learning_rate: eta of the multiplier, the integral gain of `lagrangian.ascent.pid`, whose
      moves are made `relative` to the multiplier.
    dual_kp, dual_kd, dual_nu: its other gains and its smoothing; zeros are plain ascent.
    constraint: 'inequality' (eligibility at least tau) or 'equality'.
    temperature: T of the softmax over a list.
    top_k: how many jobs of a list the requirement binds: C is the mean p_qual of the best so many.
      0: C is the policy's expectation (published).
    clip: greatest global norm of a gradient.

  Raises:
    ValueError: a setting lies outside its range.
  """

  objective: Literal['info_nce', 'expected_score', 'expected_surplus'] = 'expected_score'
  constraint: Literal['inequality', 'equality'] = 'inequality'
  epochs: Annotated[int, at_least(1)] = 150
  batch: Annotated[int, at_least(1)] = 50
  learning_rate: Annotated[float, above(0)] = 2e-3
  dual_learning_rate: Annotated[float, above(0)] = 0.3
  dual_kp: Annotated[float, at_least(0)] = 0.0
  dual_kd: Annotated[float, at_least(0)] = 0.0
  dual_nu: Annotated[float, within(0, 1, open_high=True)] = 0.0
  temperature: Annotated[float, above(0)] = 1.0
  top_k: Annotated[int, at_least(0)] = 0
  clip: Annotated[float, above(0)] = 1.0

  def __post_init__(self):
    check(self)
    if self.top_k and self.objective == 'info_nce':
      raise ValueError("top_k must be 0 with objective 'info_nce', whose gradient knows the "
                       f'expectation alone, got {self.top_k}')

  @property
  def worth(self) -> str:
    """Of `scoring.policy.WORTHS`."""
    return 'surplus' if self.objective == 'expected_surplus' else 'preference'


class PolicyTrial(NamedTuple):
  """What may differ between policies that one program trains; a sweep stacks them.

  Attributes:
    taus: [K] requirements, one for each output of the head.
    tilts: [K] the mu of p_qual that stays as it is; zeros for lambda alone (published).
    multipliers: [K] from which the Lagrange multipliers set out.
    seed: int32 scalar; of the initial weights and the order of lists.
    learning_rate, ki, kp, kd, nu: float32 scalars, of AdamW and of the multipliers' rule.
  """

  taus: jax.Array
  tilts: jax.Array
  multipliers: jax.Array
  seed: jax.Array
  learning_rate: jax.Array
  ki: jax.Array
  kp: jax.Array
  kd: jax.Array
  nu: jax.Array


def policy_trial(config: PolicyConfig, taus: np.ndarray, seed: int,
                 tilts: np.ndarray | None = None,
                 multipliers: np.ndarray | None = None) -> PolicyTrial:
  """The trial that a config describes; it sets out from preference where nothing else is given."""
  gains = (config.learning_rate, config.dual_learning_rate, config.dual_kp, config.dual_kd,
           config.dual_nu)
  each = (jnp.zeros(len(taus), jnp.float32) if x is None else jnp.asarray(x, jnp.float32)
          for x in (taus, tilts, multipliers))
  return PolicyTrial(*each, jnp.int32(seed), *map(jnp.float32, gains))


class PolicyResult(NamedTuple):
  """A trained head: its parameters, its K multipliers, and the course of means [epochs, K]."""

  params: PyTree
  duals: DualState
  history: dict[str, jax.Array]


def policy_loss(config: PolicyConfig, scores: jax.Array, inputs: PolicyInputs) -> jax.Array:
  """The objective to be minimised at policy scores [N, J], the mean over lists.

  The preference of the inputs is a; see `scoring.policy.worth_inputs`.
  """
  T = config.temperature
  if config.objective == 'info_nce':
    return info_nce(scores / T, inputs.positive, inputs.mask).mean()
  return -expected_score(scores, inputs.preference, inputs.mask, T).mean()


def _make_lagrangian(head: PolicyHead, config: PolicyConfig) -> Callable[..., tuple]:
  """(trainable, frozen, batch, multiplier [K], trial) -> (scalar, metrics [K])."""

  def lagrangian(trainable: PyTree, frozen: PyTree, batch: PolicyInputs, multiplier: jax.Array,
                 trial: PolicyTrial) -> tuple[jax.Array, dict[str, jax.Array]]:
    scores = head_scores(head, merge_params(trainable, frozen), batch, trial.tilts)  # [K, B, J]
    loss = jax.vmap(lambda s: policy_loss(config, s, batch))(scores)                 # [K]
    reached = jax.vmap(eligibility, (0, None, None, None))(
        scores, batch.z_qual, batch.mask, config.temperature).mean(-1)               # [K]
    total = ((loss + multiplier * (trial.taus - reached)) / (1 + jnp.abs(multiplier))).mean()
    return total, {'loss': loss, 'eligibility': reached}

  return lagrangian


def make_policy_trainer(head: PolicyHead,
                        config: PolicyConfig) -> Callable[[PolicyInputs, PolicyTrial],
                                                          PolicyResult]:
  """A pure (inputs, trial) -> PolicyResult, for `jit` or a sweep.

  Solves `min_theta max_mu E[L(s_k)] + mu_k (tau_k - C_k)` for the K requirements of the head at
  once, L the InfoNCE or minus the expected score, by a step of AdamW on theta and one of ascent on
  each mu for each batch. A requirement's part is divided by 1 + |mu_k|, so that none outweighs the
  others in the layers that they share. The last iterate counts; `train.tilts.align` then keeps it
  where it is better than what it started from.

  Reference:
    Stooke et al., Responsive safety in reinforcement learning by PID Lagrangian methods, 2020
    (division by 1 + mu).
  """
  loss_fn = _make_lagrangian(head, config)

  def train(inputs: PolicyInputs, trial: PolicyTrial) -> PolicyResult:
    lists = len(inputs.preference)
    batch = min(config.batch, lists)
    per_epoch = lists // batch
    key = stream_key(jax.random.key(trial.seed), 'policy')
    schedule = optax.cosine_decay_schedule(trial.learning_rate, config.epochs * per_epoch)
    tx = optax.chain(optax.clip_by_global_norm(config.clip), optax.adamw(schedule))
    rule = relative(pid(trial.ki, trial.kp, trial.kd, trial.nu))
    dual = dual_ascent(rule, constraint=config.constraint, cap=LARGEST_MULTIPLIER)
    hidden = inputs.hidden[..., 0, :], inputs.hidden[..., 1, :]
    statistics = input_statistics(*hidden, inputs.mask)
    params = head.init(stream_key(key, 'init'), *hidden)['params'] | statistics
    trainable, frozen = split_params(params, lambda path: path[0] in statistics)
    state = create_state(trainable, frozen, tx, dual.init(trial.multipliers))

    def step(state: TrainState, rows: jax.Array):
      multiplier = state.duals.multiplier
      (_, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
          state.trainable, state.frozen, jax.tree.map(lambda x: x[rows], inputs), multiplier,
          trial)
      updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
      state = state.replace(
          step=state.step + 1, trainable=optax.apply_updates(state.trainable, updates),
          opt_state=opt_state,
          duals=dual.update(state.duals, violation=trial.taus - metrics['eligibility']))
      return state, metrics | {'multiplier': multiplier}

    def epoch(state: TrainState, index: jax.Array):
      order = jax.random.permutation(stream_key(key, 'order', index), lists)
      state, metrics = jax.lax.scan(step, state, order[:per_epoch * batch].reshape(-1, batch))
      return state, jax.tree.map(lambda m: m.mean(0), metrics)

    state, history = jax.lax.scan(epoch, state, jnp.arange(config.epochs))
    return PolicyResult(merge_params(state.trainable, state.frozen), state.duals, history)

  return train
