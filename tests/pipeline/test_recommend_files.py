"""Files in, rankings out: any table of candidates and jobs, applications, a requirement found."""

import contextlib
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from jobrec_jax.data.files.recbole import write_atomic
from jobrec_jax.data.tables.applied import read_applied
from jobrec_jax.data.tables.definition import Funnel, Label, LogTable, SideTable
from jobrec_jax.pipeline import recommend_many as many
from jobrec_jax.pipeline.artefacts import Catalogue
from jobrec_jax.pipeline.load import PARTS, LoadedRun
from jobrec_jax.pipeline.recommend_one import Asked, candidates_for, jobs_for, unread, warn
from jobrec_jax.recommend import RankedJobs
from tests.shop import JOBS, SHOP, make_ranker

PEOPLE = 'person,Years,tools,towns\n1,3,saw|gouge,Oslo\n2,9,drill press,Bergen\n3,,,\n'
SIDES = {'candidate': SideTable('people.csv', 'person', {'years': 'Years'},
                                dict.fromkeys(('tools', 'towns'), '|'), {}),
         'job': SideTable('posts.csv', 'post', {'role': 'what'}, {}, {})}
LOG = LogTable('log.csv', 'person', 'post', Label('applied', ('went',), ('stayed',)))


@pytest.fixture
def run(monkeypatch):
  """A finished run, but for its files."""
  ranker = make_ranker(monkeypatch)(missing=2)
  return LoadedRun({}, ranker, (), Catalogue(SHOP, JOBS, SIDES, LOG, 2), 50)


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'people.csv').write_text(PEOPLE)
  (tmp_path / 'log.csv').write_text('person,post,applied\n1,p2,went\n1,p1,stayed\n2,p4,went\n')
  return tmp_path


@pytest.fixture
def opened(run, monkeypatch):
  """What `recommend_many` finds where it looks for the run."""
  record = {'settings': {'features': 1, 'mesh': 2}, 'artefacts': dict.fromkeys(PARTS, 'key')}
  parts = SimpleNamespace(record=record, folders=dict.fromkeys(PARTS, 'folder'))
  for name, value in {
      'opened': contextlib.nullcontext, 'find_parts': lambda folder: parts,
      'load_catalogue': lambda folder: run.catalogue, 'load': lambda path: run,
      'load_policy': lambda folder: (run.policy, ()), 'versions': dict,
      'use_compilation_cache': lambda: None}.items():
    monkeypatch.setattr(many, name, value)
  many._loaded.cache_clear()
  many._check_same.cache_clear()


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_many_candidates_of_a_users_own_table(opened, folder, run, caplog, monkeypatch):
  monkeypatch.setenv('HOME', str(folder))
  out = folder / 'ranked.jsonl'
  asked = many.Request('run', str(folder / 'people.csv'), 0.0, 3,
                       applied=str(folder / 'log.csv'))
  assert many.recommend_many(asked, '~/ranked.jsonl', size=2) == 3
  assert sorted(p.name for p in folder.iterdir()) == ['log.csv', 'people.csv', 'ranked.jsonl']
  first, second, third = rows(out)
  assert [r['candidate'] for r in (first, second, third)] == ['1', '2', '3']
  assert [[j['job_id'] for j in r['jobs']] for r in (first, second, third)] == [
      ['p1', 'p3', 'p4'], ['p1', 'p2', 'p3'], ['p1', 'p2', 'p3']]
  assert first['notes'] == ['1 of 2 tools meet no word of the jobs: gouge']
  assert first['jobs'][0]['title'] == 'Turner' and 'requirement' not in first
  assert third['notes'][0].startswith('4 attributes are missing')
  assert 'people.csv: no column for about' in caplog.text
  assert 'candidates 3 to 3: 1 have notes' in caplog.text


def test_the_requirement_is_found_over_all_of_them(opened, folder, run):
  out = folder / 'ranked.jsonl'
  tau = 0.75
  many.recommend_many(many.Request('run', str(folder / 'people.csv'), tau, 4, resolve=True), out)
  found = rows(out)
  assert {r['tau'] for r in found} == {tau} and len({r['requirement'] for r in found}) == 1
  assert 0.4 < found[0]['requirement'] < 0.6
  assert np.mean([r['eligibility'] for r in found]) == pytest.approx(tau, abs=1e-4)


def test_a_candidate_without_any_job_left_is_no_error(opened, folder):
  (folder / 'all.csv').write_text('person,post\n' + ''.join(f'2,{j.id}\n' for j in JOBS))
  out = folder / 'ranked.jsonl'
  many.recommend_many(many.Request('run', str(folder / 'people.csv'), 0.0,
                                   applied=str(folder / 'all.csv')), out)
  assert [(len(r['jobs']), r['eligibility'] is None) for r in rows(out)] == [
      (4, False), (0, True), (4, False)]


@pytest.mark.parametrize('name, text, message', [
    ('applied', 'post\np1\n', r'applied\.csv: must have a column with ids of candidates where man'),
    ('candidates', 'Years\n3\n', r"candidates\.csv: must have .* ids, person or .*got \['Years'\]"),
    ('catalogue', 'post,what,fit\nx,Turner,high\n', r"catalogue\.csv:2: job 'x': fit must be a n"),
])
def test_a_wrong_file_is_told_and_nothing_stays(opened, folder, name, text, message):
  path = folder / f'{name}.csv'
  path.write_text(text)
  asked = {'candidates': str(folder / 'people.csv'), name: str(path)}
  with pytest.raises(ValueError, match=message):
    many.recommend_many(many.Request('run', tau=0.0, **asked), folder / 'ranked.jsonl')
  assert not list(folder.glob('ranked*'))


def test_one_candidate_as_text_and_for_programs(run, folder):
  people = str(folder / 'people.csv')
  (folder / 'posts.csv').write_text('post,what,wish,fit,needs,contact\nx,Turner,1,2,lathe,Ann\n')
  text, warnings = jobs_for(run, people, '1', Asked(catalogue=str(folder / 'posts.csv')))
  assert 'Turner' in text and 'this catalogue has 1 jobs: --resolve' in text
  assert 'posts.csv: 1 columns are not read: contact' in warnings
  assert '2 of 2 tools meet no word of the jobs: gouge, saw' in warnings
  said, _ = jobs_for(run, people, '1', Asked(tau=0.75, applied=str(folder / 'log.csv'),
                                              resolve=True, as_json=True))
  said = json.loads(said)
  assert {j['job_id'] for j in said['jobs']} == {'p1', 'p3', 'p4'}  # p2 was applied to
  assert said['tau'] == 0.75 and 0.4 < said['requirement'] < 0.6
  assert said['eligibility'] == pytest.approx(0.75, abs=1e-4)
  assert warn(['a\x1b[0m']) == r'warning: a\x1b[0m'


def test_what_is_not_read_to_its_end_is_named(caplog):
  story = 'about of 1 of 1 candidates (the longest has 265 of 64 tokens)'
  jobs = 'role of 2 of 4 jobs (the longest has 40 of 24 tokens)'
  ranked = [RankedJobs((), 0.5, {'candidate': story, 'job': jobs}), RankedJobs((), 0.5, {}),
            RankedJobs((), 0.5, {'job': jobs})]
  assert [unread([r.unread]) for r in ranked[:2]] == [
      [f'not read to the end: {story}; {jobs}'], []]
  many.warn(ranked, 'candidates 1 to 3')
  assert caplog.messages == [f'candidates 1 to 3: not read to the end: {story}; {jobs}']
  many.warn(ranked[1:2], 'candidates 4 to 4')
  assert len(caplog.messages) == 1


def test_candidates_of_a_file_for_a_job(run, folder):
  people = str(folder / 'people.csv')
  text, warnings = candidates_for(run, people, 'p2', 'qualification', Asked(top_k=2))
  assert [line.split()[:2] for line in text.splitlines() if line.split()[0].isdigit()] == [
      ['1', '2'], ['2', '1']]
  assert 'Ranked by qualification.' in text
  assert any(w.startswith('people.csv: no column for about') for w in warnings)
  said, _ = candidates_for(run, people, 'p2', 'preference',
                           Asked(applied=str(folder / 'log.csv'), as_json=True))
  assert [c['candidate_id'] for c in json.loads(said)['candidates']] == ['2', '3']  # 1 has applied


@pytest.mark.parametrize('name, text, log, expected', [
    ('a.csv', 'job\np1\np2\n', None, {None: {'p1', 'p2'}}),
    ('a.csv', 'user_id;item_id;stars\n7.0;1.0;5\n', None, {'7': {'1'}}),
    ('A.JSONL', '{"candidate": "a", "job": "x", "preference": 1}\n'
                '{"candidate": "a", "job": "y", "preference": 0}\n'
                '{"candidate": "a", "job": "z", "preference": null}\n', None, {'a': {'x'}}),
    ('a.csv', 'person,post,applied\n1,p,stayed\n1,q,went\n', LOG, {'1': {'q'}}),
    ('a.csv', 'person,post,stage\n1,p,viewed\n1,q,hired\n',
     LogTable('a.csv', 'person', 'post', funnel=Funnel('stage', ('viewed', 'sent', 'hired'), 'sent',
                                                       'hired')), {'1': {'q'}}),
    ('a.csv', 'post\nq\n', LOG, {None: {'q'}})])
def test_applications_are_read_from_any_table(tmp_path, name, text, log, expected):
  (tmp_path / name).write_text(text)
  assert read_applied(tmp_path / name, log).jobs == expected


@pytest.mark.parametrize('name, text', [
    ('a.inter', 'user_id:token\titem_id:token\n12\tq 1\n12\t%4EA\n3\t5%25 "off"\n'),
    ('A.INTER', '\ufeffuser_id:token\titem_id:token\tpreference:float\r\n'
                '12.0\tq 1\t1.0\r\n12\t%4EA\t1\r\n3\t5%25 "off"\t1\r\n3\tq 1\t-1\r\n'
                '12\tz\t0.0\r\n'),
    ('a.csv', 'user_id,item_id\n12,q 1\n12.0,NA\n3,"5%25 ""off"""\n'),
    ('a.Jsonl', '\ufeff{"user_id": 12.0, "item_id": "q 1"}\n{"user_id": 12, "item_id": "NA"}\n'
                '{"user_id": "3", "item_id": "5%25 \\u0022off\\u0022"}')])
def test_one_rule_reads_applications_of_every_kind(tmp_path, monkeypatch, name, text):
  """Marks, line ends, suffixes in any case, `~`, 12.0, escapes; those of RecBole's files alone."""
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / name).write_text(text, encoding='utf-8', newline='')
  assert read_applied(f'~/{name}').jobs == {'12': {'q 1', 'NA'}, '3': {'5%25 "off"'}}


def test_our_own_export_says_who_has_applied_whatever_ids_are_like(dataset, tmp_path):
  odd = ('NA', 'null', '5%', '%', 'a "b"', 'a\tb', '%22', ' x ', 'é\u2028')
  candidates, jobs = ([dataclasses.replace(e, id=f'{e.id}{odd[i % 9]}' if i > 8 else odd[i])
                       for i, e in enumerate(of)] for of in (dataset.candidates, dataset.jobs))
  changed = dataclasses.replace(dataset, candidates=tuple(candidates), jobs=tuple(jobs))
  write_atomic(changed, tmp_path, 'own')
  log, expected = changed.interactions, {}
  for u, j in zip(log.candidate[log.preference == 1], log.job[log.preference == 1]):
    expected.setdefault(candidates[u].id, set()).add(jobs[j].id)
  assert read_applied(tmp_path / 'own.inter').jobs == expected


@pytest.mark.parametrize('text, message', [
    ('what,when\np1,1\n', r"a\.csv: must have a column with ids of jobs, .*got \['what', 'when'\]"),
    ('job\n""\n', r"a\.csv:2: job must be the id of a job, got ''"),
    ('job,applied\np,perhaps\n', r"a\.csv:2: applied must be yes or no, .*got 'perhaps'")])
def test_applications_that_cannot_be_read_are_named(tmp_path, text, message):
  (tmp_path / 'a.csv').write_text(text)
  with pytest.raises(ValueError, match=message):
    read_applied(tmp_path / 'a.csv')


LONG = 'person,Years,about\n1,3,short\n2,9,' + 'I build boats. ' * 9 + '\n'
UNREAD = 'not read to the end: about of somebody'


def test_what_does_not_fit_is_one_line(run, opened, folder, caplog):
  """Of the records that are asked for, whichever way they are asked."""
  path = str(folder / 'long.csv')
  (folder / 'long.csv').write_text(LONG)
  assert UNREAD in jobs_for(run, path, '2', Asked())[1]
  assert UNREAD not in jobs_for(run, path, '1', Asked())[1]
  for top_k in (1, 2):
    text, warnings = candidates_for(run, path, 'p2', 'qualification',
                                    Asked(top_k=top_k, as_json=True))
    assert warnings.count(UNREAD) == 1 and json.loads(text)['notes'] == warnings
    assert 'unread' not in json.loads(text)['candidates'][0]
  many.recommend_many(many.Request('run', path, 0.0), folder / 'ranked.jsonl', size=1)
  assert [r.getMessage() for r in caplog.records if 'not read' in r.getMessage()
          and 'columns' not in r.getMessage()] == [f'candidates 2 to 2: {UNREAD}']
