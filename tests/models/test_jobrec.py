"""Lists against the same pairs read one by one by a plain decoder, and who is blind to whom."""

import dataclasses
import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jobrec_jax.data.tokens import PAD, by_length
from jobrec_jax.models import list_attention
from jobrec_jax.models.decoder import Decoder, DecoderConfig
from jobrec_jax.models.experts import ExpertHead
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from tests.reference.llama_torch import decoder_params, random_llama, to_torch

CONFIG = JobRecConfig(
  DecoderConfig(
    vocab_size=50, width=16, layers=2, heads=4, kv_heads=2, head_width=4, mlp_width=24
  ),
  head_widths=(12, 8),
)
MODEL = JobRec(CONFIG)
B, J, E = 2, 3, 2
SCORE = jax.jit(MODEL.apply)


def blocks(padded: bool):
  """Token blocks; if padded, of several true lengths with the padding at random places.

  The pairs of a list keep one total length: the reference reads few lengths.
  """
  rng = np.random.default_rng(0)
  out = [rng.integers(1, 50, s).astype(np.int32) for s in ((B, 6), (B, J, 5), (B, J, 4))]
  lengths = [4, 6], [[3, 2], [1, 4], [5, 0]], [[4, 2], [2, 4], [5, 1]]
  if padded:
    for b in range(B):
      drop(rng, out[0][b], lengths[0][b])
      for j in range(J):
        drop(rng, out[1][b, j], lengths[1 + b][j][0])
        drop(rng, out[2][b, j], lengths[1 + b][j][1])
  return out


def drop(rng, row, keep):
  row[rng.choice(len(row), len(row) - keep, replace=False)] = PAD


@pytest.fixture(scope='module')
def variables():
  return nn.unbox(jax.jit(MODEL.init)(jax.random.key(0), *blocks(False)))


# A weight of its own for every score, so that no two gradients cancel or trade places.
WEIGHTS = np.sin(1.0 + np.arange(B * J * E)).reshape(B, J, E).astype(np.float32)


def gradient_of(model):
  """(variables, weights, *blocks) -> (sum of weighted scores, its gradient), compiled."""
  return jax.jit(
    jax.value_and_grad(lambda v, weights, *data: jnp.sum(weights * model.apply(v, *data).scores))
  )


GRADIENT = gradient_of(MODEL)


def plain_tokens(first, second, alignment, expert):
  """The pair alone, without padding; the readout is row `expert` after the vocabulary."""
  text = np.concatenate([first, second, alignment])
  return np.append(text[text != PAD], 50 + expert).astype(np.int32)


def extended(params):
  """The decoder with the readouts as rows of its vocabulary."""
  table = jnp.concatenate([params['decoder']['embedding'], params['readouts']])
  return {'params': {**params['decoder'], 'embedding': table}}


def pair_by_pair(variables, candidate, job, alignment):
  """hidden [B, J, E, D] and scores [B, J, E] from plain causal forwards of each pair alone.

  Pairs of one length are rows of one batch.
  """
  params = variables['params']
  decoder = Decoder(dataclasses.replace(CONFIG.decoder, vocab_size=50 + E))
  head = ExpertHead(CONFIG.head_widths)
  rows, hidden = {}, {}
  for b, j, e in np.ndindex(B, J, E):
    sides = (candidate[b], job[b, j]) if candidate.ndim == 2 else (job[b], candidate[b, j])
    tokens = plain_tokens(*sides, alignment[b, j], e)
    rows.setdefault(len(tokens), {})[b, j, e] = tokens
  for pairs in rows.values():
    ends = decoder.apply(extended(params), np.stack(list(pairs.values())))[:, -1]
    hidden |= zip(pairs, ends)
  hidden = jnp.stack([hidden[place] for place in np.ndindex(B, J, E)]).reshape(B, J, E, -1)
  scores = [
    head.apply({'params': params[name]}, hidden[:, :, e]) for e, name in enumerate(CONFIG.experts)
  ]
  return hidden, jnp.stack(scores, axis=-1)


def job_first(candidate, job, alignment):
  """The same blocks as lists of one job and J candidates."""
  each = np.stack([candidate, candidate[::-1], candidate], axis=1)
  return each, job[:, 0], alignment


LAYOUTS = {'candidate-first': lambda *data: data, 'job-first': job_first}


@pytest.fixture(scope='module', params=itertools.product(LAYOUTS, (False, True)), ids=str)
def case(request, variables):
  """Blocks; hidden states, scores and gradients of their pairs read one by one."""
  layout, padded = request.param
  data = LAYOUTS[layout](*blocks(padded))

  def loss(v):
    hidden, scores = pair_by_pair(v, *data)
    return jnp.sum(WEIGHTS * scores), (hidden, scores)

  (_, (hidden, scores)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables)
  return data, hidden, scores, gradient


def test_lists_equal_pairs_read_one_by_one(variables, case):
  data, hidden, scores, _ = case
  out = SCORE(variables, *data)
  np.testing.assert_allclose(out.hidden, hidden, atol=1e-5)
  np.testing.assert_allclose(out.scores, scores, atol=1e-5)


def test_gradients_of_lists_equal_those_of_pairs(variables, case):
  data, _, _, expected = case
  _, ours = GRADIENT(variables, WEIGHTS, *data)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


@pytest.mark.parametrize(('layout', 'remat'), zip(LAYOUTS, ['selective', 'none']))
def test_groups_of_one_length_equal_the_whole_list(variables, layout, remat):
  candidate, job, alignment = LAYOUTS[layout](*blocks(True))
  shared, others = (candidate, job) if layout == 'candidate-first' else (job, candidate)
  others[:, 1:, 3:] = PAD
  others, alignments, order = by_length(others, alignment)
  assert others[0].shape[2] < others[1].shape[2]
  weights = np.take_along_axis(WEIGHTS, order[..., None], 1)
  config = dataclasses.replace(CONFIG.decoder, remat=remat)
  model = JobRec(dataclasses.replace(CONFIG, decoder=config))

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def in_groups(v):
    scores = model.apply(v, shared, others, alignments, method='score_groups').scores
    return jnp.sum(weights * scores), scores

  (_, scores), ours = in_groups(variables)
  whole = SCORE(variables, candidate, job, alignment).scores
  restored = np.take_along_axis(np.asarray(scores), np.argsort(order)[..., None], 1)
  np.testing.assert_allclose(restored, whole, atol=1e-5)
  _, expected = GRADIENT(variables, WEIGHTS, candidate, job, alignment)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_groups_are_refused_where_they_do_not_fit(variables):
  candidate, job, alignment = blocks(False)
  with pytest.raises(ValueError, match=r'as many as .* others, got 1 of others and 2 of'):
    MODEL.apply(variables, candidate, (job,), (alignment, alignment), method='score_groups')
  factored = dataclasses.replace(CONFIG, attention='factored', job_start=6, pair_start=11)
  with pytest.raises(ValueError, match="must be 'exact' for score_groups, got 'factored'"):
    JobRec(factored).apply(variables, candidate, (job,), (alignment,), method='score_groups')


def test_a_side_must_differ_within_a_list(variables):
  candidate, job, alignment = blocks(False)
  with pytest.raises(ValueError, match='candidate or job must be shared by its list'):
    MODEL.apply(variables, candidate, job[:, 0], alignment)


@pytest.mark.parametrize('scores', [1, 12_000])
def test_items_in_chunks_equal_all_at_once(variables, monkeypatch, scores):
  """With a bound on the bytes of scores, items are taken one at a time, or two and the rest."""
  data = blocks(True)
  expected = GRADIENT(variables, WEIGHTS, *data)
  monkeypatch.setattr(list_attention, '_SCORES', {'cpu': scores})
  chunked = gradient_of(MODEL)(variables, WEIGHTS, *data)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), chunked, expected)


def test_lists_equal_transformers_on_each_pair(variables):
  config = dataclasses.replace(CONFIG.decoder, vocab_size=50 + E)
  llama = random_llama(config)
  params = decoder_params(llama, config)
  table = params['embedding']
  decoder = {**params, 'embedding': table[:50]}
  params = {**variables['params'], 'decoder': decoder, 'readouts': table[50:]}
  candidate, job, alignment = blocks(True)
  hidden = SCORE({'params': params}, candidate, job, alignment).hidden
  for b, j, e in np.ndindex(B, J, E):
    tokens = plain_tokens(candidate[b], job[b, j], alignment[b, j], e)
    with torch.no_grad():
      expected = llama.model(to_torch(tokens)[None].long()).last_hidden_state[0, -1]
    np.testing.assert_allclose(hidden[b, j, e], expected.numpy(), atol=1e-4)


def test_padding_has_no_say(variables):
  data = blocks(False)
  padded = [np.pad(x, [(0, 0)] * (x.ndim - 1) + [(2, 3)], constant_values=PAD) for x in data]
  out, expected = SCORE(variables, *padded), SCORE(variables, *data)
  np.testing.assert_allclose(out.scores, expected.scores, atol=1e-5)


def test_experts_are_blind_to_each_other(variables):
  data = blocks(True)
  rows = variables['params']['readouts']
  changed = {'params': {**variables['params'], 'readouts': rows.at[1].add(1.0)}}
  before, after = SCORE(variables, *data), SCORE(changed, *data)
  np.testing.assert_array_equal(before.hidden[:, :, 0], after.hidden[:, :, 0])
  assert np.abs(before.hidden[:, :, 1] - after.hidden[:, :, 1]).min(axis=-1).max() > 0


def test_items_are_blind_to_each_other(variables):
  candidate, job, alignment = blocks(True)
  before = SCORE(variables, candidate, job, alignment)
  # Copies: a jitted call may still read the arrays that it was given.
  job, alignment = job.copy(), alignment.copy()
  job[:, 1], alignment[:, 1] = 7, 9
  after = SCORE(variables, candidate, job, alignment)
  np.testing.assert_array_equal(before.hidden[:, ::2], after.hidden[:, ::2])
  assert np.abs(before.scores[:, 1] - after.scores[:, 1]).min() > 0


def test_lists_of_a_batch_are_blind_to_each_other(variables):
  candidate, job, alignment = blocks(True)
  before = SCORE(variables, candidate, job, alignment)
  candidate = candidate.copy()
  candidate[1] = 3
  after = SCORE(variables, candidate, job, alignment)
  np.testing.assert_array_equal(before.hidden[0], after.hidden[0])
  assert np.abs(before.scores[1] - after.scores[1]).min() > 0


@pytest.mark.parametrize('padded', [False, True])
def test_job_centred_equals_candidate_centred_on_the_same_pairs(variables, padded):
  candidate, job, alignment = blocks(padded)
  each = np.repeat(candidate[:, None], J, axis=1)
  listwise = SCORE(variables, candidate, job, alignment)
  pairwise = SCORE(variables, each, job, alignment)
  np.testing.assert_allclose(pairwise.hidden, listwise.hidden, atol=1e-5)
  np.testing.assert_allclose(pairwise.scores, listwise.scores, atol=1e-5)


def test_job_centred_pairs_keep_their_own_candidate(variables):
  _, job, alignment = blocks(True)
  each = np.random.default_rng(5).integers(1, 50, (B, J, 6)).astype(np.int32)
  scores = SCORE(variables, each, job, alignment).scores
  for j in range(J):
    one = SCORE(variables, each[:, j], job[:, j : j + 1], alignment[:, j : j + 1])
    np.testing.assert_allclose(scores[:, j], one.scores[:, 0], atol=1e-5)


def test_jit_equals_eager(variables):
  data = blocks(True)
  np.testing.assert_allclose(
    SCORE(variables, *data).scores, MODEL.apply(variables, *data).scores, atol=1e-5
  )


@pytest.mark.parametrize('remat', ['selective', 'full'])
def test_remat_and_unroll_change_no_gradient(variables, remat):
  data = blocks(True)
  decoder = dataclasses.replace(CONFIG.decoder, remat=remat, unroll=2)
  other = JobRec(dataclasses.replace(CONFIG, decoder=decoder))
  ours, expected = (g(variables, WEIGHTS, *data) for g in (gradient_of(other), GRADIENT))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, expected)


def test_empty_blocks_give_finite_outputs_and_gradients(variables):
  for empty in ([0], [1], [2], [0, 1, 2]):
    data = blocks(True)
    for i in empty:
      data[i][:] = PAD
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(GRADIENT(variables, WEIGHTS, *data)))


def test_padding_gets_no_gradient(variables):
  """Row PAD of the embedding table is read at padding alone."""
  _, grads = GRADIENT(variables, WEIGHTS, *blocks(True))
  table = np.asarray(grads['params']['decoder']['embedding'])
  assert not table[PAD].any()
  assert table[1:].any()


def test_each_expert_trains_its_own_parameters(variables):
  _, grads = GRADIENT(variables, WEIGHTS * [1, 0], *blocks(False))
  grads = grads['params']
  assert not any(x.any() for x in jax.tree.leaves(grads['qualification']))
  assert not grads['readouts'][1].any()
  assert all(x.any() for x in jax.tree.leaves(grads['preference']))
  assert grads['readouts'][0].all()


def test_dropout_draws_only_in_the_heads_and_only_when_asked(variables):
  data = blocks(False)
  fixed = SCORE(variables, *data)
  draw = jax.jit(lambda key: MODEL.apply(variables, *data, deterministic=False,
                                         rngs={'dropout': key}))
  drawn = [draw(jax.random.key(i)) for i in (0, 0, 1)]
  np.testing.assert_array_equal(drawn[0].hidden, fixed.hidden)
  np.testing.assert_array_equal(drawn[0].scores, drawn[1].scores)
  assert (np.abs(drawn[0].scores - drawn[2].scores) > 0).any()


def test_outputs_are_float32_whatever_the_compute_dtype(variables):
  decoder = dataclasses.replace(CONFIG.decoder, dtype='bfloat16')
  half = JobRec(dataclasses.replace(CONFIG, decoder=decoder))
  out = jax.jit(half.apply)(variables, *blocks(True))
  exact = SCORE(variables, *blocks(True))
  assert out.hidden.dtype == out.scores.dtype == jnp.float32
  np.testing.assert_allclose(out.hidden, exact.hidden, atol=0.15)


def test_wrong_shapes_are_refused(variables):
  candidate, job, alignment = blocks(False)
  with pytest.raises(AssertionError):
    MODEL.apply(variables, candidate[:1], job, alignment)
  with pytest.raises(AssertionError):
    MODEL.apply(variables, candidate, job, alignment[:, :2])
  with pytest.raises(AssertionError):
    MODEL.apply(variables, candidate, job[0], alignment)


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('head_widths', (8, 0)), ('head_dropout', 1.0), ('experts', ()), ('experts', ('a', 'a')),
    ('experts', ('decoder', 'a')),
  ],
)
def test_config_errors_name_key_allowed_and_got(key, value):
  with pytest.raises(ValueError, match=rf'{key} must be .*got ') as error:
    dataclasses.replace(CONFIG, **{key: value})
  assert repr(value) in str(error.value)


def test_a_rounding_moves_the_gradients_of_a_head_by_a_rounding():
  """Around 0, where the kink of a ReLU would switch half of the units on or off."""
  head = ExpertHead((16, 8))
  state = np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)
  params = nn.unbox(head.init(jax.random.key(0), state))['params']

  def gradient(size):
    return jax.grad(lambda p: head.apply({'params': p}, size * state).sum())(params)
  for a, b in zip(*map(jax.tree.leaves, (gradient(1e-6), gradient(-1e-6)))):
    np.testing.assert_allclose(a, b, atol=1e-4)
