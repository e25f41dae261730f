"""Where the experts start: at the linear model of what is known of a pair as numbers.

  s = `models.experts.linear_scores` + logit of the head, whose last layer starts at 0

The linear part of the problem is convex and needs no steps of a decoder; what the text says beyond
it is learned on top. Margins of a field start at 0 in the expert that the schema says it does not
speak to: what moves applications through doubt alone would else be taken for a wish.

A stage of its own fits it, once for all that stands on it.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np
from scipy.special import expit
from sklearn.metrics import log_loss

from jobrec_jax.baselines.bilinear import Bilinear, Pairs, fit_bilinear, fit_by_evidence, widened
from jobrec_jax.censoring.likelihood import Linear, Models, fit_funnel
from jobrec_jax.data.dataset import Interactions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.models.experts import GAIN, MOST
from jobrec_jax.pipeline.artefacts import load_params, save_params
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.pipeline.text import Text
from jobrec_jax.schema.schema import PERSPECTIVES

PyTree = Any
LINEAR = 'linear.safetensors'
_PAIRS = 50_000  # of a perspective that are looked at, at most


class Setting(NamedTuple):
  """What validation chooses.

  Attributes:
    caution: what the ridges of words are times those of the greatest evidence, which takes what the
      labels of one candidate share for something that words say.
    rank: in how many directions the words of both sides are multiplied.
    ridge: of these directions.
  """

  caution: float
  rank: int = 0
  ridge: float = 0.0


_CAUTION = 1.0, 10.0, 100.0  # the first is taken where no validation label can tell
_RIDGES = 0.1, 0.03, 0.01  # of the one that leaves no direction
_RANKS = 1, 2, 4, 8  # as long as validation gains


class Fit(NamedTuple):
  """The best setting, the [N] ridges of the weights, and the model."""

  setting: Setting
  ridges: np.ndarray
  model: Bilinear


@dataclasses.dataclass(frozen=True)
class LinearFits:
  """A logistic regression of each perspective on scaled numbers of pairs.

  Attributes:
    scale: [N] float32, 0 where a number is 0 in every pair.
    matched: R, components of words of either side.
    of: by perspective; without those that have no labels of both kinds.
  """

  scale: np.ndarray
  matched: int
  of: Mapping[str, Fit]

  def pairs(self, blocks: BlockEncoder, log: Interactions, perspective: str) -> Pairs:
    """Scaled numbers of a log's pairs, 0 where they do not speak to the perspective."""
    x = blocks.numbers(log.candidate, log.job) * self.scale.astype(np.float64)
    x = np.clip(x, -MOST, MOST) * blocks.speaks_to(perspective)
    return Pairs.of(x, self.matched, log.candidate, log.job)


def fit_linear(blocks: BlockEncoder, train: Interactions, validation: Interactions,
               taught: Sequence[str], matched: int) -> LinearFits:
  """Fits the regressions of the numbers of pairs.

  Their ridges, and in how many directions words of both sides are multiplied, are those of the
  least log-loss on the validation labels; see `bilinear`.

  Args:
    blocks: what the experts read of pairs.
    train: the log to fit to.
    validation: the log to choose by.
    taught: perspectives that have labels.
    matched: R, components of words of either side, the last of the numbers.
  """
  some = train.where((train.preference >= 0) | (train.qualification >= 0))
  some = some.where(_evenly(len(some)))
  x = blocks.numbers(some.candidate, some.job).astype(np.float64)
  size = np.sqrt((x ** 2).mean(0))
  scale = np.where(size > 0, 1 / np.where(size > 0, size, 1), 0).astype(np.float32)
  fits = LinearFits(scale, matched, {})
  found = {name: _chosen(fits, blocks, train, validation, name) for name in taught}
  return dataclasses.replace(fits, of={name: fit for name, fit in found.items() if fit})


def linear_start(params: PyTree, fits: LinearFits) -> PyTree:
  """New parameters of experts, as `JobRec.init` makes them, with the regressions in them.

  An expert without one starts at 0.
  """
  params = params | {'number_scale': _as(params['number_scale'], fits.scale)}
  for perspective, (_, _, model) in fits.of.items():
    params = _moved(params, perspective, model.weights, model.intercept, model.match)
  return params


class Move(NamedTuple):
  """What is added to an expert's linear part: [N] `weights`, the intercept, [R, R] `match`."""

  perspective: str
  weights: np.ndarray
  intercept: float
  match: np.ndarray


def doubt_moves(fits: LinearFits, blocks: BlockEncoder, train: Interactions,
                doubt: float) -> tuple[Move, ...]:
  """From what explains each label to what explains the whole funnel; none without doubt.

  `linear_start` fits P(applied) = sigmoid(s_pref), and s_qual to verdicts alone. With doubt both
  have a share in applications; see `censoring.likelihood`. The moves are the difference of the
  fits, at the same ridges, so that what stage 1A learned beside them stays. Directions of words
  stay as they are, and how much each counts moves.

  Args:
    fits: where the experts start.
    blocks, train: what these were fitted to.
    doubt: c in [0, 1).
  """
  if not doubt or set(PERSPECTIVES) - set(fits.of):
    return ()
  plain = [fits.of[name] for name in PERSPECTIVES]
  shown = train.where(train.preference >= 0)
  shown = shown.where(_evenly(len(shown)))
  parts, starts, sizes = [], [], []
  for name, (setting, _, model) in zip(PERSPECTIVES, plain):
    pairs = fits.pairs(blocks, shown, name)
    # Of this size, at a ridge of 1, their square is at 1 as steep as the ridge of the directions.
    size = np.sqrt(setting.ridge * np.linalg.norm(model.left, axis=1)
                   * np.linalg.norm(model.right, axis=1))
    used = size > 0
    parts.append(np.concatenate([
        pairs.numbers, pairs.products(model.left[used], model.right[used]) / size[used]], 1))
    starts.append(Linear(np.append(model.weights, size[used]), model.intercept))
    sizes.append(np.where(used, size, np.inf))
  found = fit_funnel(tuple(parts), shown.preference == 1, shown.qualification, doubt,
                     tuple(np.append(ridges, np.ones(len(start.weights) - len(ridges)))
                           for (_, ridges, _), start in zip(plain, starts)), Models(*starts))
  moves = []
  for name, new, (*_, old), size in zip(PERSPECTIVES, found, plain, sizes):
    change = np.zeros(len(size))
    change[np.isfinite(size)] = new.weights[len(old.weights):]
    change = change / size - np.isfinite(size)
    moves.append(Move(name, new.weights[:len(old.weights)] - old.weights,
                      new.intercept - old.intercept, (old.left.T * change) @ old.right))
  return tuple(moves)


def moved(params: PyTree, moves: Sequence[Move]) -> PyTree:
  """The parameters with moves added to their linear parts."""
  for move in moves:
    params = _moved(params, *move)
  return params


def _chosen(fits: LinearFits, blocks: BlockEncoder, train: Interactions, validation: Interactions,
            perspective: str) -> Fit | None:
  """The regression of the best setting; None where the train labels are all alike."""
  (pairs, label), (held, held_label) = (
      _labelled(fits, blocks, log, perspective) for log in (train, validation))
  if len(np.unique(label)) < 2:
    return None
  judged = len(np.unique(held_label)) > 1

  def rated(setting: Setting, ridges: np.ndarray, model: Bilinear) -> tuple[float, Fit]:
    loss = log_loss(held_label, expit(model.logits(held)), labels=(0, 1)) if judged else 0.0
    return loss, Fit(setting, ridges, model)

  def best_of(found: Iterable[tuple[float, Fit]]) -> tuple[float, Fit]:
    return min(found, key=lambda f: f[0])
  words = np.arange(pairs.numbers.shape[1]) >= pairs.numbers.shape[1] - 2 * pairs.u.shape[1]
  model, evident = fit_by_evidence(pairs, label)
  found = [rated(Setting(1.0), evident, model)]
  for caution in _CAUTION[1:] if judged and words.any() else ():
    ridges = np.where(words, caution * evident, evident)
    model = fit_bilinear(pairs, label, ridges, 0.0, model)
    found.append(rated(Setting(caution), ridges, model))
  best, greatest = best_of(found), None
  for rank in _RANKS if judged else ():
    setting, ridges, model = best[1]
    if rank > pairs.u.shape[1]:
      break
    (model, steep), found = widened(model, pairs, label, rank), []
    greatest = greatest or steep
    for ridge in (share * greatest for share in _RIDGES):
      model = fit_bilinear(pairs, label, ridges, ridge, model)
      found.append(rated(setting._replace(rank=rank, ridge=ridge), ridges, model))
    if best_of(found)[0] >= best[0]:
      break
    best = best_of(found)
  loss, chosen = best
  logging.info('%s: the linear model has a validation log-loss of %.4f (%s)', perspective, loss,
               chosen.setting)
  return chosen


def _labelled(fits: LinearFits, blocks: BlockEncoder, log: Interactions,
              perspective: str) -> tuple[Pairs, np.ndarray]:
  """What is known of labelled pairs, and the labels."""
  labels = getattr(log, perspective)
  seen = log.where(labels >= 0)
  seen = seen.where(_evenly(len(seen)))
  return fits.pairs(blocks, seen, perspective), getattr(seen, perspective)


def _moved(params: PyTree, perspective: str, weights: np.ndarray, intercept: float,
           match: np.ndarray) -> PyTree:
  """The parameters with a linear model added to an expert's."""
  e, head, numbers = PERSPECTIVES.index(perspective), params[perspective], params['number_weights']
  bias = head['logit']['bias']
  found = {'number_weights': _added(numbers, e, weights / GAIN),
           perspective: head | {'logit': head['logit'] | {'bias': _added(bias, 0, intercept)}}}
  if 'match' in params:
    found['match'] = _added(params['match'], e, match)
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


def make_linear(bench: Bench) -> None:
  """Fits to the train split of the data; where pairs have no numbers there is nothing to fit."""
  text: Text = bench.inputs['tokenizer']
  dataset = bench.inputs['data'].dataset
  out = {}
  if text.spec.numbers:
    train, validation = (dataset.interactions.of(split) for split in ('train', 'validation'))
    fits = fit_linear(text.blocks(dataset), train, validation, perspectives(dataset),
                      text.spec.matched)
    out = {'scale': fits.scale} | {name: {
        'setting': np.array(fit.setting), 'ridges': fit.ridges, **fit.model._asdict()}
        for name, fit in fits.of.items()}
  save_params(bench.folder / LINEAR, out)


def read_linear(bench: Bench) -> LinearFits | None:
  """The fits; None where pairs have no numbers."""
  found = load_params(bench.folder / LINEAR)
  if not found:
    return None
  scale = found.pop('scale')
  fits = {name: Fit(Setting(float(c), int(rank), float(ridge)), of.pop('ridges'),
                    Bilinear(**of | {'intercept': of['intercept'].item()}))
          for name, of in found.items() for c, rank, ridge in [of.pop('setting')]}
  return LinearFits(scale, bench.inputs['tokenizer'].spec.matched,
                    {name: fits[name] for name in PERSPECTIVES if name in fits})
