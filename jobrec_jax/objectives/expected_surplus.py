"""What a recommended job is worth to a candidate: the gain of taking it, times the chance of it.

A candidate's gain from a job is x + e, where x is the logit of P and e follows the logistic
distribution, and the candidate applies if it is positive: with probability P. Before e is known,
a recommendation is worth, in units of the logistic's scale,

  Γ = Q E[max(0, x + e)] = Q log(1 + exp(x)) = −Q log(1 − P).

The worth of a list is the sum over its jobs, so that ranking by Γ is best at every length. Ranking
by P, by Q, or by the chance P Q of an accepted application is not.

Reference:
  Bied, Caillou, Crépon, Gaillac, Pérennes and Sebag, A job I like or a job I can get: designing job
  recommender systems using field experiments, 2026 (arXiv 2603.21699).
"""

import numpy as np


def expected_surplus(logit_p: np.ndarray, q: np.ndarray) -> np.ndarray:
  """Γ of pairs.

  Args:
    logit_p: [...] logit of P, the probability that the candidate wants the job.
    q: [...] Q, the probability that the employer finds the candidate eligible.

  Returns:
    [...] float64, not negative.
  """
  return np.logaddexp(0.0, np.asarray(logit_p, np.float64)) * np.asarray(q, np.float64)
