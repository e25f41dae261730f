"""The sums behind logit P and logit Q, and how much of logit Q is of the pair.

Over a grid of candidates i and jobs j a logit has parts, whose variances add up:

  x_ij = mean + candidate_i + job_j + pair_ij

A policy can only trade the pair's part: the rest is the same whatever is recommended to whom. So
the raw sum q_ij of the fit is tilted by entities' means of it, over reference jobs and candidates,

  q'_ij = q_ij + tilt (mean_k q_ik + mean_k q_kj),

which leaves the pair's part as it is; a tilt of -1 takes the other parts away, 0 leaves them.
"""

from typing import NamedTuple

import numpy as np

from jobrec_jax.data.market.columns import Columns, margin
from jobrec_jax.data.market.domain import Domain, Requirement

_TILTS = np.linspace(-1, 1, 4001)  # entities' parts are taken away, or about doubled


class Scales(NamedTuple):
  """What makes the raw sums of the domain logits of the asked moments; see `Market.logits`.

  Attributes:
    wish_mean, wish_std: of the raw wishes.
    fit_mean, fit_std: of the tilted raw fit.
    natural: correlation of the two.
    tilt: weight of the means of the candidate and of the job in the fit.
    job_fit: [J] mean raw fit of each job with the reference candidates.
  """

  wish_mean: float = 0.0
  wish_std: float = 1.0
  fit_mean: float = 0.0
  fit_std: float = 1.0
  natural: float = 0.0
  tilt: float = 0.0
  job_fit: np.ndarray | None = None


class Parts(NamedTuple):
  """Shares of a variance over a grid; they sum to 1."""

  candidate: float
  job: float
  pair: float


def variance_parts(x: np.ndarray) -> Parts:
  """How the variance of x [candidates, jobs] divides: two-way analysis of variance."""
  u, v, w = _parts(x)
  total = x.var()
  return Parts(*(float((part ** 2).mean() / total) for part in (u, v, w)))


def _parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The candidates' part [U], the jobs' [J] and the pairs' [U, J]; each sums to 0."""
  u, v = x.mean(1) - x.mean(), x.mean(0) - x.mean()
  return u, v, x - x.mean() - u[:, None] - v


def tilt_of(p: np.ndarray, q: np.ndarray, means: tuple[np.ndarray, np.ndarray], rho: float,
            share: float) -> float:
  """The tilt with which the pair's part has the asked share in the final logit Q.

  Args:
    p, q: [U, J] raw sums of the wishes and of the fit.
    means: [U] and [J], what the tilt weighs.
    rho: the correlation of the final logits.
    share: asked; the nearest is taken where it cannot be had.
  """
  p, q = _parts((p - p.mean()) / p.std()), _parts(q)
  within_q, within_p = _mean_product(q[2], q[2]), _mean_product(p[2], p[2])
  crossed = _mean_product(p[2], q[2])
  variance, covariance = within_q, crossed
  for of_p, of_q, mean in zip(p, q, means):
    mean = mean - mean.mean()
    variance = variance + (_mean_product(of_q, of_q) + 2 * _TILTS * _mean_product(of_q, mean)
                           + _TILTS ** 2 * _mean_product(mean, mean))
    covariance = covariance + _mean_product(of_q, of_p) + _TILTS * _mean_product(mean, of_p)
  # The final logit is a p + b q', of variance 1; see `Market.logits`.
  natural = covariance / np.sqrt(variance)
  b = np.sqrt((1 - rho ** 2) / (1 - natural ** 2) / variance)
  a = rho - b * covariance
  pair = a ** 2 * within_p + 2 * a * b * crossed + b ** 2 * within_q
  return float(_TILTS[np.argmin(np.abs(pair - share))])


def _mean_product(x: np.ndarray, y: np.ndarray) -> float:
  return float((x * y).mean())


def raw_wishes(domain: Domain, taste: float, u: Columns, row: np.ndarray, j: Columns,
               job: np.ndarray) -> np.ndarray:
  """The sum behind logit P of the pairs (row of u, job), before standardising.

  Args:
    domain: what candidates wish.
    taste: weight of the tastes that narratives show.
    u, row: candidates and the rows of the pairs.
    j, job: jobs and their indices; row and job broadcast.
  """
  want = np.zeros(np.broadcast_shapes(np.shape(row), np.shape(job)))
  margins = _margins(domain, set(domain.wishes), u, row, j, job)
  for name, weight in domain.wishes.items():
    want += weight * np.clip(1 + margins[name], 0, 1)
  # The product of centred counts in [-1, 1]: who leans one way wants jobs that lean there too.
  half = domain.grammar.statements / 2
  for axis in range(len(domain.grammar.axes)):
    lean = (u.leanings[row, axis] / half - 1) * (j.leanings[job, axis] / half - 1)
    want += taste / np.sqrt(len(domain.grammar.axes)) * lean
  return want


def raw_fit(domain: Domain, evidence: float, u: Columns, row: np.ndarray, j: Columns,
            job: np.ndarray) -> np.ndarray:
  """The sum behind logit Q, likewise; `evidence` is the weight of what the projects show."""
  fit = np.zeros(np.broadcast_shapes(np.shape(row), np.shape(job)))
  needed = {r.field for r in domain.requirements}
  needed |= {r.spared_by for r in domain.requirements if r.spared_by}
  margins = _margins(domain, needed, u, row, j, job)
  for requirement in domain.requirements:
    fit -= _unmet(requirement, margins)
  fit += evidence * (u.evidence[row] + np.zeros(fit.shape))
  return fit


def _margins(domain: Domain, names: set[str], u: Columns, row: np.ndarray, j: Columns,
             job: np.ndarray) -> dict[str, np.ndarray]:
  return {f.name: margin(f, u, row, j, job) for f in domain.schema.fields if f.name in names}


def _unmet(r: Requirement, margins: dict[str, np.ndarray]) -> np.ndarray:
  gap = -margins[r.field]
  if r.per is None:
    return r.weight * (gap > 0)
  if r.spared_by:
    gap = gap - r.spare * np.clip(margins[r.spared_by], 0, r.spare_cap)
  return r.weight * np.clip(gap / r.per, 0, r.cap)
