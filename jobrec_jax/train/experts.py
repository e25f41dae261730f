"""Stage 1: the preference expert warms up alone (1A), then both learn together (1B)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.objectives.contrastive import info_nce
from jobrec_jax.objectives.self_censoring import application_logit
from jobrec_jax.objectives.task_weights import TaskWeights
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.train.state import LossFn, MeasureFn, merge_params

PyTree = Any
PREFERENCE, QUALIFICATION = 0, 1  # of the scores' last axis


class Kind(NamedTuple):
  """What lists are of: the expert that learns from them, and what the pairs of each share."""

  perspective: str
  centre: str


class Losses(NamedTuple):
  """The two losses of a perspective, and the share of its positives that score strictly highest."""

  contrast: jax.Array
  entropy: jax.Array
  hit: jax.Array


def warm_up_loss(model: JobRec, kinds: Sequence[Kind], beta: float) -> LossFn:
  """One expert alone: stage 1A, or stage 1B where labels teach one perspective.

  L = InfoNCE + beta BCE, see `list_losses`.

  Args:
    model: the experts.
    kinds: of the lists of a batch, all of one perspective.
    beta: weight of the cross-entropy, positive.

  Raises:
    ValueError: beta is not positive.
  """
  _check_beta(beta)

  def loss_fn(trainable, frozen, batch, key):
    params = merge_params(trainable, frozen)['model']
    ((name, found),) = batch_losses(model, kinds, params, batch, key).items()
    return found.contrast + beta * found.entropy, _told(name, found)
  return loss_fn


def cooperative_loss(model: JobRec, kinds: Sequence[Kind], weighting: TaskWeights, beta: float,
                     doubt: float = 0.0) -> LossFn:
  """Stage 1B: L = sum over both experts e of w_e (InfoNCE_e + beta BCE_e).

  InfoNCE leaves the logits of a list's pairs free up to a function of what they share; the binary
  cross-entropy pins them, so that a probability can be read off them, and lists be compared.

  Args:
    model: the experts.
    kinds: of the lists of a batch.
    weighting: how the two tasks are weighted.
    beta: weight of the cross-entropies, positive.
    doubt: c of `application_logit`, how much doubt keeps the willing from applying.

  Raises:
    ValueError: beta is not positive.
  """
  _check_beta(beta)

  def loss_fn(trainable, frozen, batch, key):
    params = merge_params(trainable, frozen)
    found = batch_losses(model, kinds, params['model'], batch, key, doubt)
    losses = jnp.stack([found[e].contrast + beta * found[e].entropy for e in PERSPECTIVES])
    loss, weights = weighting.combine(params.get('task_weights', {}), losses)
    told = {f'train/{name}_weight': weights[i] for i, name in enumerate(PERSPECTIVES)}
    for name in PERSPECTIVES:
      told |= _told(name, found[name])
    return loss, told
  return loss_fn


def held_out_loss(model: JobRec, kinds: Sequence[Kind], beta: float,
                  doubt: float = 0.0) -> MeasureFn:
  """The losses of the lists of a batch that no step learns from, with nothing dropped.

  `validation/loss = sum_e InfoNCE_e + beta BCE_e`, of those perspectives whose lists are there. The
  learned weights of the tasks are left out: what they do to the loss is no matter of the lists.
  Arguments as in `cooperative_loss`.
  """
  def measure(trainable, frozen, batch):
    params = merge_params(trainable, frozen)['model']
    found = batch_losses(model, kinds, params, batch, None, doubt)
    told = {f'validation/{name}_{loss}': getattr(x, loss) for name, x in found.items()
            for loss in ('contrast', 'entropy')}
    return told | {'validation/loss': sum(x.contrast + beta * x.entropy for x in found.values())}
  return measure


def batch_losses(model: JobRec, kinds: Sequence[Kind], params: PyTree, batch: Sequence[PyTree],
                 key: jax.Array | None, doubt: float = 0.0) -> dict[str, Losses]:
  """The losses of each perspective over the lists of all its kinds.

  Lists with the same centre are read together, whichever expert learns from them.

  Args:
    model: the experts.
    kinds: of the parts of the batch.
    params: the model's.
    batch: lists of each kind, as of `data.training_lists`, as token blocks.
    key: of dropout; without one nothing is dropped.
    doubt: c of `application_logit`.
  """
  scores: list = [None] * len(kinds)
  for n, centre in enumerate(sorted({k.centre for k in kinds})):
    mine = [i for i, k in enumerate(kinds) if k.centre == centre]
    lists = _joined([batch[i] for i in mine])
    said = _scores(model, params, lists, None if key is None else jax.random.fold_in(key, n))
    at = 0
    for i in mine:
      B, J = batch[i]['mask'].shape
      scores[i], at = said[at:at + B, :J], at + B
  found = {}
  for name in dict.fromkeys(k.perspective for k in kinds):
    parts = [list_losses(_logits(name, scores[i], doubt), batch[i])
             for i, k in enumerate(kinds) if k.perspective == name]
    contrast, entropy, hit, label = map(jnp.concatenate, zip(*parts))
    found[name] = Losses(contrast.mean(), entropy.mean(), hit.sum() / jnp.maximum(label.sum(), 1))
  return found


def list_losses(logits: jax.Array, lists: PyTree) -> tuple[jax.Array, ...]:
  """InfoNCE and cross-entropy of each list, and whether its positive scores strictly highest.

  The contrast has no weights: accepted and rejected applicants of a job, applied and unapplied jobs
  of a candidate, passed the same funnel, so that its optimum is the logit up to a function of the
  centre whatever the propensities. Weights inside it would be undone where a batch divides by
  their sum, and bend it towards the propensity where gradients are clipped. They stand in the
  cross-entropy, normalised once over the split.

  Args:
    logits: [B, J], the positive first where there is one.
    lists: `mask` [B, J] bool, `label` [B] bool, whether there is a positive, and `weight` [B, J] of
      the cross-entropy, whose sums over a list have the mean 1 over lists; see `LabelledLists`.

  Returns:
    [B] contrast, 0 where no item is a positive; [B] entropy; [B] hits; [B] label.
  """
  label, mask = lists['label'], lists['mask']
  contrast = info_nce(logits, jnp.zeros(len(logits), jnp.int32), mask) * label
  first = jnp.arange(logits.shape[1]) == 0
  entropy = optax.sigmoid_binary_cross_entropy(logits, (label[:, None] & first).astype(jnp.float32))
  entropy = jnp.where(mask, entropy * lists['weight'], 0.0).sum(-1)
  others = jnp.where(mask, logits, -jnp.inf)[:, 1:].max(-1)
  return contrast, entropy, label & (logits[:, 0] > others), label


def _logits(perspective: str, scores: jax.Array, doubt: float) -> jax.Array:
  """[B, J] the logit of what the log shows: acceptance, or an application by who wants and dares.

  The doubt is no loss of the qualification expert's: its score is a constant there.
  """
  if perspective == 'qualification':
    return scores[..., QUALIFICATION]
  return application_logit(scores[..., PREFERENCE],
                           jax.lax.stop_gradient(scores[..., QUALIFICATION]), doubt)


def _scores(model: JobRec, params: PyTree, lists: PyTree, key: jax.Array | None) -> jax.Array:
  """[B, J, 2] scores of both experts; without a key nothing is dropped."""
  return model.apply({'params': params}, lists['candidate'], lists['job'], lists['alignment'],
                     lists.get('numbers'), deterministic=key is None,
                     rngs=None if key is None else {'dropout': key}).scores


def _joined(parts: Sequence[PyTree]) -> PyTree:
  """Lists of several kinds as one batch, short ones padded."""
  if len(parts) == 1:
    return parts[0]
  J = max(p['mask'].shape[1] for p in parts)

  def long(name: str, part: PyTree) -> jax.Array:
    x = part[name]
    if x.ndim == 2:  # of the centre, which the list has once
      return x
    fill = (0, 0), (0, J - x.shape[1]), (0, 0)
    return jnp.pad(x, fill, constant_values=PAD if x.dtype == jnp.int32 else 0)
  return {name: jnp.concatenate([long(name, p) for p in parts])
          for name in ('candidate', 'job', 'alignment', 'numbers') if name in parts[0]}


def _told(name: str, found: Losses) -> dict[str, jax.Array]:
  return {f'train/{name}_loss': found.contrast, f'train/{name}_bce': found.entropy,
          f'train/{name}_hit': found.hit}


def _check_beta(beta: float) -> None:
  if beta <= 0:
    raise ValueError(f'experts.beta must be positive, got {beta}: without the cross-entropy term '
                     'the logits have no scale')


def frozen_in_warm_up(path: tuple[str, ...]) -> bool:
  """Stage 1A leaves what belongs to the qualification expert alone."""
  return 'qualification' in path or 'task_weights' in path
