"""Phrases: tokens with embeddings of their own, against a decoder whose table has these rows."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.phrases import phrase_embeddings

WORDS, PHRASES = 30, 5
DECODER = DecoderConfig(
  vocab_size=40, width=16, layers=2, heads=4, kv_heads=2, head_width=4, mlp_width=24
)
# Padded tables, as Qwen's, have rows beyond the tokenizer's words; no phrase reads them.
CONFIG = JobRecConfig(DECODER, head_widths=(8,), words=WORDS, phrases=PHRASES)
RNG = np.random.default_rng(0)
CANDIDATE, JOB, ALIGNMENT = (RNG.integers(0, WORDS + PHRASES, shape).astype(np.int32)
                             for shape in ((2, 6), (2, 3, 5), (2, 3, 4)))
JOB[0, 1, 3:] = PAD
JOB[JOB == WORDS + 2] = CANDIDATE[CANDIDATE == WORDS + 2] = ALIGNMENT[ALIGNMENT == WORDS + 2] = 7
LISTS = CANDIDATE, JOB, ALIGNMENT


@pytest.fixture(scope='module')
def params():
  return nn.unbox(jax.jit(JobRec(CONFIG).init)(jax.random.key(0), *LISTS))['params']


def test_a_phrase_is_a_row_of_its_own(params):
  table = params['decoder']['embedding'].at[WORDS:WORDS + PHRASES].set(params['phrases'])
  plain = {k: v for k, v in params.items() if k != 'phrases'}
  plain['decoder'] = plain['decoder'] | {'embedding': table}
  of_words = JobRec(dataclasses.replace(CONFIG, words=0, phrases=0))
  np.testing.assert_array_equal(jax.jit(JobRec(CONFIG).apply)({'params': params}, *LISTS).scores,
                                jax.jit(of_words.apply)({'params': plain}, *LISTS).scores)


def test_phrases_that_were_met_learn_and_no_row_of_the_table_for_them(params):
  def loss(p):
    return jnp.sum(JobRec(CONFIG).apply({'params': p}, *LISTS).scores ** 2)
  grads = jax.jit(jax.grad(loss))(params)
  met = np.unique(np.concatenate([x.ravel() for x in LISTS]))
  found = np.abs(grads['phrases']).sum(-1) > 0
  np.testing.assert_array_equal(found, np.isin(WORDS + np.arange(PHRASES), met))
  assert found.any() and not found.all()
  assert not np.abs(grads['decoder']['embedding'][WORDS:]).any()


def test_phrases_start_as_the_mean_of_their_words():
  table = RNG.normal(size=(9, 4)).astype(np.float32)
  rows = phrase_embeddings(table, np.array([[3, 5, 8], [2, PAD, PAD]]))
  np.testing.assert_allclose(rows, [table[[3, 5, 8]].mean(0), table[2]], rtol=1e-6)


def test_a_negative_number_of_phrases_fails():
  with pytest.raises(ValueError, match='phrases must be an integer of at least 0, got -1'):
    JobRecConfig(DECODER, phrases=-1)
