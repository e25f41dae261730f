"""The losses of stages 1A and 1B as a step uses them, and their gradients, against NumPy.

The stand-in for the experts is linear behind a dropout, so that every gradient is a line of
algebra; lists have holes in their masks, and masked items hold numbers that would show. Lists are
of every kind: around both sides, of several lengths, and some without a positive.
"""

from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.train.experts import Kind, cooperative_loss, held_out_loss, warm_up_loss

F, BETA, DOUBT = 3, 0.7, 0.4
LEVELS = np.array([0.3, -0.2], np.float32)  # s of the uncertainty weights
# Lists and items of each kind; those around one side are read together, whoever learns from them.
SIZES = {Kind('preference', 'candidate'): (4, 5), Kind('preference', 'job'): (2, 3),
         Kind('qualification', 'job'): (3, 4), Kind('qualification', 'candidate'): (2, 3)}
KINDS = [*SIZES]
EXPERT = {'preference': 0, 'qualification': 1}
READ = 'candidate', 'job', 'alignment', 'numbers'


class Linear(nn.Module):
  """Scores x W of a pair's numbers x, half of which dropout removes."""

  def setup(self):
    self.drop = nn.Dropout(0.5)
    self.W = self.param('kernel', nn.initializers.zeros_init(), (F, 2))

  def seen(self, candidate, job, alignment, numbers, deterministic=True):
    candidate, job = (x[:, None] if x.ndim == 2 else x for x in (candidate, job))
    return self.drop(candidate * job + alignment - 2 * numbers, deterministic=deterministic)

  def __call__(self, *lists, deterministic=True):
    return SimpleNamespace(scores=self.seen(*lists, deterministic=deterministic) @ self.W)


def drawn(kind, seed):
  """Lists with holes, the first of them without a positive where there is another with one."""
  rng, (count, items) = np.random.default_rng(seed), SIZES[kind]
  mask = np.ones((count, items), bool)
  mask[0, 1] = mask[1, 2] = False
  shapes = {'candidate': (count, F), 'job': (count, F)}
  shapes['job' if kind.centre == 'candidate' else 'candidate'] = count, items, F
  lists = {name: 0.7 * rng.normal(size=shapes.get(name, (count, items, F)))
           for name in READ}
  lists = {name: x.astype(np.float32) for name, x in lists.items()}
  lists['alignment'][~mask] = 9.0
  weight = rng.uniform(0.4, 2.5, (count, items)).astype(np.float32)
  weight[~mask] = 5.0
  label = np.arange(count) > 0
  return lists | {'mask': mask, 'weight': weight, 'label': label}


@pytest.fixture(scope='module')
def batch():
  return tuple(drawn(kind, seed) for seed, kind in enumerate(KINDS))


W = np.random.default_rng(1).normal(size=(F, 2)).astype(np.float32)
PARAMS = {'model': {'kernel': W}, 'task_weights': {'log_variance': LEVELS}}
KEY = jax.random.key(5)


def seen(kinds, batch, key):
  """[B, J, F] of each kind what dropout leaves of the pairs; one draw for each side's lists."""
  out = [None] * len(kinds)
  for n, centre in enumerate(sorted({k.centre for k in kinds})):
    mine = [i for i, k in enumerate(kinds) if k.centre == centre]
    longest = max(batch[i]['mask'].shape[1] for i in mine)

    def joined(name, mine=mine, longest=longest):
      return np.concatenate([
          batch[i][name] if batch[i][name].ndim == 2 else np.pad(
              batch[i][name], ((0, 0), (0, longest - batch[i][name].shape[1]), (0, 0)))
          for i in mine])
    how = {'deterministic': True} if key is None else {
        'deterministic': False, 'rngs': {'dropout': jax.random.fold_in(key, n)}}
    x = np.asarray(Linear().apply({'params': PARAMS['model']}, *map(joined, READ), method='seen',
                                  **how), np.float64)
    assert key is None or 0.1 < (x == 0).mean() < 0.8
    at = 0
    for i in mine:
      count, items = batch[i]['mask'].shape
      out[i], at = x[at:at + count, :items], at + count
  return out


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def expected(perspective, kinds, batch, xs, doubt=0.0):
  """(contrast, entropy, hit) over all lists of a perspective, and the two gradients in W [F]."""
  parts = [(lists, x) for kind, lists, x in zip(kinds, batch, xs) if kind[0] == perspective]
  total = sum(len(lists['mask']) for lists, _ in parts)
  losses, slopes, hits, positives = np.zeros(2), np.zeros((2, F)), 0, 0
  for lists, x in parts:
    s, other = (x @ W.astype(np.float64))[..., EXPERT[perspective]], (x @ W)[..., 1]
    P, daring = sigmoid(s), 1 - (doubt * (1 - sigmoid(other)) if perspective == 'preference' else 0)
    logit = np.log(P * daring / (1 - P * daring))
    by_score = (1 - P) / (1 - P * daring)  # slope of the logit in the score
    for n, label in enumerate(lists['label']):
      real, first = lists['mask'][n], np.arange(s.shape[1]) == 0
      y, z, w = first & label, logit[n], np.where(real, lists['weight'][n], 0)
      pi = np.where(real, np.exp(z), 0) / np.exp(z[real]).sum()
      losses += (-np.log(pi[0]) * label,
                 -(w * np.where(y, np.log(sigmoid(z)), np.log(sigmoid(-z)))).sum())
      for i, slope in enumerate(((pi - first) * label, w * (sigmoid(z) - y))):
        slopes[i] += (slope * by_score[n]) @ x[n]
      hits += label and z[0] > z[real][1:].max()
      positives += label
  return (*losses / total, hits / positives), slopes / total


def grad(loss_fn, batch, key=KEY):
  (loss, metrics), gradient = jax.value_and_grad(loss_fn, has_aux=True)(PARAMS, {}, batch, key)
  return float(loss), jax.device_get(metrics), jax.device_get(gradient)


@pytest.mark.parametrize('perspective, places', [
    ('preference', (0,)), ('preference', (0, 1)), ('qualification', (2, 3))])
def test_one_expert_alone_learns_its_contrast_and_beta_cross_entropies(batch, perspective, places):
  kinds, lists = [KINDS[i] for i in places], [batch[i] for i in places]
  (nce, bce, hit), (d_nce, d_bce) = expected(perspective, kinds, lists, seen(kinds, lists, KEY))
  loss, metrics, gradient = grad(warm_up_loss(Linear(), kinds, BETA), lists)
  assert loss == pytest.approx(nce + BETA * bce, rel=1e-5)
  mine = EXPERT[perspective]
  np.testing.assert_allclose(gradient['model']['kernel'][:, mine], d_nce + BETA * d_bce, atol=1e-5)
  assert (gradient['model']['kernel'][:, 1 - mine] == 0).all()
  assert {k: float(x) for k, x in metrics.items()} == pytest.approx({
      f'train/{perspective}_loss': nce, f'train/{perspective}_bce': bce,
      f'train/{perspective}_hit': hit}, rel=1e-5)


@pytest.mark.parametrize('doubt', [0.0, DOUBT])
def test_stage_1b_is_both_contrasts_and_beta_cross_entropies(batch, doubt):
  """The doubt is in the preference's losses, and its gradient reaches no qualification score."""
  xs = seen(KINDS, batch, KEY)
  found = [expected(name, KINDS, batch, xs, doubt) for name in EXPERT]
  losses = np.array([nce + BETA * bce for (nce, bce, _), _ in found])
  shares = np.exp(-LEVELS)
  loss, metrics, gradient = grad(
      cooperative_loss(Linear(), KINDS, task_weights('uncertainty', 2), BETA, doubt), batch)
  assert loss == pytest.approx((shares * losses + LEVELS).sum(), rel=1e-5)
  slopes = [share * (d_nce + BETA * d_bce) for share, (_, (d_nce, d_bce)) in zip(shares, found)]
  np.testing.assert_allclose(gradient['model']['kernel'], np.stack(slopes, 1), atol=1e-5)
  np.testing.assert_allclose(gradient['task_weights']['log_variance'], 1 - shares * losses,
                             atol=1e-5)
  for (name, i), ((nce, bce, hit), _) in zip(EXPERT.items(), found):
    for key, value in {'loss': nce, 'bce': bce, 'hit': hit, 'weight': shares[i]}.items():
      assert metrics[f'train/{name}_{key}'] == pytest.approx(value, rel=1e-5), (name, key)
  plain, _ = expected('preference', KINDS, batch, xs)
  assert (abs(found[0][0][1] - plain[1]) > 0.01) == (doubt > 0)


@pytest.mark.parametrize('places', [(0, 1, 2, 3), (0, 2), (3,)])
def test_the_held_out_loss_drops_nothing_and_leaves_out_the_tasks_weights(batch, places):
  kinds, lists = [KINDS[i] for i in places], [batch[i] for i in places]
  xs = seen(kinds, lists, None)
  losses = {name: expected(name, kinds, lists, xs, DOUBT)[0] for name in EXPERT
            if name in {k.perspective for k in kinds}}
  told = held_out_loss(Linear(), kinds, BETA, DOUBT)(PARAMS, {}, lists)
  wanted = {f'validation/{name}_{term}': x[i] for name, x in losses.items()
            for i, term in enumerate(('contrast', 'entropy'))}
  wanted['validation/loss'] = sum(nce + BETA * bce for nce, bce, _ in losses.values())
  assert {k: float(x) for k, x in told.items()} == pytest.approx(wanted, rel=1e-5,
                                                                     abs=1e-6)


def test_lists_around_one_side_are_read_at_once(batch, monkeypatch):
  calls = []
  apply = Linear.apply
  monkeypatch.setattr(Linear, 'apply', lambda self, params, candidate, job, *rest, **how: (
      calls.append((candidate.shape, job.shape)) or apply(self, params, candidate, job, *rest,
                                                          **how)))
  held_out_loss(Linear(), KINDS, BETA)(PARAMS, {}, batch)
  assert calls == [((6, F), (6, 5, F)), ((5, 4, F), (5, F))]


@pytest.mark.parametrize('stage', ['warm_up', 'cooperative'])
def test_dropout_is_another_under_another_key(batch, stage):
  kinds = KINDS[:2] if stage == 'warm_up' else KINDS
  loss_fn = (warm_up_loss(Linear(), kinds, BETA) if stage == 'warm_up' else
             cooperative_loss(Linear(), kinds, task_weights('uncertainty', 2), BETA))
  used = batch[:len(kinds)]
  assert grad(loss_fn, used)[0] != grad(loss_fn, used, jax.random.key(6))[0]


def test_beta_must_be_positive():
  with pytest.raises(ValueError, match=r'experts\.beta must be positive, got 0'):
    cooperative_loss(Linear(), KINDS, task_weights('uncertainty', 2), 0)
  with pytest.raises(ValueError, match=r'experts\.beta must be positive, got 0'):
    warm_up_loss(Linear(), KINDS[:1], 0)
