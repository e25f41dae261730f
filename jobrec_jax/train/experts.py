"""Stage 1: the preference expert warms up alone (1A), then both learn together (1B)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.objectives.contrastive import info_nce
from jobrec_jax.objectives.task_weights import TaskWeights
from jobrec_jax.train.state import LossFn, MeasureFn, merge_params

PyTree = Any
PREFERENCE, QUALIFICATION = 0, 1


def _score(model: JobRec, params: PyTree, lists: PyTree, key: jax.Array | None,
           expert: int) -> jax.Array:
  """[B, J] scores of an expert; without a key nothing is dropped."""
  outputs = model.apply({'params': params}, lists['candidate'], lists['job'], lists['alignment'],
                        deterministic=key is None, rngs=None if key is None else {'dropout': key})
  return outputs.scores[..., expert]


def _hit_rate(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """The share of lists whose positive (item 0) scores strictly highest."""
  others = jnp.where(mask, scores, -jnp.inf)[:, 1:].max(-1)
  return (scores[:, 0] > others).mean()


def warm_up_loss(model: JobRec) -> LossFn:
  """Stage 1A: mean InfoNCE of the preference expert over candidate-centred lists."""
  def loss_fn(trainable, frozen, batch, key):
    (preference,) = batch
    scores = _score(model, merge_params(trainable, frozen)['model'], preference, key, PREFERENCE)
    loss = _preference_loss(scores, preference)
    return loss, {'train/preference_hit': _hit_rate(scores, preference['mask'])}
  return loss_fn


def cooperative_loss(model: JobRec, weighting: TaskWeights, beta: float) -> LossFn:
  """Stage 1B: `L = w_pref L_pref + w_qual (L_qual + beta BCE)`.

  InfoNCE leaves the logits of one job's candidates free up to a function of the job; the binary
  cross-entropy pins them, so that a probability can be read off them.

  Args:
    model: the experts.
    weighting: how the two tasks are weighted.
    beta: weight of the cross-entropy, positive.

  Raises:
    ValueError: beta is not positive.
  """
  _check_beta(beta)

  def loss_fn(trainable, frozen, batch, key):
    params = merge_params(trainable, frozen)
    preference, qualification = batch
    keys = jax.random.split(key)
    s_pref = _score(model, params['model'], preference, keys[0], PREFERENCE)
    s_qual = _score(model, params['model'], qualification, keys[1], QUALIFICATION)
    l_pref = _preference_loss(s_pref, preference)
    l_qual, bce = qualification_losses(s_qual, qualification['mask'], qualification['weight'])
    loss, weights = weighting.combine(params.get('task_weights', {}),
                                      jnp.stack([l_pref, l_qual + beta * bce]))
    return loss, {
        'train/preference_loss': l_pref, 'train/qualification_loss': l_qual, 'train/bce': bce,
        'train/preference_weight': weights[0], 'train/qualification_weight': weights[1],
        'train/preference_hit': _hit_rate(s_pref, preference['mask']),
        'train/qualification_hit': _hit_rate(s_qual, qualification['mask'])}
  return loss_fn


def qualification_loss(model: JobRec, beta: float) -> LossFn:
  """Stage 1B of the qualification expert alone: `L_qual + beta BCE`, as in `cooperative_loss`."""
  _check_beta(beta)

  def loss_fn(trainable, frozen, batch, key):
    (lists,) = batch
    scores = _score(model, merge_params(trainable, frozen)['model'], lists, key, QUALIFICATION)
    nce, bce = qualification_losses(scores, lists['mask'], lists['weight'])
    return nce + beta * bce, {
        'train/qualification_loss': nce, 'train/bce': bce,
        'train/qualification_hit': _hit_rate(scores, lists['mask'])}
  return loss_fn


def _check_beta(beta: float) -> None:
  if beta <= 0:
    raise ValueError(f'experts.beta must be positive, got {beta}: without the cross-entropy term '
                     'the qualification logits have no scale')


def held_out_loss(model: JobRec, beta: float = 0.0) -> MeasureFn:
  """The losses of the lists of a batch that no step learns from, with nothing dropped.

  `validation/loss = L_pref + L_qual + beta BCE`, of those perspectives whose lists are there. The
  learned weights of the tasks are left out: what they do to the loss is no matter of the lists.

  Args:
    model: the experts.
    beta: weight of the cross-entropy, as in `cooperative_loss`.
  """
  def measure(trainable, frozen, batch):
    params, found = merge_params(trainable, frozen)['model'], {}
    if 'preference' in batch:
      lists = batch['preference']
      found['preference_loss'] = loss = _preference_loss(
          _score(model, params, lists, None, PREFERENCE), lists)
    if 'qualification' in batch:
      lists = batch['qualification']
      scores = _score(model, params, lists, None, QUALIFICATION)
      nce, bce = qualification_losses(scores, lists['mask'], lists['weight'])
      found |= {'qualification_loss': nce, 'bce': bce}
      loss = found.get('preference_loss', 0.0) + nce + beta * bce
    return {f'validation/{name}': x for name, x in (found | {'loss': loss}).items()}
  return measure


def _preference_loss(scores: jax.Array, lists: PyTree) -> jax.Array:
  """Mean InfoNCE of lists whose positive stands first."""
  return info_nce(scores, jnp.zeros(len(scores), jnp.int32), lists['mask']).mean()


def qualification_losses(scores: jax.Array, mask: jax.Array,
                         weight: jax.Array) -> tuple[jax.Array, jax.Array]:
  """InfoNCE over applicants of one job, and cross-entropy of accepted against rejected.

  A list weighs as its accepted applicant. Its rejected ones were drawn from those who applied, not
  from all: their weights enter as the logQ correction of their draw. Weights on one side alone
  would teach that whoever wants the job is not eligible.

  Args:
    scores: [B, J] logits, the accepted applicant first and rejected ones after.
    mask: [B, J] bool, real items.
    weight: [B, J] censoring weights of the applicants, positive where real.

  Returns:
    Two weighted means.
  """
  labels = jnp.zeros_like(scores).at[:, 0].set(1.0)
  log_q = -jnp.log(jnp.where(mask, weight, 1.0))
  nce = info_nce(scores, jnp.zeros(len(scores), jnp.int32), mask, log_q)
  bce = optax.sigmoid_binary_cross_entropy(scores, labels)
  weight = jnp.where(mask, weight, 0.0)
  return ((nce * weight[:, 0]).sum() / weight[:, 0].sum(),
          jnp.where(mask, bce * weight, 0.0).sum() / weight.sum())


def frozen_in_warm_up(path: tuple[str, ...]) -> bool:
  """Stage 1A leaves what belongs to the qualification expert alone."""
  return 'qualification' in path or 'task_weights' in path
