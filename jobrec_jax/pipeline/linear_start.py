"""Where the experts start: at the linear model of what the schema says of a pair.

  s = GAIN (clip(x * scale) . number_weights) + logit of the head, whose last layer starts at 0

The convex part of the problem has an exact solution and needs no steps of a decoder; what the text
adds is learned on top of it.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from sklearn.linear_model import LogisticRegression

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.jobrec import GAIN, MOST
from jobrec_jax.schema.schema import PERSPECTIVES

PyTree = Any
_PAIRS = 50_000  # of a perspective that are looked at, at most
_STRENGTH = 0.1  # inverse of the ridge, in numbers of unit size


def linear_start(params: PyTree, blocks: BlockEncoder, train: Interactions,
                 taught: Sequence[str]) -> PyTree:
  """New parameters of the experts with the scale, weights and intercepts of a logistic regression.

  Args:
    params: of a model with numbers, as `JobRec.init` makes them.
    blocks: what the experts read of pairs.
    train: the log to fit to.
    taught: perspectives that have labels; an expert of another starts at 0, and so does one whose
      labels are all alike.
  """
  found = dict(params)
  rows = _some(np.flatnonzero((train.preference >= 0) | (train.qualification >= 0)))
  x = blocks.numbers(train.candidate[rows], train.job[rows]).astype(np.float64)
  size = np.sqrt((x ** 2).mean(0))
  scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0)
  weights = np.zeros(params['number_weights'].shape)
  for name in taught:
    labels = getattr(train, name)
    rows = _some(np.flatnonzero(labels >= 0))
    if len(np.unique(labels[rows])) < 2:
      continue
    x = blocks.numbers(train.candidate[rows], train.job[rows]) * scale
    fit = LogisticRegression(C=_STRENGTH, max_iter=1000).fit(np.clip(x, -MOST, MOST), labels[rows])
    weights[PERSPECTIVES.index(name)] = fit.coef_[0] / GAIN
    head = found[name]
    found[name] = head | {'logit': head['logit'] | {
        'bias': _as(head['logit']['bias'], fit.intercept_)}}
  return found | {'number_scale': _as(params['number_scale'], scale),
                  'number_weights': _as(params['number_weights'], weights)}


def _some(rows: np.ndarray) -> np.ndarray:
  return rows[:: -(-len(rows) // _PAIRS)] if len(rows) else rows


def _as(old: jax.Array, new: np.ndarray) -> jax.Array:
  return jax.device_put(np.asarray(new, old.dtype), old.sharding)
