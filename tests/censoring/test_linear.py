"""Linear models under an estimator: optima, nuisances that have not seen a pair, the whole fit."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from jobrec_jax.censoring import linear
from jobrec_jax.censoring.estimators import ESTIMATORS, Funnel, loss
from jobrec_jax.censoring.linear import Nuisances, Shown, fit_estimator, fit_linear


def shown(seed, people=150, jobs=20):
  """(pairs, true weights, their truths): what is likely to be seen differs from what is likely."""
  rng = np.random.default_rng(seed)
  candidate = np.repeat(np.arange(people), jobs)
  x = rng.normal(size=(len(candidate), 4))
  Q, p = expit(x @ [1.5, 1, 0, 0]), expit(x @ [0, 1.5, 1.5, 0] - 1)
  observed = rng.random(len(x)) < p
  return Shown(x, candidate, observed, np.where(observed, rng.random(len(x)) < Q, 0).astype(
      float)), Q, p


@pytest.mark.parametrize('name', ESTIMATORS)
def test_is_the_optimum(name):
  part, Q, p = shown(0, people=20)
  funnel = Funnel(part.observed, part.label, p, Q)
  targets = ESTIMATORS[name].targets(funnel)
  found = fit_linear(part.x, funnel, targets, 0.1)

  def objective(theta):
    return (0.1 * len(Q) * loss(part.x @ theta[:-1] + theta[-1], funnel, targets)
            + theta[:-1] @ theta[:-1] / 2)
  best = np.append(*found)
  for step in np.concatenate([np.eye(5), -np.eye(5)]) * 0.01:
    assert objective(best + step) > objective(best)
  assert check_grad(objective, lambda _: np.zeros(5), best) < 1e-2


def test_nuisances_of_a_pair_come_from_other_candidates(monkeypatch):
  """Whatever becomes of a third of the candidates, their own chances stay."""
  monkeypatch.setattr(linear, 'STRENGTHS', (0.1,))
  train, held = shown(0)[0], shown(1)[0]
  before = Nuisances.fit(train, held)
  mine = train.candidate % linear.FOLDS == 0
  other = Shown(train.x, train.candidate, train.observed ^ mine,
                np.where(mine, 1 - train.label, train.label))
  after = Nuisances.fit(other, held)
  for name in ('propensity', 'imputed'):
    (a, held_a), (b, held_b) = getattr(before, name), getattr(after, name)
    np.testing.assert_allclose(a[mine], b[mine])
    assert abs(a[~mine] - b[~mine]).max() > 0.05 and abs(held_a - held_b).max() > 0.05
    assert ((a > 0) & (a < 1)).all() and len(a) == len(train.x) and len(held_a) == len(held.x)


def test_every_estimator_but_the_mistake_finds_the_truth():
  train, Q, _ = shown(2, people=400)
  nuisances = Nuisances.fit(train, shown(3, people=100)[0])
  for name, estimator in ESTIMATORS.items():
    off = np.mean(abs(expit(fit_estimator(estimator, nuisances).logits(train.x)) - Q))
    assert (off > 0.15) if name == 'unseen as negatives' else (off < 0.08), (name, off)


def test_joint_learning_weighs_the_imputation_by_the_model_before(monkeypatch):
  """Twice, the second time with its own logits; the others fit it once, or as it is."""
  asked, weigh = [], ESTIMATORS['DR-JL'].imputation
  train, held = shown(4)[0], shown(5)[0]
  nuisances = Nuisances.fit(train, held)

  def remembered(observed, p, s):
    asked.append(s)
    return weigh(observed, p, s)
  fit_estimator(ESTIMATORS['DR-JL']._replace(imputation=remembered), nuisances)
  q = nuisances.imputed[0]
  assert len(asked) == 2
  np.testing.assert_allclose(asked[0], np.log(q / (1 - q)))
  assert abs(asked[1] - asked[0]).max() > 0.01
  np.testing.assert_array_equal(nuisances.funnels(ESTIMATORS['DR'])[0].imputed, q)


def test_the_ridge_is_that_of_the_least_loss_on_the_held_pairs(monkeypatch):
  tried = []

  def remembered(x, funnel, targets, strength, start=None):
    model = fit_linear(x, funnel, targets, strength, start)
    tried.append((loss(model.logits(held.x), others, ESTIMATORS['IPS'].targets(others)), model))
    return model
  train, held = shown(6)[0], shown(7)[0]
  nuisances = Nuisances.fit(train, held)
  _, others = nuisances.funnels(ESTIMATORS['IPS'])
  monkeypatch.setattr(linear, 'fit_linear', remembered)
  found = fit_estimator(ESTIMATORS['IPS'], nuisances)
  assert len(tried) == len(linear.STRENGTHS)
  assert found is min(tried, key=lambda t: t[0])[1]


def test_where_everybody_applied_nothing_is_censored():
  train, held = (dataclasses.replace(part, observed=np.ones(len(part.x), bool))
                 for part in (shown(8)[0], shown(9)[0]))
  nuisances = Nuisances.fit(train, held)
  assert all((p == 1).all() for p in nuisances.propensity)
  models = [fit_estimator(e, nuisances) for name, e in ESTIMATORS.items() if 'ESCM' not in name
            and name != 'imputation']
  for other in models:
    np.testing.assert_allclose(other.weights, models[0].weights, atol=0.02)
