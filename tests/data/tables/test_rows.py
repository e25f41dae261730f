"""Tables in files of any kind: the same rows, however written, or one line that says why."""

import decimal
import json
import os

import pyarrow as pa
from pyarrow import parquet
import pytest

from jobrec_jax.data.tables.rows import read_table

ROWS = [('1', 'a, b', 'x'), ('2', 'two\nlines "quoted"', ''), ('3', 'é\u2028ü', 'z')]
NAMES = ('id', 'text', 'other')


def quoted(delimiter):
  cells = [NAMES, *ROWS]
  return '\n'.join(delimiter.join('"' + c.replace('"', '""') + '"' for c in row) for row in cells)


def as_json():
  return [dict(zip(NAMES, row)) for row in ROWS]


WRITTEN = {
    'commas.csv': quoted(',') + '\n', 'no_end.csv': quoted(','), 'semicolons.CSV': quoted(';'),
    'tabs.tsv': quoted('\t'), 'bars.txt': quoted('|'), 'bom.csv': '\ufeff' + quoted(','),
    'crlf.csv': quoted(',').replace('"\n"', '"\r\n"'),
    'lines.jsonl': '\n'.join(json.dumps(r, ensure_ascii=False) for r in as_json()),
    'escaped.ndjson': '\r\n'.join(json.dumps(r) for r in as_json()) + '\r\n\r\n',
    'array.JSON': '\ufeff' + json.dumps(as_json())}


def rows_of(table):
  return [tuple(row) for _, row in table.rows]


@pytest.mark.parametrize('name', [*WRITTEN, 'columns.parquet'])
def test_the_same_rows_however_they_are_written(tmp_path, name):
  path = tmp_path / name
  if name in WRITTEN:
    path.write_text(WRITTEN[name], encoding='utf-8', newline='')
  else:
    parquet.write_table(pa.table({n: [r[i] for r in ROWS] for i, n in enumerate(NAMES)}), path)
  table = read_table(path, ['id', 'text'])
  assert table.columns == NAMES
  assert rows_of(table) == ROWS


def test_recbole_files_are_cut_at_tabs_alone_and_lose_their_types(tmp_path):
  (tmp_path / 'x.item').write_text('item_id:token\tname:token_seq\n1\t"a", b\n')
  table = read_table(tmp_path / 'x.item')
  assert table.columns == ('item_id', 'name') and rows_of(table) == [('1', '"a", b')]


@pytest.mark.parametrize('kind, cell, value', [
    ('token', '%4EA', 'NA'), ('token', 'two %22words%22, 5%25', 'two "words", 5%'),
    ('token', '%', ''), ('token', 'tab%09', 'tab\t'), ('token_seq', 'a%20b c', ['a b', 'c']),
    ('token_seq', '%4EA %22', ['NA', '"']), ('token_seq', 'a b', 'a b'),
    ('token', '100% wool', '100% wool'), ('token', 'a%20b', 'a%20b'), ('token', '%41BC', '%41BC'),
    ('token', '%4ea', '%4ea'), ('token_seq', '5% wool', '5% wool'), ('float', '0.5', '0.5')])
def test_recbole_files_lose_the_escapes_of_our_export_and_no_others(tmp_path, kind, cell, value):
  (tmp_path / 'x.inter').write_text(f'user_id:token\tmore:{kind}\n7\t{cell}\n')
  assert rows_of(read_table(tmp_path / 'x.inter')) == [('7', value)]


def test_typed_values_stay_what_they_are(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"id": 7, "tags": ["x", "y"]}\n{"id": 8, "on": true}\n')
  table = read_table(tmp_path / 'a.jsonl')
  assert table.columns == ('id', 'tags', 'on')
  assert rows_of(table) == [(7, ['x', 'y'], None), (8, None, True)]


def test_a_cell_may_be_as_long_as_memory_allows(tmp_path):
  long = 'word ' * 200_000
  (tmp_path / 'a.csv').write_text(f'id,text\n1,"{long}"\n')
  assert rows_of(read_table(tmp_path / 'a.csv')) == [('1', long)]


def test_a_path_may_start_at_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'a.csv').write_text('id\n1\n')
  assert rows_of(read_table('~/a.csv')) == [('1',)]


@pytest.mark.parametrize('name, text, message', [
    ('a.xls', 'id', r'a.xls: must end in one of .csv, .*\.parquet.*, got .\.xls'),
    ('a.csv', '', 'a.csv:1: must start with a header row'),
    ('a.csv', 'id,b\n1,2\n3\n', 'a.csv:3: must have 2 cells, got 1'),
    ('a.csv', 'id,b\n1,"2\n3\n', 'a.csv:2: must be well quoted text'),
    ('a.csv', 'id,b,b\n', "a.csv: must have the columns .*twice \\['b'\\]"),
    ('a.csv', 'key,b\n', "missing \\['id'\\].*got \\['key', 'b'\\]"),
    ('a.jsonl', '{"id": 1}\n{"id": 2\n', 'a.jsonl:2: must be JSON'),
    ('a.jsonl', '{"id": 1}\n[2]\n', 'a.jsonl:2: must be a JSON object, got list'),
    ('a.json', '{"id": 1}', 'a.json: must be a JSON array of objects, got dict'),
    ('a.json', '[{"id": 1}, 3]', r'a.json\[1\]: must be a JSON object, got int'),
    ('a.parquet', 'PAR1', 'a.parquet: must be a Parquet file'),
])
def test_what_no_table_is(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=message):
    list(read_table(tmp_path / name, ['id']).rows)


def test_a_bad_byte_is_named_with_its_line(tmp_path):
  (tmp_path / 'a.csv').write_bytes(b'id\n1\n\xe9\n')
  with pytest.raises(ValueError, match=r'a\.csv:3: must be UTF-8, got byte 0xe9'):
    read_table(tmp_path / 'a.csv')


def test_devices_pipes_and_folders_are_no_tables(tmp_path):
  os.mkfifo(tmp_path / 'pipe.csv')
  (tmp_path / 'folder.csv').mkdir()
  (tmp_path / 'zero.csv').symlink_to('/dev/zero')
  for name in ('pipe', 'folder', 'zero'):
    with pytest.raises(ValueError, match=f'{name}.csv: must be a regular file'):
      read_table(tmp_path / f'{name}.csv')
  with pytest.raises(ValueError, match=r'none\.csv: must be a readable file, got No such file'):
    read_table(tmp_path / 'none.csv')


def test_decimals_of_parquet_are_numbers(tmp_path):
  cells = {'id': [decimal.Decimal('7'), decimal.Decimal('12345678901234567890')],
           'pay': [decimal.Decimal('19.50'), None]}
  parquet.write_table(pa.table(cells), tmp_path / 'a.parquet')
  found = rows_of(read_table(tmp_path / 'a.parquet'))
  assert found == [(7, 19.5), (12345678901234567890, None)]
  assert [type(x) for x in found[0]] == [int, float]


def test_a_name_twice_in_a_parquet_file_is_told_in_one_line(tmp_path):
  table = pa.Table.from_arrays([pa.array([1])] * 3, names=['id', 'b', 'b'])
  parquet.write_table(table, tmp_path / 'a.parquet')
  with pytest.raises(ValueError, match=r"^[^\n]*a\.parquet: must have .* twice \['b'\][^\n]*$"):
    read_table(tmp_path / 'a.parquet', ['id'])


def test_a_path_with_a_nul_is_none():
  with pytest.raises(ValueError, match=r"a\\x00b\.csv': must be a path, got one with a NUL"):
    read_table('a\0b.csv')
