"""Experts start at the logistic regression of the schema's numbers, whatever the text says."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import MOST, JobRec, JobRecConfig
from jobrec_jax.pipeline.linear_start import linear_start


@pytest.fixture(scope='module')
def start(dataset, tokenizer):
  """(model, new parameters, blocks): of experts that nothing has been told yet."""
  blocks = BlockEncoder(dataset, tokenizer, BlockFormat(40, 24, 16, numbers=True))
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 2), int))
  model = JobRec(JobRecConfig(
      DecoderConfig(vocab_size=512, width=16, layers=1, heads=2, kv_heads=2, head_width=8,
                    mlp_width=16), head_widths=(8,), numbers=lists['numbers'].shape[-1]))
  params = jax.jit(model.init)(jax.random.key(0), *lists.values())['params']
  return model, nn.unbox(params), blocks


def scores(model, params, blocks, log):
  lists = blocks.candidate_lists(log.candidate, log.job[:, None])
  return np.asarray(jax.jit(model.apply)({'params': params}, *lists.values()).scores)[:, 0]


def test_scores_are_least_surprised_by_the_train_split(start, dataset):
  """The ridge's optimum: residuals have no slope in any number beyond the ridge's own."""
  model, params, blocks = start
  train = dataset.interactions.of('train')
  found = linear_start(params, blocks, train, ('preference', 'qualification'))
  scale = np.asarray(found['number_scale'])
  for e, name in enumerate(('preference', 'qualification')):
    seen = train.where(getattr(train, name) >= 0)
    z = scores(model, found, blocks, seen)[:, e].astype(np.float64)
    label = getattr(seen, name) == 1
    residual = label - expit(z)
    assert abs(residual.sum()) < 1e-2  # the intercept has no ridge
    x = np.clip(blocks.numbers(seen.candidate, seen.job) * scale, -MOST, MOST)
    coefficient = 4 * np.asarray(found['number_weights'][e], np.float64)
    np.testing.assert_allclose(residual @ x, coefficient / 0.1, atol=0.02)
    assert np.corrcoef(z, label)[0, 1] > 0.2


def test_what_has_no_labels_of_both_kinds_starts_at_nothing(start, dataset):
  _, params, blocks = start
  train = dataset.interactions.of('train')
  alone = linear_start(params, blocks, train, ('preference',))
  alike = linear_start(params, blocks, train.where(train.qualification != 0),
                       ('preference', 'qualification'))
  for found in (alone, alike):
    assert not np.asarray(found['number_weights'][1]).any()
    assert not np.asarray(found['qualification']['logit']['bias']).any()
    assert np.asarray(found['number_weights'][0]).any()
  assert not np.asarray(params['number_weights']).any()  # the old ones stay


def test_numbers_have_unit_size_over_the_log_and_constant_zeros_none(start, dataset):
  _, params, blocks = start
  train = dataset.interactions.of('train')
  scale = np.asarray(linear_start(params, blocks, train, ())['number_scale'])
  x = blocks.numbers(train.candidate, train.job)
  size = np.sqrt((x.astype(np.float64) ** 2).mean(0))
  np.testing.assert_allclose((size * scale)[size > 0], 1, rtol=1e-5)
  assert (scale[size == 0] == 0).all()
