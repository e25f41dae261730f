"""The data of a run: simulated or read, audited and kept; and what their sizes must allow."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
import numpy as np

from jobrec_jax.baselines.rivals import check_installed
from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.files.jsonl import read_jsonl
from jobrec_jax.data.files.paper_csv import read_published
from jobrec_jax.data.files.recbole import read_atomic
from jobrec_jax.data.lists import (
  applications,
  candidates_of,
  catalogue_of,
  stage_2_of,
  warm_jobs,
)
from jobrec_jax.data.market.jobrec_synth.worlds import VERSIONS
from jobrec_jax.data.market.simulator import Market, MarketConfig, make_market, simulate
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.data.tables.definition import read_definition
from jobrec_jax.data.tables.reader import Division, read_tables
from jobrec_jax.data.training_lists import LabelledLists, negatives_policy, preference_lists
from jobrec_jax.evaluate.audit import audit
from jobrec_jax.pipeline.artefacts import (
  load_catalogue,
  load_dataset,
  save_catalogue,
  save_dataset,
)
from jobrec_jax.pipeline.perspectives import (
  NEEDED,
  has_contrast,
  lacks,
  perspectives,
)
from jobrec_jax.pipeline.settings import DataSettings, Settings, schema_of
from jobrec_jax.pipeline.stage import Bench, Stage
from jobrec_jax.schema.document import schema_document
from jobrec_jax.schema.files import write_json
from jobrec_jax.schema.schema import Schema


class Data(NamedTuple):
  """A data set, and its truth where it is known. Nothing that learns is given the truth."""

  dataset: Dataset
  truth: Truth | None


@dataclasses.dataclass(frozen=True)
class Source:
  """What the data stage depends on."""

  data: DataSettings
  market: MarketConfig
  schema: Schema

  @classmethod
  def of(cls, settings: Settings) -> 'Source':
    return cls(settings.data, settings.market, schema_of(settings))


def data_stage(settings: Settings) -> Stage[Data]:
  """The data, after repair and an audit without errors.

  The content of files counts and not where they lie; a simulated market counts by its knobs.
  """
  d = settings.data
  simulated = d.source == 'simulated'
  # jobrec_synth is drawn, too, where its folder does not hold it yet: its version says which it is.
  drawn = simulated or d.source == 'jobrec_synth'
  files = () if drawn else table_files(d) if d.source == 'tables' else (d.place,)
  about = {'data': {k: v for k, v in dataclasses.asdict(d).items()
                    if k not in ('folder', 'schema')},
           'market': settings.market if simulated else {'domain': settings.market.domain},
           'jobrec_synth': (VERSIONS[settings.market.version] if d.source == 'jobrec_synth'
                            else None)}
  source = Source.of(settings)
  if d.schema:
    about['schema'] = {k: v for k, v in schema_document(source.schema).items() if k != 'title'}
    about['tables'] = read_definition(d.schema).mapping if d.source == 'tables' else None
  return Stage('data', 2, about, {}, lambda bench: make_data(bench, source),
               lambda bench: Data(*load_dataset(bench.folder, source.schema)), files)


def table_files(d: DataSettings) -> tuple[Path, ...]:
  """The three tables of a schema file.

  Raises:
    ValueError: it has no [tables].
  """
  defined = read_definition(d.schema)
  if defined.log is None:
    raise ValueError(f"{d.schema}: must have [tables] where data.source is 'tables', got none")
  return tuple(d.place / t.file for t in (*defined.sides.values(), defined.log))


def make_data(bench: Bench, source: Source) -> None:
  """Raises ValueError: the audit finds an error that data.known_faults does not name."""
  dataset, truth = draw_or_read(source)
  if source.data.drop_shared_negatives:
    dataset = deal_shared_negatives(dataset, source.data.seed)
  for note in dataset.notes:
    logging.info('data: %s', note)
  known = source.data.known_faults
  report = audit(dataset, source.data.seed)
  failed = report.failed(known)
  if failed:
    raise ValueError(f'the audit found {len(failed)} errors:\n{report.table(known)}\n'
                     f'Mend the data, or name what is known in data.known_faults: {failed}')
  logging.info('data: %d candidates, %d jobs, %d interactions; the audit found no error',
               len(dataset.candidates), len(dataset.jobs), len(dataset.interactions))
  save_dataset(bench.folder, dataset, truth)
  write_json(bench.folder / 'audit.json', report.rows)


def catalogue_stage(settings: Settings, of_data: Stage[Data]) -> Stage:
  """The jobs, the schema and how tables are written: what recommending needs of the data."""
  schema, d = schema_of(settings), settings.data
  mapping = read_definition(d.schema).mapping if d.source == 'tables' else {}
  share = settings.experts.missing
  return Stage('catalogue', 3, {'title': schema.title, 'missing': share}, {'data': of_data},
               lambda bench: save_catalogue(bench.folder, bench.inputs['data'].dataset, schema,
                                            mapping, share),
               lambda bench: load_catalogue(bench.folder))


def market_of(settings: Settings) -> Market:
  """The simulated market that the settings describe."""
  return make_market(settings.market, settings.data.seed, **split_shares(settings.data))


def split_shares(data: DataSettings) -> dict[str, Any]:
  """How a simulated market is divided; the keywords of `make_market`."""
  return {'shares': data.shares, 'cold_jobs': data.cold_jobs, 'warm_test': data.warm_test}


def draw_or_read(source: Source) -> tuple[Dataset, Truth | None]:
  """Simulates or reads what `data.source` names, as it lies, and its truth where it is known."""
  d, schema = source.data, source.schema
  match d.source:
    case 'simulated':
      return simulate(source.market, d.seed, **split_shares(d))
    case 'jobrec_synth':
      # Here, for tensorflow-datasets takes a second to import.
      from jobrec_jax.data.market.jobrec_synth.reader import read_synth, read_synth_truth
      known = d.place, d.size, source.market.version
      return read_synth(*known), read_synth_truth(*known)
    case 'tables':
      return read_tables(d.place, d.schema, Division(d.seed, d.shares, d.cold_jobs,
                                                      d.warm_test)), None
    case 'jsonl':
      return read_jsonl(d.place, schema), None
    case 'recbole':
      return read_atomic(d.place, d.prefix, schema), None
  return read_published(d.place, d.seed, schema=schema,
                        allow_unknown_users=d.allow_unknown_users), None


def check_sizes(settings: Settings, data: Data) -> None:
  """Checks what the data must hold, before anything is trained, and says where they are small.

  Of a perspective that no label teaches nothing is asked: see `perspectives`.

  Raises:
    ValueError: with what must be there and what came; or a rival is not installed.
  """
  check_installed(settings.evaluate.rivals)
  dataset, truth = data
  taught = perspectives(dataset)
  if not taught:
    needed = ', or '.join(' and '.join(what for what, _ in of) for of in NEEDED.values())
    raise ValueError(f'the log must hold {needed}, got none of them in {len(dataset.interactions)} '
                     'pairs: there is nothing to learn')
  train = dataset.interactions.of('train')
  for perspective in taught:
    for what in lacks(train, perspective):
      raise ValueError(f'the train split must hold {what}, got none: give it some (data.shares)')
  unseen = 'test' if truth is None else 'cold_candidates'
  _check_lists(dataset, taught, unseen)
  for key, asked, there, why in sizes(settings, dataset, unseen):
    if there != asked:
      logging.info('%s: %s asked, %s: %s', key, asked, why, there)


def _check_lists(dataset: Dataset, taught: tuple[str, ...], unseen: str) -> None:
  """Raises ValueError: lists that training or the first measure needs cannot be drawn."""
  test = dataset.interactions.of('test')
  for split, name in (('train', 'train'), (unseen, 'test')):
    drawn = 'preference' in taught and (
        name == 'train' or len(taught) > 1 or not has_contrast(test, 'preference'))
    if drawn and not applications(dataset, split, jobs := catalogue_of(dataset, split)):
      raise ValueError(
          f'the {name} split must hold candidates who applied to some of its {len(jobs)} jobs and '
          f'not to all, got none of {len(candidates_of(dataset, split))} candidates (data.shares)')
  if taught == ('qualification',) and not has_contrast(test, 'qualification'):
    raise ValueError(f'the test split must hold a job with accepted and rejected applicants, got '
                     f'none of {len(np.unique(test.job))} jobs (data.shares)')


def sizes(settings: Settings, dataset: Dataset,
          unseen: str) -> Iterator[tuple[str, Any, Any, str]]:
  """What stages make of the settings that the data bound: key, asked, what there is, and why.

  Args:
    settings: of the run.
    dataset: its data.
    unseen: the split, or kind of test, of the held-out lists.
  """
  s, taught = settings.lists, perspectives(dataset)
  train = dataset.interactions.of('train')
  if 'preference' in taught:
    policy = negatives_policy(train, s.preference_policy)
    yield ('lists.preference_policy', s.preference_policy, policy,
           'nothing was shown and not applied to')
    n = preference_lists(train, s.preference_negatives, policy).negatives
    yield ('lists.preference_negatives', s.preference_negatives, n,
           f'{n} jobs at most that a candidate did not apply to')
  if 'qualification' in taught:
    n = LabelledLists(train, 'qualification', 'job', s.qualification_negatives).negatives
    yield ('lists.qualification_negatives', s.qualification_negatives, n,
           f'{n} rejected applicants of a job at most')
    if settings.experts.censoring != 'none':
      why = no_propensity(dataset)
      yield 'experts.censoring', settings.experts.censoring, 'none' if why else 'ips', why
  if len(taught) > 1:
    yield from _policy_sizes(settings, dataset, unseen)


def _policy_sizes(settings: Settings, dataset: Dataset,
                  unseen: str) -> Iterator[tuple[str, Any, Any, str]]:
  """Of stage 2 and what is measured of its policy; as `sizes`."""
  p, jobs = settings.policy, warm_jobs(dataset)
  length = min(p.list_length, len(jobs))
  yield 'policy.list_length', p.list_length, length, f'{len(jobs)} jobs that training sees'
  yield 'certify.k', settings.certify.k, min(settings.certify.k, length), f'{length} jobs in a list'
  fitted = stage_2_of(dataset)
  shown = applications(dataset, unseen, catalogue_of(dataset, unseen))
  count, held_out = (sum(map(len, wanted.values())) for wanted in (fitted.wanted, shown))
  lists = min(p.lists, count)
  yield 'policy.lists', p.lists, lists, f'{count} {fitted.whose}'
  yield 'policy.batch', p.batch, min(p.batch, lists), f'{lists} lists'
  yield ('policy.held_out', p.held_out, min(p.held_out, held_out),
         f'{held_out} applications in the test split')


def no_propensity(dataset: Dataset) -> str:
  """Why the chance of an application cannot be told; '' where it can."""
  if 'preference' not in perspectives(dataset):
    return 'nobody applied to anything'
  if not (dataset.interactions.preference == 0).any():
    return 'nothing was shown and not applied to'
  if not (dataset.interactions.of('validation').preference >= 0).any():
    return 'nobody was shown anything in the validation split'
  return ''
