"""The report of a run: its links, its dial and its bounds by plain loops, and the page itself."""

import html
import json
import re
import shutil

import numpy as np
import pytest

from jobrec_jax.evaluate.eligibility import violation_rate_at_k
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.pipeline.report import main_text
from jobrec_jax.pipeline.sections import changed, group_of
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.report.findings import findings
from jobrec_jax.report.html import anchor
from tests.refine.chromium import BROWSER, Chromium

needs_browser = pytest.mark.skipif(BROWSER is None, reason='no Chromium or Chrome on this machine')


@pytest.mark.slow
def test_every_sentence_leads_to_its_numbers(tiny_run):
  results = tiny_run.get(tiny_run.road.evaluation)
  said = findings(results.rows)
  text = (tiny_run / 'report.html').read_text()
  ids = re.findall(r'\bid="([^"]*)"', text)
  assert len(ids) == len(set(ids))
  assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)
  assert len(said) >= 10 and {anchor(*f.place) for f in said} <= set(ids)
  lines = (tiny_run / 'results.md').read_text().splitlines()
  assert lines[2:2 + len(said)] == [f'- {f.text}' for f in said]
  for finding in said:
    assert html.escape(finding.text) in text
  printed = main_text(results)
  assert printed.startswith('## What came out\n\n') and printed.count('\n## ') >= 4
  in_one_line = ' '.join(printed.split())
  assert in_one_line.index(said[-1].text) < in_one_line.index('| system |')


@pytest.mark.slow
def test_the_page_says_where_it_comes_from(tiny_run):
  text = re.sub(r'<[^>]*>', ' ', (tiny_run / 'report.html').read_text())
  for word in ('Seed of training 3, of the data 5', 'experts.beta', 'jaxlib', 'hypervolume',
               'rival-schema-rules', 'Stage 1A', 'Stage 1B', 'multiplier μ for each τ',
               "truth's bound"):
    assert word in html.unescape(text), word
  assert ('experts.beta', '0.7', '1.0') in changed(tiny_run.settings)
  assert changed(Settings()) == []


def test_systems_are_drawn_in_their_groups():
  assert [group_of(s) for s in ('preference expert', 'preference expert, narratives blanked',
                                'schema rules', 'true P (ceiling)', 'canary: random')] == [
      'experts', 'experts', 'rivals', 'ceiling', 'canaries']


@pytest.mark.slow
def test_the_frontier_is_that_of_plain_rankings(tiny_run):
  road = tiny_run.road
  found = tiny_run.get(road.frontier)
  truth = tiny_run.get(road.data).truth
  lists = tiny_run.get(road.lists)
  wanted, (policy, *_) = lists.wanted, tiny_run.get(road.policy)
  P, Q = (getattr(truth, name)[wanted.candidate, wanted.job]
          for name in ('preference', 'qualification'))
  first, last = found.ranked_truth[0], found.ranked_truth[-1]
  np.testing.assert_allclose(first[1], np.nanmean(
      ranking_metrics(P, wanted.relevance, wanted.mask)['ndcg@5']))
  np.testing.assert_allclose(first[0], 1 - np.nanmean(
      violation_rate_at_k(P, Q, wanted.mask, 5)))
  best = np.sort(np.where(wanted.mask, Q, -1), axis=1)[:, ::-1][:, :5].mean()
  assert last[0] == pytest.approx(best, abs=1e-3) and last[1] < first[1]
  assert (np.diff(found.ranked_truth[:, 0]) > -1e-9).all()  # the truth's own C rises with mu
  assert found.policy.shape == (len(policy.knots), 2)
  reached = np.interp(found.policy[:, 0], *found.dual.T)
  assert (found.policy[:, 1] <= reached + 1e-3).all()  # no policy lies above the exact dual


@pytest.mark.slow
def test_the_dial_shows_what_the_policy_ranks(tiny_run):
  road = tiny_run.road
  dial, lists = tiny_run.get(road.dial), tiny_run.get(road.lists).held_out
  data, (policy, *_) = tiny_run.get(road.data), tiny_run.get(road.policy)
  experts, kept = tiny_run.get(road.scores).of(lists), tiny_run.get(road.scores)
  calibration = tiny_run.get(road.calibration).calibration
  assert len(dial['candidates']) == len({c['id'] for c in dial['candidates']})
  assert dial['known'] and dial['asks_nothing'] and len(dial['taus']) == len(policy.knots)
  for i, k in ((0, 0), (1, len(policy.knots) - 1)):
    shown = dial['candidates'][i]
    row = [data.dataset.candidates[u].id for u in lists.candidate[:, 0]].index(shown['id'])
    scores, _ = policy.at(kept.lam_of(lists)[row], experts.preference[row],
                          np.asarray(calibration.logit(experts.qualification[row])),
                          float(policy.knots[k]))
    best = sorted(range(len(scores)), key=lambda j: -scores[j])[:5]
    assert shown['ranked'][k] == [int(lists.job[row, j]) for j in best]
    lift = scores - experts.preference[row]
    np.testing.assert_allclose(shown['lift'][k], lift[best], atol=6e-4)
    q = [data.truth.qualification[lists.candidate[row, 0], lists.job[row, j]] for j in best]
    assert shown['measures']['Q'][k] == pytest.approx(np.mean(q), abs=6e-5)
    pi = np.exp(scores / policy.temperature - (scores / policy.temperature).max())
    p_qual = np.asarray(calibration.probability(experts.qualification[row]))
    assert shown['measures']['C'][k] == pytest.approx((pi * p_qual).sum() / pi.sum(), abs=6e-5)
    pair = shown['pairs'][str(shown['ranked'][k][0])]
    assert pair['reasons'] and {verdict for _, verdict in pair['reasons']} <= {
        'met', 'unmet', 'unknown'}
  assert dial['all']['C'][0] < dial['all']['C'][-1]


INK = 'getComputedStyle(document.querySelector("{}")).{}'


@needs_browser
@pytest.mark.slow
def test_the_page_fits_and_its_dial_turns(tiny_folder, tmp_path):
  shutil.copy(tiny_folder / 'report.html', tmp_path)
  taus = json.loads(re.search(r'id="dial-data">(.*?)</script>',
                              (tiny_folder / 'report.html').read_text(), flags=re.S)[1])['taus']
  with Chromium(tmp_path / 'profile') as browser:
    browser.open(tmp_path / 'report.html')
    browser.call('Log.enable')
    browser.events.clear()
    seen = {}
    for width in (1280, 390):
      for scheme in ('light', 'dark'):
        assert browser.show(tmp_path / 'report.html', width, scheme) == [], (width, scheme)
        seen[width, scheme] = (browser.js(INK.format('body', 'backgroundColor')),
                               browser.js(INK.format('figure .wide svg text', 'fill')))
        _turn(browser, taus)
    assert seen[1280, 'light'] == seen[390, 'light'] != seen[1280, 'dark'] == seen[390, 'dark']
    browser.call('Emulation.setEmulatedMedia', media='print',
                 features=[{'name': 'prefers-color-scheme', 'value': 'dark'}])
    assert browser.js(INK.format('figure .wide svg text', 'fill')) == seen[1280, 'light'][1]
    assert browser.js(INK.format('.dial .static', 'display')) == 'block'
    assert browser.js(INK.format('.dial .controls', 'display')) == 'none'
    asked = [e['params']['request']['url'] for e in browser.events
             if e.get('method') == 'Network.requestWillBeSent']
    assert not browser.complaints() and set(asked) <= {(tmp_path / 'report.html').as_uri()}


def _turn(browser: Chromium, taus: list[float]) -> None:
  """The slider by keys, the box by keys, and another candidate."""
  def ranking():
    return browser.text('dial-jobs')
  first = ranking()
  assert browser.text('dial-value') == 'nothing'
  assert 'Asked for nothing' in browser.text('dial-says')
  browser.js('document.getElementById("dial-tau").focus()')
  codes = {'ArrowRight': 39, 'ArrowLeft': 37, 'End': 35, 'Home': 36}

  def press(key):
    for kind in ('rawKeyDown', 'keyUp'):
      browser.call('Input.dispatchKeyEvent', type=kind, key=key, code=key,
                   windowsVirtualKeyCode=codes[key])
  press('ArrowRight')
  assert browser.text('dial-value') == f'τ {taus[1]:.3f}'
  assert browser.js('document.getElementById("dial-tau").getAttribute("aria-valuetext")') == (
      f'τ {taus[1]:.3f}')
  press('End')
  last = ranking()
  assert last != first and browser.text('dial-value') == f'τ {taus[-1]:.3f}'
  browser.js('document.getElementById("dial").focus()')
  press('ArrowLeft')
  assert browser.text('dial-value') == f'τ {taus[-2]:.3f}'
  press('Home')
  assert ranking() == first
  browser.js('(p => { p.value = "1"; p.dispatchEvent(new Event("change")); })'
             '(document.getElementById("dial-candidate"))')
  assert ranking() != first
