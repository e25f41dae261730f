"""Experts start at the regression of the numbers and words of pairs, whatever the text says."""

import itertools

import flax.linen as nn
import jax
import numpy as np
import pytest
from scipy.special import expit

from jobrec_jax.data.components import SIDES, Components
from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.experts import MOST
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.pipeline import linear_start as linear
from jobrec_jax.pipeline.linear_start import doubt_moves, fit_linear, linear_start, moved
from jobrec_jax.schema.align import fields_with_verdicts

R = 3
BOTH = 'preference', 'qualification'


@pytest.fixture(scope='module')
def start(dataset, tokenizer):
  """(model, new parameters, blocks): of experts that nothing has been told yet."""
  form = BlockFormat(40, 24, 16, numbers=True)
  plain, train = BlockEncoder(dataset, tokenizer, form), dataset.interactions.of('train')
  words = Components.fit({side: getattr(plain, f'{side}s')[np.unique(getattr(train, side))]
                          for side in SIDES}, plain.vocab_size, R)
  blocks = BlockEncoder(dataset, tokenizer, form, words)
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 2), int))
  model = JobRec(JobRecConfig(
      DecoderConfig(vocab_size=512, width=16, layers=1, heads=2, kv_heads=2, head_width=8,
                    mlp_width=16), head_widths=(8,), numbers=lists['numbers'].shape[-1], matched=R))
  params = jax.jit(model.init)(jax.random.key(0), *lists.values())['params']
  return model, nn.unbox(params), blocks


@pytest.fixture
def matched(monkeypatch):
  """Words are multiplied in two directions."""
  monkeypatch.setattr(linear, '_CAUTION', (1.0,))
  monkeypatch.setattr(linear, '_RANKS', (2,))
  monkeypatch.setattr(linear, '_RIDGES', (0.05,))
  monkeypatch.setattr(linear, 'log_loss', lambda *_, **__: next(losses))
  losses = itertools.cycle([1.0, 0.0])  # without directions, with them


def scores(model, params, blocks, log):
  lists = blocks.candidate_lists(log.candidate, log.job[:, None])
  found = jax.jit(model.apply)({'params': params}, *lists.values()).scores
  return np.asarray(found, np.float64)[:, 0]


def numbers(params, blocks, log, perspective, schema):
  """[N, D + 2 R] scaled, 0 where they do not speak to the perspective."""
  x = blocks.numbers(log.candidate, log.job) * np.asarray(params['number_scale'])
  x = np.clip(x.astype(np.float64), -MOST, MOST)
  for i, field in enumerate(fields_with_verdicts(schema)):
    if field.perspective not in (perspective, 'both'):
      x[:, 4 * i:4 * i + 4] = 0
  return x


def products(x):
  """[N, R, R] of the words of both sides."""
  return np.einsum('nr,ns->nrs', x[:, -2 * R:-R], x[:, -R:])


def test_scores_are_least_surprised_by_the_train_split(start, dataset, matched):
  """The optimum: residuals have no slope in any number or direction beyond the ridges' own."""
  model, params, blocks = start
  logs = train, _ = [dataset.interactions.of(s) for s in ('train', 'validation')]
  fits = fit_linear(blocks, *logs, BOTH, R)
  found = linear_start(params, fits)
  for e, name in enumerate(BOTH):
    seen = train.where(getattr(train, name) >= 0)
    z = scores(model, found, blocks, seen)[:, e]
    label = getattr(seen, name) == 1
    residual = label - expit(z)
    assert abs(residual.sum()) < 0.02  # the intercept has no ridge
    x, (setting, ridges, fit) = numbers(found, blocks, seen, name, dataset.schema), fits.of[name]
    weights = 4 * np.asarray(found['number_weights'][e], np.float64)
    np.testing.assert_allclose(residual @ x, ridges * weights, atol=0.05)
    np.testing.assert_allclose(found['match'][e], fit.match, atol=1e-5)
    slope = np.einsum('n,nrs->rs', residual, products(x))
    np.testing.assert_allclose(fit.right @ slope.T, setting.ridge * fit.left, atol=0.05)
    np.testing.assert_allclose(fit.left @ slope, setting.ridge * fit.right, atol=0.05)
    assert np.corrcoef(z, label)[0, 1] > 0.2 and np.asarray(found['match'][e]).any()
    assert np.linalg.matrix_rank(fit.match, 1e-6) <= 2


@pytest.mark.parametrize('doubt', [0.3, 0.9])
def test_with_doubt_both_explain_who_applied_and_of_whom_it_was_found_what(start, dataset, matched,
                                                                           doubt):
  """The optimum of the funnel's likelihood in numbers and in what each direction counts, added to
  what stage 1A learned."""
  _, params, blocks = start
  logs = train, _ = [dataset.interactions.of(s) for s in ('train', 'validation')]
  fits = fit_linear(blocks, *logs, BOTH, R)
  params = linear_start(params, fits)
  learned = params | {'number_weights': params['number_weights'] + 0.01}  # of stage 1A
  found = moved(learned, doubt_moves(fits, blocks, train, doubt))
  apart = jax.tree.map(lambda a, b, c: np.asarray(a, np.float64) + b - c, *(
      {k: p[k] for k in ('number_weights', 'match')} | {
          'bias': [p[name]['logit']['bias'] for name in BOTH]} for p in (found, params, learned)))
  seen = train.where(train.preference >= 0)
  x = [numbers(found, blocks, seen, name, dataset.schema) for name in BOTH]
  own = [4 * apart['number_weights'][e] for e in range(2)]
  wants, eligible = (expit(x[e] @ own[e] + np.einsum('rs,nrs->n', apart['match'][e], products(x[e]))
                           + apart['bias'][e][0]) for e in range(2))
  d = 1 - doubt * (1 - eligible)
  by_chance = np.where(seen.preference == 1, 1 / (wants * d), -1 / (1 - wants * d))
  slopes = (by_chance * wants * (1 - wants) * d,
            by_chance * wants * doubt * eligible * (1 - eligible)
            + np.where(seen.qualification < 0, 0, seen.qualification - eligible))
  for e, name in enumerate(BOTH):
    setting, ridges, fit = fits.of[name]
    np.testing.assert_allclose(slopes[e] @ x[e], ridges * own[e], atol=0.5)
    assert abs(slopes[e].sum()) < 0.5
    outer = np.einsum('kr,ks->krs', fit.left, fit.right)
    counts = np.linalg.lstsq(outer.reshape(len(outer), -1).T, apart['match'][e].ravel(),
                             rcond=None)[0]
    size = np.linalg.norm(fit.left, axis=1) * np.linalg.norm(fit.right, axis=1)
    np.testing.assert_allclose(np.einsum('n,nrs,krs->k', slopes[e], products(x[e]), outer),
                               setting.ridge * size * counts, atol=0.5)
    assert not np.allclose(found['number_weights'][e], learned['number_weights'][e], atol=1e-3)


def test_what_the_schema_gives_to_one_expert_alone_starts_at_nothing_in_the_other(start, dataset):
  _, params, blocks = start
  train, validation = (dataset.interactions.of(s) for s in ('train', 'validation'))
  fits = fit_linear(blocks, train, validation, BOTH, R)
  found = moved(linear_start(params, fits), doubt_moves(fits, blocks, train, 0.5))
  fields = fields_with_verdicts(dataset.schema)
  weights = np.asarray(found['number_weights'])[:, :4 * len(fields)].reshape(2, len(fields), 4)
  alone = {field.perspective for field in fields}
  assert alone >= set(BOTH)
  for i, field in enumerate(fields):
    for e, name in enumerate(BOTH):
      assert weights[e, i].any() == field.speaks_to(name), (field.name, name)


def test_without_doubt_nothing_moves(start, dataset):
  _, params, blocks = start
  train, validation = (dataset.interactions.of(s) for s in ('train', 'validation'))
  fits = fit_linear(blocks, train, validation, BOTH, R)
  assert doubt_moves(fits, blocks, train, 0.0) == ()
  assert moved(params, ()) is params


def test_validation_chooses_whether_products_count(start, dataset, monkeypatch):
  """Labels that only a product tells: it is taken; labels of one number: it is not needed."""
  _, params, blocks = start
  train, validation = (dataset.interactions.of(s) for s in ('train', 'validation'))

  def labelled(log):
    x = blocks.numbers(log.candidate, log.job)
    return log.where(log.preference >= 0), x[log.preference >= 0]
  logs = []
  for log in (train, validation):
    seen, x = labelled(log)
    object.__setattr__(seen, 'preference', (x[:, -2 * R] * x[:, -R] > 0).astype(np.int8))
    logs.append(seen)
  found = linear_start(params, fit_linear(blocks, *logs, ('preference',), R))
  assert np.argmax(np.abs(found['match'][0])) == 0 and np.asarray(found['match'][0]).any()
  # With no label of the validation to tell, it does without.
  found = linear_start(params, fit_linear(
      blocks, logs[0], validation.where(validation.preference > 5), ('preference',), R))
  assert not np.asarray(found['match']).any() and np.asarray(found['number_weights'][0]).any()


def test_what_has_no_labels_of_both_kinds_starts_at_nothing(start, dataset):
  _, params, blocks = start
  train, validation = (dataset.interactions.of(s) for s in ('train', 'validation'))
  alone = fit_linear(blocks, train, validation, ('preference',), R)
  alike = fit_linear(blocks, train.where(train.qualification != 0), validation, BOTH, R)
  for found in (linear_start(params, alone), linear_start(params, alike)):
    assert not np.asarray(found['number_weights'][1]).any()
    assert not np.asarray(found['qualification']['logit']['bias']).any()
    assert np.asarray(found['number_weights'][0]).any()
  assert not np.asarray(params['number_weights']).any()  # the old ones stay


def test_numbers_have_unit_size_over_the_log_and_constant_zeros_none(start, dataset):
  _, params, blocks = start
  train, validation = (dataset.interactions.of(s) for s in ('train', 'validation'))
  scale = np.asarray(
      linear_start(params, fit_linear(blocks, train, validation, (), R))['number_scale'])
  x = blocks.numbers(train.candidate, train.job)
  size = np.sqrt((x.astype(np.float64) ** 2).mean(0))
  np.testing.assert_allclose((size * scale)[size > 0], 1, rtol=1e-5)
  assert (scale[size == 0] == 0).all()
