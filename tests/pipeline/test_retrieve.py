"""`recommend --retrieve`: a shortlist for one candidate or many, of jobs that no run has seen."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

from jobrec_jax.data.files.jsonl import render_entities
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.pipeline import recommend_many as many
from jobrec_jax.pipeline.load import load
from jobrec_jax.pipeline.recommend_one import Asked, jobs_for
from jobrec_jax.scoring import shortlist

ROOT = Path(__file__).parents[2]
JOBS, SCORED, TAU = 90, 60, 0.41


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Candidates and a catalogue of another market, of whose jobs two thirds are scored in full."""
  monkeypatch.setattr(shortlist, 'LEAST', SCORED)
  monkeypatch.setattr(shortlist, '_BESIDE', 2)
  market, _ = simulate(MarketConfig(candidates=12, jobs=JOBS, exposure=0.5), 9)
  for side in ('candidate', 'job'):
    entities = getattr(market, f'{side}s')
    text = render_entities(market.schema, side, entities[:3] if side == 'candidate' else entities)
    (tmp_path / f'{side}s.jsonl').write_bytes(text)
  return str(tmp_path / 'candidates.jsonl'), str(tmp_path / 'jobs.jsonl'), market


def test_one_candidate_has_a_shortlist_of_a_new_catalogue(tiny_folder, files):
  people, jobs, market = files
  run, name = load(tiny_folder), market.candidates[1].id
  asked = Asked(TAU, 5, jobs, retrieve=True)
  text, _ = jobs_for(run, people, name, asked)
  assert f'A shortlist: {SCORED} of {JOBS} jobs were scored in full' in text
  found, whole = (json.loads(jobs_for(run, people, name, Asked(
      TAU, 5, jobs, as_json=True, retrieve=retrieve))[0]) for retrieve in (True, False))
  assert found['scored'] == [SCORED, JOBS] and 'scored' not in whole
  assert found['tau'] == whole['tau'] == TAU
  assert found['eligibility'] == pytest.approx(whole['eligibility'], abs=0.02)
  ids, wanted = ([job['job_id'] for job in answer['jobs']] for answer in (found, whole))
  assert len(set(ids) & set(wanted)) >= 4
  for job in found['jobs']:
    same = next((j for j in whole['jobs'] if j['job_id'] == job['job_id']), None)
    assert same is None or job['score'] == pytest.approx(same['score'], abs=1e-4)


def test_many_candidates_have_shortlists(tiny_folder, files, tmp_path):
  people, jobs, market = files
  asked = many.Request(str(tiny_folder), people, TAU, 5, jobs, retrieve=True)
  assert many.recommend_many(asked, tmp_path / 'out.jsonl') == 3
  rows = [json.loads(line) for line in (tmp_path / 'out.jsonl').read_text().splitlines()]
  assert [row['candidate'] for row in rows] == [c.id for c in market.candidates[:3]]
  assert [row['scored'] for row in rows] == [[SCORED, JOBS]] * 3
  one, _ = jobs_for(load(tiny_folder), people, rows[2]['candidate'],
                    Asked(TAU, 5, jobs, as_json=True, retrieve=True))
  one = json.loads(one)
  assert [j['job_id'] for j in rows[2]['jobs']] == [j['job_id'] for j in one['jobs']]
  assert rows[2]['eligibility'] == pytest.approx(one['eligibility'], abs=1e-5)


def test_another_ranking_is_asked_for(tiny_folder, files):
  people, jobs, _ = files
  plain, retrieved = (many.check_request(many.Request(
      str(tiny_folder), people, TAU, 5, jobs, retrieve=retrieve)) for retrieve in (False, True))
  assert plain != retrieved


@pytest.mark.parametrize('more', [['--candidate=a.json', '--tau=0.5', '--resolve'],
                                  ['--candidates=a.json', '--job=J1']])
def test_a_shortlist_does_not_go_with_what_asks_for_all_scores(more):
  done = subprocess.run([sys.executable, '-m', 'experiments.recommend', '--run=none', '--retrieve',
                         *more], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode != 0
  assert done.stderr.strip().splitlines()[-1].endswith(
      '--retrieve must come without --resolve and --job, which ask for all scores')
