"""Which labels are doubted, and what experts' verdicts make of them."""

import dataclasses

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import cohen_kappa_score

from jobrec_jax.refine.aggregation import (
    NONE,
    cohen_kappas,
    dawid_skene,
    fleiss_kappa,
)
from jobrec_jax.refine.doubt import (
    assign,
    most_doubtful,
    pair_features,
    posterior_of,
    refine,
    simulate_verdicts,
    suspect,
)
from jobrec_jax.schema.schema import Entity

RATES = (0.05, 0.1, 0.1, 0.15, 0.2)


def judged(n, rates=RATES, each=3, positive=0.4, seed=0):
  """True labels and verdicts of simulated experts."""
  rng = np.random.default_rng(seed)
  truth = rng.random(n) < positive
  return truth, simulate_verdicts(truth, assign(n, len(rates), each, rng), rates, rng)


verdict_tables = st.integers(1, 12).flatmap(lambda n: st.integers(1, 4).flatmap(
    lambda e: st.lists(st.lists(st.sampled_from([NONE, 0, 1]), min_size=e, max_size=e),
                       min_size=n, max_size=n))).map(lambda rows: np.array(rows, np.int8))


def plain_dawid_skene(verdicts, rounds):
  """The textbook EM in loops: one class prior, four right and one wrong pseudo-verdict."""
  n, experts = verdicts.shape
  belief = [float(expit((row == 1).sum() - float((row == 0).sum()))) for row in verdicts]
  for _ in range(rounds):
    rates = []
    for e in range(experts):
      right, total = [4.0, 4.0], [5.0, 5.0]
      for i in range(n):
        for value, weight in ((1, belief[i]), (0, 1 - belief[i])):
          if verdicts[i, e] != NONE:
            total[value] += weight
            right[value] += weight * (verdicts[i, e] == value)
      rates.append([right[0] / total[0], right[1] / total[1]])
    prior = sum(belief) / n
    for i in range(n):
      odds = prior / (1 - prior)
      for e in range(experts):
        (specificity, sensitivity) = rates[e]
        if verdicts[i, e] == 1:
          odds *= sensitivity / (1 - specificity)
        elif verdicts[i, e] == 0:
          odds *= (1 - sensitivity) / specificity
      belief[i] = odds / (1 + odds)
  return np.array(belief), np.array(rates)


def test_aggregation_agrees_with_the_plain_loop():
  _, verdicts = judged(400, seed=1)
  belief, rates = plain_dawid_skene(verdicts, 200)
  found = dawid_skene(verdicts)
  # The class prior has a weak prior of its own here, worth a hundredth of a logit at this size.
  np.testing.assert_allclose(found.posterior, belief, atol=5e-3)
  np.testing.assert_allclose(found.specificity, rates[:, 0], atol=2e-3)
  np.testing.assert_allclose(found.sensitivity, rates[:, 1], atol=2e-3)


@settings(deadline=None, max_examples=60)
@given(verdict_tables, st.randoms(use_true_random=False))
def test_the_objective_never_falls(verdicts, random):
  prior = np.array([random.random() for _ in verdicts])
  group = np.array([random.randrange(2) for _ in verdicts])
  found = dawid_skene(verdicts, prior, group)
  assert np.isfinite(found.objective).all()
  assert (np.diff(found.objective) > -1e-8).all()
  assert ((found.posterior >= 0) & (found.posterior <= 1)).all()


@settings(deadline=None, max_examples=30)
@given(verdict_tables)
def test_the_order_of_experts_does_not_matter(verdicts):
  one, other = dawid_skene(verdicts), dawid_skene(verdicts[:, ::-1])
  np.testing.assert_allclose(one.posterior, other.posterior, atol=1e-6)
  np.testing.assert_allclose(one.error, other.error[::-1], atol=1e-6)


def test_error_rates_are_found():
  _, verdicts = judged(6000)
  np.testing.assert_allclose(dawid_skene(verdicts).error, RATES, atol=0.03)


def test_a_biased_and_a_contrary_expert_are_seen_through():
  rng = np.random.default_rng(3)
  truth = rng.random(3000) < 0.5
  lenient = truth | (rng.random(3000) < 0.4)  # says yes to 40% of those who are not
  contrary = truth ^ (rng.random(3000) < 0.8)
  good = [truth ^ (rng.random(3000) < 0.1) for _ in range(3)]
  verdicts = np.stack([lenient, contrary, *good], 1).astype(np.int8)
  found = dawid_skene(verdicts)
  assert abs(found.sensitivity[0] - 1) < 0.03 and abs(found.specificity[0] - 0.6) < 0.03
  assert abs(found.error[1] - 0.8) < 0.03
  majority = verdicts.sum(1) > 2
  assert ((found.posterior > 0.5) != truth).mean() < (majority != truth).mean() / 2


def test_a_prior_of_the_wrong_level_is_mended():
  rng = np.random.default_rng(4)
  right = expit(rng.normal(1.0, 1.0, 4000))
  machine = rng.random(4000) < 0.5
  truth = rng.random(4000) < right
  verdicts = simulate_verdicts(truth, assign(4000, 5, 3, rng), RATES, rng)
  off = expit(np.log(right / (1 - right)) - 3)
  found = dawid_skene(verdicts, off, machine.astype(int))
  np.testing.assert_allclose(found.error, RATES, atol=0.03)
  assert (found.shift > 2).all()


def test_a_pair_without_verdicts_keeps_its_prior():
  _, verdicts = judged(50)
  verdicts[7] = NONE
  found = dawid_skene(verdicts, np.full(50, 0.3), np.r_[np.zeros(7, int), 1, np.zeros(42, int)])
  assert found.posterior[7] == pytest.approx(0.3)
  silent = dawid_skene(np.full((3, 2), NONE), np.array([0.2, 0.5, 0.9]))
  np.testing.assert_allclose(silent.posterior, [0.2, 0.5, 0.9])
  assert np.isnan(silent.error).all()


@pytest.mark.parametrize('verdicts, prior, message', [
    (np.array([[2, 0]]), None, r'verdicts must be .* of 1 \(yes\)'),
    (np.array([1, 0]), None, r'verdicts must be \[pairs, experts\]'),
    (np.array([[1, 0]]), np.array([1.5]), r'prior must be \[1\] probabilities'),
    (np.array([[1, 0]]), np.array([0.5, 0.5]), r'prior must be \[1\] probabilities'),
])
def test_bad_verdicts_and_priors_are_refused(verdicts, prior, message):
  with pytest.raises(ValueError, match=message):
    dawid_skene(verdicts, prior)


def test_fleiss_kappa_of_the_textbook():
  # Fleiss' worked example as it is usually printed: 10 subjects, 14 raters, 5 answers.
  counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
  answers = np.array([np.repeat(np.arange(5), row) for row in counts])
  assert fleiss_kappa(answers) == pytest.approx(0.210, abs=5e-4)


@settings(deadline=None, max_examples=60)
@given(verdict_tables)
def test_fleiss_kappa_agrees_with_the_plain_loop(verdicts):
  agree, shares = [], []
  for row in verdicts:
    said = [v for v in row if v != NONE]
    if len(said) > 1:
      pairs = [a == b for i, a in enumerate(said) for j, b in enumerate(said) if i != j]
      agree.append(sum(pairs) / len(pairs))
      shares.append([said.count(k) / len(said) for k in (0, 1)])
  found = fleiss_kappa(verdicts)
  expected = sum(np.mean(column) ** 2 for column in zip(*shares)) if shares else 1.0
  if expected > 1 - 1e-12:
    assert np.isnan(found)
  else:
    assert found == pytest.approx((np.mean(agree) - expected) / (1 - expected))


def test_cohen_kappa_of_two_experts_rests_on_their_common_pairs():
  _, verdicts = judged(300)
  for (i, j), (kappa, n) in cohen_kappas(verdicts).items():
    both = (verdicts[:, i] != NONE) & (verdicts[:, j] != NONE)
    assert n == both.sum()
    assert kappa == pytest.approx(cohen_kappa_score(verdicts[both, i], verdicts[both, j]))
  nothing = cohen_kappas(np.array([[1, NONE, 1], [NONE, 0, 1]]))
  assert [n for _, n in nothing.values()] == [0, 1, 1]
  assert all(np.isnan(kappa) for kappa in (nothing[0, 1][0], nothing[0, 2][0]))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.data())
def test_pairs_are_dealt_evenly(pairs, experts, data):
  each = data.draw(st.integers(1, experts))
  dealt = assign(pairs, experts, each, np.random.default_rng(pairs))
  assert (dealt.sum(1) == each).all()
  assert np.ptp(dealt.sum(0)) <= 1


def test_more_verdicts_than_experts_are_refused():
  with pytest.raises(ValueError, match=r'between 1 and 2 verdicts .*got 3'):
    assign(5, 2, 3, np.random.default_rng(0))


def test_bayes_by_enumeration():
  for p in (0.0, 0.2, 0.7, 1.0):
    for machine in (0, 1):
      one, zero = (q * (0.9 if machine == value else 0.1) for value, q in ((1, p), (0, 1 - p)))
      found = posterior_of(np.array([p]), np.array([bool(machine)]), 0.1)
      assert found[0] == pytest.approx(one / (one + zero))


def test_flips_are_told_from_open_outcomes():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(8000, 5))
  probability = expit(x @ (2.5, 1.5, 0, 0, 0) - 0.5)
  truth = rng.random(8000) < probability
  for flip in (0.0, 0.15, 0.3):
    machine = truth ^ (rng.random(8000) < flip)
    found = suspect(x, machine, seed=0)
    assert abs(found.flip - flip) < 0.04
    exact = posterior_of(probability, machine, flip)
    assert np.abs(found.posterior - exact).mean() < 0.04
    wrong = machine != truth
    top = most_doubtful(found.wrong, 800)
    assert abs(found.wrong[top].mean() - wrong[top].mean()) < 0.08


def test_a_pairs_own_label_does_not_vouch_for_itself():
  """On features that say nothing every label is equally doubtful, however many features."""
  rng = np.random.default_rng(1)
  machine = rng.random(600) < 0.5
  found = suspect(rng.normal(size=(600, 100)), machine, seed=0)
  assert found.wrong.std() < 0.1


def test_too_few_labels_of_a_class():
  with pytest.raises(ValueError, match=r'at least 5 of each class .*got 4 of 1 and 16 of 0'):
    suspect(np.zeros((20, 2)), np.arange(20) < 4, seed=0)


def test_features_hold_verdicts_and_crossed_texts(dataset):
  candidate, job = np.array([0, 1, 2, 3]), np.array([5, 5, 6, 7])
  features = pair_features(dataset, candidate, job)
  assert features.shape[0] == 4 and np.isfinite(features).all()
  swapped = pair_features(dataset, candidate, job[[0, 2, 1, 3]])
  assert not np.allclose(features[1], swapped[1])


def test_features_without_any_text(dataset):
  silent = {a.name: None for a in dataset.schema.candidate if a.kind == 'text'}
  mute = dataclasses.replace(dataset, candidates=tuple(
      Entity(e.id, {**e.attributes, **silent}) for e in dataset.candidates))
  features = pair_features(mute, np.arange(10), np.arange(10))
  assert 0 < features.shape[1] < pair_features(dataset, np.arange(10), np.arange(10)).shape[1]
  assert np.isfinite(features).all()


def test_a_label_changes_only_where_an_expert_asks_for_it():
  machine = np.array([True, True, True, False])
  verdicts = np.array([[NONE, NONE], [1, 1], [0, 0], [1, 1]], np.int8)
  # However doubtful: nobody saw the first, and both experts stand by the second.
  found = refine(machine, np.array([0.001, 0.01, 0.4, 0.6]), verdicts)
  np.testing.assert_array_equal(found.changed, [False, False, True, True])
  np.testing.assert_array_equal(found.label, [True, True, False, True])
