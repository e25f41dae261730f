"""A study's rows, tables and pages, of made-up runs."""

import json
import math

import numpy as np
import pytest

from benchmarks import kept, pages
from jobrec_jax.evaluate.comparison import combine
from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.pipeline.compare import Member
from jobrec_jax.pipeline.study import Study, Variant, members
from jobrec_jax.pipeline.study_report import ending, key, text, write_systems
from jobrec_jax.pipeline.study_results import read_results, study_results
from jobrec_jax.pipeline.study_run import Made
from jobrec_jax.report import study_tables
from jobrec_jax.report.results import ResultRow, Table, to_latex
from tests.pipeline.tiny import tiny_settings

SPLIT = 'cold candidates'
STUDY = Study('Does it help?', {'base': Variant('as it is'), 'good': Variant('helps'),
                                'lost': Variant('no run came through')})
ROWS = [('preference expert', None, SPLIT, 'preference', 'ndcg@5', 0.6),
        ('qualification expert', None, SPLIT, 'qualification', 'ndcg@5', 0.7),
        ('policy', 0.0, SPLIT, 'policy', 'true eligibility@5', 0.5),
        ('policy', 0.5, SPLIT, 'policy', 'true eligibility@5', 0.6),
        ('policy', 0.0, SPLIT, 'preference', 'ndcg@5', 0.6),
        ('policy', 0.5, SPLIT, 'preference', 'ndcg@5', 0.5),
        ('qualification expert', None, 'uniform test pairs', 'qualification', 'calibration error',
         0.1),
        ('qualification expert', None, f'{SPLIT}, jobs of a candidate', 'qualification', 'ndcg@5',
         0.65),
        ('plug-in p_pref + μ p_qual', None, SPLIT, 'policy', 'loss of true preference@5', 0.05),
        *((system, tau, SPLIT, 'policy', metric, value) for system, tau, worth, regret in (
            ('index', None, 1.5, 0.2), ('policy', 0.5, 1.4, 0.3)) for metric, value in (
                ('expected surplus@5', worth), ('regret of expected surplus@5', regret))),
        ('popularity', None, 'uniform test pairs', 'policy',
         'correlation with Q given P, within candidates', 0.2),
        ('popularity', None, 'uniform test pairs', 'policy', 'correlation with Q', 0.3),
        ('popularity', None, 'uniform test pairs', 'preference',
         'Spearman with P within a candidate', 0.25)]


def member(seed: int, plus: float) -> Member:
  rng = np.random.default_rng(seed)
  shift = 0.004 * (seed - 1)
  rows = [ResultRow(system, tau, split, perspective, metric, value + plus + shift, math.nan,
                    math.nan, 9) for system, tau, split, perspective, metric, value in ROWS]
  return Member(seed, 0, rows, [
      Estimate(r.value, 1e-3 * rng.normal(size=20), 1e-3 * rng.normal(size=10), 9, (20, 10))
      for r in rows])


@pytest.fixture
def results():
  systems = {'base': [member(s, 0.0) for s in range(3)],
             'good': [member(s, 0.1) for s in range(3)]}
  return json.loads(json.dumps(study_results(STUDY, systems, 0.95)))


def test_rows_say_what_differs_and_hold_every_run(results):
  assert results['variants'] == {'base': 'as it is', 'good': 'helps',
                                 'lost': 'no run came through'}
  by = {(r['system'], r['short']): r for r in results['compared']}
  for short, verdict in (('preference: ndcg@5', 'better'), ('qualification: ndcg@5', 'better'),
                         ('qualification: calibration error', 'worse'),
                         ('true eligibility@5, 1 of 1', 'better')):
    assert by['good', short]['verdict'] == verdict
    assert by['good', short]['diff'] == pytest.approx(0.1, abs=1e-9)
    assert by['base', short]['diff'] is None
  values = [r['value'] for r in results['values'] if r['variant'] == 'good' and r['seed'] == 2
            and r['metric'] == 'true eligibility@5' and r['requirement'] == 'requirement 1 of 1']
  assert values == [member(2, 0.1).rows[3].value]


def test_tables_mark_what_is_told_apart(results):
  table = study_tables.differences(results)
  assert '| good | +0.100 ▲ | +0.100 ▲ | +0.100 ▼ |' in table
  assert table.splitlines()[2].startswith('| base | 0.600 ± 0.004 | 0.700 ± 0.004 |')
  told = study_tables.told_apart(results)
  assert '- good is better in preference expert preference ndcg@5, cold candidates: +0.100' in told
  assert '- good is worse in qualification expert qualification calibration error' in told
  assert '| lost | no run came through |' in text(results)
  rows = [r for r in results['values'] if r['variant'] == 'base']
  assert '| preference expert | 0.600 ± 0.004 |  |' in study_tables.ranking(rows)
  assert study_tables.ranking(rows).count('\n') == 3  # of a system without values there is no row
  assert study_tables.ranking(rows, 'auc').count('\n') == 1
  assert '| qualification expert |  | 0.650 ± 0.004 |' in study_tables.across(rows)
  assert '| plug-in p_pref + μ p_qual | 0.050 ± 0.004 |' in study_tables.losses(rows)
  table = study_tables.surplus(rows)
  assert '| index | 1.500 ± 0.004 | 0.200 ± 0.004 |' in table
  assert '| policy, requirement 1 of 1 | 1.400 ± 0.004 | 0.300 ± 0.004 |' in table
  assert table.count('\n') == 3
  assert '| popularity | 0.250 ± 0.004 |' in study_tables.errors(rows, 'P')
  assert study_tables.errors(rows, 'P').count('\n') == 2
  assert '| 1 of 1 | 0.500 |  |  |  | 0.600 ± 0.004 | 0.500 ± 0.004 |' in study_tables.policy(rows)
  assert '| qualification expert | 0.100 ± 0.004 |  |' in study_tables.calibration(rows)
  with pytest.raises(ValueError, match='one row a run, got 6'):
    study_tables.over_runs(rows, metric='true eligibility@5')


def test_marks_that_no_row_has_are_not_explained(results):
  assert '(τ)' not in key(results)
  row = next(r for r in results['compared'] if r['verdict'] == 'better')
  row['verdict'] = 'another τ'
  assert '(τ) was asked for another τ' in key(results)


def test_a_study_ends_with_the_command_that_compares_its_runs(results, tmp_path):
  folder = tmp_path / 'my study'
  study = Study('?', {'base': Variant('as it is'), 'good': Variant('g', {'experts.beta': 2.0}),
                      'lost': Variant('l', {'experts.beta': 3.0})})
  runs = [m for m in members(study, tiny_settings(), 2) if m.variant != 'lost']
  for m in runs:
    (folder / m.place).mkdir(parents=True)
  ended = ending(results, Made(runs, [], {}), folder)
  command = next(line for line in ended.splitlines() if 'python -m' in line)
  assert command == (f"  python -m experiments.compare '{folder}'/runs/base/* "
                     f"'{folder}'/runs/good/*")
  assert '- good is better in preference expert' in ended and '| good |' not in ended
  assert str(folder / 'report.html') in ended
  (folder / 'runs/good/data-0-seed-9').mkdir()  # of an earlier call
  ended = ending(results, Made(runs, [], {}), folder)
  assert ended.splitlines()[-1].endswith(
      f"/runs/base/* '{folder}/runs/good/data-5-seed-3' '{folder}/runs/good/data-5-seed-4'")
  for few in (runs[:1], runs[1:2]):  # no other variant, and no reference
    assert 'python -m' not in ending(results, Made(few, [], {}), folder)


def test_the_expert_less_its_rivals_is_paired_run_by_run():
  """In each run both are moved by the same candidates, which the difference does not show."""
  members, noise = [], np.random.default_rng(0).normal(size=(2, 20))
  for seed, gap in ((0, 0.10), (1, 0.12), (2, 0.11)):
    rows, estimates = [], []
    for system, value, own in (('preference expert', 0.8 + seed / 10, noise[0]),
                               ('popularity', 0.8 + seed / 10 - gap, noise[0] + noise[1] / 100),
                               ('canary: random', 0.1, noise[1]),
                               ('true P (ceiling)', 0.99, noise[1])):
      rows.append(ResultRow(system, None, SPLIT, 'preference', 'ndcg@5', value, *[math.nan] * 2, 9))
      estimates.append(Estimate(value, own / 100, np.zeros(10), 9, (20, 10)))
    members.append(Member(seed, 0, rows, estimates))
  kept = study_results(Study('?', {'base': Variant('it is')}), {'base': members}, 0.95)['systems']
  found = {r['system']: r['ahead'] for r in kept}
  expected = combine([[m.estimates[0] - m.estimates[1] for m in members]])
  assert found['popularity'] == pytest.approx(expected[:3]) and found['preference expert'] is None
  assert expected.value == pytest.approx(0.11) and expected.high - expected.low < 0.06
  table = study_tables.ahead(kept).splitlines()
  assert len(table) == 3 and table[2].startswith('| popularity | +0.110 [+0.0')
  assert table[2].endswith('] |  |  |  |')


def test_every_system_stands_beside_the_others(results, tmp_path):
  """Means over runs with their interval, in Markdown and LaTeX, with what the stages took."""
  rows = results['systems']
  assert [(r['system'], r['metric'], r['runs']) for r in rows] == [
      ('preference expert', 'ndcg@5', 3), *[('qualification expert', 'ndcg@5', 3)] * 2]
  members = [member(s, 0.0) for s in range(3)]
  expected = combine([[m.estimates[0] for m in members]])
  assert (rows[0]['value'], rows[0]['low'], rows[0]['high']) == pytest.approx(expected[:3])
  one = rows[0] | {'value': 0.5, 'low': 0.4, 'high': 0.6, 'metric': 'ndcg@5 by job'}
  shown = [*rows, *({**one, 'system': name} for name in ('WMF', 'schema rules')),
           {**one, 'split': 'both cold', 'low': None, 'high': None}]
  origin = {'stages': {'rival-wmf': [2, 5.0], 'warm_up': [3, 30.0], 'cooperative': [3, 60.0]}}
  write_systems(tmp_path, results | {'systems': shown}, origin)
  page = (tmp_path / 'systems.md').read_text()
  assert '| system | preference ndcg@5 | qualification ndcg@5 | preference ndcg@5 by job |' in page
  assert '| WMF † |  |  | 0.500 [0.400, 0.600] | 2.5 |' in page
  assert '| schema rules |  |  | 0.500 [0.400, 0.600] |  |' in page
  assert page.count('| preference expert | 0.') == 2 and '| 30.0 |' in page
  assert '† knows whom it ranks for' in page and 'over 3 runs' in page
  page = (tmp_path / 'systems.tex').read_text()
  assert r'WMF $\dagger$ &  &  & 0.500 [0.400, 0.600] & 2.5 \\' in page
  assert page.count(r'\toprule') == page.count(r'\end{tabular}') == 3  # with the other axis
  assert r'\begin{tabular}{lrrrr}' in page
  assert study_tables.systems([], {}) == []


def test_latex_escapes_what_it_must():
  table = Table('a', ('x_y', '50%'), (('#1 & co', '−0.1 [−0.2, 0.0]'), ('~^', '0.2')),
                frozenset({(1, 1)}), frozenset({(0, 1)}))
  lines = to_latex(table).splitlines()
  assert lines[3] == r'x\_y & 50\% \\'
  assert lines[5] == r'\#1 \& co & $-$0.1 [$-$0.2, 0.0] $\approx$ \\'
  assert lines[6] == r'\textasciitilde{}\textasciicircum{} & \textbf{0.2} \\'


def test_preference_at_equal_eligibility_stands_in_every_table():
  """Of three runs of 'good' one does not get so far."""
  def with_way(seed, policy, bound=0.9):
    run = member(seed, 0.0)
    ceiling = 'true P + μ Q (ceiling)'
    rows = [ResultRow(s, None, SPLIT, 'policy', f'true {what}@5 at 25% of the way', v, math.nan,
                      math.nan, 9) for s, what, v in (
                          ('policy', 'preference', policy), (ceiling, 'preference', bound),
                          (ceiling, 'eligibility', 0.58))]
    moved = run.estimates[:3]
    return run._replace(rows=[*run.rows, *rows], estimates=[
        *run.estimates, *(e._replace(value=r.value) for r, e in zip(rows, moved))])
  base = [with_way(s, 0.84 + s / 1000) for s in range(3)]
  beyond = [with_way(s, math.nan if s == 1 else 0.85) for s in range(3)]
  better = [with_way(s, 0.86 + s / 1000) for s in range(3)]
  study = Study('?', {'base': Variant('as it is'), 'beyond': Variant('b'), 'better': Variant('c')})
  results = json.loads(json.dumps(study_results(
      study, {'base': base, 'beyond': beyond, 'better': better}, 0.95)))
  lines = study_tables.differences(results).splitlines()
  assert lines[0].endswith(' true preference@5 at 25% of the way | true eligibility@5, 1 of 1 | '
                           'ndcg@5, 1 of 1 |')
  cells = {line.split(' | ')[0][2:]: line.split(' | ')[4] for line in lines[2:]}
  assert cells == {'base': '0.841 ± 0.001', 'beyond': '–', 'better': '+0.020 ▲'}
  assert 'over candidates, jobs and training seeds. =' in text(results)
  assert '–: in some run the policy never gets so eligible' in text(results)

  def kept(variant):
    return study_tables.kept([r for r in results['values'] if r['variant'] == variant])
  assert kept('base').endswith('| 25% | 0.580 | 0.841 ± 0.001 | 0.900 |')
  assert kept('beyond').endswith('| 25% | 0.580 | reached by 2 of 3 runs | 0.900 |')


def test_pages_are_written_between_their_marks(results, tmp_path):
  study = tmp_path / 'mine'
  study.mkdir()
  (study / 'results.json').write_text(json.dumps(results))
  (study / 'origin.json').write_text(json.dumps({
      'once': 120, 'alone': 240, 'devices': ['2 x chip'], 'commits': ['abc'],
      'versions': {'jax': '1'}, 'stages': {}}))
  kept.take(study, tmp_path / 'kept')
  page = 'before\n<!-- mine origin -->\nold\n<!-- end -->\n<!-- mine differences -->\n<!-- end -->'
  once = pages.render(page, tmp_path / 'kept')
  assert once.startswith('before\n') and 'old' not in once and '+0.100 ▲' in once
  assert '6 runs. Their stages took 2 minutes; each run alone, 4 (0.50).' in once
  assert pages.render(once, tmp_path / 'kept') == once
  assert '<circle' in pages.picture(results)


def test_other_files_are_no_results(tmp_path):
  path = tmp_path / 'results.json'
  path.write_text('[1]')
  with pytest.raises(ValueError, match='must be the results of a study'):
    read_results(path)


def test_who_follows_its_own_truth_not_at_all_says_nothing_of_attenuation():
  """0.8 with P and 0.6 with Q (these at 0.6): 0.25 is left, 0.562 by attenuation."""
  within = ', within candidates'
  rows = [{'system': system, 'metric': f'correlation with {truth}{within}', 'value': value,
           'split': 'uniform test pairs', 'data_seed': 0, 'seed': 0}
          for system, truth, value in (('true P', 'Q', 0.6), ('reader', 'P', 0.8),
                                       ('reader', 'Q', 0.6), ('rival', 'P', -0.1),
                                       ('rival', 'Q', 0.1))]
  rows += [rows[1] | {'system': s, 'metric': f'correlation with Q given P{within}'}
           for s in ('reader', 'rival')]
  reader, rival = study_tables.separation(rows).splitlines()[2:]
  assert reader.startswith('| reader | 0.800 | 0.250 | 0.562 | 0.250 | ')
  assert rival.startswith('| rival | −0.100 | 0.201 |  | 0.')
