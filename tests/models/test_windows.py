"""Sliding windows and the rest of Gemma 3: lists against transformers on each pair alone."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import Decoder
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from tests.reference.gemma_torch import gemma_params, gemma_sizes, random_gemma
from tests.reference.llama_torch import to_torch

DECODER = gemma_sizes()
CONFIG = JobRecConfig(DECODER, head_widths=(8,))
B, J, E = 2, 3, 2


def blocks():
  """Every pair is several windows long; padding stands anywhere."""
  rng = np.random.default_rng(0)
  out = [rng.integers(1, 50, s).astype(np.int32) for s in ((B, 9), (B, J, 8), (B, J, 6))]
  for x in out:
    x[..., 1:][rng.random(x[..., 1:].shape) < 0.25] = PAD
  return out


BLOCKS = blocks()
JOB_FIRST = np.stack([BLOCKS[0], BLOCKS[0][::-1], BLOCKS[0]], axis=1), BLOCKS[1][:, 0], BLOCKS[2]


@functools.cache
def apply(model):
  return jax.jit(model.apply)


@pytest.fixture(scope='module')
def reference():
  """A Gemma, and a model around its weights with readouts of its own."""
  gemma = random_gemma(DECODER)
  made = nn.unbox(jax.jit(JobRec(CONFIG).init)(jax.random.key(0), *BLOCKS))['params']
  return gemma, made | {'decoder': gemma_params(gemma, DECODER)}


def in_torch(gemma, rows, params, e):
  """Last hidden state of one pair, read as a plain sequence with the readout of an expert."""
  text = np.concatenate(rows)
  readout = to_torch(params['readouts'])[e:e + 1] * DECODER.width**0.5
  with torch.no_grad():
    embedded = torch.cat([gemma.model.embed_tokens(to_torch(text[text != PAD]).long()), readout])
    return gemma.model(inputs_embeds=embedded[None]).last_hidden_state[0, -1].numpy()


@pytest.mark.parametrize('unroll', [1, 3])
@pytest.mark.parametrize('layout', ['candidate-first', 'job-first'])
def test_lists_equal_transformers_on_each_pair(reference, layout, unroll):
  gemma, params = reference
  candidate, job, alignment = BLOCKS if layout == 'candidate-first' else JOB_FIRST
  model = JobRec(dataclasses.replace(CONFIG, decoder=dataclasses.replace(DECODER, unroll=unroll)))
  hidden = apply(model)({'params': params}, candidate, job, alignment).hidden
  for b, j, e in np.ndindex(B, J, E):
    rows = (candidate[b], job[b, j]) if candidate.ndim == 2 else (job[b], candidate[b, j])
    expected = in_torch(gemma, (*rows, alignment[b, j]), params, e)
    np.testing.assert_allclose(hidden[b, j, e], expected, atol=1e-4)


def test_logits_equal_transformers(reference):
  gemma, params = reference
  tokens = np.random.default_rng(1).integers(0, 50, (2, 23)).astype(np.int32)
  with torch.no_grad():
    expected = gemma(to_torch(tokens).long()).logits.numpy()

  def logits(config):
    decoder = Decoder(config)
    hidden = jax.jit(decoder.apply)({'params': params['decoder']}, tokens)
    return decoder.apply({'params': params['decoder']}, hidden, method='logits')

  np.testing.assert_allclose(logits(DECODER), expected, atol=1e-4)
  # Each of these has a say.
  for change in ({'window': 4}, {'global_every': 2}, {'local_rope_base': 5e4}, {'rope_base': 1e4}):
    other = np.abs(logits(dataclasses.replace(DECODER, **change)) - expected).max(axis=(0, 2))
    assert other[5:].min() > 1e-3, change
  narrower = logits(dataclasses.replace(DECODER, window=4))
  np.testing.assert_allclose(narrower[:, :4], expected[:, :4], atol=1e-4)  # not yet closed


def test_items_are_blind_to_each_other(reference):
  _, params = reference
  candidate, job, alignment = BLOCKS
  before = apply(JobRec(CONFIG))({'params': params}, candidate, job, alignment).scores
  job, alignment = job.copy(), alignment.copy()
  job[:, 1], alignment[:, 1] = 7, 9
  after = apply(JobRec(CONFIG))({'params': params}, candidate, job, alignment).scores
  np.testing.assert_array_equal(before[:, [0, 2]], after[:, [0, 2]])
  assert np.abs(before[:, 1] - after[:, 1]).min() > 0


def test_gradients_of_lists_equal_those_of_pairs(reference):
  """A list of J items against J lists of one, whose rows are summed."""
  _, params = reference
  candidate, job, alignment = BLOCKS
  weights = np.sin(1.0 + np.arange(B * J * E)).reshape(B, J, E)
  each = np.repeat(candidate[:, None], J, axis=1)

  def gradient(*data):
    run = jax.grad(lambda p: jnp.sum(weights * JobRec(CONFIG).apply({'params': p}, *data).scores))
    return jax.jit(run)(params)

  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
               gradient(candidate, job, alignment), gradient(each, job, alignment))


def test_phrases_enter_as_rows_of_the_table(reference):
  _, params = reference
  model = JobRec(dataclasses.replace(CONFIG, words=45, phrases=5))
  table = params['decoder']['embedding']
  ours = apply(model)({'params': params | {'phrases': table[45:]}}, *BLOCKS).scores
  plain = apply(JobRec(CONFIG))({'params': params}, *BLOCKS).scores
  np.testing.assert_array_equal(ours, plain)


def test_factored_attention_needs_windows_that_hold_all(reference):
  _, params = reference
  factored = dataclasses.replace(CONFIG, attention='factored', job_start=9, pair_start=17)

  def score(**changes):
    decoder = dataclasses.replace(DECODER, **changes)
    model = JobRec(dataclasses.replace(factored, decoder=decoder))
    return apply(model)({'params': params}, *BLOCKS).scores

  with pytest.raises(ValueError, match=r'within the window of 24 tokens .* got 25; shorten'):
    score(window=24)
  # A window as wide as the blocks changes nothing but which rotary base a layer has.
  np.testing.assert_allclose(score(window=25), score(window=1000), atol=1e-6)
  assert np.isfinite(score(window=25)).all()


@pytest.mark.parametrize(('key', 'value'), [
  ('window', -1), ('window', 2.0), ('global_every', -1), ('global_every', True),
  ('local_rope_base', 1.0), ('activation', 'relu'),
])
def test_config_errors_name_key_allowed_and_got(key, value):
  with pytest.raises(ValueError, match=f'decoder {key} must be .*got {value!r}'):
    dataclasses.replace(DECODER, **{key: value})


def test_parameters_have_the_layout_of_the_reference(reference):
  made = nn.unbox(jax.eval_shape(Decoder(DECODER).init, jax.random.key(0), BLOCKS[0]))['params']
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, reference[1]['decoder'])
