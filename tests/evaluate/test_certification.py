"""Certified requirements: their losses, and whether the promise is kept."""

import numpy as np
import pytest

from jobrec_jax.evaluate.certification import (
    CRC,
    LTT,
    WHOLE,
    CertifyConfig,
    certify,
    policy_losses,
    prove,
    prove_groups,
    wrong_at_most,
)
from jobrec_jax.lagrangian.certificates import learn_then_test

SETTINGS = CertifyConfig(alpha=0.5, delta=0.1, k=2, population=600, draws=40, lists=80)


def ragged(seed=0, points=3, n=5, items=6):
  """Scores with ties, labels and masks; list 1 has one item."""
  rng = np.random.default_rng(seed)
  mask = rng.random((n, items)) < 0.7
  mask[:, 2] = True
  mask[1] = np.arange(items) == 2
  return rng.integers(0, 3, (points, n, items)).astype(float), rng.random((n, items)) < 0.4, mask


def plain_losses(scores, eligible, mask, k, temperature):
  """The definitions, item by item; the top k averaged over many random orders of ties."""
  rng = np.random.default_rng(1)
  whole, top = np.zeros(scores.shape[:2]), np.zeros(scores.shape[:2])
  for m, i in np.ndindex(*whole.shape):
    items = [j for j in range(mask.shape[1]) if mask[i, j]]
    weight = {j: np.exp(scores[m, i, j] / temperature) for j in items}
    whole[m, i] = sum(weight[j] * (1 - eligible[i, j]) for j in items) / sum(weight.values())
    shares = []
    for _ in range(4000):
      order = sorted(items, key=lambda j: (-scores[m, i, j], rng.random()))[:k]
      shares.append(np.mean([1 - eligible[i, j] for j in order]))
    top[m, i] = np.mean(shares)
  return whole.T, top.T


def test_losses_equal_plain_loops_with_masks_and_ties():
  scores, eligible, mask = ragged()
  losses = policy_losses(scores, eligible, mask, 2, 0.7)
  assert list(losses) == [WHOLE, 'top 2']
  whole, top = plain_losses(scores, eligible, mask, 2, 0.7)
  np.testing.assert_allclose(losses[WHOLE], whole, atol=1e-12)
  np.testing.assert_allclose(losses['top 2'], top, atol=0.03)


def test_padding_and_what_stands_there_change_nothing():
  scores, eligible, mask = ragged()
  other = np.where(mask, scores, 99.0), np.where(mask, eligible, ~eligible)
  for a, b in zip(policy_losses(scores, eligible, mask, 3).values(),
                  policy_losses(*other, mask, 3).values()):
    np.testing.assert_array_equal(a, b)


def test_probabilities_give_the_loss_that_they_predict():
  scores, _, mask = ragged()
  q = np.random.default_rng(2).random(mask.shape)
  outcomes = np.random.default_rng(3).random((3000, *mask.shape)) < q
  expected = policy_losses(scores, q, mask, 2)
  for name in expected:
    seen = np.mean([policy_losses(scores, y, mask, 2)[name] for y in outcomes], axis=0)
    np.testing.assert_allclose(seen, expected[name], atol=0.04)


@pytest.mark.parametrize('change, match', [
    ({'scores': np.zeros((4, 3))}, r'scores must be \[M, N, J\]'),
    ({'eligible': np.zeros((3, 3))}, r'got \(2, 4, 3\), \(3, 3\)'),
    ({'mask': np.arange(4)[:, None] < np.array([3, 3, 3])}, 'none in list 3'),
    ({'eligible': np.full((4, 3), 1.5)}, r'eligible must be probabilities in \[0, 1\], got 1\.5'),
    ({'eligible': np.full((4, 3), np.nan)}, r'in \[0, 1\], got nan in list 0 at item 0'),
    ({'k': 0}, 'k must be at least 1'), ({'temperature': 0.0}, 'temperature must be positive'),
    ({'scores': np.full((2, 4, 3), np.nan)}, 'scores must be finite')])
def test_bad_arguments_are_named(change, match):
  good = {'scores': np.zeros((2, 4, 3)), 'eligible': np.zeros((4, 3)),
          'mask': np.ones((4, 3), bool), 'k': 2}
  with pytest.raises(ValueError, match=match):
    policy_losses(**(good | change))


@pytest.mark.parametrize('change', [{'alpha': 0.0}, {'delta': 1.0}, {'k': 0}, {'points': 0},
                                    {'population': 0}, {'draws': 0}, {'lists': 4001}])
def test_a_setting_out_of_range_is_named(change):
  with pytest.raises(ValueError, match=f'^{next(iter(change))} must'):
    CertifyConfig(**change)


def beta_losses(n, risks, seed=0):
  rng = np.random.default_rng(seed)
  return np.stack([rng.beta(20 * r, 20 * (1 - r), n) for r in risks], axis=1)


def test_certificates_say_what_was_seen_and_what_is_true():
  risks = np.array([0.6, 0.45, 0.3])
  losses = {WHOLE: beta_losses(400, risks), 'top 2': beta_losses(400, risks + 0.3, 1)}
  predicted = {name: x - 0.05 for name, x in losses.items()}
  taus, true = np.array([0.4, 0.6, 0.8]), {WHOLE: risks, 'top 2': risks + 0.3}
  rows = certify(losses, predicted, taus, SETTINGS, true)
  assert [(r.loss, r.method, r.tau) for r in rows] == [
      (WHOLE, LTT, 0.6), (WHOLE, CRC, 0.6), ('top 2', LTT, None), ('top 2', CRC, None)]
  assert rows[0].true == pytest.approx(0.55) and rows[0].n == 400
  assert rows[0].observed == pytest.approx(1 - losses[WHOLE][:, 1].mean())
  assert rows[0].predicted == pytest.approx(rows[0].observed + 0.05)
  assert rows[2][3:6] == (None, None, None)
  assert all(r.true is None for r in certify(losses, predicted, taus, SETTINGS))


def test_alpha_and_delta_are_not_mistaken_for_each_other():
  """Where a risk of 0.4 is nearly certain of a bound of 0.5 at level 0.5, and not at level 0.01."""
  losses = beta_losses(12, np.array([0.47, 0.4, 0.2]))
  config = CertifyConfig(alpha=0.5, delta=0.01)
  chosen = {d: learn_then_test(losses, 0.5, d).chosen for d in (0.01, 0.5)}
  assert chosen[0.01] is not None and chosen[0.01] > chosen[0.5]
  taus, groups = np.array([0.1, 0.2, 0.3]), np.array(['a'] * 12)
  (row, _) = certify({WHOLE: losses}, {WHOLE: losses}, taus, config)
  assert row.tau == taus[chosen[0.01]]
  one = CertifyConfig(alpha=0.5, delta=0.01, draws=3, lists=12)  # each draw is all of them
  tested = prove({WHOLE: losses}, {WHOLE: losses.mean(0)}, one, 0)[0]
  (grouped, _) = prove_groups(losses, groups, one, 0)
  for found in (tested, grouped):
    assert found.claimed == pytest.approx(losses.mean(0)[chosen[0.01]])


def test_the_bound_of_wrong_draws_is_delta_and_two_standard_errors():
  assert wrong_at_most(CertifyConfig(alpha=0.5, delta=0.1, draws=100)) == pytest.approx(0.16)
  assert wrong_at_most(CertifyConfig(alpha=0.3, delta=0.2, draws=400)) == pytest.approx(0.24)


def test_wrong_draws_are_counted_by_hand():
  """Draw by draw: wrong where the risk of the chosen point is above alpha."""
  population = beta_losses(60, np.array([0.55, 0.47]))
  config = CertifyConfig(alpha=0.5, delta=0.3, draws=25, lists=20, population=60)
  rng = np.random.default_rng(4)
  chosen = [learn_then_test(population[rng.permutation(60)[:20]], 0.5, 0.3).chosen
            for _ in range(25)]
  true = {WHOLE: np.array([0.6, 0.4])}
  row = prove({WHOLE: population}, true, config, 4)[0]
  assert row.wrong == pytest.approx(sum(c == 0 for c in chosen) / 25)
  assert row.certified == pytest.approx(sum(c is not None for c in chosen) / 25)
  assert 0 < row.certified < 1


def test_the_promise_is_kept_with_all_labels_and_broken_by_losses_too_low():
  risks = np.linspace(0.6, 0.4, 9)
  population = beta_losses(600, risks)
  true = {WHOLE: population.mean(0)}
  rows = prove({WHOLE: population}, true, SETTINGS, 0)
  tested, controlled = rows
  assert (tested.method, controlled.method) == (LTT, CRC)
  assert tested.wrong <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 40) and tested.certified == 1
  assert controlled.expected <= SETTINGS.alpha + 0.005
  assert 0.25 < tested.true < SETTINGS.alpha and abs(tested.claimed - tested.true) < 0.03
  naive = prove({WHOLE: 0.8 * population}, true, SETTINGS, 0, 'few')[0]
  assert naive.wrong > 0.9 and naive.true > SETTINGS.alpha > naive.claimed and naive.labels == 'few'
  assert rows == prove({WHOLE: population}, true, SETTINGS, 0)
  none = prove({WHOLE: population * 0 + 0.9}, {WHOLE: np.full(9, 0.9)}, SETTINGS, 0)[0]
  assert none.certified == none.wrong == none.expected == 0
  assert np.isnan([none.true, none.claimed]).all()


def test_groups_are_certified_alone():
  easy, hard = beta_losses(300, [0.4, 0.2]), beta_losses(300, [0.8, 0.7], 1)
  groups = np.repeat(['easy', 'hard'], 300)
  rows = {r.labels: r for r in prove_groups(np.concatenate([easy, hard]), groups, SETTINGS, 0)}
  assert rows['easy'].certified == 1 and rows['easy'].wrong == 0
  assert rows['hard'].certified == 0
  assert (rows['any group'].certified, rows['any group'].wrong) == (1, 0)
