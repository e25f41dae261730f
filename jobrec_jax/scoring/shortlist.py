"""Retrieval: which jobs of a large catalogue to score in full, and what the others come to.

  s'_e = W_e . x + r_e . x + c_e,   q = 1/2 softmax(s' / T) + 1/2 uniform

x are the numbers of a candidate with a job (margins, the job's words), W_e the expert's own linear
part of them (`models.experts.linear_scores`), which a table look-up for each field gives of all
jobs. What the decoder adds is learned for this candidate alone: some jobs, drawn by q, are scored
in full, and r_e, c_e are a ridge regression of what W_e . x lacks there. The best by the policy's
score of s' are then scored in full as well, so that the requirement acts in the choice. What is
shown are full scores; no training is needed for new jobs.

Reference:
  Matveeva et al., High accuracy retrieval with multiple nested ranker, 2006; the draw: Hartley and
  Rao, Sampling with unequal probabilities and without replacement, 1962.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.experts import GAIN, MOST
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts, PairScores
from jobrec_jax.scoring.policy import Alone, Policy

PyTree = Any
# Jobs that are scored in full: so many, or one of so many. By default lists are of 20 jobs, and 240
# of them, a third of them drawn, fill batches.
LEAST, SHARE = 240, 50
_BESIDE = 10  # jobs that are scored in full for each one asked for, at least
_DRAWN = 3  # one of so many of them is drawn by q
_RIDGES = (1.0, 10.0, 100.0, 1000.0, np.inf)  # beside a sum of squares; the last: the mean alone
_FULL = 1 - 1e-6  # leverage of a job that only its own score tells of


def shortlist_size(jobs: int, top_k: int) -> int:
  """How many of so many jobs to score in full where the best `top_k` are asked for."""
  return max(LEAST, jobs // SHARE, _BESIDE * top_k)


class Retrieved(NamedTuple):
  """One candidate with J jobs, of which some were scored in full.

  Attributes:
    full: [J] bool, which.
    preference, qualification: [J] logits s_pref and s_qual, first-stage ones s' where not `full`.
    lam: [J, K] the policy's lambda at each of its knots; the mean of the draw where not `full`.
    drawn: [D] the jobs that were drawn, ascending.
    chance: [D] with which each was drawn, in (0, 1].
    first: [D, 2] s' of these, of regressions on the others of the draw.
  """

  full: np.ndarray
  preference: np.ndarray
  qualification: np.ndarray
  lam: np.ndarray
  drawn: np.ndarray
  chance: np.ndarray
  first: np.ndarray


def retrieve(experts: Experts, blocks: BlockEncoder, candidate: int, left: np.ndarray,
             policy: Policy | Alone, calibration: Calibration, tau: float | None, count: int,
             score: Callable[[np.ndarray], PairScores]) -> Retrieved:
  """Scores `count` of the jobs that are left in full, and the others roughly.

  Args:
    experts: whose scores these are.
    blocks: what they read of candidates and jobs.
    candidate: of the blocks.
    left: [J] bool, the jobs to choose from.
    policy, calibration: of the run.
    tau: the requirement; None where one expert was trained alone.
    count: how many, at least 2.
    score: jobs [n] -> full scores of the candidate with them.

  Raises:
    ValueError: count is below 2, or the experts read no numbers of pairs.
  """
  if count < 2:
    raise ValueError(f'shortlist must be at least 2 jobs, got {count}')
  x = FirstStage(experts, blocks, candidate)
  rough = x.linear()

  def ranks(scores: np.ndarray, lam: np.ndarray | None = None) -> np.ndarray:
    """[J] the policy's scores of [J, 2] logits, -inf of jobs that are not left."""
    lam = np.zeros((len(scores), _knots(policy))) if lam is None else lam
    found, _ = policy.at(lam, scores[:, 0], calibration.logit(scores[:, 1]), tau)
    return np.where(left, found, -np.inf)
  drawn, chance = _draw(ranks(rough), left, getattr(policy, 'temperature', 1.0),
                        max(1, min(count, left.sum()) // _DRAWN))
  found = score(drawn)
  exact = np.stack([found.preference, found.qualification], -1)
  rough, first = x.corrected(rough, drawn, np.nan_to_num(exact))
  lam = np.repeat(found.lam.mean(0, keepdims=True), len(rough), 0)
  order = ranks(rough, lam)
  order[drawn] = -np.inf
  best = np.argpartition(-order, count - len(drawn) - 1)[:count - len(drawn)]
  best = np.sort(best[order[best] > -np.inf])
  full = np.zeros(len(rough), bool)
  for jobs, said in ((drawn, found), (best, score(best))):
    full[jobs] = True
    rough[jobs] = np.stack([said.preference, said.qualification], -1)
    lam[jobs] = said.lam
  return Retrieved(full, rough[:, 0], rough[:, 1], lam, drawn, chance, first)


def _knots(policy: Policy | Alone) -> int:
  return 0 if isinstance(policy, Alone) else len(policy.knots)


def _draw(scores: np.ndarray, left: np.ndarray, temperature: float,
          count: int) -> tuple[np.ndarray, np.ndarray]:
  """About `count` jobs at even steps of q, the jobs in order of their scores; and their chances.

  The draw is systematic and starts in the middle of a step, so that it is the same each time.
  """
  q = (softmax(scores.astype(np.float64) / temperature) + left / left.sum()) / 2
  order = np.argsort(-scores, kind='stable')[:left.sum()]
  steps = np.cumsum(q[order]) * count
  drawn = np.unique(order[np.searchsorted(steps, np.arange(count) + 0.5).clip(0, len(order) - 1)])
  return drawn, np.minimum(q[drawn] * count, 1)


class FirstStage:
  """The numbers of one candidate with all jobs, what jobs share standing once."""

  def __init__(self, experts: Experts, blocks: BlockEncoder, candidate: int):
    params = experts.params
    if 'number_scale' not in params:
      raise ValueError('a shortlist asks for experts that read numbers (tokenizer.numbers or '
                       'tokenizer.components), got some that read text alone')
    scale, weights = (np.asarray(params[f'number_{name}'], np.float64)
                      for name in ('scale', 'weights'))
    weights = GAIN * weights
    if 'match' in params:
      match = np.asarray(params['match'], np.float64)
      rank, start = match.shape[1], len(scale) - 2 * match.shape[1]
      own = blocks.numbers(np.array([candidate]), np.array([0]))[0, start:start + rank]
      own = np.clip(own * scale[start:start + rank], -MOST, MOST)
      weights[:, -rank:] += np.einsum('r,ers->es', own, match)
    self._parts, self._weights = [], []
    for at, values, row in blocks.numbers_over_jobs(candidate):
      self._parts.append((np.clip(values * scale[at].astype(np.float32), -MOST, MOST), row))
      self._weights.append(weights[:, at].T)
    self._jobs = len(blocks.jobs)

  def linear(self) -> np.ndarray:
    """[J, E] of all jobs, but for what is alike for all."""
    return self._times(self._weights)

  def _times(self, weights: list[np.ndarray]) -> np.ndarray:
    out = np.zeros((self._jobs, 2), np.float32)
    for (values, row), w in zip(self._parts, weights):
      out += (values @ w.astype(np.float32))[row]
    return out

  def corrected(self, rough: np.ndarray, jobs: np.ndarray,
                exact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First-stage scores with a regression of what they lack of `exact` [n, E] at `jobs` [n].

    The ridge of each expert is that of the least squared error at jobs left out one by one.

    Returns:
      [J, E] scores, and [n, E] those at `jobs`, each from a regression on the others.
    """
    x = np.concatenate([values[row[jobs]] for values, row in self._parts], 1).astype(np.float64)
    mean, lack = x.mean(0), exact - rough[jobs]
    centre = lack.mean(0)
    u, size, v = np.linalg.svd(x - mean, full_matrices=False)
    weights, apart = np.zeros((x.shape[1], lack.shape[1])), np.zeros(lack.shape)
    for e, y in enumerate((lack - centre).T):
      errors = []
      for ridge in _RIDGES:
        shrunk = size ** 2 / (size ** 2 + ridge)
        leverage = np.minimum(u ** 2 @ shrunk + 1 / len(y), _FULL)
        errors.append((y - u @ (shrunk * (u.T @ y))) / (1 - leverage))
      best = int(np.argmin([(error ** 2).mean() for error in errors]))
      weights[:, e] = v.T @ (size / (size ** 2 + _RIDGES[best]) * (u.T @ y))
      apart[:, e] = exact[:, e] - errors[best]
    ends = np.cumsum([values.shape[1] for values, _ in self._parts])[:-1]
    return (rough + self._times(np.split(weights, ends))
            + (centre - mean @ weights).astype(np.float32), apart)


def estimated_eligibility(found: Retrieved, policy: Policy | Alone, calibration: Calibration,
                          tau: float | None, scores: np.ndarray, p_qual: np.ndarray,
                          left: np.ndarray) -> float:
  """C over the jobs that are left, from some full scores; of the k best where tau binds these.

  sum_j exp(s_j / T) and sum_j exp(s_j / T) p_j over the jobs that were not scored in full are
  those of s' times what they are in the draw with s to what they are there with s': ratio
  estimates.

  Args:
    found: of a candidate.
    policy, calibration, tau: as of `retrieve`.
    scores, p_qual: [J] at the requirement, of `found`.
    left: [J] bool.

  Returns:
    nan where no job is left, or there is no policy.
  """
  if isinstance(policy, Alone) or not left.any():
    return float('nan')
  if not policy.top_k:
    first, _ = policy.at(found.lam[found.drawn], found.first[:, 0],
                         calibration.logit(found.first[:, 1]), tau)
    exact, first = (np.asarray(s, np.float64) / policy.temperature
                    for s in (scores[found.drawn], first))
    most = max(exact.max(), first.max())
    mass, mass_first = (np.exp(s - most) / found.chance for s in (exact, first))
    ratio = mass.sum() / mass_first.sum()
    ratio_q = mass @ p_qual[found.drawn] / (
        mass_first @ calibration.probability(found.first[:, 1]))
    scores = np.where(found.full, scores, scores + policy.temperature * np.log(ratio))
    p_qual = np.where(found.full, p_qual, np.minimum(p_qual * ratio_q / ratio, 1))
  counted = left & found.full if policy.top_k else left
  return float(policy.eligibility(scores[None], p_qual[None], counted[None])[0])
