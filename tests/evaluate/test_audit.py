"""Every check finds what is planted for it, and nothing in worlds without faults."""

import dataclasses
import itertools
import json
import os
import re

from hypothesis import given, settings, strategies as st
import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.files.paper_csv import read_published
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.evaluate.audit import AuditReport, Finding, audit
from jobrec_jax.schema.schema import Attribute, Entity, Schema

PUBLISHED = os.environ.get('JOBREC_PUBLISHED')
SIZES = (60, 30, 30, 40)
JOBS = 40
SCHEMA = Schema('small', (Attribute('level', 'category', ('junior', 'senior'), required=True),
                          Attribute('grade', 'number', low=0, high=4),
                          Attribute('skills', 'set'), Attribute('story', 'text')),
                (Attribute('industry', 'category', required=True), Attribute('advert', 'text')), ())


def candidate(i, **more):
  return Entity(f'S{i:04d}', {'level': ('junior', 'senior')[i % 2], 'grade': i % 5,
                              'skills': ('Python 3', f'topic {i}'), 'story': f'Tale {i}.', **more})


def make_rows(seed=0, popularity=0.0, shuffle=True):
  """Candidate-disjoint splits; applications and verdicts by chance, and by the job's popularity."""
  rng = np.random.default_rng(seed)
  appeal = popularity * np.linspace(1, -1, JOBS)
  rows = []
  for u, s in enumerate(np.repeat(range(4), SIZES)):
    shown = rng.permutation(JOBS)[:20] if shuffle else np.sort(rng.permutation(JOBS)[:20])
    for j in shown:
      applied = rng.random() < 1 / (1 + np.exp(1 - appeal[j]))
      rows.append((u, j, applied, rng.integers(2) if applied else UNOBSERVED, s))
  return np.asarray(rows)


def make_log(rows):
  rows = np.asarray(rows)
  return Interactions(*rows[:, :2].T.astype(np.int32), *rows[:, 2:].T.astype(np.int8),
                      np.ones(len(rows), np.float32))


def make_dataset(rows):
  rows = np.asarray(rows)
  return Dataset(SCHEMA, tuple(map(candidate, range(rows[:, 0].max() + 1))),
                 tuple(Entity(f'J{i:04d}', {'industry': 'Law', 'advert': f'We offer {i}.'})
                       for i in range(rows[:, 1].max() + 1)), make_log(rows))


def with_entities(dataset, side, changes):
  entities = list(getattr(dataset, f'{side}s'))
  for i, entity in changes.items():
    entities[i] = entity
  return dataclasses.replace(dataset, **{f'{side}s': tuple(entities)})


def by_name(report):
  return {f.name: f for f in report.findings}


@pytest.fixture(scope='module')
def clean():
  return make_dataset(make_rows())


@pytest.mark.parametrize('seed', range(6))
def test_a_clean_log_has_no_errors(seed):
  report = audit(make_dataset(make_rows(seed)), seed)
  assert report.failed() == ()
  found = by_name(report)
  assert found['candidate_overlap/any/train-test'].value == 0
  assert found['job_overlap/any/train-test'].value == JOBS
  assert found['job_overlap/any/train-test'].severity == 'info'
  assert found['impossible/candidate'].value == found['ids_in_text/job'].value == 0


@pytest.mark.parametrize('seed', range(6))
def test_a_simulated_market_has_no_errors(seed):
  dataset, _ = simulate(MarketConfig(candidates=120, jobs=30), seed)
  report = audit(dataset, seed)
  assert report.failed() == ()
  places = {f.where for f in report.findings if f.check == 'random'}
  assert {f'preference/{split}' for split in SPLITS} | {'preference/test.both_cold'} <= places


@pytest.mark.parametrize('sign, name', [(-1, 'first_in_list'), (1, 'last_in_list')])
def test_sorted_positions_are_found(sign, name):
  rows = make_rows()
  at = rows[:, 4] == SPLITS.index('test')
  test = rows[at]
  rows[at] = test[np.lexsort((sign * test[:, 2], test[:, 0]))]
  report = audit(make_dataset(rows))
  assert f'{name}/preference/test' in report.failed()
  assert by_name(report)[f'{name}/preference/test'].value == 1
  assert all('in_list' in n for n in report.failed())
  assert report.failed(known=[name]) == ()


def test_positions_leak_in_qualification_lists_too():
  rows = make_rows(1)
  rows = rows[np.argsort(-rows[:, 3], kind='stable')]
  failed = audit(make_dataset(rows)).failed()
  assert set(failed) >= {f'first_in_list/qualification/{split}' for split in SPLITS}


def leaked_rows():
  """Train's negatives copied into the test, beside positives that train has not seen."""
  rows = make_rows(2)
  train = rows[(rows[:, 4] == 0) & (rows[:, 2] == 0)]
  copied = train.copy()
  copied[:, 4] = SPLITS.index('test')
  unseen = [(u, j, 1, UNOBSERVED, 3) for u in np.unique(train[:, 0])
            for j in sorted(set(range(JOBS)) - set(rows[rows[:, 0] == u, 1]))[:2]]
  leaked = np.concatenate([rows, copied, unseen])
  return leaked[np.random.default_rng(0).permutation(len(leaked))], len(train)


def test_shared_negatives_are_found_and_repaired():
  rows, n = leaked_rows()
  report = audit(make_dataset(rows))
  assert set(report.failed()) == {
      'pair_overlap/preference/train-test', 'shared_negatives/preference/train-test',
      'train_negative_lookup/preference/test', 'train_negative_lookup/preference/test.warm'}
  found = by_name(report)
  assert found['shared_negatives/preference/train-test'].value == n
  assert found['candidate_overlap/any/train-test'].value == SIZES[0]
  assert report.failed(known=['pair_overlap', 'shared_negatives/preference/train-test']) == (
      'train_negative_lookup/preference/test', 'train_negative_lookup/preference/test.warm')
  assert report.failed(known=['train_negative_lookup/preference/te']) == report.failed()
  assert not [n for n in report.failed(known=['train_negative_lookup/preference/test'])
              if 'lookup' in n]

  repaired = audit(deal_shared_negatives(make_dataset(rows)))
  assert repaired.failed() == ()
  assert by_name(repaired)['shared_negatives/preference/train-test'].value == 0


def test_a_pair_that_is_positive_in_two_splits_is_an_error():
  rows = make_rows(3)
  positive = rows[(rows[:, 4] == 0) & (rows[:, 2] == 1)][:1].copy()
  positive[:, 3:] = UNOBSERVED, SPLITS.index('test')
  report = audit(make_dataset(np.concatenate([rows, positive])))
  assert report.failed() == ('pair_overlap/preference/train-test',)
  # A pair with another perspective's label in another split is no error.
  positive[:, 2:4] = UNOBSERVED, 1
  rows[:, 3] = np.where(rows[:, 4] == 0, UNOBSERVED, rows[:, 3])
  report = audit(make_dataset(np.concatenate([rows, positive])))
  assert report.failed() == () and by_name(report)['pair_overlap/any/train-test'].value == 1


def test_a_pair_twice_in_a_split_is_an_error():
  rows = make_rows(3)
  report = audit(make_dataset(np.concatenate([rows, rows[:3]])))
  assert report.failed() == ('duplicates/pair',)
  assert by_name(report)['duplicates/pair'].value == 3


row = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(-1, 1), st.integers(-1, 1),
                st.integers(0, 3))


@settings(max_examples=40, deadline=None)
@given(st.lists(row, min_size=1, max_size=25))
def test_overlaps_and_balance_count_like_plain_loops(rows):
  found = by_name(audit(make_dataset(rows)))
  for (i, first), (k, second) in itertools.combinations(enumerate(SPLITS), 2):
    a, b = ([r for r in rows if r[4] == s] for s in (i, k))
    if not (a and b):
      assert f'job_overlap/any/{first}-{second}' not in found
      continue
    def both(key, keep, a=a, b=b):
      return len({key(r) for r in a if keep(r)} & {key(r) for r in b if keep(r)})
    where = f'any/{first}-{second}'
    assert found[f'pair_overlap/{where}'].value == both(lambda r: r[:2], lambda r: True)
    assert found[f'candidate_overlap/{where}'].value == both(lambda r: r[0], lambda r: True)
    assert found[f'job_overlap/{where}'].value == both(lambda r: r[1], lambda r: True)
    for column, perspective in ((2, 'preference'), (3, 'qualification')):
      for name, keep in (('shared_negatives', lambda r, c=column: r[c] == 0),
                         ('pair_overlap', lambda r, c=column: r[c] >= 0)):
        f = found[f'{name}/{perspective}/{first}-{second}']
        assert f.value == both(lambda r: r[:2], keep)
        assert f.severity == ('error' if f.value else 'info')
  for (i, split), (column, centre, perspective) in itertools.product(
      enumerate(SPLITS), ((2, 0, 'preference'), (3, 1, 'qualification'))):
    lists = {}
    for r in rows:
      if r[4] == i and r[column] >= 0:
        lists.setdefault(r[centre], []).append(r[column])
    if lists:
      f, shares = found[f'label_balance/{perspective}/{split}'], list(map(np.mean, lists.values()))
      assert f.value == pytest.approx(np.mean(list(itertools.chain(*lists.values()))))
      assert (f'by list {np.mean(shares):.3f}, from {min(shares):.3f} to {max(shares):.3f}; '
              f'{sum(s in (0, 1) for s in shares)} of {len(shares)} lists') in f.text
    else:
      assert f'label_balance/{perspective}/{split}' not in found


def test_popularity_in_entity_order_is_not_taken_for_a_leak():
  report = audit(make_dataset(make_rows(4, popularity=3.0, shuffle=False)))
  assert report.failed() == ()
  assert 'not judged' in by_name(report)['position_in_list/preference/test'].text
  assert 'first_in_list/preference/test' not in by_name(report)


def test_a_copied_record_makes_a_new_candidate_known(clean):
  copy = dict(clean.candidates[3].attributes)
  copy['skills'] = copy['skills'][::-1]  # sets have no order
  at = int(clean.interactions.of('test').candidate[0])
  report = audit(with_entities(clean, 'candidate', {at: Entity('new', copy)}))
  assert report.failed() == ('duplicates/candidate/train-test',)
  found = by_name(report)
  assert found['duplicates/candidate'].value == 2
  assert found['duplicate_text/candidate/story'].value == 1
  # In the same split nobody is made known, and without a text equality may be coincidence.
  assert audit(with_entities(clean, 'candidate', {4: Entity('new', copy)})).failed() == ()
  bare = {'level': 'junior', 'grade': 3.0}
  report = audit(with_entities(clean, 'candidate', {3: Entity('a', bare), at: Entity('b', bare)}))
  assert report.failed() == () and by_name(report)['duplicates/candidate'].value == 2


def test_a_copied_job_is_an_error_where_the_test_alone_has_it():
  rows = make_rows(5)
  rows = rows[(rows[:, 4] == 3) | (rows[:, 1] > 0)]
  dataset = make_dataset(rows)
  copy = Entity('again', dataset.jobs[1].attributes)
  assert audit(with_entities(dataset, 'job', {0: copy})).failed() == (
      'duplicates/job/train-test', 'duplicates/job/validation-test',
      'duplicates/job/calibration-test')
  assert audit(with_entities(dataset, 'job', {2: copy})).failed() == ()


def test_blank_records_are_no_duplicates(clean):
  blank = {i: Entity(f'S9{i:03d}', {}) for i in (0, 1, 150)}
  optional = dataclasses.replace(SCHEMA, candidate=tuple(
      dataclasses.replace(a, required=False) for a in SCHEMA.candidate))
  found = by_name(audit(dataclasses.replace(with_entities(clean, 'candidate', blank),
                                            schema=optional)))
  assert found['blank_records/candidate'].value == 3
  assert found['duplicates/candidate'].value == 0
  assert not [f for f in found.values() if f.severity == 'error']


@pytest.mark.parametrize('change, message', [
    ({'grade': 5.0}, r"candidate 'S0007': grade must lie in \[0, 4\], got 5.0"),
    ({'level': 'king'}, "level allows junior, senior; got 'king'"),
    ({'level': None}, 'level is required and missing'),
    ({'story': 3}, 'story must be a text, got 3'),
    ({'shoe_size': 44}, r"unknown attributes \['shoe_size'\]"),
])
def test_impossible_attributes_are_found(clean, change, message):
  report = audit(with_entities(clean, 'candidate', {7: candidate(7, **change)}))
  assert report.failed() == ('impossible/candidate',)
  found = by_name(report)['impossible/candidate']
  assert found.value == 1 and re.search(message, found.text)


def test_a_required_blank_and_an_id_used_twice_are_impossible(clean):
  empty = Entity('J0003', {'industry': '', 'advert': 'We offer.'})
  found = by_name(audit(with_entities(clean, 'job', {3: empty})))['impossible/job']
  assert found.severity == 'error' and "job 'J0003': industry is required and empty" in found.text
  twice = {i: dataclasses.replace(clean.candidates[i], id='S0001') for i in (1, 9)}
  found = by_name(audit(with_entities(clean, 'candidate', twice)))['impossible/candidate']
  assert found.value == 2 and "'S0001': id must be unique, got it 2 times" in found.text


@pytest.mark.parametrize('field, value', [
    ('candidate', sum(SIZES)), ('job', -1), ('preference', 2), ('qualification', -2), ('split', 4),
    ('exposure', 0.0), ('exposure', np.nan)])
def test_impossible_rows_are_found_and_left_out(clean, field, value):
  changed = getattr(clean.interactions, field).copy()
  changed[[5, 8]] = value
  dataset = dataclasses.replace(clean, interactions=dataclasses.replace(
      clean.interactions, **{field: changed}))
  report = audit(dataset)
  assert report.failed() == ('impossible/log',)
  found = by_name(report)['impossible/log']
  assert found.value == 2 and f'the first: {field} is {value} in row 5' in found.text


@pytest.mark.parametrize('side, entity, text', [
    ('candidate', lambda i: candidate(i, story=f'As s{i:04d} I applied.'),
     'story of candidate S0007 names candidate S0007; 3 their own (0.019 by chance), 0 one of'),
    ('candidate', lambda i: candidate(i, skills=('Python', f'J{first_job(i):04d}: hired')),
     'skills of candidate S0007 names job J'),
    ('job', lambda i: Entity(f'J{i:04d}', {'industry': 'Law', 'advert': f'Is J{i:04d} alone?'}),
     'advert of job J0007 names job J0007; 3 their own (0.075 by chance)')])
def test_ids_that_tell_are_found_in_texts(clean, side, entity, text):
  rows = range(7, 10) if 'J0007' in text or 'S0007;' in text else range(7, 37)
  report = audit(with_entities(clean, side, {i: entity(i) for i in rows}))
  assert report.failed() == (f'ids_in_text/{side}',)
  found = by_name(report)[f'ids_in_text/{side}']
  assert found.value == len(rows) and text in found.text


def first_job(u):
  """A job that a candidate of `make_rows` meets."""
  rows = make_rows()
  return rows[rows[:, 0] == u, 1].min()


@pytest.mark.parametrize('side, entity, text', [
    ('candidate', candidate(7, story='As s0007 I applied.'),
     'story of candidate S0007 names candidate S0007; 1 their own (0.0063 by chance)'),
    ('candidate', candidate(7, skills=('Python', 'J0012: hired')),
     'skills of candidate S0007 names job J0012; 0 their own (0 by chance)'),
    ('job', Entity('J0002', {'industry': 'Law', 'advert': 'Not 12 (S0001) alone.'}),
     'advert of job J0002 names candidate S0001')])
def test_an_id_in_one_text_is_a_remark(clean, side, entity, text):
  report = audit(with_entities(clean, side, {int(entity.id[1:]): entity}))
  assert report.failed() == ()
  found = by_name(report)[f'ids_in_text/{side}']
  assert found.value == 1 and text in found.text


def test_copies_are_named(clean):
  same = {i: Entity(f'again-{i}', clean.jobs[3].attributes) for i in (4, 9, 11, 30)}
  same[6] = Entity('six', clean.jobs[5].attributes)
  found = by_name(audit(with_entities(clean, 'job', same)))['duplicates/job']
  assert (found.severity, found.value) == ('info', 7)
  assert found.text == (
      "7 of 40 jobs equal another one in every attribute (groups: 2): "
      "5 are 'J0003', 'again-4', 'again-9' and 2 more; 2 are 'J0005', 'six'")


def test_words_that_meet_no_other_side_are_named():
  dataset, _ = simulate(MarketConfig(candidates=60, jobs=20), seed=0)
  people = [Entity(c.id, {**c.attributes, 'skills': ('k8s', *(['zig'] if i else []))})
            for i, c in enumerate(dataset.candidates[:40])]
  found = by_name(audit(with_entities(dataset, 'candidate', dict(enumerate(people)))))
  one = found['unmatched/skills/candidate']
  assert one.severity == 'info' and one.value >= 2
  assert one.text.startswith(f'{one.value} of ') and "most used: 'k8s' (40), 'zig' (39)" in one.text
  assert {f.name for f in found.values() if f.check == 'unmatched'} == {
      f'unmatched/{field}/{side}' for field in ('major', 'skills', 'mode', 'industry')
      for side in ('candidate', 'job')}
  assert "job's" in one.text and "candidate's" in found['unmatched/skills/job'].text


def test_report_without_lists():
  rows = make_rows(5)
  report = audit(make_dataset(rows[rows[:, 2] == 1][:, [0, 1, 2, 2, 4]]))
  assert report.failed() == () and all(f.p_value is None for f in report.findings)
  assert 'MRR at' not in report.table()
  nothing = dataclasses.replace(make_dataset(rows), candidates=(), jobs=(),
                                interactions=make_log(rows).where(np.zeros(len(rows), bool)))
  assert audit(nothing).failed() == ()


def test_rows_are_json_and_checks_stay_together():
  report = audit(make_dataset(leaked_rows()[0]))
  assert json.loads(json.dumps(report.rows, allow_nan=False)) == report.rows
  checks = [f.check for f in report.findings]
  assert [c for c, _ in itertools.groupby(checks)] == list(dict.fromkeys(checks))


def test_table_shows_every_error_and_sums_up_remarks():
  report = audit(make_dataset(leaked_rows()[0]))
  table, known = report.table(), report.table(known=('pair_overlap',))
  for f in report.findings:
    lines = [l for l in table.splitlines() if l.split()[1:3] == [f.check, f.where]]
    if f.severity == 'error':
      assert len(lines) == 1 and lines[0].startswith('error ') and lines[0].endswith(f.text)
    elif f.p_value is None:
      assert f.text in table
  assert len([l for l in known.splitlines() if l.startswith('known ')]) == 1
  cells = {l.split()[0]: l.split()[1:] for l in table.split('\n\n')[1].splitlines()}
  assert cells['MRR'][1:3] == ['chance', 'constant']
  found = by_name(report)
  lookup = cells['MRR'].index('train_negative_lookup') - 1
  assert cells['preference/test'][lookup] == (
      f'{found["train_negative_lookup/preference/test"].value:.4f}*')
  assert cells['preference/train'][lookup] == '–'
  assert cells['preference/test'][0] == f'{found["constant/preference/test"].value:.4f}'


def test_table_aligns_and_merges():
  report = AuditReport((Finding('a/x', 'info', 0, 'none'), Finding('a/yyy', 'error', 1, 'one'),
                        Finding('a/z', 'info', 0, 'none'), Finding('bbb/x', 'info', 0, 'none')))
  assert report.table() == ('error  a    yyy       one\n'
                            'info   a    2 places  none\n'
                            'info   bbb  x         none')
  assert report.table(known=['a']).startswith('known  a')
  assert report.verdict() == '1 error: a (1)'
  assert report.verdict(known=['a/yyy']) == 'no errors; known faults: a (1)'


@pytest.mark.skipif(not PUBLISHED,
                    reason='JOBREC_PUBLISHED does not name a folder with the published files')
def test_the_published_faults_are_found_and_can_be_repaired():
  raw = read_published(PUBLISHED, allow_unknown_users=True)
  found = by_name(audit(raw))
  for pair in ('train-validation', 'train-test', 'validation-test'):
    assert found[f'shared_negatives/preference/{pair}'].value == 36547
    assert found[f'shared_negatives/preference/{pair}'].severity == 'error'
  for split in ('validation', 'test'):
    assert found[f'train_negative_lookup/preference/{split}'].value == 1
    assert found[f'train_negative_lookup/preference/{split}'].severity == 'error'
  assert found['first_in_list/preference/test'].severity == 'error'  # positives stand first
  assert {f.check for f in found.values() if f.severity == 'error'} == {
      'shared_negatives', 'pair_overlap', 'train_negative_lookup', 'first_in_list'}

  dataset = deal_shared_negatives(raw)
  report = audit(dataset)
  assert report.failed(known=['first_in_list']) == ()
  lookup = by_name(report)['train_negative_lookup/preference/test']
  assert lookup.value == pytest.approx(lookup.chance, abs=1e-12)
  shuffled = np.random.default_rng(0).permutation(len(dataset.interactions))
  dataset = dataclasses.replace(dataset, interactions=dataset.interactions.where(shuffled))
  assert audit(dataset).failed() == ()
