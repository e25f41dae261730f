"""How close policies come to the best trade of preference against eligibility that there is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from jobrec_jax.evaluate.control import hypervolume
from jobrec_jax.lagrangian.exact import Constraint, Objective, policy, solve_dual, value

ROUNDING = 1e-12  # of a J of size 1


class FrontierLists(NamedTuple):
  """Lists with frozen scores: a, q, mask [N, J]; positive [N] the applied job of each."""

  preference: np.ndarray
  q: np.ndarray
  mask: np.ndarray
  positive: np.ndarray


class FrontierPoint(NamedTuple):
  """One policy on some lists.

  Attributes:
    system: its name.
    tau: the requirement asked for.
    reached: C, the mean of sum_j pi_j q_j.
    value: J of the objective, mean over lists.
    regret: `(J*(C) - J) / (J*(C(0)) - J*(top))`: what is lost against the exact solution that
      reaches the same C, as a share of what the whole range of requirements costs; nan where
      it costs nothing.
    info_nce: -log pi of the applied job, mean over lists, nats.
  """

  system: str
  tau: float
  reached: float
  value: float
  regret: float
  info_nce: float


def frontier_points(systems: Sequence[tuple[str, float, np.ndarray]], lists: FrontierLists,
                    top: float, *, objective: Objective, constraint: Constraint = 'inequality',
                    temperature: float = 1.0) -> list[FrontierPoint]:
  """Measures policies beside the exact solution on the same lists.

  Args:
    systems: (name, tau, scores [N, J]) of each policy, `pi = softmax(scores / T)`.
    lists: what they were scored on.
    top: the greatest requirement, where J* is lowest.
    objective, constraint, temperature: as in `solve_dual`.

  Returns:
    A point for each system, in their order; the exact solution's own at the same requirements
    follow as 'exact dual', without those that these lists cannot meet.
  """
  a, q, mask = lists.preference, lists.q, lists.mask
  rows = np.arange(len(a))

  def solve(taus):
    return solve_dual(a, q, mask, np.asarray(taus, np.float64), objective=objective,
                      constraint=constraint, temperature=temperature)

  policies = [softmax(np.where(mask, np.asarray(s, np.float64) / temperature, -np.inf), axis=-1)
              for _, _, s in systems]
  reached = [float((pi * q).sum(-1).mean()) for pi in policies]
  taus = sorted({tau for _, tau, _ in systems})
  exact = solve([*reached, top, *taus])
  best, top_value = exact.primal[:len(systems), 0], exact.primal[len(systems), 0]
  free = policy(a, q, mask, 0.0, objective=objective, temperature=temperature)
  cost = value(free, a, mask, objective=objective, temperature=temperature).mean() - top_value
  cost = cost if cost > ROUNDING * max(1.0, abs(top_value)) else np.nan
  multipliers = exact.multiplier[len(systems) + 1:, 0]
  solved = [(tau, policy(a, q, mask, mu, objective=objective, temperature=temperature))
            for tau, mu in zip(taus, multipliers) if np.isfinite(mu)]

  def point(name, tau, pi, against=None):
    J = float(value(pi, a, mask, objective=objective, temperature=temperature).mean())
    with np.errstate(divide='ignore'):
      nce = float(-np.log(pi[rows, lists.positive]).mean())
    return FrontierPoint(name, float(tau), float((pi * q).sum(-1).mean()), J,
                         0.0 if against is None else float((against - J) / cost), nce)
  return ([point(name, tau, pi, b) for (name, tau, _), pi, b in zip(systems, policies, best)]
          + [point('exact dual', tau, pi) for tau, pi in solved])


def exact_frontier(lists: FrontierLists, low: float, high: float, *, objective: Objective,
                   temperature: float = 1.0, count: int = 60) -> np.ndarray:
  """[at most count, 2] (C, J) of the exact solutions that reach C between `low` and `high`."""
  found = solve_dual(lists.preference, lists.q, lists.mask, np.linspace(low, high, count),
                     objective=objective, constraint='equality', temperature=temperature)
  return np.stack([found.reached[:, 0], found.primal[:, 0]], 1)[found.feasible[:, 0]]


def frontier_volume(points: Sequence[FrontierPoint], lists: FrontierLists, *,
                    objective: Objective, temperature: float = 1.0) -> float:
  """Hypervolume of (J, C) over the uniform policy's; see `control.hypervolume`."""
  uniform = lists.mask / lists.mask.sum(-1, keepdims=True)
  J = value(uniform, lists.preference, lists.mask, objective=objective, temperature=temperature)
  reference = float(J.mean()), float((uniform * lists.q).sum(-1).mean())
  return hypervolume(np.array([[p.value, p.reached] for p in points]), reference)
