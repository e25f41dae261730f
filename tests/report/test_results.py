"""Rows of results as JSON, as tables and as Markdown."""

import json
import math
import os

import numpy as np
import pytest

from jobrec_jax.report.results import (
  ResultRow,
  Table,
  format_number,
  read_results,
  result_tables,
  to_markdown,
  write_results,
)
from jobrec_jax.schema.files import write_text

NAN = math.nan
ROWS = [
    ResultRow('jobrec', None, 'test', 'preference', 'ndcg@5', 0.412, 0.4, 0.43, 500),
    ResultRow('jobrec', None, 'test', 'preference', 'ndcg@20', 0.5, 0.4, 0.6, 500),
    ResultRow('jobrec', None, 'test', 'preference', 'mean_rank', 12.345, 11.0, 13.5, 500),
    ResultRow('popularity', None, 'test', 'preference', 'ndcg@5', 0.2, NAN, NAN, 498),
    ResultRow('jobrec', None, 'test', 'qualification', 'ndcg@5', NAN, NAN, NAN, 0),
    ResultRow('policy', 0.5, 'test', 'policy', 'true eligibility', 0.48, 0.45, 0.51, 500),
    ResultRow('policy', 0.0075, 'test', 'policy', 'true eligibility', 0.1, 0.05, 0.15, 500),
    ResultRow('policy', 0.5, 'test', 'preference', 'ndcg@5', 0.3, 0.2, 0.4, 500),
    ResultRow('jobrec', None, 'test', 'preference', 'ndcg@5', -0.01, -0.03, 0.02, 498,
              against='popularity'),
    ResultRow('jobrec', None, 'validation', 'preference', 'ndcg@5', 0.9, 0.8, 1.0, 7),
]


def same(a, b):
  return all(x == y or (x != x and y != y)
             for r, s in zip(a, b, strict=True)
             for x, y in zip(vars(r).values(), vars(s).values(), strict=True))


def test_written_rows_read_back(tmp_path):
  write_results(tmp_path / 'run', ROWS)
  assert same(read_results(tmp_path / 'run' / 'results.json'), ROWS)
  raw = json.loads((tmp_path / 'run' / 'results.json').read_text())
  assert raw[4]['value'] is None and raw[0]['tau'] is None and raw[6]['tau'] == 0.0075
  assert sorted(os.listdir(tmp_path / 'run')) == ['results.json', 'results.md']


def test_numpy_numbers_are_written_as_numbers(tmp_path):
  row = ResultRow('a', np.float32(0.5), 'test', 'policy', 'C', np.float64(0.25), np.float32(0),
                  np.float32(1), np.int64(3))
  write_results(tmp_path, [row])
  assert same(read_results(tmp_path / 'results.json'), [row])


def test_unknown_keys_are_named(tmp_path):
  (tmp_path / 'results.json').write_text('[{"system": "a", "score": 1}]')
  with pytest.raises(ValueError, match=r'results\.json: row 0 .*score'):
    read_results(tmp_path / 'results.json')


def test_tables_group_by_split_and_perspective():
  tables = {t.title: t for t in result_tables(ROWS)}
  assert list(tables) == [
      'test: preference', 'test: qualification', 'test: policy over τ',
      'test: preference, paired differences', 'validation: preference']
  first = tables['test: preference']
  assert first.header == ('system', 'ndcg@5', 'mean_rank', 'n')
  assert first.rows == (('jobrec', '0.412 [0.400, 0.430]', '12.35 [11.00, 13.50]', '500'),
                        ('popularity', '0.200', '', '498'))
  policy = tables['test: policy over τ']
  assert policy.header == ('τ', 'true eligibility', 'preference ndcg@5', 'n')
  assert [row[0] for row in policy.rows] == ['0.0075', '0.5'] and policy.rows[0][2] == ''
  paired = tables['test: preference, paired differences']
  assert paired.rows == (('jobrec − popularity', '−0.010 [−0.030, 0.020]', '498'),)
  assert tables['test: qualification'].rows == (('jobrec', '–', '0'),)


def test_two_results_for_one_cell_are_refused():
  with pytest.raises(ValueError, match="two results for 'jobrec', 'ndcg@5'"):
    result_tables([ROWS[0], ROWS[0]])


def test_markdown_is_a_pipe_table():
  text = to_markdown(Table('t', ('system', 'n'), (('a|b', '1'),)))
  assert text.splitlines() == ['## t', '', '| system | n |', '|---|---:|', '| a\\|b | 1 |']


def test_numbers():
  assert [format_number(v) for v in (0.12345, -1.0, 123.456, NAN)] == [
      '0.123', '−1.000', '123.46', '–']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'results.md'
  write_text(path, 'old')

  def fail(*_):
    raise OSError('disk')
  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(OSError, match='disk'):
    write_text(path, 'new')
  assert path.read_text() == 'old' and os.listdir(tmp_path) == ['results.md']
