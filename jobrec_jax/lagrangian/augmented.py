"""The augmented Lagrangian: a multiplier together with a quadratic penalty."""

from typing import Any

import jax
import jax.numpy as jnp

from jobrec_jax.lagrangian.ascent import Constraint, broadcast_prefix

PyTree = Any


def augmented_lagrangian(multiplier: PyTree, *, violation: PyTree, penalty: float | PyTree,
                         constraint: Constraint | PyTree) -> jax.Array:
  """What constraints add to the primal loss, with v = tau - C above 0 where one is missed.

  equality:    mu v + rho/2 v^2
  inequality:  (max(0, mu + rho v)^2 - mu^2) / (2 rho), which is the former at max(v, -mu/rho).

  Its slope in v is mu + rho v (at least 0 for an inequality), what `dual_ascent(rho)` makes of mu:
  the matching dual step. Minimising it lowers v, i.e. pulls C up to tau; an inequality exceeded by
  more than mu/rho exerts no force.

  Args:
    multiplier: mu, an array or a pytree of arrays, e.g. `DualState.multiplier`.
    violation: v, alike.
    penalty: rho > 0, one for all or a pytree prefix.
    constraint: 'inequality' or 'equality', one for all or a pytree prefix.

  Returns:
    Scalar, the sum over all constraints.

  Raises:
    ValueError: an unknown constraint; a penalty or constraint that does not fit the multipliers.

  Reference:
    Nocedal and Wright, Numerical optimization, 2nd edition 2006, equations 17.36 and 17.64-65.
  """
  def term(mu: jax.Array, v: jax.Array, rho: jax.Array, kind: str) -> jax.Array:
    if kind not in ('inequality', 'equality'):
      raise ValueError(f'constraint must be inequality or equality, got {kind!r}')
    # The clamped form has no difference of two large squares.
    v = jnp.maximum(v, -mu / rho) if kind == 'inequality' else v
    return jnp.sum(mu * v + rho / 2 * v**2)

  terms = jax.tree.map(term, multiplier, violation,
                       broadcast_prefix('penalty', penalty, multiplier),
                       broadcast_prefix('constraint', constraint, multiplier))
  return sum(jax.tree.leaves(terms))


def grow_penalty(penalty: jax.Array, *, violation: jax.Array, previous: jax.Array,
                 factor: float, shrink: float, most: float) -> jax.Array:
  """`rho <- min(factor rho, most)` where `|v| > shrink |v_previous|`, else rho stays as it is.

  The penalty grows for the constraints that the last round of primal steps did not bring closer.
  For an inequality pass max(v, -mu/rho) in place of v, or its slack counts as a violation.

  Args:
    penalty: rho, [...].
    violation, previous: [...] at the end of this round and of the one before.
    factor: growth, above 1; Bertsekas has 4 to 10.
    shrink: the part of |v_previous| that counts as progress, in (0, 1); Bertsekas has 0.25.
    most: the largest penalty.

  Returns:
    The new rho, [...].

  Raises:
    ValueError: factor or shrink lies outside of its range.

  Reference:
    Bertsekas, Nonlinear programming, 2nd edition 1999, section 4.2; Nocedal and Wright, chapter 17.
  """
  if not factor > 1:
    raise ValueError(f'factor must be above 1, got {factor}')
  if not 0 < shrink < 1:
    raise ValueError(f'shrink must be in (0, 1), got {shrink}')
  stuck = jnp.abs(violation) > shrink * jnp.abs(previous)
  return jnp.where(stuck, jnp.minimum(factor * penalty, most), penalty)
