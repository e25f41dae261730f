"""jobrec_synth as the library's own objects, and as a Grain source of impressions."""

import dataclasses
from pathlib import Path
import sys

import numpy as np
import tensorflow_datasets as tfds

from jobrec_jax.data.dataset import SPLITS, Dataset, Interactions, Truth
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.data.market.domain import load_domain
from jobrec_jax.data.market.jobrec_synth.jobrec_synth_dataset_builder import Builder, config_name
from jobrec_jax.data.market.jobrec_synth.worlds import (
    LISTS,
    LOGS,
    NEWEST,
    VERSIONS,
    WORLDS,
)
from jobrec_jax.schema.schema import Entity, Value

_SPLIT_OF = {name: SPLITS.index(name.split('_')[0]) for name in LOGS}


class _FirstBuilder(Builder, skip_registration=True):
  """Builds version 1.1.0: tensorflow-datasets lets a builder build its newest version alone."""

  name = Builder.name
  VERSION = tfds.core.Version(VERSIONS['1'])


def prepare(folder: str | Path, size: str, table: str, version: str = NEWEST) -> Builder:
  """The builder of a table, which it writes below `folder` where it is not there yet.

  Args:
    folder: where tensorflow-datasets keeps its data.
    size: a key of `WORLDS`.
    table: a key of `TABLES`.
    version: of the market, a key of `VERSIONS`.

  Raises:
    ValueError: there is no such size, or version.
  """
  if size not in WORLDS:
    raise ValueError(f'data.size must be one of {tuple(WORLDS)}, got {size!r}')
  if version not in VERSIONS:
    raise ValueError(f'market.version must be one of {tuple(VERSIONS)}, got {version!r}')
  builder = (Builder if version == NEWEST else _FirstBuilder)(
      config=config_name(size, table), data_dir=str(folder), file_format='array_record')
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  builder.download_and_prepare()
  return builder


def source(folder: str | Path, size: str, table: str, split: str, version: str = NEWEST):
  """A random-access source that `grain.MapDataset.source` takes as it is."""
  return prepare(folder, size, table, version).as_data_source(split)


def read_synth(folder: str | Path, size: str, version: str = NEWEST) -> Dataset:
  """The whole data set of a size: records and log, without truths.

  Args:
    folder, size, version: as in `prepare`.
  """
  schema = load_domain(WORLDS[size].market.domain).schema if size in WORLDS else None
  logs = {name: source(folder, size, 'log', name, version) for name in LOGS}
  parts = [_rows(logs[name], ('job', 'preference', 'qualification', 'exposure'),
                 split=_SPLIT_OF[name]) for name in LOGS]
  columns = {f.name: np.concatenate([p[f.name] for p in parts])
             for f in dataclasses.fields(Interactions)}
  order = np.lexsort((columns['job'], columns['candidate']))
  log = Interactions(**{k: v[order] for k, v in columns.items()})
  entities = {side: tuple(_entity(schema, side, row)
                          for row in source(folder, size, f'{side}s', 'full', version))
              for side in ('candidate', 'job')}
  return Dataset(schema, entities['candidate'], entities['job'], log)


def _rows(examples, names: tuple[str, ...], **more) -> dict[str, np.ndarray]:
  """Flat columns of all examples' arrays, with the candidate of each row."""
  examples = list(examples)
  sizes = [len(e['job']) for e in examples]
  out = {name: np.concatenate([e[name] for e in examples]) for name in names}
  out['candidate'] = np.repeat(np.array([e['candidate'] for e in examples], np.int32), sizes)
  return out | {name: np.full(sum(sizes), value, np.int8) for name, value in more.items()}


def _entity(schema, side: str, row: dict) -> Entity:
  blank = {name.decode() for name in row['missing']}
  values = {a.name: None if a.name in blank else _value(a.kind, row[a.name])
            for a in schema.attributes(side)}
  return Entity(row['id'].decode(), values)


def _value(kind: str, stored) -> Value:
  match kind:
    case 'number':
      return float(str(np.float32(stored)))  # the shortest decimal: 2.7, as it was drawn
    case 'integer':
      return int(stored)
    case 'boolean':
      return bool(stored)
    case 'set':
      return tuple(member.decode() for member in stored)
  return stored.decode()


def read_synth_truth(folder: str | Path, size: str, version: str = NEWEST) -> Truth | None:
  """The truth of every pair, or None where only that of exposed pairs is stored."""
  examples = source(folder, size, 'truth', 'full', version)  # names a size that is none
  if not WORLDS[size].whole_truth:
    return None
  examples = list(examples)
  return Truth(*(np.stack([e[f.name] for e in examples]) for f in dataclasses.fields(Truth)))


def read_synth_lists(folder: str | Path, size: str,
                     version: str = NEWEST) -> dict[str, RankingLists]:
  """The frozen evaluation lists by name, e.g. 'preference_cold_jobs'.

  Raises:
    ValueError: lists are not those that were drawn when the data set was built.
  """
  builder = prepare(folder, size, 'lists', version)
  out = {}
  for name in LISTS:
    examples = list(builder.as_data_source(name))
    lists = RankingLists(name.split('_')[0], *(np.stack([e[k] for e in examples])
                                               for k in ('candidate', 'job', 'relevance', 'mask')))
    drawn = builder.info.metadata[name]
    if lists.fingerprint() != drawn:
      raise ValueError(f'{builder.data_path}: lists {name} must have the fingerprint {drawn} with '
                       f'which they were drawn, got {lists.fingerprint()}')
    out[name] = lists
  return out
