"""Factored attention against PyTorch's Llama under an explicit mask, and its stored states."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import LoraConfig, merge
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

DECODER = DecoderConfig(
  vocab_size=50, width=24, layers=3, heads=4, kv_heads=2, head_width=8, mlp_width=40
)
CONFIG = JobRecConfig(DECODER, head_widths=(8,), attention='factored', job_start=7, pair_start=12)
B, J, LENGTHS = 2, 3, (6, 5, 4)


def tokens(shape, seed):
  """Random tokens with padding at random places, at least two tokens in each row."""
  rng = np.random.default_rng(seed)
  x = rng.integers(1, DECODER.vocab_size, shape)
  x[..., 2:][rng.random(x[..., 2:].shape) < 0.3] = PAD
  return x.astype(np.int32)


CANDIDATE, JOB, ALIGNMENT = (
  tokens((B, LENGTHS[0]), 0), tokens((B, J, LENGTHS[1]), 1), tokens((B, J, LENGTHS[2]), 2))


def make(config, seed=0):
  model = JobRec(config)
  init = jax.jit(model.init)
  return model, nn.unbox(init(jax.random.key(seed), CANDIDATE, JOB, ALIGNMENT))['params']


compiled = functools.cache(lambda model: jax.jit(model.apply))


def run(model, params, *blocks):
  return compiled(model)({'params': params}, *blocks)


@pytest.fixture(scope='module')
def reference():
  llama = random_llama(DECODER)
  model, params = make(CONFIG)
  return llama, model, params | {'decoder': decoder_params(llama, DECODER)}


def read_in_torch(llama, params, u, j):
  """One pair as a plain sequence: no padding, positions and mask written out."""
  parts = [x[x != PAD] for x in (CANDIDATE[u], JOB[u, j], ALIGNMENT[u, j])]
  sizes = [len(p) for p in parts] + [2]
  part = np.repeat(np.arange(4), sizes)  # candidate, job, alignment, readouts
  order = np.arange(len(part))
  sees = (order[:, None] >= order) & ((part[:, None] == part) | (part[:, None] >= 2))
  readouts = part == 3
  sees[np.ix_(readouts, readouts)] = np.eye(2, dtype=bool)
  start = np.array([0, CONFIG.job_start, CONFIG.pair_start, CONFIG.pair_start + sizes[2]])
  within = order - np.concatenate([[0], np.cumsum(sizes)])[part]
  position = start[part] + np.where(readouts, 0, within)
  embedded = torch.cat([llama.model.embed_tokens(to_torch(np.concatenate(parts)).long()),
                        to_torch(params['readouts'])])
  mask = torch.where(to_torch(sees), 0.0, torch.finfo(torch.float32).min)[None, None]
  with torch.no_grad():
    out = llama.model(inputs_embeds=embedded[None], position_ids=to_torch(position)[None],
                      attention_mask=mask).last_hidden_state
  return out[0, -2:].numpy()


def test_pairs_equal_torch_under_the_same_mask(reference):
  llama, model, params = reference
  hidden = run(model, params, CANDIDATE, JOB, ALIGNMENT).hidden
  for u in range(B):
    for j in range(J):
      np.testing.assert_allclose(hidden[u, j], read_in_torch(llama, params, u, j), atol=2e-5)


def test_stored_states_serve_any_partner(reference):
  _, model, params = reference
  whole = run(model, params, CANDIDATE, JOB, ALIGNMENT)
  encode = jax.jit(model.apply, static_argnames=('method', 'side'))
  left = encode({'params': params}, CANDIDATE, side='candidate', method='encode')
  right = encode({'params': params}, JOB.reshape(-1, LENGTHS[1]), side='job', method='encode')
  # Every job was encoded once, in a batch of strangers; here each list names its own.
  rows = np.arange(B * J).reshape(B, J)
  score = jax.jit(functools.partial(model.apply, method='score_pairs'))
  out = score({'params': params}, left, CANDIDATE != PAD, right, rows, JOB != PAD, ALIGNMENT)
  np.testing.assert_allclose(out.hidden, whole.hidden, atol=1e-5)
  np.testing.assert_allclose(out.scores, whole.scores, atol=1e-5)
  other = score(
    {'params': params}, left, CANDIDATE != PAD, right, rows[::-1], JOB[::-1] != PAD, ALIGNMENT)
  expected = run(model, params, CANDIDATE, JOB[::-1], ALIGNMENT)
  np.testing.assert_allclose(other.scores, expected.scores, atol=1e-5)
  # Kept as bits, they are the same numbers as bfloat16.
  less = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (left, right))
  bits = jax.tree.map(lambda x: jax.lax.bitcast_convert_type(x, jnp.uint16), less)
  for a, b in zip(*(jax.tree.leaves(score({'params': params}, states[0], CANDIDATE != PAD,
                                          states[1], rows, JOB != PAD, ALIGNMENT))
                    for states in (less, bits))):
    np.testing.assert_array_equal(a, b)
    assert np.abs(a).max() > 0.01


def test_gradients_flow_through_all_three_blocks(reference):
  _, model, params = reference
  grads = jax.jit(jax.grad(
      lambda p: jnp.sum(run(model, p, CANDIDATE, JOB, ALIGNMENT).scores ** 2)))(params)
  embedding = np.abs(grads['decoder']['embedding']).sum(1)
  for block in (CANDIDATE, JOB, ALIGNMENT):
    assert (embedding[np.unique(block[block != PAD])] > 0).all()
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_a_list_of_one_candidate_each_equals_a_shared_candidate(reference):
  _, model, params = reference
  shared = run(model, params, CANDIDATE, JOB, ALIGNMENT)
  each = np.repeat(CANDIDATE[:, None], J, axis=1)
  np.testing.assert_allclose(run(model, params, each, JOB, ALIGNMENT).scores, shared.scores,
                             atol=1e-5)


def test_a_shared_job_equals_one_job_each(reference):
  _, model, params = reference
  candidates = np.stack([CANDIDATE, CANDIDATE[::-1], CANDIDATE], axis=1)
  each = np.repeat(JOB[:, :1], J, axis=1)
  expected = run(model, params, candidates, each, ALIGNMENT).scores
  shared = run(model, params, candidates, JOB[:, 0], ALIGNMENT).scores
  np.testing.assert_allclose(shared, expected, atol=1e-5)


@pytest.mark.parametrize('attention', ['exact', 'factored'])
def test_adapters_of_an_expert_equal_its_merged_decoder(attention):
  lora = LoraConfig(rank=3, alpha=6, targets=('q', 'v', 'down'), per_expert=True)
  config = dataclasses.replace(CONFIG, attention=attention,
                               decoder=dataclasses.replace(DECODER, lora=lora))
  model, params = make(config)
  rng = np.random.default_rng(0)
  params['lora'] = jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32),
                                params['lora'])
  out = run(model, params, CANDIDATE, JOB, ALIGNMENT)
  plain = JobRec(dataclasses.replace(CONFIG, attention=attention))
  rest = {k: v for k, v in params.items() if k not in ('lora', 'decoder')}
  for expert in range(2):
    merged = run(plain, rest | {'decoder': merge(params, lora, expert)}, CANDIDATE, JOB, ALIGNMENT)
    np.testing.assert_allclose(out.scores[..., expert], merged.scores[..., expert], atol=1e-4)
  assert np.abs(out.scores[..., 0] - merged.scores[..., 0]).max() > 1e-3


@pytest.mark.parametrize(('change', 'message'), [
  ({'attention': 'sparse'}, "attention must be 'exact' or 'factored', got 'sparse'"),
  ({'job_start': 0}, 'job_start and pair_start must be 0 < job_start < pair_start'),
  ({'pair_start': 7}, 'job_start and pair_start must be 0 < job_start < pair_start'),
])
def test_bad_configs_are_named(change, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(CONFIG, **change)


def test_a_block_that_reaches_into_the_next_is_refused():
  model = JobRec(dataclasses.replace(CONFIG, job_start=5))
  with pytest.raises(ValueError, match=r'candidate blocks must be at most 5 tokens.* got 6'):
    jax.eval_shape(model.init, jax.random.key(0), CANDIDATE, JOB, ALIGNMENT)
