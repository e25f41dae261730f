"""Records that are the same under several ids."""

from hypothesis import given, strategies as st

from jobrec_jax.schema.copies import copies, record_keys
from jobrec_jax.schema.schema import Attribute, Entity, Schema
from tests.data.entities import entities

POSTS = Schema('posts', (Attribute('x', 'text'),), (
    Attribute('trade', 'category'), Attribute('tools', 'set'), Attribute('pay', 'number'),
    Attribute('advert', 'text')), ())
POST = {'trade': 'Lock-smith', 'tools': ('File', 'lathe'), 'pay': 20.0, 'advert': 'We open doors.'}


def groups(*posts):
  return copies(POSTS, 'job', [Entity(f'p{i}', p) for i, p in enumerate(posts)])


def test_copies_are_grouped_in_their_order():
  other = POST | {'pay': 21.0}
  assert groups(other, POST, POST, other, POST) == ((0, 3), (1, 2, 4))
  assert groups(POST, other, {}, {}, {'trade': None}) == () == groups()


def test_a_copy_may_be_spelled_in_another_way():
  assert groups(POST, {'trade': 'lock smith', 'tools': ('LATHE', 'file'), 'pay': 20,
                       'advert': 'We  open\ndoors.'}) == ((0, 1),)
  for change in ({'advert': 'We open doors!'}, {'tools': ('File',)}, {'trade': None},
                 {'trade': 'locksmith'}):
    assert groups(POST, POST | change) == ()


@given(st.data())
def test_copies_are_the_records_with_the_same_key(data):
  posts = data.draw(entities(POSTS, 'job', 6))
  keys = record_keys(POSTS, 'job', posts).tolist()
  found = copies(POSTS, 'job', posts)
  assert sorted(i for g in found for i in g) == [
      i for i, key in enumerate(keys) if key >= 0 and keys.count(key) > 1]
  assert all(len({keys[i] for i in g}) == 1 and list(g) == sorted(g) for g in found)
  assert [key == -1 for key in keys] == [
      all(p[a.name] is None for a in POSTS.job) for p in posts]
