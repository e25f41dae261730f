"""RecBole's atomic files, in and out, and what is refused."""

import dataclasses
import re
from urllib.parse import unquote

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.files.recbole import MISSING_WORDS, read_atomic, write_atomic
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.schema.schema import Attribute, Entity, Schema
from jobrec_jax.schema.shipped import NURSING, STUDENTS
from jobrec_jax.schema.words import fold
from tests.data.files.odd import NASTY, ODD, datasets, interactions, same, small

FOLDER = settings(max_examples=80, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def rows(path):
  """The cells of each line, decoded by nothing of ours."""
  return [line.split('\t') for line in path.read_bytes().decode().split('\n')[:-1]]


@FOLDER
@given(dataset=datasets())
def test_round_trip(tmp_path, dataset):
  write_atomic(dataset, tmp_path, 'odd')
  again = read_atomic(tmp_path, 'odd', ODD)
  assert same(again, dataset) and again.notes == ()
  assert [p.name for p in sorted(tmp_path.iterdir())] == ['odd.inter', 'odd.item', 'odd.user']


@FOLDER
@given(dataset=datasets())
def test_cells_are_what_recbole_can_tell_apart(tmp_path, dataset):
  write_atomic(dataset, tmp_path, 'odd')
  header, *users = rows(tmp_path / 'odd.user')
  assert header == ['user_id:token', 'name:token', 'score:float', 'age:float', 'moves:token',
                    'level:token', 'town:token', 'skills:token_seq', 'wants:token_seq']
  for entity, cells in zip(dataset.candidates, users, strict=True):
    assert not MISSING_WORDS & set(cells) and not any('"' in c or '\r' in c for c in cells)
    assert unquote(cells[0]) == entity.id or cells[0] == '%'
    for column, cell in zip(header[1:], cells[1:], strict=True):
      name, kind = column.split(':')
      value = entity[name]
      assert (cell == '') == (value is None)
      if kind == 'token_seq' and value is not None:
        tokens = list(filter(None, cell.split(' ')))  # as RecBole splits
        assert [unquote(t) if t != '%' else '' for t in tokens] == list(value)
      elif kind == 'float' and value is not None:
        # An integer beyond 2^53 stands there digit by digit, though RecBole reads a float.
        assert (int(cell) if isinstance(value, int) else float(cell)) == value


@pytest.mark.parametrize('schema', [STUDENTS, NURSING], ids=lambda s: s.name)
def test_the_columns_of_every_domain_differ(tmp_path, schema):
  empty = interactions([])
  one = small()
  dataset = dataclasses.replace(one, schema=schema, candidates=(Entity('a', {}),),
                                jobs=(Entity('b', {}),), interactions=empty)
  write_atomic(dataset, tmp_path, 'x')
  assert same(read_atomic(tmp_path, 'x', schema), dataset)


def test_a_world_keeps_its_interactions(tmp_path):
  dataset, _ = simulate(MarketConfig(candidates=30, jobs=12), seed=1)
  write_atomic(dataset, tmp_path / 'world', 'world')
  assert same(read_atomic(tmp_path / 'world', 'world', STUDENTS), dataset)
  header, *log = rows(tmp_path / 'world' / 'world.inter')
  assert header == ['user_id:token', 'item_id:token', 'preference:float', 'qualification:float',
                    'split:token', 'exposure:float']
  assert len(log) == len(dataset.interactions)
  assert {row[3] for row in log} == {'-1', '0', '1'}  # unobserved is no mean and no rejection


def test_what_stands_in_the_files(tmp_path):
  write_atomic(small(), tmp_path, 'x')
  assert rows(tmp_path / 'x.user')[1] == [
      'S1', 'a %22b%22, c%0Ad', '3.25', '41', 'True', 'low', 'Bergen aan Zee',
      'C++ motion%20planning', ' ']
  assert rows(tmp_path / 'x.user')[2] == [
      'S2', '%4Eone', '-1e-07', '', '', 'very high', '', 'x', "%4EA it's"]
  assert rows(tmp_path / 'x.inter')[2] == ['S1', 'J2', '0', '-1', 'train', '0.25']


@pytest.mark.parametrize('old, new, line, message', [
    ('S1\ta', 'S2\ta', 3, "user_id must be unique and not empty, got 'S2', which stands on line 2"),
    ('S1\ta', '%\ta', 2, "user_id must be unique and not empty, got ''"),
    ('3.25', 'nan', 2, "score must be a number, got 'nan'"),
    ('3.25', '1e999', 2, 'score must be a number'),
    ('\t41\t', '\t4.1\t', 2, "age must be an integer, got '4.1'"),
    ('\t41\t', '\t-1\t', 2, r'age must lie in \[0, inf\], got -1'),
    ('True', 'true', 2, 'moves must be a boolean, True or False'),
    ('low', 'lower', 2, 'level allows low'),
    ('%4Eone', 'None', 3, "name must be written '%4Eone', got 'None'"),
    ('%22b%22', '"b"', 2, 'name must be written'),
    ('%22b', '%2b', 2, 'name must be written'),
    ('S2\t', 'S%41\t', 3, "'S%41': must be written 'SA'"),
    ('C++ motion', 'C++  motion', 2, "skills must be written '%', got ''"),
    ('\tx\t', '\tx \t', 3, "skills must be written '%', got ''"),
    ('\t41\t', '\t41', 2, 'must have 9 cells, got 8'),
    ('score:float', 'score:token', 1, r"unknown \['score:token'\]"),
    ('score:float', 'name:token', 1, 'each once'),
    ('user_id', 'user', 1, r"missing \['user_id:token'\].*; data\.source=tables reads any columns"),
    ('100%25', '100%', 4, "town must be written '100%25', got '100%'"),
])
def test_bad_user_names_its_line(tmp_path, old, new, line, message):
  write_atomic(small(), tmp_path, 'x')
  path = tmp_path / 'x.user'
  text = path.read_bytes().decode()
  assert text.count(old) >= 1
  path.write_bytes(text.replace(old, new, 1).encode())
  with pytest.raises(ValueError, match=re.escape(f'{path}:{line}: ') + f'.*{message}'):
    read_atomic(tmp_path, 'x', ODD)


@pytest.mark.parametrize('row, message', [
    ('S9\tJ1\t1\t1\ttrain\t1', "user_id must be one of 3 users, got 'S9'"),
    ('S1\tJ9\t1\t1\ttrain\t1', "item_id must be one of 3 items, got 'J9'"),
    ('S1\tJ3\t2\t1\ttrain\t1', "preference must be -1, 0 or 1, got '2'"),
    ('S1\tJ3\t1\t\ttrain\t1', "qualification must be -1, 0 or 1, got ''"),
    ('S1\tJ3\t1\t1\tTrain\t1', "split must be one of .*, got 'Train'"),
    ('S1\tJ3\t1\t1\ttrain\t1.5', r"exposure must be a number in \(0, 1\], got '1.5'"),
    ('S1\tJ3\t1\t1\ttrain\t0', r'exposure must be a number in \(0, 1\]'),
    ('S1\tJ3\t1\t1\ttrain\t1e-300', r'exposure must lie in \(0, 1\], got 0.0'),
    ('S1\tJ3\t1\t1\ttrain\tnan', r"exposure must be a number in \(0, 1\], got 'nan'"),
    ('S1\tJ1\t1.0\t1\ttrain\t1', 'a split must hold a pair once, got that of line 2 again'),
    ('S1\tJ3\t1\t1\ttrain', 'must have 6 cells, got 5'),
    ('', 'must have 6 cells, got 1'),
])
def test_bad_interaction_names_its_line(tmp_path, row, message):
  write_atomic(small(), tmp_path, 'x')
  path = tmp_path / 'x.inter'
  path.write_text(path.read_text() + row + '\n')
  with pytest.raises(ValueError, match=re.escape(f'{path}:12: ') + message):
    read_atomic(tmp_path, 'x', ODD)


def test_a_cut_empty_or_absent_file(tmp_path):
  write_atomic(small(), tmp_path, 'x')
  path = tmp_path / 'x.item'
  for text, message in (('', r':1: .*missing \['), ('\n', r':1: .*missing \['),
                        (path.read_text()[:-1], ':4: must end in a line feed'),
                        (path.read_text().split('\n')[0] + '\n', ':1: must hold at least one job')):
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(str(path)) + message):
      read_atomic(tmp_path, 'x', ODD)
  path.unlink()
  with pytest.raises(ValueError, match=re.escape(str(path)) + ': must be a readable file'):
    read_atomic(tmp_path, 'x', ODD)


@FOLDER
@given(row=st.integers(0, 2), column=st.integers(0, 8),
       cell=st.text(st.characters(codec='utf-8', exclude_characters='\t\n'), max_size=8)
       | st.sampled_from([n for n in NASTY if n not in ('\t', '\n', '\r\n')]))
def test_any_cell_parses_to_a_valid_record_or_names_its_line(tmp_path, row, column, cell):
  one = dataclasses.replace(small(), interactions=interactions([]))
  write_atomic(one, tmp_path, 'x')
  path = tmp_path / 'x.user'
  cells = rows(path)
  cells[row + 1][column] = cell
  path.write_bytes('\n'.join(['\t'.join(c) for c in cells] + ['']).encode())
  try:
    dataset = read_atomic(tmp_path, 'x', ODD)
  except ValueError as error:
    assert re.match(re.escape(str(path)) + f':({row + 2}|[2-4]): ', str(error))
    return
  for entity in dataset.candidates:
    ODD.validate('candidate', entity)
  write_atomic(dataset, tmp_path, 'y')
  again, before = rows(tmp_path / 'y.user'), [c[:] for c in cells]
  for c in (again, before):  # numbers have several spellings, strings have one
    c[row + 1][2:4] = [float(x or 'nan') for x in c[row + 1][2:4]]
    c[row + 1][7:] = [sorted({fold(m) for m in x.split(' ')}) for x in c[row + 1][7:]]  # one order
  assert repr(again) == repr(before)


def test_columns_that_are_not_required_may_be_absent(tmp_path):
  write_atomic(small(), tmp_path, 'x')
  (tmp_path / 'x.user').write_text('user_id:token\nS1\nS2\nS é3\n')
  dataset = read_atomic(tmp_path, 'x', ODD)
  assert set(dataset.candidates[0].attributes.values()) == {None}
  (tmp_path / 'x.item').write_text('item_id:token\tpay:float\nJ1\t3\nJ2\t\nJ3\t\n')
  with pytest.raises(ValueError, match=r"x.item:1: .*missing \['title:token'\]"):
    read_atomic(tmp_path, 'x', ODD)


@pytest.mark.parametrize('name', ['user_id', 'split', 'a:b', 'a b', 'pay'])
def test_names_that_recbole_would_confuse(tmp_path, name):
  schema = Schema('bad', (Attribute(name, 'text'),), (Attribute('pay', 'number'),), ())
  with pytest.raises(ValueError, match=rf"schema bad: RecBole needs names .*'{name}'"):
    write_atomic(dataclasses.replace(small(), schema=schema), tmp_path, 'x')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name, value, message', [
    ('score', float('inf'), 'score must be a finite number'),
    ('score', float('nan'), 'score must be a finite number'),
    ('score', 10 ** 400, 'score must be a finite number'),
    ('name', '\ud800', 'surrogates not allowed'),
])
def test_a_failed_write_leaves_the_old_files(tmp_path, name, value, message):
  write_atomic(small(), tmp_path, 'x')
  before = {p: p.read_bytes() for p in tmp_path.iterdir()}
  broken = dataclasses.replace(small(), candidates=(Entity('S1', {name: value}),))
  with pytest.raises(ValueError, match=message):
    write_atomic(broken, tmp_path, 'x')
  assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_name_is_that_of_a_file(tmp_path):
  with pytest.raises(ValueError, match=r"name must be that of a file.*got 'a/b'"):
    write_atomic(small(), tmp_path, 'a/b')


def test_exposures_keep_their_bits(tmp_path):
  rng = np.random.default_rng(0)
  exposure = np.exp2(-20 * rng.random(2000)).astype(np.float32)
  one = small()
  log = interactions([(0, j, 1, -1, 0, e) for j, e in enumerate(exposure)])
  jobs = tuple(Entity(str(j), {'title': ''}) for j in range(len(exposure)))
  write_atomic(dataclasses.replace(one, jobs=jobs, interactions=log), tmp_path, 'x')
  again = read_atomic(tmp_path, 'x', ODD).interactions
  assert again.exposure.dtype == np.float32 and (again.exposure == exposure).all()
