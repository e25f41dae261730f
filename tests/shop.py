"""A shop whose scores are given: for tests of what surrounds a ranking, which need no model."""

from types import SimpleNamespace

import numpy as np

from jobrec_jax import recommend
from jobrec_jax.models.policy import PolicyHead
from jobrec_jax.recommend import Recommender
from jobrec_jax.schema.document import parse_schema
from jobrec_jax.schema.schema import Entity
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import PairScores
from jobrec_jax.scoring.policy import Policy

SHOP = parse_schema({
    'name': 'shop', 'title': 'role',
    'candidate': {'years': {'kind': 'integer'}, 'tools': {'kind': 'set'},
                  'towns': {'kind': 'set'}, 'about': {'kind': 'text'}},
    'job': {'role': {'kind': 'text'}, 'min_years': {'kind': 'integer'}, 'needs': {'kind': 'set'},
            'town': {'kind': 'category'}, 'wish': {'kind': 'number'}, 'fit': {'kind': 'number'}},
    'layers': {
        'rules': {'hard': True,
                  'years': {'candidate': 'years', 'job': 'min_years', 'compare': 'at_least',
                            'perspective': 'qualification'}},
        'craft': {'tools': {'candidate': 'tools', 'job': 'needs', 'compare': 'covers',
                            'perspective': 'qualification'},
                  'town': {'candidate': 'towns', 'job': 'town', 'compare': 'contains',
                           'perspective': 'preference', 'hard': True}}}}, 'shop')
ADA = Entity('ada', {'years': 3, 'tools': ('saw', 'gouge', 'Drill-Press'), 'towns': ('Oslo',),
                     'about': 'I build boats.'})
BO = Entity('bo', {'years': 9, 'tools': ('drill press',), 'towns': ('Bergen',), 'about': None})


def job(name, role, wish, fit, **more):
  return Entity(name, {'role': role, 'wish': wish, 'fit': fit, 'min_years': 2,
                       'needs': ('drill press', 'lathe', 'Saw'), 'town': 'Oslo'} | more)


JOBS = (job('p1', 'Turner', 2.0, -1.0), job('p2', 'Joiner', 1.0, 3.0, min_years=5),
        job('p3', 'Carver', 0.0, 1.0, town='Bergen'), job('p4', 'Fitter', -1.0, 2.0))


READ = 40  # characters of a story


class Blocks:
  """Who is scored."""

  def __init__(self, jobs, candidates=()):
    self.jobs, self.candidates, self.unread = jobs, candidates, {}
    if any(len(c['about'] or '') > READ for c in candidates):
      self.unread['candidate'] = 'about of somebody'

  def with_candidates(self, candidates):
    return Blocks(self.jobs, candidates)


class Scorer:
  """s_pref is what a job is wished for, s_qual how it fits, plus a tenth of the years."""

  def __init__(self, blocks):
    self.blocks = blocks

  def with_blocks(self, blocks):
    return Scorer(blocks)

  def policy_scores(self, policy, candidate, job):
    def of(name):
      return np.array([[self.blocks.jobs[j][name] for j in row] for row in job], np.float32)
    years = np.array([[self.blocks.candidates[u]['years'] or 0 for u in row] for row in candidate])
    lam = np.broadcast_to(np.float32([0, 1, 3]), (*job.shape, 3))
    return PairScores(of('wish'), (of('fit') + years / 10).astype(np.float32), lam)


def make_ranker(monkeypatch):
  """(jobs, missing, constraint) -> a recommender with these scores."""
  monkeypatch.setattr(recommend, 'PairScorer', lambda experts, blocks, mesh, settings:
                      Scorer(blocks))
  experts = SimpleNamespace(blocks=lambda dataset: Blocks(dataset.jobs))

  def make(jobs=JOBS, missing=None, constraint='inequality'):
    policy = Policy(PolicyHead(widths=(4,), outputs=3), {}, np.array([0.4, 0.5, 0.6], np.float32),
                    1.0, constraint)
    return Recommender(SHOP, experts, Calibration(0.0, 1.0), policy, jobs, None, missing=missing)
  return make
