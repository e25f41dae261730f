"""Blocks in which a written reason stands behind the verdicts of every pair."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat
from jobrec_jax.generate.chain import Chains, ReasonedBlocks, write_chains
from jobrec_jax.schema.schema import Entity

N = 3  # tokens on each perspective


class FakeWriter:
  """Writes who and what a pair is, and remembers what it was asked for."""

  def __init__(self, tokenizer):
    self.asked = []
    self.vocabulary = SimpleNamespace(
        encode=lambda texts: [tokenizer.encode(text).ids for text in texts])

  def write(self, dataset, candidate, job, perspective, grammar, turns):
    assert not grammar and turns == N
    self.asked.append(len(candidate))
    return [SimpleNamespace(text=f'{dataset.candidates[u].id}{dataset.jobs[j].id}{perspective}')
            for u, j in zip(candidate, job)]


@pytest.fixture
def writer(tokenizer):
  return FakeWriter(tokenizer)


@pytest.fixture
def blocks(dataset, tokenizer, writer):
  """(blocks without chains, blocks with them), of the first two candidates' pairs with all jobs."""
  few = dataclasses.replace(dataset, candidates=dataset.candidates[:2])
  size = len(few.candidates), len(few.jobs)
  u, j = np.divmod(np.arange(size[0] * size[1]), size[1])
  chains = Chains(writer, few, write_chains(writer, few, u, j, N).reshape(*size, -1))
  writer.asked.clear()
  plain = BlockEncoder(few, tokenizer, BlockFormat(96, 72, 40))
  longer = BlockFormat(96, 72, 40 + chains.length)
  return plain, ReasonedBlocks(few, tokenizer, longer, chains=chains)


def chain(tokenizer, person, job):
  parts = (tokenizer.encode(f'{person}{job}{p}').ids[:N] for p in ('preference', 'qualification'))
  return [token for part in parts for token in part]


def text(row):
  return row[row != PAD].tolist()


def test_a_chain_stands_behind_the_verdicts_which_have_the_room_they_had(blocks, dataset, tokenizer,
                                                                     writer):
  plain, reasoned = blocks
  u, j = np.array([[0, 1], [1, 0]]), np.array([[2, 3], [0, 0]])
  before, after = plain.alignments(u, j), reasoned.alignments(u, j)
  assert after.shape == (2, 2, 40 + 2 * N)
  for at in np.ndindex(2, 2):
    people, jobs = dataset.candidates[u[at]].id, dataset.jobs[j[at]].id
    assert text(after[at]) == text(before[at]) + chain(tokenizer, people, jobs)
    assert (np.diff((after[at] != PAD).astype(int)) <= 0).all()  # padding lies behind all of it
  assert not writer.asked  # they were written before
  assert reasoned.alignment_length == plain.alignment_length + 2 * N
  np.testing.assert_array_equal(plain.candidates, reasoned.candidates)


def test_of_other_records_a_chain_is_written_as_it_is_asked_for(blocks, dataset, tokenizer, writer):
  _, reasoned = blocks
  first, second = dataset.candidates[:2]
  another = Entity('X', second.attributes)
  other = reasoned.with_candidates((first, another))
  found = other.alignments(np.array([0, 1, 1]), np.array([4, 4, 1]))
  assert writer.asked == [2, 2]  # of both perspectives, pairs of the changed record alone
  for row, person, job in zip(found, (first.id, 'X', 'X'), (4, 4, 1)):
    expected = chain(tokenizer, person, dataset.jobs[job].id)
    assert text(row)[-len(expected):] == expected
