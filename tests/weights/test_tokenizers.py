"""Blocks through other people's kinds of tokenizers: nothing added, nothing lost."""

import json

from hypothesis import given, settings, strategies as st
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from jobrec_jax.data.phrases import add_phrases, phrase_pieces
from jobrec_jax.data.tokens import PAD
from jobrec_jax.weights.huggingface import load_tokenizer

PROMPTS = [
  'candidate: academic level UG3, gpa 3.25, major computer science.',
  'job: at least 10 hours per week; skills python, sql.\nin person: yes',
  'alignment: gpa met by 0.25, hours unmet by 2, skills unknown.',
] * 5
BEGIN, END = '<|begin|>', '<|end|>'


def encode_plain(tokenizer, text):
  """As `data.tokens` encodes: no beginning- or end-of-text token is added."""
  return tokenizer.encode(text, add_special_tokens=False).ids


def finish(tokenizer, path):
  """Adds a token before every text, as most published tokenizers do, and stores the file."""
  begin = tokenizer.token_to_id(BEGIN)
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'{BEGIN} $A', special_tokens=[(BEGIN, begin)])
  tokenizer.enable_padding(length=500)
  tokenizer.enable_truncation(3)
  tokenizer.save(str(path / 'tokenizer.json'))
  return load_tokenizer(path)


def byte_level(path):
  """As Llama 3 and Qwen have it."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(tokenizers.Regex(r' ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+'),
                         'isolated'),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(PROMPTS, trainers.BpeTrainer(
    vocab_size=360, special_tokens=[BEGIN, END], show_progress=False,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  return finish(tokenizer, path)


def prefix_space(path):
  """As Llama 2 and Mistral have it: a space before every text, bytes for what is unknown."""
  tokenizer = tokenizers.Tokenizer(models.BPE(unk_token='<unk>', fuse_unk=True))
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # for training alone
  tokenizer.train_from_iterator(PROMPTS, trainers.BpeTrainer(
    vocab_size=100, special_tokens=['<unk>', BEGIN, END], show_progress=False))
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  tokenizer.decoder = decoders.Sequence([
    decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(),
    decoders.Strip(' ', 1, 0)])
  content = json.loads(tokenizer.to_str())
  vocab = content['model']['vocab']
  for byte in range(256):
    vocab[f'<0x{byte:02X}>'] = len(vocab)
  content['model']['byte_fallback'], content['pre_tokenizer'] = True, None
  return finish(tokenizers.Tokenizer.from_str(json.dumps(content)), path)


def metaspace(path):
  """As newer files of the same families have it."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first')
  tokenizer.decoder = decoders.Metaspace(prepend_scheme='first')
  tokenizer.train_from_iterator(PROMPTS, trainers.BpeTrainer(
    vocab_size=100, special_tokens=[BEGIN, END], show_progress=False))
  return finish(tokenizer, path)


MADE = {'byte level': (byte_level, ''), 'prefix space': (prefix_space, ' '),
        'metaspace': (metaspace, ' ')}


@pytest.fixture(scope='module', params=MADE.values(), ids=MADE.keys())
def kind(request, tmp_path_factory):
  make, border = request.param
  return make(tmp_path_factory.mktemp('tokenizer')), border


def test_nothing_is_added_cut_or_padded(kind):
  tokenizer, _ = kind
  special = {tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)}
  for text in PROMPTS:
    ids = encode_plain(tokenizer, text)
    assert 3 < len(ids) < len(text) and not special & set(ids)
    assert tokenizer.decode(ids) == text
  assert tokenizer.encode(text).ids[0] in special  # it is the plain encoding that leaves it out


def test_text_that_spells_a_special_token_stays_text(tmp_path):
  for make in (byte_level, prefix_space):
    tokenizer = make(tmp_path)
    ids = encode_plain(tokenizer, f'skills {END} sql')
    assert tokenizer.token_to_id(END) not in ids
    assert tokenizer.decode(ids) == f'skills {END} sql'


@pytest.fixture(scope='module')
def universal(tmp_path_factory):
  return [make(tmp_path_factory.mktemp('tokenizer')) for make in (byte_level, prefix_space)]


@given(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='▁')))
@settings(max_examples=200, deadline=None)
def test_any_text_survives(universal, text):
  for tokenizer in universal:
    assert tokenizer.decode(encode_plain(tokenizer, text)) == text


def test_blocks_side_by_side(kind):
  """A block's ids never depend on its neighbours; the border is the family's own."""
  tokenizer, border = kind
  one, two, three = (encode_plain(tokenizer, text) for text in PROMPTS[:3])
  assert [encode_plain(tokenizer, text) for text in PROMPTS[3:6]] == [one, two, three]
  assert tokenizer.decode(one + two + three) == border.join(PROMPTS[:3])
  # Within a text merges would span the border: a block is not a slice of the joined text.
  halves = encode_plain(tokenizer, 'computer sci') + encode_plain(tokenizer, 'ence')
  assert halves != encode_plain(tokenizer, 'computer science')
  assert tokenizer.decode(halves) == f'computer sci{border}ence'


def test_phrases_stand_among_what_is_read_as_before(kind):
  """Spelled out, a text with phrases has the very ids that it had without them."""
  tokenizer, _ = kind
  size, special = tokenizer.get_vocab_size(), tokenizer.token_to_id(BEGIN)
  longer = add_phrases(
    tokenizer, ['x, gpa met by, skills unknown.', 'y; gpa met by, skills unknown.'], 9)
  pieces = phrase_pieces(tokenizer, longer)
  text = 'alignment: gpa met by, skills unknown. computer skills unknown. yes'
  ids = encode_plain(longer, text)
  assert sum(i >= size for i in ids) >= 2 and special not in ids
  spelled = [int(k) for i in ids for k in (pieces[i - size] if i >= size else [i]) if k != PAD]
  assert spelled == encode_plain(tokenizer, text)


def test_errors_name_the_file(tmp_path):
  with pytest.raises(ValueError, match=r'tokenizer.json: must be .* got none; .*save_pretrained'):
    load_tokenizer(tmp_path)
  (tmp_path / 'tokenizer.json').write_text('{')
  with pytest.raises(ValueError, match=r'tokenizer.json: must be a tokenizer, got'):
    load_tokenizer(tmp_path)
