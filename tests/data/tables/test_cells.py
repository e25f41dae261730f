"""One rule for what a cell means."""

from hypothesis import given, strategies as st
import pytest

from jobrec_jax.data.tables.cells import id_of, truth, value_of
from jobrec_jax.schema.schema import Attribute

NUMBER, INTEGER, BOOLEAN = (Attribute('a', k) for k in ('number', 'integer', 'boolean'))
CATEGORY, TEXT, SET = (Attribute('a', k) for k in ('category', 'text', 'set'))


@pytest.mark.parametrize('attribute, cell, value', [
    (NUMBER, '3.5', 3.5), (NUMBER, ' 3 ', 3.0), (NUMBER, '1e3', 1000.0), (NUMBER, 4, 4.0),
    (NUMBER, '', None), (NUMBER, None, None), (NUMBER, 'NaN', None), (NUMBER, 'n/a', None),
    (NUMBER, float('nan'), None), (INTEGER, '12.0', 12), (INTEGER, '-3', -3), (INTEGER, 12.0, 12),
    (BOOLEAN, 'Yes', True), (BOOLEAN, '0.0', False), (BOOLEAN, 1, True), (BOOLEAN, 'F', False),
    (CATEGORY, 'NaN', 'NaN'), (CATEGORY, 17, '17'), (CATEGORY, 17.0, '17'), (CATEGORY, 1.5, '1.5'),
    (CATEGORY, ' kept as it is ', ' kept as it is '), (TEXT, 'a\nb', 'a\nb'), (TEXT, True, 'true'),
    (SET, 'a; b ;c', ('a', 'b', 'c')), (SET, "['a', 'b']", ('a', 'b')), (SET, '["a", "b"]',
                                                                         ('a', 'b')),
    (SET, '"a; b"; c', ('a; b', 'c')), (SET, 'a 5" pipe; b', ('a 5" pipe', 'b')),
    (SET, ['a', 7], ('a', '7')), (SET, '[]', ()), (SET, '; ;', ()), (SET, '[a; b]', None),
])
def test_what_a_cell_means(attribute, cell, value):
  if cell == '[a; b]':
    with pytest.raises(ValueError, match='a must be a list of words'):
      value_of(attribute, cell)
    return
  found = value_of(attribute, cell)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize('attribute, cell, message', [
    (NUMBER, '1,5', "a must be a number, got '1,5'"), (NUMBER, True, "a number, got 'True'"),
    (NUMBER, 'inf', 'a must be a number'), (NUMBER, float('inf'), 'a must be a number'),
    (INTEGER, '1.5', 'a must be an integer'), (INTEGER, 1.5, 'a must be an integer'),
    (BOOLEAN, 'maybe', 'a must be a boolean'), (BOOLEAN, 2, 'a must be a boolean'),
    (TEXT, ['x'], 'a must be a text'), (SET, [['x']], 'a must be a list of words'),
    (SET, {'x': 1}, 'a must be a list of words')])
def test_what_no_value_is(attribute, cell, message):
  with pytest.raises(ValueError, match=message):
    value_of(attribute, cell)


def test_a_schema_file_says_what_else_is_missing_and_what_separates():
  assert value_of(CATEGORY, ' none ', missing=['none']) is None
  assert value_of(SET, 'a|b', separator='|') == ('a', 'b')
  assert value_of(SET, 'a, b', separator=', ') == ('a', 'b')


@pytest.mark.parametrize('cell, name', [
    ('17', '17'), ('17.0', '17'), (17, '17'), (17.0, '17'), ('017', '017'), ('a.0', 'a.0'),
    (None, ''), ('S 1', 'S 1'), (1.5, '1.5'), ('1.5', '1.5')])
def test_ids_are_text(cell, name):
  assert id_of(cell) == name


def test_yes_and_no_in_any_case():
  assert [truth(c) for c in ('TRUE', 't', 1, '1.0', True, 'No', 0.0, 'f', 'x', '', 2)] == [
      True, True, True, True, True, False, False, False, None, None, None]


@given(st.text(), st.sampled_from([NUMBER, INTEGER, BOOLEAN, CATEGORY, TEXT, SET]))
def test_any_text_is_a_value_that_fits_or_is_refused(cell, attribute):
  try:
    value = value_of(attribute, cell)
  except ValueError as error:
    assert str(error).startswith('a must be')
  else:
    assert attribute.problem(value) is None
