"""docs/explain.md shows what benchmarks.reasons keeps, and nothing that was edited."""

import pytest

from benchmarks import reasons
from jobrec_jax.evaluate.reasons import METRICS
from jobrec_jax.schema.files import read_json

KEPT = read_json(reasons.KEPT / 'students.json')


def test_the_page_is_as_it_is_written_from_the_kept_rows():
  pages = [page.read_text() for page in reasons.PAGES]
  shown = {m[1:3] for page in pages for m in reasons.MARK.findall(page)}
  assert {part for domain, part in shown if domain == 'students'} == set(reasons.PARTS)
  assert {domain for domain, _ in shown} == {p.stem for p in reasons.KEPT.iterdir()}
  assert [reasons.render(page) for page in pages] == pages


def test_a_table_has_every_system_and_metric_and_a_dash_for_what_is_not_there():
  table = reasons.table(KEPT, 'preference').splitlines()
  assert len(table) == 2 + 5 and all(line.count('|') == len(METRICS) + 2 for line in table)
  assert '–' in next(line for line in table if 'templates' in line)  # it judges no text


def row(metric, value, system='writer', against=None):
  return {'system': system, 'against': against, 'perspective': 'preference', 'metric': metric,
          'value': value, 'low': None, 'high': None, 'n': 10}


def test_several_runs_are_kept_as_their_mean_and_its_interval_over_runs():
  runs = [{'examples': [n], 'rows': [row('causal recall', value), row('right judgements', judged),
                                     row('causal recall', value - 0.4, against='templates')]}
          for n, (value, judged) in enumerate([(0.9, 0.5), (1.0, None), (0.8, 0.7)])]
  kept = reasons.joined(runs)
  recall, judged, difference = kept['rows']
  half = 4.302653 * 0.1 / 3 ** 0.5  # Student's t of two degrees, 97.5%
  assert kept['runs'] == 3 and kept['examples'] == [0]
  assert (recall['value'], recall['low']) == (pytest.approx(0.9), pytest.approx(0.9 - half))
  assert recall['high'] == 1  # no share lies above
  assert difference['high'] == pytest.approx(0.5 + half)
  assert judged['value'] is judged['low'] is None
  assert reasons.joined(runs[:1])['rows'] == runs[0]['rows']
  with pytest.raises(ValueError, match='the same systems'):
    reasons.joined([*runs, {'examples': [], 'rows': runs[0]['rows'][:1]}])


def test_runs_that_are_kept_together_are_draws_of_one_thing():
  def settings(seed, rank=16):
    return {'seed': seed, 'data': {'seed': seed}, 'writer': {'rank': rank}}
  reasons.check([settings(0), settings(1)])
  with pytest.raises(ValueError, match=r'different markets, got data\.seed \[0, 1, 0\]'):
    reasons.check([settings(0), settings(1), settings(0)])
  with pytest.raises(ValueError, match=r'differ by seed and data\.seed alone'):
    reasons.check([settings(0), settings(1, rank=4)])


def test_beams_are_compared_run_by_run_with_the_greedy_texts_of_the_same_runs():
  def judged(shift):
    return {'rows': [{**row(metric, 0.5 + shift), 'perspective': p} for metric in reasons.CHANGED
                     for p in ('preference', 'qualification')]}
  greedy, wide = [judged(0.1 * n) for n in (0, 3, 1)], [judged(0.1 * n) for n in (1, 4, 5)]
  found = reasons.of_beams(greedy, wide)
  assert len(found) == 2 * len(reasons.CHANGED)
  half = 4.302653 * 3 ** 0.5 * 0.1 / 3 ** 0.5  # the differences are 0.1, 0.1 and 0.4
  for r in found:
    assert r['value'] == pytest.approx(0.2)
    assert (r['low'], r['high']) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))

  def settings(seed, beams):
    return {'seed': seed, 'data': {'seed': seed}, 'writer': {}, 'market': {},
            'explain': {'beams': beams}}
  runs = [settings(0, 1), settings(1, 1)]
  reasons.check(runs, [settings(0, 4), settings(1, 4)])
  for wrong in ([settings(1, 4), settings(0, 4)], [settings(0, 4)], runs):
    with pytest.raises(ValueError, match='--beams must name the runs of --take in their order'):
      reasons.check(runs, wrong)
