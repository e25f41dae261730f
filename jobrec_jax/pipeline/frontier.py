"""What the best policies reach on the held-out lists: with the experts' scores, and with the truth.

Both are shown beside the policy. On lists like stage 2's, J against predicted C: the exact dual.
On the lists on which systems are compared, NDCG@5 against true eligibility of the best five: of the
exact dual, which ranks by s_pref + mu p_qual, and of the truth, which ranks by P + mu Q.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.evaluate.frontier import FrontierLists, FrontierPoint, exact_frontier
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.lagrangian.exact import policy as exact_policy, value
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema.files import load_arrays, save_arrays
from jobrec_jax.scoring.policy import Alone, worth_of

MULTIPLIERS = np.r_[0.0, np.geomspace(0.03, 300.0, 40)]


class Frontiers(NamedTuple):
  """The policy at its knots and what no policy can pass.

  Attributes:
    policy: [K, 2] (C, J) on lists like stage 2's.
    dual: [N, 2] (C, J) of the exact dual there.
    ranked_dual, ranked_truth: [M, 2] (true eligibility@5, NDCG@5) where systems are compared, by
      ascending mu; None where the truth is unknown.
  """

  policy: np.ndarray
  dual: np.ndarray
  ranked_dual: np.ndarray | None
  ranked_truth: np.ndarray | None


def make_frontier(bench: Bench) -> None:
  """Solves and measures both; nothing where there is no policy."""
  if isinstance(bench.inputs['policy'], Alone):
    return
  objective = bench.settings['objective'].replace('expected_surplus', 'expected_score')
  trained, scores = bench.inputs['policy'].policy, bench.inputs['scores']
  calibration, lists = bench.inputs['calibration'].calibration, bench.inputs['lists']
  held_out = lists.held_out
  experts = scores.of(held_out)
  z_qual = np.asarray(calibration.logit(experts.qualification))
  a = np.asarray(worth_of(trained.worth, experts.preference, z_qual), np.float64)
  of = FrontierLists(a,
                     np.asarray(calibration.probability(experts.qualification), np.float64),
                     held_out.mask, held_out.relevance.argmax(1))
  how = {'objective': objective, 'temperature': trained.temperature}
  ranked, _ = trained.at(scores.lam_of(held_out), experts.preference, z_qual, trained.knots)
  points = np.array([_point(s, of, **how) for s in ranked])
  found = {'policy': points,
           'dual': exact_frontier(of, points[:, 0].min(), points[:, 0].max(), **how)}
  truth = bench.inputs['data'].truth
  if truth is not None:
    wanted = lists.wanted
    z = np.asarray(calibration.logit(scores.of(wanted).qualification))
    a, q = worth_of(trained.worth, scores.of(wanted).preference, z), expit(z)
    pairs = wanted.candidate, wanted.job
    P, Q = truth.preference[pairs], truth.qualification[pairs]
    found['ranked_dual'] = np.array([_ranked(
        a + mu * q if objective == 'expected_score'
        else exact_policy(a, q, wanted.mask, mu, **how), wanted, Q) for mu in MULTIPLIERS])
    found['ranked_truth'] = np.array([_ranked(P + mu * Q, wanted, Q) for mu in MULTIPLIERS])
  save_arrays(bench.folder / 'frontier.npz', found)


def read_frontier(bench: Bench) -> Frontiers | None:
  if isinstance(bench.inputs['policy'], Alone):
    return None
  found = load_arrays(bench.folder / 'frontier.npz')
  return Frontiers(*(found.get(name) for name in Frontiers._fields))


def as_points(points: np.ndarray, taus: np.ndarray, name: str) -> list[FrontierPoint]:
  """[K, 2] (C, J) as the points of a figure."""
  return [FrontierPoint(name, float(tau), float(c), float(J), np.nan, np.nan)
          for tau, (c, J) in zip(taus, points)]


def _point(scores: np.ndarray, of: FrontierLists, objective: str,
           temperature: float) -> tuple[float, float]:
  """(C, J) of the policy softmax(scores / T)."""
  logits = np.where(of.mask, np.asarray(scores, np.float64) / temperature, -np.inf)
  pi = softmax(logits, axis=-1)
  J = value(pi, of.preference, of.mask, objective=objective, temperature=temperature)
  return float((pi * of.q).sum(-1).mean()), float(J.mean())


def _ranked(scores: np.ndarray, lists: RankingLists, Q: np.ndarray) -> tuple[float, float]:
  """(true eligibility@5, NDCG@5), means over lists."""
  eligible = 1 - violation_rate_at_k(scores, Q, lists.mask, 5)
  ndcg = ranking_metrics(scores, lists.relevance, lists.mask)['ndcg@5']
  return float(np.nanmean(eligible)), float(np.nanmean(ndcg))
