"""What training carries from step to step: arrays only."""

from collections.abc import Callable
import dataclasses
from typing import Annotated, Any
import zlib

from flax import struct, traverse_util
import jax
import jax.numpy as jnp
import optax

from jobrec_jax.schema.settings import above, at_least, check

PyTree = Any
# Decay of AdamW's mean squares: they forget in 50 steps, as a run of some hundreds should.
ADAM_B2 = 0.98
LossFn = Callable[[PyTree, PyTree, PyTree, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
MeasureFn = Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]]


@struct.dataclass
class Best:
  """The parameters that did best on held-out lists so far; they travel with the state.

  Attributes:
    lowest: float32 [], the lowest held-out loss.
    step: int32 [], the updates behind the parameters; -1 while nothing was measured.
    trainable: as in the state.
  """

  lowest: jax.Array
  step: jax.Array
  trainable: PyTree


@struct.dataclass
class TrainState:
  """State of any stage.

  Attributes:
    step: int32 [], updates done.
    trainable: the parameters that the optimiser moves.
    frozen: the parameters that it never sees.
    opt_state: optimiser state of `trainable`.
    duals: state of the multipliers; () where a stage has no constraint.
    best: () where no held-out loss is measured.
  """

  step: jax.Array
  trainable: PyTree
  frozen: PyTree
  opt_state: PyTree
  duals: PyTree
  best: Best | tuple[()] = ()

  @property
  def kept(self) -> PyTree:
    """What the stage hands on of `trainable`: the best that was measured, else the newest."""
    measured = self.best and int(self.best.step) >= 0
    return self.best.trainable if measured else self.trainable


def create_state(trainable: PyTree, frozen: PyTree, tx: optax.GradientTransformation,
                 duals: PyTree = ()) -> TrainState:
  return TrainState(jnp.zeros((), jnp.int32), trainable, frozen, tx.init(trainable), duals)


def copied(tree: PyTree) -> PyTree:
  """Arrays of their own, which outlive the donation of the old ones."""
  return jax.tree.map(jnp.copy, tree)


def stepping(step: Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, PyTree]],
             ) -> jax.stages.Wrapped:
  """The jitted step as (state, frozen, batch, key) -> (state, metrics).

  The state, whose `frozen` is (), is donated. The frozen parameters are not: whoever gave them may
  still read them, and the program gives nothing back that would be a second copy of them.
  """
  def update(state: TrainState, frozen: PyTree, batch: PyTree,
             key: jax.Array) -> tuple[TrainState, PyTree]:
    state, metrics = step(state.replace(frozen=frozen), batch, key)
    return state.replace(frozen=()), metrics
  return jax.jit(update, donate_argnums=0, keep_unused=True)  # what lies there counts, used or not


def split_params(params: PyTree,
                 frozen: Callable[[tuple[str, ...]], bool]) -> tuple[PyTree, PyTree]:
  """Divides nested dicts into (trainable, frozen) by the path of each leaf."""
  flat = traverse_util.flatten_dict(params)
  parts = ({p: v for p, v in flat.items() if not frozen(p)},
           {p: v for p, v in flat.items() if frozen(p)})
  return tuple(traverse_util.unflatten_dict(part) for part in parts)


def merge_params(trainable: PyTree, frozen: PyTree) -> PyTree:
  """The inverse of `split_params`."""
  flat = traverse_util.flatten_dict(trainable) | traverse_util.flatten_dict(frozen)
  return traverse_util.unflatten_dict(flat)


def stream_key(root: jax.Array, name: str, step: int | jax.Array = 0) -> jax.Array:
  """The key of a named stream at a step; nothing carries a key along."""
  return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW under warm-up and cosine decay to zero, with the gradient's norm clipped.

  Attributes:
    steps: updates in all.
    learning_rate: the peak.
    warmup: updates until the peak.
    weight_decay: decoupled, on kernels alone.
    clip: greatest global norm of a gradient.
  """

  steps: Annotated[int, at_least(1)]
  learning_rate: Annotated[float, at_least(0)]
  warmup: Annotated[int, at_least(0)] = 0
  weight_decay: Annotated[float, at_least(0)] = 0.0
  clip: Annotated[float, above(0)] = 1.0

  def __post_init__(self):
    check(self)
    if self.warmup >= self.steps > 0:
      raise ValueError(f'warmup must be less than steps={self.steps}, got {self.warmup}')


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(
      0.0 if config.warmup else config.learning_rate, config.learning_rate, config.warmup,
      config.steps)

  def kernels(params):  # not norms, biases, embeddings and readouts
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
  return optax.chain(
      optax.clip_by_global_norm(config.clip),
      optax.adamw(schedule, b2=ADAM_B2, weight_decay=config.weight_decay, mask=kernels))


def make_update(loss_fn: LossFn, tx: optax.GradientTransformation
                ) -> Callable[[TrainState, PyTree, jax.Array], tuple[TrainState, dict]]:
  """A pure training step; only the trainable tree is differentiated.

  Args:
    loss_fn: (trainable, frozen, batch, key) -> (scalar loss, flat metrics).
    tx: the optimiser.

  Returns:
    (state, batch, key) -> (state, metrics with 'train/loss' and 'train/grad_norm').
  """
  def update(state: TrainState, batch: PyTree, key: jax.Array) -> tuple[TrainState, dict]:
    (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        state.trainable, state.frozen, batch, stream_key(key, 'dropout', state.step))
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    metrics = {'train/loss': loss, 'train/grad_norm': optax.tree.norm(grads), **metrics}
    trainable = optax.apply_updates(state.trainable, updates)
    return state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state), metrics
  return update
