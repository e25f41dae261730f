"""What lies in the folders of artefacts, written and read back; light enough for recommending."""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from jobrec_jax.data.dataset import Dataset, Interactions, Truth
from jobrec_jax.data.files.records import entity_json, read_entity_lines
from jobrec_jax.data.missing import missing_at_most
from jobrec_jax.data.tables.definition import LogTable, SideTable, read_mapping
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.schema.document import parse_schema, schema_document
from jobrec_jax.schema.explain import missing
from jobrec_jax.schema.files import (
    load_array,
    read_json,
    read_object,
    replacing,
    save_array,
    write_json,
    write_text,
)
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.policy import Alone, Policy, Tilts

PyTree = Any
ALONE = 'alone.json'
USUAL = 0.99  # of the candidates in training: how sparse a record is no surprise


def save_params(path: Path, params: PyTree) -> None:
  """Writes nested dictionaries of arrays as one .safetensors file, names joined by '/'.

  Raises:
    ValueError: a parameter is not finite.
  """
  flat = {name: np.ascontiguousarray(x) for name, x in flatten(params).items()}
  for name, x in flat.items():
    if not np.isfinite(x.astype(np.float32) if x.dtype.kind == 'V' else x).all():
      raise ValueError(f'{path}: parameters must be finite, got {name} with '
                       f'{int((~np.isfinite(x)).sum())} that are not')
  with replacing(path, 'wb') as file:
    file.write(save(flat))


def load_params(path: Path) -> PyTree:
  """What `save_params` wrote, as NumPy arrays.

  Raises:
    ValueError: the file is missing or is no such file.
  """
  try:
    flat = load_file(path)
  except (OSError, SafetensorError) as error:
    raise ValueError(f'{path}: must be a safetensors file, got: {error}') from error
  return unflatten(flat)


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a': {'b': x}} -> {'a/b': x}."""
  flat = {}
  for name, value in tree.items():
    inside = isinstance(value, Mapping)
    flat |= flatten(value, f'{prefix}{name}/') if inside else {prefix + name: value}
  return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *parents, leaf = name.split('/')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = value
  return tree


def save_entities(path: Path, entities: tuple[Entity, ...], schema: Schema, side: str) -> None:
  """Writes JSON lines."""
  write_text(path, ''.join(entity_json(e, schema, side) + '\n' for e in entities))


def load_entities(path: Path, schema: Schema, side: str) -> tuple[Entity, ...]:
  """What `save_entities` wrote; raises a ValueError that names the line."""
  return tuple(entity for _, entity in read_entity_lines(path, schema, side))


def save_dataset(folder: Path, dataset: Dataset, truth: Truth | None) -> None:
  """Writes a data set, and its truth in a folder apart, as arrays that memory can map."""
  save_entities(folder / 'candidates.jsonl', dataset.candidates, dataset.schema, 'candidate')
  save_entities(folder / 'jobs.jsonl', dataset.jobs, dataset.schema, 'job')
  parts = {'interactions': dataset.interactions} | ({} if truth is None else {'truth': truth})
  for name, part in parts.items():
    for field in dataclasses.fields(part):
      save_array(folder / name / f'{field.name}.npy', getattr(part, field.name))
  write_json(folder / 'notes.json', list(dataset.notes))


def load_dataset(folder: Path, schema: Schema) -> tuple[Dataset, Truth | None]:
  """What `save_dataset` wrote; truths stay on disk until they are asked for."""
  log = Interactions(**{f.name: load_array(folder / 'interactions' / f'{f.name}.npy')
                        for f in dataclasses.fields(Interactions)})
  dataset = Dataset(schema, load_entities(folder / 'candidates.jsonl', schema, 'candidate'),
                    load_entities(folder / 'jobs.jsonl', schema, 'job'), log,
                    tuple(read_json(folder / 'notes.json')))
  if not (folder / 'truth').is_dir():
    return dataset, None
  truth = Truth(**{f.name: load_array(folder / 'truth' / f'{f.name}.npy', mapped=True)
                   for f in dataclasses.fields(Truth)})
  return dataset, truth


class Catalogue(NamedTuple):
  """What recommending needs of a run's data.

  Attributes:
    schema: of the data.
    jobs: the run's own.
    sides: how the user's tables of candidates and jobs are written; empty where the data came from
      none.
    log: how the table of interactions is; None alike.
    missing: how many attributes 99% of the candidates in training lack at most, those that training
      took as missing among them.
  """

  schema: Schema
  jobs: tuple[Entity, ...]
  sides: Mapping[str, SideTable]
  log: LogTable | None
  missing: int


def save_catalogue(folder: Path, dataset: Dataset, schema: Schema,
                   mapping: Mapping[str, Any], share: float = 0.0) -> None:
  """Writes what recommending needs of a data set.

  Args:
    folder: of the artefact.
    dataset: its jobs are kept, and what its candidates in training lack.
    schema: of the data, with the title of jobs.
    mapping: of the user's tables, see `tables.definition.Definition`.
    share: of the attributes that training took as missing, see `data.missing`.
  """
  save_entities(folder / 'jobs.jsonl', dataset.jobs, schema, 'job')
  write_json(folder / 'schema.json', schema_document(schema))
  seen = np.unique(dataset.interactions.of('train').candidate)
  lacked = [len(missing(schema, dataset.candidates[u])) for u in seen]
  shown = sum(a.rendered for a in schema.candidate)
  write_json(folder / 'reading.json', {
      'mapping': mapping, 'missing': missing_at_most(lacked, shown, share, USUAL)})


def load_catalogue(folder: Path) -> Catalogue:
  """What `save_catalogue` wrote.

  Raises:
    ValueError: a file is missing or wrong.
  """
  path, about = folder / 'schema.json', folder / 'reading.json'
  schema, reading = parse_schema(read_object(path), str(path)), read_object(about)
  return Catalogue(schema, load_entities(folder / 'jobs.jsonl', schema, 'job'),
                   *read_mapping(reading['mapping'], str(about)), reading['missing'])


def save_calibration(folder: Path, calibration: Calibration, offsets: np.ndarray) -> None:
  """Args: offsets: [jobs] shifts of z."""
  write_json(folder / 'calibration.json', calibration._asdict())
  save_array(folder / 'job_offsets.npy', offsets)


def load_calibration(folder: Path) -> Calibration:
  """Raises ValueError: the file does not hold a finite b and a finite t above 0."""
  path = folder / 'calibration.json'
  value = read_json(path)
  numbers = isinstance(value, dict) and set(value) == {'b', 't'} and all(
      isinstance(x, int | float) and not isinstance(x, bool) and np.isfinite(x)
      for x in value.values())
  if not numbers or not value['t'] > 0:
    raise ValueError(f'{path}: must hold a finite b and a finite t above 0, got {value}')
  return Calibration(float(value['b']), float(value['t']))


def save_alone(folder: Path, alone: Alone) -> None:
  """Writes why there is nothing of a policy in an artefact."""
  write_json(folder / ALONE, dataclasses.asdict(alone))


def load_alone(folder: Path) -> Alone | None:
  """What `save_alone` wrote; None where it wrote nothing."""
  path = folder / ALONE
  return Alone(**read_object(path)) if path.is_file() else None


def load_policy(folder: Path) -> tuple[Policy | Alone, tuple[float, float] | None]:
  """The policy of an artefact and the range of C that it was found to be able to reach.

  Where one expert was trained alone, what says so, and None.

  Raises:
    ValueError: a file is missing or does not hold what it should.
  """
  if alone := load_alone(folder):
    return alone, None
  path = folder / 'policy.json'
  about = read_json(path)
  try:
    knots = np.asarray(about['knots'], np.float32)
    head = PolicyHead(widths=(about['width'],), bound=about['bound'], outputs=len(knots),
                      kind=about['head'])
    policy = Policy(head, load_params(folder / 'params.safetensors'), knots,
                    about['temperature'], about['constraint'],
                    Tilts(*map(np.asarray, about['tilts'])), about['top_k'], about['worth'])
    low, high = map(float, about['attainable'])
  except (KeyError, TypeError) as error:
    raise ValueError(f'{path}: must describe a policy, got {about!r:.80}') from error
  return policy, (low, high)


def load_list_length(folder: Path) -> int:
  """How many jobs a list of stage 2 holds, over which the policy's tau binds; 0 without a policy.

  Raises:
    ValueError: as `load_policy`.
  """
  if load_alone(folder):
    return 0
  path = folder / 'policy.json'
  length = read_object(path).get('list_length')
  if not isinstance(length, int) or length < 1:
    raise ValueError(f'{path}: list_length must be an integer of at least 1, got {length!r}')
  return length
