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
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, softmax

from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.experts import GAIN, MOST
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts, PairScores
from jobrec_jax.scoring.policy import Alone, Policy

# Jobs that are scored in full: so many, or one of so many. By default lists are of 20 jobs, and 240
# of them, a third of them drawn, fill batches.
LEAST, SHARE = 240, 50
_BESIDE = 10  # jobs that are scored in full for each one asked for, at least
_DRAWN = 3  # one of so many of them is drawn by q
_RIDGES = (1.0, 10.0, 100.0, 1000.0, np.inf)  # beside a sum of squares; the last: the mean alone
_LEAST_ERROR = 1e-6  # of a rough score
_FAR = 5  # errors that no score is off by
_FULL = 1 - 1e-6  # leverage of a job that only its own score tells of


def shortlist_size(jobs: int, top_k: int) -> int:
  """How many of so many jobs to score in full where the best `top_k` are asked for."""
  return max(LEAST, jobs // SHARE, _BESIDE * top_k)


class Retrieved(NamedTuple):
  """One candidate with J jobs, some of which were scored in full.

  Attributes:
    full: [J] bool, which.
    scores, preference, p_qual, lam: [J] of the policy and of the experts, and lambda at the
      requirement; roughly where not `full`.
    eligibility: C over the jobs that are left; nan without a policy.
    missed: about how many of the best jobs are not among those that were scored in full.
  """

  full: np.ndarray
  scores: np.ndarray
  preference: np.ndarray
  p_qual: np.ndarray
  lam: np.ndarray
  eligibility: float
  missed: float


def retrieve(first: 'FirstStage', left: np.ndarray, asked: 'Asked', count: int, top_k: int,
             score: Callable[[np.ndarray], PairScores]) -> Retrieved:
  """Scores `count` of the jobs that are left in full, and the others roughly.

  Args:
    first: of the candidate.
    left: [J] bool, the jobs to choose from; more than `count`.
    asked: what ranks them.
    count: how many, at least 2.
    top_k: how many are to be shown.
    score: jobs [n] -> full scores of the candidate with them.
  """
  def ranks(scores: np.ndarray) -> np.ndarray:
    return np.where(left, asked.ranks(scores, lam)[0], -np.inf)
  rough = first.linear()
  lam = np.zeros((len(rough), asked.knots), np.float32)
  drawn, chance = _draw(ranks(rough), left, asked.temperature, max(1, count // _DRAWN))
  found = score(drawn)
  rough, apart = first.corrected(rough, drawn, np.nan_to_num(_both(found)))
  lam[:] = found.lam.mean(0)
  order = ranks(rough)
  order[drawn] = -np.inf
  best = np.sort(np.argpartition(-order, count - len(drawn) - 1)[:count - len(drawn)])
  scores_apart, _, _, p_apart = asked.ranks(apart, lam[drawn])
  full = np.zeros(len(rough), bool)
  for jobs, said in ((drawn, found), (best, score(best))):
    full[jobs], rough[jobs], lam[jobs] = True, _both(said), said.lam
  scores, lam_at, preference, p_qual = asked.ranks(rough, lam)
  draw = _Draw(drawn, chance, scores[drawn], scores_apart, p_qual[drawn], p_apart)
  return Retrieved(full, scores, preference, p_qual, lam_at,
                   _eligibility(draw, asked.policy, scores, p_qual, full, left),
                   _missed(draw, scores, full, left, top_k))


class Asked(NamedTuple):
  """What ranks jobs: the run's policy and calibration, and tau; None of one expert alone."""

  policy: Policy | Alone
  calibration: Calibration
  tau: float | None

  @property
  def knots(self) -> int:
    return 0 if isinstance(self.policy, Alone) else len(self.policy.knots)

  @property
  def temperature(self) -> float:
    return 1.0 if isinstance(self.policy, Alone) else self.policy.temperature

  def ranks(self, scores: np.ndarray, lam: np.ndarray) -> tuple[np.ndarray, ...]:
    """Policy scores, lambda, s_pref and p_qual [n] of logits [n, 2] and lambda [n, K]."""
    s_pref, s_qual = scores[:, 0].astype(np.float32), scores[:, 1].astype(np.float32)
    z_qual = np.asarray(self.calibration.logit(s_qual), np.float32)
    with np.errstate(invalid='ignore'):  # nan without that expert
      p_qual = self.calibration.probability(s_qual)
    return *self.policy.at(lam, s_pref, z_qual, self.tau), s_pref, p_qual


def _both(found: PairScores) -> np.ndarray:
  return np.stack([found.preference, found.qualification], -1)


class _Draw(NamedTuple):
  """The jobs [D] that were drawn with their chances, and what is said of them in full and roughly.

  The rough scores are of regressions on the others of the draw.
  """

  jobs: np.ndarray
  chance: np.ndarray
  scores: np.ndarray
  rough: np.ndarray
  p_qual: np.ndarray
  p_rough: np.ndarray


def _eligibility(draw: _Draw, policy: Policy | Alone, scores: np.ndarray, p_qual: np.ndarray,
                 full: np.ndarray, left: np.ndarray) -> float:
  """C over the jobs that are left; of the k best where tau binds these.

  sum_j exp(s_j / T) and sum_j exp(s_j / T) p_j over the jobs that were not scored in full are the
  rough ones times what they are over the draw with full scores to what they are there with rough
  ones: ratio estimates.
  """
  if isinstance(policy, Alone):
    return float('nan')
  if policy.top_k:
    return float(policy.eligibility(scores[None], p_qual[None], full[None])[0])
  exact, rough = (np.asarray(s, np.float64) / policy.temperature for s in (draw.scores, draw.rough))
  most = max(exact.max(), rough.max())
  mass, mass_rough = (np.exp(s - most) / draw.chance for s in (exact, rough))
  ratio = mass.sum() / mass_rough.sum()
  ratio_q = mass @ draw.p_qual / (mass_rough @ draw.p_rough)
  scores = np.where(full, scores, scores + policy.temperature * np.log(ratio))
  p_qual = np.where(full, p_qual, np.minimum(p_qual * ratio_q / ratio, 1))
  return float(policy.eligibility(scores[None], p_qual[None], left[None])[0])


def _missed(draw: _Draw, scores: np.ndarray, full: np.ndarray, left: np.ndarray,
            top_k: int) -> float:
  """About how many of the k best jobs were not scored in full.

  It is m where m of them are expected to be better than the (k - m)th that was, as if rough scores
  had normal errors, as great as those of the draw.
  """
  error = max(np.sqrt(np.mean((draw.scores - draw.rough) ** 2)), _LEAST_ERROR)
  shown = -np.sort(-scores[full])[:top_k]
  others = scores[left & ~full]
  others = others[others > shown[-1] - _FAR * error]
  better = ndtr((others - shown[:, None]) / error).sum(1)
  return float(np.maximum(better, np.arange(len(shown))[::-1]).min())


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
  """What one candidate's scores are without reading a pair: linear in numbers, of which many share.

  Args:
    experts: whose scores these are.
    blocks: what they read of candidates and jobs.
    candidate: of the blocks.

  Raises:
    ValueError: the experts read no numbers of pairs.
  """

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
