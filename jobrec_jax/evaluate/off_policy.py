"""What a log of applicants says of a policy that it was not made by: its true eligibility.

Each list holds jobs that were drawn without regard to what came of them, so that the mean over its
jobs of what a policy would gain is one of uniform pairs. An outcome is seen where a job was shown
and applied to, with the propensity p = exposure x chance of applying. With q the believed chance of
eligibility, o whether the outcome y is seen, and v the policy,

  C = E_lists sum_j v_j t_j,  t_j = q_j + (o_j / p_j) (y_j - q_j),

is unbiased where the propensities or the beliefs are right (`censoring.estimators.doubly_robust`),
and no hidden cause moves both applying and eligibility.

Reference:
  Dudik, Langford and Li, Doubly robust policy evaluation and learning, 2011.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from jobrec_jax.censoring.estimators import Funnel, doubly_robust, effective_share, inverse
from jobrec_jax.data.lists import RankingLists


class LoggedLists(NamedTuple):
  """Lists of held-out candidates, and what the log says of their pairs. Arrays are [N, J].

  Attributes:
    lists: relevance is whether the candidate applied.
    preference, z_qual: s_pref and the calibrated qualification logit.
    applies: the estimated chance of applying to a job that is shown.
    exposure: the chance with which the logging policy showed the pair; nan where it did not.
    label: int8; 1 accepted, 0 rejected, -1 unobserved.
  """

  lists: RankingLists
  preference: np.ndarray
  z_qual: np.ndarray
  applies: np.ndarray
  exposure: np.ndarray
  label: np.ndarray

  @property
  def believed(self) -> np.ndarray:
    """q = p_qual, float64."""
    return 1 / (1 + np.exp(-np.asarray(self.z_qual, np.float64)))

  @property
  def funnel(self) -> Funnel:
    """The pairs, flat, as estimators read them."""
    observed = (self.label >= 0).ravel()
    propensity = np.where(observed, (self.applies * self.exposure).ravel(), 1.0)
    return Funnel(observed, (self.label == 1).ravel().astype(np.float64), propensity,
                  self.believed.ravel())

  @property
  def outcomes(self) -> np.ndarray:
    """t of every pair, doubly robust; it may lie outside [0, 1]."""
    return doubly_robust(self.funnel).target.reshape(self.label.shape)

  @property
  def effective_share(self) -> float:
    """Which share of the outcomes seen their weights 1 / p leave."""
    w = inverse(self.funnel)
    return effective_share(w[w > 0])


def shrunk_gap(estimated: np.ndarray, believed: np.ndarray) -> np.ndarray:
  """How far estimates of C lie above beliefs, as far as the lists can tell it from 0.

  Of the mean gap g with the standard error e over lists, `g max(0, 1 - e^2 / g^2)`: belief stays
  where the log does not speak against it, for a correction of mere noise would be worse.

  Args:
    estimated, believed: [M, N] C of each list at M requirements.

  Returns:
    [M] gaps.

  Reference:
    James and Stein, Estimation with quadratic loss, 1961 (its positive part, of one mean).
  """
  gap = np.asarray(estimated) - believed
  mean, error = gap.mean(1), gap.std(1, ddof=1) / np.sqrt(gap.shape[1])
  return mean * np.maximum(0, 1 - error ** 2 / np.maximum(mean ** 2, 1e-300))


def rising(values: np.ndarray) -> np.ndarray:
  """The nearest ascending values, strictly: equal ones are put 1e-9 apart."""
  return isotonic_regression(values).x + 1e-9 * np.arange(len(values))
