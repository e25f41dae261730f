"""Alignments by clauses have the ids of the whole text, or are encoded whole."""

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jobrec_jax.data import clauses, pairs
from jobrec_jax.data.clauses import AlignmentTokens, Ragged, reads_by_clause
from jobrec_jax.data.pairs import PairAligner
from jobrec_jax.data.phrases import add_phrases
from jobrec_jax.data.tokens import corpus, train_tokenizer
from jobrec_jax.schema.align import Alignment, FieldAlignment, LayerAlignment, align
from jobrec_jax.schema.comparators import Comparison, Contains, Semantic
from jobrec_jax.schema.render import SYMBOLS, VERDICTS, alignment_frame, render_alignment
from jobrec_jax.schema.schema import AlignedField, Attribute, Entity, Layer, Schema
from jobrec_jax.schema.shipped import NURSING, STUDENTS
from tests.data.entities import entities
from tests.weights.test_tokenizers import MADE

TEXTS = ['alignment; eligibility: level unmet by 2 levels, major met (Statistics), gpa unmet by '
         '0.4, papers unknown; competence: skills met (2 of 4)', ' + - - ? +', ' - ? + +',
         'alignment; eligibility: licence met, years unmet by 1.5 years, mark unknown; shift met']
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
LLAMA3, QWEN2 = (
    pre_tokenizers.Sequence([pre_tokenizers.Split(tokenizers.Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
        r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'), 'isolated'),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    for digits in (r'\p{N}{1,3}', r'\p{N}'))


def trained(pre_tokenizer, normalizer=None) -> tokenizers.Tokenizer:
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
  if normalizer is not None:
    tokenizer.normalizer = normalizer
  tokenizer.train_from_iterator(TEXTS * 5, trainers.BpeTrainer(
      vocab_size=400, special_tokens=['<|end|>'], show_progress=False,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  tokenizer.encode_special_tokens = True
  return tokenizer


def smollm2() -> tokenizers.Tokenizer:
  return trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]))


KNOWN = {
    'ours': lambda: train_tokenizer(TEXTS * 5, 400),
    'gpt-2': lambda: trained(GPT2),
    'smollm2': smollm2,
    'llama 3': lambda: trained(LLAMA3),
    'qwen2': lambda: trained(QWEN2, normalizers.NFC()),
    'phrases': lambda: add_phrases(smollm2(), TEXTS * 2, 30),
}


def with_tokens(*contents, **options) -> tokenizers.Tokenizer:
  tokenizer = smollm2()
  tokenizer.add_tokens([tokenizers.AddedToken(c, **options) for c in contents])
  return tokenizer


def special() -> tokenizers.Tokenizer:
  """Its special token is spelled by a text, and read as one."""
  tokenizer = smollm2()
  tokenizer.add_special_tokens(['unknown, gpa'])
  tokenizer.encode_special_tokens = False
  return tokenizer


def dropping() -> tokenizers.Tokenizer:
  tokenizer = smollm2()
  tokenizer.model.dropout = 0.5
  return tokenizer


UNKNOWN = {
    'a token of two clauses': lambda: with_tokens('unknown, gpa'),
    'a token of two symbols': lambda: with_tokens('+ -'),
    'a token that takes what is behind it': lambda: with_tokens(',', rstrip=True),
    'a special token': special,
    'prefix space': lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    'lower case': lambda: trained(GPT2, normalizers.Lowercase()),
    'one word': lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)),
}


def whole_texts(schema, tokenizer, verdicts, candidates, jobs, u, j) -> list[list[int]]:
  return [tokenizer.encode(
      render_alignment(align(schema, candidates[a], jobs[b]), verdicts),
      add_special_tokens=False).ids for a, b in zip(u, j)]


def rows_of(found) -> list[list[int]]:
  ids, length = found
  assert ids.dtype == np.int32 and length.sum() == len(ids)
  return [row.tolist() for row in np.split(ids, np.cumsum(length)[:-1])]


def check(schema, tokenizer, verdicts, candidates, jobs) -> AlignmentTokens:
  u, j = np.mgrid[:len(candidates), :len(jobs)].reshape(2, -1)
  tokens = AlignmentTokens(PairAligner(schema, candidates, jobs), schema, tokenizer, verdicts,
                           reads_by_clause(tokenizer))
  for order in (slice(None), slice(None, None, -1)):  # unseen, then seen
    expected = whole_texts(schema, tokenizer, verdicts, candidates, jobs, u[order], j[order])
    assert rows_of(tokens(u[order], j[order])) == expected
  longest = tokens.longest()
  assert longest is None or longest >= max(map(len, expected))
  return tokens


@pytest.fixture(scope='module', params=[*KNOWN, *UNKNOWN, *MADE])
def kind(request, tmp_path_factory):
  """(tokenizer, whether its ids are those of clauses)."""
  name = request.param
  if name in MADE:
    return MADE[name][0](tmp_path_factory.mktemp('tokenizer')), False
  return (KNOWN | UNKNOWN)[name](), name in KNOWN


def test_it_is_known_whose_ids_are_those_of_clauses(kind):
  tokenizer, by_clause = kind
  assert reads_by_clause(tokenizer) == by_clause
  again = tokenizers.Tokenizer.from_str(tokenizer.to_str())
  again.encode_special_tokens = tokenizer.encode_special_tokens
  assert reads_by_clause(again) == by_clause


def test_whoever_drops_merges_or_cuts_texts_is_not_read_by_clause():
  assert not reads_by_clause(dropping())
  for change in (lambda t: t.enable_padding(length=9), lambda t: t.enable_truncation(9)):
    tokenizer = smollm2()
    change(tokenizer)
    assert not reads_by_clause(tokenizer)


@pytest.mark.parametrize('verdicts', VERDICTS)
@pytest.mark.parametrize('schema', [STUDENTS, NURSING], ids=lambda s: s.name)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ids_are_those_of_the_whole_text(kind, schema, verdicts, data):
  candidates = data.draw(entities(schema, 'candidate', 3))
  jobs = data.draw(entities(schema, 'job', 2))
  tokens = check(schema, kind[0], verdicts, candidates, jobs)
  assert (tokens.longest() is not None) == kind[1]


@pytest.mark.parametrize('verdicts', VERDICTS)
def test_ids_of_a_market_are_those_of_the_whole_texts(kind, dataset, verdicts):
  check(dataset.schema, kind[0], verdicts, dataset.candidates[:20], dataset.jobs)


def test_a_token_of_two_clauses_is_found():
  """What makes the other way of encoding necessary: the ids do differ."""
  tokenizer = with_tokens('unknown, gpa')
  nobody, nothing = (Entity('x', {}),), (Entity('x', {}),)
  (ids,) = rows_of(AlignmentTokens(
      PairAligner(STUDENTS, nobody, nothing), STUDENTS, tokenizer, 'words',
      reads_by_clause(tokenizer))(np.zeros(1, int), np.zeros(1, int)))
  assert tokenizer.token_to_id('unknown, gpa') in ids


def test_what_was_encoded_is_not_encoded_again(dataset, monkeypatch):
  encoded = []
  encode = AlignmentTokens._encode
  monkeypatch.setattr(AlignmentTokens, '_encode',
                      lambda self, texts: encoded.extend(texts) or encode(self, texts))
  u, j = np.mgrid[:60, :20].reshape(2, -1)
  for tokenizer in (KNOWN['ours'](), UNKNOWN['one word']()):
    aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
    tokens = AlignmentTokens(aligner, dataset.schema, tokenizer, 'words',
                             reads_by_clause(tokenizer))
    for _ in range(3):
      tokens(u, j)
    assert len(encoded) == len(set(encoded)) <= 1200
    encoded.clear()


@pytest.mark.parametrize('name', ['ours', 'one word'])
@pytest.mark.parametrize('kept', [0, 10])
def test_what_is_forgotten_is_encoded_again(dataset, name, kept, monkeypatch):
  monkeypatch.setattr(pairs, 'KEPT', kept)
  monkeypatch.setattr(clauses, 'KEPT', kept)
  tokenizer = (KNOWN | UNKNOWN)[name]()
  tokens = check(dataset.schema, tokenizer, 'words', dataset.candidates[:6], dataset.jobs[:6])
  for n in range(30):
    tokens(np.array([n % 6]), np.array([n % 5]))
    assert len(tokens._texts) <= kept + 36


@pytest.mark.parametrize('name', ['ours', 'one word'])
@pytest.mark.parametrize('verdicts', VERDICTS)
def test_a_schema_of_texts_alone(name, verdicts):
  schema = Schema('texts', (Attribute('a', 'text'),), (Attribute('b', 'text'),), (
      Layer('story', (AlignedField('s', ('a',), 'b', Semantic(), 'both'),)),))
  check(schema, (KNOWN | UNKNOWN)[name](), verdicts, (Entity('c', {'a': 'x'}),) * 2,
        (Entity('j', {}),))


@pytest.mark.parametrize('verdicts', VERDICTS)
@pytest.mark.parametrize('schema', [STUDENTS, NURSING], ids=lambda s: s.name)
def test_frames_and_clauses_make_the_rendered_text(schema, verdicts):
  alignment = align(schema, Entity('c', {}), Entity('j', {}))
  said = [f for f in alignment.fields() if f.verdict]
  pieces = [before + (SYMBOLS[f.verdict] if verdicts == 'symbols' else f.in_words()) + after
            for f, (before, after) in zip(said, alignment_frame(schema, verdicts), strict=True)]
  assert ''.join(pieces) == render_alignment(alignment, verdicts)


def test_a_layer_may_begin_with_text():
  fields = [AlignedField(n, (a,), b, c, 'both')
            for n, a, b, c in (('s', 't', 'u', Semantic()), ('x', 'a', 'b', Contains()),
                               ('y', 'a', 'b', Contains()))]
  layers = Layer('one', (fields[0], fields[1])), Layer('none', ()), Layer('two', (fields[2],))
  schema = Schema('mixed', (Attribute('a', 'set'), Attribute('t', 'text')),
                  (Attribute('b', 'category'), Attribute('u', 'text')), layers)
  said = Alignment(tuple(LayerAlignment(layer, tuple(
      FieldAlignment(f, Comparison(None if f.name == 's' else 'met')) for f in layer.fields))
      for layer in layers))
  frame = alignment_frame(schema)
  assert frame == [('alignment; one: ', ';'), (' two: ', '')]
  assert render_alignment(said) == 'alignment; one: x met; two: y met'


@given(st.lists(st.lists(st.integers(-5, 2**31 - 1), max_size=700), max_size=6),
       st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_ragged_rows_come_back(first, second, data):
  ragged, rows = Ragged(), first + second
  ragged.append(first)
  ragged.append(second)
  assert ragged.length.tolist() == [len(row) for row in rows]
  wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
  assert ragged.gather(np.array(wanted, int)).tolist() == [x for i in wanted for x in rows[i]]


def test_the_tokenizer_of_a_corpus_is_read_by_clause(dataset):
  assert reads_by_clause(train_tokenizer(corpus(dataset, pairs=50), 400))
