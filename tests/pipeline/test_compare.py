"""Systems of made-up runs compared, and run folders told apart by their settings."""

import csv
import math
import os
from pathlib import Path

import numpy as np
import pytest

from jobrec_jax.evaluate.comparison import combine, holm
from jobrec_jax.evaluate.statistics import Estimate
from jobrec_jax.pipeline.compare import (
    Loaded,
    Member,
    as_systems,
    compare_systems,
    load_run,
    of_system,
)
from jobrec_jax.pipeline.compare_report import compare_report, standing, untested
from jobrec_jax.pipeline.measures.subject import PREFERENCE, QUALIFICATION, UNIFORM
from jobrec_jax.pipeline.record import read_record, write_record
from jobrec_jax.report.results import ResultRow

SPLIT = 'cold candidates'


def row(system, metric, perspective='policy', split=UNIFORM, tau=None, against=None):
  return ResultRow(system, tau, split, perspective, metric, 0.0, 0.0, 0.0, 9, against)


ROWS = [row(PREFERENCE, 'ndcg@5', 'preference', SPLIT),
        row('logistic regression', 'ndcg@5', 'preference', SPLIT),
        row(QUALIFICATION, 'calibration error', 'qualification'),
        row(PREFERENCE, 'correlation with Q given P, within candidates'),
        row(PREFERENCE, 'mean_rank', 'preference', SPLIT),
        row(PREFERENCE, 'ndcg@5', 'preference', SPLIT, against='logistic regression')]


def member(seed, values, data_seed=0, moved=0.001, taus=()):
  """A run whose rows have these values; candidates and jobs move each by its own amount."""
  rng = np.random.default_rng((seed, data_seed))
  rows = [*ROWS, *(row('policy', 'true C', split='held-out lists', tau=t) for t in taus)]
  values = [*values, *values[:1] * (len(rows) - len(values))]
  estimates = [Estimate(v, moved * rng.normal(size=20), moved * rng.normal(size=10), 9, (20, 10))
               for v in values]
  return Member(seed, data_seed, rows, estimates)


BASE = [0.6, 0.5, 0.20, -0.30, 4.0, 0.1]
OTHER = [0.7, 0.5, 0.10, 0.10, 3.0, 0.2]


def jittered(values, seed, data_seed=0):
  rng = np.random.default_rng((7, seed, data_seed))
  return member(seed, [v + 0.001 * rng.normal() for v in values], data_seed)


def outcome(row):
  return row.diff, row.low, row.high, row.p


def test_verdicts_know_what_is_better():
  systems = {'base': [jittered(BASE, s) for s in range(4)],
             'other': [jittered(OTHER, s) for s in range(4)]}
  rows = {r.metric: r for r in compare_systems(systems, 'base', everything=True)
          if r.system == 'other'}
  verdicts = {m: r.verdict for m, r in rows.items()}
  assert verdicts == {
      f'{PREFERENCE} preference ndcg@5, {SPLIT}': 'better',
      f'logistic regression preference ndcg@5, {SPLIT}': 'the same',
      f'{QUALIFICATION} qualification calibration error, {UNIFORM}': 'better',  # lower
      # Nearer to 0, and higher:
      f'{PREFERENCE} correlation with Q given P, within candidates, {UNIFORM}': 'better',
      f'{PREFERENCE} preference mean_rank, {SPLIT}': 'better'}  # lower
  back = compare_systems(systems, 'other', everything=True)
  assert {r.verdict for r in back if r.system == 'base'} == {'worse', 'the same'}
  assert all(r.verdict == 'the baseline' and np.isnan(r.diff) for r in back if r.system == 'other')
  one = rows[f'{PREFERENCE} preference ndcg@5, {SPLIT}']
  values = [m.estimates[0].value for m in systems['other']]
  assert (one.mean, one.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
  pairs = [[b.estimates[0] - a.estimates[0] for a, b in zip(*systems.values())]]
  assert outcome(one) == pytest.approx(combine(pairs)[:4])
  assert (one.n_seeds, one.n_data_seeds) == (4, 1)
  tested = [r for r in compare_systems(systems, 'base', everything=True) if r.p == r.p]
  assert len(tested) == 4
  np.testing.assert_allclose([r.p_holm for r in tested], holm([r.p for r in tested]))


def test_the_headline_is_less_than_everything_and_holm_counts_what_is_shown():
  systems = {'base': [jittered(BASE, s) for s in range(3)],
             'other': [jittered(OTHER, s) for s in range(3)]}
  rows = [r for r in compare_systems(systems, 'base') if r.system == 'base']
  shown = [r.metric.rsplit(',', 1)[0] for r in rows]
  assert shown == [f'{PREFERENCE} preference ndcg@5',
                   f'{QUALIFICATION} qualification calibration error',
                   f'{PREFERENCE} correlation with Q given P, within candidates']


def test_what_a_run_does_not_reach_is_not_tested():
  beyond = [math.nan, *OTHER[1:]]
  systems = {'base': [jittered(BASE, s) for s in range(3)],
             'other': [jittered(OTHER, 0), jittered(beyond, 1), jittered(OTHER, 2)]}
  for reference, name in (('base', 'other'), ('other', 'base')):
    rows = compare_systems(systems, reference, everything=True)
    first, *rest = (r for r in rows if r.system == name)
    assert first.verdict == 'not reached' and math.isnan(first.diff) and math.isnan(first.p_holm)
    assert math.isnan(first.mean) == (name == 'other')
    assert [r.verdict for r in rest].count('not reached') == 0
    assert {r.verdict for r in rows if r.system == reference} == {'the baseline'}


def test_training_seeds_in_common_are_paired():
  systems = {'base': [jittered(BASE, s) for s in (0, 1, 2)],
             'other': [jittered(OTHER, s) for s in (2, 1)]}
  (found,) = [r for r in compare_systems(systems, 'base')
              if r.system == 'other' and 'ndcg' in r.metric]
  at = {name: {m.seed: m.estimates[0] for m in s} for name, s in systems.items()}
  pairs = [at['other'][s] - at['base'][s] for s in (1, 2)]
  assert outcome(found) == pytest.approx(combine([pairs])[:4])
  assert found.n_seeds == 2


def test_other_training_seeds_are_not_paired():
  systems = {'base': [jittered(BASE, s) for s in (0, 1, 2)],
             'other': [jittered(OTHER, s) for s in (2, 3)]}
  (found,) = [r for r in compare_systems(systems, 'base')
              if r.system == 'other' and 'ndcg' in r.metric]
  a, b = ([m.estimates[0] for m in s] for s in systems.values())
  assert outcome(found) == pytest.approx(combine([b], against=[a])[:4])
  assert found.n_seeds == 2


def test_runs_pair_by_their_data_seed():
  systems = {'base': [jittered(BASE, s, d) for d in (0, 1, 2) for s in (0, 1)],
             'other': [jittered(OTHER, s, d) for d in (2, 1, 5) for s in (1, 0)]}
  (found,) = [r for r in compare_systems(systems, 'base')
              if r.system == 'other' and 'ndcg' in r.metric]
  at = {name: {(m.data_seed, m.seed): m.estimates[0] for m in s} for name, s in systems.items()}
  pairs = [[at['other'][d, s] - at['base'][d, s] for s in (0, 1)] for d in (1, 2)]
  assert outcome(found) == pytest.approx(combine(pairs)[:4]) and found.n_data_seeds == 2
  apart = {'base': systems['base'][:2], 'other': systems['other'][-2:]}
  rows = compare_systems(apart, 'base')
  assert {r.verdict for r in rows if r.system == 'other'} == {'no test'}
  assert all(r.mean == r.mean for r in rows)


def test_requirements_match_by_rank_not_by_tau():
  a = [member(0, BASE, taus=(0.0, 0.2, 0.4, 0.6))]
  b = [member(0, OTHER, taus=(0.0, 0.3, 0.5, 0.7))]
  labels = [r.metric for r in compare_systems({'a': a, 'b': b}, 'a') if r.system == 'b']
  assert [x for x in labels if 'policy' in x] == [
      'policy true C, requirement 2 of 3, held-out lists',
      'policy true C, requirement 3 of 3, held-out lists']
  fewer = [member(0, OTHER, taus=(0.0, 0.3, 0.5))]
  rows = compare_systems({'a': a, 'b': fewer}, 'a', everything=True)
  assert [r.metric for r in rows if 'policy' in r.metric and r.system == 'b'] == [
      'policy true C, no requirement, held-out lists']


def test_systems_of_one_run():
  runs = [jittered(BASE, s) for s in range(3)]
  rows = compare_systems({name: [of_system(m, name) for m in runs]
                          for name in ('logistic regression', PREFERENCE)}, 'logistic regression')
  (found,) = [r for r in rows if r.system == PREFERENCE and r.p == r.p and 'ndcg' in r.metric]
  assert found.metric == f'preference ndcg@5, {SPLIT}' and found.verdict == 'better'
  with pytest.raises(ValueError, match=r"system must be one of .* got 'nobody'"):
    of_system(runs[0], 'nobody')


def test_a_run_twice_is_refused():
  with pytest.raises(ValueError, match='a: must be runs of different seeds'):
    compare_systems({'a': [member(0, BASE)] * 2, 'b': [member(0, BASE)]}, 'b')


def like(folder, path, change):
  """A run folder on the artefacts of another, with other settings."""
  record = read_record(folder)
  change(record)
  write_record(path, settings=record['settings'], artefacts=record['artefacts'], report={},
               store=os.path.relpath(folder / record['store'], path))
  return path


@pytest.mark.slow
def test_run_folders_are_told_apart_by_their_settings(tiny_folder, tmp_path):
  def seeded(seed):
    return lambda record: record['settings'].update(seed=seed)

  def changed(record):
    record['settings']['seed'] = 8
    record['settings']['cooperative']['steps'] = 99
  a, b = (like(tiny_folder, tmp_path / f'plain-{s}', seeded(s)) for s in (3, 8))
  c = like(tiny_folder, tmp_path / 'longer', changed)
  systems = as_systems([load_run(f) for f in (a, b, c)])
  assert {n: len(r) for n, r in systems.items()} == {'plain': 2, 'longer': 1}
  text = compare_report([str(a), str(b), str(c)], csv_file=tmp_path / 'rows.csv')
  assert '| cooperative.steps | 160 | 99 |' in text and '| plain | 2 | 3, 8 | 5 |' in text
  assert '## longer against plain' in text and 'corrected for 0 tests' in text
  assert 'the same' in text and 'requirement 2 of 4' in text  # copies of one run
  assert '; strongest rival, ' in text
  rows = list(csv.DictReader((tmp_path / 'rows.csv').open()))
  assert {r['system'] for r in rows} == {'plain', 'longer'} and len(rows) == 26
  with pytest.raises(ValueError, match='of two systems at least'):
    as_systems([load_run(f) for f in (a, b)])


@pytest.mark.slow
def test_other_data_and_runs_without_estimates_are_refused(tiny_folder, tmp_path):
  def other_data(record):
    record['settings']['market']['rho_x'] = 0.9
    record['artefacts']['data'] = 'data-0123456789abcdef'
  c = like(tiny_folder, tmp_path / 'other', other_data)
  with pytest.raises(ValueError, match=r'other: must be over the data of .*market.rho_x differ'):
    as_systems([load_run(tiny_folder), load_run(c)])
  d = like(tiny_folder, tmp_path / 'none', lambda record: record['artefacts'].pop('evaluation'))
  with pytest.raises(ValueError, match=r'experiments\.evaluate --workdir='):
    load_run(d)


def test_what_was_asked_for_another_tau_is_not_tested():
  def systems(tau):
    return {'base': [member(s, BASE, taus=(0.5, 0.6)) for s in range(3)],
            'other': [member(s, OTHER, taus=(0.5, tau)) for s in range(3)]}
  for tau, verdict in ((0.6, 'better'), (0.64, 'another τ')):
    rows = compare_systems(systems(tau), 'base', everything=True)
    (last,) = [r for r in rows if r.system == 'other' and 'requirement 2 of 2' in r.metric]
    assert last.verdict == verdict and (last.p_holm == last.p_holm) == (verdict == 'better')
    assert last.diff == pytest.approx(0.1, abs=0.01)
    runs = [m for own in systems(tau).values() for m in own]
    told = untested(rows, runs, everything=False)
    assert told == ('' if verdict == 'better' else (
        '1 row not tested, which --all shows: another τ (each run has a grid of requirements of '
        'its own; policy.taus between 0.500 and 0.600 asks all for the same): true C, 2 of 2.'))
    assert untested(rows, runs, everything=True).endswith('for the same).' if told else '')


def test_where_grids_do_not_overlap_no_tau_is_advised():
  systems = {'base': [member(s, BASE, taus=(0.1, 0.2)) for s in range(3)],
             'other': [member(s, OTHER, taus=(0.3, 0.4)) for s in range(3)]}
  runs = [*systems['base'], *systems['other']]
  told = untested(compare_systems(systems, 'base'), runs, everything=False)
  assert 'these do not overlap, so that no τ of policy.taus is likely to bind all' in told
  assert told.endswith(': true C, 1 of 2; true C, 2 of 2.')


def test_the_reference_is_shown_beside_the_strongest_rival_and_the_truth():
  assert standing('base', [member(0, BASE), member(1, OTHER)]) == (
      f'Preference ndcg@5 of base, {SPLIT}: preference expert 0.650; '
      'strongest rival, logistic regression, 0.500.')
  more = [('popularity', 0.55), ('canary: constant', 0.9), ('true P (ceiling)', 0.95),
          ('preference expert, narratives blanked', 0.9), ('qualification expert', 0.9)]
  run = member(0, BASE)
  rows = [row(system, 'ndcg@5', 'preference', SPLIT) for system, _ in more]
  rows.append(row('popularity', 'ndcg@5', 'preference', 'both cold'))
  values = [run.estimates[0]._replace(value=v) for v in (*(v for _, v in more), 0.99)]
  run = run._replace(rows=[*run.rows, *rows], estimates=[*run.estimates, *values])
  assert standing('base', [run]).endswith(
      'preference expert 0.600; strongest rival, popularity, 0.550; true P (ceiling) 0.950.')
  alone = run._replace(rows=run.rows[:1], estimates=run.estimates[:1])
  assert standing('base', [alone]) == ''


def loaded(folder, data_seed=0, seed=0, **settings):
  own = {'seed': seed, 'data': {'seed': data_seed}, **settings}
  return Loaded(Path(folder), own, f'data-{data_seed}', member(seed, BASE, data_seed))


def test_systems_are_named_by_their_variant_or_by_what_tells_them_apart():
  of_study = [loaded(f'runs/mine/runs/{v}/data-0-seed-{s}', seed=s, beta=b)
              for v, b in (('base', 1), ('low', 2)) for s in (0, 1)]
  assert list(as_systems(of_study)) == ['base', 'low']
  two = [loaded(f'{place}/runs/base/data-0-seed-0', beta=b) for b, place in enumerate(('x', 'y'))]
  assert list(as_systems(two)) == ['x/base', 'y/base']
  plain = [loaded(f'runs/{n}', seed=s, beta=b) for n, s, b in (('a-0', 0, 1), ('a-1', 1, 1),
                                                              ('b', 0, 2))]
  assert list(as_systems(plain)) == ['a', 'b']


def test_runs_without_data_in_common_are_refused():
  runs = [loaded('runs/t0', 0, beta=1), loaded('runs/t1', 1, beta=2)]
  with pytest.raises(ValueError, match=r't1: must have a data seed of t0, one of .0., .*got 1'):
    as_systems(runs)
