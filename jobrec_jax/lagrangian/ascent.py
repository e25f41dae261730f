"""Projected gradient ascent on a Lagrange multiplier."""

from collections.abc import Callable
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax


class DualState(NamedTuple):
  """multiplier: [...] float32, one for each constraint; step: scalar int32, updates so far."""

  multiplier: jax.Array
  step: jax.Array


class DualAscent(NamedTuple):
  """`init(shape) -> DualState`; `update(state, *, violation) -> DualState`. Both are pure."""

  init: Callable[..., DualState]
  update: Callable[..., DualState]


def dual_ascent(learning_rate: float | jax.Array, *,
                constraint: Literal['inequality', 'equality'],
                cap: float | None = None) -> DualAscent:
  """Learns mu in min_x max_mu L(x) + mu * v(x), where v = tau - C is the violation.

  mu <- project(mu + eta * v). The multiplier rises while the requirement is missed (v > 0, C below
  tau) and falls while it is exceeded. `inequality` (C >= tau) projects onto mu >= 0: a requirement
  met of its own accord costs nothing. `equality` (C = tau) leaves the sign free: a negative mu
  pushes C down to tau. A `cap` bounds |mu|, for a requirement that may be out of reach.

  Args:
    learning_rate: eta; may be a traced array, e.g. under `vmap`.
    constraint: which of the two.
    cap: largest |mu|, above 0; None for none.

  Returns:
    `init(shape=())` gives zero multipliers of that shape; `update` takes violations of that shape.

  Raises:
    ValueError: an unknown constraint, a learning rate or a cap not above 0.

  Reference:
    Bertsekas, Nonlinear programming, 2nd edition 1999, section 6.3 (dual gradient methods).
  """
  if constraint not in ('inequality', 'equality'):
    raise ValueError(f'constraint must be inequality or equality, got {constraint!r}')
  if isinstance(learning_rate, int | float) and not 0 < learning_rate < math.inf:
    raise ValueError(f'learning_rate must be above 0 and finite, got {learning_rate}')
  if cap is not None and not cap > 0:
    raise ValueError(f'cap must be above 0, got {cap}')

  def init(shape: tuple[int, ...] = ()) -> DualState:
    return DualState(jnp.zeros(shape, jnp.float32), jnp.zeros((), jnp.int32))

  def update(state: DualState, *, violation: jax.Array) -> DualState:
    mu = (state.multiplier + learning_rate * violation).astype(jnp.float32)
    if constraint == 'inequality':
      mu = optax.projections.projection_non_negative(mu)
    if cap is not None:
      mu = optax.projections.projection_box(mu, -cap, cap)
    return DualState(mu, state.step + 1)

  return DualAscent(init, update)
