"""Schema files: what they say, what they name beside themselves, and what is refused."""

import pytest

from jobrec_jax.data.tables.definition import read_definition, read_schema
from jobrec_jax.schema.comparators import AtMost, Near, OrdinalAtLeast, Same, SetCoverage
from jobrec_jax.schema.document import parse_schema, schema_document
from jobrec_jax.schema.shipped import NURSING, STUDENTS
from tests.data.tables.shop import SCHEMA, TABLES

LOG = "preference = 'applied'\n"


def write(path, text, name='schema.toml'):
  (path / name).write_text(text, encoding='utf-8')
  return path / name


def test_a_schema_file_says_what_the_data_mean(tmp_path):
  schema = read_schema(write(tmp_path, SCHEMA))
  fields = {f.name: f for f in schema.fields}
  assert [a.name for a in schema.candidate] == ['years', 'pay', 'skills', 'shift', 'drives',
                                                'letter']
  assert [schema.is_hard(f) for f in schema.fields] == [True, True, False, False, False, False]
  assert fields['pay'].comparator == AtMost('euros')
  assert fields['shift'].comparator == Same('Any')
  assert fields['skills'].comparator == SetCoverage(0.6)
  assert fields['drives'].perspective == 'qualification'
  assert schema.attribute('job', 'about').required


def test_and_how_their_tables_are_written(tmp_path):
  defined = read_definition(write(tmp_path, SCHEMA + TABLES + LOG))
  people = defined.sides['candidate']
  assert (people.file, people.id) == ('people.csv', 'person')
  assert people.columns == {'years': 'Years at work', 'skills': 'Skills'}
  assert people.separators == {'skills': ','} and people.missing == {'pay': ('on request',)}
  assert defined.log.preference.column == 'applied' and defined.log.split == 'candidates'
  assert read_definition(write(tmp_path, SCHEMA)).log is None


def test_columns_say_nothing_about_the_schema(tmp_path):
  one = read_schema(write(tmp_path, SCHEMA))
  other = read_schema(write(tmp_path, SCHEMA.replace("column = 'Skills', ", '')))
  assert one == other and one.fingerprint() == other.fingerprint()


def test_a_python_file_will_do(tmp_path):
  path = write(tmp_path, 'from jobrec_jax.schema.shipped import NURSING as SCHEMA\n', 'mine.py')
  assert read_schema(path) == NURSING
  path = write(tmp_path, f'SCHEMA_FILE = {schema_document(STUDENTS)!r}\n', 'other.py')
  assert read_schema(path) == STUDENTS
  with pytest.raises(ValueError, match=r'none\.py: must hold a Schema SCHEMA .* got NoneType'):
    read_schema(write(tmp_path, 'x = 1\n', 'none.py'))


@pytest.mark.parametrize('schema', [STUDENTS, NURSING], ids=lambda s: s.name)
def test_documents_round_trip(schema):
  assert parse_schema(schema_document(schema), 'x') == schema


def test_levels_are_the_values_that_both_sides_share(tmp_path):
  text = SCHEMA.replace("compare = 'same', anything = 'Any'", "compare = 'at_least'")
  schema = read_schema(write(tmp_path, text))
  shift = next(f for f in schema.fields if f.name == 'shift')
  assert shift.comparator == OrdinalAtLeast(('Days', 'Nights', 'Any'))
  with pytest.raises(ValueError, match='levels must list the categories in ascending order'):
    read_schema(write(tmp_path, text.replace("'Nights', 'Any']}\ndrives", "'Any']}\ndrives", 1)))


def test_synonyms_and_distances_may_lie_in_tables(tmp_path):
  (tmp_path / 'words.csv').write_text('alias,term\nk8s,Kubernetes\nkube,Kubernetes\n')
  (tmp_path / 'esco.csv').write_text(
      'code,preferredLabel,altLabels\n1,Kubernetes,"k8s\nkube"\n2,SQL,\n')
  (tmp_path / 'km.tsv').write_text('from\tto\tkm\nBonn\tEssen\t90\n')
  inline = "synonyms = {'k8s' = 'Kubernetes'}"
  esco = ("synonyms = {file = 'esco.csv', written = 'altLabels', meant = 'preferredLabel', "
          "separator = \"\\n\"}")
  for given in ("synonyms = 'words.csv'", esco):
    skills = read_schema(write(tmp_path, SCHEMA.replace(inline, given))).attribute(
        'candidate', 'skills')
    assert skills.canonical(('KUBE', 'sql', 'k8s')) == ('Kubernetes', 'sql')
  near = SCHEMA.replace("compare = 'same', anything = 'Any'",
                        "compare = 'near', by = 50, distances = 'km.tsv'")
  shift = next(f for f in read_schema(write(tmp_path, near)).fields if f.name == 'shift')
  assert shift.comparator == Near(50, (('Bonn', 'Essen', 90.0),))


def changed(*pairs):
  text = SCHEMA + TABLES + LOG
  for old, new in pairs:
    assert old in text
    text = text.replace(old, new, 1)
  return text


@pytest.mark.parametrize('text, message', [
    (changed(("name = 'shop'", "name = shop")), 'must be TOML, got: Invalid value'),
    (changed(("name = 'shop'", '')), r"must have the keys \['name'\]"),
    (changed(('[candidate]', '[candidates]')), "got 'candidates'; did you mean 'candidate'"),
    (changed(("kind = 'integer'", "kind = 'whole'")), "candidate.years: .*kind must be one of"),
    (changed(("low = 0, high = 60, column", "lowest = 0, column")),
     "candidate.years: keys must be among .* got 'lowest'; did you mean 'low'"),
    (changed(("{kind = 'boolean'}", "{kind = 'boolean', low = 0}")),
     "attribute drives: low must be left out unless kind is number or integer, got .*'boolean'"),
    (changed(("'Nights', 'Any'", "'Nights', 'NIGHTS'")), 'attribute shift: values must differ in '),
    (changed(("compare = 'at_most', unit = 'euros'", "compare = 'contains'")),
     r"layers.fit.pay: compare must be one of \['at_least', 'at_most', 'within'\], which compare "
     "number with number, got 'contains'"),
    (changed(("compare = 'covers'", "compare = 'any_of'")), r"one of \['covers'\]"),
    (changed(("candidate = 'pay', job", "candidate = 'wage', job")),
     "layers.fit.pay.candidate must name attributes among .* got .*'wage'"),
    (changed(("needed = 0.6", "needed = 60")), r'needed must lie in \[0, 1\], got 60'),
    (changed(("needed = 0.6", "by = 3")),
     r"layers.fit.skills: by is no setting among \['needed', 'of'\]"),
    (changed(("perspective = 'both'", "perspective = 'taste'")), 'perspective must be one of'),
    (changed(("perspective = 'both'", "perspective = 'preference', against = 'qualification'")),
     r"against must name some of \['preference'\]"),
    (changed(("perspective = 'both'", "perspective = 'both', weight = 0")),
     'weight must be a positive number'),
    (changed(('hard = true', "hard = 'yes'")), 'layers.must must be a table of fields'),
    (changed(("separator = ','", 'separator = 1')), 'candidate.skills.separator must be text'),
    (changed(("missing = ['on request']", "missing = 'x'")),
     'candidate.pay.missing must be an array of words'),
    (changed(("{'k8s' = 'Kubernetes'}", "'../x.csv'")),
     'candidate.skills.synonyms must name a file in the folder of the schema file'),
    (changed(("{'k8s' = 'Kubernetes'}", '3')), 'skills.synonyms must be a table .*, got 3'),
    (changed(("low = 0, high = 60, column", "low = 60, high = 0, column")),
     'attribute years: low must be at most high, got 60 and 0'),
    (changed(("letter = {kind", "id = {kind")),
     "candidate.id: attribute: name must be .* not 'id', which is the record's own"),
    (changed(("letter = {kind", "' ' = {kind")), "name must be one that is not empty .* got ' '"),
    (changed((LOG, 'preference = false\n')), 'tables.interactions.preference: must be a table'),
    (changed((LOG, 'qualification = true\n')), 'interactions.qualification: must be a table'),
    (changed(("{'k8s' = 'Kubernetes'}", "'none.csv'")), 'none.csv: must be a readable file'),
    (changed(('[tables.jobs]', '[tables.posts]')), "keys must be among .* got 'posts'"),
    (changed((LOG, '')), 'preference, qualification or funnel must say what was decided'),
    (changed((LOG, LOG + "split = 'time'\n")), "time must name a column where split is 'time'"),
    (changed((LOG, LOG + "split = 'random'\n")), "split must be one of"),
    (changed((LOG, "preference = {column = 'x', yes = ['a']}\n")),
     'yes and no must both be given and share no word'),
    (changed((LOG, "funnel = {column = 'x', stages = ['a'], preference = 'b'}\n")),
     'stages must differ and hold what preference'),
    (changed((LOG, LOG + "applicants_only = ['dev']\n")), 'applicants_only must be'),
    (changed((LOG, "qualification = 'hired'\napplicants_only = ['train']\n")),
     'applicants_only must come with preference or funnel, which say who applied'),
])
def test_what_a_schema_file_cannot_say(tmp_path, text, message):
  path = write(tmp_path, text)
  with pytest.raises(ValueError, match=message) as raised:
    read_definition(path)
  assert str(raised.value).startswith(f'{tmp_path}/')
  assert '\n' not in str(raised.value)


@pytest.mark.parametrize('name, text, message', [
    ('a.py', 'def', 'must be Python that runs, got SyntaxError: invalid syntax'),
    ('a.py', 'import none_such', 'must be Python that runs, got ModuleNotFoundError: No module'),
    ('a.py', 'raise KeyError("a\\nb")', 'must be Python that runs, got KeyError'),
    ('a.py', 'SCHEMA = 3', 'must hold a Schema SCHEMA or a dictionary SCHEMA_FILE, got int'),
    ('a.toml', 'a = ' + '[' * 9000 + ']' * 9000, 'must be TOML, got: maximum recursion depth'),
    ('a.toml', "name = '\0'", 'must be TOML, got: '),
    ('a.yaml', '', "must be a .toml or a .py file, got '.yaml'")])
def test_files_that_are_no_schema_files(tmp_path, name, text, message):
  (tmp_path / name).write_text(text)
  with pytest.raises(ValueError, match=rf'^[^\n]*{name}: {message}[^\n]*$'):
    read_definition(tmp_path / name)
