"""A shortlist of a catalogue: its first stage, what it shows, and what it says of the rest."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from jobrec_jax.data.components import SIDES, Components
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import BlockEncoder, BlockFormat
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.experts import linear_scores
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.pipeline.ranking_table import ranking_table
from jobrec_jax.recommend import Recommender
from jobrec_jax.scoring import shortlist
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts, PairScores
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.scoring.policy import Alone, Policy, Tilts
from jobrec_jax.scoring.shortlist import FirstStage, shortlist_size

J, SOME, R = 240, 60, 3
TAUS = 0.0, 0.5, 0.6


@pytest.fixture(scope='module')
def many():
  return simulate(MarketConfig(candidates=10, jobs=J, exposure=0.3), 1)[0]


@pytest.fixture(scope='module')
def experts(many, tokenizer):
  """Untrained, with a linear part that says much and a decoder that says something."""
  form = BlockFormat(40, 24, 16, numbers=True)
  plain = BlockEncoder(many, tokenizer, form)
  words = Components.fit({side: getattr(plain, f'{side}s') for side in SIDES}, 512, R)
  blocks = BlockEncoder(many, tokenizer, form, words)
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 2), int))
  N = lists['numbers'].shape[-1]
  model = JobRec(JobRecConfig(
      DecoderConfig(vocab_size=512, width=16, layers=1, heads=2, kv_heads=2, head_width=8,
                    mlp_width=16), head_widths=(8,), numbers=N, matched=R))
  params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *lists.values())['params'])
  rng = np.random.default_rng(0)
  params |= {'number_scale': np.float32(rng.uniform(0.5, 1.5, N)),
             'number_weights': np.float32(rng.normal(0, 0.1, (2, N))),
             'match': np.float32(rng.normal(0, 0.3, (2, R, R)))}
  for name in ('preference', 'qualification'):
    last = params[name]['logit']
    params[name] |= {'logit': last | {'kernel': np.float32(rng.normal(0, 1, (8, 1)))}}
  return Experts(model, params, tokenizer, form, words)


@pytest.fixture(scope='module')
def recommender(many, experts, one_device):
  head = PolicyHead(widths=(4,), outputs=3)
  params = head.init(jax.random.key(1), *np.zeros((2, 1, 16), np.float32))['params']
  policy = Policy(head, params, np.array([0.4, 0.5, 0.6], np.float32), 0.7,
                  tilts=Tilts(np.array([0.4, 0.6]), np.array([0.0, 9.0])))
  return Recommender(many.schema, experts, Calibration(0.3, 1.5), policy, many.jobs, one_device,
                     ScoringConfig(20, 4))


@pytest.fixture(scope='module')
def full(many, recommender):
  """Rankings of all jobs, by tau."""
  return {tau: recommender.recommend(many.candidates, tau, J) for tau in TAUS}


def in_first_stage(found, many):
  blocks = found.experts.blocks(many)
  return blocks, [FirstStage(found.experts, blocks, u) for u in range(4)]


def test_the_linear_part_of_all_jobs_is_that_of_each_pair(recommender, many):
  blocks, stages = in_first_stage(recommender, many)
  params = recommender.experts.params
  for u, stage in enumerate(stages):
    numbers = blocks.numbers(np.full((1, J), u), np.arange(J)[None])
    wanted = np.asarray(linear_scores(numbers, params['number_scale'], params['number_weights'],
                                      params['match']))[0]
    apart = stage.linear() - wanted  # by what is alike for all jobs
    np.testing.assert_allclose(apart, np.broadcast_to(apart.mean(0), apart.shape), atol=2e-5)
    assert wanted.std(0).min() > 0.1


@pytest.mark.parametrize('numbers, words', [(True, False), (False, True)])
def test_margins_alone_or_words_alone_have_a_linear_part(experts, many, numbers, words):
  form = dataclasses.replace(experts.form, numbers=numbers)
  part = dataclasses.replace(experts, form=form, components=experts.components if words else None)
  blocks = part.blocks(many)
  x = blocks.numbers(np.full((1, J), 2), np.arange(J)[None])
  rng = np.random.default_rng(0)
  params = {'number_scale': np.float32(rng.uniform(0.5, 1.5, x.shape[2])),
            'number_weights': np.float32(rng.normal(0, 1, (2, x.shape[2])))}
  if words:
    params['match'] = np.float32(rng.normal(0, 1, (2, R, R)))
  wanted = np.asarray(linear_scores(x, params['number_scale'], params['number_weights'],
                                    params.get('match')))[0]
  apart = FirstStage(dataclasses.replace(part, params=params), blocks, 2).linear() - wanted
  np.testing.assert_allclose(apart, np.broadcast_to(apart.mean(0), apart.shape), atol=1e-4)
  assert wanted.std(0).min() > 0.1


def test_a_shortlist_of_all_jobs_is_full_scoring_to_the_bit(recommender, many, full):
  for tau in TAUS:
    assert recommender.recommend(many.candidates, tau, J, shortlist=J) == full[tau]
  assert full[0.0][0].scored == (J, J)


@pytest.mark.parametrize('tau', TAUS)
def test_the_best_are_found_with_full_scores_and_c_is_told(recommender, many, full, tau):
  found = recommender.recommend(many.candidates, tau, 10, shortlist=SOME)
  shares = []
  for short, whole in zip(found, full[tau]):
    assert short.scored == (SOME, J)
    by_id = {job.job_id: job for job in whole.jobs}
    for job in short.jobs:
      for name in ('score', 'preference', 'qualification', 'lam'):
        assert getattr(job, name) == pytest.approx(getattr(by_id[job.job_id], name), abs=1e-4)
    assert [j.score for j in short.jobs] == sorted((j.score for j in short.jobs), reverse=True)
    best = {job.job_id for job in whole.jobs[:10]}
    shares.append(len(best & {job.job_id for job in short.jobs}) / 10)
    assert short.eligibility == pytest.approx(whole.eligibility, abs=0.02)
  assert np.mean(shares) >= 0.95


def test_the_requirement_acts_in_the_choice(recommender, many):
  """What is asked for more has other jobs scored in full, of greater p_qual."""
  asked = {tau: recommender.recommend(many.candidates[0], tau, SOME, shortlist=SOME)[0]
           for tau in (0.0, 0.6)}
  free, bound = ({job.job_id for job in asked[tau].jobs} for tau in (0.0, 0.6))
  assert free != bound
  assert np.mean([j.qualification for j in asked[0.6].jobs]) > np.mean(
      [j.qualification for j in asked[0.0].jobs])


def test_what_the_decoder_adds_is_learned_from_the_draw(recommender, many):
  blocks, stages = in_first_stage(recommender, many)
  rng = np.random.default_rng(0)
  for stage in stages:
    rough = stage.linear()
    added = blocks.numbers(np.zeros(J, int), np.arange(J))[:, -R:] @ rng.normal(0, 1, (R, 2)) + 1.5
    exact = rough + added + rng.normal(0, 0.2, (J, 2))
    jobs = np.sort(rng.choice(J, SOME, replace=False))
    others = np.setdiff1d(np.arange(J), jobs)
    better, apart = stage.corrected(rough, jobs, exact[jobs])
    before, after = (np.sqrt(((s - exact)[others] ** 2).mean(0)) for s in (rough, better))
    assert (before > 1).all() and (after < 0.4).all()
    # Scores of the draw itself, each from the others, err as those of jobs outside of it do.
    assert np.std(apart - exact[jobs], axis=0) == pytest.approx(after, rel=0.4)


@pytest.mark.parametrize('deviation', [0.0, 0.5, 2.0])
def test_how_many_of_the_best_are_missed_is_told(recommender, many, deviation):
  """Of candidates whose decoder says what no number tells."""
  _, stages = in_first_stage(recommender, many)
  rng = np.random.default_rng(0)
  asked = shortlist.Asked(recommender.policy, recommender.calibration, 0.5)
  told, missed = [], []
  for stage in stages * 5:
    exact = (stage.linear() + deviation * rng.normal(0, 1, (J, 2))).astype(np.float32)

    def score(jobs, exact=exact):
      return PairScores(*exact[jobs].T, np.zeros((len(jobs), 3), np.float32))
    found = shortlist.retrieve(stage, np.ones(J, bool), asked, SOME, 10, score)
    scores = asked.ranks(exact, np.zeros((J, 3)))[0]
    told.append(found.missed)
    missed.append((~found.full[np.argsort(-scores)[:10]]).sum())
    assert (found.scores == scores)[found.full].all() and found.full.sum() == SOME
  assert np.mean(told) == pytest.approx(np.mean(missed), abs=0.7)
  assert (np.mean(missed) > 1) == (deviation == 2.0)


def test_left_out_is_each_job_by_an_independent_regression(recommender, many):
  _, (stage, *_) = in_first_stage(recommender, many)
  rng = np.random.default_rng(1)
  jobs = np.arange(0, J, 6)
  exact = stage.linear()[jobs] + rng.normal(0, 1, (len(jobs), 2))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(shortlist, '_RIDGES', (10.0,))
    _, apart = stage.corrected(stage.linear(), jobs, exact)
    for i in (0, 7):
      rest = np.delete(np.arange(len(jobs)), i)
      # The mean of the numbers stays that of all, so that equality holds to its share alone.
      without, _ = stage.corrected(stage.linear(), jobs[rest], exact[rest])
      np.testing.assert_allclose(apart[i], without[jobs[i]], atol=0.25)


def test_jobs_that_are_left_out_are_neither_shown_nor_counted(recommender, many, full):
  gone = [{job.job_id for job in ranked.jobs[:20]} for ranked in full[0.5][:3]]
  people = many.candidates[:3]
  short = recommender.recommend(people, 0.5, 10, without=gone, shortlist=SOME)
  whole = recommender.recommend(people, 0.5, 10, without=gone)
  for u in range(3):
    assert short[u].scored == (SOME, J - 20) and whole[u].scored == (J - 20, J - 20)
    assert not gone[u] & {job.job_id for job in short[u].jobs}
    assert short[u].eligibility == pytest.approx(whole[u].eligibility, abs=0.02)
  most = [{job.job_id for job in full[0.5][0].jobs[:-3]}]
  (few,) = recommender.recommend(people[0], 0.5, 10, without=most, shortlist=SOME)
  assert few.scored == (3, 3) and len(few.jobs) == 3
  (none,) = recommender.recommend(people[0], 0.5, 10, shortlist=SOME,
                                  without=[{job.id for job in many.jobs}])
  assert none.jobs == () and np.isnan(none.eligibility)


def test_where_tau_binds_the_best_few_c_is_theirs(recommender, many):
  found = dataclasses.replace(recommender, policy=dataclasses.replace(recommender.policy, top_k=3))
  (ranked,) = found.recommend(many.candidates[0], 0.5, 5, shortlist=SOME)
  assert ranked.eligibility == pytest.approx(
      np.mean([job.qualification for job in ranked.jobs[:3]]), abs=1e-6)


@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_one_expert_alone_has_a_shortlist_and_no_c(recommender, many, perspective):
  found = dataclasses.replace(recommender, policy=Alone(perspective, 'a reason'))
  (short,), (whole,) = (found.recommend(many.candidates[0], None, 10, shortlist=count)
                        for count in (SOME, None))
  assert np.isnan(short.eligibility)
  assert len({j.job_id for j in short.jobs} & {j.job_id for j in whole.jobs}) >= 9


def test_the_draw_has_its_chances():
  rng = np.random.default_rng(0)
  scores, left = rng.normal(0, 2, 400), rng.random(400) < 0.8
  scores[~left] = -np.inf
  drawn, chance = shortlist._draw(scores, left, 1.0, 80)
  assert left[drawn].all() and len(drawn) == len(chance) <= 80
  assert (chance > 0).all() and chance.max() == 1  # the likeliest are always drawn
  # How many jobs there are, and their summed weight, as the draw tells either.
  assert (1 / chance).sum() == pytest.approx(left.sum(), rel=0.1)
  assert (np.exp(scores[drawn]) / chance).sum() == pytest.approx(np.exp(scores).sum(), rel=0.1)
  again, _ = shortlist._draw(scores, left, 1.0, 80)
  assert drawn.tolist() == again.tolist()


@pytest.mark.parametrize('jobs, top_k, wanted', [
    (100, 5, 240), (10_000, 10, 240), (100_000, 10, 2000), (10_000, 50, 500)])
def test_the_size_of_a_shortlist(jobs, top_k, wanted):
  assert shortlist_size(jobs, top_k) == wanted


@pytest.mark.parametrize('count, top_k', [(1, 1), (0, 1), (9, 10), (20.0, 5), ('20', 5)])
def test_a_shortlist_must_hold_what_is_asked_for(recommender, many, count, top_k):
  with pytest.raises(ValueError, match=r'^shortlist must be an integer of at least top_k and 2'):
    recommender.recommend(many.candidates[0], 0.5, top_k, shortlist=count)


def test_experts_that_read_no_numbers_have_no_shortlist(recommender, many, experts):
  params = {k: v for k, v in experts.params.items() if k != 'number_scale'}
  found = dataclasses.replace(recommender, experts=dataclasses.replace(experts, params=params))
  with pytest.raises(ValueError, match=r'^a shortlist asks for experts that read numbers'):
    found.recommend(many.candidates[0], 0.5, 5, shortlist=SOME)


def test_the_answer_says_that_it_is_a_shortlist(recommender, many, full):
  (ranked,) = recommender.recommend(many.candidates[0], 0.5, 5, shortlist=SOME)
  assert f'A shortlist: {SOME} of {J} jobs were scored in full' in ranking_table(ranked, 0.5)
  assert 'A shortlist' not in ranking_table(full[0.5][0], 0.5)
