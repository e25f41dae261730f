"""Our own records in a folder of JSON lines, quick to write in pieces and safe to interrupt.

| file | a line, or all of it |
|---|---|
| candidates.jsonl, jobs.jsonl | `{"id": "S0001", "gpa": 3.2, "skills": ["ROS"], ...}`; a missing value is absent |
| interactions.jsonl | `{"candidate": "S0001", "job": "J0001", "split": "train", "preference": 1, "qualification": null, "exposure": 0.7}` |
| dataset.json | format, schema and its fingerprint, how many lines each file has, notes |

dataset.json is written last: a folder without it is no data set, and its counts find a cut file.
"""  # noqa: E501

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import itertools
import json
import os
from pathlib import Path
import re
from typing import Any

import numpy as np

from jobrec_jax.data.dataset import SPLITS, UNOBSERVED, Dataset, Interactions
from jobrec_jax.data.files.records import entity_json, read_entity_lines
from jobrec_jax.data.files.tables import InteractionRows, read_lines
from jobrec_jax.schema.files import decode_json, read_object, replacing
from jobrec_jax.schema.schema import Entity, Schema

FORMAT = 1
HEAD = 'dataset.json'
PARTS = ('candidates', 'jobs', 'interactions')
KEYS = ('candidate', 'job', 'preference', 'qualification', 'split', 'exposure')
BLOCK = 10_000  # rows rendered at a time

# A line as the writer makes it: reading it so takes half the time that JSON takes.
_LINE = re.compile(r'\{"candidate": "([^"\\\x00-\x1f]*)", "job": "([^"\\\x00-\x1f]*)", '
                   r'"split": "([a-z]*)", "preference": ([01]|null), '
                   r'"qualification": ([01]|null), "exposure": ((?:0|1)\.[0-9]+)\}')
_LABELS = {'0': 0, '1': 1, 'null': UNOBSERVED}
_LABEL_TEXTS = np.array(['0', '1', 'null'], object)  # the last at UNOBSERVED = -1
_SPLIT_TEXTS = np.array(SPLITS, object)
_HEAD_KEYS = ('format', 'schema', 'fingerprint', *PARTS, 'notes')
_SPLITS = {name: i for i, name in enumerate(SPLITS)}


def render_entities(schema: Schema, side: str, entities: Iterable[Entity]) -> bytes:
  """The lines of candidates.jsonl or jobs.jsonl for `entities`; pure, so that workers can call it.

  Raises:
    ValueError: a number is not finite, or a string not Unicode.
  """
  return ''.join(entity_json(e, schema, side) + '\n' for e in entities).encode()


def render_interactions(log: Interactions, candidate_ids: Sequence[str] | Mapping[int, str],
                        job_ids: Sequence[str] | Mapping[int, str]) -> bytes:
  """The lines of interactions.jsonl for `log`; pure, so that workers can call it.

  Args:
    log: the rows.
    candidate_ids, job_ids: the id of each index that the rows hold.
  """
  def name(ids):
    return lambda index: json.dumps(ids[index], ensure_ascii=False)
  columns = (
      _texts(log.candidate, name(candidate_ids)), _texts(log.job, name(job_ids)),
      _SPLIT_TEXTS[log.split].tolist(), _LABEL_TEXTS[log.preference].tolist(),
      _LABEL_TEXTS[log.qualification].tolist(),
      _texts(log.exposure, lambda e: str(np.float32(e))))
  return ''.join([f'{{"candidate": {candidate}, "job": {job}, "split": "{split}", "preference": '
                  f'{preference}, "qualification": {qualification}, "exposure": {exposure}}}\n'
                  for candidate, job, split, preference, qualification, exposure in zip(*columns)]
                 ).encode()


def _texts(values: np.ndarray, render: Callable[[Any], str]) -> list[str]:
  """The text of each value; each distinct one is rendered once."""
  distinct, at = np.unique(values, return_inverse=True)
  return np.array([render(v) for v in distinct.tolist()], object)[at].tolist()


class JsonlWriter:
  """Writes a folder piece by piece; only leaving `with` without an error puts it in place.

  Lines go to temporary files beside the old ones, which stay as they are until the end. Then the
  old dataset.json goes first and the new one comes last: at no moment does a folder with a
  dataset.json hold half of anything.

  Args:
    folder: made if absent.
    schema: of the entities.
    notes: of the data set.
  """

  def __init__(self, folder: str | Path, schema: Schema, notes: Iterable[str] = ()):
    self.folder, self.schema, self.notes = Path(folder), schema, tuple(notes)
    self.counts = dict.fromkeys(PARTS, 0)

  def __enter__(self) -> 'JsonlWriter':
    names = {HEAD: HEAD} | {part: f'{part}.jsonl' for part in PARTS}
    with contextlib.ExitStack() as stack:  # left from its last entry to its first
      self._files = {key: stack.enter_context(replacing(self.folder / name, 'wb'))
                     for key, name in names.items()}
      stack.push(self._finish)
      self._stack = stack.pop_all()
    return self

  def append(self, part: str, data: bytes, count: int) -> None:
    """Appends `count` rendered lines to one of `PARTS`."""
    self._files[part].write(data)
    self.counts[part] += count

  def write_entities(self, side: str, entities: Iterable[Entity]) -> None:
    """Appends candidates or jobs, a block at a time."""
    entities = iter(entities)
    while block := list(itertools.islice(entities, BLOCK)):
      self.append(f'{side}s', render_entities(self.schema, side, block), len(block))

  def write_interactions(self, log: Interactions, candidate_ids: Sequence[str] | Mapping[int, str],
                         job_ids: Sequence[str] | Mapping[int, str]) -> None:
    """Appends the rows of `log`, a block at a time; the arguments of `render_interactions`."""
    for start in range(0, len(log), BLOCK):
      block = log.where(np.s_[start:start + BLOCK])
      self.append('interactions', render_interactions(block, candidate_ids, job_ids), len(block))

  def __exit__(self, kind, error, trace) -> None:
    self._stack.__exit__(kind, error, trace)

  def _finish(self, kind, *_) -> None:
    if kind is not None:
      return
    head = {'format': FORMAT, 'schema': self.schema.name, 'fingerprint': self.schema.fingerprint(),
            **self.counts, 'notes': self.notes}
    self._files[HEAD].write((json.dumps(head, indent=1, ensure_ascii=False) + '\n').encode())
    for file in self._files.values():  # a full disk is met while the old data set is whole
      file.flush()
      os.fsync(file.fileno())
    (self.folder / HEAD).unlink(missing_ok=True)


def write_jsonl(dataset: Dataset, folder: str | Path) -> None:
  """Writes `dataset` so that `read_jsonl` gives it back.

  Raises:
    ValueError: a number is not finite, or a string not Unicode.
  """
  with JsonlWriter(folder, dataset.schema, dataset.notes) as writer:
    writer.write_entities('candidate', dataset.candidates)
    writer.write_entities('job', dataset.jobs)
    writer.write_interactions(dataset.interactions, [e.id for e in dataset.candidates],
                              [e.id for e in dataset.jobs])


def _read_head(path: Path, schema: Schema) -> dict[str, Any]:
  head = read_object(path)
  if sorted(head) != sorted(_HEAD_KEYS):
    raise ValueError(f'{path}: keys must be {_HEAD_KEYS}, got {sorted(head)}')
  if type(head['format']) is not int or head['format'] != FORMAT:
    raise ValueError(f'{path}: format must be {FORMAT}, got {str(head["format"])[:80]}')
  if (head['schema'], head['fingerprint']) != (schema.name, schema.fingerprint()):
    raise ValueError(f'{path}: schema must be {schema.name} with fingerprint '
                     f'{schema.fingerprint()}, got {head["schema"]} with {head["fingerprint"]}')
  for part in PARTS:
    if type(head[part]) is not int or head[part] < 0:
      raise ValueError(f'{path}: {part} must be a count, got {str(head[part])[:80]}')
  if not isinstance(head['notes'], list) or not all(isinstance(n, str) for n in head['notes']):
    raise ValueError(f'{path}: notes must be an array of strings')
  return head


def _check_count(path: Path, count: int, head: dict[str, Any]) -> None:
  if count != head[path.stem]:
    raise ValueError(f'{path}: must have {head[path.stem]} lines as {HEAD} says, got {count}')


def _read_entities(path: Path, schema: Schema, side: str,
                   head: dict[str, Any]) -> tuple[Entity, ...]:
  entities = tuple(entity for _, entity in read_entity_lines(path, schema, side))
  _check_count(path, len(entities), head)
  return entities


def _label(value: Any) -> int | None:
  """The label that a JSON value means, None where it means none."""
  if value is None:
    return UNOBSERVED
  return value if type(value) is int and 0 <= value <= 1 else None


def _parse_row(text: str, candidates: Mapping[str, int], jobs: Mapping[str, int]) -> tuple:
  """(candidate, job, preference, qualification, split, exposure) of a line, as numbers."""
  if match := _LINE.fullmatch(text):
    candidate, job, split, preference, qualification, exposure = match.groups()
    row = (candidates.get(candidate), jobs.get(job), _LABELS[preference], _LABELS[qualification],
           _SPLITS.get(split), float(exposure))
    if None not in row and 0 < row[5] <= 1:
      return row
  try:
    value = decode_json(text)
  except ValueError as error:
    raise ValueError(f'must be JSON, got: {error}') from error
  if not isinstance(value, dict) or sorted(value) != sorted(KEYS):
    raise ValueError(f'must be an object with the keys {", ".join(KEYS)}; got '
                     f'{sorted(value) if isinstance(value, dict) else type(value).__name__}')
  rules = {
      'candidate': (candidates.get, f'one of {len(candidates)} known ids'),
      'job': (jobs.get, f'one of {len(jobs)} known ids'),
      'preference': (_label, '0, 1 or null'),
      'qualification': (_label, '0, 1 or null'),
      'split': (_SPLITS.get, f'one of {SPLITS}'),
      'exposure': (lambda v: v if type(v) in (int, float) and 0 < v <= 1 else None,
                   'a number in (0, 1]')}
  row = []
  for key, (parse, allowed) in rules.items():
    came = value[key]
    plain = came is None or isinstance(came, str | int | float)  # else it cannot be a dict's key
    row.append(parse(came) if plain else None)
    if row[-1] is None:
      raise ValueError(f'{key} must be {allowed}, '
                       f'got {repr(came)[:80] if plain else type(came).__name__}')
  return tuple(row)


def _read_interactions(path: Path, candidates: tuple[Entity, ...], jobs: tuple[Entity, ...],
                       head: dict[str, Any]) -> Interactions:
  known = [{e.id: i for i, e in enumerate(entities)} for entities in (candidates, jobs)]
  rows = InteractionRows()
  line = 0
  for line, text in read_lines(path):
    try:
      rows.append(_parse_row(text, *known))
    except ValueError as error:
      raise ValueError(f'{path}:{line}: {error}') from error
  log = rows.finish(path, 1)
  _check_count(path, line, head)
  return log


def read_jsonl(folder: str | Path, schema: Schema) -> Dataset:
  """Reads a folder that `JsonlWriter` wrote.

  Args:
    folder: see the module's table.
    schema: what the records must be of.

  Raises:
    ValueError: with file:line and key, what was allowed and what came; dataset.json is of another
      schema, or a file has more or fewer lines than it says.
  """
  folder = Path(folder)
  head = _read_head(folder / HEAD, schema)
  candidates, jobs = (_read_entities(folder / f'{side}s.jsonl', schema, side, head)
                      for side in ('candidate', 'job'))
  log = _read_interactions(folder / 'interactions.jsonl', candidates, jobs, head)
  return Dataset(schema, candidates, jobs, log, tuple(head['notes']))
