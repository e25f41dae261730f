"""Tables and the picture of estimators over worlds, from rows that are known."""

from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from benchmarks import kept, pages, worlds
from jobrec_jax.censoring.estimators import ESTIMATORS
from jobrec_jax.schema.files import write_json

WORLDS = [f'{doubt}-{shown}{hidden}' for doubt in ('none', 'strong') for hidden in ('', '-hidden')
          for shown in ('uniform', 'recommender')]
SYSTEMS = ('qualification expert', 'conflated', 'naive', 'funnel likelihood', *ESTIMATORS)
MARKETS = 3


def value(world, system, market):
  """Ranked as they stand, less in strong worlds, and not alike on markets."""
  at = SYSTEMS.index(system) + 3 * (system == 'MRDR' and world.startswith('strong'))
  return 0.9 - 0.01 * at - 0.1 * world.startswith('strong') + 0.003 * market * (1 + at % 3)


@pytest.fixture(scope='module')
def results():
  def row(world, market, system, measure, x):
    return {'variant': world, 'data_seed': market, 'seed': 0, 'requirement': '', 'tau': None,
            'system': system, 'split': worlds.SPLIT, 'perspective': measure.perspective,
            'metric': measure.metric, 'value': x}
  rows = [row(w, m, s, worlds.RANK_Q, value(w, s, m))
          for w in WORLDS for m in range(MARKETS) for s in SYSTEMS]
  rows += [row(w, m, s, worlds.RANK_P, value(w, s, m) - 0.1)
           for w in WORLDS for m in range(MARKETS) for s in ('funnel likelihood', 'naive',
                                                             'conflated')]
  rows += [row(w, m, 'preference expert', worlds.RANK_P, value(w, 'qualification expert', m))
           for w in WORLDS for m in range(MARKETS)]
  rows += [row(WORLDS[0], 0, 'blanked', worlds.RANK_P, 0.7),
           row(WORLDS[0], 0, 'qualification expert, uncalibrated', worlds.RANK_Q, 0.1),
           row(WORLDS[0], 0, 'policy', worlds.Measure('policy', 'C'), 0.5)]
  return {'question': '?', 'variants': {w: w for w in WORLDS},
          'changes': {w: {'market.self_censoring': i} for i, w in enumerate(WORLDS)}, 'level': 0.95,
          'compared': [], 'systems': [], 'values': rows, 'runs': len(WORLDS) * MARKETS}


def test_a_world_is_a_column_and_a_system_a_row(results):
  lines = worlds.table(results, worlds.RANK_Q, hidden=False).splitlines()
  assert lines[0] == ('| Spearman with Q within a candidate | none, uniform | none, recommender | '
                      'strong, uniform | strong, recommender |')
  assert [line.split(' | ')[0][2:] for line in lines[2:]] == list(SYSTEMS)
  found = [value('none-uniform', 'DR', m) for m in range(MARKETS)]
  (dr,) = (line for line in lines if line.startswith('| DR |'))
  assert dr.split(' | ')[1] == f'{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}'
  hidden = worlds.table(results, worlds.RANK_P, hidden=True).splitlines()
  assert '| none, uniform |' in hidden[0] and any(x.startswith('| blanked |  |') for x in hidden)


def test_differences_are_paired_by_market(results):
  assert worlds.best_robust(results, 'none-uniform') == 'DR'
  lines = worlds.against(results).splitlines()
  cells = {(at[1], at[2]): at[3:-1] for at in (
      [c.strip() for c in line.split('|')] for line in lines[2:])}
  assert {of for _, of in cells} == {'P', 'Q'} and len(cells) == 12
  for i, world in enumerate(WORLDS):
    a, b = (np.array([value(world, s, m) for m in range(MARKETS)])
            for s in (worlds.best_robust(results, world), 'naive'))
    low, high = ttest_1samp(a - b, 0).confidence_interval()
    assert cells['best doubly robust − naive', 'Q'][i] == (
        f'{(a - b).mean():+.3f} [{low:+.3f}, {high:+.3f}]'.replace('-', '−'))
    ahead = [value(world, 'qualification expert', m) - value(world, 'naive', m) + 0.1
             for m in range(MARKETS)]
    assert cells['preference expert − naive', 'P'][i].startswith(
        f'{np.mean(ahead):+.3f}'.replace('-', '−'))


def test_the_picture_has_a_panel_for_each_world_and_two_dots_for_each_system(results):
  picture = ElementTree.fromstring(worlds.picture(results))
  dots = picture.findall('{*}circle')
  assert len(dots) == len(WORLDS) * len(SYSTEMS)
  assert sum(d.get('fill') == 'none' for d in dots) == len(dots) / 2
  said = [t.text for t in picture.findall('{*}text')]
  assert said.count('self-censoring: strong') == 2 and 'expert' in said
  width, height = map(float, picture.get('viewBox').split()[2:])
  assert all(0 < float(d.get('cx')) < width and 0 < float(d.get('cy')) < height for d in dots)


def test_of_worlds_every_variants_rows_are_kept(results, tmp_path):
  study = tmp_path / 'mine'
  study.mkdir()
  write_json(study / 'results.json', results)
  write_json(study / 'origin.json', {'once': 1, 'alone': 1, 'devices': [], 'commits': ['abc'],
                                     'versions': {}, 'stages': {}})
  kept.take(study, tmp_path / 'kept')
  mine = kept.read('mine', tmp_path / 'kept')
  assert {r['variant'] for r in mine['values']} == set(WORLDS) and mine['runs'] == 24
  assert {r['metric'] for r in mine['values']} <= {m.metric for m in worlds.MEASURES}
  page = pages.render('<!-- mine rank-q -->\n<!-- end --><!-- mine assumptions -->\n<!-- end -->',
                      tmp_path / 'kept')
  assert '| funnel likelihood |' in page and '| targeted DR | DR with imputations' in page
