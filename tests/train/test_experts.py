"""What the losses of a whole population teach, on logs small enough to be listed in full.

Lists take all negatives of their centre, so that nothing is left to chance: the gradient over an
epoch is a sum of few terms, and vanishes at the truth or does not.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, logit

from jobrec_jax.data.dataset import UNOBSERVED, Interactions
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.objectives.self_censoring import application_logit
from jobrec_jax.train.experts import list_losses

KINDS, JOBS = 3, 2
ALL = 10**6


def log_of(cells, perspective='qualification'):
  """A log of {(candidate, job): (positives, negatives)}."""
  rows = [(u, j, label) for (u, j), (yes, no) in cells.items() for label in [1] * yes + [0] * no]
  u, j, label = np.array(rows).T
  other = np.ones(len(rows), np.int8) if perspective == 'qualification' else (
      np.full(len(rows), UNOBSERVED, np.int8))
  preference, qualification = ((other, label) if perspective == 'qualification' else
                               (label, other))
  return Interactions(u.astype(np.int32), j.astype(np.int32), preference.astype(np.int8),
                      qualification.astype(np.int8), np.zeros(len(rows), np.int8),
                      np.ones(len(rows), np.float32))


def epoch(lists, batch=1):
  """Every list once, in batches: stacked [batches, batch, ...]."""
  rng = np.random.default_rng(0)
  drawn = [lists.draw(a, rng) for a in lists.anchors]
  stacked = {k: np.stack([d[k] for d in drawn]) for k in drawn[0]}
  return {k: x[:len(x) // batch * batch].reshape(-1, batch, *x.shape[1:])
          for k, x in stacked.items()}


def gradients(lists, truth, batch=1, logits=lambda s: s):
  """Of contrast and entropy, each a mean over a batch and then over batches, in the scores."""
  of = epoch(lists, batch)

  def loss(scores, which):
    def one(b):
      return list_losses(logits(scores[b['candidate'], b['job']]), b)[which].mean()
    return jax.vmap(one)(of).mean()
  scores = jnp.asarray(truth, jnp.float32)
  return [np.asarray(jax.grad(loss)(scores, which)) for which in (0, 1)]


# Accepted and rejected applicants by kind of candidate and job: base rates from 0.2 to 0.8.
CELLS = {(0, 0): (8, 2), (1, 0): (6, 6), (2, 0): (3, 9),
         (0, 1): (4, 4), (1, 1): (2, 6), (2, 1): (2, 8)}
Q = np.array([[CELLS[k, j][0] / sum(CELLS[k, j]) for j in range(JOBS)] for k in range(KINDS)])


@pytest.mark.parametrize('centre', ['candidate', 'job'])
@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_both_losses_are_least_at_the_logit_whatever_the_base_rates(perspective, centre):
  """Faults 3 and 4: with its weights the cross-entropy keeps every job's and candidate's rate."""
  lists = LabelledLists(log_of(CELLS, perspective), perspective, centre, ALL)
  contrast, entropy = gradients(lists, logit(Q))
  np.testing.assert_allclose(entropy, 0, atol=1e-6)
  for shift in (np.zeros(JOBS), np.array([0.0, 1.3])):  # of what the lists share
    by_kind = np.array([0.0, 1.3, -0.4])[:, None] * shift[1]
    moved = logit(Q) + (shift if centre == 'job' else by_kind)
    *_, other = gradients(lists, moved)
    assert abs(other).max() > 0.01 or not shift.any()
  # Several negatives of a list stand for one softmax: its gradient is that of the whole log only
  # where lists are pairs, so the contrast is looked at in such.
  contrast, _ = gradients(Pairs(lists), logit(Q))
  np.testing.assert_allclose(contrast, 0, atol=1e-6)


class Pairs:
  """Every positive with every negative of its centre, a list each."""

  def __init__(self, lists):
    positives = [a for a in lists.anchors if lists._label[a] == 1]
    self.anchors = [(a, b) for a in positives for b in lists.pool(a)]
    self._lists = lists

  def draw(self, pair, rng):
    rows = np.array(pair)
    log = self._lists._log
    # A centre's positives and negatives meet as often as both occur.
    return {'candidate': log.candidate[rows], 'job': log.job[rows], 'mask': np.ones(2, bool),
            'weight': np.ones(2, np.float32), 'label': np.bool_(True)}


def test_lists_without_their_weights_take_the_base_rate_away():
  lists = LabelledLists(log_of(CELLS), 'qualification', 'job', ALL)
  of = epoch(lists)
  of['weight'] = of['mask'].astype(np.float32)

  def entropy(scores):
    return jax.vmap(lambda b: list_losses(scores[b['candidate'], b['job']], b)[1].mean())(of).mean()
  assert abs(jax.grad(entropy)(jnp.asarray(logit(Q), jnp.float32))).max() > 0.05


@pytest.mark.parametrize('batch', [1, 2, 10])
def test_propensities_move_neither_loss_however_few_lists_a_batch_has(batch):
  """Faults 1 and 2: two kinds of the same Q, of which one applies nine times as often."""
  cells = {(0, 0): (9, 9), (1, 0): (1, 1), (0, 1): (9, 9), (1, 1): (1, 1)}
  log, applies = log_of(cells), np.array([0.9, 0.1])
  weights = 1 / applies[log.candidate]
  lists = LabelledLists(log, 'qualification', 'job', 1, weights / weights.mean())
  rng = np.random.default_rng(1)
  lists.anchors = rng.permutation(lists.anchors)  # batches of any mixture
  same = np.zeros((2, 2))
  contrast, _ = gradients(Pairs(lists), same, batch)
  np.testing.assert_allclose(contrast, 0, atol=1e-6)
  lists.negatives = ALL
  everything = LabelledLists(log, 'qualification', 'job', ALL, weights / weights.mean())
  np.testing.assert_allclose(gradients(everything, same, batch)[1], 0, atol=1e-6)


def test_weights_of_an_epoch_count_every_label_alike():
  """Negatives of a job that accepted nobody are among them, in lists without a contrast."""
  log = log_of(CELLS | {(0, 2): (0, 7), (1, 2): (0, 4), (2, 3): (5, 0)})
  for n in (3, ALL):
    lists = LabelledLists(log, 'qualification', 'job', n)
    total, rng, rounds = np.zeros(len(log)), np.random.default_rng(0), 400 if n == 3 else 1
    sums = []
    for _ in range(rounds):
      for a in lists.anchors:
        drawn = lists.draw(a, rng)
        sums.append(drawn['weight'].sum())
        # Rows of one cell are alike; a list names pairs, not rows.
        for u, j, w, item in zip(*(drawn[k] for k in ('candidate', 'job', 'weight')), range(ALL)):
          positive = item == 0 and drawn['label']
          total[(log.candidate == u) & (log.job == j) & ((log.qualification == 1) == positive)] += w
    cell = {(u, j, y): ((log.candidate == u) & (log.job == j) & (log.qualification == y))
            for u in range(3) for j in range(4) for y in (0, 1)}
    each = [total[rows][0] / rows.sum() / rounds for rows in cell.values() if rows.any()]
    np.testing.assert_allclose(each, len(lists) / len(log), rtol=0.15 if n == 3 else 1e-5)
    assert np.mean(sums) == pytest.approx(1, rel=1e-3)


def test_preference_is_learned_and_not_who_dares():
  """Fault 5: applications of who wants and dares are least surprising at the logit of P."""
  P = np.array([[0.8, 0.5], [0.5, 0.25], [0.75, 0.5]])
  eligible, c = np.array([[0.5, 1.0], [1.0, 0.5], [0.0, 0.5]]), 0.5
  applies = P * (1 - c * (1 - eligible))
  cells = {(k, j): (round(800 * applies[k, j]), round(800 * (1 - applies[k, j])))
           for k in range(3) for j in range(2)}
  lists = LabelledLists(log_of(cells, 'preference'), 'preference', 'job', 1)
  # Each cell once, with its share of positives: the same expectation as its 800 rows.
  counts = {cell: np.array(n) / 800 for cell, n in cells.items()}

  def entropy(scores, doubt):
    z = application_logit(scores, jnp.asarray(logit(np.clip(eligible, 1e-6, 1 - 1e-6))), doubt)
    yes = jnp.array([[counts[k, j][0] for j in range(2)] for k in range(3)])
    return (yes * jax.nn.softplus(-z) + (1 - yes) * jax.nn.softplus(z)).sum()
  at = jnp.asarray(logit(P), jnp.float32)
  np.testing.assert_allclose(jax.grad(entropy)(at, c), 0, atol=2e-3)
  assert abs(jax.grad(entropy)(at, 0.0)).max() > 0.1
  assert lists.negatives == 1


def test_the_logit_of_an_application_is_exact_and_finite():
  s, q = np.meshgrid(np.array([-60.0, -3, 0, 2, 60], np.float32),
                     np.array([-60.0, -2, 0, 3, 60], np.float32))
  for c in (0.0, 0.3, 0.95):
    found = np.asarray(application_logit(jnp.asarray(s), jnp.asarray(q), c))
    assert np.isfinite(found).all()
    inner = abs(s) < 10
    expected = logit(expit(s.astype(float)) * (1 - c * (1 - expit(q.astype(float)))))
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-4, atol=1e-4)
    slope = jax.grad(lambda s, q, c=c: application_logit(s, q, c).sum())(
        jnp.asarray(s), jnp.asarray(q))
    assert np.isfinite(slope).all()
  with pytest.raises(ValueError, match=r'doubt must be in \[0, 1\), got 1'):
    application_logit(jnp.zeros(1), jnp.zeros(1), 1.0)


def test_masked_items_have_no_say():
  scores = np.array([[1.0, -0.5, 9.0], [0.2, 0.1, -7.0]], np.float32)
  lists = {'mask': np.array([[True, True, False]] * 2), 'label': np.array([True, False]),
           'weight': np.array([[1.5, 0.5, 3.0], [2.0, 1.0, 4.0]], np.float32)}
  short = {k: x[:, :2] if x.ndim > 1 else x for k, x in lists.items()}
  for whole, cut in zip(list_losses(scores, lists), list_losses(scores[:, :2], short)):
    np.testing.assert_allclose(whole, cut, rtol=1e-6)
  assert list_losses(scores, lists)[0][1] == 0  # no positive, no contrast
  gradient = jax.grad(lambda s: sum(x.sum() for x in list_losses(s, lists)[:2]))(scores)
  assert np.isfinite(gradient).all() and (gradient[:, 2] == 0).all()
