"""Verdicts as learned vectors, against text models whose readouts were changed by hand."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig

DECODER = DecoderConfig(
  vocab_size=50, width=16, layers=2, heads=4, kv_heads=2, head_width=4, mlp_width=24
)
CONFIGS = {
  'exact': JobRecConfig(DECODER, head_widths=(8,), verdicts=9),
  'factored': JobRecConfig(
    DECODER, head_widths=(8,), verdicts=9, attention='factored', job_start=6, pair_start=11),
}
B, J = 2, 3
RNG = np.random.default_rng(0)
CANDIDATE = RNG.integers(1, 50, (B, 6)).astype(np.int32)
JOB = RNG.integers(1, 50, (B, J, 5)).astype(np.int32)
# Codes of three fields, 3 * field + verdict; one pair lacks its last field.
CODES = (3 * np.arange(3) + RNG.integers(0, 3, (B, J, 3))).astype(np.int32)
CODES[0, 1, 2] = PAD
CODES[CODES == 8] = 7  # one code that no pair has


@pytest.fixture(scope='module', params=CONFIGS)
def model_and_params(request):
  model = JobRec(CONFIGS[request.param])
  init = jax.jit(model.init)
  return model, nn.unbox(init(jax.random.key(0), CANDIDATE, JOB, CODES))['params']


def test_new_vectors_say_nothing(model_and_params):
  model, params = model_and_params
  score = jax.jit(model.apply)
  np.testing.assert_array_equal(score({'params': params}, CANDIDATE, JOB, CODES).scores,
                                score({'params': params}, CANDIDATE, JOB, CODES * 0 + PAD).scores)


def test_vectors_join_the_readouts_of_their_pair(model_and_params):
  model, params = model_and_params
  vectors = jax.random.normal(jax.random.key(1), params['verdicts'].shape)
  out = jax.jit(model.apply)({'params': params | {'verdicts': vectors}}, CANDIDATE, JOB, CODES)
  of_text = jax.jit(JobRec(dataclasses.replace(model.config, verdicts=0)).apply)
  plain = {name: x for name, x in params.items() if name != 'verdicts'}
  for b, j in np.ndindex(B, J):
    said = [vectors[:, code] for code in CODES[b, j] if code != PAD]
    changed = plain | {'readouts': params['readouts'] + sum(said)}
    pair = of_text({'params': changed}, CANDIDATE[b:b + 1], JOB[b:b + 1, j:j + 1],
                   CODES[b:b + 1, j:j + 1, :0])
    np.testing.assert_allclose(out.hidden[b, j], pair.hidden[0, 0], atol=1e-5)
    np.testing.assert_allclose(out.scores[b, j], pair.scores[0, 0], atol=1e-5)


def test_vectors_that_were_met_learn_for_their_own_expert(model_and_params):
  model, params = model_and_params
  grad = jax.jit(jax.grad(lambda p: jnp.sum(
    model.apply({'params': p}, CANDIDATE, JOB, CODES).scores[..., 0] ** 2)))
  found = np.abs(grad(params)['verdicts']).sum(-1)
  met = np.isin(np.arange(9), CODES)
  np.testing.assert_array_equal(found[0] > 0, met)
  assert not found[1].any()


def test_every_field_with_a_verdict_needs_its_place(dataset, tokenizer):
  blocks = BlockEncoder(dataset, tokenizer, BlockFormat(40, 24, 5, 'vectors'))
  with pytest.raises(ValueError, match=r"tokenizer.alignment: .* hold the schema's \d+ fields with "
                     'verdicts, got 5'):
    blocks.alignments(np.zeros(1, int), np.zeros(1, int))


def test_a_negative_number_of_codes_fails():
  with pytest.raises(ValueError, match='verdicts must be an integer of at least 0, got -3'):
    JobRecConfig(DECODER, verdicts=-3)
