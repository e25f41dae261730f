"""A writer beside a run: scores stay to the bit, reasons are true, and what they are judged by."""

import json
import re
import shutil

import numpy as np
import pytest

from jobrec_jax.evaluate.reasons import METRICS, Case, ratios
from jobrec_jax.generate.claims import read, sayable
from jobrec_jax.generate.rivals import attribution, template
from jobrec_jax.pipeline.explain import DELETION, TEMPLATE, TRUTH, WRITER, Pairs, deletions, without
from jobrec_jax.pipeline.load import load
from jobrec_jax.pipeline.recommend_one import Asked, jobs_for
from jobrec_jax.pipeline.report import explain_report
from jobrec_jax.pipeline.road import explained_stage, writer_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.schema.shipped import STUDENTS
from tests.generate.test_claims import CANDIDATE, FIT, JOB, WANTED
from tests.pipeline.tiny import tiny_settings

PERSON = 'experiments/examples/students.json'


@pytest.fixture(scope='module')
def folder(tiny_folder, tmp_path_factory):
  """A copy of the tiny run with a writer, judged."""
  return shutil.copytree(tiny_folder, tmp_path_factory.mktemp('explained') / 'run')


@pytest.fixture(scope='module')
def said(folder):
  before = load(folder)
  run = Run(folder, tiny_settings())
  text = explain_report(run)
  return before, run, text


def test_scores_are_the_same_to_the_bit_and_a_run_without_a_writer_writes_nothing(said, folder):
  before, run, _ = said
  after = load(folder)
  people = run.get(run.road.data).dataset.candidates[:5]
  for a, b in zip(before.score(people)[:4], after.score(people)[:4]):
    np.testing.assert_array_equal(a, b)
  assert before.writer is None and after.writer is not None
  text, _ = jobs_for(before, PERSON, '', Asked(explain=True))
  assert 'wanted' not in text and len(re.findall(r'^ +decided +place \d', text, re.M)) == 5


def test_the_writer_learns_and_all_that_it_writes_under_the_grammar_is_true(said):
  _, run, _ = said
  judged = run.get(explained_stage(run.settings, run.road))
  value = {(r.system, r.perspective, r.metric): r.value for r in judged.rows if r.against is None}
  for p in PERSPECTIVES:
    assert value[WRITER, p, 'true claims'] == value[WRITER, p, 'readable'] == 1
    assert value[WRITER, p, 'contradictions'] == 0
    assert value[TRUTH, p, 'causal recall'] >= value[TEMPLATE, p, 'causal recall']
    assert value[DELETION, p, 'faithfulness'] > value[TEMPLATE, p, 'faithfulness']
  losses = [json.loads(line) for line in (run.store.path(writer_stage(
      run.settings, run.road)) / 'metrics.jsonl').read_text().splitlines()]
  assert losses[-1]['train/loss'] < 0.7 * losses[0]['train/loss']
  assert json.loads((run / 'reasons.json').read_text())['examples']


def test_recommend_writes_reasons_that_are_true_of_the_records(said, folder):
  loaded = load(folder)
  text, _ = jobs_for(loaded, PERSON, '', Asked(top_k=2, as_json=True, explain=True))
  jobs = {job.id: job for job in loaded.jobs}
  from jobrec_jax.data.files.records import read_entity
  person = read_entity(PERSON, STUDENTS, 'candidate')
  for job in json.loads(text)['jobs']:
    for p, written in job['written'].items():
      claims = read(written, STUDENTS, sayable(STUDENTS, person, jobs[job['job_id']], p))
      assert claims and all(c.true for c in claims)
  table, _ = jobs_for(loaded, PERSON, '', Asked(top_k=2, explain=True))
  assert len(re.findall(r'^ +(?:wanted|eligible) +\w', table, re.M)) == 4
  assert 'wanted' not in jobs_for(loaded, PERSON, '', Asked(top_k=2))[0]


def test_deletions_are_differences_of_scores_with_the_field_blank(said):
  _, run, _ = said
  dataset = run.get(run.road.data).dataset
  stage = explained_stage(run.settings, run.road)
  bench = run.store.bench(stage, run.folder)
  pairs = Pairs.drawn(dataset, 6, 0)
  assert len(set(zip(pairs.candidate, pairs.job))) == 6
  moved = deletions(bench, pairs)
  loaded, field = load(run.folder), dataset.schema.fields[5]
  person, n = dataset.candidates[pairs.candidate[3]], int(pairs.job[3])
  scores = loaded.score([person, without(person, field.candidate)], dataset.jobs)
  expected = scores.s_pref[0, n] - scores.s_pref[1, n]
  assert moved['preference'][3][field.name] == pytest.approx(float(expected), abs=1e-4)


def test_reasons_are_counted_claim_by_claim():
  causes = {s.field: 0.0 for s in FIT} | {'gpa': -2.0, 'level': 1.0, 'hours': 0.9, 'mode': -0.1,
                                          'story': 0.6, 'skills': -3.0}
  moved = dict.fromkeys(causes, 0.0) | {'gpa': -4.0, 'mode': 1.0}
  case = Case(FIT, causes, moved)  # skills are met, which cannot say why the logit is low
  text = 'story against ("My own agenda"), gpa unmet by 0.4, mode met'
  counted, total = ratios([text, ''], [case, case], STUDENTS)
  found = {m: (counted[i, 0], total[i, 0]) for i, m in enumerate(METRICS)}
  assert found == {
      'true claims': (2, 3), 'contradictions': (1, 3), 'readable': (1, 1), 'causal recall': (1, 3),
      'faithfulness': (2 - 1 / 6, 1), 'right judgements': (0, 1), 'claims': (3, 1)}
  assert counted[METRICS.index('readable'), 1] == 0 and total[METRICS.index('faithfulness'), 1] == 0


def test_rivals_name_what_they_go_by():
  assert template(FIT, 3) == ' major unmet, gpa unmet by 0.4, mode unmet'
  assert template(FIT, 4).startswith(' level met by 2 levels, major')
  moved = {s.field: 0.0 for s in WANTED} | {'story': -2.0, 'mode': 3.0, 'industry': 1.0}
  assert attribution(WANTED, moved, 3) == (
      ' story against ("A quiet library" with "Months of study"), mode unmet, industry met')
  assert attribution(WANTED, moved, 1) == (
      ' story against ("A quiet library" with "Months of study")')  # mode cannot say which way
  assert sayable(STUDENTS, without(CANDIDATE, ('gpa',)), JOB, 'qualification') == tuple(
      s for s in FIT if s.field != 'gpa')


def test_experts_that_reason_first_read_what_the_runs_writer_wrote(said, folder):
  """Nothing of the run is made again, and a run that reasons first is not loaded."""
  _, run, _ = said
  first = Run(folder.parent / 'first', tiny_settings(experts={'chain': 4}), run.store.folder)
  of_chain = first.road.tokenizer
  assert of_chain.inputs['writer'].key == writer_stage(run.settings, run.road).key
  experts, text = first.get(first.road.cooperative), first.get(of_chain)
  dataset = run.get(run.road.data).dataset
  pair = np.array([3]), np.array([2])
  plain = run.get(run.road.cooperative).blocks(dataset).alignments(*pair)[0]
  row = experts.blocks(dataset).alignments(*pair)[0]
  writer = run.get(writer_stage(run.settings, run.road))
  wrote = [w.text for p in PERSPECTIVES
           for w in writer.write(dataset, *pair, p, grammar=False, turns=4)]
  words = [token for ids in text.tokenizer.encode_batch(wrote) for token in ids.ids[:4]]
  assert words and row[row >= 0].tolist() == [*plain[plain >= 0], *words]
  first.get(first.road.policy)
  with pytest.raises(ValueError, match=r'experts\.chain must be 0 .* got 4'):
    load(first.folder)
