"""What a ranking knows of its candidates and its catalogue; scores are given, no model runs."""

import math
import re

import numpy as np
import pytest

from jobrec_jax.pipeline.ranking_table import candidates_table, ranking_table, what_tau_binds
from jobrec_jax.schema.schema import Entity
from tests.shop import ADA, BO, JOBS, SHOP, job, make_ranker


@pytest.fixture
def ranker(monkeypatch):
  return make_ranker(monkeypatch)


def ids(ranked):
  return [j.job_id for j in ranked.jobs]


def expected_c(jobs, lam=0.0, years=3):
  fit = np.array([j['fit'] for j in jobs]) + years / 10
  s = np.array([j['wish'] for j in jobs]) + lam * fit
  pi = np.exp(s) / np.exp(s).sum()
  return float((pi / (1 + np.exp(-fit))).sum())


def test_a_posting_under_several_ids_is_ranked_once_and_counts_once(ranker):
  (plain,) = ranker().recommend(ADA, 0.0)
  again = [Entity(f'again-{i}', JOBS[1].attributes | {'role': ' Joiner '}) for i in range(4)]
  many = (again[0], *JOBS, *again[1:])
  (ranked,) = ranker(many).recommend(ADA, 0.0)
  assert ids(ranked) == ['p1', 'again-0', 'p3', 'p4']
  assert [j.copies for j in ranked.jobs] == [[], ['p2', 'again-1', 'again-2', 'again-3'], [], []]
  assert [j.score for j in ranked.jobs] == [j.score for j in plain.jobs]
  assert ranked.eligibility == plain.eligibility == pytest.approx(expected_c(JOBS), abs=1e-6)
  scores = ranker(many).score(ADA)  # of every job that was given
  assert scores.s_pref.tolist() == [[1.0, 2.0, 1.0, 0.0, -1.0, 1.0, 1.0, 1.0]]
  assert re.search(r'copies +p2, again-1, again-2, again-3\n', ranking_table(ranked, 0.0))


def test_what_was_applied_to_is_left_out_with_its_copies(ranker):
  made = ranker((*JOBS, Entity('p1b', JOBS[0].attributes)))
  ada, bo = made.recommend([ADA, BO], 0.0, without=[{'p1b', 'elsewhere'}, ()])
  assert ids(ada) == ['p2', 'p3', 'p4'] and ids(bo) == ['p1', 'p2', 'p3', 'p4']
  assert ada.eligibility == pytest.approx(expected_c(JOBS[1:]), abs=1e-6)
  (none,) = made.recommend(ADA, 0.0, without=[[j.id for j in JOBS]])
  assert none.jobs == () and math.isnan(none.eligibility)
  assert 'no job is left' in ranking_table(none, 0.0)
  with pytest.raises(ValueError, match='ids for each of 2 candidates, got 1'):
    made.recommend([ADA, BO], 0.0, without=[()])


def test_a_probability_that_contradicts_a_requirement_is_marked(ranker):
  """Requirements of preference are none that an employer states, and doubt is above one half."""
  ranked = {j.job_id: j for j in ranker().recommend(ADA, 0.0)[0].jobs}
  assert {name: j.contradicted for name, j in ranked.items()} == {
      'p1': [], 'p2': ['years'], 'p3': [], 'p4': []}
  low = (job('p5', 'Turner', 0.0, -3.0, min_years=5),)
  assert ranker(low).recommend(ADA, 0.0)[0].jobs[0].contradicted == []
  table = ranking_table(ranker().recommend(ADA, 0.0)[0], 0.0)
  assert 'doubtful  p_qual is above 0.5 and requirements are unmet: years' in table


def test_missing_words_are_named(ranker):
  (ranked,) = ranker().recommend(ADA, 0.0)
  by_id = {j.job_id: j for j in ranked.jobs}
  assert by_id['p1'].reasons['craft'] == ['tools met (2 of 3; missing: lathe)', 'town met']
  assert by_id['p3'].reasons['craft'][1] == 'town unmet (missing: Bergen)'


def test_words_that_no_job_has_and_sparse_records_are_told(ranker):
  notes = ranker(missing=1).recommend([ADA, BO, Entity('nobody', {})], 0.0)
  assert notes[0].notes == ('1 of 3 tools meet no word of the jobs: gouge',)
  assert notes[1].notes == ()  # one attribute is missing, as of others
  (said,) = notes[2].notes
  assert said.startswith('4 attributes are missing, and 99% of the candidates in training lack at '
                         'most 1') and said.endswith('years, tools, towns, about')
  assert not ranker().recommend(Entity('nobody', {}), 0.0)[0].notes


def test_candidates_for_a_job(ranker):
  made = ranker((*JOBS, Entity('p2b', JOBS[1].attributes)))
  old = Entity('old', BO.attributes | {'years': 40})
  for name in ('p2', 'p2b'):
    found = made.candidates_for(name, [ADA, old, BO], 2)
    assert [c.candidate_id for c in found] == ['old', 'bo']
  assert found[1].qualification == pytest.approx(1 / (1 + math.exp(-3.9)), abs=1e-6)
  assert found[1].reasons['rules'] == ['years met by 4'] and found[1].contradicted == []
  table = candidates_table(made.candidates_for('p2', [ADA], 2))
  assert 'ada' in table and 'requirements are unmet: years' in table and 'gouge' in table
  with pytest.raises(ValueError, match=r"of the 5 of the catalogue, got 'p22'; did you mean 'p2"):
    made.candidates_for('p22', [ADA])
  with pytest.raises(ValueError, match="by must be 'qualification' or 'preference', got 'score'"):
    made.candidates_for('p2', [ADA], by='score')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_a_requirement_is_found_for_the_catalogue(ranker, share):
  """At what is found the mean C of the candidates' lists is what was asked for."""
  made = ranker()
  low, high = (np.mean([expected_c(JOBS, lam, years) for years in (3, 9)]) for lam in (0, 3))
  tau = low + share * (high - low)
  found = made.resolve([ADA, BO], tau)
  assert 0.4 < found < 0.6
  reached = [r.eligibility for r in made.recommend([ADA, BO], found)]
  assert np.mean(reached) == pytest.approx(tau, abs=1e-4)


def test_a_requirement_that_asks_for_nothing_or_too_much(ranker):
  made, low = ranker(), expected_c(JOBS)
  assert made.resolve(ADA, low - 0.01) == 0.0
  with pytest.raises(ValueError, match=r'tau must lie in \[.* mean of 1 candidates over 4 jobs'):
    made.resolve(ADA, 0.999)
  with pytest.raises(ValueError, match='tau must lie in'):
    ranker(constraint='equality').resolve(ADA, low - 0.01)
  with pytest.raises(ValueError, match='jobs that are not left out, got none'):
    made.resolve(ADA, 0.5, without=[[j.id for j in JOBS]])


def test_titles_stand_beside_ids_and_control_characters_are_escaped(ranker):
  jobs = (job('p\x1b[2J', 'Turner\nlead \u202eevil', 0.0, 0.0), job('p2', None, 1.0, 0.0))
  (ranked,) = ranker(jobs).recommend(ADA, 0.0)
  assert [j.title for j in ranked.jobs] == ['p2', 'Turner\nlead \u202eevil']
  table = ranking_table(ranked, 0.0)
  assert r'p\x1b[2J' in table and r'Turner\nlead \u202eevil' in table
  assert not [c for c in table if (ord(c) < 32 and c != '\n') or c == '\u202e']
  assert table.splitlines()[0].split() == ['rank', 'job', 'title', 'score', 'preference', 'p_qual',
                                           'lift']


def test_records_are_scored_as_the_schema_writes_them(ranker):
  made = ranker()
  made.recommend(Entity('x', {'tools': ('saw', 'Saw', 'drill press')}), 0.0,
                 jobs=[Entity('y', JOBS[0].attributes | {'needs': ('saw', 'SAW')})])
  (catalogue,) = made._catalogues.values()
  assert catalogue.jobs[0]['needs'] == SHOP.attribute('job', 'needs').canonical(('saw', 'SAW'))


def test_a_sentence_says_what_tau_binds():
  assert what_tau_binds(50, 50).endswith('those of stage 2, 50 jobs: one list has another C.')
  for jobs in (20, 120):
    assert f'this catalogue has {jobs} jobs: --resolve' in what_tau_binds(jobs, 50)
  assert what_tau_binds(120, 50, 0.6).startswith('τ 0.6 binds the mean C over these candidates')
