"""The exact dual with capacities: no item is recommended more often than it has room for."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.lagrangian.exact import OBJECTIVES, Lists, Objective, check_problem, list_chunks

_STEPS = 200
_ACTIVE = 1e-8  # a multiplier this small, with a gradient that pushes it down, stays at zero


class CapacityDual(NamedTuple):
  """The optimum, float64.

  Attributes:
    multiplier: mu >= 0 of the requirement.
    prices: [I] kappa >= 0 of the items: what their scarcity costs; 0 where there is room.
    reached: C.
    load: [I] expected recommendations of each item over all lists.
    primal, dual: mean J(pi) over lists, and its upper bound for policies that meet everything.
    feasible: whether every constraint holds within the tolerance.
    violated: the constraints that do not, with how much is lacking, worst first; names are
      'requirement' and 'capacity of item i'.
  """

  multiplier: float
  prices: np.ndarray
  reached: float
  load: np.ndarray
  primal: float
  dual: float
  feasible: bool
  violated: tuple[tuple[str, float], ...]


def solve_with_capacity(scores: np.ndarray, q: np.ndarray, mask: np.ndarray, item: np.ndarray,
                        capacity: np.ndarray, tau: float, *, objective: Objective,
                        temperature: float = 1.0, tolerance: float = 1e-8) -> CapacityDual:
  """`max_pi E[J(pi)]` subject to `C >= tau` and `sum_n pi_n(i) <= capacity_i` for every item i.

  Each list tilts its scores by `b_j = mu q_j - kappa_item(j)`. The dual is smooth and convex in
  (mu, kappa) >= 0 and is minimised by projected Newton steps: multipliers at zero that want to fall
  stay there, the others move by the Newton direction, and a step is halved until the dual falls.

  Args:
    scores, q, mask: [N, J], as in `solve_dual`.
    item: [N, J] ints in [0, I), which item stands at a place; no item twice in a list.
    capacity: [I] greatest expected number of recommendations over all lists, each of which
      recommends once; above 0.
    tau: the requirement; at most 0 where q >= 0 asks for nothing.
    objective, temperature: as in `solve_dual`.
    tolerance: greatest violation of C, and of a load as a share of the lists.

  Raises:
    ValueError: shapes or numbers are not allowed.

  Reference:
    Bertsekas, Projected Newton methods for optimization problems with simple constraints, 1982.
  """
  capacity, item = np.asarray(capacity, np.float64), np.asarray(item)
  if capacity.ndim != 1 or not (capacity > 0).all():
    raise ValueError(f'capacity must be [I] and above 0, got {capacity.shape} with least '
                     f'{capacity.min() if capacity.size else None}')
  if item.shape != np.shape(q) or item.min() < 0 or item.max() >= len(capacity):
    raise ValueError(f'item must be {np.shape(q)} in [0, {len(capacity)}), got {item.shape} in '
                     f'[{item.min()}, {item.max()}]')
  check_problem(objective, 'inequality', temperature)
  lists, _, _ = list_chunks(scores, q, mask, np.array([tau]), width=len(capacity))
  N = len(item)
  index = np.resize(np.arange(N), lists.weight.shape)
  with jax.enable_x64(True):
    x, reached, share, primal, dual = (np.asarray(v) for v in _solve(
        lists, item[index], capacity / N, float(tau), float(temperature), float(tolerance),
        objective))
  lacking = np.concatenate([[tau - reached], share - capacity / N])
  names = ['requirement', *(f'capacity of item {i}' for i in range(len(capacity)))]
  violated = tuple((names[i], float(lacking[i])) for i in np.argsort(-lacking)
                   if lacking[i] > tolerance)
  return CapacityDual(float(x[0]), x[1:], float(reached), share * N, float(primal), float(dual),
                      not violated, violated)


class _Point(NamedTuple):
  """The dual at x = (mu, kappa) [1 + I]: its value, gradient, Hessian, C, loads and mean J."""

  x: jax.Array
  value: jax.Array
  gradient: jax.Array
  hessian: jax.Array
  reached: jax.Array
  share: jax.Array
  primal: jax.Array


def _evaluate(x: jax.Array, lists: Lists, item: jax.Array, room: jax.Array, tau: float,
              temperature: float, objective: str) -> _Point:
  """The dual at one point; `room` [I] is the capacity as a share of the lists."""

  def add(sums, part):
    rows, items = part
    n = len(items)
    tilt = x[0] * rows.q - x[1:][items]
    out = OBJECTIVES[objective](rows.scores, rows.mask, tilt, temperature)
    weight = rows.weight[:, None]  # 0 for padding
    pi, w = out.policy * weight, out.curvature * weight

    def by_item(v):  # [n, J] -> [n, I]
      return jnp.zeros((n, len(room))).at[jnp.arange(n)[:, None], items].add(v)

    # The tilt of a place is linear in x, with gradient (q, -1 at its item).
    features = jnp.concatenate([(w * rows.q).sum(-1, keepdims=True), -by_item(w)], axis=1)
    cross = -by_item(w * rows.q).sum(0)
    square = jnp.diag(jnp.concatenate([(w * rows.q**2).sum()[None], by_item(w).sum(0)]))
    square = square.at[0, 1:].add(cross).at[1:, 0].add(cross)
    square -= (features / out.curvature.sum(-1, keepdims=True)).T @ features
    value = (out.value * rows.weight).sum()
    new = (value, value - (pi * tilt).sum(), (pi * rows.q).sum(), by_item(pi).sum(0), square)
    return jax.tree.map(jnp.add, sums, new), None

  zero = jnp.zeros(())
  sums, _ = jax.lax.scan(
      add, (zero, zero, zero, jnp.zeros(len(room)), jnp.zeros((len(x), len(x)))), (lists, item))
  value, primal, reached, share, hessian = (s / lists.weight.sum() for s in sums)
  return _Point(x, value - x[0] * tau + x[1:] @ room,
                jnp.concatenate([(reached - tau)[None], room - share]), hessian, reached, share,
                primal)


@functools.partial(jax.jit, static_argnums=6)
def _solve(lists: Lists, item: jax.Array, room: jax.Array, tau: float, temperature: float,
           tolerance: float, objective: str) -> tuple[jax.Array, ...]:
  at = functools.partial(_evaluate, lists=lists, item=item, room=room, tau=tau,
                         temperature=temperature, objective=objective)
  least = ((jnp.where(lists.mask, lists.scores, jnp.inf).min(-1) * lists.weight).sum()
           / lists.weight.sum())

  def residual(p: _Point):
    """How far from the KKT conditions: x >= 0, gradient >= 0, x * gradient = 0."""
    return jnp.abs(jnp.minimum(p.x, p.gradient)).max()

  def newton(state):
    p, step = state
    held = (p.x <= _ACTIVE) & (p.gradient > 0)
    free = ~held
    ridge = 1e-12 * jnp.trace(p.hessian) + 1e-300
    H = jnp.where(free[:, None] & free[None], p.hessian, 0.0)
    H += jnp.diag(jnp.where(free, ridge, 1.0))
    direction = jnp.linalg.solve(H, jnp.where(free, p.gradient, 0.0))
    # Where the dual is close to a line Newton would leave for infinity: go at most this far.
    direction *= jnp.minimum(1.0, 10 * (1 + jnp.abs(p.x).max())
                             / jnp.maximum(jnp.abs(direction).max(), 1e-300))

    def moved(rate):
      return jnp.maximum(p.x - rate * direction, 0.0)

    def too_high(search):
      rate, new = search
      fall = p.gradient @ (p.x - new.x)
      return (new.value > p.value - 1e-4 * fall + 1e-14 * jnp.abs(p.value)) & (rate > 1e-10)

    def halve(search):
      rate = search[0] / 2
      return rate, at(moved(rate))

    _, new = jax.lax.while_loop(too_high, halve, (1.0, at(moved(1.0))))
    return new, step + 1

  def go_on(state):
    p, step = state
    # The dual bounds every feasible J from above: below the least J, there is none.
    hopeless = (p.value < least) if objective == 'expected_score' else False
    return (residual(p) > tolerance) & (step < _STEPS) & ~jnp.asarray(hopeless)

  p, _ = jax.lax.while_loop(go_on, newton, (at(jnp.zeros(1 + len(room))), 0))
  return p.x, p.reached, p.share, p.primal, p.value
