"""The report is one page that holds everything and fetches nothing."""

import base64
from html.parser import HTMLParser

import pytest

from jobrec_jax.report.figures import save, training_curves
from jobrec_jax.report.html import Section, write_report
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

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.words.append(data)


@pytest.fixture
def figure(tmp_path):
  path = tmp_path / 'figure.png'
  save(training_curves([{'stage': '1A', 'step': i, 'train/loss': 1.0} for i in range(3)]), path)
  return path


def test_report_holds_everything_and_fetches_nothing(tmp_path, figure):
  table = Table('Ranking', ('system', 'ndcg@5'), (('jobrec', '0.412'), ('bm25', '0.300')))
  write_report(tmp_path / 'report.html', 'A title', [('jobs', '400')], [
      Section('First', 'One paragraph.\n\nAnother.', figure, 'A caption.', [table]),
      Section('Second')])
  page = Outline((tmp_path / 'report.html').read_text(encoding='utf-8'))
  for word in ('A title', 'jobs', '400', 'First', 'One paragraph.', 'Another.', 'A caption.',
               'Ranking', 'ndcg@5', '0.412', 'bm25', 'Second'):
    assert word in page.words
  assert page.tags.count('p') == 2 and page.tags.count('tr') == 3
  (source,) = [value for _, name, value in page.attributes if name == 'src']
  assert base64.b64decode(source.removeprefix('data:image/png;base64,')) == figure.read_bytes()
  assert not {'script', 'link', 'iframe'} & set(page.tags)
  assert 'href' not in {name for _, name, _ in page.attributes}


def test_all_text_is_escaped(tmp_path, figure):
  evil = '<script>"&\'</script>'
  table = Table(evil, (evil, evil), ((evil, evil),))
  write_report(tmp_path / 'r.html', evil, [(evil, evil)],
               [Section(evil, evil, figure, evil, [table])])
  text = (tmp_path / 'r.html').read_text(encoding='utf-8')
  page = Outline(text)
  assert '<script' not in text and 'script' not in page.tags
  # Title twice, a fact, heading, text, caption, and five in the table; the caption is alt text too.
  assert page.words.count(evil) == 12
  assert ('img', 'alt', evil) in page.attributes


def test_only_png_is_embedded(tmp_path):
  (tmp_path / 'a.png').write_bytes(b'<svg/>')
  with pytest.raises(ValueError, match=r'a\.png must be a PNG'):
    write_report(tmp_path / 'r.html', 't', [], [Section('s', figure=tmp_path / 'a.png')])
