"""The losses of stages 1A and 1B as a step uses them, and their gradients, against NumPy.

The stand-in for the experts is linear behind a dropout, so that every gradient is a line of
algebra; lists have holes in their masks, and masked items hold numbers that would show.
"""

from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.train.experts import cooperative_loss, qualification_loss, warm_up_loss

F, BETA = 3, 0.7
LEVELS = np.array([0.3, -0.2], np.float32)  # s of the uncertainty weights


class Linear(nn.Module):
  """Scores x W of a pair's numbers x, half of which dropout removes."""

  def setup(self):
    self.drop = nn.Dropout(0.5)
    self.W = self.param('kernel', nn.initializers.zeros_init(), (F, 2))

  def seen(self, candidate, job, alignment, deterministic=True):
    return self.drop(candidate[:, None] * job + alignment, deterministic=deterministic)

  def __call__(self, *lists, deterministic=True):
    return SimpleNamespace(scores=self.seen(*lists, deterministic=deterministic) @ self.W)


@pytest.fixture(scope='module')
def batch():
  """Lists of each kind; the second item of one and the third of another are holes."""
  rng = np.random.default_rng(0)

  def lists(count, items):
    mask = np.ones((count, items), bool)
    mask[0, 1] = mask[1, 2] = False
    job = rng.normal(size=(count, items, F)).astype(np.float32)
    job[~mask] = 9.0
    return {'candidate': rng.normal(size=(count, F)).astype(np.float32), 'job': job,
            'alignment': rng.normal(size=(count, items, F)).astype(np.float32), 'mask': mask}
  preference, qualification = lists(4, 5), lists(3, 4)
  weight = rng.uniform(0.4, 2.5, (3, 4)).astype(np.float32)
  weight[~qualification['mask']] = 5.0
  return preference, qualification | {'weight': weight}


W = np.random.default_rng(1).normal(size=(F, 2)).astype(np.float32)
PARAMS = {'model': {'kernel': W}, 'task_weights': {'log_variance': LEVELS}}
KEY = jax.random.key(5)


def seen(lists, key):
  """[B, J, F] what dropout leaves of the pairs under a key."""
  x = np.asarray(Linear().apply({'params': PARAMS['model']}, *(
      lists[k] for k in ('candidate', 'job', 'alignment')), deterministic=False,
      rngs={'dropout': key}, method='seen'), np.float64)
  assert 0.2 < (x == 0).mean() < 0.8
  return x


def softmax(logits, mask):
  weights = np.where(mask, np.exp(logits - logits.max()), 0)
  return weights / weights.sum(1, keepdims=True)


def contrast(logits, mask, weights):
  """Weighted mean InfoNCE of lists whose first item is the positive, and its gradient [B, J]."""
  pi = softmax(logits, mask)
  weights = (weights / weights.sum())[:, None]
  first = np.arange(logits.shape[1]) == 0
  return -(weights[:, 0] * np.log(pi[:, 0])).sum(), weights * (pi - first)


def cross_entropy(logits, mask, weights):
  """The weighted mean over real items, the first of which are accepted, and its gradient."""
  y = np.broadcast_to(np.arange(logits.shape[1]) == 0, logits.shape)
  p, weights = 1 / (1 + np.exp(-logits)), np.where(mask, weights, 0)
  loss = -(weights * np.where(y, np.log(p), np.log(1 - p))).sum() / weights.sum()
  return loss, weights * (p - y) / weights.sum()


def grad(loss_fn, batch, key=KEY):
  (loss, metrics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(PARAMS, {}, batch, key)
  return float(loss), jax.device_get(metrics), jax.device_get(gradient)


def test_stage_1a_is_the_contrast_of_the_preference_expert_under_dropout(batch):
  (lists, _), x = batch, seen(batch[0], KEY)
  scores = x @ W
  expected, slope = contrast(scores[..., 0], lists['mask'], np.ones(4))
  loss, metrics, gradient = grad(warm_up_loss(Linear()), batch[:1])
  assert loss == pytest.approx(expected, rel=1e-5)
  np.testing.assert_allclose(gradient['model']['kernel'][:, 0],
                             np.einsum('bj,bjf->f', slope, x), atol=1e-5)
  assert (gradient['model']['kernel'][:, 1] == 0).all()
  others = np.where(lists['mask'], scores[..., 0], -np.inf)[:, 1:].max(1)
  assert metrics['train/preference_hit'] == (scores[:, 0, 0] > others).mean()


def test_stage_1b_is_both_contrasts_and_beta_cross_entropies(batch):
  preference, qualification = batch
  keys = jax.random.split(KEY)
  x_pref, x_qual = seen(preference, keys[0]), seen(qualification, keys[1])
  s_pref, s_qual = (x_pref @ W)[..., 0], (x_qual @ W)[..., 1]
  mask, weight = qualification['mask'], qualification['weight'].astype(np.float64)
  l_pref, d_pref = contrast(s_pref, preference['mask'], np.ones(4))
  l_qual, d_qual = contrast(s_qual + np.log(weight), mask, weight[:, 0])
  bce, d_bce = cross_entropy(s_qual, mask, weight)
  losses = np.array([l_pref, l_qual + BETA * bce])
  shares = np.exp(-LEVELS)
  loss, metrics, gradient = grad(
      cooperative_loss(Linear(), task_weights('uncertainty', 2), BETA), batch)
  assert loss == pytest.approx((shares * losses + LEVELS).sum(), rel=1e-5)
  np.testing.assert_allclose(
      gradient['model']['kernel'],
      np.stack([shares[0] * np.einsum('bj,bjf->f', d_pref, x_pref),
                shares[1] * np.einsum('bj,bjf->f', d_qual + BETA * d_bce, x_qual)], 1), atol=1e-5)
  np.testing.assert_allclose(gradient['task_weights']['log_variance'], 1 - shares * losses,
                             atol=1e-5)
  for name, value in {'preference_loss': l_pref, 'qualification_loss': l_qual, 'bce': bce,
                      'preference_weight': shares[0], 'qualification_weight': shares[1]}.items():
    assert metrics[f'train/{name}'] == pytest.approx(value, rel=1e-5), name


def test_the_qualification_expert_alone_learns_its_contrast_and_beta_cross_entropies(batch):
  lists, x = batch[1], seen(batch[1], KEY)
  scores, mask, weight = (x @ W)[..., 1], lists['mask'], lists['weight'].astype(np.float64)
  nce, d_nce = contrast(scores + np.log(weight), mask, weight[:, 0])
  bce, d_bce = cross_entropy(scores, mask, weight)
  loss, metrics, gradient = grad(qualification_loss(Linear(), BETA), batch[1:])
  assert loss == pytest.approx(nce + BETA * bce, rel=1e-5)
  np.testing.assert_allclose(gradient['model']['kernel'][:, 1],
                             np.einsum('bj,bjf->f', d_nce + BETA * d_bce, x), atol=1e-5)
  assert (gradient['model']['kernel'][:, 0] == 0).all()
  assert metrics['train/qualification_loss'] == pytest.approx(nce, rel=1e-5)
  assert metrics['train/bce'] == pytest.approx(bce, rel=1e-5)


@pytest.mark.parametrize('stage', ['warm_up', 'cooperative'])
def test_dropout_is_another_under_another_key(batch, stage):
  loss_fn = (warm_up_loss(Linear()) if stage == 'warm_up' else
             cooperative_loss(Linear(), task_weights('uncertainty', 2), BETA))
  used = batch[:1] if stage == 'warm_up' else batch
  assert grad(loss_fn, used)[0] != grad(loss_fn, used, jax.random.key(6))[0]


def test_beta_must_be_positive():
  with pytest.raises(ValueError, match=r'experts\.beta must be positive, got 0'):
    cooperative_loss(Linear(), task_weights('uncertainty', 2), 0)
  with pytest.raises(ValueError, match=r'experts\.beta must be positive, got 0'):
    qualification_loss(Linear(), 0)
