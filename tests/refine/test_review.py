"""What reviewers are shown, in a real browser where there is one, and their files read back."""

import base64
import csv
import hashlib
import io
import json
import re
import time

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.refine.aggregation import NONE
from jobrec_jax.refine.review import (
  QUESTIONS,
  REQUIRED,
  UNSURE,
  VERDICTS,
  Review,
  margin_in_words,
  page,
  provenance,
  read_verdicts,
  sheet,
  write_review,
)
from jobrec_jax.schema.align import align
from jobrec_jax.schema.schema import Entity
from tests.refine.chromium import BROWSER, Chromium

WORDS = {value: word for word, value in VERDICTS.items()}
EVIL = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 2"><!--'


@pytest.fixture(scope='module')
def review(dataset):
  dealt = np.ones((6, 2), bool)
  dealt[4, 1] = dealt[5, 0] = False
  evil = Entity('=1+1', {**dataset.candidates[0].attributes, 'student_llm_output': EVIL})
  dataset = Dataset(dataset.schema, (evil, *dataset.candidates[1:]), dataset.jobs,
                    dataset.interactions)
  return Review(dataset, np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2]),
                np.array([3, 4, 5, 6, 7, 8]), dealt, ('ann', 'bo_2'))


def rows_of(text: str) -> list[dict]:
  return list(csv.DictReader(io.StringIO(text, newline='')))


def filled(review: Review, name: str, verdicts: np.ndarray) -> str:
  """The reviewer's sheet with verdicts [N] in it."""
  rows = rows_of(sheet(review, name))
  out = io.StringIO(newline='')
  writer = csv.DictWriter(out, list(rows[0]))
  writer.writeheader()
  for row in rows:
    writer.writerow(row | {'verdict': WORDS[int(verdicts[review.pairs.index(row['pair'])])]})
  return out.getvalue()


def embedded(text: str) -> dict:
  (content,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', text,
                          flags=re.S)
  return json.loads(content)


def test_the_page_stands_alone(review):
  text = page(review, 'ann')
  assert not re.search(r'https?:|//[a-z]|\bsrc=(?!x )|\bhref="|@import|url\(', text.replace(
      json.dumps(embedded(text)), ''))
  policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
  (script,) = re.findall(r'<script>(.*?)</script>', text, flags=re.S)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert "default-src 'none'" in policy and f"script-src 'sha256-{digest}'" in policy
  assert "'unsafe-eval'" not in policy and 'connect-src' not in policy


def test_the_page_holds_what_the_reviewer_was_given_and_no_more(review):
  content = embedded(page(review, 'bo_2'))
  assert content['reviewer'] == 'bo_2' and content['review'] == review.fingerprint
  assert [p['pair'] for p in content['pairs']] == [
      name for name, given_ in zip(review.pairs, review.dealt[:, 1]) if given_]
  # A pair shows records and how they compare: no machine label, no doubt.
  assert {key for p in content['pairs'] for key in p} == {
      'pair', 'perspective', 'candidate', 'job', 'verdicts'}
  assert set(content) == {'questions', 'layers', 'records', 'labels', 'pairs', 'review',
                          'reviewer'}


def test_texts_cannot_leave_the_json(review):
  text = page(review, 'ann')
  assert EVIL not in text and text.count('<script') == 2 and text.count('</script>') == 2
  assert embedded(text)['records']['candidate']['0']['student_llm_output'] == EVIL


def test_the_sheet_says_what_the_page_says(review):
  rows, content = rows_of(sheet(review, 'ann')), embedded(page(review, 'ann'))
  assert len(rows) == len(content['pairs']) == 5
  for row, pair in zip(rows, content['pairs']):
    assert row['pair'] == pair['pair'] and row['verdict'] == ''
    assert row['question'] == QUESTIONS[pair['perspective']]
    for layer, compared in zip(content['layers'], pair['verdicts']):
      for field, (verdict, margin) in zip(layer['fields'], compared):
        assert field['name'] in row[layer['name']]
        assert verdict in row[layer['name']] and margin in row[layer['name']]
        for side in ('candidate', 'job'):
          record = content['records'][side][str(pair[side])]
          assert all(record.get(name, 'not given') in row[layer['name']] for name in field[side])
  assert rows[0]['candidate'] == "'=1+1"  # no formula for a spreadsheet


def test_margins_in_words(dataset):
  schema = dataset.schema
  candidate = Entity('a', {'gpa': 3.0, 'months_experience': 4, 'num_publications': 2,
                           'skills': ('a', 'b')})
  job = Entity('b', {'min_gpa': 3.4, 'min_months_experience': 3, 'min_num_publications': 2,
                     'required_skills': ('b', 'c')})
  words = {f.field.name: margin_in_words(f) for f in align(schema, candidate, job).fields()}
  assert words['gpa'] == '0.4 below' and words['months'] == '1 month above'
  assert words['papers'] == 'exactly' and words['skills'] == '1 of 2' and words['level'] == ''


@settings(deadline=None, max_examples=25,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_verdicts_come_back_from_several_partial_files(review, tmp_path, data):
  values = st.sampled_from([NONE, 0, 1, UNSURE])
  asked = data.draw(st.lists(st.lists(values, min_size=2, max_size=2), min_size=6, max_size=6))
  asked = np.where(review.dealt, np.array(asked, np.int8), NONE)
  paths = []
  for e, name in enumerate(review.names):
    for part in range(2):  # the second file repeats the first or adds to it
      first = np.where(np.arange(6) < data.draw(st.integers(0, 6)), asked[:, e], NONE)
      path = tmp_path / f'{name}{part}.csv'
      path.write_text(filled(review, name, asked[:, e] if part else first), newline='')
      paths.append(path)
  np.testing.assert_array_equal(read_verdicts(review, paths), asked)


def test_a_spreadsheets_file_is_read(review, tmp_path):
  text = filled(review, 'ann', np.array([1, 0, UNSURE, NONE, 1, NONE]))
  text = text.replace(',yes\r\n', ', Yes \r\n')
  (tmp_path / 'a.csv').write_bytes(b'\xef\xbb\xbf' + text.replace('\r\n', '\n').encode())
  found = read_verdicts(review, [tmp_path / 'a.csv'])
  np.testing.assert_array_equal(found[:, 0], [1, 0, UNSURE, NONE, 1, NONE])
  assert (found[:, 1] == NONE).all()


@pytest.mark.parametrize('change, message', [
    ({'pair': 'p00099'}, r":3: pair must be one of the 5 that ann was given, got 'p00099'"),
    ({'pair': 'p00006'}, r":3: pair must be one of the 5 that ann was given, got 'p00006'"),
    ({'verdict': 'maybe'}, r":3: verdict must be one of yes, no, unsure, empty, got 'maybe'"),
    ({'review': 'f00'}, r":3: review must be \w+, got 'f00' \(a file of another review\)"),
    ({'reviewer': 'eve'}, r":3: reviewer must be one of ann, bo_2, got 'eve'"),
    ({'pair': 'p00001', 'verdict': 'no'},
     r":3: verdict of ann on p00001 must be the one of .*a\.csv:2, got 'no'; remove the older"),
])
def test_a_bad_row_is_named(review, tmp_path, change, message):
  row = {'review': review.fingerprint, 'reviewer': 'ann', 'pair': 'p00001', 'verdict': 'yes'}
  lines = [','.join(REQUIRED), ','.join(row.values()), ','.join((row | change).values())]
  path = tmp_path / 'a.csv'
  path.write_text('\n'.join(lines))
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    read_verdicts(review, [path])


@pytest.mark.parametrize('text, message', [
    ('', ':1: must start with a header'),
    ('pair,verdict\n', r":1: columns must be .*missing \['review', 'reviewer'\]"),
    ('review,reviewer,pair,verdict\na,b\n', ':2: must have 4 fields, got 2'),
    ('review,reviewer,pair,verdict\n"a"b,b,c,d\n', ':2: must be well quoted CSV'),
])
def test_a_file_of_another_kind_is_refused(review, tmp_path, text, message):
  path = tmp_path / 'a.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=re.escape(str(path)) + message):
    read_verdicts(review, [path])


def test_the_same_reviewer_twice_and_differently(review, tmp_path):
  for name, verdict in (('a.csv', 1), ('b.csv', UNSURE)):
    (tmp_path / name).write_text(filled(review, 'ann', np.full(6, verdict)), newline='')
  with pytest.raises(ValueError, match=r"b\.csv:2: .*must be the one of .*a\.csv:2, got 'unsure'"):
    read_verdicts(review, sorted(tmp_path.iterdir()))


def test_lines_are_counted_through_texts_of_several_lines(review, tmp_path):
  row = f'{review.fingerprint},ann,p00001,"a\nb\nc",yes\n'
  (tmp_path / 'a.csv').write_text(f'review,reviewer,pair,note,verdict\n{row}{row[:-4]}no\n')
  with pytest.raises(ValueError, match=r'a\.csv:5: .*a\.csv:2'):
    read_verdicts(review, [tmp_path / 'a.csv'])


def test_a_file_that_somebody_may_have_filled_is_never_overwritten(review, tmp_path):
  assert len(write_review(review, tmp_path)) == 4
  (tmp_path / 'review_ann.csv').write_text('mine')
  (tmp_path / 'review_bo_2.html').unlink()
  assert write_review(review, tmp_path) == [tmp_path / 'review_bo_2.html']
  assert (tmp_path / 'review_ann.csv').read_text() == 'mine'
  assert len(list(tmp_path.iterdir())) == 4


def test_names_become_files(review):
  for names in (('ann', '../x'), ('ann', 'Ann'), ('ann', '')):
    with pytest.raises(ValueError, match='different names of letters'):
      Review(review.dataset, review.perspective, review.candidate, review.job, review.dealt, names)


def test_a_changed_label_names_its_experts(review):
  verdicts = np.full((6, 2), NONE)
  verdicts[0], verdicts[1], verdicts[2] = (1, 1), (UNSURE, 1), (0, 1)
  machine, label = np.zeros(6, bool), np.array([1, 1, 0, 0, 0, 0], bool)
  rows = provenance(review, verdicts, machine, np.full(6, 0.4), np.full(6, 0.9), label)
  assert [r['changed'] for r in rows] == [True, True, False, False, False, False]
  assert rows[0]['changed_by'] == ['ann', 'bo_2'] and rows[1]['changed_by'] == ['bo_2']
  assert rows[1]['verdicts'] == {'ann': 'unsure', 'bo_2': 'yes'} and rows[2]['changed_by'] == []
  assert rows[0]['candidate'] == '=1+1' and rows[3]['perspective'] == 'qualification'
  assert json.loads(json.dumps(rows)) == rows


needs_browser = pytest.mark.skipif(BROWSER is None, reason='no Chromium or Chrome on this machine')


@pytest.fixture
def folder(review, tmp_path):
  write_review(review, tmp_path)
  return tmp_path


@needs_browser
def test_a_whole_review_in_a_browser(review, folder):
  """Keyboard and mouse, an interruption, a saved file that is read back."""
  url = folder / 'review_ann.html'
  with Chromium(folder / 'profile') as browser:
    browser.open(url)
    assert browser.text('title') == 'Review by ann' and browser.text('count') == '0 of 5 answered'
    assert browser.text('question') == QUESTIONS['preference']
    browser.press('y', 'n', 'u')
    assert browser.text('question') == QUESTIONS['qualification']
    browser.press('ArrowLeft', 'ArrowLeft')
    assert browser.js('document.getElementById("no").getAttribute("aria-pressed")') == 'true'
    assert 'Your answer: No' in browser.text('where')
    browser.press('N')  # the same again
    browser.open(url)  # closing the page loses nothing: it goes on at the first open pair
    assert browser.text('count') == '3 of 5 answered'
    assert browser.text('where').startswith('Pair 4 of 5')
    browser.click('yes')
    browser.leave(browser.js('JSON.stringify(verdicts)'))
  with Chromium(folder / 'profile') as browser:  # nor does closing the browser
    browser.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(folder))
    browser.open(url)
    assert browser.text('count') == '4 of 5 answered'
    browser.press('n')
    assert 'All pairs are answered' in browser.text('status')
    browser.click('save')
    saved = folder / 'verdicts_ann.csv'
    end = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < end:
      time.sleep(0.05)
    assert 'Saved 5 answers' in browser.text('status')
  found = read_verdicts(review, [saved])
  np.testing.assert_array_equal(found[:, 0], [1, 0, UNSURE, 1, 0, NONE])
  assert rows_of(saved.read_text())[0]['candidate'] == "'=1+1"


@needs_browser
def test_partial_files_are_taken_back_in_a_browser(review, folder):
  (folder / 'part.csv').write_text(filled(review, 'ann', np.array([1, 0, NONE, NONE, NONE, NONE])),
                                   newline='')
  (folder / 'other.csv').write_text(filled(review, 'bo_2', np.ones(6, int)), newline='')
  with Chromium(folder / 'profile') as browser:
    browser.open(folder / 'review_ann.html')
    browser.choose_file(folder / 'part.csv')
    browser.until('document.getElementById("count").innerText === "2 of 5 answered"')
    assert 'Loaded 2 answers' in browser.text('status')
    assert browser.text('where').startswith('Pair 3 of 5')
    browser.choose_file(folder / 'other.csv')
    browser.until('document.getElementById("status").innerText.includes("was not loaded")')
    assert 'row 2: it belongs to bo_2' in browser.text('status')
    browser.press('ArrowLeft', 'ArrowLeft', 'n')  # now other than in the file, which asks
    for accept, count in ((False, '"no","no"'), (True, '"yes","no"')):
      browser.choose_file(folder / 'part.csv')
      question = browser.wait_for('Page.javascriptDialogOpening')['message']
      assert '1 of the answers here differ' in question
      browser.call('Page.handleJavaScriptDialog', accept=accept)
      browser.until('document.getElementById("status").innerText.startsWith("Loaded")')
      assert browser.js('JSON.stringify(Object.values(verdicts))') == f'[{count}]'


@needs_browser
def test_nothing_is_run_or_fetched_in_a_browser(folder):
  with Chromium(folder / 'profile') as browser:
    browser.open(folder / 'review_ann.html')
    # Text that looks like markup is shown as the text that it is.
    assert EVIL in browser.text('pair') and browser.js('window.pwned') is None
    assert browser.js('document.getElementsByTagName("img").length') == 0
    assert browser.js('document.getElementsByTagName("caption").length') == 5
    browser.js('''(() => {
      window.blocked = [];
      document.addEventListener('securitypolicyviolation',
                                (e) => window.blocked.push(e.effectiveDirective));
      const script = document.createElement('script');
      script.textContent = 'window.pwned = 3';
      document.body.append(script);
      const image = document.createElement('img');
      image.src = 'http://127.0.0.1:9/x.png';
      document.body.append(image);
      fetch('http://127.0.0.1:9/x').catch(() => 0);
    })()''')
    browser.until('window.blocked.length === 3')
    assert sorted(browser.js('window.blocked')) == ['connect-src', 'img-src', 'script-src-elem']
    assert browser.js('window.pwned') is None
    sent = [e['params']['request']['url'] for e in browser.events
            if e.get('method') == 'Network.requestWillBeSent']
    assert all(u.startswith(('file:', 'blob:')) or 'http://127.0.0.1:9/' in u for u in sent)
