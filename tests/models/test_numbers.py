"""Numbers of a pair beside its tokens: each moves its own pair's scores, and no text moves."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jobrec_jax.data.tokens import by_length
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.experts import GAIN, MOST, ExpertHead
from jobrec_jax.models.jobrec import JobRec, JobRecConfig

B, J, N, E, D, R = 2, 3, 4, 2, 16, 1  # the last two of the numbers are of words
PLAIN = JobRecConfig(DecoderConfig(vocab_size=50, width=D, layers=1, heads=2, kv_heads=1,
                                   head_width=8, mlp_width=24), head_widths=(8,))
FACTORED = {'attention': 'factored', 'job_start': 6, 'pair_start': 11}
CASES = {'exact': {}, 'factored': FACTORED, 'last token': {'readout': 'last_token'}}
RNG = np.random.default_rng(0)
CANDIDATE, JOB, ALIGNMENT = (RNG.integers(1, 50, size).astype(np.int32)
                             for size in ((B, 6), (B, J, 5), (B, J, 4)))
TEXT = CANDIDATE, JOB, ALIGNMENT
NUMBERS = RNG.normal(size=(B, J, N)).astype(np.float32)
SCALE = np.array([1.0, 0.0, 0.1, 2.0], np.float32)


@functools.cache
def models(case):
  """(without numbers, with them, parameters as they start but for the heads' last layers)."""
  config = dataclasses.replace(PLAIN, **CASES[case])
  model = JobRec(dataclasses.replace(config, numbers=N, matched=R))
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *TEXT, NUMBERS))['params']
  rng = np.random.default_rng(2)
  for name in config.experts:
    assert not params[name]['logit']['kernel'].any()  # the text is learned on top
    params[name]['logit']['kernel'] = rng.normal(size=(8, 1)).astype(np.float32)
  return JobRec(config), model, params


def learned(params):
  match = np.random.default_rng(1).normal(size=(E, R, R)).astype(np.float32)
  weights = np.random.default_rng(3).normal(size=(E, N)).astype(np.float32)
  return params | {'match': match, 'number_weights': weights, 'number_scale': SCALE}


def run(model, params, *given, **how):
  return jax.jit(functools.partial(model.apply, **how))({'params': params}, *given)


@pytest.mark.parametrize('case', CASES)
def test_at_the_start_numbers_change_nothing(case):
  plain, model, params = models(case)
  assert params['match'].shape == (E, R, R) and not params['match'].any()
  assert params['number_weights'].shape == (E, N) and not params['number_weights'].any()
  np.testing.assert_array_equal(params['number_scale'], np.ones(N))
  text = {k: v for k, v in params.items() if not k.startswith('number') and k != 'match'}
  expected = run(plain, text, *TEXT)
  found = run(model, params, *TEXT, NUMBERS)
  np.testing.assert_array_equal(found.hidden, expected.hidden)
  np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize('case', CASES)
def test_scores_add_the_scaled_numbers_cut_at_the_most_and_products_of_words(case):
  _, model, params = models(case)
  start = run(model, params, *TEXT, NUMBERS)  # weights are zero yet
  hidden = np.asarray(start.hidden)
  numbers = NUMBERS.copy()
  numbers[0, 1, 2], numbers[1, 2, 3], numbers[1, 0, 1] = 1e4, -70.0, 1e9
  params = learned(params)
  found = run(model, params, *TEXT, numbers)
  x = np.clip(numbers * SCALE, -5, 5)
  assert MOST == 5 and x[0, 1, 2] == 5 and x[1, 2, 3] == -5 and not x[..., 1].any()
  np.testing.assert_array_equal(found.hidden, hidden)
  head = ExpertHead(PLAIN.head_widths)
  scores = [head.apply({'params': params[name]}, hidden[:, :, e])
            for e, name in enumerate(PLAIN.experts)]
  np.testing.assert_allclose(start.scores, np.stack(scores, -1), atol=1e-5)
  linear = GAIN * np.einsum('bjn,en->bje', x, params['number_weights'])
  products = x[..., 2, None] * x[..., 3, None] * params['match'][:, 0, 0]
  np.testing.assert_allclose(found.scores, np.stack(scores, -1) + linear + products, atol=1e-4)
  assert abs(linear).max() > 1 and abs(products).max() > 1


@pytest.mark.parametrize('case', CASES)
def test_a_number_moves_the_scores_of_its_own_pair_alone(case):
  _, model, params = models(case)
  params, numbers = learned(params), NUMBERS.copy()
  numbers[1, 2, 0] += 1.0  # of a copy, for a program on CPUs may still read what it was given
  before = run(model, params, *TEXT, NUMBERS).scores
  moved = np.asarray(run(model, params, *TEXT, numbers).scores != before)
  assert moved[1, 2].all() and moved.sum() == E
  own = params | {'match': params['match'] * np.float32([1, 0]).reshape(2, 1, 1),
                  'number_weights': params['number_weights'] * np.float32([[1], [0]])}
  of_one = np.asarray(run(model, own, *TEXT, numbers).scores != run(model, own, *TEXT,
                                                                    NUMBERS).scores)
  assert of_one[1, 2].tolist() == [True, False]  # an expert has weights of its own


def test_the_scale_is_a_constant_and_the_weights_learn():
  _, model, params = models('exact')
  slope = jax.jit(jax.grad(lambda p: jnp.sum(
      model.apply({'params': p}, *TEXT, NUMBERS).scores ** 2)))(learned(params))
  assert not slope['number_scale'].any()
  assert ((np.asarray(slope['number_weights']) != 0) == (SCALE > 0)).all()
  assert np.asarray(slope['match']).all()


@pytest.mark.parametrize('case', CASES)
def test_lists_around_a_job_have_numbers_of_each_pair(case):
  _, model, params = models(case)
  params = learned(params)
  people = np.stack([CANDIDATE, CANDIDATE[::-1], CANDIDATE], axis=1)
  found = run(model, params, people, JOB[:, 0], ALIGNMENT, NUMBERS).scores
  alone = [run(model, params, people[:, [j]], JOB[:, 0], ALIGNMENT[:, [j]], NUMBERS[:, [j]]).scores
           for j in range(J)]
  np.testing.assert_allclose(found, np.concatenate(alone, 1), atol=1e-5)
  each = people, np.repeat(JOB[:, :1], J, 1), ALIGNMENT, NUMBERS  # neither side is shared
  pairs = [x.reshape(B * J, *x.shape[2:]) for x in each]
  pairs = [pairs[0], *(x[:, None] for x in pairs[1:])]
  np.testing.assert_allclose(run(model, params, *each).scores.reshape(B * J, 1, E),
                             run(model, params, *pairs).scores, atol=1e-5)


def test_groups_have_their_numbers_group_after_group():
  _, model, params = models('exact')
  params, job = learned(params), JOB.copy()
  job[:, 1:, 3:] = -1
  others, alignments, order = by_length(job, ALIGNMENT)
  numbers = np.take_along_axis(NUMBERS, order[..., None], 1)
  found = run(model, params, CANDIDATE, others, alignments, numbers, method='score_groups').scores
  restored = np.take_along_axis(np.asarray(found), np.argsort(order)[..., None], 1)
  np.testing.assert_allclose(restored, run(model, params, CANDIDATE, job, ALIGNMENT,
                                           NUMBERS).scores, atol=1e-5)


def test_states_that_are_kept_serve_with_any_numbers():
  _, model, params = models('factored')
  params = learned(params)
  left, right = (run(model, params, tokens, side=side, method='encode') for side, tokens in (
      ('candidate', CANDIDATE), ('job', JOB.reshape(-1, 5))))
  rows = np.arange(B * J).reshape(B, J)
  for numbers in (NUMBERS, -2 * NUMBERS):
    found = run(model, params, left, CANDIDATE >= 0, right, rows, JOB >= 0, ALIGNMENT, numbers,
                method='score_pairs')
    whole = run(model, params, *TEXT, numbers)
    np.testing.assert_allclose(found.scores, whole.scores, atol=1e-5)
    np.testing.assert_allclose(found.hidden, whole.hidden, atol=1e-5)


@pytest.mark.parametrize('case', CASES)
def test_numbers_are_given_where_there_are_some_and_nowhere_else(case):
  plain, model, params = models(case)
  with pytest.raises(ValueError, match=r'numbers must be \[B, J, 4\] of the pairs, got None'):
    model.apply({'params': params}, *TEXT)
  with pytest.raises(ValueError, match=r'numbers must be \[B, J, 0\] of the pairs, got \(2, 3, 4'):
    plain.apply({'params': params}, *TEXT, NUMBERS)


@pytest.mark.parametrize('shape', [(B, J, N - 1), (B, J, 1), (B, 1, N), (B, J)])
def test_numbers_of_another_shape_are_refused(shape):
  _, model, params = models('exact')
  with pytest.raises(ValueError, match=r'numbers must be \[B, J, 4\] of the pairs, got \(2, '):
    model.apply({'params': params}, *TEXT, np.zeros(shape, np.float32))


@pytest.mark.parametrize('value', [-1, 2.0])
def test_how_many_there_are_is_checked(value):
  with pytest.raises(ValueError, match=f'numbers must be an integer of at least 0, got {value}'):
    dataclasses.replace(PLAIN, numbers=value)
  with pytest.raises(ValueError, match=r'experts must be .* distinct names'):
    dataclasses.replace(PLAIN, experts=('number_scale', 'match'))
  with pytest.raises(ValueError, match='matched must be at most half of numbers = 3, got 2'):
    dataclasses.replace(PLAIN, numbers=3, matched=2)
