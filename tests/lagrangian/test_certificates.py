"""Certificates of risk: their bounds, and how often they are wrong."""

from math import ceil, e, exp, log, sqrt

import numpy as np
import pytest
from scipy.stats import binom

from jobrec_jax.lagrangian.certificates import (
  METHODS,
  betting,
  certify_groups,
  conformal_risk_control,
  hoeffding_bentkus,
  learn_then_test,
)

ALPHA, DELTA, TOP_K = 0.3, 0.1, 5
# The least safe point first; the fourth lies just above ALPHA, where a false certificate is likely.
RISKS = np.array([0.45, 0.38, 0.34, 0.301, 0.26, 0.22, 0.18, 0.12])


def beta(sd):
  concentration = ALPHA * (1 - ALPHA) / sd**2 - 1
  return lambda rng, risk, size: rng.beta(risk * concentration, (1 - risk) * concentration, size)


# Losses with the given mean.
DISTRIBUTIONS = {
  'bernoulli': lambda rng, risk, size: (rng.random(size) < risk).astype(float),
  'beta': beta(0.15),
  'narrow_beta': beta(0.05),
  'two_point': lambda rng, risk, size: 2 * risk * (rng.random(size) < 0.5),
  'rare_large': lambda rng, risk, size: np.where(rng.random(size) < 0.02, 1, (risk - 0.02) / 0.98),
}


def all_p_values(method, losses):
  if method == 'betting':
    return betting(losses, ALPHA, DELTA)
  return hoeffding_bentkus(losses.mean(axis=0), len(losses), ALPHA)


def most(draws, delta=DELTA):
  return delta + 2 * sqrt(delta * (1 - delta) / draws)


def top_k_losses(rng, draws, n, risks):
  """[draws, n, M] shares of ineligible jobs in the top k; the points share a list's jobs."""
  ineligible = rng.random((draws, n, 1, TOP_K)) < risks[:, None]
  return ineligible.mean(axis=-1)


def chosen_risks(losses, risks, choose):
  """[draws] the true risk of the chosen point, 0 where none is chosen."""
  chosen = [choose(one) for one in losses]
  return np.array([0 if m is None else risks[m] for m in chosen])


def certify(one, **options):
  return learn_then_test(one, ALPHA, DELTA, **options).chosen


@pytest.mark.parametrize('n', [1, 17, 90])
@pytest.mark.parametrize('alpha', [0.05, 0.3])
def test_hoeffding_bentkus_equals_the_formula(n, alpha):
  whole = np.arange(n) / n
  means = np.concatenate([whole, np.nextafter(whole, 1), np.random.default_rng(n).random(20), [1]])

  def reference(r):
    h = sum(a * log(a / b) for a, b in ((min(r, alpha), alpha), (1 - min(r, alpha), 1 - alpha))
            if a > 0)
    # n * (j / n) may miss j by rounding and must count as j.
    count = round(n * r) if abs(n * r - round(n * r)) < 1e-9 else ceil(n * r)
    return min(exp(-n * h), e * binom.pmf(range(count + 1), n, alpha).sum(), 1)

  expected = [reference(r) for r in means]
  np.testing.assert_allclose(hoeffding_bentkus(means, n, alpha), expected, rtol=1e-10)
  np.testing.assert_allclose(hoeffding_bentkus(means[0], n, alpha), expected[0], rtol=1e-10)
  assert hoeffding_bentkus(means.reshape(-1, 1), n, alpha).shape == (len(means), 1)
  assert hoeffding_bentkus(0.0, n, alpha) == pytest.approx((1 - alpha)**n)
  assert (hoeffding_bentkus(means, n, alpha)[means >= alpha] == 1).all()


def test_betting_equals_a_plain_loop():
  losses = np.random.default_rng(0).beta(2, 8, (40, 3))

  def reference(column):
    wealth = greatest = 1.0
    squares, sum_losses, variance = 0.25, 0.5, 0.25
    for i, loss in enumerate(column, start=1):
      bet = min(sqrt(2 * log(1 / DELTA) / (len(column) * variance)), 0.9 / (1 - ALPHA))
      wealth *= 1 + bet * (ALPHA - loss)
      greatest = max(greatest, wealth)
      sum_losses += loss
      squares += (loss - sum_losses / (i + 1))**2
      variance = squares / (i + 1)
    return 1 / greatest

  np.testing.assert_allclose(betting(losses, ALPHA, DELTA), [reference(c) for c in losses.T],
                             rtol=1e-12)


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('low, high', [(0, 1), (0.25, 0.4), (0, 0.35), (0.28, 1)])
def test_no_p_value_is_too_likely_at_the_boundary_over_every_sequence(method, low, high):
  """Exact: all 2^n sequences of two losses with mean ALPHA, P(p <= u) <= u for every u."""
  n, share = 13, (ALPHA - low) / (high - low)
  is_high = np.arange(2**n) >> np.arange(n)[:, None] & 1
  probability = np.where(is_high, share, 1 - share).prod(axis=0)
  p_values = all_p_values(method, np.where(is_high, high, low))
  order = np.argsort(p_values)
  assert (probability[order].cumsum() <= p_values[order] * (1 + 1e-9)).all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('name', DISTRIBUTIONS)
@pytest.mark.parametrize('n', [50, 200])
def test_p_values_are_valid_at_the_boundary_in_simulation(method, name, n):
  draws = 4000
  losses = DISTRIBUTIONS[name](np.random.default_rng(n), ALPHA, (n, draws))
  p_values = all_p_values(method, losses)
  for delta in (0.05, DELTA, 0.2):
    assert (p_values <= delta).mean() <= delta + 3 * sqrt(delta * (1 - delta) / draws)


def test_betting_certifies_where_small_variance_is_lost_on_hoeffding_bentkus():
  losses = DISTRIBUTIONS['beta'](np.random.default_rng(0), ALPHA - 0.05, (90, 1000))
  assert (all_p_values('betting', losses) <= DELTA).mean() > 0.8
  assert (all_p_values('hoeffding_bentkus', losses) <= DELTA).mean() < 0.05


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('n', [50, 90])
def test_a_certified_point_exceeds_alpha_in_at_most_delta_of_the_draws(method, n):
  draws = 500
  losses = top_k_losses(np.random.default_rng(n), draws, n, RISKS)
  risks = chosen_risks(losses, RISKS, lambda one: certify(one, method=method))
  assert (risks > ALPHA).mean() <= most(draws)
  assert (risks > 0).mean() > 0.95


def test_certificate_fields_and_the_stop_at_the_first_failure():
  losses = np.tile([0.0, 0.9, 0.1, 0.05, 0.0], (60, 1))
  for method in METHODS:
    found = learn_then_test(losses, ALPHA, DELTA, method=method)
    assert found.p_values[0] <= DELTA < found.p_values[1]
    assert found.chosen == 2
    np.testing.assert_allclose(found.mean_losses, losses[0])
    assert (found.n, found.alpha, found.delta) == (60, ALPHA, DELTA)
    assert learn_then_test(losses[:, 2:], ALPHA, DELTA, method=method).chosen == 0
    assert learn_then_test(losses[:, :2], ALPHA, DELTA, method=method).chosen is None


def test_sorted_rows_are_shuffled_before_betting():
  draws = 500
  losses = np.sort(DISTRIBUTIONS['beta'](np.random.default_rng(1), ALPHA, (90, draws)), axis=0)
  assert (betting(losses, ALPHA, DELTA) <= DELTA).mean() > 0.9
  shuffled = [certify(column[:, None], seed=seed) for seed, column in enumerate(losses.T)]
  assert np.mean([m is not None for m in shuffled]) <= most(draws)


def test_groups_share_delta_and_no_group_fails_more_often():
  draws, n = 400, 150
  losses = top_k_losses(np.random.default_rng(2), draws, n, RISKS)
  groups = np.array(['a', 'b', 'c'])[np.arange(n) % 3]
  one = certify_groups(losses[0], groups, ALPHA, DELTA)
  assert list(one) == ['a', 'b', 'c']
  for name, found in one.items():
    alone = learn_then_test(losses[0][groups == name], ALPHA, DELTA / 3)
    assert (found.chosen, found.n, found.delta) == (alone.chosen, 50, DELTA / 3)
    np.testing.assert_array_equal(found.p_values, alone.p_values)
  worst = [max(RISKS[c.chosen] if c.chosen is not None else 0
               for c in certify_groups(l, groups, ALPHA, DELTA).values()) for l in losses]
  assert np.mean(np.array(worst) > ALPHA) <= most(draws)


def test_conformal_risk_control_bounds_the_average_and_not_each_draw():
  draws, n, risks = 400, 200, np.linspace(0.4, 0.2, 40)
  losses = top_k_losses(np.random.default_rng(3), draws, n, risks)
  conformal = chosen_risks(losses, risks, lambda one: conformal_risk_control(one, ALPHA))
  assert ALPHA - 0.03 < conformal.mean() <= ALPHA
  assert (conformal > ALPHA).mean() > 3 * DELTA
  assert (chosen_risks(losses, risks, certify) > ALPHA).mean() <= most(draws)


def test_conformal_risk_control_by_hand():
  losses = np.array([[1.0, 0.0, 0.5, 0.0]] * 4)
  # Means made monotone 1, 0.5, 0.5, 0, hence 4/5 mean + 1/5 = 1, 0.6, 0.6, 0.2.
  assert conformal_risk_control(losses, 0.59) == 3
  assert conformal_risk_control(losses, 0.61) == 1
  assert conformal_risk_control(losses, 0.19) is None
  # Per list, not of the means: each list's greatest loss counts, though the means fall already.
  crossed = np.array([[1.0, 0.0], [0.0, 0.9]])
  assert conformal_risk_control(crossed, 0.8) == 1


def test_labels_of_applicants_only_make_the_certificate_invalid():
  """The eligible apply more often, so that lists of applicants look safer than they are."""
  rng, draws, n = np.random.default_rng(4), 400, 90
  full = top_k_losses(rng, draws, n, RISKS)
  count = np.round(TOP_K * full).astype(int)
  ineligible, eligible = rng.binomial(count, 0.3), rng.binomial(TOP_K - count, 0.7)
  censored = ineligible / np.maximum(ineligible + eligible, 1)
  assert (chosen_risks(full, RISKS, certify) > ALPHA).mean() <= most(draws)
  assert (chosen_risks(censored, RISKS, certify) > ALPHA).mean() > 5 * DELTA


GOOD = np.full((4, 2), 0.5)


@pytest.mark.parametrize('losses, message', [
  (GOOD + 0.6, r'losses must be in \[0, 1\].*1\.1'), (GOOD - 0.6, r'losses must be in \[0, 1\]'),
  (np.where(np.eye(4, 2), np.nan, GOOD), 'losses must be in .* without nan'),
  (GOOD[0], r'losses must be \[N, M\].*\(2,\)'), (GOOD[:0], 'losses must be'),
  (GOOD[:, :0], 'losses must be')])
def test_bad_losses(losses, message):
  for call in (lambda: learn_then_test(losses, ALPHA, DELTA), lambda: betting(losses, ALPHA, DELTA),
               lambda: certify_groups(losses, np.zeros(4), ALPHA, DELTA),
               lambda: conformal_risk_control(losses, ALPHA)):
    with pytest.raises(ValueError, match=message):
      call()


@pytest.mark.parametrize('level', [0, 1, -0.1, np.nan])
def test_bad_levels(level):
  for call in (lambda: learn_then_test(GOOD, level, DELTA), lambda: betting(GOOD, level, DELTA),
               lambda: hoeffding_bentkus(0.1, 9, level),
               lambda: conformal_risk_control(GOOD, level)):
    with pytest.raises(ValueError, match=r'alpha must be in \(0, 1\), got'):
      call()
  for call in (lambda: learn_then_test(GOOD, ALPHA, level), lambda: betting(GOOD, ALPHA, level),
               lambda: certify_groups(GOOD, np.zeros(4), ALPHA, level)):
    with pytest.raises(ValueError, match=r'delta must be in \(0, 1\), got'):
      call()


def test_other_bad_arguments():
  with pytest.raises(ValueError, match='n must be at least 1, got 0'):
    hoeffding_bentkus(0.1, 0, ALPHA)
  with pytest.raises(ValueError, match='mean_loss must be in'):
    hoeffding_bentkus([0.1, np.nan], 9, ALPHA)
  with pytest.raises(ValueError, match=r"method must be one of .*, got 'wsr'"):
    learn_then_test(GOOD, ALPHA, DELTA, method='wsr')
  with pytest.raises(ValueError, match=r'groups must be \[N\] = \(4,\), got \(3,\)'):
    certify_groups(GOOD, np.zeros(3), ALPHA, DELTA)


def test_a_hair_above_one_from_float32_is_taken_as_one():
  np.testing.assert_array_equal(learn_then_test(np.full((9, 1), 1.0000001), ALPHA, DELTA).p_values,
                                [1])
