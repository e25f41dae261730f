"""Ids that texts name, judged against chance: a leak where texts name their own record or a pair.

Ids may be words and numbers that also stand in prose: a year, a sum, a standard. That a text holds
one says nothing; that texts hold those of their own records, or of records that they meet in the
log, more often than texts that are dealt to the records at random, does.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
import re
from typing import NamedTuple

import numpy as np
from scipy import stats

from jobrec_jax.data.dataset import Dataset, pair_code
from jobrec_jax.evaluate.canaries import LEVEL
from jobrec_jax.schema.schema import Entity, Schema

SIDES = ('candidate', 'job')
_DIGIT_WORD, _WORD = re.compile(r'(?<!\w)\w*\d\w*'), re.compile(r'\w+')
_JUDGED = 4  # of a data set: two sides, and of each its own ids and those of its pairs


class Told(NamedTuple):
  """What texts name.

  Attributes:
    count: the texts that name what would tell them apart.
    chance: how many would, dealt to the records at random.
    p_value: an upper bound on the probability of so many, or more, by chance.
  """

  count: int
  chance: float
  p_value: float

  @property
  def leaks(self) -> bool:
    """With probability `LEVEL` at most for any of a clean data set (Bonferroni)."""
    return self.p_value < LEVEL / _JUDGED


class NamedIds(NamedTuple):
  """Of one side's records.

  Attributes:
    records: how many name any id.
    first: the first of them in words; '' without any.
    own, pair: that name their own id, or that of a record which they meet in the log.
  """

  records: int
  first: str
  own: Told
  pair: Told


def named_ids(dataset: Dataset) -> dict[str, NamedIds]:
  """The ids that records name in texts, sets and categories, by side.

  Were the texts of a side dealt to its N records at random, text t would name the id of its own
  record with probability (ids of the side that t names) / N, and one of a pair in the log with at
  most (sum of the log's pairs of the records that t names) / N. The number of texts that do is a
  sum of such draws, taken as independent; its tail is at most that of a binomial distribution with
  their mean, for as many texts as name any id. So a single text that names its own id may be luck
  in a data set of a few hundred records; two are not.

  Reference:
    Hoeffding, On the distribution of the number of successes in independent trials, 1956.
  """
  index = _IdIndex(dataset)
  log, found = dataset.interactions, {}
  pairs = np.unique(pair_code(log.candidate, log.job))
  met = {'candidate': pairs >> 32, 'job': pairs & 0xFFFFFFFF}
  for side, entities in zip(SIDES, (dataset.candidates, dataset.jobs)):
    other = SIDES[1 - SIDES.index(side)]
    names = {s: ([], []) for s in SIDES}  # of each side's ids: whose text names them, and whose
    naming, first = set(), ''
    for row, column, place, whose in _named(index, dataset.schema, side, entities):
      names[place][0].append(row)
      names[place][1].append(whose)
      naming.add(row)
      first = first or f'{column} of {side} {entities[row].id} names {index.entity(place, whose)}'
    sizes = len(entities), len(getattr(dataset, f'{other}s'))
    rows, whose = (np.array(x, np.int64) for x in names[side])
    own = _told(rows, rows == whose, np.full(len(rows), 1 / max(1, sizes[0])))
    rows, whose = (np.array(x, np.int64) for x in names[other])
    code = pair_code(*((rows, whose) if side == 'candidate' else (whose, rows)))
    partners = np.bincount(met[other], minlength=sizes[1])
    pair = _told(rows, np.isin(code, pairs), partners[whose] / max(1, sizes[0]))
    found[side] = NamedIds(len(naming), first, own, pair)
  return found


def _told(rows: np.ndarray, telling: np.ndarray, chance: np.ndarray) -> Told:
  """Of [K] ids that texts name: whose text, whether it tells, and with which probability."""
  texts, at = np.unique(rows, return_inverse=True)
  if not len(texts):
    return Told(0, 0.0, 1.0)
  expected = float(np.minimum(1, np.bincount(at, chance)).sum())
  count = int((np.bincount(at, telling) > 0).sum())
  tail = stats.binom.sf(count - 1, len(texts), min(1.0, expected / len(texts)))
  return Told(count, expected, float(tail))


def _named(index: '_IdIndex', schema: Schema, side: str,
           entities: tuple[Entity, ...]) -> Iterator[tuple[int, str, str, int]]:
  """(record, attribute, side of the id, whose id), each id once for a record."""
  columns = [a.name for a in schema.attributes(side) if a.kind in ('text', 'set', 'category')]
  for row, entity in enumerate(entities):
    seen = set()
    for column in columns:
      value = entity[column]
      for text in value if isinstance(value, tuple) else (value,):
        if isinstance(text, str):
          for place in index.named_in(text):
            if place not in seen:
              seen.add(place)
              yield row, column, *place


class _IdIndex:
  """Finds ids in texts as whole words, whatever their case.

  An id is looked up by its rarest word, one with a digit if it has any, so that each text is read
  once, and of most data sets its words with digits alone.
  """

  def __init__(self, dataset: Dataset):
    self._entities = dict(zip(SIDES, (dataset.candidates, dataset.jobs)))
    self._whose = defaultdict(list)  # id -> those that have it
    for side, entities in self._entities.items():
      for row, entity in enumerate(entities):
        self._whose[entity.id.casefold()].append((side, row))
    words = {name: list(_DIGIT_WORD.finditer(name)) for name in self._whose}
    self._word = _DIGIT_WORD if all(words.values()) else _WORD
    words = {name: found or list(_WORD.finditer(name)) for name, found in words.items()}
    uses = Counter(m[0] for found in words.values() for m in found)
    self._places = defaultdict(list)  # word -> ids, and where it stands in each
    for name, found in words.items():
      if found:
        rarest = min(found, key=lambda m: uses[m[0]])
        self._places[rarest[0]].append((name, rarest.start()))

  def entity(self, side: str, row: int) -> str:
    return f'{side} {self._entities[side][row].id}'

  def named_in(self, text: str) -> Iterator[tuple[str, int]]:
    """Side and row of each entity that a text names."""
    text = text.casefold()
    for match in self._word.finditer(text):
      for name, offset in self._places.get(match[0], ()):
        start, end = match.start() - offset, match.start() - offset + len(name)
        around = text[max(0, start - 1):max(0, start)] + text[end:end + 1]
        if start >= 0 and text[start:end] == name and not re.search(r'\w', around):
          yield from self._whose[name]
