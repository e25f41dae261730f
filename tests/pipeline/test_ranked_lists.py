"""The lists that an evaluation ranks, and who scores them: systems, canaries, blanked texts."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logit

from jobrec_jax.baselines.rivals import make_rival
from jobrec_jax.data.dataset import TEST_KINDS
from jobrec_jax.data.lists import RankingLists, truth_lists
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import PAD, BlockEncoder, BlockFormat, corpus, train_tokenizer
from jobrec_jax.pipeline import scores
from jobrec_jax.pipeline.data import Data
from tests.pipeline.measured import kept_scores


@pytest.fixture(scope='module')
def market():
  return simulate(MarketConfig(candidates=80, jobs=24), 0)


def pairs_of(lists):
  return sorted(zip(lists.candidate[lists.mask].tolist(), lists.job[lists.mask].tolist()))


def test_the_other_axis_ranks_the_same_pairs(market):
  cases = scores.ranked_lists({'seed': 1, 'candidates': 9, 'source': 'simulated'}, *market, '')
  assert [c for c in cases if scores.split_of(c[0]) == c[0]] == list(cases)[:4]
  for (split, perspective), lists in list(cases.items())[:4]:
    other = cases[scores.across(split, perspective)]
    assert pairs_of(lists) == pairs_of(other) and len(set(pairs_of(lists))) == lists.job.size
    assert {lists.centre, other.centre} == {'candidate', 'job'}
    assert lists.centre == ('candidate' if perspective == 'preference' else 'job')
    for x in (lists, other):
      mine = getattr(x, x.centre)
      assert (mine == mine[:, :1]).all() and len(np.unique(mine[:, 0])) == len(x)
      truth = market[1].wants if perspective == 'preference' else market[1].eligible
      np.testing.assert_array_equal(x.relevance, truth[x.candidate, x.job])


def test_labels_are_ranked_on_both_axes_where_both_have_contrast(market):
  s = {'seed': 1, 'candidates': 0, 'source': 'tables'}
  cases = scores.ranked_lists(s, market[0], None, '')
  log = market[0].interactions.of('test')
  lists = cases['test, jobs of a candidate', 'qualification']
  label = dict(zip(zip(log.candidate.tolist(), log.job.tolist()), log.qualification.tolist()))
  assert [label[p] for p in zip(lists.candidate[lists.mask].tolist(),
                                lists.job[lists.mask].tolist())] == (
                                    lists.relevance[lists.mask].astype(int).tolist())
  assert (lists.candidate == lists.candidate[:, :1]).all() and lists.centre == 'candidate'
  both = lists.relevance.sum(1)
  assert ((both > 0) & (both < lists.mask.sum(1))).all()


@pytest.mark.parametrize('known', [True, False])
def test_jobrec_synth_is_ranked_on_both_axes_by_pairs_of_held_out_candidates(market, monkeypatch,
                                                                            known):
  """Its stored lists of 1 + n are drawn by their outcome, some of training candidates."""
  dataset, truth = market
  log = dataset.interactions
  trained = np.unique(log.of('train').candidate)
  held = np.unique(log.of('cold_candidates').candidate)
  every = np.arange(24)
  stored = {f'{p}_{kind}': truth_lists(truth, p, held if 'candidates' in kind or 'both' in kind
                                       else trained, every)
            for kind in TEST_KINDS for p in ('preference', 'qualification')}
  monkeypatch.setattr('jobrec_jax.data.market.jobrec_synth.reader.read_synth_lists',
                      lambda folder, size, version: stored)
  asked = {'seed': 0, 'candidates': 7, 'source': 'jobrec_synth', 'size': 'tiny', 'version': '2'}
  cases = scores.ranked_lists(asked, dataset, truth if known else None, '')
  lists = scores.EvaluationLists(cases, None)
  assert lists.split == 'cold candidates' and cases['warm', 'preference'] is stored[
      'preference_warm']
  for perspective in ('preference', 'qualification'):
    pairs = lists.pair_cases(perspective)
    of = {int(u) for case in pairs for u in cases[case].candidate.ravel()}
    assert of and of <= set(held.tolist()) and not of & set(trained.tolist())
    if known:
      assert pairs == [(scores.FULL, perspective)] and len(of) == 7
      assert pairs_of(cases[pairs[0]]) == pairs_of(cases[scores.across(*pairs[0])])
      assert cases[pairs[0]].job.size == 7 * 24
    else:
      assert {split for split, _ in pairs} <= {scores.across(split, perspective)[0] for split in (
          'cold candidates', 'both cold')}
      label = {(u, j): x for u, j, x in zip(log.candidate.tolist(), log.job.tolist(),
                                            getattr(log, perspective).tolist())}
      for case in pairs:
        found = cases[case]
        assert [label[p] == 1 for p in zip(found.candidate[found.mask].tolist(),
                                           found.job[found.mask].tolist())] == (
                                               found.relevance[found.mask].tolist())


def test_a_sample_of_candidates_is_evaluated_where_it_is_asked_for(market, tmp_path):
  dataset, truth = market
  for wanted, expected in ((0, 20), (7, 7), (99, 20)):
    cases = scores.ranked_lists({'seed': 1, 'candidates': wanted, 'source': 'simulated'}, dataset,
                                truth, '')
    assert len(np.unique(cases['cold candidates', 'preference'].candidate)) == expected


def test_canaries_see_only_the_lists(market):
  dataset, _ = market
  train = dataset.interactions.of('train')
  rows = np.flatnonzero(train.preference == 0)[:1], np.flatnonzero(train.preference == 1)[:1]
  u, j = (np.concatenate([getattr(train, k)[r] for r in rows])[None] for k in ('candidate', 'job'))
  lists = RankingLists('preference', u, j, np.zeros((1, 2), bool), np.ones((1, 2), bool))
  found = scores.canary_scores(dataset, lists)
  assert found['canary: train negative'].tolist() == [[-1, 0]]
  assert found['canary: position'].tolist() == [[0, -1]]
  assert np.unique(found['canary: id hash']).size == 2


def test_blanking_removes_narratives_alone(market):
  dataset, _ = market
  tokenizer, lengths = train_tokenizer(corpus(dataset), 400), BlockFormat(800, 400, 20)
  blank = scores.without_narratives(dataset)
  blocks, full = (BlockEncoder(d, tokenizer, lengths) for d in (blank, dataset))
  for less, more in ((blocks.candidates, full.candidates), (blocks.jobs, full.jobs)):
    assert ((less != PAD).sum(1) < (more != PAD).sum(1)).all()
  assert not any(n in e.attributes for n in scores.narratives(dataset.schema)
                 for e in (*blank.candidates, *blank.jobs))
  before, after = dataset.candidates[0].attributes, blank.candidates[0].attributes
  assert set(before) - set(after) == {'student_llm_output', 'extrac_1', 'extrac_2'}


def test_blanked_scores_are_of_the_first_lists_without_narratives(market, monkeypatch, tmp_path):
  """The scorer is one that says which records it reads."""
  dataset, _ = market
  rng = np.random.default_rng(0)
  u, j = rng.integers(0, 80, (3, 5)), rng.integers(0, 24, (3, 5))
  lists = RankingLists('preference', u, j, np.zeros((3, 5), bool), np.ones((3, 5), bool))
  blank, asked = scores.without_narratives(dataset), []

  def scorer(bench, experts, full):
    assert full is dataset

    def score(candidate, job, name):
      return scores.PairScores(candidate * 100.0 + job, np.zeros(candidate.shape))
    return SimpleNamespace(with_blocks=lambda read: asked.append(read) or SimpleNamespace(
        scores=score))
  monkeypatch.setattr(scores, 'scorer', scorer)
  bench = SimpleNamespace(folder=tmp_path, settings={}, resources=None, inputs={
      'data': Data(dataset, None), 'experts': SimpleNamespace(blocks=lambda records: records),
      'lists': scores.EvaluationLists({('test', 'preference'): lists}, lists)})
  scores.make_blanked(bench)
  np.testing.assert_array_equal(scores.read_blanked(bench), u * 100.0 + j)
  assert asked[0].candidates == blank.candidates != dataset.candidates
  assert asked[0].jobs == blank.jobs


def test_rivals_learn_the_perspective_whose_lists_they_rank(market, tmp_path):
  dataset, _ = market
  u, j = np.indices((10, 24))
  lists = {('a', p): RankingLists(p, u, j, np.zeros(u.shape, bool), np.ones(u.shape, bool))
           for p in ('preference', 'qualification')}
  bench = SimpleNamespace(folder=tmp_path, settings={'rival': 'popularity'}, inputs={
      'data': Data(dataset, None), 'lists': scores.EvaluationLists(lists, None)})
  scores.make_rival(bench)
  found = scores.read_list_scores(bench)
  assert set(found) == {'a/preference', 'a/qualification'}
  for perspective in ('preference', 'qualification'):
    fitted = make_rival('popularity', dataset).fit(dataset, perspective)
    np.testing.assert_array_equal(found[f'a/{perspective}'], scores.list_scores(
        fitted, lists['a', perspective]))
  assert (found['a/preference'] != found['a/qualification']).any()


def test_held_out_lists_are_of_the_test_where_truths_are_absent(market, tmp_path):
  dataset, _ = market
  bench = SimpleNamespace(folder=tmp_path, inputs={'data': Data(dataset, None)},
                          resources=SimpleNamespace(folder=''), settings={
                              'seed': 0, 'held_out': 30, 'list_length': 8, 'candidates': 0,
                              'source': 'jsonl', 'size': ''})
  scores.make_lists(bench)
  lists, log = scores.read_lists(bench).held_out, dataset.interactions
  applied = {s: set(zip(*(getattr(log.of(s), k)[log.of(s).preference == 1].tolist()
                          for k in ('candidate', 'job')))) for s in ('train', 'test')}
  pairs = {(int(u), int(j)) for u, j in zip(lists.candidate[lists.relevance],
                                            lists.job[lists.relevance])}
  assert pairs <= applied['test'] and not pairs & applied['train'] and len(pairs) > 10


def test_kept_scores_are_looked_up_by_pair(market):
  dataset, truth = market
  rng, shape = np.random.default_rng(0), (3, 5)
  lists = RankingLists('preference', rng.integers(0, 80, shape), rng.integers(0, 24, shape),
                       np.zeros(shape, bool), np.ones(shape, bool))
  kept = kept_scores(dataset, truth, scores.EvaluationLists({('a', 'b'): lists}, lists))
  np.testing.assert_array_equal(kept.of(lists).preference,
                                logit(truth.preference[lists.candidate, lists.job]))
  assert kept.lam_of(lists).shape == (3, 5, 3)
