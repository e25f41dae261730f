"""What the policy keeps of true preference at true eligibilities that the market alone decides."""

import functools

import numpy as np

from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.evaluate.leave_one_out import violation_rate_without
from jobrec_jax.evaluate.list_means import ListMeans
from jobrec_jax.evaluate.tradeoff import kept_preference
from jobrec_jax.pipeline.measures.policy import policy_scores
from jobrec_jax.pipeline.measures.subject import (
    BOUND,
    ELIGIBILITY,
    SHARES,
    TRUE_PREFERENCE,
    Measured,
    Subject,
    of_the_way,
    row_slices,
    some,
)

MULTIPLIERS = np.r_[0.0, np.geomspace(0.03, 30.0, 19)]


def tradeoff_measures(of: Subject) -> list[Measured]:
  """True preference of the top five at equal true eligibility; see `evaluate.tradeoff`.

  e_s = E_P + s (E_Q − E_P), where E_P and E_Q are the true eligibilities of the five jobs that the
  truth P, and the truth Q, put first. They are the same for every run over these lists. The family
  of the policy is that of its knots. The bound ranks by P + μ Q from P to Q: no ranking keeps more.

  Returns:
    For each share s what the policy keeps, what the bound keeps, their paired difference, and e_s
    itself; nothing where the truth is unknown.
  """
  if of.truth is None:
    return []
  knots = len(of.trained.policy.knots)
  means, rankings = top_five(of), knots + len(MULTIPLIERS) + 1
  names = [f'{name} {k}' for name in 'QP' for k in range(rankings)]
  found = means.statistic(names, functools.partial(kept_at_shares, knots))
  rows, count = [], len(SHARES)
  for share, kept, bound, e in zip(SHARES, *(found[i * count:][:count] for i in range(3))):
    preference, eligibility = (of_the_way(m, share) for m in (TRUE_PREFERENCE, ELIGIBILITY))
    where = None, of.lists.split, 'policy'
    rows += [Measured('policy', *where, preference, kept),
             Measured(BOUND, *where, preference, bound),
             Measured('policy', *where, preference, kept - bound, BOUND),
             Measured(BOUND, *where, eligibility, e)]
  return rows


def kept_at_shares(knots: int, means: np.ndarray) -> np.ndarray:
  """[R, 2 K] true eligibility and preference of all rankings, the policy's before the bound's, to
  [R, 3 S]: what the policy keeps at each share, what the bound keeps, and e_s."""
  x, y = np.split(means, 2, axis=1)
  low, high = x[:, knots, None], x[:, -1:]
  e = low + np.array(SHARES) * (high - low)
  return np.concatenate([kept_preference(x[:, :knots], y[:, :knots], e),
                         kept_preference(x[:, knots:], y[:, knots:], e), e], axis=1)


def top_five(of: Subject) -> ListMeans:
  """True eligibility 'Q k' and preference 'P k' of the top five of each ranking k of the wanted
  lists: the policy's at its knots, then the bound's from P to Q."""
  means = ListMeans(of.groups)
  for at in row_slices(of.lists.wanted):
    part, values, without = some(of.lists.wanted, at), {}, {}
    P, Q = (getattr(of.truth, name)[part.candidate, part.job]
            for name in ('preference', 'qualification'))
    rankings = [*policy_scores(of, part, of.trained.policy.knots),
                *(P + mu * Q for mu in MULTIPLIERS), Q]
    for k, scores in enumerate(rankings):
      for name, truth in (('Q', Q), ('P', P)):
        values[f'{name} {k}'] = 1 - violation_rate_at_k(scores, truth, part.mask, 5)
        without[f'{name} {k}'] = 1 - violation_rate_without(scores, truth, part.mask, 5)
    means.add(part, values, without)
  return means
