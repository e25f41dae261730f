"""Experts leave their linear start as far as validation bears out, and by parameters alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.pipeline.shrinkage import kept_shares, shrunk, some_labelled
from jobrec_jax.scoring.experts import PairScores

BOTH = 'preference', 'qualification'
N = 200_000


def log_of(preference, qualification):
  zero = np.zeros(len(preference), np.int32)
  labels = (np.asarray(x, np.int8) for x in (preference, qualification))
  return Interactions(zero, zero, *labels, zero.astype(np.int8), np.ones(len(zero), np.float32))


def scores(preference, qualification):
  return PairScores(np.asarray(preference, np.float32), np.asarray(qualification, np.float32))


@pytest.mark.parametrize('truth', [0.0, 0.3, 1.0])
def test_the_share_of_labels_drawn_from_a_mixture_is_found(truth):
  rng = np.random.default_rng(0)
  start, trained = rng.normal(size=(2, 2, N))
  mixed = (1 - truth) * start + truth * trained
  label = rng.random((2, N)) < expit(mixed)
  found = kept_shares(scores(*start), scores(*trained), log_of(*label), BOTH, 0.0)
  assert list(found) == [*BOTH]
  assert all(abs(a - truth) < 0.03 for a in found.values())


def test_preference_is_told_from_applications_of_those_who_dare():
  """The population's own optimum: with doubt left out, the share would follow the doubt."""
  rng = np.random.default_rng(1)
  s_pref, s_qual = rng.normal(size=(2, N))
  trained = s_pref + 2 * s_qual  # what applications by doubt would teach
  doubt = 0.9
  applied = rng.random(N) < expit(s_pref) * (1 - doubt * (1 - expit(s_qual)))
  label = log_of(applied, rng.random(N) < expit(s_qual))
  start, end = scores(s_pref, s_qual), scores(trained, s_qual)
  assert kept_shares(start, end, label, BOTH, doubt)['preference'] < 0.02
  assert kept_shares(start, end, label, BOTH, 0.0)['preference'] > 0.1


def test_labels_that_are_unseen_or_alike_leave_an_expert_as_trained():
  rng = np.random.default_rng(2)
  start, trained = rng.normal(size=(2, 2, 100))
  unseen = np.full(100, -1)
  label = log_of(start[0] > 0, unseen)
  assert kept_shares(scores(*start), scores(*trained), label, BOTH, 0.0)['qualification'] == 1
  assert set(kept_shares(scores(*start), scores(*trained), label, BOTH[:1], 0.0)) == {'preference'}
  some = np.where(np.arange(100) < 50, unseen, start[1] > 0)  # the unseen half says the opposite
  start[1, :50] *= -1
  found = kept_shares(scores(*start), scores(*trained), log_of(start[0] > 0, some), BOTH, 0.0)
  assert found['qualification'] < 0.01


def test_parameters_in_between_score_in_between(start_and_trained):
  apply, start, trained = start_and_trained
  s, t = apply(start), apply(trained)
  shares = {'preference': 0.25, 'qualification': 0.75}
  # What both experts share is the trained one's, so that the start says the same with it.
  np.testing.assert_allclose(apply(shrunk(start, trained, dict.fromkeys(BOTH, 0.0))), s, atol=1e-5)
  found = apply(shrunk(start, trained, shares))
  a = np.array([*shares.values()])
  np.testing.assert_allclose(found, (1 - a) * s + a * t, atol=1e-5)
  assert np.abs(s - t).max(axis=(0, 1)).min() > 0.1
  alone = apply(shrunk(start, trained, {'qualification': 0.0}))
  np.testing.assert_array_equal(alone[..., 0], t[..., 0])


def test_no_more_than_enough_labelled_pairs_are_scored():
  label = np.where(np.arange(40_000) % 2, 1, -1)
  log = log_of(label, np.full(40_000, -1))
  found = some_labelled(log, BOTH)
  assert len(found) == 5000 and (found.preference == 1).all()
  assert len(some_labelled(log, ('qualification',))) == 0


@pytest.fixture
def start_and_trained():
  """(parameters -> [B, J, 2] scores, a start whose heads say 0, parameters moved from it)."""
  rng = np.random.default_rng(3)
  model = JobRec(JobRecConfig(
      DecoderConfig(vocab_size=64, width=16, layers=1, heads=2, kv_heads=2, head_width=8,
                    mlp_width=16), head_widths=(8,), numbers=6, matched=2))
  lists = (rng.integers(3, 64, (3, 5)), rng.integers(3, 64, (3, 4, 5)),
           rng.integers(3, 64, (3, 4, 2)), rng.normal(size=(3, 4, 6)).astype(np.float32))
  start = nn.unbox(jax.jit(model.init)(jax.random.key(0), *lists)['params'])
  keys = iter(jax.random.split(jax.random.key(1), 1000))
  start = start | {name: 0.3 * jax.random.normal(next(keys), start[name].shape)
                   for name in ('number_weights', 'match')} | {
                       'number_scale': jnp.ones_like(start['number_scale'])}
  trained = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), start)
  trained = trained | {'number_scale': start['number_scale']}
  apply = jax.jit(lambda params: model.apply({'params': params}, *lists).scores)
  return apply, start, trained
