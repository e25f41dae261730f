"""The exact dual: for frozen scores, the best policy under a requirement, and what it is worth.

A policy pi [N, J] over the items of each list maximises `E_lists[J(pi)]` subject to
`E_lists[sum_j pi_j q_j] >= tau` (or `= tau`). Given a multiplier mu, every list tilts its scores by
`b = mu q` on its own, so that one number for each constraint is all there is to solve for.

Axes, here and in `capacity`: N lists, J items of a list, M requirements (values of tau), G groups
of lists, I items of a catalogue; P chunks of n lists, taken one at a time.
"""

from collections.abc import Callable
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import entr, softmax, xlogy

Objective = Literal['expected_score', 'info_nce']
Constraint = Literal['inequality', 'equality']

_CHUNK = 2**14  # numbers of one temporary, which so stays in a core's cache
_STEPS = 200  # of Newton; ten are usual
_SAMPLE = 16  # one list in so many gives a large population its first guess


class Tilted(NamedTuple):
  """A list's answer to a tilt b: its policy, and phi(b) = max_pi J(pi) + <pi, b>.

  Attributes:
    policy: [..., J] pi, the gradient of phi.
    curvature: [..., J] w; the Hessian of phi is diag(w) - w w' / sum(w).
    value: [...] phi(b).
  """

  policy: jax.Array
  curvature: jax.Array
  value: jax.Array


def _expected_score(scores: jax.Array, mask: jax.Array, tilt: jax.Array, T: jax.Array) -> Tilted:
  """pi ~ exp((a + b) / T), w = pi / T, phi = T logsumexp((a + b) / T)."""
  logits = jnp.where(mask, (scores + tilt) / T, -jnp.inf)
  top = logits.max(-1, keepdims=True)
  weights = jnp.exp(logits - top)
  total = weights.sum(-1, keepdims=True)
  pi = weights / total
  return Tilted(pi, pi / T, T * (top + jnp.log(total))[..., 0])


def _info_nce(scores: jax.Array, mask: jax.Array, tilt: jax.Array, T: jax.Array) -> Tilted:
  """pi_j = p_j / (nu - b_j) with nu such that pi sums to one, w = pi^2 / p.

  With t = nu - max b and d_j = max b - b_j >= 0, t is the root of h(t) = sum_j p_j / (t + d_j) = 1.
  1 / h is concave and rises, so that Newton's steps on it climb to the root from the left.
  """
  p = jax.nn.softmax(jnp.where(mask, scores / T, -jnp.inf), axis=-1)
  possible = mask & (p > 0)
  best = jnp.argmax(jnp.where(possible, tilt, -jnp.inf), axis=-1, keepdims=True)
  d = jnp.where(possible, jnp.maximum(jnp.take_along_axis(tilt, best, -1) - tilt, 0.0), 1.0)
  # Exactly: a fused multiply-add leaves 1e-17, which is much beside a p of 1e-100.
  d = jnp.where(jnp.arange(d.shape[-1]) == best, 0.0, d)
  # h >= 1 at both: one item alone would have its p, and by Jensen h(t) >= 1 / (t + sum p d).
  start = jnp.maximum(jnp.take_along_axis(jnp.broadcast_to(p, d.shape), best, -1),
                      1 - (p * d).sum(-1, keepdims=True))

  def parts(t):
    inverse = 1 / (t + d)  # p / (t + d) / (t + d) is compiled to p / (t + d)^2, which underflows
    share = p * inverse
    return share, share.sum(-1, keepdims=True), inverse

  def climb(state):
    t, _, step = state
    share, h, inverse = parts(t)
    t = t + h * (h - 1) / (share * inverse).sum(-1, keepdims=True)
    return t, jnp.abs(h - 1).max(), step + 1

  # The error before the last step: the step itself squares it.
  t, *_ = jax.lax.while_loop(lambda s: (s[1] > 1e-7) & (s[2] < 60), climb,
                             (start, jnp.asarray(jnp.inf, p.dtype), 0))
  pi, _, inverse = parts(t)
  log_likelihood = jnp.where(possible, p * jnp.log(jnp.where(possible, pi, 1.0)), 0.0)
  return Tilted(pi, jnp.where(possible, pi * inverse, 0.0),
                (log_likelihood + jnp.where(possible, pi * tilt, 0.0)).sum(-1))


OBJECTIVES: dict[str, Callable[..., Tilted]] = {
    'expected_score': _expected_score, 'info_nce': _info_nce}


class ExactDual(NamedTuple):
  """The optimum for M requirements and G groups of lists, float64.

  Attributes:
    multiplier: [M, G] mu; nan where the requirement is infeasible.
    reached: [M, G] C, the mean over a group's lists of sum_j pi_j q_j.
    primal: [M, G] the mean of J(pi) over a group's lists.
    dual: [M, G] mean phi(mu q) - mu tau, an upper bound of J of every policy that meets tau.
    feasible: [M, G] whether a multiplier meets tau within the tolerance.
    attainable: [G, 2] the least and greatest C that any policy has.
    free: [G] C with mu = 0, of the policy that knows no requirement.
  """

  multiplier: np.ndarray
  reached: np.ndarray
  primal: np.ndarray
  dual: np.ndarray
  feasible: np.ndarray
  attainable: np.ndarray
  free: np.ndarray

  @property
  def gap(self) -> np.ndarray:
    """[M, G] dual - primal: no policy that meets tau has a J better by more than this."""
    return self.dual - self.primal


class Lists(NamedTuple):
  """Lists in chunks: scores, q, mask [P, n, J]; group [P, n]; weight [P, n], 0 for padding."""

  scores: jax.Array
  q: jax.Array
  mask: jax.Array
  group: jax.Array
  weight: jax.Array


def solve_dual(scores: np.ndarray, q: np.ndarray, mask: np.ndarray, tau: np.ndarray, *,
               objective: Objective, constraint: Constraint = 'inequality',
               temperature: float = 1.0, groups: np.ndarray | None = None,
               tolerance: float = 1e-9) -> ExactDual:
  """Solves `max_pi E[J(pi)]` subject to `C >= tau` (or `=`), for every tau at once.

  `expected_score`: `J = sum_j pi_j a_j + T H(pi)`, `pi ~ exp((a + mu q) / T)`.
  `info_nce`: `J = sum_j p_j log pi_j`, `p = softmax(a / T)`, `pi_j = p_j / (nu - mu q_j)`.
  In both C rises in mu. Newton's steps are taken on the logit of C's place in the attainable range,
  which is close to a line where C saturates, and a bracket catches those that would leave it.

  Args:
    scores: [N, J] a, frozen.
    q: [N, J] what the constraint averages.
    mask: [N, J] bool, False where a short list is padded.
    tau: [M], or [M, G] for a requirement of each group.
    objective, constraint: which of them; an inequality has mu >= 0, and mu = 0 where the
      unconstrained C is at least tau already.
    temperature: T > 0.
    groups: [N] ints in [0, G), or names, which stand for their place in `np.unique(groups)`; each
      group has a multiplier of its own. None for one population; `np.arange(N)` for a requirement
      on every list alone.
    tolerance: greatest |C - tau| where mu is not 0.

  Raises:
    ValueError: shapes, the mask, a number or a name is not allowed.

  Reference:
    Boyd and Vandenberghe, Convex optimization, 2004, chapter 5.
  """
  check_problem(objective, constraint, temperature)
  lists, tau, size = list_chunks(scores, q, mask, tau, groups)
  solve = functools.partial(_solve, tau=tau, temperature=float(temperature), objective=objective,
                            inequality=constraint == 'inequality')
  guess = np.zeros_like(tau)
  with jax.enable_x64(True):
    if size == 1 and len(q) >= 100 * _SAMPLE:  # a sixteenth of the work saves half of it
      some = np.arange(0, len(q), _SAMPLE)
      sample, *_ = list_chunks(*(np.asarray(x)[some] for x in (scores, q, mask)), tau)
      guess = np.nan_to_num(solve(sample, guess=guess, tolerance=1e-4)[0])
    solved = solve(lists, guess=guess, tolerance=float(tolerance))
    return ExactDual(*(np.asarray(x) for x in solved))


def policy(scores: np.ndarray, q: np.ndarray, mask: np.ndarray, multiplier: np.ndarray | float, *,
           objective: Objective, temperature: float = 1.0) -> np.ndarray:
  """[..., N, J] the optimal policy at multipliers [..., N] (or one number), float64."""
  if objective not in OBJECTIVES:
    raise ValueError(f'objective must be one of {tuple(OBJECTIVES)}, got {objective!r}')
  with jax.enable_x64(True):
    q = np.asarray(q, np.float64)
    tilt = np.asarray(multiplier, np.float64)[..., None] * q
    tilted = _tilt(np.asarray(scores, np.float64), np.asarray(mask, bool), tilt,
                   float(temperature), objective)
    return np.asarray(tilted.policy)


def value(pi: np.ndarray, scores: np.ndarray, mask: np.ndarray, *, objective: Objective,
          temperature: float = 1.0) -> np.ndarray:
  """[..., N] J of any policy pi [..., N, J], optimal or not, float64; see `solve_dual`."""
  pi, scores = np.asarray(pi, np.float64), np.asarray(scores, np.float64)
  if objective == 'expected_score':
    return np.where(mask, pi * scores + temperature * entr(pi), 0.0).sum(-1)
  if objective == 'info_nce':
    p = softmax(np.where(mask, scores / temperature, -np.inf), axis=-1)
    return np.where(mask, xlogy(p, pi), 0.0).sum(-1)
  raise ValueError(f'objective must be one of {tuple(OBJECTIVES)}, got {objective!r}')


@functools.partial(jax.jit, static_argnums=4)
def _tilt(scores, mask, tilt, temperature, objective):
  return OBJECTIVES[objective](scores, mask, tilt, temperature)


def check_problem(objective: str, constraint: str, temperature: float) -> None:
  """Raises a ValueError for an unknown name, or a temperature that is not above 0."""
  if objective not in OBJECTIVES:
    raise ValueError(f'objective must be one of {tuple(OBJECTIVES)}, got {objective!r}')
  if constraint not in ('inequality', 'equality'):
    raise ValueError(f'constraint must be inequality or equality, got {constraint!r}')
  if not temperature > 0:
    raise ValueError(f'temperature must be above 0, got {temperature}')


def list_chunks(scores: np.ndarray, q: np.ndarray, mask: np.ndarray, tau: np.ndarray,
                groups: np.ndarray | None = None, width: int = 0) -> tuple[Lists, np.ndarray, int]:
  """Lists in chunks whose temporaries are [n, max(J, width)], tau as [M, G], and G.

  Raises:
    ValueError: shapes, the mask or a number is not allowed.
  """
  scores, q, tau = (np.asarray(x, np.float64) for x in (scores, q, tau))
  mask = np.asarray(mask, bool)
  if not (scores.ndim == 2 and scores.shape == q.shape == mask.shape):
    raise ValueError('scores, q and mask must be [N, J] alike, got '
                     f'{scores.shape}, {q.shape} and {mask.shape}')
  if not (len(mask) and mask.any(axis=1).all()):
    raise ValueError('there must be lists, each with an unmasked item; '
                     f'{np.sum(~mask.any(axis=1))} of {len(mask)} have none')
  for name, x in (('scores', scores), ('q', q)):
    if not np.isfinite(x[mask]).all():
      raise ValueError('scores and q must be finite where the mask is True, got '
                       f'{x[mask & ~np.isfinite(x)][0]} in {name}')
  groups = np.zeros(len(q), int) if groups is None else np.asarray(groups)
  if groups.dtype.kind in 'US':
    groups = np.unique(groups, return_inverse=True)[1]
  size = int(groups.max()) + 1
  if groups.shape != (len(q),) or set(np.unique(groups)) != set(range(size)):
    raise ValueError(f'groups must be [{len(q)}] and name each of 0..G-1, got {groups.shape} with '
                     f'{len(np.unique(groups))} of {size} named')
  if tau.ndim == 1:
    tau = np.broadcast_to(tau[:, None], (len(tau), size))
  if tau.ndim != 2 or tau.shape[1] != size or not np.isfinite(tau).all():
    raise ValueError(f'tau must be finite and [M] or [M, {size}], got {tau.shape}')
  rows = int(np.clip(_CHUNK // max(q.shape[1], width), 1, len(q)))
  parts = -(-len(q) // rows)
  rows = -(-len(q) // parts)  # so that little is padding
  index = np.resize(np.arange(len(q)), (parts, rows))
  weight = np.arange(parts * rows).reshape(parts, rows) < len(q)
  lists = Lists(np.where(mask, scores, 0.0)[index], np.where(mask, q, 0.0)[index], mask[index],
                 groups[index], weight.astype(np.float64))
  return lists, tau, size


class _Means(NamedTuple):
  """Means over each group's lists, each [M, G].

  C is known by its distances to the ends of what is attainable, `above` the least and `under` the
  greatest value. Beside an end C itself has none of their digits: at a low temperature, or under
  scores far apart, it equals the end while a multiplier of 4 may lead to the middle.
  """

  above: jax.Array
  under: jax.Array
  slope: jax.Array  # dC/dmu
  value: jax.Array  # phi


def _means(lists: Lists, multiplier: jax.Array, temperature: float, objective: str,
           known: _Means, busy: jax.Array) -> _Means:
  """At multipliers [M, G]; a requirement none of whose groups is busy keeps what is known of it."""

  def add(sums, part_and_ends, mu: jax.Array):
    part, (least, most) = part_and_ends
    out = OBJECTIVES[objective](part.scores, part.mask, mu[part.group, None] * part.q,
                                temperature)
    # From the nearer end, where the item that has nearly all of pi counts 0.
    low = 2 * (out.policy * part.q).sum(-1) < least + most
    x = jnp.where(low[:, None], part.q - least[:, None], most[:, None] - part.q)
    near = (out.policy * x).sum(-1)
    far = most - least - near
    # For the slope, from an item with much of the curvature, 1e41 where p is 1e-41: times that, a
    # rounding of another item's mean is greater than the slope, and no step moves.
    steep = out.curvature >= out.curvature.max(-1, keepdims=True) / 2
    x = part.q - jnp.where(steep, part.q, -jnp.inf).max(-1, keepdims=True)
    mean = (out.curvature * x).sum(-1) / out.curvature.sum(-1)
    slope = (out.curvature * (x - mean[:, None]) ** 2).sum(-1)
    found = jnp.where(low, near, far), jnp.where(low, far, near), slope, out.value
    return tuple(s.at[part.group].add(x * part.weight) for s, x in zip(sums, found)), None

  def measure(mu: jax.Array) -> _Means:
    sums, _ = jax.lax.scan(functools.partial(add, mu=mu), (jnp.zeros_like(mu),) * 4,
                          (lists, ends))
    return _Means(*(s / counts for s in sums))

  def means(requirement):  # one at a time: the inner root is as hard for all lists
    mu, before, open_ = requirement
    return jax.lax.cond(open_.any(), lambda: measure(mu), lambda: before)

  ends = _ends(lists)
  counts = jnp.zeros(multiplier.shape[1]).at[lists.group].add(lists.weight)
  return jax.lax.map(means, (multiplier, known, busy))


def _attainable(lists: Lists, size: int) -> tuple[jax.Array, jax.Array]:
  counts = jnp.zeros(size).at[lists.group].add(lists.weight)

  def mean(x):
    return jnp.zeros(size).at[lists.group].add(x * lists.weight) / counts
  return tuple(map(mean, _ends(lists)))


def _ends(lists: Lists) -> tuple[jax.Array, jax.Array]:
  """The least and the greatest q of each list."""
  return (jnp.where(lists.mask, lists.q, jnp.inf).min(-1),
          jnp.where(lists.mask, lists.q, -jnp.inf).max(-1))


class _Search(NamedTuple):
  """[M, G] each: the multiplier, its bracket, and what it brings; step is a scalar."""

  mu: jax.Array
  low: jax.Array
  high: jax.Array
  at: _Means
  step: jax.Array


@functools.partial(jax.jit, static_argnames=('objective', 'inequality'))
def _solve(lists: Lists, tau: jax.Array, guess: jax.Array, temperature: float, tolerance: float,
           objective: str, inequality: bool) -> tuple[jax.Array, ...]:
  least, most = _attainable(lists, tau.shape[1])

  def reached(at: _Means):
    return jnp.where(at.above < at.under, least + at.above, most - at.under)

  def place(above, under):
    """The logit of where C lies between the least and the greatest attainable value."""
    return jnp.log(jnp.maximum(above, 1e-300)) - jnp.log(jnp.maximum(under, 1e-300))

  means = functools.partial(_means, lists, temperature=temperature, objective=objective)
  nothing = jnp.zeros((1, tau.shape[1]))
  at_zero = means(nothing, known=_Means(*[nothing] * 4), busy=nothing == 0)
  free = reached(at_zero)[0]  # [G]
  idle = inequality & (free >= tau)
  # A range without width, or a tau at or beyond its ends, has no finite multiplier.
  inside = (tau > least) & (tau < most)

  def open_(s: _Search):
    return inside & ~idle & (jnp.abs(reached(s.at) - tau) > tolerance)

  def newton(s: _Search) -> _Search:
    busy = open_(s)
    below = reached(s.at) < tau
    low, high = jnp.where(below, s.mu, s.low), jnp.where(below, s.high, s.mu)
    above, under = (jnp.maximum(x, 1e-300) for x in (s.at.above, s.at.under))
    rise = s.at.slope * (1 / above + 1 / under)
    proposal = s.mu + (place(tau - least, most - tau) - place(above, under)) / rise
    reach = 10 * (1 + jnp.abs(s.mu))  # as far as one step may go beyond what was seen
    proposal = jnp.clip(proposal, s.mu - reach, s.mu + reach)
    bounded = jnp.isfinite(low) & jnp.isfinite(high)
    bad = ~((proposal > low) & (proposal < high))
    beyond = s.mu + jnp.where(below, reach, -reach)
    proposal = jnp.where(bad, jnp.where(bounded, (low + high) / 2, beyond), proposal)
    mu = jnp.where(busy, proposal, s.mu)
    return _Search(mu, low, high, means(mu, known=s.at, busy=busy), s.step + 1)

  infinite = jnp.full_like(tau, jnp.inf)
  start = jnp.where(idle, 0.0, jnp.maximum(guess, 0.0) if inequality else guess)
  known = jax.tree.map(lambda x: jnp.broadcast_to(x, tau.shape), at_zero)
  s = jax.lax.while_loop(
      lambda s: open_(s).any() & (s.step < _STEPS), newton,
      _Search(start, -infinite, infinite, means(start, known=known, busy=start != 0), 0))
  c = reached(s.at)
  feasible = idle | (jnp.abs(c - tau) <= tolerance)
  mu = jnp.where(feasible, s.mu, jnp.nan)
  return (mu, c, s.at.value - s.mu * c, s.at.value - s.mu * tau, feasible,
          jnp.stack([least, most], -1), free)
