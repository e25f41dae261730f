"""A study's page: sentences, marks and figures from plain rows."""

import re

import pytest

from jobrec_jax.report.compared import ComparedRow, sampled
from jobrec_jax.report.html import Section, anchor
from jobrec_jax.report.results import Table
from jobrec_jax.report.study import difference_tables, forest, study_findings, write_page
from tests.refine.chromium import BROWSER, Chromium

NAN = float('nan')
METRICS = ('NDCG@5, preference', 'NDCG@5, qualification', 'true C at the highest τ')


def compared(system, metric, diff, verdict, p=0.2):
  return ComparedRow(system, f'all of {metric}', metric, 0.5 + diff, 0.01, diff, diff - 0.02,
                     diff + 0.02, p / 2, p, 5, 1, verdict)


ROWS = [
    *(ComparedRow('whole road', f'all of {m}', m, 0.5, 0.02, *[NAN] * 5, 0, 0, 'the baseline')
      for m in METRICS),
    compared('raw text', METRICS[0], -0.1, 'worse', 0.0001),
    compared('raw text', METRICS[1], 0.05, 'better', 0.01),
    compared('raw text', METRICS[2], 0.0, 'not different'),
    *(compared('no stage 1A', m, 0.001, 'not different') for m in METRICS)]
PURPOSES = [(system, f'why {system}') for system in ('whole road', 'raw text', 'no stage 1A')]


def test_each_variant_has_its_sentence():
  mixed, nothing = study_findings(ROWS)
  assert mixed.text == (
      'raw text against whole road: better on NDCG@5, qualification by 0.050 [0.030, 0.070] '
      '(p 0.010), and worse on NDCG@5, preference by −0.100 [−0.120, −0.080] (p < 0.001), and not '
      'told apart on 1 other measure.')
  assert mixed.verdict == nothing.verdict == 'open'
  assert nothing.text == 'no stage 1A against whole road: not told apart on any measure.'
  better = [r._replace(verdict='better') for r in ROWS if r.system == 'raw text']
  assert study_findings(better)[0].verdict == 'yes'
  assert study_findings([r._replace(verdict='worse') for r in better])[0].verdict == 'no'


def test_tables_show_means_differences_and_marks():
  first, *_ = difference_tables(ROWS)
  assert first.rows == (
      ('whole road', '0.500 ± 0.020', '–', '–', 'the baseline'),
      ('raw text', '0.400 ± 0.010', '−0.100 [−0.120, −0.080]', '< 0.001', '▼ worse'),
      ('no stage 1A', '0.501 ± 0.010', '0.001 [−0.019, 0.021]', '0.200', '≈ not different'))


def test_what_is_not_tested_is_not_drawn_and_says_why(tmp_path):
  same = [r._replace(verdict='the same') if r.verdict != 'the baseline' else r for r in ROWS]
  assert difference_tables(same) == [] and forest(same, tmp_path) == []
  assert study_findings(same)[0].text == 'raw text against whole road: nothing is tested.'
  other = [r._replace(verdict='another τ') if r.system == 'raw text' else r for r in ROWS]
  assert difference_tables(other)[0].rows[1][-1] == 'τ another τ'
  assert len(forest(other, tmp_path)) == 3
  nan = dict.fromkeys(('mean', 'sd', 'diff', 'low', 'high', 'p', 'p_holm'), NAN)
  beyond = [r._replace(verdict='not reached', **nan) if r.system == 'raw text' else r for r in ROWS]
  assert difference_tables(beyond)[0].rows[1] == ('raw text', '–', '–', '–', '∅ not reached')
  assert study_findings(beyond)[0].text == 'raw text against whole road: nothing is tested.'


def test_what_intervals_are_over_is_said():
  assert sampled(ROWS) == 'candidates, jobs and training seeds'
  assert sampled([r._replace(n_seeds=1) for r in ROWS]) == 'candidates and jobs'
  assert sampled([*ROWS, ROWS[-1]._replace(n_seeds=1)]) == 'candidates and jobs'
  assert sampled([r._replace(n_data_seeds=3) for r in ROWS]) == (
      'candidates, jobs, training seeds and data seeds')


def test_the_page_holds_everything(tmp_path):
  rows = [r._replace(system=r.system.replace('raw text', '<b onload="x">&')) for r in ROWS]
  failures = Table('Runs that failed', ('run', 'why'), (('a, seed 3', 'disk'),))
  extra = [Section('Failures', tables=[failures])]
  purposes = [('<b onload="x">&', 'why <b onload="x">&'), *PURPOSES]
  write_page(tmp_path / 'study.html', 'A study', rows, purposes, [('training seeds', '5')], extra)
  text = (tmp_path / 'study.html').read_text()
  assert '<b onload' not in text and '<script' not in text
  assert text.count('<figure ') == 3 and text.count('<svg') == 6
  for form in ('png', 'pdf'):
    assert len(list((tmp_path / 'figures').glob(f'difference_*.{form}'))) == 3
  ids = re.findall(r'\bid="([^"]*)"', text)
  assert len(ids) == len(set(ids))
  links = set(re.findall(r'href="#([^"]*)"', text))
  assert links <= set(ids) and anchor('Failures') in links
  for word in ('the baseline', 'p (Holm)', 'a, seed 3', 'training seeds', 'why no stage 1A'):
    assert word in text


@pytest.mark.skipif(BROWSER is None, reason='no Chromium or Chrome on this machine')
def test_the_page_fits(tmp_path):
  rows = [r._replace(system=f'{r.system}, with a long name of its own') for r in ROWS]
  write_page(tmp_path / 'study.html', 'A study', rows, PURPOSES)
  with Chromium(tmp_path / 'profile') as browser:
    browser.open(tmp_path / 'study.html')
    browser.call('Log.enable')
    for width in (1280, 390):
      for scheme in ('light', 'dark'):
        assert browser.show(tmp_path / 'study.html', width, scheme) == []
    assert not browser.complaints()
