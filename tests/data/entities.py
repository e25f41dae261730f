"""Records of any schema, drawn at random: values that fit it, missing ones, and odd words."""

from hypothesis import strategies as st

from jobrec_jax.schema.schema import Attribute, Entity, Schema

WORDS = st.one_of(
    st.sampled_from(['None', 'python', 'a, b', "it's + 3", 'x; y', ' -', '', 'e\u0301']),
    st.text(st.characters(exclude_categories=['Cs']), max_size=6))


def values(attribute: Attribute) -> st.SearchStrategy:
  """Values of an attribute; those of categories and sets mostly its own, so that sides meet."""
  words = st.one_of(st.sampled_from(attribute.values), WORDS) if attribute.values else WORDS
  if attribute.kind == 'boolean':
    return st.booleans()
  if attribute.kind == 'set':
    return st.lists(words, max_size=4).map(tuple).map(attribute.canonical)
  if attribute.kind in ('category', 'text'):
    return words
  low, high = attribute.low or 0, min(attribute.high or 9, 9)
  whole = st.integers(int(low), int(high))
  return whole if attribute.kind == 'integer' else st.one_of(
      whole, st.floats(low, high, width=32), st.just(float('nan')))


def entities(schema: Schema, side: str, count: int = 4) -> st.SearchStrategy[tuple[Entity, ...]]:
  """1 to `count` records of a side, any value of which may be missing."""
  one = st.fixed_dictionaries({}, optional={
      a.name: st.one_of(st.none(), values(a)) for a in schema.attributes(side)})
  return st.lists(one.map(lambda x: Entity('e', x)), min_size=1, max_size=count).map(tuple)
