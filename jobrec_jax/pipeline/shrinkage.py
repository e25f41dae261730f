"""How far training may take an expert from its linear start: as far as validation bears out.

  s = (1 - a) s_start + a s_trained,   a in [0, 1] of the least validation log-loss

for each expert. Where words say no more than the linear model knows, training can only overfit, and
a is near 0. The numbers' weights are linear in the score, and the head's last layer starts at 0, so
that the mixture of scores is one of parameters, and serving reads nothing twice.

Reference:
  Wortsman et al., Robust fine-tuning of zero-shot models, 2022.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.objectives.self_censoring import application_logit
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.experts import PairScores

PyTree = Any
_PAIRS = 5000  # labelled ones that are scored, at most


def some_labelled(log: Interactions, taught: Sequence[str]) -> Interactions:
  """Labelled pairs of a log, evenly left out where there are more than 5,000."""
  found = log.where(np.any([getattr(log, name) >= 0 for name in taught], axis=0))
  return found.where(np.arange(len(found)) % max(1, -(-len(found) // _PAIRS)) == 0)


def kept_shares(start: PairScores, trained: PairScores, log: Interactions, taught: Sequence[str],
                doubt: float) -> dict[str, float]:
  """a of each expert that has labels; 1 where those of the log are all alike.

  Args:
    start, trained: [N] what both say of the log's pairs.
    log: validation labels.
    taught: perspectives with an expert.
    doubt: c of `application_logit`, through which the preference expert is told from applications.
  """
  shares = {}
  if 'qualification' in taught:
    shares['qualification'] = _share(
        lambda a: _mixed(start, trained, 'qualification', a), log.qualification)
  if 'preference' in taught:
    s_qual = _mixed(start, trained, 'qualification', shares.get('qualification', 1.0))

    def applies(a: float) -> np.ndarray:
      s_pref = _mixed(start, trained, 'preference', a)
      return np.asarray(application_logit(jnp.asarray(s_pref), jnp.asarray(s_qual), doubt))
    shares['preference'] = _share(applies, log.preference)
  return {name: shares[name] for name in PERSPECTIVES if name in shares}


def _share(logits: Callable[[float], np.ndarray], label: np.ndarray) -> float:
  """a of the least log-loss over pairs whose label is not negative."""
  seen = label >= 0
  if len(np.unique(label[seen])) < 2:
    return 1.0

  def loss(a: float) -> float:
    s = logits(a)[seen].astype(np.float64)
    return float(np.mean(np.logaddexp(0, s) - label[seen] * s))
  return float(minimize_scalar(loss, bounds=(0, 1), method='bounded').x)


def shrunk(start: PyTree, trained: PyTree, shares: Mapping[str, float]) -> PyTree:
  """Trained parameters whose experts score as the mixtures of both do.

  Args:
    start: those of `linear_start`, whose heads say 0 but for their bias.
    trained: those that came of it; what both experts share stays.
    shares: a of each expert; one without stays as trained.
  """
  found = dict(trained)
  for name, a in shares.items():
    e, head = PERSPECTIVES.index(name), found[name]
    for part in ('number_weights', 'match'):
      if part in found:
        found[part] = found[part].at[e].set(_between(start[part][e], found[part][e], a))
    logit = {k: _between(start[name]['logit'][k], x, a) for k, x in head['logit'].items()}
    found[name] = head | {'logit': logit}
  return found


def _between(start: jax.Array, trained: jax.Array, a: float) -> jax.Array:
  return (1 - a) * start + a * trained


def _mixed(start: PairScores, trained: PairScores, name: str, a: float) -> np.ndarray:
  return _between(getattr(start, name), getattr(trained, name), a)
