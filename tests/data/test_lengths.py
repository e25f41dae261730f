"""Lengths of blocks that follow the texts."""

import dataclasses

import numpy as np
import pytest

from jobrec_jax.data import lengths
from jobrec_jax.data.lengths import CAP, choose_lengths
from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat, corpus, train_tokenizer
from jobrec_jax.schema.align import fields_with_verdicts
from jobrec_jax.schema.schema import Entity

NONE = BlockFormat(0, 0, 0)


def looked_at(dataset):
  """Rows of the train and the validation split."""
  return dataset.interactions.where(dataset.interactions.split < 2)


def with_story(dataset, rows, words):
  """Some of the train split's candidates have much to tell."""
  people = list(dataset.candidates)
  for u in np.unique(dataset.interactions.of('train').candidate)[:rows]:
    people[u] = Entity(people[u].id, {**people[u].attributes, 'proj_1': 'robots ' * words})
  return dataclasses.replace(dataset, candidates=tuple(people))


def test_blocks_hold_the_texts_rounded_up(dataset, tokenizer):
  form, found = choose_lengths(dataset, tokenizer, NONE)
  blocks = BlockEncoder(dataset, tokenizer, BlockFormat(512, 512, 128))
  log = looked_at(dataset)
  for length, rows in zip(found, (blocks.candidates[np.unique(log.candidate)],
                                  blocks.jobs[np.unique(log.job)],
                                  blocks.alignments(log.candidate, log.job))):
    longest, step = (rows != PAD).sum(1).max(), 4 if length.block == 'alignment' else 8
    assert length.length == getattr(form, length.block) == -(-longest // step) * step
    assert (length.texts, length.longest, length.cut) == (len(rows), longest, 0)
  assert found[0].in_words() == (
      f'candidate blocks hold {form.candidate} tokens; 0 of {found[0].texts} texts (0.0%) are '
      f'longer, the longest has {found[0].longest}')


def test_a_few_long_texts_do_not_decide_and_there_is_a_cap(dataset, tokenizer, monkeypatch):
  plain = choose_lengths(dataset, tokenizer, NONE)[0]
  monkeypatch.setitem(lengths.SHARE, 'candidate', 0.9)
  form, (found, *_) = choose_lengths(with_story(dataset, 1, 3000), tokenizer, NONE)
  assert form.candidate <= plain.candidate + 8 and found.longest > 512 and found.cut >= 1
  form, (found, *_) = choose_lengths(with_story(dataset, 20, 3000), tokenizer, NONE)
  assert form.candidate == CAP['candidate'] and found.cut >= 20
  assert form.job == plain.job


def test_lengths_that_are_given_stay(dataset, tokenizer):
  form, found = choose_lengths(dataset, tokenizer, BlockFormat(12, 0, 7))
  assert (form.candidate, form.alignment) == (12, 7) and form.job > 7
  assert found[0].cut == found[0].texts


def test_codes_and_raw_text_need_no_texts_of_alignments(dataset, tokenizer):
  fields = len(fields_with_verdicts(dataset.schema))
  form, found = choose_lengths(dataset, tokenizer, BlockFormat(0, 0, 0, 'vectors'))
  assert form.alignment == fields and form.codes == 3 * fields and len(found) == 2
  form = choose_lengths(dataset, tokenizer, BlockFormat(0, 0, 0, layout='raw'))[0]
  assert form.alignment == 0 < form.job
  form = choose_lengths(dataset, tokenizer, BlockFormat(0, 0, 0, 'symbols'))[0]
  assert fields <= form.alignment


@pytest.mark.parametrize('texts', [5, 4096])
def test_some_texts_stand_for_all(dataset, tokenizer, monkeypatch, texts):
  monkeypatch.setattr(lengths, '_TEXTS', texts)
  log, found = looked_at(dataset), choose_lengths(dataset, tokenizer, NONE, seed=2)[1]
  assert [x.texts for x in found] == [min(texts, n) for n in (
      len(np.unique(log.candidate)), len(np.unique(log.job)), len(log))]


def test_texts_that_the_tokenizer_learnt_by_heart_do_not_decide_alone(dataset):
  learnt = train_tokenizer(corpus(dataset), 4096, min_frequency=0)
  train = dataclasses.replace(dataset, interactions=dataset.interactions.of('train'))
  both, alone = (choose_lengths(d, learnt, NONE) for d in (dataset, train))
  assert both[1][0].longest > alone[1][0].longest
  assert both[0].alignment > alone[0].alignment
