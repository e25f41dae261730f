"""jobrec_synth as tensorflow-datasets builds it and as the library reads it back."""

import dataclasses
import itertools
import sys

import grain
import numpy as np
import pytest

from jobrec_jax.data.dataset import SPLITS, TEST_KINDS, Truth
from jobrec_jax.data.market.jobrec_synth import reader
from jobrec_jax.data.market.jobrec_synth.jobrec_synth_dataset_builder import (
    TABLES,
    Builder,
    config_name,
    features_of,
)
from jobrec_jax.data.market.jobrec_synth.worlds import (
    LISTS,
    LOGS,
    NEWEST,
    SEED,
    VERSIONS,
    WORLDS,
    evaluation_lists,
    market_of,
)
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.evaluate.audit import audit

# What each version holds. Other bits under the same version would be another data set.
TINY = {'1': '66a0431898efb128', '2': '6805d894c00504ff'}
_PREFERENCE = {  # logit P is that of the first version
    'preference_warm': 'c6eb9a1f5d2e9750', 'preference_cold_candidates': '396c7426da798928',
    'preference_cold_jobs': '6290f84a0eee7b03', 'preference_both_cold': '2067d3272cb9c749'}
TINY_LISTS = {
    '1': _PREFERENCE | {
        'qualification_warm': '681fed7dd68b87bf',
        'qualification_cold_candidates': '1598aec1e51cff22',
        'qualification_cold_jobs': '36b92ac074f279af',
        'qualification_both_cold': 'c3a509457f1f3b9a'},
    '2': _PREFERENCE | {
        'qualification_warm': '8b8875ec85b4bdfc',
        'qualification_cold_candidates': 'c33207906000d2bf',
        'qualification_cold_jobs': 'af950ece6b7d31b6',
        'qualification_both_cold': 'fb3ef0bf35f8e1d0'}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='module')
def world():
  return simulate(WORLDS['tiny'].market, SEED)


def test_it_is_built_without_tensorflow_and_is_what_the_version_says(folder, world):
  dataset = reader.read_synth(folder, 'tiny')
  assert 'tensorflow' not in sys.modules
  assert dataset.fingerprint() == world[0].fingerprint() == TINY['2']
  assert Builder.VERSION == '2.0.0' and '2.0.0' in Builder.RELEASE_NOTES


def test_the_worlds_of_the_version_before_are_built_as_they_were(folder, world):
  dataset, truth = simulate(dataclasses.replace(WORLDS['tiny'].market, version='1'), SEED)
  read = reader.read_synth(folder, 'tiny', '1')
  assert read.fingerprint() == dataset.fingerprint() == TINY['1'] != TINY['2']
  stored = reader.read_synth_truth(folder, 'tiny', '1')
  for field in dataclasses.fields(Truth):
    np.testing.assert_array_equal(getattr(stored, field.name), getattr(truth, field.name))
  assert {w.market.version for w in WORLDS.values()} == {NEWEST}
  assert reader.prepare(folder, 'tiny', 'log', '1').version == '1.1.0'
  with pytest.raises(ValueError, match=r"market\.version must be one of \('1', '2'\), got '3'"):
    reader.read_synth(folder, 'tiny', '3')


def test_the_truth_lies_apart(folder, world):
  truth = reader.read_synth_truth(folder, 'tiny')
  for field in dataclasses.fields(Truth):
    np.testing.assert_array_equal(getattr(truth, field.name), getattr(world[1], field.name))
  secret = {'wants', 'eligible', 'application'}
  for size, table in itertools.product(WORLDS, TABLES):
    config = next(c for c in Builder.BUILDER_CONFIGS if c.name == config_name(size, table))
    names = set(features_of(config))
    assert not names & secret or table == 'truth'
    assert secret <= names or table != 'truth'
    if table in ('log', 'candidates', 'jobs'):
      part = reader.prepare(folder, size, table).data_path if size == 'tiny' else None
      assert part is None or 'truth' not in str(part)


def test_every_feature_is_documented():
  for config in Builder.BUILDER_CONFIGS:
    for name, feature in features_of(config).items():
      assert feature.doc.desc, (config.name, name)


@pytest.mark.parametrize('version', VERSIONS)
def test_the_frozen_lists_are_those_of_the_version(folder, version):
  lists = reader.read_synth_lists(folder, 'tiny', version)
  assert {name: drawn.fingerprint() for name, drawn in lists.items()} == TINY_LISTS[version]


def test_lists_that_were_tampered_with_are_refused(folder, monkeypatch):
  reader.read_synth_lists(folder, 'tiny')
  monkeypatch.setattr(reader.RankingLists, 'fingerprint', lambda self: 'other')
  with pytest.raises(ValueError, match=r'preference_warm must have the fingerprint .* got other'):
    reader.read_synth_lists(folder, 'tiny')


@pytest.mark.parametrize('name', LISTS)
def test_lists_are_of_their_kind_and_were_not_seen(folder, world, name):
  dataset, truth = world
  lists = reader.read_synth_lists(folder, 'tiny')[name]
  perspective, kind = name.split('_', 1)
  train = dataset.interactions.of('train')
  seen = set(zip(train.candidate.tolist(), train.job.tolist()))
  pairs = list(zip(lists.candidate[lists.mask].tolist(), lists.job[lists.mask].tolist()))
  assert not seen & set(pairs)
  in_train = (np.isin(lists.candidate, train.candidate), np.isin(lists.job, train.job))
  assert (in_train[0] == (kind in ('warm', 'cold_jobs'))).all()
  assert (in_train[1] == (kind in ('warm', 'cold_candidates'))).all()
  outcome = truth.wants if perspective == 'preference' else truth.eligible
  np.testing.assert_array_equal(lists.relevance, outcome[lists.candidate, lists.job] & lists.mask)
  assert (lists.relevance.sum(1) == 1).all()
  for u, j, mask in zip(lists.candidate, lists.job, lists.mask):
    assert len(set(zip(u[mask], j[mask]))) == mask.sum()
  centre = lists.candidate if perspective == 'preference' else lists.job
  assert (centre == centre[:, :1]).all()


@pytest.mark.parametrize('seed', range(4))
def test_canaries_are_at_chance_on_every_split(seed):
  dataset, _ = simulate(dataclasses.replace(WORLDS['tiny'].market, candidates=400), seed)
  report = audit(dataset, seed)
  assert not report.failed(), report.table()
  judged = {row['name'].split('/', 1)[1] for row in report.rows if row['p_value'] is not None}
  for perspective in ('preference', 'qualification'):
    for split in (*SPLITS, *(f'test.{kind}' for kind in TEST_KINDS)):
      assert f'{perspective}/{split}' in judged


def test_a_canary_on_the_position_is_at_chance_on_the_frozen_lists():
  """The lists' own order is random: the positive stands anywhere with the same frequency."""
  market = market_of('tiny')
  log = simulate(WORLDS['tiny'].market, SEED)[0].interactions
  big = dataclasses.replace(WORLDS['tiny'], lists=200)
  for name in LISTS[:4]:
    lists = evaluation_lists(market, big, log, name)
    size = lists.mask.sum(1)
    place = (lists.relevance.argmax(1) + 0.5) / size
    assert abs(place.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(place))


def test_grain_reads_it_shuffled_sharded_and_resumes(folder):
  source = reader.source(folder, 'tiny', 'log', 'train')
  whole = grain.MapDataset.source(source).seed(3).shuffle()
  order = [int(e['candidate']) for e in whole]
  assert order == [int(e['candidate']) for e in grain.MapDataset.source(source).seed(3).shuffle()]
  assert order != sorted(order) and len(set(order)) == len(order)
  shards = [[int(e['candidate']) for e in whole.slice(slice(p, None, 2))] for p in range(2)]
  assert not set(shards[0]) & set(shards[1]) and sorted(shards[0] + shards[1]) == sorted(order)
  it = iter(whole.to_iter_dataset())
  first = [int(next(it)['candidate']) for _ in range(5)]
  state = it.get_state()
  rest = [int(e['candidate']) for e in it]
  again = iter(whole.to_iter_dataset())
  again.set_state(state)
  assert first + rest == order and [int(e['candidate']) for e in again] == rest


def test_an_unknown_size_is_named(folder):
  with pytest.raises(ValueError, match=r"data\.size must be one of .*'tiny'.*got 'huge'"):
    reader.read_synth(folder, 'huge')


def test_the_sizes_are_what_the_card_says():
  card = (reader.Path(reader.__file__).parent / 'README.md').read_text()
  for size, world in WORLDS.items():
    m = world.market
    assert (f'| `{size}` | {m.candidates:,} x {m.jobs:,} | {m.logging} | {m.exposure:g} |') in card
  for field in dataclasses.fields(MarketConfig):
    assert f'`{field.name}`' in card, field.name
  assert all(name.removeprefix('test_') in card for name in LOGS)
