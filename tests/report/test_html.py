"""The report is one page that holds everything and fetches nothing."""

import base64
import hashlib
from html.parser import HTMLParser
import re

import pytest

from jobrec_jax.report.canvas import PALETTE, save
from jobrec_jax.report.figures import training_curves
from jobrec_jax.report.findings import Finding
from jobrec_jax.report.html import PHONE, Section, _letters, anchor, table_html, write_report
from jobrec_jax.report.results import Table


class Outline(HTMLParser):
  """Collects tags, attributes and text, and checks that tags nest."""

  def __init__(self, text):
    super().__init__()
    self.open, self.tags, self.attributes, self.words = [], [], [], []
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, *a) for a in attrs]
    if tag not in ('meta', 'img'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, *a) for a in attrs]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


@pytest.fixture
def picture(tmp_path):
  rows = [{'stage': '1A', 'step': i, 'train/loss': 1.0} for i in range(3)]
  return save(lambda narrow: training_curves(rows, {'train/loss': 'loss'}, narrow),
              tmp_path / 'figures', 'figure', 'A caption.')


TABLE = Table('Ranking', ('system', 'ndcg@5'), (('jobrec', '0.412 [0.4, 0.5]'), ('bm25', '0.300')),
              frozenset({(0, 1)}), frozenset({(1, 1)}))


def test_report_holds_everything_and_fetches_nothing(tmp_path, picture):
  path = tmp_path / 'report.html'
  write_report(path, 'A title', [('jobs', '400')], [
      Section('First', 'One paragraph.\n\nAnother.',
              [Finding('It holds.', ('Ranking', 'bm25'), 'no')], [picture], tables=[TABLE]),
      Section('Second', terms=[('C', 'eligibility')])], ['let a = 1 < 2;'])
  text = path.read_text(encoding='utf-8')
  page = Outline(text)
  for word in ('A title', 'jobs', '400', 'First', 'One paragraph.', 'Another.', 'A caption.',
               'Ranking', 'ndcg@5', '0.412', '[0.4, 0.5]', 'bm25', 'Second', 'eligibility', '✗'):
    assert word in page.words, word
  assert page.tags.count('tr') == 3 and page.tags.count('svg') == 2
  ids = [value for _, name, value in page.attributes if name == 'id']
  assert len(ids) == len(set(ids))
  links = [value for tag, name, value in page.attributes if (tag, name) == ('a', 'href')]
  assert links == ['#first', '#second', '#ranking--bm25']
  assert {link[1:] for link in links} <= set(ids)
  for tag, name, value in page.attributes:
    if name in ('src', 'href', 'xlink:href') and tag != 'a':
      assert value[0] == '#' and value[1:] in ids
  assert not {'link', 'iframe', 'img'} & set(page.tags)
  digest = base64.b64encode(hashlib.sha256(b'let a = 1 < 2;').digest()).decode()
  policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
  assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_all_text_is_escaped(tmp_path, picture):
  evil = '<script>"&\'</script>'
  table = Table(evil, (evil, evil), ((evil, evil),))
  finding = Finding(evil, (evil, evil), 'yes')
  write_report(tmp_path / 'r.html', evil, [(evil, evil)],
               [Section(evil, evil, [finding], [picture], tables=[table], terms=[(evil, evil)])])
  text = (tmp_path / 'r.html').read_text(encoding='utf-8')
  page = Outline(text)
  assert '<script' not in text and 'script' not in page.tags and "script-src 'none'" in text
  # Title twice, a fact, heading and its link, text, the finding, five in the table, a term.
  assert page.words.count(evil) + page.words.count(f'{evil} ') == 15


def test_marks_are_told_in_words_too():
  text = table_html(TABLE)
  assert '<td role="cell" data-label="ndcg@5" class="best">' in text
  assert '(best)' in text and '(not told from the best)' in text and 'best of those' in text
  assert 'class="note"' not in table_html(TABLE._replace(best=frozenset(), level=frozenset()))


def test_wide_tables_become_cards_on_a_phone():
  wide = Table('t', ('system', 'recall@1', 'recall@5'), (('a', '0.1 [0.111, 0.222]', '0.2'),))
  assert 'class="cards"' not in table_html(wide)
  wider = Table('t', (*wide.header, 'ndcg@5'), ((*wide.rows[0], '0.3 [0.111, 0.222]'),))
  assert 'class="cards"' in table_html(wider)
  assert _letters(wide) <= PHONE < _letters(wider)


def test_anchors_of_rows_differ():
  assert anchor('Cold: preference', '0.5') == 'cold-preference--0.5'
  assert anchor('a', 'b − c') == 'a--b-c' and anchor('a b') != anchor('a', 'b')


def test_figures_follow_the_page_and_are_files_too(tmp_path, picture):
  for form, start in (('png', b'\x89PNG'), ('pdf', b'%PDF')):
    assert (tmp_path / f'figures/figure.{form}').read_bytes().startswith(start)
  for svg in (picture.wide, picture.narrow):
    assert 'var(--c0)' in svg and 'var(--ink)' in svg and PALETTE[0] not in svg
    assert '<text' in svg and 'loss (nats)' in svg and '#000000' not in svg
    assert 'DejaVu' not in svg and '<metadata' not in svg
  again = save(lambda narrow: training_curves(
      [{'stage': '1A', 'step': i, 'train/loss': 1.0} for i in range(3)], {'train/loss': 'loss'},
      narrow), tmp_path / 'again', 'figure', 'A caption.')
  assert again == picture
  assert (tmp_path / 'again/figure.pdf').read_bytes() == (
      tmp_path / 'figures/figure.pdf').read_bytes()
