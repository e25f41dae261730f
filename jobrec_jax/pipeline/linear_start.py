"""Where the experts start: at the linear model of what is known of a pair as numbers.

  s = `models.experts.linear_scores` + logit of the head, whose last layer starts at 0

The linear part of the problem is convex and needs no steps of a decoder; what the text says beyond
it is learned on top. Margins of a field start at 0 in the expert that the schema says it does not
speak to: what moves applications through doubt alone would else be taken for a wish.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from jobrec_jax.censoring.likelihood import Linear, Models, fit_funnel
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


class _Chosen(NamedTuple):
  """The best setting, and its model of the leading features; products of words are the last."""

  setting: _Setting
  model: Linear


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
  some = train.where((train.preference >= 0) | (train.qualification >= 0))
  some = some.where(_evenly(len(some)))
  x = blocks.numbers(some.candidate, some.job).astype(np.float64)
  size = np.sqrt((x ** 2).mean(0))
  scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
  params = params | {'number_scale': _as(params['number_scale'], scale)}
  for perspective in taught:
    found = _chosen(params, blocks, train, validation, perspective)
    if found is not None:
      params = _moved(params, perspective, *found.model)
  return params


class Move(NamedTuple):
  """What is added to an expert's linear part: [`weights` of its features] and the intercept."""

  perspective: str
  weights: np.ndarray
  intercept: float


def doubt_moves(params: PyTree, blocks: BlockEncoder, train: Interactions,
                validation: Interactions, doubt: float) -> tuple[Move, ...]:
  """From what explains each label to what explains the whole funnel; none without doubt.

  `linear_start` fits P(applied) = sigmoid(s_pref), and s_qual to verdicts alone. With doubt both
  have a share in applications; see `censoring.likelihood`. The moves are the difference of the
  fits, at the same ridges, so that what stage 1A learned beside them stays.

  Args:
    params: of `linear_start`, or what came of it.
    doubt: c in [0, 1).
    blocks, train, validation: as of `linear_start`.
  """
  plain = [_chosen(params, blocks, train, validation, name) if doubt else None
           for name in PERSPECTIVES]
  if None in plain:
    return ()
  shown = train.where(train.preference >= 0)
  shown = shown.where(_evenly(len(shown)))
  x = _features(params, blocks, shown)
  parts = tuple((x * _speaks(params, blocks, name))[:, :len(chosen.model.weights)]
                for name, chosen in zip(PERSPECTIVES, plain))
  found = fit_funnel(parts, shown.preference == 1, shown.qualification, doubt,
                     tuple(chosen.setting.strength for chosen in plain),
                     Models(*(chosen.model for chosen in plain)))
  return tuple(Move(name, new.weights - old.model.weights,
                    new.intercept - old.model.intercept)
               for name, new, old in zip(PERSPECTIVES, found, plain))


def moved(params: PyTree, moves: Sequence[Move]) -> PyTree:
  """The parameters with moves added to their linear parts."""
  for move in moves:
    params = _moved(params, *move)
  return params


def _chosen(params: PyTree, blocks: BlockEncoder, train: Interactions, validation: Interactions,
            perspective: str) -> _Chosen | None:
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
    found = _Chosen(setting, Linear(fit.coef_[0], float(fit.intercept_[0])))
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
  """Features of labelled pairs, 0 where they do not speak to the perspective, and the labels."""
  labels = getattr(log, perspective)
  seen = log.where(labels >= 0)
  seen = seen.where(_evenly(len(seen)))
  return (_features(params, blocks, seen) * _speaks(params, blocks, perspective),
          getattr(seen, perspective))


def _features(params: PyTree, blocks: BlockEncoder, log: Interactions) -> np.ndarray:
  """[N, K] scaled numbers of a log's pairs, with the products of words behind them."""
  scale = np.asarray(params['number_scale'], np.float64)
  x = np.clip(blocks.numbers(log.candidate, log.job) * scale, -MOST, MOST)
  if 'match' not in params:
    return x
  rank = params['match'].shape[1]
  u, v = np.split(x[:, x.shape[1] - 2 * rank:], 2, axis=1)
  products = (u[:, :, None] * v[:, None, :]).reshape(len(x), rank * rank)
  return np.concatenate([x, products], 1)


def _speaks(params: PyTree, blocks: BlockEncoder, perspective: str) -> np.ndarray:
  """[K] bool, which features speak to a perspective by the schema; all products do."""
  products = params['match'][0].size if 'match' in params else 0
  return np.append(blocks.speaks_to(perspective), np.ones(products, bool))


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


def _evenly(count: int) -> np.ndarray:
  """[count] bool, of which some 50,000 are left."""
  return np.arange(count) % max(1, -(-count // _PAIRS)) == 0


def _as(old: jax.Array, new: np.ndarray) -> jax.Array:
  return jax.device_put(np.asarray(new, old.dtype), old.sharding)
