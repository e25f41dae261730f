"""Linear models fitted to what estimators make of a funnel."""

import dataclasses

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from jobrec_jax.censoring.estimators import Estimator, Funnel, Targets, loss
from jobrec_jax.censoring.likelihood import Linear

STRENGTHS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)  # inverse ridges, of which each fit has one
FOLDS = 3  # of candidates: nuisances of a pair come from a model that has not seen its candidate


def fit_linear(x: np.ndarray, funnel: Funnel, targets: Targets, strength: float,
               start: Linear | None = None) -> Linear:
  """The least of strength N L(s) + |w|^2 / 2 over linear s, L as in `estimators`; by L-BFGS.

  Args:
    x: [N, D] features.
    funnel: of the same pairs; read where the entire space is part of the loss.
    targets: of an estimator.
    strength: inverse of the ridge, above 0.
    start: where the search starts; zeros without one.
  """
  positive = np.where(funnel.observed, funnel.label, 0) == 1

  def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
    w, b = theta[:-1], theta[-1]
    s = x @ w + b
    q = expit(s)
    slope = targets.weight * (q - targets.target)
    if targets.entire:
      chance = np.minimum(funnel.propensity * q, 1 - 1e-12)
      slope = slope + np.where(positive, q - 1, chance * (1 - q) / (1 - chance))
    return (w @ w / 2 + strength * len(x) * loss(s, funnel, targets),
            strength * np.append(x.T @ slope, slope.sum()) + np.append(w, 0.0))
  zero = np.zeros(x.shape[1] + 1)
  theta = minimize(objective, zero if start is None else np.append(*start), jac=True,
                   method='L-BFGS-B', options={'maxiter': 300}).x
  return Linear(theta[:-1], float(theta[-1]))


@dataclasses.dataclass(frozen=True)
class Shown:
  """Pairs that were shown, of one split.

  Attributes:
    x: [N, D] features, standardised.
    candidate: [N] index.
    observed: [N] bool, whether the outcome is known: applicants.
    label: [N] float64, the outcome.
  """

  x: np.ndarray
  candidate: np.ndarray
  observed: np.ndarray
  label: np.ndarray


@dataclasses.dataclass(frozen=True)
class Nuisances:
  """Propensities and imputations of the pairs of two splits, those of train cross-fitted.

  Attributes:
    train, held: the pairs.
    propensity: [N] chances of being observed, of train and of held.
    imputed: [N] chances of an outcome of 1, by a model of the observed as they are, of both.
  """

  train: Shown
  held: Shown
  propensity: tuple[np.ndarray, np.ndarray]
  imputed: tuple[np.ndarray, np.ndarray]

  @classmethod
  def fit(cls, train: Shown, held: Shown) -> 'Nuisances':
    """Of logistic regressions, each at the ridge of least log-loss on the held pairs."""
    propensity = _cross_fitted(train, held, train.observed, held.observed)
    return cls(train, held, propensity, _imputations(train, held, None))

  def funnels(self, estimator: Estimator,
              logits: tuple[np.ndarray, np.ndarray] | None = None) -> tuple[Funnel, Funnel]:
    """Of both splits; with logits of an earlier model where the imputation asks for them."""
    found = self.imputed
    if estimator.imputation is not None:
      s = logits or tuple(np.log(q / (1 - q)) for q in self.imputed)
      found = _imputations(self.train, self.held, estimator.imputation(
          self.train.observed, self.propensity[0], s[0]))
    return tuple(Funnel(part.observed, part.label, p, q) for part, p, q in zip(
        (self.train, self.held), self.propensity, found))


def fit_estimator(estimator: Estimator, nuisances: Nuisances) -> Linear:
  """The linear model of an estimator, at the ridge of the least of its own loss on held pairs."""
  train, held, model = nuisances.train, nuisances.held, None
  for _ in range(estimator.rounds):
    logits = None if model is None else (model.logits(train.x), model.logits(held.x))
    mine, others = nuisances.funnels(estimator, logits)
    targets, held_targets = estimator.targets(mine), estimator.targets(others)
    best, found = None, None
    for strength in sorted(STRENGTHS):
      found = fit_linear(train.x, mine, targets, strength, found)
      said = loss(found.logits(held.x), others, held_targets) if len(held.x) else 0.0
      if best is None or said < best:
        best, model = said, found
  return model


def _imputations(train: Shown, held: Shown,
                 weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
  """[N] of train and of held: E[y], by the outcomes of train under some weights."""
  return _cross_fitted(train, held, train.label == 1, held.label == 1, train.observed,
                       held.observed, weights)


def _cross_fitted(train: Shown, held: Shown, label: np.ndarray, held_label: np.ndarray,
                  rows: np.ndarray | None = None, held_rows: np.ndarray | None = None,
                  weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Chances that a label is 1, for all pairs of train, by other candidates' rows, and of held."""
  rows = np.ones(len(label), bool) if rows is None else rows
  held_rows = np.ones(len(held_label), bool) if held_rows is None else held_rows
  if len(np.unique(label[rows])) < 2:  # such as where everybody applied
    chance = float(label[rows].mean()) if rows.any() else 0.5
    return np.full(len(label), chance), np.full(len(held_label), chance)
  if weights is not None:
    mean = weights[rows].mean()
    weights = weights / mean if mean else None  # of `mrdr` where everybody applied

  def fit(some: np.ndarray, strength: float) -> Linear:
    model = LogisticRegression(C=strength, solver='newton-cholesky').fit(
        train.x[some], label[some], None if weights is None else weights[some])
    return Linear(model.coef_[0], float(model.intercept_[0]))

  best, chosen, whole = None, 0.0, None
  x, y = held.x[held_rows], held_label[held_rows]
  for strength in STRENGTHS:
    model = fit(rows, strength)
    s = model.logits(x)
    said = np.sum(np.logaddexp(0, s) - y * s)
    if best is None or said < best:
      best, chosen, whole = said, strength, model
  # Folds of candidates, dealt out in the order of their indices.
  fold = np.unique(train.candidate, return_inverse=True)[1] % FOLDS
  out = np.empty(len(label))
  for k in range(FOLDS):
    others = rows & (fold != k)
    model = fit(others, chosen) if len(np.unique(label[others])) > 1 else whole
    out[fold == k] = expit(model.logits(train.x[fold == k]))
  return out, expit(whole.logits(held.x))
