"""People as experts: what they are shown, how their verdicts come back, and who changed what.

Each reviewer gets a page (one HTML file that works offline) and the same as a CSV sheet with an
empty `verdict` column. Both lead to a file of verdicts, whole or partial, for `read_verdicts`.
Neither shows the machine's label or how doubtful it is: that would anchor the reviewer.
"""

import base64
from collections.abc import Iterable, Sequence
import csv
import dataclasses
import functools
import hashlib
from importlib import resources
import io
import json
from pathlib import Path
import re

import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.refine.aggregation import NONE
from jobrec_jax.schema.align import FieldAlignment, align
from jobrec_jax.schema.files import read_text, replacing
from jobrec_jax.schema.schema import PERSPECTIVES, Attribute, Entity, Value

UNSURE = -2
VERDICTS = {'yes': 1, 'no': 0, 'unsure': UNSURE, '': NONE}
QUESTIONS = {'preference': 'Would the candidate want this job?',
             'qualification': 'Would the employer find the candidate eligible?'}
KEYS = ('review', 'reviewer', 'pair', 'candidate', 'job', 'perspective')
REQUIRED = ('review', 'reviewer', 'pair', 'verdict')
_NAME = re.compile(r'\w[\w-]*')


@dataclasses.dataclass(frozen=True)
class Review:
  """Pairs to be judged, in the order in which they are shown, and who judges which.

  Attributes:
    dataset: the records.
    perspective: [N] int index into `PERSPECTIVES`, which question is asked.
    candidate, job: [N] int indices.
    dealt: [N, E] bool, which pairs each reviewer is given.
    names: E reviewers; letters, digits, _ and - alone, as files are named after them.

  Raises:
    ValueError: a name is not of that kind, or used twice.
  """

  dataset: Dataset
  perspective: np.ndarray
  candidate: np.ndarray
  job: np.ndarray
  dealt: np.ndarray
  names: tuple[str, ...]

  def __post_init__(self):
    check_names(self.names)

  def __len__(self) -> int:
    return len(self.candidate)

  @functools.cached_property
  def pairs(self) -> tuple[str, ...]:
    """The name of each pair; its number in the order says nothing of its label."""
    return tuple(f'p{i + 1:05d}' for i in range(len(self)))

  @functools.cached_property
  def fingerprint(self) -> str:
    """A hash of all that reviewers are shown and who is asked: files of another review are told."""
    h = hashlib.sha256(json.dumps([self.names, self.dealt.astype(int).tolist()]).encode())
    h.update(json.dumps(self.content(range(len(self))), sort_keys=True).encode())
    return h.hexdigest()[:12]

  def content(self, rows: Iterable[int]) -> dict:
    """What a page shows of these pairs: each record once, each field's verdict for each pair."""
    schema, rows = self.dataset.schema, list(rows)
    layers = [{'name': l.name, 'hard': l.hard,
               'fields': [{'name': f.name, 'candidate': f.candidate, 'job': [f.job]}
                          for f in l.fields]} for l in schema.layers]
    rest = {side: [a.name for a in schema.attributes(side) if a.rendered and not any(
        a.name in f.attributes(side) for f in schema.fields)] for side in ('candidate', 'job')}
    if rest['candidate'] or rest['job']:
      layers.append({'name': 'other', 'hard': False, 'fields': [{'name': 'other', **rest}]})
    shown = {side: [a for a in schema.attributes(side) if any(
        a.name in f[side] for l in layers for f in l['fields'])] for side in rest}
    records = {}
    for side, entities, used in (('candidate', self.dataset.candidates, self.candidate),
                                 ('job', self.dataset.jobs, self.job)):
      records[side] = {str(i): {'id': entities[i].id, **in_words(entities[i], shown[side])}
                       for i in sorted({int(used[r]) for r in rows})}
    return {
        'questions': QUESTIONS, 'layers': layers, 'records': records,
        'labels': {side: {a.name: a.label for a in shown[side]} for side in shown},
        'pairs': [{'pair': self.pairs[r], 'perspective': PERSPECTIVES[self.perspective[r]],
                   'candidate': int(self.candidate[r]), 'job': int(self.job[r]),
                   'verdicts': self._comparisons(r)} for r in rows]}

  def _comparisons(self, row: int) -> list[list[list[str]]]:
    """(verdict, words) of each field by layer; empty strings for free text."""
    aligned = align(self.dataset.schema, self.dataset.candidates[self.candidate[row]],
                    self.dataset.jobs[self.job[row]])
    return [[[f.verdict or '', margin_in_words(f)] for f in layer.fields]
            for layer in aligned.layers]


def check_names(names: Sequence[str]) -> None:
  """Raises a ValueError unless all are different and made of letters, digits, _ and -."""
  good = all(_NAME.fullmatch(name) for name in names)
  if not good or len({name.lower() for name in names}) != len(names):
    raise ValueError('reviewers must have different names of letters, digits, _ and -, '
                     f'got {tuple(names)}')


def margin_in_words(field: FieldAlignment) -> str:
  """E.g. '6 of 10', '0.4 below', '1 level above', 'exactly'; '' where there is no distance."""
  c = field.comparison
  if c.words or c.verdict is None or c.margin is None:
    return c.words
  if c.margin == 0:
    return 'exactly'
  unit = getattr(field.field.comparator, 'unit', '')
  unit = f' {unit.removesuffix("s") if abs(c.margin) == 1 else unit}' if unit else ''
  return f'{abs(c.margin):g}{unit} {"above" if c.margin > 0 else "below"}'


def in_words(entity: Entity, attributes: Sequence[Attribute]) -> dict[str, str]:
  """The attributes in words; those that are missing are left out."""
  return {a.name: _value(entity[a.name]) for a in attributes if entity[a.name] is not None}


def _value(value: Value) -> str:
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, float):
    return f'{value:g}'
  return (', '.join(value) or 'none') if isinstance(value, tuple) else str(value)


def page(review: Review, name: str) -> str:
  """The reviewer's page. Records travel as JSON and are shown as text alone, never as markup.

  Its content security policy lets nothing be fetched or sent, and nothing run but its own script.
  """
  rows = np.flatnonzero(review.dealt[:, review.names.index(name)])
  content = review.content(rows) | {'review': review.fingerprint, 'reviewer': name}
  page = resources.files('jobrec_jax.refine').joinpath('review.html')
  template = page.read_text(encoding='utf-8')
  (script,) = re.findall(r'<script>(.*?)</script>', template, flags=re.S)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')
  before, after = template.replace('SCRIPT_HASH', digest).split('REVIEW_CONTENT')
  # Within a script element a < could end it; elsewhere in JSON it cannot stand.
  return before + json.dumps(content).replace('<', '\\u003c') + after


def sheet(review: Review, name: str) -> str:
  """The same as a CSV table for a spreadsheet: a column for each layer, and an empty `verdict`."""
  content = review.content(np.flatnonzero(review.dealt[:, review.names.index(name)]))
  layers = content['layers']
  out = io.StringIO(newline='')
  writer = csv.writer(out)
  writer.writerow((*KEYS, 'question', *(l['name'] for l in layers), 'verdict'))
  for pair in content['pairs']:
    sides = {side: content['records'][side][str(pair[side])] for side in ('candidate', 'job')}
    verdicts = [*pair['verdicts'], [['', '']]]  # of the layer of all other attributes
    cells = ['; '.join(_field_in_words(field, sides, content['labels'], *verdict)
                       for field, verdict in zip(layer['fields'], row))
             for layer, row in zip(layers, verdicts)]
    writer.writerow((review.fingerprint, name, pair['pair'], _no_formula(sides['candidate']['id']),
                     _no_formula(sides['job']['id']), pair['perspective'],
                     QUESTIONS[pair['perspective']], *cells, ''))
  return out.getvalue()


def _field_in_words(field: dict, sides: dict, labels: dict, verdict: str, margin: str) -> str:
  values = ' <> '.join(', '.join(
      f'{labels[side][name]} {sides[side].get(name, "not given")}' for name in field[side])
                     for side in ('candidate', 'job'))
  how = f' [{verdict}{", " * bool(margin)}{margin}]' if verdict else ''
  return f'{field["name"]}{how}: {values}'


def _no_formula(text: str) -> str:
  """A spreadsheet takes a cell that begins with one of these for a formula."""
  return f"'{text}" if text.startswith(('=', '+', '-', '@')) else text


def write_review(review: Review, folder: str | Path) -> list[Path]:
  """Writes review_NAME.html and review_NAME.csv for each reviewer.

  A file that is there stays as it is: somebody may have written verdicts into it.

  Returns:
    The files written now.
  """
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  written = []
  for name in review.names:
    for suffix, render in (('html', page), ('csv', sheet)):
      path = folder / f'review_{name}.{suffix}'
      if not path.exists():
        with replacing(path) as file:
          file.write(render(review, name))
        written.append(path)
  return written


def read_verdicts(review: Review, paths: Iterable[str | Path]) -> np.ndarray:
  """Reads reviewers' files back, whole or partial, several of one reviewer or none.

  Columns: `REQUIRED`, any others are not read. An empty verdict is one not given yet.

  Args:
    review: what was asked.
    paths: CSV files.

  Returns:
    [N, E] int8: 1 yes, 0 no, -1 none yet, -2 (`UNSURE`) looked at without an answer.

  Raises:
    ValueError: with file:line, for a row of another review, an unknown reviewer, a pair that the
      reviewer was not given, another verdict than yes, no or unsure, or two different verdicts of
      one reviewer on a pair.
  """
  answers = np.full(review.dealt.shape, NONE, np.int8)
  places: dict[tuple[int, int], str] = {}
  numbers = {pair: i for i, pair in enumerate(review.pairs)}
  for path in paths:
    for place, row in _rows(path):
      _check(place, 'review', row['review'], (review.fingerprint,), 'a file of another review')
      _check(place, 'reviewer', row['reviewer'], review.names)
      e = review.names.index(row['reviewer'])
      if row['pair'] not in numbers or not review.dealt[numbers[row['pair']], e]:
        raise ValueError(f'{place}: pair must be one of the {review.dealt[:, e].sum()} that '
                         f'{row["reviewer"]} was given, got {row["pair"]!r}')
      verdict = row['verdict'].strip().lower()
      _check(place, 'verdict', verdict, tuple(VERDICTS))
      if not verdict:
        continue
      at, value = (numbers[row['pair']], e), VERDICTS[verdict]
      if answers[at] not in (NONE, value):
        raise ValueError(f'{place}: verdict of {row["reviewer"]} on {row["pair"]} must be the one '
                         f'of {places[at]}, got {verdict!r}; remove the older')
      answers[at] = value
      places.setdefault(at, place)
  return answers


def _check(place: str, key: str, value: str, allowed: Sequence[str], why: str = '') -> None:
  if value not in allowed:
    words = ', '.join(a or 'empty' for a in allowed)
    raise ValueError(f'{place}: {key} must be {"one of " * (len(allowed) > 1)}{words}, '
                     f'got {value[:80]!r}{f" ({why})" if why else ""}')


def _rows(path: str | Path) -> Iterable[tuple[str, dict[str, str]]]:
  """(file:line, cells by column) of each row; the line is the one on which the row starts."""
  reader = csv.reader(io.StringIO(read_text(path), newline=''), strict=True)
  columns, line = None, 1
  try:
    for cells in reader:
      place, line = f'{path}:{line}', reader.line_num + 1
      if columns is None:
        columns = cells
        missing = [c for c in REQUIRED if c not in columns]
        if missing or len(set(columns)) != len(columns):
          raise ValueError(f'{place}: columns must be {list(REQUIRED)} (others are not read), each '
                           f'once; missing {missing}, got {columns}')
      elif cells:
        if len(cells) != len(columns):
          raise ValueError(f'{place}: must have {len(columns)} fields, got {len(cells)}')
        yield place, dict(zip(columns, cells))
  except csv.Error as error:
    raise ValueError(f'{path}:{line}: must be well quoted CSV, got: {error}') from error
  if columns is None:
    raise ValueError(f'{path}:1: must start with a header of {list(REQUIRED)}, got an empty file')


def provenance(review: Review, verdicts: np.ndarray, machine: np.ndarray, before: np.ndarray,
               after: np.ndarray, label: np.ndarray) -> list[dict]:
  """Where the label of each reviewed pair comes from.

  Args:
    review: what was asked, N pairs.
    verdicts: [N, E], see `read_verdicts`.
    machine, label: [N] bool, before and after the review.
    before, after: [N] P(true label 1), likewise.

  Returns:
    A row for each pair; a changed one names the experts who asked for it (`changed_by`).
  """
  words = {value: word for word, value in VERDICTS.items()}
  rows = []
  for i, pair in enumerate(review.pairs):
    answers = {name: words[int(v)] for name, v in zip(review.names, verdicts[i]) if v != NONE}
    changed = bool(label[i] != machine[i])
    rows.append({
        'pair': pair, 'candidate': review.dataset.candidates[review.candidate[i]].id,
        'job': review.dataset.jobs[review.job[i]].id,
        'perspective': PERSPECTIVES[review.perspective[i]], 'machine': int(machine[i]),
        'prior': round(float(before[i]), 6), 'verdicts': answers,
        'posterior': round(float(after[i]), 6), 'label': int(label[i]), 'changed': changed,
        'changed_by': [n for n, v in answers.items() if changed and VERDICTS[v] == int(label[i])]})
  return rows
