"""Pairs in a stream: every score is the model's own, and what a call compiles, holds and leaves."""

import dataclasses
import logging
import re
import threading

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat, bucket
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.scoring import features
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.scoring.policy import Policy
from jobrec_jax.sharding import MeshConfig, make_mesh

LENGTHS = BlockFormat(40, 24, 16)  # conftest's, of `blocks`


@pytest.fixture(scope='module')
def params(model, blocks):
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  return jax.device_get(nn.unbox(model.init(jax.random.key(0), *lists.values())['params']))


@pytest.fixture(scope='module')
def experts(model, params, tokenizer):
  """attention -> experts of it."""
  starts = {'job_start': LENGTHS.candidate, 'pair_start': LENGTHS.candidate + LENGTHS.job}

  def make(attention='exact'):
    more = starts if attention == 'factored' else {}
    config = dataclasses.replace(model.config, attention=attention, **more)
    return Experts(JobRec(config), params, tokenizer, LENGTHS)
  return make


@pytest.fixture(scope='module')
def policy():
  """A policy of three knots whose lambda differs between pairs."""
  head = PolicyHead(widths=(8,), outputs=3)
  params = head.init(jax.random.key(1), *np.zeros((2, 1, 16), np.float32))['params']
  rng = np.random.default_rng(0)
  params['lambda'] = {'kernel': rng.normal(size=(8, 3)).astype(np.float32),
                      'bias': np.array([0.0, 1.0, 2.0], np.float32)}
  return Policy(head, params, np.array([0.4, 0.5, 0.6], np.float32), 1.0)


@pytest.mark.parametrize('attention', ['exact', 'factored'])
@pytest.mark.parametrize('batch', [6, 16])
def test_features_equal_the_model_pair_by_pair(experts, blocks, batch, attention):
  """Also where batches are rounded up to the devices."""
  rng = np.random.default_rng(0)
  candidate = rng.integers(0, 12, (9, 5))
  job = rng.integers(0, 20, (9, 5))  # scattered, with repeats and candidates of many jobs
  scorer = PairScorer(experts(attention), blocks, make_mesh(MeshConfig()), ScoringConfig(3, batch))
  said = scorer.features(candidate, job)
  lists = blocks.candidate_lists(candidate.ravel(), job.ravel()[:, None])
  direct = experts(attention).model.apply({'params': experts().params}, *lists.values())
  np.testing.assert_allclose(said.hidden, direct.hidden.reshape(9, 5, 2, -1), atol=1e-5)
  np.testing.assert_allclose(said.preference, direct.scores[..., 0].reshape(9, 5), atol=1e-5)
  np.testing.assert_allclose(said.qualification, direct.scores[..., 1].reshape(9, 5),
                             atol=1e-5)
  np.testing.assert_array_equal(said[2].hidden, said.hidden[2])


@pytest.mark.parametrize('attention', ['exact', 'factored'])
def test_numbers_of_each_pair_reach_its_scores(model, params, dataset, tokenizer, attention):
  """By both ways to score, whatever lists the pairs come in."""
  form = dataclasses.replace(LENGTHS, numbers=True)
  blocks = BlockEncoder(dataset, tokenizer, form)
  x = blocks.numbers(*np.indices((12, 20)))
  rows = np.random.default_rng(0).normal(size=(2, x.shape[-1], 16)).astype(np.float32)
  scale = (1 / np.maximum(np.sqrt((x ** 2).mean((0, 1))), 1)).astype(np.float32)
  starts = {'job_start': form.candidate, 'pair_start': form.candidate + form.job}
  config = dataclasses.replace(model.config, attention=attention, numbers=x.shape[-1],
                               **starts if attention == 'factored' else {})
  given = Experts(JobRec(config), params | {
      'numbers': rows, 'number_weights': rows[..., 0], 'number_scale': scale}, tokenizer,
                  form)
  rng = np.random.default_rng(1)
  candidate, job = rng.integers(0, 12, (9, 5)), rng.integers(0, 20, (9, 5))
  scorer = PairScorer(given, given.blocks(dataset), make_mesh(MeshConfig()), ScoringConfig(3, 16))
  said = scorer.features(candidate, job)
  lists = blocks.candidate_lists(candidate.ravel(), job.ravel()[:, None])
  assert set(lists) == {'candidate', 'job', 'alignment', 'numbers'}
  direct = given.model.apply({'params': given.params}, *lists.values())
  np.testing.assert_allclose(said.hidden, direct.hidden.reshape(9, 5, 2, -1), atol=1e-4)
  for i, name in enumerate(('preference', 'qualification')):
    np.testing.assert_allclose(getattr(said, name), direct.scores[..., i].reshape(9, 5), atol=1e-4)
  silent = dataclasses.replace(given, params=given.params | {
      'numbers': 0 * rows, 'number_weights': 0 * rows[..., 0]})
  other = PairScorer(silent, blocks, make_mesh(MeshConfig()), ScoringConfig(3, 16))
  assert abs(other.scores(candidate, job).preference - said.preference).min() > 1e-4


@pytest.mark.parametrize('attention', ['exact', 'factored'])
def test_lambda_is_the_heads_on_the_hidden_states(experts, blocks, policy, one_device, attention):
  """Though hidden states stay on the device."""
  scorer = PairScorer(experts(attention), blocks, one_device, ScoringConfig(6, 2))
  pairs = np.indices((7, 20))
  full, said = scorer.features(*pairs), scorer.policy_scores(policy, *pairs)
  lam = policy.head.apply({'params': policy.params}, full.hidden[..., 0, :], full.hidden[..., 1, :])
  assert said.lam.shape == (7, 20, 3) and np.std(lam[..., 0]) > 0.01
  np.testing.assert_allclose(said.lam, lam, atol=1e-5)
  bare = scorer.scores(*pairs)
  assert bare.lam is None
  for name in ('preference', 'qualification'):
    np.testing.assert_allclose(getattr(said, name), getattr(full, name), atol=1e-5)
    np.testing.assert_allclose(getattr(bare, name), getattr(full, name), atol=1e-5)


@pytest.mark.parametrize('count', [0, 1, 7, 8, 9, 15, 16, 17, 40])
def test_every_number_of_pairs_is_scored(experts, blocks, one_device, count):
  """At the borders of lists and batches nothing is lost, doubled or moved."""
  scorer = PairScorer(experts(), blocks, one_device, ScoringConfig(4, 4))
  rng = np.random.default_rng(count)
  candidate, job = rng.integers(0, 2, count), rng.integers(0, 20, count)
  whole = scorer.scores(*np.indices((2, 20)))
  said = scorer.scores(candidate, job)
  assert said.preference.shape == (count,)
  np.testing.assert_allclose(said.preference, whole.preference[candidate, job], atol=1e-5)
  np.testing.assert_allclose(said.qualification, whole.qualification[candidate, job], atol=1e-5)


def test_requests_of_any_size_share_few_programs(model, dataset, tokenizer, params, one_device,
                                                 monkeypatch):
  """Three sizes of batches, for each length of jobs that enough pairs have."""
  monkeypatch.setattr(features, 'WORTH', 10)
  lengths = BlockFormat(candidate=440, job=300, alignment=16)
  blocks = BlockEncoder(dataset, tokenizer, lengths)
  scorer = PairScorer(Experts(model, params, tokenizer, lengths), blocks, one_device,
                      ScoringConfig(5, 16))
  shares = len(np.unique(bucket(blocks.jobs)))
  features._score.clear_cache()
  sizes = {len(batch.kept) for count in range(1, 41)
           for batch in scorer._batches(np.arange(count) * 20)}  # lists of a candidate each
  assert sizes == {1, 4, 16}
  scorer.scores(*np.mgrid[:20, :20])
  assert features._score._cache_size() >= shares > 1
  rng = np.random.default_rng(0)
  for size in (1, 7, 33, 120):
    scorer.scores(rng.integers(0, 6, size), rng.integers(0, 20, size))
  assert features._score._cache_size() <= 3 * shares


def test_jobs_are_padded_to_a_share_of_the_longest(experts, blocks, one_device, monkeypatch):
  """Where there are enough of a length; few go with longer ones."""
  monkeypatch.setattr(features, 'WORTH', 4)
  scorer = PairScorer(experts(), blocks, one_device, ScoringConfig(2, 4))
  used = np.array([(row != PAD).sum() for row in blocks.jobs])
  for candidates in (1, 30):
    pairs = np.arange(candidates * 20)
    parts = list(scorer._by_width(pairs))
    np.testing.assert_array_equal(np.sort(np.concatenate([rows for _, rows in parts])), pairs)
    for width, rows in parts:
      assert (used[pairs[rows] % 20] <= width).all()
      assert len(rows) >= 4 or len(parts) == 1 or width == blocks.jobs.shape[1]
    assert [w for w, _ in parts] == sorted({w for w, _ in parts})
  assert len(parts) == len(np.unique(bucket(blocks.jobs)))


@pytest.mark.parametrize('attention', ['exact', 'factored'])
def test_a_warm_call_compiles_nothing(experts, blocks, policy, one_device, attention, caplog):
  scorer = PairScorer(experts(attention), blocks, one_device, ScoringConfig(4, 4))

  def compiled(call):
    caplog.clear()
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
      call()
    return [r.getMessage() for r in caplog.records if 'Compiling' in r.getMessage()]
  features._score.clear_cache()
  features._score_kept.clear_cache()
  pairs = np.indices((3, 20))
  assert compiled(lambda: scorer.policy_scores(policy, *pairs))
  assert not compiled(lambda: scorer.policy_scores(policy, *pairs))
  assert not compiled(lambda: scorer.policy_scores(policy, pairs[0] + 3, pairs[1]))


def test_jobs_are_encoded_once(experts, blocks, one_device, monkeypatch):
  sides = []

  def counting(model, params, tokens, side):
    sides.append(side)
    return encode(model, params, tokens, side)
  encode = features.encode_blocks
  monkeypatch.setattr(features, 'encode_blocks', counting)
  scorer = PairScorer(experts('factored'), blocks, one_device, ScoringConfig(4, 4))
  first = scorer.scores(*np.indices((2, 20)))
  assert 'job' in sides
  sides.clear()
  some = scorer.scores(np.ones(3, int), np.array([3, 5, 9]))
  assert 'job' not in sides
  np.testing.assert_allclose(some.preference, first.preference[1, [3, 5, 9]], atol=1e-5)
  others = dataclasses.replace(blocks._dataset, jobs=blocks._dataset.jobs[::-1])
  turned = scorer.with_blocks(experts().blocks(others)).scores(*np.indices((2, 20)))
  assert 'job' in sides
  np.testing.assert_allclose(turned.preference[:, ::-1], first.preference, atol=1e-5)


@pytest.mark.parametrize('where', ['host', 'device'])
def test_an_error_ends_the_thread_and_is_raised(experts, blocks, one_device, where, monkeypatch):
  scorer = PairScorer(experts(), blocks, one_device, ScoringConfig(2, 1))
  calls = []

  def fail(*args):
    calls.append(args)
    if len(calls) == 3:
      raise ValueError('the third fails')
    return work(*args)
  target = (BlockEncoder, 'alignments') if where == 'host' else (features, '_score')
  work = getattr(*target)
  monkeypatch.setattr(*target, fail)
  before = threading.active_count()
  with pytest.raises(ValueError, match='the third fails'):
    scorer.scores(*np.indices((3, 20)))
  assert threading.active_count() == before
  assert len(calls) < 8  # of 30 batches


def test_scores_that_are_not_numbers_are_named(experts, blocks, one_device):
  broken = experts()
  heads = broken.params['qualification'] | {}
  heads = jax.tree.map(lambda x: x * np.nan, heads)
  broken = dataclasses.replace(broken, params=broken.params | {'qualification': heads})
  scorer = PairScorer(broken, blocks, one_device, ScoringConfig(2, 1))
  with pytest.raises(ValueError, match=r'scores must be finite, got \[.*nan\] for candidate 4 and'
                                       ' job 7'):
    scorer.scores(np.array([4]), np.array([7]))


@pytest.mark.parametrize('candidate, job, message', [
    ([0, 60], [0, 0], r'candidate indices must lie in \[0, 60\), got 0 to 60'),
    ([0, 1], [-1, 2], r'job indices must lie in \[0, 20\), got -1 to 2'),
    ([0, 1], [1], r'of one shape, got \(2,\) and \(1,\)')])
def test_indices_are_checked(experts, blocks, one_device, candidate, job, message):
  scorer = PairScorer(experts(), blocks, one_device)
  with pytest.raises(ValueError, match=message):
    scorer.scores(np.array(candidate), np.array(job))


@pytest.mark.parametrize('change, message', [
    ({'list_length': 0}, 'list_length must be an integer at least 1, got 0'),
    ({'batch': 2.5}, 'batch must be an integer at least 1, got 2.5'),
    ({'states': 3}, 'states must be text')])
def test_settings_are_checked(change, message):
  with pytest.raises(ValueError, match=message):
    ScoringConfig(**change)


def test_states_are_kept_with_factored_attention_alone(experts, blocks, one_device, tmp_path):
  with pytest.raises(ValueError, match=r"features\.states: allowed with .*='factored'"):
    PairScorer(experts(), blocks, one_device, ScoringConfig(states=str(tmp_path)))


def test_progress_says_what_compiles_and_the_time_left_behind_it(
    experts, blocks, one_device, caplog, monkeypatch):
  monkeypatch.setattr(features, '_PROGRAMS', set())
  scorer = PairScorer(experts(), blocks, one_device, ScoringConfig(2, 1))
  pairs = np.indices((12, 4))

  def told():
    caplog.clear()
    with caplog.at_level(logging.INFO, 'absl'):
      scorer.scores(*pairs, 'pairs')
    return [re.sub(r'about \d+ (s|min) left', 'LEFT', r.getMessage()) for r in caplog.records
            if r.getMessage().startswith('pairs: ')]
  progress = [f'pairs: {n} lists of 2 jobs scored, of 48 pairs, LEFT' for n in (10, 20)]
  assert told() == [
      f'pairs: compiling for job blocks of {blocks.jobs.shape[1]} tokens', *progress]
  assert told() == progress
