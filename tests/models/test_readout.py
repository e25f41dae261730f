"""One last token whose state all experts' heads read, against a model of one expert."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import LoraConfig

DECODER = DecoderConfig(
  vocab_size=50, width=16, layers=2, heads=4, kv_heads=2, head_width=4, mlp_width=24
)
CONFIGS = {
  'exact': JobRecConfig(DECODER, head_widths=(8,), readout='last_token'),
  'factored, vectors': JobRecConfig(
    DECODER, head_widths=(8,), readout='last_token', verdicts=9, attention='factored', job_start=6,
    pair_start=11),
  'shared adapters': JobRecConfig(
    dataclasses.replace(DECODER, lora=LoraConfig(2)), head_widths=(8,), readout='last_token'),
}
B, J = 2, 3
RNG = np.random.default_rng(0)
LISTS = (RNG.integers(1, 50, (B, 6)), RNG.integers(1, 50, (B, J, 5)), RNG.integers(0, 9, (B, J, 3)))


@pytest.mark.parametrize('name', CONFIGS)
def test_all_heads_read_the_state_of_one_last_token(name):
  config = CONFIGS[name]
  params = nn.unbox(jax.jit(JobRec(config).init)(jax.random.key(0), *LISTS))['params']
  assert params['readouts'].shape == (1, 16)
  if config.verdicts:
    params['verdicts'] = jax.random.normal(jax.random.key(1), params['verdicts'].shape)
    assert params['verdicts'].shape == (1, 9, 16)
  out = jax.jit(JobRec(config).apply)({'params': params}, *LISTS)
  assert out.hidden.shape == (B, J, 2, 16) and out.scores.shape == (B, J, 2)
  for e, expert in enumerate(config.experts):
    alone = dataclasses.replace(config, experts=(expert,), readout='expert_tokens')
    one = jax.jit(JobRec(alone).apply)({'params': params}, *LISTS)
    np.testing.assert_allclose(out.hidden[:, :, e], one.hidden[:, :, 0], atol=1e-6)
    np.testing.assert_allclose(out.scores[..., e], one.scores[..., 0], atol=1e-6)
  assert np.abs(out.scores[..., 0] - out.scores[..., 1]).max() > 1e-3


def test_a_readout_that_is_none_and_one_for_experts_apart():
  with pytest.raises(ValueError, match=r"readout must be .* or 'last_token', got 'cls'"):
    JobRecConfig(DECODER, readout='cls')
  apart = dataclasses.replace(DECODER, lora=LoraConfig(2, per_expert=True))
  with pytest.raises(ValueError, match=r"readout must be 'expert_tokens' .* got 'last_token'"):
    JobRecConfig(apart, readout='last_token')
