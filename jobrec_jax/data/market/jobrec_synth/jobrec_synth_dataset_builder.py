"""jobrec_synth for tensorflow-datasets: a labour market whose truth is known. See README.md here.

A size is five configs: `tiny` (the log), `tiny-candidates`, `tiny-jobs`, `tiny-lists` (evaluation)
and `tiny-truth`, which no loader of features can meet.
"""

from collections.abc import Iterable, Iterator
import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jobrec_jax.data.dataset import Interactions
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.data.market.domain import load_domain
from jobrec_jax.data.market.jobrec_synth.worlds import (
  LISTS,
  LOGS,
  NEWEST,
  VERSIONS,
  WORLDS,
  World,
  evaluation_lists,
  log_of,
  market_of,
)
from jobrec_jax.data.market.simulator import Market, concatenate, walk
from jobrec_jax.schema.schema import Attribute, Entity

TABLES = {
    'log': 'who was shown what, and what came of it',
    'candidates': 'records of candidates',
    'jobs': 'records of jobs',
    'lists': 'frozen evaluation lists',
    'truth': 'ground truth: for evaluation alone',
}
F = tfds.features


@dataclasses.dataclass
class SynthConfig(tfds.core.BuilderConfig):
  """One table of one world."""

  size: str = ''
  table: str = ''

  @property
  def world(self) -> World:
    return WORLDS[self.size]


def config_name(size: str, table: str) -> str:
  return size if table == 'log' else f'{size}-{table}'


class Builder(tfds.core.GeneratorBasedBuilder):
  """Builds any table of any size; example i of a table of entities is the entity of index i."""

  VERSION = tfds.core.Version(VERSIONS[NEWEST])
  RELEASE_NOTES: ClassVar[dict[str, str]] = {
      '1.0.0': 'First release.', '1.1.0': 'Members of sets in alphabetical order.',
      '2.0.0': 'Half of the statements and of the projects need their order to be read; two fifths '
               "of the variance of logit Q are the pair's."}
  BUILDER_CONFIGS: ClassVar[list[SynthConfig]] = [
      SynthConfig(name=config_name(size, table), description=f'{world.about}; {about}.',
                  size=size, table=table)
      for size, world in WORLDS.items() for table, about in TABLES.items()]

  def _info(self) -> tfds.core.DatasetInfo:
    return self.dataset_info_from_configs(
        features=F.FeaturesDict(features_of(self.builder_config)), disable_shuffling=True,
        metadata=tfds.core.MetadataDict())

  def _split_generators(self, dl_manager) -> dict[str, Iterator[tuple[int, dict]]]:
    del dl_manager  # nothing is downloaded
    config = self.builder_config
    version = next(k for k, v in VERSIONS.items() if v == str(self.version))
    market = market_of(config.size, version)
    if config.table == 'candidates':
      records = (e for block in range(market.blocks)
                 for e in market.candidates(market.columns(block)))
      return {'full': self._generate_examples(_entities(market, 'candidate', records))}
    if config.table == 'jobs':
      return {'full': self._generate_examples(_entities(market, 'job', market.jobs))}
    if config.table == 'truth':
      return {'full': self._generate_examples(_truths(market, config.world))}
    log = concatenate([log for _, log in walk(market)])
    if config.table == 'log':
      return {name: self._generate_examples(_impressions(log_of(log, name))) for name in LOGS}
    lists = {name: evaluation_lists(market, config.world, log, name) for name in LISTS}
    # Kept beside the data, so that a reader finds lists that are not those that were drawn.
    self.info.metadata.update({name: drawn.fingerprint() for name, drawn in lists.items()})
    return {name: self._generate_examples(_lists(drawn)) for name, drawn in lists.items()}

  def _generate_examples(self, examples: Iterator[dict]) -> Iterator[tuple[int, dict]]:
    yield from enumerate(examples)


def features_of(config: SynthConfig) -> dict[str, Any]:
  """The features of a table, each with its documentation."""
  schema = load_domain(config.world.market.domain).schema
  def array(dtype, doc: str) -> tfds.features.FeatureConnector:
    return F.Tensor(shape=(None,), dtype=dtype, doc=doc)
  indices = {'candidate': array(np.int32, 'Index of the candidate of each pair.'),
             'job': array(np.int32, 'Index of the job of each pair.')}
  match config.table:
    case 'candidates' | 'jobs':
      attributes = schema.attributes(config.table.removesuffix('s'))
      return {'id': F.Text(doc='Name of the record; no model reads it.'),
              **{a.name: _feature(a) for a in attributes},
              'missing': F.Sequence(F.Text(), doc='Attributes that are blank; they hold 0 or "".')}
    case 'log':
      return {'candidate': F.Scalar(np.int32, doc='Index of the candidate.'),
              'job': array(np.int32, 'Indices of the jobs shown.'),
              'preference': array(np.int8, '1 applied, 0 shown and not applied to.'),
              'qualification': array(np.int8, '1 accepted, 0 rejected, -1 unobserved.'),
              'exposure': array(np.float32, 'Probability that the logging policy shows the job.')}
    case 'lists':
      return indices | {'relevance': array(np.bool_, 'The one positive (latent outcome).'),
                        'mask': array(np.bool_, 'False where a short list is padded.')}
  return {'candidate': F.Scalar(np.int32, doc='Index of the candidate.'),
          'job': indices['job'],
          'preference': array(np.float32, 'P, the probability that the candidate wants the job.'),
          'qualification': array(np.float32, 'Q, the probability that the candidate is eligible.'),
          'wants': array(np.bool_, 'The latent outcome drawn from P.'),
          'eligible': array(np.bool_, 'The latent outcome drawn from Q.'),
          'application': array(np.float32, 'Probability that the candidate applies if shown.')}


def _feature(attribute: Attribute) -> tfds.features.FeatureConnector:
  limits = f' In [{attribute.low}, {attribute.high}].' if attribute.low is not None else ''
  allowed = f' One of {", ".join(attribute.values)}.' if attribute.values else ''
  doc = f'{attribute.label.capitalize()}; {attribute.kind}.{limits}{allowed}'
  match attribute.kind:
    case 'number':
      return F.Scalar(np.float32, doc=doc)
    case 'integer':
      return F.Scalar(np.int64, doc=doc)
    case 'boolean':
      return F.Scalar(np.bool_, doc=doc)
    case 'set':
      return F.Sequence(F.Text(), doc=doc)
  return F.Text(doc=doc)


_BLANK = {'number': 0.0, 'integer': 0, 'boolean': False, 'set': (), 'category': '', 'text': ''}


def _entities(market: Market, side: str, records: Iterable[Entity]) -> Iterator[dict]:
  kinds = {a.name: _BLANK[a.kind] for a in market.domain.schema.attributes(side)}
  for record in records:
    missing = [name for name in kinds if record[name] is None]
    yield {'id': record.id, 'missing': missing,
           **{n: blank if n in missing else record[n] for n, blank in kinds.items()}}


def _impressions(log: Interactions) -> Iterator[dict]:
  """One example for each candidate of a log, in the order of the candidates."""
  starts = np.flatnonzero(np.diff(log.candidate, prepend=-1))
  for rows in np.split(np.arange(len(log)), starts[1:]):
    if len(rows):
      yield {'candidate': log.candidate[rows[0]],
             **{name: getattr(log, name)[rows]
                for name in ('job', 'preference', 'qualification', 'exposure')}}


def _lists(lists: RankingLists) -> Iterator[dict]:
  for i in range(len(lists)):
    yield {name: getattr(lists, name)[i] for name in ('candidate', 'job', 'relevance', 'mask')}


def _truths(market: Market, world: World) -> Iterator[dict]:
  """One example for each candidate: of every job, or of those that the log shows."""
  for columns, log in walk(market):
    candidate = np.arange(columns.first, columns.first + columns.n)
    if world.whole_truth:
      jobs = np.tile(np.arange(market.config.jobs), (columns.n, 1))
      truth, bounds = market.truth(columns, candidate[:, None], jobs), None
    else:
      truth = market.truth(columns, log.candidate, log.job)
      bounds = np.searchsorted(log.candidate, np.append(candidate, candidate[-1] + 1))
    for i, u in enumerate(candidate):
      rows = i if bounds is None else slice(bounds[i], bounds[i + 1])
      job = jobs[i] if bounds is None else log.job[rows]
      yield {'candidate': u, 'job': job.astype(np.int32),
             **{f.name: getattr(truth, f.name)[rows] for f in dataclasses.fields(truth)}}
