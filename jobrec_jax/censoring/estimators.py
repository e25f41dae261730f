"""What outcomes that only some pairs show are taken to say of all: estimators by name.

N pairs could have shown an outcome; o_i says whether pair i did, y_i in {0, 1} what it was, p_i is
the estimated chance of o_i = 1, and q_i an estimate of E[y_i] that has not seen y_i. Cross-entropy
is linear in its target, so that an estimator is a weight and a target for each pair,

  L(s) = 1/N sum_i w_i (log(1 + exp(s_i)) - t_i s_i)  [+ E(s)]

with s the logits of a model. Some add the likelihood of the entire space, in which an outcome of 1
is the product of being observed and being positive:

  E(s) = -1/N sum_i log(p_i sigmoid(s_i))^{o_i y_i} (1 - p_i sigmoid(s_i))^{1 - o_i y_i}

The same weights and targets estimate the mean of any v_i E[y_i], as `value` says.

Every estimator stands on positivity, p > 0, and all but `negatives` on ignorability: given what p
and q are functions of, o tells nothing of y. Where hidden causes move both, none is unbiased.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit

FLOOR = 0.01  # the least propensity believed: no pair counts more than a hundredfold
CLIP = 10.0  # the largest weight of `snips`, in multiples of their mean
_MOST = 10.0  # of e of `targeted`, either way
_SURE = 1e-6  # an imputation is held this far from 0 and 1 where its logit is moved


class Funnel(NamedTuple):
  """What an estimator knows of N pairs.

  Attributes:
    observed: [N] bool o, whose outcome is known.
    label: [N] float64 y, 1 or 0; whatever stands where it is not known, nothing reads.
    propensity: [N] float64 p in (0, 1].
    imputed: [N] float64 q in [0, 1].
  """

  observed: np.ndarray
  label: np.ndarray
  propensity: np.ndarray
  imputed: np.ndarray


class Targets(NamedTuple):
  """What an estimator makes of them.

  Attributes:
    weight: [N] float64 w, not negative.
    target: [N] float64 t; a doubly robust one may lie outside [0, 1].
    entire: whether the likelihood of the entire space is part of the loss.
  """

  weight: np.ndarray
  target: np.ndarray
  entire: bool = False


class Estimator(NamedTuple):
  """One row of the table.

  Attributes:
    targets: of a funnel.
    does: what it takes an unseen outcome for, in words.
    assumes: what must hold beside positivity and ignorability for its loss to be unbiased.
    imputation: [N] weights of the outcomes that the model of q is fitted to, of (o, p, s), with s
      the logits of an earlier model; None for o.
    rounds: how often imputation and model are fitted in turn.
  """

  targets: Callable[[Funnel], Targets]
  does: str
  assumes: str
  imputation: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
  rounds: int = 1


def loss(logits: np.ndarray, funnel: Funnel, targets: Targets) -> float:
  """L(s) of the module, in nats a pair; logits [N]."""
  each = targets.weight * (np.logaddexp(0, logits) - targets.target * logits)
  if targets.entire:
    chance = np.clip(funnel.propensity * expit(logits), 1e-12, 1 - 1e-12)
    positive = _outcomes(funnel) == 1
    each = each - np.log(np.where(positive, chance, 1 - chance))
  return float(each.mean())


def value(targets: Targets, weights: np.ndarray | float = 1.0) -> float:
  """The estimate of 1/N sum_i v_i E[y_i], such as the eligibility C of a policy v; v [N]."""
  return float(np.mean(targets.weight * targets.target * weights))


def inverse(funnel: Funnel) -> np.ndarray:
  """[N] o / max(p, 0.01)."""
  return funnel.observed / np.maximum(funnel.propensity, FLOOR)


def effective_share(weights: np.ndarray) -> float:
  """(sum w)^2 / (N sum w^2), which share of N pairs, weighted alike, is as good; 1 for none.

  Reference: Kish, Survey sampling, 1965.
  """
  square = len(weights) * (weights ** 2).sum()
  return float(weights.sum() ** 2 / square) if square else 1.0


def applicants(funnel: Funnel) -> Targets:
  """The observed count alike, as if they were a random part of all."""
  return Targets(funnel.observed / max(funnel.observed.mean(), 1 / len(funnel.observed)),
                 _outcomes(funnel))


def negatives(funnel: Funnel) -> Targets:
  """Whose outcome is not known is taken for a negative: the usual mistake.

  It learns p E[y], and ranks who is likely to be observed above who is likely to be positive.
  """
  return Targets(np.ones(len(funnel.observed)), _outcomes(funnel))


def ips(funnel: Funnel) -> Targets:
  """Inverse propensity scores, w = o / p: unbiased, with the variance of the largest weights.

  Reference:
    Schnabel et al., Recommendations as treatments: debiasing learning and evaluation, 2016.
  """
  return Targets(inverse(funnel), _outcomes(funnel))


def snips(funnel: Funnel) -> Targets:
  """Self-normalised inverse propensity scores, the largest clipped.

  Weights are clipped at ten times their mean over the observed and brought to the mean 1 over all
  pairs. Clipped at a value of their own, they would depend on the units of p.

  Reference:
    Swaminathan and Joachims, The self-normalized estimator for counterfactual learning, 2015.
  """
  w = inverse(funnel)
  count = max(funnel.observed.sum(), 1)
  w = np.minimum(w, CLIP * w.sum() / count)
  return Targets(w * len(w) / max(w.sum(), 1e-12), _outcomes(funnel))


def imputed(funnel: Funnel) -> Targets:
  """The direct method: every pair is what the imputation says, and nothing mends it."""
  return Targets(np.ones(len(funnel.observed)), funnel.imputed)


def doubly_robust(funnel: Funnel) -> Targets:
  """t = q + (o / p) (y - q): unbiased where the propensities or the imputations are right.

  Its error is the mean of (1 - p* / p) (E[y] - q), the product of both errors, with p* the true
  propensity; so a poor imputation poisons it where propensities are wrong, too.

  Reference:
    Wang et al., Doubly robust joint learning for recommendation on data missing not at random,
    2019.
  """
  return Targets(np.ones(len(funnel.observed)), _corrected(funnel, inverse(funnel)))


def self_normalised_doubly_robust(funnel: Funnel) -> Targets:
  """The same with o / p brought to the mean 1: bounded by the labels, however small propensities.

  Reference:
    Li et al., StableDR: stabilized doubly robust learning for recommendation on data missing not at
    random, 2023, whose form of the estimate it has, with the plain imputation.
  """
  w = inverse(funnel)
  return Targets(np.ones(len(w)), _corrected(funnel, w / max(w.mean(), 1e-12)))


def targeted(funnel: Funnel) -> Targets:
  """Doubly robust on imputations q' = sigmoid(logit q + e / p) that owe the observed nothing.

  e solves sum_i (o_i / p_i) (y_i - q'_i) = 0, so that no correction is left in the mean.

  Reference:
    Li et al., TDR-CL: targeted doubly robust collaborative learning for debiased recommendations,
    2023; van der Laan and Rubin, Targeted maximum likelihood learning, 2006.
  """
  w, odds = inverse(funnel), logit(np.clip(funnel.imputed, _SURE, 1 - _SURE))
  step = 1 / np.maximum(funnel.propensity, FLOOR)

  def owed(e: float) -> float:
    return float(w @ (_outcomes(funnel) - expit(odds + e * step)))
  moved = odds
  if owed(-_MOST) > 0 > owed(_MOST):  # else all outcomes are alike
    moved = odds + brentq(owed, -_MOST, _MOST) * step
  return doubly_robust(funnel._replace(imputed=expit(moved)))


def entire_space(funnel: Funnel) -> Targets:
  """The likelihood of the entire space alone: E(s).

  It needs no weights, and is consistent where p and the form of the model are right; a logit that
  is not, is fitted best where p is large.

  Reference:
    Ma et al., Entire space multi-task model, 2018.
  """
  nothing = np.zeros(len(funnel.observed))
  return Targets(nothing, nothing, entire=True)


def entire_space_ips(funnel: Funnel) -> Targets:
  """E(s) with the inverse propensity loss beside it, both means over pairs.

  Published code multiplies the second by the number of pairs, which drowns the first.

  Reference:
    Wang et al., ESCM2: entire space counterfactual multi-task model, 2022.
  """
  return ips(funnel)._replace(entire=True)


def entire_space_doubly_robust(funnel: Funnel) -> Targets:
  """E(s) with the doubly robust loss beside it; reference as of `entire_space_ips`."""
  return doubly_robust(funnel)._replace(entire=True)


def _joint(observed: np.ndarray, p: np.ndarray, s: np.ndarray) -> np.ndarray:
  """Weights of the outcomes in the squared error of the imputed losses, which is s^2 (y - q)^2."""
  return observed / np.maximum(p, FLOOR) * s ** 2


def _most_robust(observed: np.ndarray, p: np.ndarray, s: np.ndarray) -> np.ndarray:
  """Weights under which that error is the variance of the doubly robust estimate."""
  p = np.maximum(p, FLOOR)
  return observed * (1 - p) / p ** 2 * s ** 2


def _outcomes(funnel: Funnel) -> np.ndarray:
  """[N] o y."""
  return np.where(funnel.observed, funnel.label, 0.0)


def _corrected(funnel: Funnel, weight: np.ndarray) -> np.ndarray:
  return funnel.imputed + np.where(funnel.observed, weight * (funnel.label - funnel.imputed), 0.0)


_EITHER = 'the propensities or the imputations are right'
ESTIMATORS: dict[str, Estimator] = {
    'applicants alone': Estimator(
        applicants, 'counts applicants alike, as if they were a random part of all',
        'the model has the form of the truth'),
    'unseen as negatives': Estimator(
        negatives, 'takes who did not apply for not eligible: the usual mistake',
        'everybody applies'),
    'imputation': Estimator(
        imputed, 'takes everybody for what a model of the applicants says',
        'the imputations are right'),
    'IPS': Estimator(ips, 'weighs applicants by 1 / p', 'the propensities are right'),
    'SNIPS': Estimator(
        snips, 'the same, clipped and brought to the mean 1',
        'the propensities are right, pairs are many and no weight is clipped'),
    'DR': Estimator(
        doubly_robust, 'imputes, and corrects where the outcome is known, by (y − q) / p', _EITHER),
    'DR-JL': Estimator(
        doubly_robust, 'DR; imputation and model are fitted in turn, the first to the squared '
        'error of the imputed losses', _EITHER, _joint, rounds=2),
    'MRDR': Estimator(
        doubly_robust, "DR; the imputation is fitted to the estimate's least variance", _EITHER,
        _most_robust),
    'self-normalised DR': Estimator(
        self_normalised_doubly_robust, 'DR with weights of the mean 1',
        f'{_EITHER}, and pairs are many'),
    'targeted DR': Estimator(
        targeted, 'DR with imputations that are moved until the corrections sum to 0', _EITHER),
    'ESMM': Estimator(
        entire_space, 'the likelihood of p Q over all that were shown',
        'the propensities and the form of the model are right'),
    'ESCM2-IPS': Estimator(entire_space_ips, 'ESMM and IPS', 'both are'),
    'ESCM2-DR': Estimator(entire_space_doubly_robust, 'ESMM and DR', 'both are'),
}
