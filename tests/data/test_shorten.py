"""What is read of a record that is too long: its longest text in part, and every other field."""

from hypothesis import given, settings, strategies as st
import pytest

from jobrec_jax.data import shorten as module
from jobrec_jax.data.shorten import encode_records, levelled, shorten
from jobrec_jax.data.tokens import train_tokenizer
from jobrec_jax.schema.render import render_entity, rendered_attributes
from jobrec_jax.schema.schema import Attribute, Entity, Schema
from tests.data.entities import entities

TOKENIZER = train_tokenizer(['one two; trade: file, lathe, story'] * 5, 300)
GUILD = Schema('guild', (
    Attribute('trade', 'category'), Attribute('story', 'text'), Attribute('tools', 'set'),
    Attribute('years', 'integer'), Attribute('note', 'text'), Attribute('hidden', 'text',
                                                                        rendered=False),
    Attribute('town', 'category')), (Attribute('x', 'text'),), ())
SMITH = {'trade': 'smith', 'story': 'Forged gates. ' * 30, 'tools': ('anvil', 'hammer'),
         'years': 12, 'note': 'Early riser.', 'hidden': 'x' * 500, 'town': 'Bern'}


def tokens(text):
  return TOKENIZER.encode(text).ids


def read(record, allowed):
  found = encode_records(GUILD, 'candidate', (Entity('c', record),), TOKENIZER, allowed)
  return TOKENIZER.decode(found.rows[0].tolist()), found


def said(record):
  return render_entity(GUILD, 'candidate', Entity('c', record))


@given(st.lists(st.integers(0, 12), max_size=5), st.integers(0, 70))
def test_each_unit_goes_from_the_longest(lengths, by):
  left = list(lengths)
  for _ in range(min(by, sum(lengths))):
    at = max(range(len(left)), key=lambda i: (left[i], i))
    left[at] -= 1
  assert levelled(lengths, by) == left


def test_the_longest_text_loses_its_end_and_no_field_is_lost():
  whole = len(tokens(said(SMITH)))
  for allowed in (whole - 1, whole - 100, 110):
    text, found = read(SMITH, allowed)
    kept = text.split('trade smith, ')[1].split(', tools anvil')[0]
    assert SMITH['story'].startswith(kept) and len(kept) < len(SMITH['story'].strip())
    assert text == said(SMITH | {'story': kept}) and allowed - 4 <= len(found.rows[0]) <= allowed
    assert (found.cut, found.longest) == (1, whole)
    assert found.unread == (
        f'story of 1 of 1 candidates ({whole - allowed} tokens beyond {allowed}, the longest has '
        f'{whole})')
  fits = read(SMITH, whole)[1]
  assert fits.rows[0].tolist() == tokens(said(SMITH)) and (fits.cut, fits.unread) == (0, '')


def test_two_long_texts_end_up_equally_long():
  text, found = read(SMITH | {'note': 'Rises at dawn. ' * 40}, 100)
  story, note = (text[text.index(start):].split(end)[0]
                 for start, end in (('Forged', ', tools'), ('Rises', ', town')))
  assert abs(len(tokens(story)) - len(tokens(note))) <= 3 and len(found.rows[0]) > 90
  assert found.unread.startswith(('story, note of 1', 'note, story of 1'))


def test_members_of_sets_go_when_texts_are_used_up_and_then_whole_attributes():
  record = SMITH | {'tools': tuple(f'tool number {i}' for i in range(40))}
  text, found = read(record, 110)
  members = text.split('tools ')[1].split(', years')[0].split(', ')
  assert 1 < len(members) < 40 and tuple(members) == record['tools'][:len(members)]
  assert text == said({'trade': 'smith', 'tools': tuple(members), 'years': 12, 'town': 'Bern'})
  assert 'tools' in found.unread and 'note' in found.unread
  text, found = read(record, len(tokens('candidate; other: trade smith, years 12')) + 2)
  assert text == 'candidate; other: trade smith, years 12'
  assert read(record, 2)[1].rows[0].tolist() == tokens('candidate')


def test_an_empty_set_is_an_attribute_and_a_number_is_never_cut():
  record = {'years': 1234567890, 'tools': ()}
  assert read(record, len(tokens(said(record))) - 1)[0] == 'candidate; other: tools none'


def test_records_are_counted_and_named_however_they_are_dealt(monkeypatch):
  records = [Entity('c', SMITH | {'story': 'Forged gates. ' * n}) for n in (1, 30, 40, 50, 2)]
  found = encode_records(GUILD, 'candidate', records, TOKENIZER, 150)
  beyond = sum(max(0, len(tokens(said(r.attributes))) - 150) for r in records)
  assert found.cut == 3 and found.unread == (
      f'story (3) of 3 of 5 candidates ({beyond} tokens beyond 150, the longest has '
      f'{found.longest})')
  monkeypatch.setattr(module, '_AT_A_TIME', 2)
  again = encode_records(GUILD, 'candidate', records, TOKENIZER, 150)
  assert [r.tolist() for r in found.rows] == [r.tolist() for r in again.rows]
  assert found[1:] == again[1:]


@pytest.mark.parametrize('layout', ['schema', 'raw'])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_read_is_the_start_of_each_value(layout, data):
  (entity,) = data.draw(entities(GUILD, 'candidate', 1))
  allowed, seen = data.draw(st.integers(1, 60)), []

  def render(entity):
    seen.append(entity)
    return render_entity(GUILD, 'candidate', entity, layout)
  shown = rendered_attributes(GUILD, 'candidate', layout)
  (row,), lost = shorten((entity,), shown, render, TOKENIZER, allowed)
  last = seen[-1]
  assert row.tolist() == tokens(render(last))
  assert len(row) <= allowed or TOKENIZER.decode(row.tolist()) == 'candidate'
  assert bool(lost) == (len(tokens(render(entity))) > allowed and render(entity) != 'candidate')
  for a in shown:
    was, left = entity[a.name], last[a.name]
    if a.name not in lost:
      assert left == was
    elif isinstance(left, str):
      assert a.kind == 'text' and ' '.join(was.split()).startswith(left)
    else:
      assert left is None or (a.kind == 'set' and left == was[:len(left)] != was)
  if any(a.kind not in ('text', 'set') for a in shown if a.name in lost):
    assert not any(''.join(last[a.name] or ()).strip() for a in shown if a.kind in ('text', 'set'))
