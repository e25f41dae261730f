"""How rivals choose among settings of their own: an equal budget for each, on validation labels."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from absl import logging
import numpy as np

BUDGET = 8  # settings that each tuned rival may try

S, M = TypeVar('S'), TypeVar('M')


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
  """Mean of log(1 + exp(−z)) over positives and log(1 + exp(z)) over negatives.

  Args:
    logits: [N].
    labels: [N] bool.
  """
  return float(np.logaddexp(0.0, np.where(labels, -logits, logits)).mean())


def best_of(name: str, settings: Sequence[S], fit: Callable[[S], M],
            loss: Callable[[M], float] | None) -> M:
  """The model with the least loss; of equals the first.

  Args:
    name: of the rival, for the log.
    settings: `BUDGET` of them at most; the first is taken where nothing tells them apart.
    fit: a model of a setting.
    loss: of a model on labels that none has learnt from; None where there are none.

  Raises:
    ValueError: there are more settings than the budget, or none.
  """
  if not 0 < len(settings) <= BUDGET:
    raise ValueError(f'settings must be 1 to {BUDGET}, got {len(settings)}')
  if loss is None:
    logging.info('%s: untuned, for no labels are held back for it: %s', name, settings[0])
    return fit(settings[0])
  least, chosen, best = np.inf, settings[0], None
  for setting in settings:
    model = fit(setting)
    found = loss(model)
    if best is None or found < least:
      least, chosen, best = found, setting, model
  logging.info('%s: %s is best of %d, loss %.4f', name, chosen, len(settings), least)
  return best
