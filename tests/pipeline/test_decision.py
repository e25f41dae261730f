"""What is told of a decision comes true when the candidate's record is changed so."""

import dataclasses
import json

import numpy as np
import pytest

from jobrec_jax.data.files.records import read_entity
from jobrec_jax.pipeline.decision import Change, changes, decide, in_words
from jobrec_jax.pipeline.load import load
from jobrec_jax.pipeline.recommend_one import Asked, jobs_for
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.shipped import STUDENTS

PERSON = 'experiments/examples/students.json'
K = 3


@pytest.fixture(scope='module')
def run(tiny_folder):
  return load(tiny_folder)


@pytest.fixture(scope='module')
def person():
  return read_entity(PERSON, STUDENTS, 'candidate')


@pytest.fixture(scope='module')
def tau(run):
  return float(np.mean(run.policy.knots[-2:]))


def with_change(person, change):
  return Entity(person.id, {**person.attributes, change.attribute: change.after})


def best(run, person, tau, k=K, jobs=None):
  (ranked,) = run.recommend(person, tau, k, jobs)
  return [job.job_id for job in ranked.jobs]


def test_changes_move_jobs_as_told_and_no_smaller_one_does(run, person, tau):
  decided = decide(run.recommender, person, tau, K)
  before = best(run, person, tau, K + 1)
  assert [d.job_id for d in decided.jobs] == before[:K] and decided.next.job_id == before[K]
  known = {job.id: job for job in run.jobs}
  tried = changes(run.schema, person, [known[i] for i in before])
  ranked = run.recommend([with_change(person, c) for c in tried], tau, K)
  after = {c: [job.job_id for job in of.jobs] for c, of in zip(tried, ranked)}
  found = 0
  for d in (*decided.jobs, decided.next):
    moved = [c for c in tried if (d.job_id in after[c]) != (d.job_id in before[:K])]
    assert (d.change is None) == (not moved)
    if moved:
      found += 1
      assert d.change in moved and d.change.steps == min(c.steps for c in moved)
      scores = run.score([person, with_change(person, d.change)], [known[d.job_id]])
      np.testing.assert_allclose([d.before, d.after], np.stack(
          [scores.s_pref[:, 0], scores.p_qual[:, 0]], axis=1), atol=1e-5)
  assert found >= 2


def test_places_by_preference_are_those_without_a_requirement(run, person, tau):
  decided = decide(run.recommender, person, tau, K)
  scores = run.score(person)
  ranked = [run.jobs[j].id for j in np.argsort(-scores.s_pref[0], kind='stable')]
  assert [ranked[d.by_preference - 1] for d in decided.jobs] == [d.job_id for d in decided.jobs]


@pytest.mark.parametrize('before, after, words', [
    (('a', 'b'), ('a',), 'skills without b'), (('a',), ('a', 'c'), 'skills with c'),
    (None, ('c',), 'skills with c'), (('a',), (), 'skills without a'),
    (None, 'x', 'skills none → x'), (3.5, 2.0, 'skills 3.5 → 2'),
    (True, False, 'skills True → False'),
    ('Some text.', None, 'without skills')])
def test_changes_in_words(before, after, words):
  assert Change('skills', before, after, 1).in_words() == words


def test_changes_are_other_allowed_values_of_one_attribute_each_the_nearest_first():
  person = Entity('P', {
      'academic_level': 'UG3', 'gpa': 3.0, 'months_experience': 6, 'skills': ('a', 'b'),
      'commit_to_summer': None, 'hours_per_week': 10, 'interests': ('Robotics',),
      'student_llm_output': 'Slow careful science.'})
  asked = {'min_academic_level': 'UG3', 'required_skills': ('b', 'c')}
  jobs = [Entity(f'J{i}', asked | {'min_gpa': gpa, 'min_months_experience': months})
          for i, (gpa, months) in enumerate([(2.0, 6), (2.5, 0), (3.5, 12), (3.5, 24), (3.9, 36)])]
  found = changes(STUDENTS, person, jobs)
  assert [c.steps for c in found] == sorted(c.steps for c in found)
  for c in found:
    STUDENTS.validate('candidate', with_change(person, c))
    assert c.before == person[c.attribute] and c.after != c.before
  of = {name: [(c.after, c.steps) for c in found if c.attribute == name] for name in
        ('gpa', 'months_experience', 'skills', 'academic_level', 'student_llm_output')}
  assert sorted(of['gpa']) == [(2.0, 2), (2.5, 1), (3.5, 1), (3.9, 2)]
  assert sorted(of['months_experience']) == [(0, 1), (12, 1), (24, 2), (36, 3)]
  assert {x for x, _ in of['skills']} == {('a',), ('b',), ('a', 'b', 'c')}
  levels = STUDENTS.attribute('candidate', 'academic_level').values
  assert dict(of['academic_level']) == {
      v: abs(levels.index(v) - levels.index('UG3')) for v in levels if v != 'UG3'}
  assert of['student_llm_output'] == [(None, 1)]


def test_a_catalogue_of_no_more_jobs_than_are_shown_has_no_next_one(run, person, tau):
  decided = decide(run.recommender, person, tau, K, run.jobs[:K])
  assert len(decided.jobs) == K and decided.next is None
  assert all(d.change is None for d in decided.jobs)
  assert in_words(decided.jobs[0], K).endswith('no single change tried takes it out of the best 3')


def test_jobs_that_are_left_out_are_neither_shown_nor_next(run, person, tau):
  gone = best(run, person, tau, K + 1)
  decided = decide(run.recommender, person, tau, K, without=[gone])
  assert not {d.job_id for d in (*decided.jobs, decided.next)} & set(gone)


def test_of_a_shortlist_the_same_jobs_are_told(run, person, tau):
  (ranked,) = run.recommend(person, tau, K, shortlist=10)
  decided = decide(run.recommender, person, tau, K, shortlist=10)
  assert ranked.scored[0] < ranked.scored[1]
  assert [d.job_id for d in decided.jobs] == [job.job_id for job in ranked.jobs]


def test_recommend_tells_decisions_in_words_and_to_programs(run, tau):
  asked = Asked(tau, K, explain=True)
  text, _ = jobs_for(run, PERSON, '', asked)
  told = json.loads(jobs_for(run, PERSON, '', dataclasses.replace(asked, as_json=True))[0])
  assert text.count('decided') == K and 'enters the best 3 with' in text
  for job in told['jobs']:
    change = job['decision']['moves_with']
    assert f'place {job["decision"]["by_preference"]} by preference alone' in text
    if change is not None:
      assert change['attribute'] in text and f'→ {change["qualification"]:.2f})' in text
  assert told['next']['job_id'] in text
