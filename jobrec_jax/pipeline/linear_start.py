"""Where the experts start: at the linear model of what is known of a pair as numbers.

  s = `models.experts.linear_scores` + logit of the head, whose last layer starts at 0

The linear part of the problem is convex and needs no steps of a decoder; what the text says beyond
it is learned on top.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.experts import GAIN, MOST
from jobrec_jax.schema.schema import PERSPECTIVES

PyTree = Any
_PAIRS = 50_000  # of a perspective that are looked at, at most


class _Setting(NamedTuple):
  """What validation chooses: whether products count, and the inverse of the ridge."""

  matched: bool
  strength: float


# The first is taken where no validation label can tell.
_SETTINGS = tuple(_Setting(matched, strength) for matched in (False, True)
                  for strength in (0.1, 0.01, 1.0))


class _Linear(NamedTuple):
  """s = features . weights + intercept; of [N, `weights`] features, the products of words last."""

  setting: _Setting
  weights: np.ndarray
  intercept: float


def linear_start(params: PyTree, blocks: BlockEncoder, train: Interactions,
                 validation: Interactions, taught: Sequence[str]) -> PyTree:
  """New parameters of the experts with the scale, weights and intercepts of a logistic regression.

  Its ridge, and whether products of words are in it, are those of the least log-loss on the
  validation labels.

  Args:
    params: of a model with numbers, as `JobRec.init` makes them.
    blocks: what the experts read of pairs.
    train: the log to fit to.
    validation: the log to choose by.
    taught: perspectives that have labels; an expert of another starts at 0, and so does one whose
      labels are all alike.
  """
  rows = _some(np.flatnonzero((train.preference >= 0) | (train.qualification >= 0)))
  x = blocks.numbers(train.candidate[rows], train.job[rows]).astype(np.float64)
  size = np.sqrt((x ** 2).mean(0))
  scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
  params = params | {'number_scale': _as(params['number_scale'], scale)}
  for perspective in taught:
    found = _chosen(params, blocks, train, validation, perspective)
    if found is not None:
      params = _moved(params, perspective, found.weights, found.intercept)
  return params


def with_doubt(params: PyTree, blocks: BlockEncoder, train: Interactions, validation: Interactions,
               doubt: float) -> PyTree:
  """Preference's linear part moved from what explains applications to what, with daring, does.

  `linear_start` fits P(applied) = sigmoid(s_pref); with doubt it is sigmoid(s_pref) d(q), see
  `objectives.self_censoring`, q being the qualification expert's linear part. The difference of
  both fits, at the same ridge, is added to the parameters, so that what else they learned stays.

  Args:
    params: after stage 1A.
    doubt: c in [0, 1).
    blocks, train, validation: as of `linear_start`.
  """
  plain = _chosen(params, blocks, train, validation, 'preference') if doubt else None
  if plain is None:
    return params
  x, label = _labelled(params, blocks, train, 'preference')
  q = PERSPECTIVES.index('qualification')
  own = np.concatenate([GAIN * np.asarray(params['number_weights'][q], np.float64),
                        np.ravel(params['match'][q] if 'match' in params else ())])
  bias = float(params['qualification']['logit']['bias'][0])
  daring = 1 - doubt * (1 - expit(x @ own + bias))
  x = x[:, :len(plain.weights)]
  found = _fit_daring(x, label, daring, plain)
  return _moved(params, 'preference', found.weights - plain.weights,
                found.intercept - plain.intercept)


def _fit_daring(x: np.ndarray, label: np.ndarray, daring: np.ndarray, start: _Linear) -> _Linear:
  """The ridge's optimum for P(applied) = sigmoid(x w + b) daring."""
  def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
    w, b = theta[:-1], theta[-1]
    wants = expit(x @ w + b)
    p = np.clip(wants * daring, 1e-12, 1 - 1e-12)
    slope = np.where(label == 1, wants - 1, (p - wants * p) / (1 - p))
    likelihood = np.log(np.where(label == 1, p, 1 - p)).sum()
    return (w @ w / 2 - start.setting.strength * likelihood,
            np.append(w, 0.0) + start.setting.strength * np.append(x.T @ slope, slope.sum()))
  found = minimize(loss, np.append(start.weights, start.intercept), jac=True, method='L-BFGS-B').x
  return _Linear(start.setting, found[:-1], found[-1])


def _chosen(params: PyTree, blocks: BlockEncoder, train: Interactions, validation: Interactions,
            perspective: str) -> _Linear | None:
  """The regression of the best setting; None where the train labels are all alike."""
  x, label = _labelled(params, blocks, train, perspective)
  held, held_label = _labelled(params, blocks, validation, perspective)
  if len(np.unique(label)) < 2:
    return None
  numbers, choices = len(params['number_scale']), []
  for setting in _SETTINGS:
    if setting.matched and x.shape[1] == numbers:
      continue
    own = slice(None if setting.matched else numbers)
    fit = LogisticRegression(C=setting.strength, solver='newton-cholesky').fit(x[:, own], label)
    found = _Linear(setting, fit.coef_[0], float(fit.intercept_[0]))
    if len(np.unique(held_label)) < 2:
      return found
    loss = log_loss(held_label, expit(fit.decision_function(held[:, own])), labels=(0, 1))
    choices.append((loss, len(choices), found))
  loss, _, found = min(choices)
  logging.info('%s: the linear model has a validation log-loss of %.4f (%s)', perspective, loss,
               found.setting)
  return found


def _labelled(params: PyTree, blocks: BlockEncoder, log: Interactions,
              perspective: str) -> tuple[np.ndarray, np.ndarray]:
  """Scaled numbers of labelled pairs with the products of words behind them, and the labels."""
  labels = getattr(log, perspective)
  rows = _some(np.flatnonzero(labels >= 0))
  scale = np.asarray(params['number_scale'], np.float64)
  x = np.clip(blocks.numbers(log.candidate[rows], log.job[rows]) * scale, -MOST, MOST)
  if 'match' not in params:
    return x, labels[rows]
  rank = params['match'].shape[1]
  u, v = np.split(x[:, x.shape[1] - 2 * rank:], 2, axis=1)
  products = (u[:, :, None] * v[:, None, :]).reshape(len(x), rank * rank)
  return np.concatenate([x, products], 1), labels[rows]


def _moved(params: PyTree, perspective: str, weights: np.ndarray, intercept: float) -> PyTree:
  """The parameters with the weights and the intercept of a linear model added to an expert's."""
  e, head, numbers = PERSPECTIVES.index(perspective), params[perspective], params['number_weights']
  n = numbers.shape[1]
  bias = head['logit']['bias']
  found = {'number_weights': _added(numbers, e, weights[:n] / GAIN),
           perspective: head | {'logit': head['logit'] | {'bias': _added(bias, 0, intercept)}}}
  if len(weights) > n:
    found['match'] = _added(params['match'], e, weights[n:].reshape(params['match'].shape[1:]))
  return params | found


def _added(old: jax.Array, row: int, change: np.ndarray | float) -> jax.Array:
  new = np.array(old)
  new[row] += change
  return _as(old, new)


def _some(rows: np.ndarray) -> np.ndarray:
  return rows[:: -(-len(rows) // _PAIRS)] if len(rows) else rows


def _as(old: jax.Array, new: np.ndarray) -> jax.Array:
  return jax.device_put(np.asarray(new, old.dtype), old.sharding)
