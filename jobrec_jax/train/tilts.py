"""The multiplier of p_qual that keeps a requirement, whatever the head does beside it.

Every policy of stage 2 is `s = a + mu(tau) p_qual + lambda(tau) z_qual`, a the preference of the
inputs. With lambda = 0 it is the exact dual's of the expected score; with any lambda a mu is left
that reaches tau exactly, for the exact dual of the scores `a + lambda z_qual` reaches whatever any
policy does. Where tau binds the k best, mu is that of `lagrangian.top_k`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from jobrec_jax.lagrangian.exact import solve_dual
from jobrec_jax.lagrangian.top_k import solve_top_k
from jobrec_jax.models.policy import PolicyHead, only_outputs
from jobrec_jax.scoring.policy import PolicyInputs, Tilts, head_lambda
from jobrec_jax.train.policy import PolicyConfig, policy_loss

EDGE = 1e-4  # share of the attainable range: nearer to an end, a multiplier has none
BETWEEN = 16  # parts of the way from a knot to the next, mu is solved for at the end of each
BETTER = 1e-5  # a loss that is less by a smaller share is rounding


class Start(NamedTuple):
  """Where stage 2 begins for each of K requirements.

  Attributes:
    tilts: [K] mu of the policy `a + mu p_qual` that keeps the requirement.
    multipliers: [K] that of the exact dual of the objective, in units of its loss; the Lagrange
      multipliers of training set out from it.
  """

  tilts: np.ndarray
  multipliers: np.ndarray


class Aligned(NamedTuple):
  """What stage 2 came to.

  Attributes:
    params: of the head, lambda = 0 at each knot that is not kept.
    tilts: mu at the knots and between them.
    kept: [K] bool, where training bettered the start.
  """

  params: dict
  tilts: Tilts
  kept: np.ndarray


def attainable(inputs: PolicyInputs, config: PolicyConfig) -> tuple[float, float]:
  """The C that policies reach on these lists: `[E min q, E max q]`, an inequality's from C(0) on.

  The ends themselves are limits, which no finite multiplier reaches. Of the k best they are the
  means of the k smallest and of the k greatest q.
  """
  lists = inputs.preference, expit(np.asarray(inputs.z_qual, np.float64)), np.asarray(inputs.mask)
  if config.top_k:
    found = solve_top_k(*lists, np.zeros(0), config.top_k)
    (least, most), free = found.attainable, found.free
  else:
    found = solve_dual(*lists, np.zeros(1), objective='expected_score',
                       temperature=config.temperature)
    (least, most), free = found.attainable[0], found.free[0]
  return float(free if config.constraint == 'inequality' else least), float(most)


def exact_start(config: PolicyConfig, inputs: PolicyInputs, taus: np.ndarray) -> Start:
  """The exact dual's policy for each requirement."""
  tilts = _multipliers(inputs, inputs.preference, taus, config)
  if config.objective != 'info_nce':
    return Start(tilts, tilts)
  return Start(tilts, _multipliers(inputs, inputs.preference, taus, config, 'info_nce'))


def align(head: PolicyHead, params: dict, config: PolicyConfig, inputs: PolicyInputs,
          knots: np.ndarray) -> Aligned:
  """Solves mu for a trained head; where training did not better the exact dual, takes that.

  At each knot both policies keep the requirement, so that the lower loss decides.

  Args:
    head, params: of K outputs, as trained.
    config: its objective, constraint and temperature.
    inputs: stage 2's lists.
    knots: [K] requirements.
  """
  start = exact_start(config, inputs, knots).tilts
  equality = dataclasses.replace(config, constraint='equality')
  lam = np.asarray(head_lambda(head, params, inputs.hidden), np.float64)             # [N, J, K]
  pref, z = (np.asarray(x, np.float64) for x in (inputs.preference, inputs.z_qual))
  kept = np.zeros(len(knots), bool)
  for k in np.flatnonzero(lam.any((0, 1))):
    learned = pref + lam[..., k] * z
    mu = _multipliers(inputs, learned, knots[[k]], equality)
    losses = [float(policy_loss(config, np.float32(s), inputs)) for s in (
        learned + mu * expit(z), pref + start[k] * expit(z))]
    kept[k] = losses[0] < losses[1] - BETTER * abs(losses[1])
  params = only_outputs(params, head.kind, kept)
  return Aligned(params, tilts_of(lam * kept, config, inputs, knots), kept)


def tilts_of(lam: np.ndarray, config: PolicyConfig, inputs: PolicyInputs,
             knots: np.ndarray) -> Tilts:
  """mu(tau) at the knots and between them, where lambda [N, J, K] is read along a line.

  Where lambda is 0 the requirement is met as the constraint says, else exactly: what labels teach
  beside an inequality may lie above tau, and a mu below 0 leads back.
  """
  taus = np.interp(np.arange((len(knots) - 1) * BETWEEN + 1) / BETWEEN, np.arange(len(knots)),
                   np.asarray(knots, np.float64))
  mu = _multipliers(inputs, inputs.preference, taus, config).copy()
  equality = dataclasses.replace(config, constraint='equality')
  learned = np.interp(taus, knots, lam.any((0, 1)).astype(float)) > 0
  for i in np.flatnonzero(learned):
    at = lam @ [np.interp(taus[i], knots, corner) for corner in np.eye(len(knots))]
    mu[i] = _multipliers(inputs, inputs.preference + at * np.asarray(inputs.z_qual), taus[[i]],
                         equality)[0]
  return Tilts(taus, mu)


def _multipliers(inputs: PolicyInputs, scores: np.ndarray, taus: np.ndarray, config: PolicyConfig,
                 objective: str = 'expected_score') -> np.ndarray:
  """[K] of the exact dual; of a tau beside an end of the range, that of the last inside."""
  q, mask = expit(np.asarray(inputs.z_qual, np.float64)), np.asarray(inputs.mask)
  least, most = q.min(1, where=mask, initial=1).mean(), q.max(1, where=mask, initial=0).mean()
  if least == most:
    return np.zeros(len(taus))
  if config.top_k:
    least, most = solve_top_k(scores, q, mask, np.zeros(0), config.top_k).attainable
  edge = EDGE * (most - least)
  taus = np.clip(taus, least + edge, most - edge)
  if config.top_k:
    found = solve_top_k(scores, q, mask, taus, config.top_k, constraint=config.constraint)
    return found.multiplier
  found = solve_dual(scores, q, mask, taus, objective=objective, constraint=config.constraint,
                     temperature=config.temperature)
  assert found.feasible.all(), 'the exact dual solves what lies inside its range'
  return found.multiplier[:, 0]
