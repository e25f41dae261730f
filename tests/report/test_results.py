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


def compared(*diffs, metric='ndcg@5'):
  systems = [ResultRow(name, None, 'test', 'preference', metric, v, v - 0.1, v + 0.1, 9)
             for name, v in (('a', 0.5), ('b', 0.6), ('c', 0.4), ('canary: x', 0.9),
                             ('true P (ceiling)', 1.0))]
  return systems + [ResultRow(x, None, 'test', 'preference', metric, 0.0, low, high, 9, y)
                    for x, y, low, high in diffs]


@pytest.mark.parametrize('diffs, level', [
    ([('b', 'a', -0.1, 0.1)], {(0, 1)}), ([('a', 'b', -0.1, 0.1)], {(0, 1)}),
    ([('b', 'a', 0.01, 0.2)], set()), ([('a', 'b', -0.2, -0.01)], set()),
    ([('a', 'c', -0.1, 0.1)], set()), ([('b', 'a', NAN, NAN)], set())])
def test_the_best_and_those_level_with_it_are_marked(diffs, level):
  table = result_tables(compared(*diffs))[0]
  assert table.best == {(1, 1)} and table.level == level
  text = to_markdown(table)
  assert '| **0.600** [0.500, 0.700] |' in text
  assert ('| 0.500 [0.400, 0.600] ≈ |' in text) == bool(level)


def test_the_least_is_best_where_less_is_better_and_nothing_where_neither_is():
  assert result_tables(compared(metric='mean_rank'))[0].best == {(2, 1)}
  assert not result_tables(compared(metric='correlation with P'))[0].best


def test_what_is_true_or_not_is_told_in_words():
  for value, word in ((1.0, 'yes'), (0.0, 'no')):
    row = ResultRow('policy', None, 'test', 'policy', 'monotone true C', value, NAN, NAN, 7)
    assert result_tables([row])[0].rows == (('policy', word, '7'),)


def test_sentences_come_before_the_tables(tmp_path):
  write_results(tmp_path, ROWS, ['It holds.', 'So does this.'])
  lines = (tmp_path / 'results.md').read_text().splitlines()
  assert lines[:5] == ['# Results', '', '- It holds.', '- So does this.', '']


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
