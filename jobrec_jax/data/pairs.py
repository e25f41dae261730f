"""Alignments of many pairs at once, as arrays: what `schema.align` says of one pair, in bulk.

  code(candidate's values of a field), code(job's value) -> outcome, compared once for each key
  outcome -> verdict, margin and clause (`FieldAlignment.in_words`) of every pair with that key

Pairs repeat keys: the 240,000 pairs of 2,400 simulated students and 100 jobs have 36,000 keys of
levels, majors, numbers and modes and 238,000 of skills, but 549 outcomes and 249 clauses. A pair
costs a table look-up for each field, and a comparison for each key that is new.
"""

from collections.abc import Iterator, Sequence
import copy
import threading
from typing import NamedTuple

import numpy as np

from jobrec_jax.schema.align import VERDICT_CODES, FieldAlignment, fields_with_verdicts
from jobrec_jax.schema.comparators import SetCoverage
from jobrec_jax.schema.schema import AlignedField, Entity, Schema
from jobrec_jax.schema.words import folded

CHUNK = 65_536  # pairs that are aligned at a time: some 25 MB
_KEYS = 262_139  # keys of a field that are remembered: the largest prime below 2**18
KEPT = 65_536  # outcomes that are remembered before all are forgotten
_LISTED = 1 << 20  # keys that are compared to list all clauses
_CREDIT = np.array([1.0, 0.0, 0.5])  # of verdicts in `rule_score`


class PairAlignments(NamedTuple):
  """How N pairs compare on the F fields that have a verdict, in the schema's order.

  Attributes:
    fields: the F fields.
    verdict: [N, F] int8, see `VERDICT_CODES`.
    margin: [N, F] float32 in the field's unit; 0 where there is none.
    clause: [N, F] int32 rows of `clauses`.
    clauses: distinct (column of the field, `FieldAlignment.in_words()`); only ever appended to.
  """

  fields: tuple[AlignedField, ...]
  verdict: np.ndarray
  margin: np.ndarray
  clause: np.ndarray
  clauses: list[tuple[int, str]]

  def features(self) -> np.ndarray:
    """[N, 4F] float32: of each pair what `schema.align.alignment_features` returns."""
    out = np.empty((*self.verdict.shape, 4), np.float32)
    out[..., 0] = self.verdict == VERDICT_CODES['met']
    out[..., 1] = self.verdict == VERDICT_CODES['unknown']
    out[..., 2] = np.minimum(self.margin, 0)
    out[..., 3] = np.maximum(self.margin, 0)
    return out.reshape(len(out), 4 * len(self.fields))

  def rule_scores(self, perspective: str) -> np.ndarray:
    """[N] float64: of each pair what `schema.align.rule_score` returns."""
    weight = np.array([f.weight * f.speaks_to(perspective) for f in self.fields])
    if not weight.any():
      return np.full(len(self.verdict), 0.5)
    against = np.array([perspective in f.against for f in self.fields])
    credit = np.where(against, 1 - _CREDIT[self.verdict], _CREDIT[self.verdict])
    return credit @ weight / weight.sum()

  def verdict_codes(self) -> np.ndarray:
    """[N, F] int32: of each pair what `schema.align.verdict_codes` returns."""
    return 3 * np.arange(len(self.fields), dtype=np.int32) + self.verdict


def chunks(pairs: int) -> Iterator[slice]:
  """Slices of at most `CHUNK` that cover `range(pairs)`."""
  return (slice(start, min(start + CHUNK, pairs)) for start in range(0, pairs, CHUNK))


class PairAligner:
  """Aligns pairs of these candidates and jobs, given by index; threads may share it.

  Memory does not grow with the pairs: a field remembers at most 262,139 keys (12 bytes each), and
  outcomes are forgotten beyond 65,536 of them.

  Args:
    schema: the domain's table.
    candidates, jobs: records.
  """

  def __init__(self, schema: Schema, candidates: Sequence[Entity], jobs: Sequence[Entity]):
    self.fields = fields_with_verdicts(schema)
    self._job, self._job_values = _columns([[(e[f.job],) for e in jobs] for f in self.fields],
                                           len(jobs))
    self._words: dict[int, _Words] = {}  # of the jobs' sets, by field, where they were asked for
    self._meet(candidates)

  def with_candidates(self, candidates: Sequence[Entity]) -> 'PairAligner':
    """The same jobs, which are not read again, and other candidates."""
    other = copy.copy(self)
    other._meet(candidates)
    return other

  def _meet(self, candidates: Sequence[Entity]) -> None:
    """Prepares pairs of these candidates with the jobs."""
    self._lock = threading.Lock()
    self._candidate, values = _columns(
        [[tuple([e[name] for name in f.candidate]) for e in candidates] for f in self.fields],
        len(candidates))
    self._values = list(zip(values, self._job_values))
    self._jobs = np.array([len(job) for _, job in self._values], np.int64)
    self._count = np.array([len(c) * len(j) for c, j in self._values], np.int64)
    # Keys of all fields share one number line and one table, so that a look-up is a few calls of
    # NumPy whatever the number of fields.
    self._first = np.cumsum(self._count) - self._count
    self._size = np.clip(self._count, 1, _KEYS)
    self._offset = np.cumsum(self._size) - self._size
    self._key = np.full(self._size.sum(), -1, np.int64)
    self._outcome = np.zeros(len(self._key), np.int32)
    self._forget()

  def __call__(self, candidate: np.ndarray, job: np.ndarray) -> PairAlignments:
    """Alignments of the pairs (candidate, job), [N] indices each; large N go in `chunks`."""
    keys = self._candidate[candidate] * self._jobs + self._job[job]
    with self._lock:
      outcome = self._look_up(keys, np.arange(len(self.fields)))
      return PairAlignments(self.fields, self._verdict[outcome], self._margin[outcome],
                            self._clause[outcome], self._clauses)

  def over_jobs(self, candidate: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One candidate with all jobs, field by field, each distinct value of the jobs once.

    Yields:
      `PairAlignments.features` [V, 4] of the field's V values, and which of them a job has: [J].
    """
    for f, (_, jobs) in enumerate(self._values):
      keys = self._candidate[candidate, f] * self._jobs[f] + np.arange(len(jobs))
      first, alike = self._alike(f, self._values[f][0][self._candidate[candidate, f]])
      with self._lock:
        outcome = self._look_up(keys[first, None], np.array([f]))[alike]
        found = PairAlignments(self.fields[f:f + 1], self._verdict[outcome],
                               self._margin[outcome], self._clause[outcome], self._clauses)
      yield found.features(), self._job[:, f]

  def _alike(self, field: int, candidate: tuple) -> tuple[np.ndarray | slice, np.ndarray | slice]:
    """Of a field's values of jobs, one of each kind that compare alike, and which kind each is.

    Sets that cover each other are told by their sizes alone: a catalogue has a few dozen of these,
    and thousands of sets.
    """
    jobs = self._job_values[field]
    if type(self.fields[field].comparator) is not SetCoverage or candidate[0] is None:
      return slice(None), slice(None)
    if field not in self._words:
      self._words[field] = _Words([job for job, in jobs])
    kind = self._words[field].kinds(candidate[0])
    _, first, alike = np.unique(kind, return_index=True, return_inverse=True)
    return first, alike

  def all_clauses(self) -> list[tuple[int, str]] | None:
    """`PairAlignments.clauses` of all pairs there are; None where that takes too many keys."""
    if self._count.sum() > _LISTED:
      return None
    listed = []
    for f, count in enumerate(self._count):
      with self._lock:
        outcome = self._look_up(np.arange(count)[:, None], np.array([f]))
        listed += [self._clauses[i] for i in np.unique(self._clause[outcome])]
    return listed

  def _forget(self) -> None:
    self._key.fill(-1)
    self._ids: dict[tuple, int] = {}  # of outcomes, by field, verdict, margin and words
    self._clause_ids: dict[tuple[int, str], int] = {}
    self._clauses: list[tuple[int, str]] = []  # a new one: those handed out keep their meaning
    self._verdict = np.zeros(0, np.int8)
    self._margin = np.zeros(0, np.float32)
    self._clause = np.zeros(0, np.int32)

  def _look_up(self, keys: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Outcomes [N, F'] of keys [N, F'] of fields [F']; what the table lacks is compared."""
    if len(self._ids) > KEPT:
      self._forget()
    slot = self._offset[field] + keys % self._size[field]
    keys = self._first[field] + keys
    outcome = self._outcome[slot]
    missing = self._key[slot] != keys
    if missing.any():
      unseen, place = np.unique(keys[missing], return_inverse=True)
      try:
        new = self._compare(unseen)
      except Exception:  # a value that the comparator cannot read: leave nothing half done
        self._forget()
        raise
      outcome[missing] = new[place]
      # Where keys share a slot the last one stays, in both arrays alike.
      self._key[slot[missing]] = keys[missing]
      self._outcome[slot[missing]] = outcome[missing]
    return outcome

  def _compare(self, keys: np.ndarray) -> np.ndarray:
    """Outcomes [M] of sorted keys [M] of all fields, each by its field's comparator."""
    out, added = np.empty(len(keys), np.int32), []
    ends = np.searchsorted(keys, self._first + self._count)
    for f, (start, end) in enumerate(zip([0, *ends[:-1]], ends)):
      field, (candidates, jobs) = self.fields[f], self._values[f]
      for row, key in enumerate((keys[start:end] - self._first[f]).tolist(), start):
        c, j = divmod(key, len(jobs))
        comparison = field.comparator.compare(candidates[c], jobs[j][0])
        known = f, comparison.verdict, comparison.margin, comparison.words
        i = self._ids.get(known)
        if i is None:
          added.append((_code(field, comparison.verdict), comparison.margin or 0.0,
                        self._clause_id(f, FieldAlignment(field, comparison).in_words())))
          i = self._ids[known] = len(self._ids)
        out[row] = i
    if added:
      self._verdict, self._margin, self._clause = (
          np.append(old, np.array(new, old.dtype))
          for old, new in zip((self._verdict, self._margin, self._clause), zip(*added)))
    return out

  def _clause_id(self, field: int, text: str) -> int:
    i = self._clause_ids.setdefault((field, text), len(self._clauses))
    if i == len(self._clauses):
      self._clauses.append((field, text))
    return i


class _Words:
  """Sets of words, by word.

  Args:
    sets: [V] sets, or None.
  """

  def __init__(self, sets: Sequence[Sequence[str] | None]):
    words = [folded(s) if s is not None else frozenset() for s in sets]
    self._size = np.array([-1 if s is None else len(w) for s, w in zip(sets, words)], np.int64)
    holders: dict[str, list[int]] = {}
    for row, of in enumerate(words):
      for word in of:
        holders.setdefault(word, []).append(row)
    self._holders = {word: np.array(rows) for word, rows in holders.items()}

  def kinds(self, other: Sequence[str]) -> np.ndarray:
    """[V] equal where sets are as large and share as many words with another one."""
    shared = np.zeros(len(self._size), np.int64)
    for word in folded(other) & self._holders.keys():
      shared[self._holders[word]] += 1
    return shared * (self._size.max(initial=0) + 2) + self._size


def _columns(values: list[list[tuple]], count: int) -> tuple[np.ndarray, list[list[tuple]]]:
  """Codes of each field's values [F][count]: [count, F] int64, and what they mean, by field."""
  coded = [_coded(column) for column in values]
  codes = np.stack([c for c, _ in coded], 1) if coded else np.zeros((count, 0), np.int64)
  return codes, [meaning for _, meaning in coded]


def _coded(values: list[tuple]) -> tuple[np.ndarray, list[tuple]]:
  """A code for each value, equal for equal values of equal types: [N] int64, and what they mean."""
  codes: dict[tuple, int] = {}
  meaning = []
  out = np.empty(len(values), np.int64)
  for row, value in enumerate(values):
    typed = value, tuple(map(type, value))  # True and 1 are equal, but a comparator may differ
    code = codes.setdefault(typed, len(meaning))
    if code == len(meaning):
      meaning.append(value)
    out[row] = code
  return out, meaning


def _code(field: AlignedField, verdict: str | None) -> int:
  if verdict not in VERDICT_CODES:
    raise ValueError(f'field {field.name}: verdict must be one of {tuple(VERDICT_CODES)} under any '
                     f'comparator but Semantic, got {verdict!r}')
  return VERDICT_CODES[verdict]
