"""A first schema file is guessed from files alone, and reads every one of their rows."""

import datetime
import json
from pathlib import Path
import tomllib

import pyarrow as pa
from pyarrow import parquet
import pytest

from experiments import describe as script
from jobrec_jax.data.tables.definition import read_definition
from jobrec_jax.data.tables.describe import describe
from jobrec_jax.data.tables.hints import core, likeness, says
from jobrec_jax.data.tables.kinds import guess, outwards
from jobrec_jax.data.tables.reader import Division, read_tables

ROOT = Path(__file__).parents[3]
HALVES = Division(0, (0.25, 0.25, 0.25, 0.25))
WORKERS = """\
id,Name,Years,skills,Level,car,wanted pay,city,note
1,Ann Ash,3,SQL; Python,junior,yes,20.5,Rome,I like quiet work and long days.
2,Bob Beech,unknown,python,senior,no,25,Oslo,
3,Cy Cedar,12,Go; SQL,lead,yes,31.5,Rome,"I have led teams, small and large ones."
4,Di Dogwood,-1,Rust; Go; SQL,junior,no,22,Oslo,Mornings are best for me and my family.
"""
TASKS = """\
task,minYears,required_skills,min level,car,pay,places,text
7,2,Go;SQL,junior,yes,24,Rome; Oslo,A small task for one who likes order.
8,10,Python,lead,no,30.5,Rome,We need somebody to lead the others here.
9,5,SQL;Rust,senior,no,27,Oslo,Nights and weekends with a good team.
"""
LOG = """\
worker,task,stage,day,shown
1,7,hired,2025-01-01,1
1,8,viewed,2025-01-02,1
2,7,applied,2025-01-03,1
2,9,hired,2025-01-04,1
3,8,hired,2025-01-05,1
3,9,applied,2025-01-06,1
4,7,viewed,2025-01-07,1
4,8,viewed,2025-01-08,0
4,9,applied,2025-01-09,1
"""


def folder_of(tmp_path: Path, **files: str) -> Path:
  for name, text in files.items():
    (tmp_path / name.replace('__', '.')).write_text(text)
  return tmp_path


def described(folder: Path, rows: bool = True):
  """The document, what it defines, and the data set that it reads."""
  text = describe(folder)
  path = folder / 'schema.toml'
  path.write_text(text)
  defined = read_definition(path)
  return tomllib.loads(text), defined, read_tables(folder, path, HALVES) if rows else None


def without(table: dict) -> dict:
  """A field without what all fields share."""
  return {k: v for k, v in table.items() if k != 'perspective'}


def test_the_guesses_of_plain_tables(tmp_path):
  document, _, dataset = described(folder_of(
      tmp_path, workers__csv=WORKERS, tasks__csv=TASKS, log__csv=LOG))
  assert document['candidate'] == {
      'years': {'kind': 'integer', 'column': 'Years', 'low': 0, 'high': 20,
                'missing': ['unknown', '-1']},
      'skills': {'kind': 'set', 'values': ['Go', 'Python', 'Rust', 'SQL']},
      'level': {'kind': 'category', 'column': 'Level', 'values': ['junior', 'senior', 'lead']},
      'car': {'kind': 'boolean'},
      'wanted_pay': {'kind': 'number', 'column': 'wanted pay', 'low': 20, 'high': 40},
      'city': {'kind': 'category', 'values': ['Oslo', 'Rome']},
      'note': {'kind': 'text'}}
  assert document['job']['min_years'] == {'kind': 'integer', 'column': 'minYears', 'low': 0,
                                          'high': 20}
  fields = {name: without(field) for layer in document['layers'].values()
            for name, field in layer.items()}
  assert fields == {
      'min_years': {'candidate': 'years', 'job': 'min_years', 'compare': 'at_least'},
      'min_level': {'candidate': 'level', 'job': 'min_level', 'compare': 'at_least'},
      'pay': {'candidate': 'wanted_pay', 'job': 'pay', 'compare': 'at_most'},
      'car': {'candidate': 'car', 'job': 'car', 'compare': 'same'},
      'required_skills': {'candidate': 'skills', 'job': 'required_skills', 'compare': 'covers'},
      'places': {'candidate': 'city', 'job': 'places', 'compare': 'any_of'},
      'text': {'candidate': 'note', 'job': 'text', 'compare': 'text'}}
  assert document['tables'] == {
      'candidates': {'file': 'workers.csv', 'id': 'id'},
      'jobs': {'file': 'tasks.csv', 'id': 'task'},
      'interactions': {
          'file': 'log.csv', 'candidate': 'worker', 'job': 'task', 'split': 'candidates',
          'shown': 'shown', 'funnel': {
              'column': 'stage', 'stages': ['viewed', 'applied', 'hired'],
              'preference': 'applied', 'qualification': 'hired'}}}
  assert [len(x) for x in (dataset.candidates, dataset.jobs)] == [4, 3]
  assert dataset.candidates[1]['years'] is None and dataset.candidates[3]['years'] is None
  assert dataset.candidates[1]['skills'] == ('Python',)  # one spelling of a word
  text = describe(tmp_path)
  assert '# Name: names say nothing' in text and "# time = 'day'" in text
  assert all(f['perspective'] == 'both' for layer in document['layers'].values()
             for f in layer.values())


def test_headers_of_another_language_semicolons_and_decimal_commas(tmp_path):
  people = ('Nr;Jahre Erfahrung;Abschluss;Kenntnisse;Führerschein;Stundenlohn;Geburtstag\n'
            '1;3;Bachelor;Excel, SAP;ja;12,50;1990-01-02\n2;k.A.;Master;SAP, Python;nein;13,75;'
            '1980-05-02\n3;7;PhD;Excel, Python, SAP;ja;20,00;1985-01-02\n'
            '4;1;Bachelor;Excel;nein;11,00;1995-03-02\n')
  posts = ('Stelle;Mindestjahre;Mindestabschluss;Geforderte Kenntnisse;Führerschein\n'
           '10;2;Bachelor;Excel;ja\n11;8;Master;Python, SAP;nein\n12;0;PhD;SAP, Excel;ja\n')
  words = ('angesehen', 'beworben', 'abgelehnt', 'eingestellt')
  log = 'Bewerber;Stelle;Datum;Stand\n' + ''.join(
      f'{i};{j};0{i}.03.2025;{words[(i + j) % 4]}\n' for i in (1, 2, 3, 4) for j in (10, 11, 12))
  document, _, dataset = described(folder_of(tmp_path, Bewerber__csv=people, Stellen__csv=posts,
                                             Verlauf__csv=log))
  assert document['candidate']['jahre_erfahrung']['missing'] == ['k.A.']
  assert document['candidate']['kenntnisse'] == {
      'kind': 'set', 'column': 'Kenntnisse', 'separator': ',',
      'values': ['Excel', 'Python', 'SAP']}
  assert 'stundenlohn' not in document['candidate'] and 'geburtstag' not in document['candidate']
  fields = {name: (f['candidate'], f['compare']) for layer in document['layers'].values()
            for name, f in layer.items()}
  assert fields == {'mindestjahre': ('jahre_erfahrung', 'at_least'),
                    'mindestabschluss': ('abschluss', 'at_least'),
                    'geforderte_kenntnisse': ('kenntnisse', 'covers'),
                    'führerschein': ('führerschein', 'same')}
  assert document['tables']['candidates'] == {'file': 'Bewerber.csv', 'id': 'Nr'}
  assert document['tables']['interactions']['funnel'] == {
      'column': 'Stand', 'stages': list(words), 'preference': 'beworben',
      'qualification': 'eingestellt', 'pending': ['beworben']}
  assert len(dataset.jobs) == 3
  text = describe(tmp_path)
  assert 'Stundenlohn: numbers with signs or decimal commas' in text
  assert "# time = 'Datum'   # times must be ISO dates" in text


def test_json_lines_and_parquet_with_arrays_and_times(tmp_path):
  users = [{'user': f'u{i}', 'tags': ['a', 'b'] if i % 2 else ['b'], 'age': 20 + i,
            'extra': {'deep': 1}, 'since': '2020-01-01'} for i in range(6)]
  (tmp_path / 'users.jsonl').write_text(''.join(json.dumps(u) + '\n' for u in users))
  parquet.write_table(pa.table({
      'item': [1, 2, 3], 'tags': [['a'], ['b', 'a'], []], 'max_age': [21.0, 24.0, 30.0],
      'opened': [datetime.date(2025, 1, d) for d in (1, 2, 3)]}), tmp_path / 'items.parquet')
  parquet.write_table(pa.table({
      'user': [f'u{i}' for i in range(6) for _ in range(3)], 'item': [1, 2, 3] * 6,
      'liked': [True, False, None] * 6, 'accepted': ['yes', 'no', ''] * 6,
      'fold': ['train', 'validation', 'test', 'calibration', 'train', 'train'] * 3,
      'when': [datetime.datetime(2025, 1, 1 + i) for i in range(18)]}), tmp_path / 'log.parquet')
  document, defined, dataset = described(tmp_path)
  assert document['candidate'] == {'tags': {'kind': 'set', 'values': ['a', 'b']},
                                   'age': {'kind': 'integer', 'low': 20, 'high': 30}}
  assert document['job'] == {'tags': {'kind': 'set', 'values': ['a', 'b']},
                             'max_age': {'kind': 'integer', 'low': 20, 'high': 30}}
  assert document['layers']['requirements']['max_age']['compare'] == 'at_most'
  assert document['tables']['interactions'] == {
      'file': 'log.parquet', 'candidate': 'user', 'job': 'item', 'preference': 'liked',
      'qualification': 'accepted', 'split': 'column', 'fold': 'fold'}
  assert defined.log.split == 'column' and len(dataset.interactions) == 12
  text = describe(tmp_path)
  assert 'extra: holds dict values' in text and "# time = 'when'" in text
  assert '# applicants_only' in text


def test_recbole_files_ratings_and_rows_of_unknown_ids(tmp_path):
  document, _, dataset = described(folder_of(
      tmp_path, ml__user='user_id:token\tage:float\n' + ''.join(
          f'{i}\t{20 + i}\n' for i in range(8)),
      ml__item='item_id:token\tclass:token_seq\n1\tDrama War\n2\tDrama\n3\tWar Comedy\n',
      ml__inter='user_id:token\titem_id:token\trating:float\ttimestamp:float\n' + ''.join(
          f'{i}\t{j}\t{1 + (i + j) % 5}\t{880 + i}\n' for i in range(8) for j in (1, 2, 3))
      + '99\t1\t3\t900\n'))
  assert document['job'] == {'class': {'kind': 'set', 'separator': ' ',
                                       'values': ['Comedy', 'Drama', 'War']}}
  log = document['tables']['interactions']
  assert log['preference'] == {'column': 'rating', 'yes': ['4', '5'], 'no': ['1', '2', '3']}
  assert log['unknown'] == 'skip' and 'qualification' not in log
  assert any('1 rows that name an id' in note for note in dataset.notes)
  assert document['layers'] == {'fit': {}}
  assert 'no column of candidates' in describe(tmp_path)


@pytest.mark.parametrize('outcomes, expected', [
    (('hired', 'rejected'), {'funnel': {'column': 'outcome', 'stages': ['rejected', 'hired'],
                                        'preference': 'rejected', 'qualification': 'hired'}}),
    (('ja', 'nein'), {'qualification': {'column': 'outcome', 'yes': ['ja'], 'no': ['nein']}}),
    (('1', '0'), {'qualification': 'outcome'})])
def test_one_column_of_decisions(tmp_path, outcomes, expected):
  log = 'worker,task,outcome\n' + ''.join(
      f'{i},{j},{outcomes[(i + j) % 2]}\n' for i in (1, 2, 3, 4) for j in (7, 8, 9))
  document, _, _ = described(folder_of(tmp_path, workers__csv=WORKERS, tasks__csv=TASKS,
                                       log__csv=log))
  found = document['tables']['interactions']
  assert {k: found[k] for k in ('preference', 'qualification', 'funnel') if k in found} == expected


def test_a_least_category_of_no_known_order_is_to_be_checked(tmp_path):
  people = 'id,grade\n1,G9\n2,G10\n3,G9\n4,G11\n'
  jobs = 'job,min_grade\n7,G9\n8,G12\n9,G10\n'
  log = 'user,job,applied\n1,7,1\n2,7,0\n3,8,1\n4,8,0\n1,9,0\n'
  document, _, _ = described(folder_of(tmp_path, users__csv=people, jobs__csv=jobs, log__csv=log))
  for side, name in (('candidate', 'grade'), ('job', 'min_grade')):
    assert document[side][name]['values'] == ['G9', 'G10', 'G11', 'G12']
  assert document['layers']['requirements']['min_grade']['compare'] == 'at_least'
  assert 'check that their values ascend' in describe(tmp_path)


def test_ids_that_two_tables_share_are_told_apart_by_names_and_reach(tmp_path):
  people = 'id,age\n' + ''.join(f'{i},{1 + i % 4}\n' for i in range(1, 9))
  jobs = 'id,size\n' + ''.join(f'{i},{i * 7}\n' for i in range(1, 9))
  log = 'job,employee,age,hired\n' + ''.join(
      f'{1 + (i * 3 + j) % 8},{i},{1 + i % 4},{j % 2}\n' for i in range(1, 9) for j in range(4))
  document, _, _ = described(folder_of(tmp_path, employees__csv=people, jobs__csv=jobs,
                                       a__csv=log))
  assert document['tables']['candidates'] == {'file': 'employees.csv', 'id': 'id'}
  log_table = document['tables']['interactions']
  assert (log_table['candidate'], log_table['job']) == ('employee', 'job')


def test_measurements_are_no_ids(tmp_path):
  scores = [f'0.{i:03}' for i in range(12)]
  rows = ''.join(f'{i},{j},{scores[2 * i + j - 5]},{j % 2}\n' for i in range(4) for j in (5, 6))
  document, _, _ = described(folder_of(
      tmp_path, staff__csv='id,age\n0,20\n1,21\n2,22\n3,23\n', posts__csv='id,pay\n5,9\n6,8\n',
      a__csv='staff,post,score,applied\n' + rows, b__csv='staff,post,score,applied\n' + rows))
  tables = document['tables']
  assert tables['candidates'] == {'file': 'staff.csv', 'id': 'id'}
  assert tables['jobs'] == {'file': 'posts.csv', 'id': 'id'}
  assert tables['interactions']['candidate'] == 'staff'


def test_what_cannot_be_guessed_is_said(tmp_path):
  folder = folder_of(tmp_path, workers__csv=WORKERS, tasks__csv=TASKS,
                     ragged__csv='a,b\n1\n', one__csv='word\nx\n',
                     log__csv='worker,task,colour\n1,7,red\n2,8,blue\n3,9,red\n4,7,green\n1,8,red\n')
  document, defined, _ = described(folder, rows=False)
  text = describe(folder)
  assert 'tables' not in document and defined.log is None
  assert "# preference = {column = 'COLUMN', yes = ['WORD'], no = ['WORD']}" in text
  assert '# ragged.csv is not read: ragged.csv:2: must have 2 cells, got 1' in text
  assert '# one.csv is no table' in text
  (folder / 'log.csv').unlink()
  document, _, _ = described(folder, rows=False)
  assert {'skills', 'required_skills'} <= document['candidate'].keys() | document['job'].keys()
  assert '# [tables.candidates], [tables.jobs] and [tables.interactions] are needed' in describe(
      folder)


@pytest.mark.parametrize('files, said', [({}, 'must hold tables'), (None, 'must be a folder')])
def test_no_table_and_no_folder(tmp_path, files, said):
  with pytest.raises(ValueError, match=said):
    describe(tmp_path if files == {} else tmp_path / 'none')


@pytest.mark.parametrize('cells, kind, extra', [
    (['01234', '04109', '01234'], 'category', {}),  # a code, no number
    (['1.0', '3.0', '', '2'], 'integer', {'low': 0, 'high': 3}),
    (['0.5', '0.25'], 'number', {'low': 0, 'high': 0.5}),
    (['-3', '-1', '2'], 'integer', {'low': -3, 'high': 2}),  # a range, no mark
    (["['a', 'b']", '["b"]', '[]'], 'set', {'values': ('a', 'b')}),
    ([True, False, None], 'boolean', {}),
    (['grade 10', 'grade 9', 'Grade 9'], 'category', {'values': ('grade 9', 'grade 10')}),
    (['A1', 'C2', 'B1', 'a1'], 'category', {'values': ('A1', 'B1', 'C2')}),
    (["it's", 'say "no"\n', "it's"], 'category', {}),
    ([f'word number {i}' for i in range(30)], 'text', {}),
    (['x'] * 4, None, {}), (['', None, float('nan')], None, {}), (['a@b.c', 'd@e.f'], None, {}),
    ([[1], 'a'], None, {}), (['3 h', '4 h', '12 h'], None, {})])
def test_kinds_of_columns(cells, kind, extra):
  found = guess('x', 'x', cells)
  assert (found.attribute and found.attribute.kind) == kind, found
  for key, value in extra.items():
    assert getattr(found.attribute, key) == value


def test_ranges_are_rounded_outwards():
  assert outwards(3, 17, True) == (0, 20) and outwards(58, 97, True) == (50, 100)
  assert outwards(2.1, 3.9, False) == (2, 4) and outwards(5, 5, True) == (5, 5)


def test_names_are_read_in_words():
  assert core('Mindestjahre') == core('jahre') and core('minYears') == core('Required years')
  assert likeness('min_skill', 'skills') == 1 and likeness('pay', 'age') == 0
  assert says('Candidatos', ('candidat',)) and not says('postcode', ('post',))


def test_odd_names_and_words_are_written_as_toml(tmp_path):
  odd = '"it\'s a ""b""\\","new\nline",id,Größe\n'
  document, _, dataset = described(folder_of(
      tmp_path, users__csv=odd + '"a\'""\\", x,1,3\nb,"x\t",2,4\n"a\'""\\",y,3,5\nb,y,4,6\n',
      jobs__csv='job,größe\n7,3\n8,9\n',
      log__csv='id,job,applied\n1,7,1\n2,7,0\n3,8,1\n4,8,0\n1,8,0\n2,8,1\n'))
  assert document['candidate']['it_s_a_b']['values'] == ['a\'"\\', 'b']
  assert document['candidate']['größe']['column'] == 'Größe'
  assert document['layers']['requirements']['größe']['compare'] == 'at_least'
  assert len(dataset.candidates) == 4


def test_the_script_never_overwrites(tmp_path, capsys, monkeypatch):
  folder = folder_of(tmp_path, workers__csv=WORKERS, tasks__csv=TASKS, log__csv=LOG)

  class Flags:
    out = None
  monkeypatch.setattr(script, 'FLAGS', Flags)
  script.main(['describe', str(folder)])
  assert str(folder / 'schema.toml') in capsys.readouterr().out
  before = (folder / 'schema.toml').read_text()
  assert before == describe(folder)
  (folder / 'schema.toml').write_text('mine')
  with pytest.raises(ValueError, match=r'--out must name a new file, got .*schema\.toml, which is'):
    script.main(['describe', str(folder)])
  assert (folder / 'schema.toml').read_text() == 'mine'
  Flags.out = str(tmp_path / 'else' / 'first.toml')
  script.main(['describe', str(folder)])
  assert (tmp_path / 'else/first.toml').read_text() == before
  assert f'--config.data.folder={folder}' in capsys.readouterr().out


def test_the_shipped_example_is_described_as_it_is(tmp_path):
  first = tomllib.loads(describe(ROOT / 'examples/shifts'))
  shipped = tomllib.loads((ROOT / 'examples/shifts/schema.toml').read_text())
  assert first['candidate'].keys() == shipped['candidate'].keys()
  assert first['job'].keys() == shipped['job'].keys()
  for side in ('candidate', 'job'):
    assert {n: a['kind'] for n, a in first[side].items()} == {
        n: a['kind'] for n, a in shipped[side].items()}
  assert first['tables']['interactions']['funnel']['stages'] == (
      shipped['tables']['interactions']['funnel']['stages'])
  ours, theirs = ({(f['candidate'], f['job']) for layer in d['layers'].values()
                   for f in layer.values() if isinstance(f, dict)} for d in (first, shipped))
  assert ours == theirs
