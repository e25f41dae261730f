"""What records of a training list lack, text and alignment lack at once, and nothing else does."""

import itertools
import re

import numpy as np
import pytest

from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.missing import (
  VERSIONS,
  MissingLists,
  missing_at_most,
  missing_at_random,
  with_missing,
)
from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.schema.align import align
from jobrec_jax.schema.render import is_missing, render_alignment, render_entity

LENGTHS = BlockFormat(candidate=900, job=700, alignment=256)  # nothing is cut


@pytest.fixture(scope='module')
def versions(dataset):
  return with_missing(dataset, 0.4, np.random.default_rng(0))


@pytest.fixture(scope='module')
def blocks(versions, tokenizer):
  return BlockEncoder(versions.dataset, tokenizer, LENGTHS)


def sources(dataset):
  train = dataset.interactions.of('train')
  return (LabelledLists(train, 'preference', 'candidate', 3),
          LabelledLists(train, 'qualification', 'job', 2))


def whole_of(versions, side):
  """[versions and whole records]: which record each is of."""
  places = getattr(versions, side)
  count = places.shape[1]
  of = np.arange(max(count, places.max() + 1))
  for row in places:
    of[row] = np.arange(count)
  return of


def said(tokenizer, block):
  return tokenizer.decode(block[block != PAD].tolist())


def lost(schema, side, entity, whole):
  return [a for a in schema.attributes(side)
          if entity[a.name] is None and whole[a.name] is not None]


def pairs_of_lists(blocks, tokenizer, source, centre):
  """Of some lists each pair: its candidate, its job, and the texts that training reads."""
  drawn, batches = (list_dataset(source, make, 1, 5) for make in (dict, finisher(blocks, centre)))
  for step in range(25):
    at, batch = drawn[step], batches[step]
    pairs = np.stack([at['candidate'].ravel(), at['job'].ravel()], 1)
    for item, (u, j) in enumerate(pairs):
      text = {name: said(tokenizer, batch[name][0] if batch[name].ndim == 2 else
                         batch[name][0, item]) for name in ('candidate', 'job', 'alignment')}
      yield u, j, text


@pytest.mark.parametrize('perspective, centre', enumerate(['candidate', 'job']))
def test_what_is_missing_is_in_no_text_and_unknown_in_the_alignment(
    dataset, versions, blocks, tokenizer, perspective, centre):
  schema, changed = dataset.schema, versions.dataset
  source = MissingLists(sources(dataset)[perspective], versions)
  gone = unknown = 0
  for u, j, text in pairs_of_lists(blocks, tokenizer, source, centre):
    candidate, job = changed.candidates[u], changed.jobs[j]
    assert text == {'candidate': render_entity(schema, 'candidate', candidate),
                    'job': render_entity(schema, 'job', job),
                    'alignment': render_alignment(align(schema, candidate, job))}
    for side, entity, whole in (
        ('candidate', candidate, dataset.candidates[whole_of(versions, 'candidate')[u]]),
        ('job', job, dataset.jobs[whole_of(versions, 'job')[j]])):
      for a in lost(schema, side, entity, whole):
        if a.rendered and a.kind != 'text' and not is_missing(whole[a.name]):
          assert not any(part.startswith(f'{a.label} ')
                         for part in re.split('[;,:] ', text[side]))
          gone += 1
        for f in schema.fields:
          if f.attributes(side) == (a.name,) and f'{f.name} ' in text['alignment']:
            assert f'{f.name} unknown' in text['alignment']
            unknown += 1
  assert gone > 100 and unknown > 100


def test_a_record_lacks_the_same_in_every_pair_of_a_list(dataset, versions):
  """In this list alone: another takes another version, and two numbers say all of a list."""
  preference, qualification = (MissingLists(s, versions) for s in sources(dataset))
  plain, _ = sources(dataset)
  numbers = set()
  for step in range(60):
    a = preference.draw(preference.anchors[0], np.random.default_rng(step))
    b = plain.draw(plain.anchors[0], np.random.default_rng(step))
    fits = [(v, w) for v in range(VERSIONS) for w in range(VERSIONS)
            if (a['candidate'] == versions.candidate[v, b['candidate']]).all()
            and (a['job'] == versions.job[w, b['job']]).all()]
    assert fits and all((a[name] == b[name]).all() for name in ('mask', 'weight', 'label'))
    numbers.add(fits[0])
  assert len(numbers) > 10
  drawn = qualification.draw(qualification.anchors[0], np.random.default_rng(1))
  assert set(drawn) == {'candidate', 'job', 'mask', 'weight', 'label'}
  assert len(set(drawn['job'].tolist())) == 1


@pytest.mark.parametrize('share', [0.02, 0.1, 0.5, 0.9])
def test_the_share_is_as_asked_and_records_differ(share):
  gone = missing_at_random((200_000, 6), share, np.random.default_rng(2))
  assert gone.mean() == pytest.approx(share, abs=0.003)
  np.testing.assert_allclose(gone.mean(0), share, atol=0.005)
  a = share / (1 - share)  # all six are missing with the probability E[r^6] = a / (a + 6)
  assert gone.all(1).mean() == pytest.approx(a / (a + 6), abs=0.003)


def test_the_share_holds_over_lists_and_required_attributes_may_be_missing(dataset):
  versions = with_missing(dataset, 0.3, np.random.default_rng(3))
  source, schema = MissingLists(sources(dataset)[0], versions), dataset.schema
  rng, found = np.random.default_rng(4), {'candidate': [], 'job': []}
  of = {side: whole_of(versions, side) for side in found}
  names = {side: set() for side in found}
  for n in range(600):
    drawn = source.draw(source.anchors[n % len(source.anchors)], rng)
    for side, entities, whole in (('candidate', versions.dataset.candidates, dataset.candidates),
                                  ('job', versions.dataset.jobs, dataset.jobs)):
      for i in np.unique(drawn[side]):
        gone = lost(schema, side, entities[i], whole[of[side][i]])
        there = sum(whole[of[side][i]][a.name] is not None for a in schema.attributes(side))
        found[side].append(len(gone) / there)
        names[side] |= {a.name for a in gone}
  for side, shares in found.items():
    assert np.mean(shares) == pytest.approx(0.3, abs=0.05)
    assert {a.name for a in schema.attributes(side)} == names[side]


def test_resumption_and_processes_see_the_same_versions(dataset, versions):
  source = MissingLists(sources(dataset)[0], versions)
  whole = list(itertools.islice(iterate(list_dataset(source, dict, 4, 7)), 6))
  again = list(itertools.islice(iterate(list_dataset(source, dict, 4, 7), start=3, threads=2), 3))
  for (a,), (b,) in zip(whole[3:], again, strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
  rows = np.array([[0, 1], [2, 3]])  # of each process
  parts = [list_dataset(source, dict, 4, 7, of) for of in rows]
  for step, (a,) in enumerate(whole):
    for name in a:
      np.testing.assert_array_equal(a[name], np.concatenate([p[step][name] for p in parts]))
  assert not np.array_equal(whole[0][0]['job'], list_dataset(source, dict, 4, 8)[0]['job'])


@pytest.mark.parametrize('share', [0.0, 0.4])
def test_the_lists_are_those_of_whole_records(dataset, tokenizer, share):
  """With nothing missing, to the bit; else the same pairs in the same order."""
  versions = with_missing(dataset, share, np.random.default_rng(6))
  if not share:
    assert versions.dataset.candidates == dataset.candidates
    assert versions.dataset.jobs == dataset.jobs
  for plain in sources(dataset):
    of = {side: whole_of(versions, side) for side in ('candidate', 'job')}
    for step in range(4):
      a = list_dataset(plain, dict, 4, 9)[step]
      b = list_dataset(MissingLists(plain, versions), dict, 4, 9)[step]
      for name in a:
        came = of[name][b[name]] if name in of else b[name]
        np.testing.assert_array_equal(a[name], came)
        assert name == 'weight' or share or a[name].dtype == b[name].dtype


def test_whole_records_stay_where_they_were(dataset, versions, blocks, tokenizer):
  """So that whatever else is read of these blocks, the validation's lists, meets whole ones."""
  u, j = np.arange(len(dataset.candidates)), np.zeros(len(dataset.candidates), int)
  plain = BlockEncoder(dataset, tokenizer, LENGTHS)
  for a, b in ((plain.candidates, blocks.candidates), (plain.jobs, blocks.jobs)):
    width = min(a.shape[1], b.shape[1])
    np.testing.assert_array_equal(a[:, :width], b[:len(a), :width])
    assert (b[:len(a), width:] == PAD).all()
  np.testing.assert_array_equal(plain.alignments(u, j), blocks.alignments(u, j))
  others = np.setdiff1d(u, dataset.interactions.of('train').candidate)
  assert len(others) and (versions.candidate[:, others] == others).all()
  log, changed = dataset.interactions, versions.dataset.interactions
  train = log.split == 0
  np.testing.assert_array_equal(log.candidate[~train], changed.candidate[~train])
  assert (log.candidate[train] != changed.candidate[train]).mean() > 0.3
  np.testing.assert_array_equal(
      log.job, whole_of(versions, 'job')[changed.job])


@pytest.mark.parametrize('share', [0.0, 0.05, 0.3])
def test_what_99_of_100_versions_lack_at_most(share):
  lacked = np.repeat([0, 1, 4], [700, 250, 50])
  gone = missing_at_random((400, 1000, 9), share, np.random.default_rng(8))
  there = np.arange(9) >= lacked[:, None]
  counts = lacked + (gone & there).sum(-1)
  for part in (0.5, 0.95, 0.99):
    assert missing_at_most(lacked, 9, share, part) == np.quantile(counts, part, method='higher')
  assert missing_at_most([], 9, share, 0.9) == 0
