"""A user's tables as a data set: records, decisions, splits, and what was left out."""

import csv
import json
import random

from hypothesis import HealthCheck, given, settings, strategies as st
import numpy as np
import pyarrow
from pyarrow import parquet
import pytest

from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.data.tables.reader import Division, read_tables
from tests.data.tables import shop

EVEN = Division(0, (0.25, 0.25, 0.25, 0.25))
LOG = """person,post,applied,outcome,day,place,p,seen
1,10,yes,hired,2024-01-02,north,0.5,1
1,11,no,,2024-01-03,north,1,1
2,10,1,rejected,2024-02-01,east,0.25,1
2,12,no,,2024-02-02T10:00:00,east,1,1
3,11,TRUE,,2024-03-01,south,1,1
3,12,0,,2024-03-02,south,1,0
4,12,1,hired,2024-04-01,west,1,1
"""
RULES = """preference = 'applied'
qualification = {column = 'outcome', yes = ['hired'], no = ['rejected']}
"""


def read(path, rules=RULES, log=LOG, division=EVEN, **texts):
  folder = shop.folder(path, log, rules, **texts)
  return read_tables(folder, folder / 'schema.toml', division)


def rows(dataset):
  log = dataset.interactions
  return {(dataset.candidates[c].id, dataset.jobs[j].id): (p, q, SPLITS[s]) for c, j, p, q, s in
          zip(log.candidate, log.job, log.preference.tolist(), log.qualification.tolist(),
              log.split)}


def test_records_are_what_the_cells_mean(tmp_path):
  dataset = read(tmp_path, RULES + "split = 'time'\ntime = 'day'\n")
  assert [e.id for e in dataset.candidates] == ['1', '2', '3', '4']
  assert [e.id for e in dataset.jobs] == ['10', '11', '12']
  one, two, three, four = dataset.candidates
  assert dict(one.attributes) == {'years': 3, 'pay': 2500.0, 'skills': ('Kubernetes', 'python'),
                                  'shift': 'Days', 'drives': True, 'letter': 'Likes, commas'}
  assert (two['years'], two['pay'], two['skills']) == (12, None, ('Kubernetes', 'SQL'))
  assert (three['shift'], three['drives'], three['letter']) == ('Nights', None, 'two\nlines')
  assert (four['skills'], four['letter']) == (('C, the language', 'python'), 'a "quote"')
  assert dataset.jobs[0]['needs'] == ('KUBERNETES', 'Python')
  assert 'people.csv: 1 columns are not read: shoe size' in dataset.notes
  assert 'log.csv: 3 columns are not read: place, p, seen' in dataset.notes


def test_decisions_and_a_split_by_time(tmp_path):
  found = rows(read(tmp_path, RULES + "split = 'time'\ntime = 'day'\nexposure = 'p'\n"))
  assert found == {
      ('1', '10'): (1, 1, 'train'), ('1', '11'): (0, -1, 'train'),
      ('2', '10'): (1, 0, 'validation'), ('2', '12'): (0, -1, 'calibration'),
      ('3', '11'): (1, -1, 'calibration'), ('3', '12'): (0, -1, 'test'),
      ('4', '12'): (1, 1, 'test')}


def test_what_was_not_shown_is_left_out_and_exposure_is_read(tmp_path):
  dataset = read(tmp_path, RULES + "split = 'time'\ntime = 'day'\nexposure = 'p'\nshown = 'seen'\n")
  assert ('3', '12') not in rows(dataset) and len(rows(dataset)) == 6
  assert 'log.csv: 1 rows that were not shown are left out' in dataset.notes
  np.testing.assert_array_equal(dataset.interactions.exposure, [0.5, 1, 0.25, 1, 1, 1])


def test_rows_of_a_group_stay_together(tmp_path):
  dataset = read(tmp_path, RULES + "split = 'group'\ngroup = 'place'\n")
  found = rows(dataset)
  splits = [{found[pair][2] for pair in found if pair[0] == person} for person in '1234']
  assert sorted(map(tuple, splits)) == sorted((s,) for s in SPLITS)
  others = [rows(read(tmp_path, RULES + "split = 'group'\ngroup = 'place'\n",
                      division=Division(seed, EVEN.shares))) for seed in range(1, 6)]
  assert any(other != found for other in others)  # groups are drawn by the seed
  message = r'data\.shares must leave no split empty, but 4 groups with '
  with pytest.raises(ValueError, match=message):
    read(tmp_path, RULES + "split = 'group'\ngroup = 'place'\n",
         division=Division(0, (0.9, 0.02, 0.02, 0.06)))


def test_candidates_are_divided_where_no_rule_says_otherwise(tmp_path):
  found = rows(read(tmp_path))
  assert {found[pair][2] for pair in found} == set(SPLITS)
  for person in '1234':
    assert len({found[pair][2] for pair in found if pair[0] == person}) == 1


def test_a_column_may_hold_the_split(tmp_path):
  log = LOG.replace('north', 'train').replace('east', 'test').replace('south', 'validation')
  found = rows(read(tmp_path, RULES + "split = 'column'\nfold = 'place'\n",
                    log.replace('west', 'calibration')))
  assert [found[pair][2] for pair in (('1', '10'), ('2', '12'), ('3', '11'), ('4', '12'))] == [
      'train', 'test', 'validation', 'calibration']
  with pytest.raises(ValueError, match=r"log\.csv:8: place must be one of .*, got 'west'"):
    read(tmp_path, RULES + "split = 'column'\nfold = 'place'\n", log)


FUNNEL = """funnel = {column = 'stage', stages = ['viewed', 'applied', 'interviewed', 'offered'],
  preference = 'applied', qualification = 'interviewed', pending = ['applied']}
split = 'time'
time = 'day'
"""
STAGES = """person,post,stage,day
1,10,viewed,1
1,11,applied,2
2,10,interviewed,3
2,12,offered,4
3,10,viewed,5
3,10,applied,6
"""


def test_more_stages_than_two_map_onto_the_two_decisions(tmp_path):
  rules = FUNNEL.replace(",\n  ", ', ')
  found = rows(read(tmp_path, rules, STAGES))
  assert {pair: labels[:2] for pair, labels in found.items()} == {
      ('1', '10'): (0, -1), ('1', '11'): (1, -1), ('2', '10'): (1, 1), ('2', '12'): (1, 1),
      ('3', '10'): (1, -1)}  # the pair that comes twice counts once, as far as it came
  dataset = read(tmp_path, rules.replace(", pending = ['applied']", ''), STAGES)
  assert rows(dataset)['1', '11'][:2] == (1, 0)
  assert any('1 rows repeat a pair' in note for note in dataset.notes)
  with pytest.raises(ValueError, match=r"log\.csv:2: stage must be one of .*, got 'seen'"):
    read(tmp_path, rules, STAGES.replace('viewed', 'seen', 1))


def test_a_funnel_can_be_closed_by_hand(tmp_path):
  log = LOG.replace('no,,2024-01-03', 'no,hired,2024-01-03').replace(
      '0,,2024-03-02', '0,rejected,2024-03-02')
  rules = RULES + "split = 'time'\ntime = 'day'\napplicants_only = ['train']\n"
  found = rows(read(tmp_path, rules, log))
  assert found['1', '11'] == (0, -1, 'train') and found['3', '12'] == (0, 0, 'test')
  assert any('qualification of 1 pairs that were not wanted is hidden in train' in note
             for note in read(tmp_path, rules, log).notes)


def test_every_row_may_be_an_application(tmp_path):
  rules = RULES.replace("'applied'", 'true') + "split = 'time'\ntime = 'day'\n"
  dataset = read(tmp_path, rules, LOG.replace(',no,', ',never asked,'))
  assert set(dataset.interactions.preference.tolist()) == {1}
  assert [q for _, q, _ in rows(dataset).values()] == [1, -1, 0, -1, -1, -1, 1]
  assert 'log.csv: 4 columns are not read: applied, place, p, seen' in dataset.notes
  alone = read(tmp_path, "preference = true\nsplit = 'time'\ntime = 'day'\n")
  assert {(p, q) for p, q, _ in rows(alone).values()} == {(1, -1)}


USERS = 'user_id:token\tSkills:token_seq\tYears at work:float\tage:float\n' + ''.join(
    f'{i}\tSQL python\t{i}.0\t3{i}\n' for i in range(1, 5))
ITEMS = 'item_id:token\tneeds:token_seq\tabout:token\tclass:token\n' + ''.join(
    f'{i}\tpython\tNights "on call"\tIT\n' for i in range(10, 13))


@pytest.mark.parametrize('log, rules, expected, left', [
    # A public log: whoever stands in it applied.
    ('user_id:token\titem_id:token\ttimestamp:float\n' + ''.join(
        f'{i}\t{9 + i % 3 + 1}\t{880 + i}.0\n' for i in range(1, 5)),
     "preference = true\nsplit = 'time'\ntime = 'timestamp'\n",
     {('1', '11'): (1, -1, 'train'), ('2', '12'): (1, -1, 'validation'),
      ('3', '10'): (1, -1, 'calibration'), ('4', '11'): (1, -1, 'test')}, None),
    # Labels of two sides, and ids that are called otherwise.
    ('user_id:token\tjob_id:token\tbrowsed:token\twanted:float\tagreed:float\n'
     '1\t10\t1\t1.0\t0\n1\t12\t1\t0.0\t\n',
     "preference = 'wanted'\nqualification = 'agreed'\n",
     {('1', '10'): (1, 0), ('1', '12'): (0, -1)}, 'browsed'),
    # What our own writer writes, and a column more.
    ('user_id:token\titem_id:token\tpreference:float\tqualification:float\tsplit:token\t'
     'exposure:float\tclicks:float\n3\t10\t1\t0\ttest\t0.5\t4.0\n'
     '3\t11\t0\t\ttrain\t1.0\t0.0\n',
     "preference = 'preference'\nqualification = 'qualification'\nexposure = 'exposure'\n"
     "split = 'column'\nfold = 'split'\n",
     {('3', '10'): (1, 0, 'test'), ('3', '11'): (0, -1, 'train')}, 'clicks')])
def test_recbole_files_of_any_columns_are_read_by_the_mapping(tmp_path, log, rules, expected, left):
  tables = shop.TABLES.replace('person', 'user_id').replace("'post'", "'item_id'")
  for name, ending in (('people', 'user'), ('posts', 'item'), ('log', 'inter')):
    tables = tables.replace(f'{name}.csv', f'm.{ending}')
  if 'job_id' in log:
    tables = tables.replace("job = 'item_id'", "job = 'job_id'")
  schema = shop.SCHEMA.replace("separator = ','", "separator = ' '") + tables + rules
  for name, text in (('m.user', USERS), ('m.item', ITEMS), ('m.inter', log), ('s.toml', schema)):
    (tmp_path / name).write_text(text)
  dataset = read_tables(tmp_path, tmp_path / 's.toml', EVEN)
  two = dataset.candidates[1]
  assert two['skills'] == ('python', 'SQL') and two['years'] == 2
  assert dataset.jobs[0]['about'] == 'Nights "on call"'
  for pair, decided in rows(dataset).items():
    assert decided[:len(expected[pair])] == expected[pair]
  assert 'm.user: 1 columns are not read: age' in dataset.notes
  assert left is None or f'm.inter: 1 columns are not read: {left}' in dataset.notes


@pytest.mark.parametrize('cell', [True, [7], {'a': 1}, None, '', float('nan')])
def test_what_names_no_record_is_no_id(tmp_path, cell):
  folder = shop.folder(tmp_path, LOG, RULES)
  (folder / 'schema.toml').write_text(
      (shop.SCHEMA + shop.TABLES + RULES).replace('posts.csv', 'posts.parquet'))
  table = pyarrow.table({'post': pyarrow.array([cell]), 'min_years': [2], 'about': ['x'],
                         'needs': [['SQL']]})
  parquet.write_table(table, folder / 'posts.parquet')
  with pytest.raises(ValueError, match=r'posts\.parquet\[0\]: post must be unique and text or a'):
    read_tables(folder, folder / 'schema.toml', EVEN)


def test_ids_that_no_other_table_has(tmp_path):
  log = LOG + '9,10,yes,,2024-05-01,west,1,1\n'
  with pytest.raises(ValueError, match=r"log\.csv:9: person must be one of 4 known ids .* got '9'"):
    read(tmp_path, log=log)
  dataset = read(tmp_path, RULES + "unknown = 'skip'\n", log)
  assert 'log.csv: 1 rows that name an id that no other table has are left out' in dataset.notes


@pytest.mark.parametrize('change, message', [
    ({'people': shop.PEOPLE.replace('12.0', 'twelve')},
     r"people\.csv:3: candidate '2': years must be an integer, got 'twelve'"),
    ({'people': shop.PEOPLE.replace('1,3,', '1,99,')},
     r'candidate .1.: years must lie in \[0, 60\]'),
    ({'people': shop.PEOPLE.replace('NIGHTS', 'late')},
     "shift allows Days, Nights, Any; got 'late'"),
    ({'people': shop.PEOPLE.replace('4,0,0', '1,0,0')}, r'people\.csv:6: person must be unique'),
    ({'people': shop.PEOPLE.replace('person', 'id')},
     r"people\.csv: must have the columns .*'person'"),
    ({'people': shop.PEOPLE.replace('Years at work', 'years')}, "missing .'Years at work'"),
    ({'posts': shop.POSTS.replace('Servers', '')}, 'job .10.: about is required and missing'),
    ({'posts': shop.POSTS.split('\n')[0]}, r'posts\.csv: must hold at least one job'),
    ({'log': LOG.replace('yes', 'maybe', 1)},
     r"log\.csv:2: applied must be yes or no, .*got 'maybe'"),
    ({'log': LOG.replace('rejected', 'lost')}, r"log\.csv:4: outcome must be one of .*got 'lost'"),
    ({'log': LOG.split('\n')[0] + '\n'}, r'log\.csv: must hold at least one interaction'),
    ({'rules': RULES + "split = 'time'\ntime = 'place'\n"},
     r"log\.csv:2: place must be a number or an ISO date.*got 'north'"),
    ({'rules': RULES + "exposure = 'post'\n"}, r"post must be a number in \(0, 1\], got '10'")])
def test_what_tables_cannot_hold(tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, **change)


def test_tables_lie_below_their_folder(tmp_path):
  schema = shop.SCHEMA + shop.TABLES.replace("'posts.csv'", "'../posts.csv'")
  folder = shop.folder(tmp_path, LOG, RULES)
  (folder / 'schema.toml').write_text(schema + RULES)
  with pytest.raises(ValueError, match=r'file must lie in data\.folder .* or below'):
    read_tables(folder, folder / 'schema.toml', EVEN)


WORDS = st.text(st.characters(codec='utf-8'), min_size=1, max_size=6)
PERSON = st.fixed_dictionaries({
    'years': st.none() | st.integers(0, 60), 'pay': st.none() | st.floats(0, 1e9),
    'letter': st.none() | WORDS, 'skills': st.none() | st.lists(WORDS, max_size=3),
    'shift': st.none() | st.sampled_from(['Days', 'Nights', 'Any']),
    'drives': st.none() | st.booleans()})


COLUMNS = {'years': 'Years at work', 'pay': 'pay', 'skills': 'Skills', 'shift': 'shift',
           'drives': 'drives', 'letter': 'letter'}


def write_people(path, people):
  """As csv and str() write them, with sets as Python lists; or with values as they are."""
  rows = [{'person': i, **{COLUMNS[k]: v for k, v in p.items()}} for i, p in enumerate(people, 1)]
  if path.suffix == '.jsonl':
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  elif path.suffix == '.parquet':
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  else:
    with path.open('w', newline='', encoding='utf-8') as file:
      writer = csv.DictWriter(file, ['person', *COLUMNS.values()])
      writer.writeheader()
      writer.writerows(rows)


@pytest.mark.parametrize('ending', ['csv', 'jsonl', 'parquet'])
@settings(max_examples=50, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(people=st.lists(PERSON, min_size=4, max_size=4))
def test_any_value_reads_back(tmp_path, ending, people):
  folder = shop.folder(tmp_path, LOG, RULES)
  write_people(folder / f'people.{ending}', people)
  schema_file = folder / 'schema.toml'
  schema_file.write_text(schema_file.read_text().replace('people.csv', f'people.{ending}'))
  dataset = read_tables(folder, schema_file, EVEN)
  schema = dataset.schema
  for entity, person in zip(dataset.candidates, people):
    for name, value in person.items():
      value = tuple(value) if isinstance(value, list) else value
      assert entity[name] == schema.attribute('candidate', name).canonical(value)


@pytest.mark.parametrize('name', ['people.csv', 'posts.csv', 'log.csv', 'schema.toml'])
def test_mutated_files_are_read_or_refused_with_their_place(tmp_path, name):
  folder = shop.folder(tmp_path, LOG, RULES + "split = 'time'\ntime = 'day'\n")
  whole = (folder / name).read_bytes()
  rng = random.Random(name)
  tokens = [b'"', b"'", b',', b'\n', b'\r', b'nan', b'-1', b'1e999', b'[', b']', b'{', b'=',
            b'\xff', b'\0', b'9' * 400, b'\xef\xbb\xbf', b'true', b' ', b'.', b'#']
  read_count = refused = 0
  for _ in range(600):
    at, end = sorted(rng.randrange(len(whole) + 1) for _ in range(2))
    end = min(end, at + rng.choice((0, 0, 1, 8)))
    put = rng.choice([b'', whole[at:end] * 2, *tokens])
    (folder / name).write_bytes(whole[:at] + put + whole[end:])
    try:
      dataset = read_tables(folder, folder / 'schema.toml', EVEN)
    except ValueError as error:
      assert str(error).startswith((f'{folder}/', 'data.shares')), (put, at, error)
      refused += 1
    else:
      read_count += 1
      for side, entities in (('candidate', dataset.candidates), ('job', dataset.jobs)):
        assert all(dataset.schema.validate(side, e) == e for e in entities)
      log = dataset.interactions
      assert np.isin(log.preference, (-1, 0, 1)).all() and (log.exposure > 0).all()
  assert read_count > 5 and refused > 100, (read_count, refused)
