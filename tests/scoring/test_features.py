"""Features of pairs against the model, pair by pair."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.data.tokens import BlockEncoder, BlockLengths, bucket
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.scoring import features
from jobrec_jax.scoring.features import FeatureExtractor
from jobrec_jax.sharding import MeshConfig, make_mesh


@pytest.fixture(scope='module')
def params(model, blocks):
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  return jax.device_get(nn.unbox(model.init(jax.random.key(0), *lists.values())['params']))


@pytest.mark.parametrize('attention', ['exact', 'factored'])
@pytest.mark.parametrize('batch', [8, 16])
def test_features_equal_the_model_pair_by_pair(model, blocks, params, batch, attention):
  starts = np.cumsum([blocks.candidates.shape[1], blocks.jobs.shape[1]]).tolist()
  model = JobRec(dataclasses.replace(model.config, attention=attention, job_start=starts[0],
                                     pair_start=starts[1]))
  rng = np.random.default_rng(0)
  candidate = rng.integers(0, 12, (9, 5))
  job = rng.integers(0, 20, (9, 5))  # scattered, with repeats and candidates of many jobs
  extract = FeatureExtractor(model, params, blocks, make_mesh(MeshConfig()), 3, batch)
  said = extract(candidate, job)
  lists = blocks.candidate_lists(candidate.ravel(), job.ravel()[:, None])
  direct = model.apply({'params': params}, *lists.values())
  np.testing.assert_allclose(said.hidden, direct.hidden.reshape(9, 5, 2, -1), atol=1e-5)
  np.testing.assert_allclose(said.preference, direct.scores[..., 0].reshape(9, 5), atol=1e-5)
  np.testing.assert_allclose(said.qualification, direct.scores[..., 1].reshape(9, 5),
                             atol=1e-5)
  np.testing.assert_array_equal(said[2].hidden, said.hidden[2])


def test_lengths_are_a_few_buckets(model, dataset, tokenizer, params):
  """Programs are compiled once for each bucket that occurs, and never again."""
  blocks = BlockEncoder(dataset, tokenizer, BlockLengths(candidate=440, job=300, alignment=16))
  extract = FeatureExtractor(model, params, blocks, make_mesh(MeshConfig()), 5, 8)
  pairs = np.mgrid[:6, :20]
  shares = np.maximum(bucket(blocks.candidates)[pairs[0]], bucket(blocks.jobs)[pairs[1]])
  features._score.clear_cache()
  extract(*pairs)
  assert features._score._cache_size() == len(np.unique(shares)) > 1
  rng = np.random.default_rng(0)
  for size in (1, 7, 33):
    extract(rng.integers(0, 6, size), rng.integers(0, 20, size))
  assert features._score._cache_size() == len(np.unique(shares))


def test_a_batch_that_does_not_divide_fails(model, blocks, params):
  extract = FeatureExtractor(model, params, blocks, make_mesh(MeshConfig()), 3, 6)
  with pytest.raises(ValueError, match='batch of 6 lists does not divide'):
    extract(np.zeros(2, int), np.arange(2))
