"""Several experts' verdicts on the same pairs: one label each, and how far the experts agree.

Verdicts are [N, E] int8 arrays, a row for each pair and a column for each expert: 1 yes, 0 no,
-1 none (`NONE`).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.metrics import cohen_kappa_score

NONE = -1
# Verdicts on each class that an expert is taken to have given beside their own: most are right.
_RIGHT, _WRONG = 4.0, 1.0
_SHIFT_VARIANCE = 4.0  # of the normal prior of a group's shift, in squared logits
_CERTAIN = 1e-6  # a prior is never surer than this
_RISE = 1e-9  # of the objective, for each pair: less is no progress
_FARTHEST = 30.0  # logits that a shift may reach


class Aggregate(NamedTuple):
  """What `dawid_skene` found.

  Attributes:
    posterior: [N] P(label = 1 | prior, verdicts).
    sensitivity, specificity: [E] P(yes | 1) and P(no | 0) of each expert.
    error: [E] expected share of an expert's verdicts that are wrong; nan without verdicts.
    shift: [G] logits added to the prior of each group.
    objective: [iterations] log-likelihood plus log-priors, never falling.
  """

  posterior: np.ndarray
  sensitivity: np.ndarray
  specificity: np.ndarray
  error: np.ndarray
  shift: np.ndarray
  objective: np.ndarray


def check_verdicts(verdicts: np.ndarray) -> np.ndarray:
  """Returns `verdicts` as [N, E] int8, or raises a ValueError that says what came."""
  verdicts = np.asarray(verdicts)
  if verdicts.ndim != 2 or not np.isin(verdicts, (NONE, 0, 1)).all():
    raise ValueError('verdicts must be [pairs, experts] of 1 (yes), 0 (no) and -1 (none), got '
                     f'shape {verdicts.shape} with values {np.unique(verdicts)[:5]}')
  return verdicts.astype(np.int8)


def dawid_skene(verdicts: np.ndarray, prior: np.ndarray | None = None,
                group: np.ndarray | None = None, iterations: int = 500) -> Aggregate:
  """Labels and experts' error rates by expectation maximisation.

  logit P(1 | verdicts) = logit prior + shift[group] + sum over experts of log P(verdict | 1) -
  log P(verdict | 0). Reviewed pairs are chosen by what the prior was made from (record and machine
  label), so verdicts say nothing of the choice that the prior does not, and it stays valid; the
  shifts, one for each group, mend its level where the model behind it is off. With the machine's
  label as the group, this equals the machine as one more annotator with error rates of its own
  among the chosen pairs. Without prior and group it is the binary Dawid-Skene model.

  Args:
    verdicts: [N, E], see the module.
    prior: [N] P(label = 1) before any verdict, one half if not given.
    group: [N] int from 0, pairs that share a shift; one group if not given.
    iterations: at most; it stops when the objective no longer rises.

  Returns:
    The aggregate; a pair without verdicts has its shifted prior as posterior.

  Raises:
    ValueError: verdicts or prior lie outside their range.

  Reference:
    Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm,
    1979.
  """
  verdicts = check_verdicts(verdicts)
  n, experts = verdicts.shape
  prior = np.full(n, 0.5) if prior is None else np.asarray(prior, np.float64)
  group = np.zeros(n, int) if group is None else np.asarray(group, int)
  if prior.shape != (n,) or not ((prior >= 0) & (prior <= 1)).all():
    raise ValueError(f'prior must be [{n}] probabilities, got shape {prior.shape} in '
                     f'[{prior.min(initial=0):g}, {prior.max(initial=0):g}]')
  base = logit(np.clip(prior, _CERTAIN, 1 - _CERTAIN))
  yes, no = ((verdicts == value).astype(np.float64) for value in (1, 0))
  has_any = (verdicts != NONE).any(1)
  members = [np.flatnonzero((group == g) & has_any) for g in range(group.max(initial=0) + 1)]

  belief = expit(base + yes.sum(1) - no.sum(1))
  objective: list[float] = []
  for _ in range(iterations):
    sensitivity, specificity = _rates(belief[has_any], yes[has_any], no[has_any])
    shift = np.array([_best_shift(base[m], belief[m]) for m in members])
    before = base + shift[group]
    of_one = yes @ np.log(sensitivity) + no @ np.log1p(-sensitivity)
    of_zero = yes @ np.log1p(-specificity) + no @ np.log(specificity)
    belief = expit(before + of_one - of_zero)
    # log sigmoid(x) = -logaddexp(0, -x)
    likelihood = np.logaddexp(of_one - np.logaddexp(0, -before), of_zero - np.logaddexp(0, before))
    objective.append(float(
        likelihood.sum() - (shift ** 2).sum() / (2 * _SHIFT_VARIANCE)
        + sum((_RIGHT * np.log(r) + _WRONG * np.log1p(-r)).sum()
              for r in (sensitivity, specificity))))
    if len(objective) > 1 and objective[-1] - objective[-2] < _RISE * max(1, n):
      break
  wrong = yes * (1 - belief)[:, None] + no * belief[:, None]
  count = (verdicts != NONE).sum(0)
  error = np.divide(wrong.sum(0), count, out=np.full(experts, np.nan), where=count > 0)
  return Aggregate(belief, sensitivity, specificity, error, shift, np.array(objective))


def _rates(belief: np.ndarray, yes: np.ndarray, no: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Most probable sensitivity and specificity, [E] each; the pseudo-verdicts keep them inside."""
  rates = []
  for weight, right in ((belief, yes), (1 - belief, no)):
    rates.append((weight @ right + _RIGHT) / (weight @ (yes + no) + _RIGHT + _WRONG))
  return rates[0], rates[1]


def _best_shift(base: np.ndarray, belief: np.ndarray) -> float:
  """The root of the objective's derivative, which falls in the shift."""
  def slope(shift: float) -> float:
    return float((belief - expit(base + shift)).sum() - shift / _SHIFT_VARIANCE)
  return brentq(slope, -_FARTHEST, _FARTHEST, xtol=1e-12) if len(base) else 0.0


def fleiss_kappa(verdicts: np.ndarray) -> float:
  """Agreement of several experts beyond chance: (observed - expected) / (1 - expected).

  observed = mean over pairs of the share of agreeing pairs of experts, expected = sum over answers
  of their squared mean share. Pairs may have different numbers of verdicts; those with fewer than
  two say nothing of agreement and are left out.

  Args:
    verdicts: [N, E] answers as integers from 0, any number of kinds; -1 for none.

  Returns:
    kappa; nan where no pair has two verdicts, or all verdicts are the same.

  Reference:
    Fleiss, Measuring nominal scale agreement among many raters, 1971.
  """
  verdicts = np.asarray(verdicts)
  counts = np.stack([(verdicts == k).sum(1) for k in range(verdicts.max(initial=0) + 1)], 1)
  counts = counts[counts.sum(1) > 1].astype(np.float64)
  if not len(counts):
    return float('nan')
  total = counts.sum(1, keepdims=True)
  observed = ((counts * (counts - 1)).sum(1) / (total * (total - 1))[:, 0]).mean()
  expected = ((counts / total).mean(0) ** 2).sum()
  return float((observed - expected) / (1 - expected)) if expected < 1 else float('nan')


def cohen_kappas(verdicts: np.ndarray) -> dict[tuple[int, int], tuple[float, int]]:
  """Cohen's kappa of each two experts, on the pairs that both judged.

  Args:
    verdicts: [N, E], see the module.

  Returns:
    (kappa, common pairs) by (i, j) with i < j; nan where they share none, or all answers agree on
    one value.
  """
  verdicts = check_verdicts(verdicts)
  kappas = {}
  for i in range(verdicts.shape[1]):
    for j in range(i + 1, verdicts.shape[1]):
      both = verdicts[(verdicts[:, [i, j]] != NONE).all(1)][:, [i, j]]
      defined = len(np.unique(both)) == 2
      kappas[i, j] = (float(cohen_kappa_score(*both.T)) if defined else float('nan'), len(both))
  return kappas
