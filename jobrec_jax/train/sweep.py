"""Many policies in one program: every requirement, seed, learning rate and dual rule of a grid."""

from collections.abc import Callable, Sequence
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring.policy import PolicyInputs
from jobrec_jax.sharding import over_lists
from jobrec_jax.train.policy import (
  PolicyConfig,
  PolicyResult,
  PolicyTrial,
  make_policy_trainer,
  policy_trial,
)


def policy_grid(config: PolicyConfig, taus: Sequence[float], seeds: Sequence[int],
                learning_rates: Sequence[float] = (),
                rules: Sequence[tuple[float, float, float, float]] = ()) -> PolicyTrial:
  """All combinations as stacked trials, the last axis fastest, each with a requirement of its own.

  All set out from preference, with lambda alone to keep the requirement, as published.

  Args:
    config: gives the learning rate and the dual rule where none are listed.
    taus, seeds, learning_rates: the axes.
    rules: gains (ki, kp, kd, nu) of `lagrangian.ascent.pid`.

  Raises:
    ValueError: taus or seeds are empty.
  """
  if not (len(taus) and len(seeds)):
    raise ValueError(f'a grid needs taus and seeds, got {len(taus)} and {len(seeds)}')
  one = policy_trial(config, np.zeros(1), 0)
  rates = learning_rates or [one.learning_rate]
  gains = rules or [(one.ki, one.kp, one.kd, one.nu)]
  nothing = np.zeros(1, np.float32)
  trials = [PolicyTrial(np.full(1, tau, np.float32), nothing, nothing, np.int32(seed),
                        np.float32(rate), *map(np.float32, gain))
            for tau, seed, rate, gain in itertools.product(taus, seeds, rates, gains)]
  return jax.tree.map(lambda *x: np.stack(x), *trials)


def make_policy_sweep(head: PolicyHead, config: PolicyConfig, mesh: jax.sharding.Mesh,
                      chunk: int = 1) -> Callable[[PolicyInputs, PolicyTrial], PolicyResult]:
  """A jitted (inputs, stacked trials) -> stacked results; what is swept is never compiled anew.

  Trials are divided over the mesh's data and fsdp axes; a device trains `chunk` of its own at a
  time, side by side, and the next chunk after them. On CPUs one at a time is fastest: a head and
  its moments stay in the cache.
  """
  train = make_policy_trainer(head, config)
  parts = mesh.shape['data'] * mesh.shape['fsdp']

  def on_device(inputs: PolicyInputs, trials: PolicyTrial) -> PolicyResult:
    return jax.lax.map(lambda trial: train(inputs, trial), trials, batch_size=chunk)

  def sweep(inputs: PolicyInputs, trials: PolicyTrial) -> PolicyResult:
    count = len(trials.seed)
    padded = jax.tree.map(lambda x: jnp.resize(x, (-(-count // parts) * parts, *x.shape[1:])),
                          trials)
    return jax.tree.map(lambda x: x[:count], over_lists(on_device, mesh)(inputs, padded))

  return jax.jit(sweep)
