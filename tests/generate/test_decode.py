"""Decoding against a decoder that keeps nothing, against transformers, and against itself."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from jobrec_jax.data.tokens import PAD
from jobrec_jax.generate.automaton import Vocabulary, automaton, stacked
from jobrec_jax.generate.claims import pattern, pieces, sayable
from jobrec_jax.generate.decode import Writing, decode, programs, written
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.lora import LoraConfig
from jobrec_jax.models.writer import (
    Start,
    embed,
    output_table,
    read_on,
    read_pairs,
    writer_lora,
)
from jobrec_jax.train.writer import writer_loss
from tests.reference.llama_torch import decoder_params, random_llama

B, J, MOST = 2, 2, 90
OWN = DecoderConfig(vocab_size=512, width=16, layers=2, heads=2, kv_heads=1, head_width=8,
                    mlp_width=32)
EACH = LoraConfig(rank=2, per_expert=True)
KINDS = {
    'exact': JobRecConfig(OWN, (8,)),
    'unrolled, numbers': JobRecConfig(dataclasses.replace(OWN, unroll=2), (8,), numbers=5),
    'factored, adapters for each expert': JobRecConfig(
        dataclasses.replace(OWN, lora=EACH, tie_embeddings=False), (8,), attention='factored',
        job_start=40, pair_start=80),
}


def made(config, lists, seed=0):
  """Experts and a writer of random parameters, the writer's adapters not at their start."""
  model = JobRec(config)
  keys = jax.random.split(jax.random.key(seed), 3)
  params = nn.unbox(jax.jit(model.init)(keys[0], *lists.values()))['params']
  lora = writer_lora(2)
  writing = Writing(model, dataclasses.replace(config.decoder, lora=lora), params, {})
  writer = nn.unbox(jax.jit(writing.module.init)(keys[1], jnp.zeros((1, OWN.width))))['params']
  leaves, tree = jax.tree.flatten(writer)
  noise = [0.3 * jax.random.normal(jax.random.fold_in(keys[2], i), x.shape)
           for i, x in enumerate(leaves)]
  return writing._replace(writer=tree.unflatten([x + n for x, n in zip(leaves, noise)]))


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys(), scope='module')
def case(request, blocks, dataset, tokenizer):
  """(writing, pairs as an expert read them, starts, automata, languages, blocks)."""
  config = dataclasses.replace(request.param, words=512)
  candidate, job = np.array([3, 5]), np.array([[1, 2], [4, 7]])
  lists = blocks.candidate_lists(candidate, job)
  if config.numbers:
    lists['numbers'] = np.random.default_rng(0).normal(size=(B, J, 5)).astype(np.float32)
  writing = made(config, lists)
  expert = 1
  pairs = read_pairs(writing.model, writing.params, lists).of(expert)
  start = writing.module.apply({'params': writing.writer}, writing.model, writing.params,
                               pairs.scores, lists.get('numbers'), method='start').of(expert)
  vocabulary = Vocabulary(tokenizer, 512 if tokenizer.get_vocab_size() == 512 else None)
  assert vocabulary.size == 512
  said = [sayable(dataset.schema, dataset.candidates[u], dataset.jobs[j], 'qualification')
          for u, js in zip(candidate, job) for j in js]
  said = [tuple(x for x in s if not x.quotes) for s in said]  # short, letter by letter too
  automata = [automaton(pattern(s), pieces(s), vocabulary) for s in said]
  return (writing, pairs, start, automata, (vocabulary, [pattern(s) for s in said]),
          [*lists.values()])


def recomputed(writing, pairs, start, automata, steps):
  """Greedy texts of a decoder that reads everything again for each token, without a cache."""
  w, D = writing, start.first.shape[-1]
  adapters = w.module.apply({'params': w.writer}, method='adapters')
  table = np.asarray(output_table(w.model, w.params, w.writer['end']))

  @jax.jit
  def logits(tokens, at):
    x = jnp.concatenate([start.first[:, :, None], embed(w.model, w.params, tokens)
                         + start.scored[:, :, None]], axis=2)
    hidden, _ = read_on(w.config, w.params['decoder'], x, jnp.arange(steps + 1)[None, None] <= at +
                        jnp.zeros((B, J, 1), int), pairs, adapters)
    hidden = jnp.take_along_axis(hidden, jnp.full((B, J, 1, D), at), axis=2)[:, :, 0]
    return w.module.apply({'params': w.writer}, hidden)[1] @ table.T

  tokens, states = np.full((B, J, steps), PAD), [0] * (B * J)
  done = np.zeros(B * J, bool)
  for step in range(steps):
    scores = np.array(logits(jnp.asarray(tokens), step)).reshape(B * J, -1)
    for r in np.flatnonzero(~done):
      allowed = automata[r].allowed(states[r]) if automata else np.arange(scores.shape[1])
      token = int(allowed[np.argmax(scores[r][allowed])])
      done[r] = token == w.end
      if not done[r]:
        tokens[r // J, r % J, step] = token
        states[r] = automata[r].step(states[r], token) if automata else 0
  return [[row[row != PAD].tolist() for row in rows] for rows in tokens], done.reshape(B, J)


def test_pairs_are_scored_in_the_pass_that_reads_them(case):
  writing, pairs, *_ = case
  assert pairs.scores.shape == (B, J, 2)
  expected = writing.model.apply({'params': writing.params}, *case[-1])
  np.testing.assert_allclose(pairs.scores, expected.scores, atol=1e-5)


def test_the_loss_is_the_mean_of_minus_log_p_over_the_tokens_of_all_texts(case):
  """Value and gradient: the end's row among all rows, texts of two lengths and an empty one."""
  w, lists = case[0], dict(zip(('candidate', 'job', 'alignment', 'numbers'), case[-1]))
  rng, texts = np.random.default_rng(1), []
  for T, lengths in ((8, (3, 7, 0, 5)), (16, (2, 12, 9, 1))):
    rows = np.full((B * J, T), PAD, np.int32)
    for row, n in zip(rows, lengths):
      row[:n] = [*rng.integers(0, w.end, max(n - 1, 0)), w.end][:n]
    texts.append(rows.reshape(B, J, T))

  def plain(writer):
    states = read_pairs(w.model, w.params, lists)
    start = w.module.apply({'params': writer}, w.model, w.params, states.scores,
                           lists.get('numbers'), method='start')
    adapters = w.module.apply({'params': writer}, method='adapters')
    total = count = 0
    for e, text in enumerate(texts):
      before = jnp.asarray(np.where(text == w.end, PAD, text)[..., :-1])
      x = jnp.concatenate([start.first[:, :, e, None], embed(w.model, w.params, before)
                           + start.scored[:, :, e, None]], axis=2)
      hidden, _ = read_on(w.config, w.params['decoder'], x, text != PAD, states.of(e), adapters)
      logits = (w.module.apply({'params': writer}, hidden)[1]
                @ output_table(w.model, w.params, writer['end']).T)
      said = jnp.take_along_axis(jax.nn.log_softmax(logits), text.clip(0)[..., None], -1)[..., 0]
      total, count = total - jnp.where(text == PAD, 0, said).sum(), count + (text != PAD).sum()
    return total / count

  loss_fn = writer_loss(w.model, w.config)
  batch = lists | {'texts': tuple(texts)}
  (loss, metrics), grad = jax.jit(jax.value_and_grad(lambda writer: loss_fn(
      {'writer': writer}, {'model': w.params}, batch, None), has_aux=True))(w.writer)
  expected, like = jax.jit(jax.value_and_grad(plain))(w.writer)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), grad, like)
  assert 0 <= metrics['train/right'] < 0.1


def test_free_decoding_equals_one_that_keeps_nothing(case):
  writing, pairs, start, _, _, _ = case
  texts = decode(writing, pairs, start, None, 12)
  expected, done = recomputed(writing, pairs, start, None, 12)
  assert written(texts) == expected
  np.testing.assert_array_equal(texts.whole, done)
  assert len({tuple(row) for rows in expected for row in rows}) > 1


def test_under_automata_it_equals_one_that_asks_them_on_the_host(case):
  writing, pairs, start, automata, (vocabulary, languages), _ = case
  texts = decode(writing, pairs, start, stacked(automata), MOST)
  expected, done = recomputed(writing, pairs, start, automata, MOST)
  assert done.all() and np.asarray(texts.whole).all()
  assert written(texts) == expected
  flat = [row for rows in written(texts) for row in rows]
  for row, language in zip(flat, languages):
    assert re.fullmatch(language, vocabulary.text(row))


@pytest.mark.parametrize('spare', [0, 3])
@pytest.mark.parametrize('jump', [1, 4])
def test_a_text_comes_to_its_end_in_the_turns_that_there_are(case, spare, jump):
  """Down to as many as the shortest texts take; with fewer it is cut off, and says so."""
  writing, pairs, start, automata, (vocabulary, languages), _ = case
  turns = max(int(a.left[0]) for a in automata) + spare
  free = decode(writing, pairs, start, stacked(automata), MOST, jump=jump)
  assert free.turns > turns  # left alone, some would take longer
  texts = decode(writing, pairs, start, stacked(automata), turns, jump=jump)
  assert np.asarray(texts.whole).all()
  for row, language in zip([row for rows in written(texts) for row in rows], languages):
    assert re.fullmatch(language, vocabulary.text(row))
  fewer = min(int(a.left[0]) for a in automata) - 1
  assert not np.asarray(decode(writing, pairs, start, stacked(automata), fewer).whole).any()


def test_what_must_follow_is_jumped_over_and_changes_no_text(case):
  writing, pairs, start, automata, _, _ = case
  found = {jump: decode(writing, pairs, start, stacked(automata), MOST, jump=jump)
           for jump in (1, 4)}
  assert written(found[1]) == written(found[4])
  np.testing.assert_allclose(found[1].log_likelihood, found[4].log_likelihood, atol=1e-4)
  assert found[4].turns < found[1].turns


def test_draws_follow_their_key_and_stay_in_the_language(case):
  writing, pairs, start, automata, (vocabulary, languages), _ = case
  drawn = [decode(writing, pairs, start, stacked(automata), MOST, 3.0, jax.random.key(k))
           for k in (0, 0, 1)]
  first, again, other = map(written, drawn)
  assert first == again != other
  for row, language, whole in zip([r for rows in other for r in rows], languages,
                                  np.ravel(drawn[2].whole)):
    assert not whole or re.fullmatch(language, vocabulary.text(row))
  for temperature, key in ((0.0, jax.random.key(0)), (1.0, None), (-1.0, jax.random.key(0))):
    with pytest.raises(ValueError, match='temperature must be'):
      decode(writing, pairs, start, None, 3, temperature, key)


def test_a_warm_loop_compiles_no_more(case):
  writing, pairs, start, automata, _, _ = case
  tables = stacked(automata)
  decode(writing, pairs, start, tables, MOST)
  before = programs()
  for shift in (1, 2):
    turned = jax.tree.map(lambda x, s=shift: jnp.roll(x, s, axis=0), start)
    rolled = stacked(automata[shift:] + automata[:shift])
    assert rolled.most == tables.most
    decode(writing, pairs, turned, rolled, MOST)
  assert programs() == before


@pytest.mark.parametrize('tied', [True, False])
def test_it_writes_what_transformers_generates(blocks, tied):
  """A Llama of SmolLM2's kind: three query heads to a key head, and no setting of its own."""
  decoder = DecoderConfig(vocab_size=512, width=24, layers=3, heads=3, kv_heads=1, head_width=8,
                          mlp_width=40, rope_base=100000.0, tie_embeddings=tied)
  llama = random_llama(decoder)
  lists = blocks.candidate_lists(np.array([3, 5]), np.array([[1], [4]]))
  model = JobRec(JobRecConfig(decoder, (8,), words=512))
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *lists.values()))['params'] | {
      'decoder': decoder_params(llama, decoder)}
  writing = Writing(model, dataclasses.replace(decoder, lora=writer_lora(2)), params, {})
  writer = nn.unbox(writing.module.init(jax.random.key(0), jnp.zeros((1, 24))))['params']
  first = 7  # a token to begin with, in place of a learned vector
  writer['end'] = jnp.full_like(writer['end'], 0.0)
  writing = writing._replace(writer=writer)
  begin = jnp.broadcast_to(params['decoder']['embedding'][first], (2, 1, 24))
  start = Start(begin, jnp.zeros_like(begin))
  texts = decode(writing, read_pairs(model, params, lists).of(0), start, None, 10)
  for i in range(2):
    prompt = np.concatenate([lists['candidate'][i], lists['job'][i, 0], lists['alignment'][i, 0]])
    prompt = torch.tensor([[*prompt[prompt != PAD].tolist(), first]])
    with torch.no_grad():
      expected = llama.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                                max_new_tokens=10, eos_token_id=None, pad_token_id=0)
    assert written(texts)[i][0] == expected[0, prompt.shape[1]:].tolist()
