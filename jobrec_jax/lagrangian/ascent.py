"""Rules that move Lagrange multipliers: projected ascent by any optax rule, and PID controllers."""

from collections.abc import Callable
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

PyTree = Any
Constraint = Literal['inequality', 'equality']


class DualState(NamedTuple):
  """Arrays only, so it checkpoints like any other state.

  multiplier: float32 array or pytree of them; step: scalar int32, calls so far; rule: the state of
  the optax rule; held: scalar int32, violations so far that were not finite.
  """

  multiplier: PyTree
  step: jax.Array
  rule: optax.OptState = ()
  held: jax.Array | int = 0


class DualAscent(NamedTuple):
  """`init(shape) -> DualState`; `update(state, *, violation) -> DualState`. Both are pure."""

  init: Callable[..., DualState]
  update: Callable[..., DualState]


def dual_ascent(rule: float | jax.Array | optax.GradientTransformation, *,
                constraint: Constraint | PyTree, cap: float | PyTree | None = None,
                every: int = 1, delay: int = 0) -> DualAscent:
  """Learns mu in min_x max_mu L(x) + mu * v(x), where v = tau - C is the violation.

  mu <- project(mu + rule(v)), for a number eta: mu <- project(mu + eta * v). The multiplier rises
  while the requirement is missed (v > 0, C below tau) and falls while it is exceeded. `inequality`
  (C >= tau) projects onto mu >= 0: a tau below the unconstrained C is already met, at no cost.
  `equality` (C = tau) leaves the sign free: a negative mu pushes C down to tau. A `cap` bounds
  |mu|, for a requirement that may be out of reach. A violation that is not finite says nothing: it
  counts as 0, its multiplier stays where it is, and `DualState.held` counts it.

  Args:
    rule: eta, above 0, may be a traced array, e.g. under `vmap`; or an optax transformation, which
      is fed -v as the gradient: `pid` or `relative` below, `optax.adam`, `optax.sgd` with a
      schedule, ...
    constraint: which of the two, for all multipliers or as a pytree prefix of them.
    cap: largest |mu|, above 0; None for none. Also one value or a prefix.
    every: k; the multipliers move once in k calls, on the mean violation of these k.
    delay: n; the first n calls change nothing but the step count.

  Returns:
    `init(shape=())` takes a shape, for zeros, or an array of starting values, or a pytree of both;
    `update` takes violations of the same structure and shapes.

  Raises:
    ValueError: an unknown constraint, a step or a cap not above 0, `every` below 1, `delay` below
      0; a constraint, cap or violation that does not fit the multipliers.

  Reference:
    Bertsekas, Nonlinear programming, 2nd edition 1999, section 6.3 (dual gradient methods).
  """
  for kind in jax.tree.leaves(constraint):
    if kind not in ('inequality', 'equality'):
      raise ValueError(f'constraint must be inequality or equality, got {kind!r}')
  for bound in jax.tree.leaves(cap):
    if not bound > 0:
      raise ValueError(f'cap must be above 0, got {bound}')
  _check_at_least('every', every, 1)
  _check_at_least('delay', delay, 0)
  tx = _transformation(rule, every, delay)

  def init(shape: PyTree = ()) -> DualState:
    start = jax.tree.map(
        lambda x: jnp.zeros(x, jnp.float32) if _is_shape(x) else jnp.asarray(x, jnp.float32),
        shape, is_leaf=_is_shape)
    multiplier = _project(start, constraint, cap)
    zero = jnp.zeros((), jnp.int32)
    return DualState(multiplier, zero, tx.init(multiplier), zero)

  def update(state: DualState, *, violation: PyTree) -> DualState:
    expected, got = (jax.tree.map(jnp.shape, tree) for tree in (state.multiplier, violation))
    if got != expected:
      raise ValueError(f'violation must have the shapes of the multipliers, {expected}, got {got}')
    known = jax.tree.map(jnp.isfinite, violation)
    gradient = jax.tree.map(lambda v, k: -jnp.where(k, jnp.asarray(v, jnp.float32), 0.), violation,
                            known)
    updates, rule_state = tx.update(gradient, state.rule, state.multiplier)
    moved = _project(optax.apply_updates(state.multiplier, updates), constraint, cap)
    multiplier = jax.tree.map(jnp.where, known, moved, state.multiplier)
    held = sum(jnp.sum(~k, dtype=jnp.int32) for k in jax.tree.leaves(known))
    return DualState(multiplier, state.step + 1, rule_state, state.held + held)

  return DualAscent(init, update)


class PidState(NamedTuple):
  """xi, previous: smoothed violations of the last two calls; started: scalar bool, any call yet."""

  xi: PyTree
  previous: PyTree
  started: jax.Array


def pid(ki: float | jax.Array, kp: float | jax.Array = 0., kd: float | jax.Array = 0.,
        nu: float | jax.Array = 0.) -> optax.GradientTransformation:
  """A PID controller of the violation e as a rule of `dual_ascent`, in its velocity form.

  xi_t = nu xi_{t-1} + (1 - nu) e_t,  xi_{-1} = xi_{-2} = e_0,
  mu_{t+1} - mu_t = ki e_t + kp (xi_t - xi_{t-1}) + kd (xi_t - 2 xi_{t-1} + xi_{t-2}).

  A positive kp takes some of mu back while the violation shrinks, which damps the overshoot of
  plain ascent (kp = kd = 0); a positive kd does so while its fall slows down. kd = nu = 0 is PI,
  kd = 0 with nu > 0 is nuPI. The first step is that of plain ascent: started from xi_{-1} = 0, mu
  would jump by kp e_0, however far off an untrained model is. As `dual_ascent` projects mu itself,
  the integral does not wind up behind a bound.

  Args:
    ki: integral gain, the step of plain ascent, above 0. All four may be traced.
    kp, kd: proportional and derivative gains, at least 0.
    nu: smoothing of what kp and kd see, in [0, 1); the integral sees e itself.

  Returns:
    A transformation of -e, shaped as the multipliers.

  Raises:
    ValueError: a gain lies outside of its range.

  Reference:
    Sohrabi et al., On PI controllers for updating Lagrange multipliers in constrained
    optimization, 2024, arXiv 2406.04558. Stooke et al., Responsive safety in reinforcement
    learning by PID Lagrangian methods, 2020, arXiv 2007.03964.
  """
  if isinstance(ki, int | float) and not 0 < ki < math.inf:
    raise ValueError(f'ki must be above 0 and finite, got {ki}')
  for name, gain in (('kp', kp), ('kd', kd)):
    if isinstance(gain, int | float) and not 0 <= gain < math.inf:
      raise ValueError(f'{name} must be at least 0 and finite, got {gain}')
  if isinstance(nu, int | float) and not 0 <= nu < 1:
    raise ValueError(f'nu must be in [0, 1), got {nu}')

  def init(params: PyTree) -> PidState:
    zeros = optax.tree.zeros_like(params)
    return PidState(zeros, zeros, jnp.zeros((), bool))

  def update(updates: PyTree, state: PidState,
             params: PyTree | None = None) -> tuple[PyTree, PidState]:
    del params
    error = optax.tree.scale(-1, updates)
    last, before = (optax.tree.where(state.started, xi, error)
                    for xi in (state.xi, state.previous))
    xi = jax.tree.map(lambda e, x: nu * x + (1 - nu) * e, error, last)
    moves = jax.tree.map(
        lambda e, x, x1, x2: ki * e + kp * (x - x1) + kd * (x - 2 * x1 + x2),
        error, xi, last, before)
    return moves, PidState(xi, last, jnp.ones((), bool))

  return optax.GradientTransformation(init, update)


def relative(rule: optax.GradientTransformation) -> optax.GradientTransformation:
  """A rule of `dual_ascent` whose moves grow with the multiplier: (1 + |mu|) times those of `rule`.

  What C gains by one more unit of mu, the variance of q under pi, fades as mu grows. With plain
  steps a multiplier that must become large creeps there while a small one already swings; with
  relative steps one eta serves both.
  """

  def scale(updates: PyTree, params: PyTree) -> PyTree:
    return jax.tree.map(lambda move, mu: (1 + jnp.abs(mu)) * move, updates, params)

  return optax.chain(rule, optax.stateless(scale))


def group_violation(values: jax.Array, groups: jax.Array, tau: float | jax.Array,
                    num_groups: int) -> jax.Array:
  """`v_g = tau_g - mean of the values in group g`, above 0 where the group falls short.

  A group without a member in the batch has violation 0, as nothing is known of it.

  Args:
    values: [B] what the constraint averages.
    groups: [B] integer group of each value; one outside of [0, G), e.g. -1, leaves its value out.
    tau: required mean, one for all or [G].
    num_groups: G.

  Returns:
    [G] violations.
  """
  total = jax.ops.segment_sum(values, groups, num_groups)
  count = jax.ops.segment_sum(jnp.ones_like(values), groups, num_groups)
  return jnp.where(count > 0, tau - total / jnp.maximum(count, 1), 0)


def broadcast_prefix(name: str, prefix: PyTree, tree: PyTree) -> PyTree:
  """Repeats the leaves of a pytree prefix, of which None is one, to the structure of a pytree."""
  try:
    return jax.tree.broadcast(prefix, tree, is_leaf=lambda x: x is None)
  except ValueError as error:
    raise ValueError(f'{name} must be one value or a pytree prefix of the multipliers '
                     f'{jax.tree.structure(tree)}, got {prefix!r}') from error


def _project(multiplier: PyTree, constraint: Constraint | PyTree,
             cap: float | PyTree | None) -> PyTree:
  """The nearest multipliers in their ranges: [0, cap] of an inequality, [-cap, cap] otherwise."""
  return jax.tree.map(_project_one, multiplier,
                      broadcast_prefix('constraint', constraint, multiplier),
                      broadcast_prefix('cap', cap, multiplier))


def _project_one(mu: jax.Array, constraint: str, cap: float | None) -> jax.Array:
  high = math.inf if cap is None else cap
  return optax.projections.projection_box(mu, 0. if constraint == 'inequality' else -high, high)


def _transformation(rule: float | jax.Array | optax.GradientTransformation, every: int,
                    delay: int) -> optax.GradientTransformation:
  """The rule as an optax transformation that keeps `every` and `delay`."""
  if isinstance(rule, int | float) and not 0 < rule < math.inf:
    raise ValueError(f'rule must be a step above 0 and finite, or an optax rule, got {rule}')
  tx = rule if isinstance(rule, optax.GradientTransformation) else optax.sgd(rule)
  if every > 1:
    tx = optax.MultiSteps(tx, every).gradient_transformation()
  if delay:
    tx = optax.conditionally_mask(tx, lambda step: step >= delay)
  return tx


def _check_at_least(name: str, value: int, least: int) -> None:
  if value < least:
    raise ValueError(f'{name} must be at least {least}, got {value}')


def _is_shape(x: Any) -> bool:
  return isinstance(x, tuple) and all(isinstance(size, int) for size in x)
