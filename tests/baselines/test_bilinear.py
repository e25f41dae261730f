"""Products of words in few directions: what is planted is found, at an optimum, with fit ridges."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from jobrec_jax.baselines import bilinear
from jobrec_jax.baselines.bilinear import Bilinear, Pairs, fit_bilinear, fit_by_evidence, widened

R, D, U, J = 8, 3, 90, 30


def market(seed: int = 0, rank: int = 1):
  """(train, held-out pairs, labels of the former, logits of the latter); words of jobs alone, and
  the last number, say nothing."""
  rng = np.random.default_rng(seed)
  left, right = 0.8 * rng.normal(size=(2, rank, R))
  u, v = rng.normal(size=(2 * U, R)), rng.normal(size=(J, R))
  row, column = (a.ravel() for a in np.mgrid[:2 * U, :J])
  x = rng.normal(size=(len(row), D))
  logits = (x @ [1.5, -1.0, 0.0] + u[row] @ rng.normal(size=R) * 0.4
            + ((u @ left.T)[row] * (v @ right.T)[column]).sum(1))
  numbers = np.concatenate([x, u[row], v[column]], 1)
  pairs = [Pairs.of(numbers[keep], R, row[keep], column[keep]) for keep in (row < U, row >= U)]
  return *pairs, (rng.random(U * J) < expit(logits[row < U])).astype(float), logits[row >= U]


def test_pairs_hold_the_words_of_each_side_once():
  pairs, *_ = market()
  assert pairs.u.shape == (U, R) and pairs.v.shape == (J, R)
  np.testing.assert_array_equal(pairs.u[pairs.row], pairs.numbers[:, D:D + R])
  np.testing.assert_array_equal(pairs.v[pairs.column], pairs.numbers[:, D + R:])
  none = Pairs.of(pairs.numbers, 0, pairs.row, pairs.column)
  assert none.u.shape == (U, 0) and none.v.shape == (J, 0)


def test_evidence_tells_what_says_something_from_what_does_not():
  """The candidate's words have an effect, the job's have none beside the products."""
  pairs, held, label, _ = market()
  model, ridges = fit_by_evidence(pairs, label)
  numbers, candidate, job = np.split(ridges, [D, D + R])
  assert len(set(numbers)) == len(set(candidate)) == len(set(job)) == 1
  assert job[0] > 5 * candidate[0] > 0 and model.logits(held).shape == (U * J,)
  slope = label - expit(model.logits(pairs))
  np.testing.assert_allclose(slope @ pairs.numbers, ridges * model.weights, rtol=0.02, atol=0.02)
  hessian = (pairs.numbers * (expit(model.logits(pairs)) * expit(-model.logits(pairs)))[:, None]
             ).T @ pairs.numbers + np.diag(ridges)
  part = slice(D, D + R)
  known = R - candidate[0] * np.trace(np.linalg.inv(hessian)[part, part])
  assert candidate[0] == pytest.approx(known / (model.weights[part] ** 2).sum(), rel=0.05)


@pytest.mark.parametrize('positives', [1, 200])
def test_labels_that_can_be_told_apart_have_a_fit(positives):
  """Of a few thousand pairs the greatest in one number, which the ridge alone keeps finite."""
  pairs, *_ = market()
  order = np.argsort(-pairs.numbers[:, 0])
  label = np.zeros(len(order))
  label[order[:positives]] = 1
  model, ridges = fit_by_evidence(pairs, label)
  slope = label - expit(model.logits(pairs))
  assert abs(slope.sum()) < 0.01 and np.isfinite(ridges).all()
  found = model.logits(pairs)
  assert found[label == 1].min() > np.quantile(found[label == 0], 0.98)


@pytest.mark.parametrize('rank', [1, 2])
def test_directions_are_found_that_a_weight_for_each_product_misses(rank):
  pairs, held, label, logits = market(rank=rank)
  model, ridges = fit_by_evidence(pairs, label)
  wide, steep = widened(model, pairs, label, rank)
  found = fit_bilinear(pairs, label, ridges, 0.01 * steep, wide)
  assert found.left.shape == found.right.shape == (rank, R)
  apart = [np.corrcoef(m.logits(held), logits)[0, 1] for m in (model, found)]
  assert apart[0] < 0.8 < 0.97 < apart[1]
  nothing = fit_bilinear(pairs, label, ridges, 1.1 * steep, wide)
  assert np.abs(nothing.match).max() < 1e-3


def test_slopes_are_those_of_the_loss(monkeypatch):
  pairs, _, label, _ = market()
  rng, seen = np.random.default_rng(1), {}

  def minimize(objective, theta, **_):
    seen['apart'] = check_grad(lambda t: objective(t)[0], lambda t: objective(t)[1], theta)
    seen['size'] = np.linalg.norm(objective(theta)[1])
    return type('Found', (), {'x': theta})
  monkeypatch.setattr(bilinear, 'minimize', minimize)
  start = Bilinear(rng.normal(size=D + 2 * R), 0.3, *rng.normal(size=(2, 2, R)))
  same = fit_bilinear(pairs, label, np.linspace(1, 9, D + 2 * R), 2.0, start)
  assert seen['apart'] < 1e-4 * seen['size']
  for a, b in zip(same, start):
    np.testing.assert_array_equal(a, b)
