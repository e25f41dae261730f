"""Data sets of odd strings and numbers, to write and to read back."""

from hypothesis import strategies as st
import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.schema.schema import Attribute, Entity, Schema

ODD = Schema('odd', (
    Attribute('name', 'text'),
    Attribute('score', 'number'),
    Attribute('age', 'integer', low=0),
    Attribute('moves', 'boolean'),
    Attribute('level', 'category', ('low', 'very high', 'None', 'a"b%')),
    Attribute('town', 'category'),
    Attribute('skills', 'set'),
    Attribute('wants', 'set', ('NA', 'motion planning', "it's", '')),
), (
    Attribute('title', 'text', required=True),
    Attribute('pay', 'number', low=0, high=100),
    Attribute('needs', 'set'),
), ())
NASTY = ('', ' ', '%', '"', "'", ',', '\t', '\n', '\r', '\r\n', '\0', '\\', 'None', 'nan', 'NA',
         '%41', 'motion planning', '#N/A N/A', '\ufeff', '\u2028', '\x85', '[]', "['a']", 'null',
         '\U0001f600')

words = (st.text(st.characters(codec='utf-8'), max_size=3)
         | st.tuples(*[st.sampled_from(NASTY)] * 2).map(''.join))
exposures = st.floats(2 ** -20, 1, width=32)


def values(attribute):
  """None, or any value that the schema allows."""
  members = st.sampled_from(attribute.values) if attribute.values else words
  return st.none() | {
      'number': st.floats(attribute.low, attribute.high, allow_nan=False, allow_infinity=False),
      'integer': st.integers(attribute.low, attribute.high), 'boolean': st.booleans(),
      'text': words, 'category': members,
      'set': st.lists(members, max_size=2).map(tuple).map(attribute.canonical),
  }[attribute.kind]


def records(side):
  """Attributes of a side; a missing one is None or left out."""
  required = {a.name: values(a).filter(lambda v: v is not None)
              for a in ODD.attributes(side) if a.required}
  return st.fixed_dictionaries(required, optional={
      a.name: values(a) for a in ODD.attributes(side) if not a.required})


ids = st.lists(words.filter(bool), min_size=1, max_size=2, unique=True)
labels = st.integers(UNOBSERVED, 1)
RECORDS = {side: st.lists(records(side), min_size=2, max_size=2) for side in ('candidate', 'job')}
LOGS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), labels, labels,
              st.integers(0, len(SPLITS) - 1), exposures),
    unique_by=lambda row: (row[0], row[1], row[4]), max_size=6)


@st.composite
def datasets(draw):
  """A data set with any ids, values, labels, and exposures of 32 bits."""
  candidates, jobs = (tuple(map(Entity, draw(ids), draw(RECORDS[side])))
                      for side in ('candidate', 'job'))
  rows = [row for row in draw(LOGS) if row[0] < len(candidates) and row[1] < len(jobs)]
  return Dataset(ODD, candidates, jobs, interactions(rows))


def interactions(rows):
  """Interactions of (candidate, job, preference, qualification, split, exposure)."""
  columns = list(zip(*rows)) or [()] * 6
  kinds = (np.int32, np.int32, np.int8, np.int8, np.int8, np.float32)
  return Interactions(*(np.array(c, kind) for c, kind in zip(columns, kinds)))


def small():
  """A data set with an example of most things."""
  return Dataset(ODD, (
      Entity('S1', {'name': 'a "b", c\nd', 'score': 3.25, 'age': 41, 'moves': True, 'level': 'low',
                    'town': 'Bergen aan Zee', 'skills': ('C++', 'motion planning'), 'wants': ()}),
      Entity('S2', {'name': 'None', 'score': -1e-07, 'level': 'very high', 'skills': ('x',),
                    'wants': ('NA', "it's")}),
      Entity('S é3', {'age': 0, 'moves': False, 'level': 'None', 'town': '100%'}),
  ), (
      Entity('J1', {'title': 'Engineer, "lead"', 'pay': 99.5, 'needs': ('C++', 'tab\there')}),
      Entity('J2', {'title': 'Nurse\n', 'pay': 0.0, 'needs': ()}),
      Entity('J3', {'title': 'ß'}),
  ), interactions([
      (0, 0, 1, 1, 0, 0.7), (0, 1, 0, -1, 0, 0.25), (1, 0, 1, 0, 0, 1.0), (2, 2, -1, 1, 1, 0.5),
      (1, 1, 1, -1, 1, 1.0), (1, 2, 1, 0, 2, 0.1), (2, 0, 0, -1, 2, 0.3), (2, 1, 1, 1, 3, 0.9),
      (0, 2, 0, 1, 3, 0.7), (2, 0, 1, 0, 3, 1.0)]))


def same(a, b):
  """Whether two data sets agree in schema, records, order and interactions, bit for bit."""
  return a.fingerprint() == b.fingerprint()
