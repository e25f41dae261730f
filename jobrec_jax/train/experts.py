"""Stage 1: the preference expert warms up alone (1A), then both learn together (1B)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.objectives.contrastive import info_nce
from jobrec_jax.objectives.task_weights import TaskWeights
from jobrec_jax.train.state import LossFn, merge_params

PyTree = Any
PREFERENCE, QUALIFICATION = 0, 1


def _score(model: JobRec, params: PyTree, lists: PyTree, key: jax.Array, expert: int) -> jax.Array:
  outputs = model.apply({'params': params}, lists['candidate'], lists['job'], lists['alignment'],
                        deterministic=False, rngs={'dropout': key})
  return outputs.scores[..., expert]  # [B, J]


def _hit_rate(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """The share of lists whose positive (item 0) scores strictly highest."""
  others = jnp.where(mask, scores, -jnp.inf)[:, 1:].max(-1)
  return (scores[:, 0] > others).mean()


def warm_up_loss(model: JobRec) -> LossFn:
  """Stage 1A: mean InfoNCE of the preference expert over candidate-centred lists."""
  def loss_fn(trainable, frozen, batch, key):
    (preference,) = batch
    scores = _score(model, merge_params(trainable, frozen)['model'], preference, key, PREFERENCE)
    positive = jnp.zeros(len(scores), jnp.int32)
    loss = info_nce(scores, positive, preference['mask']).mean()
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
  if beta <= 0:
    raise ValueError(f'experts.beta must be positive, got {beta}: without the cross-entropy term '
                     'the qualification logits have no scale')

  def loss_fn(trainable, frozen, batch, key):
    params = merge_params(trainable, frozen)
    preference, qualification = batch
    keys = jax.random.split(key)
    s_pref = _score(model, params['model'], preference, keys[0], PREFERENCE)
    s_qual = _score(model, params['model'], qualification, keys[1], QUALIFICATION)
    l_pref = info_nce(s_pref, jnp.zeros(len(s_pref), jnp.int32), preference['mask']).mean()
    l_qual, bce = qualification_losses(s_qual, qualification['mask'], qualification['weight'])
    loss, weights = weighting.combine(params.get('task_weights', {}),
                                      jnp.stack([l_pref, l_qual + beta * bce]))
    return loss, {
        'train/preference_loss': l_pref, 'train/qualification_loss': l_qual, 'train/bce': bce,
        'train/preference_weight': weights[0], 'train/qualification_weight': weights[1],
        'train/preference_hit': _hit_rate(s_pref, preference['mask']),
        'train/qualification_hit': _hit_rate(s_qual, qualification['mask'])}
  return loss_fn


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
