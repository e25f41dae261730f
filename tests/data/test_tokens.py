import dataclasses
import itertools
import json
import math
import re

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest
import tokenizers

from jobrec_jax.data import pairs, tokens
from jobrec_jax.data.phrases import add_phrases, phrase_pieces
from jobrec_jax.data.tokens import (
    BUCKETS,
    PAD,
    BlockEncoder,
    BlockFormat,
    bucket,
    by_length,
    corpus,
    load_tokenizer,
    padded,
    save_tokenizer,
    train_tokenizer,
)
from jobrec_jax.schema.align import align, verdict_codes
from jobrec_jax.schema.render import render_alignment, render_entity

TOKENIZER = train_tokenizer(['gpa met, level met;', 'hours unmet by 3.'] * 5, 300)


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_gives_padding_and_every_text_returns(text):
  ids = TOKENIZER.encode(text).ids
  assert PAD not in ids
  assert TOKENIZER.decode(ids) == text


def test_text_that_spells_a_special_token_stays_text(tmp_path):
  """A pretrained tokenizer has special tokens; a record must not be able to say one."""
  tokenizer = train_tokenizer(['a <|end|> b'] * 9, 300)
  tokenizer.add_special_tokens(['<|end|>'])
  special = tokenizer.token_to_id('<|end|>')
  save_tokenizer(tokenizer, tmp_path / 'tokenizer.json')
  ids = load_tokenizer(tmp_path / 'tokenizer.json').encode('a <|end|> b').ids
  assert special not in ids and tokenizer.decode(ids) == 'a <|end|> b'


def test_symbols_of_verdicts_stay_a_token_each(dataset):
  texts = corpus(dataset, pairs=200, verdicts='symbols')
  text = render_alignment(align(dataset.schema, dataset.candidates[0], dataset.jobs[0]), 'symbols')
  encoding = train_tokenizer(texts, 2000).encode(text)
  assert len(encoding.tokens) == len(text) // 2


def test_vectors_have_a_code_for_each_verdict_and_no_text(dataset):
  lengths = BlockFormat(300, 300, 12, 'vectors')
  found = BlockEncoder(dataset, TOKENIZER, lengths).alignments(np.array([0]), np.array([1]))[0]
  verdicts = [f.verdict for f in align(dataset.schema, dataset.candidates[0],
                                       dataset.jobs[1]).fields() if f.verdict]
  expected = [3 * i + ('met', 'unmet', 'unknown').index(v) for i, v in enumerate(verdicts)]
  assert found[:len(verdicts)].tolist() == expected and (found[len(verdicts):] == PAD).all()
  assert max(expected) < lengths.codes == 36
  entities = len(corpus(dataset, pairs=0))
  assert len(corpus(dataset, pairs=200, verdicts='vectors')) == entities


def test_phrases_shorten_text_and_lose_none(dataset):
  texts = corpus(dataset, pairs=50)
  before, size = TOKENIZER.to_str(), TOKENIZER.get_vocab_size()
  longer = add_phrases(TOKENIZER, texts, 150)
  assert TOKENIZER.to_str() == before and size + 100 < longer.get_vocab_size() <= size + 150
  pieces = phrase_pieces(TOKENIZER, longer)
  counts = [0, 0]
  for text in texts:
    ids = longer.encode(text).ids
    spelled = [k for i in ids for k in (pieces[i - size] if i >= size else [i]) if k != PAD]
    assert TOKENIZER.decode(spelled).split() == text.split()
    counts[0], counts[1] = counts[0] + len(TOKENIZER.encode(text).ids), counts[1] + len(ids)
  assert counts[1] < 0.7 * counts[0]


def test_a_phrase_is_whole_words():
  longer = add_phrases(TOKENIZER, ['one, data science, at', 'two; data science, on'], 20)
  phrase = longer.token_to_id('data science,')
  assert phrase in longer.encode('no data science, here').ids
  assert phrase not in longer.encode('metadata science, here').ids
  assert phrase not in longer.encode('no data sciences, here').ids
  for text in ('metadata science, here', 'no data sciences, here'):
    assert longer.decode(longer.encode(text).ids) == text


def test_a_verdict_is_a_token_before_its_margin():
  texts = [f'gpa met by 0.{i}, skills met ({i} of 10),' for i in range(9)]
  tokenizer = train_tokenizer(texts * 5, 400)
  ids = tokenizer.encode('gpa met by 0.7, skills met (3 of 10),').ids
  assert [tokenizer.decode([i]) for i in ids] == [
      'gpa met', ' by 0.', '7,', ' skills met', ' (3 of 10),']


def test_what_the_texts_hardly_repeat_is_no_token():
  texts = ['forecasting,'] * 5 + ['upholstery,'] * 4
  tokenizer = train_tokenizer(texts, 400)
  assert len(tokenizer.encode('forecasting,').ids) == 1
  assert len(tokenizer.encode('upholstery,').ids) > 5
  assert len(train_tokenizer(texts, 400, min_frequency=4).encode('upholstery,').ids) == 1


def test_what_is_a_token_is_no_phrase():
  base = train_tokenizer(['forecasting,forecasting,'] * 3, 300)
  token = base.token_to_id('forecasting,')  # as it starts a text; behind a space it is two
  assert token is not None and len(base.encode(' forecasting,').ids) == 2
  longer = add_phrases(base, ['one, forecasting, in sum', 'two; forecasting, in sum'], 20)
  assert longer.token_to_id('forecasting,') == token and longer.token_to_id('in sum') == len(
      base.get_vocab())
  assert None not in [longer.id_to_token(i) for i in range(longer.get_vocab_size())]


def test_ids_with_gaps_take_no_phrases():
  content = json.loads(TOKENIZER.to_str())
  content['model']['vocab']['far'] = 5000
  gaps = tokenizers.Tokenizer.from_str(json.dumps(content))
  with pytest.raises(ValueError, match='tokenizer must have ids without gaps'):
    add_phrases(gaps, ['one, data science, at', 'two; data science, on'], 20)


def test_what_no_text_repeats_is_no_phrase():
  texts = ['none of, these words', 'is ever seen; twice']
  assert add_phrases(TOKENIZER, texts, 20).get_vocab_size() == TOKENIZER.get_vocab_size()


def test_rows_are_cut_at_their_end_and_padded_behind():
  np.testing.assert_array_equal(padded([[5, 6, 7], [8]], 2), [[5, 6], [8, PAD]])
  np.testing.assert_array_equal(padded([[5, 6, 7], [8]]), [[5, 6, 7], [8, PAD, PAD]])


def test_too_small_a_vocabulary_fails():
  with pytest.raises(ValueError, match='at least 256, got 200'):
    train_tokenizer(['a'], 200)


def test_saved_and_loaded_tokenizers_agree(tmp_path):
  save_tokenizer(TOKENIZER, tmp_path / 'tokenizer.json')
  loaded = load_tokenizer(tmp_path / 'tokenizer.json')
  assert loaded.encode('gpa unmet by 0.4').ids == TOKENIZER.encode('gpa unmet by 0.4').ids
  with pytest.raises(ValueError, match='must be a tokenizer, got no file'):
    load_tokenizer(tmp_path / 'missing.json')


def test_no_id_of_a_person_or_a_job_is_in_the_text(dataset):
  texts = corpus(dataset, pairs=50)
  for entity in (*dataset.candidates, *dataset.jobs):
    assert not any(entity.id in text for text in texts)


def test_the_corpus_is_of_training_alone(dataset):
  train = dataset.interactions.of('train')
  texts = set(corpus(dataset, pairs=10))
  for u, candidate in enumerate(dataset.candidates):
    seen = u in train.candidate
    assert (render_entity(dataset.schema, 'candidate', candidate) in texts) == seen


def test_blocks_hold_the_rendered_text(dataset, tokenizer):
  blocks = BlockEncoder(dataset, tokenizer, BlockFormat(900, 700, 90))
  assert not any(blocks.cut.values())
  lists = blocks.candidate_lists(np.array([2, 5]), np.array([[0, 3], [7, 1]]))
  longest = [max(len(tokenizer.encode(render_entity(dataset.schema, side, e)).ids) for e in of)
             for side, of in (('candidate', dataset.candidates), ('job', dataset.jobs))]
  for array, length, allowed in zip((blocks.candidates, blocks.jobs), longest, (900, 700)):
    assert array.shape[1] % 8 == 0 and length <= array.shape[1] < min(length + 8, allowed)
  assert lists['job'].shape[:2] == (2, 2) and lists['alignment'].shape == (2, 2, 90)

  def text(ids):
    return tokenizer.decode(ids[ids != PAD].tolist())

  candidate, job = dataset.candidates[5], dataset.jobs[7]
  assert text(lists['candidate'][1]) == render_entity(dataset.schema, 'candidate', candidate)
  assert text(lists['job'][1, 0]) == render_entity(dataset.schema, 'job', job)
  assert text(lists['alignment'][1, 0]) == render_alignment(align(dataset.schema, candidate, job))
  by_job = blocks.job_lists(np.array([[5, 2]]), np.array([7]))
  np.testing.assert_array_equal(by_job['alignment'][0, 0], lists['alignment'][1, 0])
  np.testing.assert_array_equal(by_job['candidate'][0, 1], lists['candidate'][0])


def test_cut_blocks_are_counted_and_padding_stands_behind(dataset, tokenizer):
  short = BlockEncoder(dataset, tokenizer, BlockFormat(5, 700, 90))
  assert short.cut['candidate'] == len(dataset.candidates) and set(short.unread) == {'candidate'}
  assert short.candidates.shape[1] == 5 and (short.candidates[:, 0] != PAD).all()
  long = BlockEncoder(dataset, tokenizer, BlockFormat(300, 300, 90))
  for padding in (long.jobs == PAD, long.candidates == PAD):
    assert padding.any() and (np.diff(padding.astype(int), axis=1) >= 0).all()
  other = short.with_candidates(dataset.candidates[:3])
  assert (other.cut['candidate'], short.cut['candidate']) == (3, len(dataset.candidates))
  assert re.search(r' of 3 of 3 candidates \(\d+ tokens beyond 5, ', other.unread['candidate'])


def test_blocks_are_as_long_as_their_longest_text_and_never_longer_than_allowed(dataset):
  texts = [render_entity(dataset.schema, 'candidate', e) for e in dataset.candidates]
  lengths = np.array([len(TOKENIZER.encode(text).ids) for text in texts])
  longest = lengths.max()
  up = -(-longest // 8) * 8
  for allowed, width in ((longest - 1, longest - 1), (longest, longest), (up, up), (up + 9, up)):
    blocks = BlockEncoder(dataset, TOKENIZER, BlockFormat(allowed, 10, 10))
    assert blocks.candidates.shape[1] == width
    assert blocks.cut['candidate'] == (lengths > allowed).sum()
    whole = BlockEncoder(dataset, TOKENIZER, BlockFormat(2 * up, 10, 10)).candidates
    fits = lengths <= allowed
    np.testing.assert_array_equal(blocks.candidates[fits, :allowed], whole[fits, :width])
    assert not fits.all() or not blocks.unread.get('candidate')
    assert ((blocks.candidates[~fits] != PAD).sum(1) > allowed - 12).all()  # no more is lost


def test_a_data_set_without_jobs_has_blocks(dataset):
  blocks = BlockEncoder(dataclasses.replace(dataset, jobs=()), TOKENIZER, BlockFormat(9, 9, 9))
  assert blocks.jobs.shape == (0, 8)


@pytest.mark.parametrize('verdicts', ['words', 'symbols', 'vectors'])
@pytest.mark.parametrize('allowed', [11, 400])
def test_alignments_are_those_of_each_pair(dataset, verdicts, allowed, monkeypatch):
  monkeypatch.setattr(pairs, 'CHUNK', 50)
  blocks = BlockEncoder(dataset, TOKENIZER, BlockFormat(40, 40, allowed, verdicts))
  u, j = np.mgrid[:60, :20]
  found = blocks.alignments(u, j)
  assert found.shape == (60, 20, allowed) and found.dtype == np.int32
  rows = []
  for candidate in dataset.candidates:
    for job in dataset.jobs:
      one = align(dataset.schema, candidate, job)
      rows.append(verdict_codes(one) if verdicts == 'vectors' else
                  TOKENIZER.encode(render_alignment(one, verdicts)).ids)
  np.testing.assert_array_equal(found.reshape(-1, allowed), padded(rows, allowed))
  longest = max(map(len, rows))
  up = longest if verdicts == 'vectors' else -(-longest // 8) * 8
  assert min(longest, allowed) <= blocks.alignment_length <= allowed
  assert blocks.alignment_length - up < 32  # each field's longest need not meet the others'
  assert (found[..., blocks.alignment_length:] == PAD).all()
  assert blocks.cut['alignment'] == sum(len(row) > allowed for row in rows)
  blocks.alignments(u, j)  # a pair counts once
  assert blocks.cut['alignment'] == sum(len(row) > allowed for row in rows)


@pytest.mark.parametrize('gone', [(), ('eligibility', 'interest')])
def test_numbers_are_the_verdicts_and_both_sides_of_the_margins(dataset, gone, monkeypatch):
  """Of the layers that are read, whatever is cut off the text; only where they are asked for."""
  monkeypatch.setattr(pairs, 'CHUNK', 50)
  form = BlockFormat(40, 40, 5, without_layers=gone, numbers=True)
  blocks, schema = BlockEncoder(dataset, TOKENIZER, form), dataset.schema.without(gone)
  u, j = np.mgrid[:12, :20]
  found = blocks.numbers(u, j)
  expected = []
  for a, b in zip(u.ravel(), j.ravel()):
    said = [f.comparison for f in align(schema, dataset.candidates[a], dataset.jobs[b]).fields()]
    expected.append(np.float32([x for c in said if c.verdict is not None for x in (
        c.verdict == 'met', c.verdict == 'unknown', min(c.margin or 0, 0), max(c.margin or 0, 0))]))
  assert found.dtype == np.float32 and found.shape == (12, 20, len(expected[0])) and np.ptp(found)
  np.testing.assert_array_equal(found.reshape(len(expected), -1), expected)
  np.testing.assert_array_equal(blocks.candidate_lists(u[:, 0], j)['numbers'], found)
  np.testing.assert_array_equal(blocks.job_lists(u.T, j[0])['numbers'], found.swapaxes(0, 1))
  others = blocks.with_candidates(dataset.candidates[5:])
  np.testing.assert_array_equal(others.numbers(u[:3], j[:3]), found[5:8])
  assert blocks.numbers(u[:0], j[:0]).shape == (0, 20, len(expected[0]))
  plain = BlockEncoder(dataset, TOKENIZER, dataclasses.replace(form, numbers=False))
  assert set(plain.candidate_lists(u[:, 0], j)) == {'candidate', 'job', 'alignment'}


def test_raw_blocks_are_flat_and_their_alignments_empty(dataset):
  blocks = BlockEncoder(dataset, TOKENIZER, BlockFormat(1000, 1000, 0, layout='raw'))
  for side, found, entities in (('candidate', blocks.candidates, dataset.candidates),
                                ('job', blocks.jobs, dataset.jobs)):
    rows = [TOKENIZER.encode(render_entity(dataset.schema, side, e, 'raw')).ids for e in entities]
    np.testing.assert_array_equal(found, padded(rows, found.shape[1]))
  assert blocks.alignment_length == 0
  assert blocks.alignments(*np.mgrid[:3, :4]).shape == (3, 4, 0)
  assert not any('alignment' in text or 'eligibility:' in text
                 for text in corpus(dataset, layout='raw'))


@pytest.mark.parametrize('form', [('vectors', 0), ('symbols', 0), ('words', 1)])
def test_raw_blocks_have_no_verdicts(form):
  verdicts, alignment = form
  with pytest.raises(ValueError, match=rf"layout is 'raw'.* got '{verdicts}' and {alignment}"):
    BlockFormat(400, 400, alignment, verdicts, 'raw')
  with pytest.raises(ValueError, match=r"layout must be one of .* got 'flat'"):
    BlockFormat(400, 400, 1, layout='flat')


@pytest.mark.parametrize('verdicts', ['words', 'symbols', 'vectors'])
def test_blocks_without_layers_are_those_of_the_schema_without_them(dataset, verdicts):
  gone = ('eligibility', 'interest')
  left = dataclasses.replace(dataset, schema=dataset.schema.without(gone))
  found = BlockEncoder(dataset, TOKENIZER, BlockFormat(400, 400, 90, verdicts, 'schema', gone))
  expected, whole = (BlockEncoder(d, TOKENIZER, BlockFormat(400, 400, 90, verdicts))
                     for d in (left, dataset))
  pair = np.mgrid[:5, :6]
  for get in (lambda b: b.candidates, lambda b: b.jobs, lambda b: b.alignments(*pair)):
    np.testing.assert_array_equal(get(found), get(expected))
    assert not np.array_equal(get(found), get(whole))
  others = found.with_candidates(dataset.candidates[2:])
  np.testing.assert_array_equal(others.alignments(*np.mgrid[:3, :6]), found.alignments(*pair)[2:])
  assert corpus(dataset, verdicts=verdicts, without_layers=gone) == corpus(left, verdicts=verdicts)


def test_text_of_free_layers_alone(dataset):
  gone = ('eligibility', 'competence', 'logistics', 'interest')
  form = BlockFormat(400, 400, 90, 'vectors', 'schema', gone, numbers=True)
  blocks = BlockEncoder(dataset, TOKENIZER, form)
  assert set(blocks.candidate_lists(np.arange(2), np.zeros((2, 2), int))) == {
      'candidate', 'job', 'alignment'}  # a model of no numbers asks for none
  assert blocks.alignment_length == 0 and (blocks.alignments(*np.mgrid[:2, :2]) == PAD).all()


def test_cut_pairs_are_counted_up_to_a_bound(dataset, monkeypatch):
  monkeypatch.setattr(tokens, '_CUT_PAIRS', 20)
  blocks = BlockEncoder(dataset, TOKENIZER, BlockFormat(40, 40, 5))
  for u in range(60):
    blocks.alignments(np.full(7, u), np.arange(7))
  assert blocks.cut['alignment'] == 21


def test_the_alignments_length_is_the_configured_where_clauses_do_not_tell(dataset, monkeypatch):
  monkeypatch.setattr(pairs, '_LISTED', 10)
  assert BlockEncoder(dataset, TOKENIZER, BlockFormat(40, 40, 401)).alignment_length == 401


def test_no_pairs_give_no_alignments(blocks):
  assert blocks.alignments(np.zeros((0, 3), int), np.zeros((0, 3), int)).shape == (0, 3, 16)


@given(st.integers(1, 40), st.integers(0, 40))
def test_a_bucket_holds_its_text_and_is_the_least(length, used):
  tokens = np.full((2, length), PAD)
  tokens[1, :min(used, length)] = 7
  assert bucket(tokens)[0] == BUCKETS[0]
  share = bucket(tokens)[1]
  assert math.ceil(share * length) >= min(used, length)
  assert all(math.ceil(x * length) < min(used, length) for x in BUCKETS[:BUCKETS.index(share)])


@given(st.data(), st.integers(1, 5), st.integers(1, 5))
def test_groups_by_length_hold_every_item_once(data, count, groups):
  lengths = data.draw(st.lists(st.lists(st.integers(0, 6), min_size=count, max_size=count),
                               min_size=1, max_size=2))
  items = np.full((len(lengths), count, 6), PAD)
  for at, length in np.ndenumerate(lengths):
    items[at][:length] = 10 * at[0] + at[1]
  alignment = np.arange(len(lengths) * count).reshape(len(lengths), count, 1)
  if groups > count:
    with pytest.raises(ValueError, match=f'groups must be 1 to the {count} items .*, got {groups}'):
      by_length(items, alignment, groups)
    return
  others, alignments, order = by_length(items, alignment, groups)
  assert [x.shape[:2] for x in others] == [x.shape[:2] for x in alignments]
  assert len(others) == groups and sum(x.shape[1] for x in others) == count
  whole = [np.pad(x, ((0, 0), (0, 0), (0, 6 - x.shape[2])), constant_values=PAD) for x in others]
  back = np.argsort(order)[..., None]
  for parts, expected in ((whole, items), (alignments, alignment)):
    np.testing.assert_array_equal(
        np.take_along_axis(np.concatenate(parts, 1), back, 1), expected)
  for x, y in itertools.pairwise(others):
    assert x.shape[2] <= y.shape[2]
  for x in others:  # nothing but padding could be cut
    assert not x.shape[2] or (x[..., -1] != PAD).any()
