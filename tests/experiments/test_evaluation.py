"""The evaluation's wiring, with experts that know the truth in place of trained ones."""

import math

from experiments.alignment import Policies, make_head
from experiments.setup import Run
import jax
import numpy as np
import pytest
from scipy.special import logit

from configs import base
from experiments import evaluation, reporting, stages
from jobrec_jax.data.dataset import UNOBSERVED
from jobrec_jax.data.lists import RankingLists
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import PAD, corpus, save_tokenizer, train_tokenizer
from jobrec_jax.report.results import read_results
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import ExpertFeatures
from jobrec_jax.scoring.policy import Policy

CALIBRATION = Calibration(b=0.0, t=2.0)  # the fake expert's logits are twice too large


class TrueExperts:
  """Experts whose logits are the truth's; without narratives they know nothing."""

  def __init__(self, truth):
    self._truth = truth
    self.params = {'w': np.zeros(3)}
    self.blocks = self
    self.vocab_size = 600

  def extractor(self, config):
    return self

  def with_blocks(self, blocks):
    return lambda u, j, name='': ExpertFeatures(
        np.zeros((*u.shape, 2, 4)), np.zeros(u.shape), np.zeros(u.shape))

  def __call__(self, u, j, name=''):
    hidden = np.zeros((*u.shape, 2, 4), np.float32)
    return ExpertFeatures(hidden, logit(self._truth.preference[u, j]),
                          CALIBRATION.t * logit(self._truth.qualification[u, j]))


@pytest.fixture(scope='module')
def config():
  c = base.get_config()
  with c.unlocked():
    c.policy.list_length, c.policy.held_out, c.policy.width = 8, 30, 4
    c.evaluate.resamples = 50
    c.tokenizer.vocab_size, c.tokenizer.candidate, c.tokenizer.job = 400, 800, 400
  return c


@pytest.fixture(scope='module')
def market():
  return simulate(MarketConfig(candidates=80, jobs=24), 0)


def policies_of(config):
  """Constant lambda 0, 0.5 and 2 at the requirements 0, 0.3 and 0.5."""
  head = make_head(config, 3)
  hidden = np.zeros((1, 1, 4), np.float32)
  params = head.init(jax.random.key(0), hidden, hidden)['params']
  params['lambda']['bias'] = np.array([0.0, 0.5, 2.0], np.float32)
  policy = Policy(head, params, np.array([0.0, 0.3, 0.5], np.float32))
  return Policies(policy, [0.0, 0.3, 0.5], np.tile([[0.31], [0.48]], (1, 5)), (0.2, 0.6), None)


@pytest.fixture(scope='module')
def evaluated(config, market, tmp_path_factory):
  dataset, truth = market
  run = Run(tmp_path_factory.mktemp('run'))
  save_tokenizer(train_tokenizer(corpus(dataset), 400), run / 'tokenizer.json')
  experts, policies = TrueExperts(truth), policies_of(config)
  stages.calibrate(config, run, dataset, experts)
  results = evaluation.evaluate(config, run, dataset, truth, experts, CALIBRATION, policies)
  return run, dataset, experts, policies, results


def value(results, **where):
  found = [r for r in results.rows if all(getattr(r, k) == v for k, v in where.items())]
  assert len(found) == 1, where
  return found[0]


def test_no_row_occurs_twice(evaluated):
  keys = [(r.system, r.tau, r.split, r.perspective, r.metric, r.against)
          for r in evaluated[-1].rows]
  assert len(keys) == len(set(keys))


@pytest.mark.parametrize('split', ['cold candidates', 'both cold'])
@pytest.mark.parametrize('perspective', ['preference', 'qualification'])
def test_true_experts_reach_the_ceiling(evaluated, split, perspective):
  where = {'split': split, 'perspective': perspective, 'metric': 'ndcg@5', 'against': None,
           'tau': None}
  own = value(evaluated[-1], system=f'{perspective} expert', **where)
  ceiling = value(evaluated[-1], system=evaluation.CEILINGS[perspective], **where)
  constant = value(evaluated[-1], system='canary: constant', **where)
  assert own.value == pytest.approx(ceiling.value, abs=1e-9)
  assert own.value > constant.value + 0.1


def test_a_constant_scorer_recalls_one_in_n(evaluated):
  dataset = evaluated[1]
  row = value(evaluated[-1], split='cold candidates', perspective='preference',
              system='canary: constant', metric='recall@1')
  assert row.value == pytest.approx(1 / len(np.unique(dataset.interactions.of('train').job)))


def test_differences_are_paired_and_blanking_loses(evaluated):
  for rival in (*evaluation.RIVALS, evaluation.BLANKED):
    row = value(evaluated[-1], split='cold candidates', perspective='preference', against=rival)
    rows = [value(evaluated[-1], split='cold candidates', perspective='preference', tau=None,
                  metric='ndcg@5', system=s, against=None) for s in (evaluation.PREFERENCE, rival)]
    assert row.value == pytest.approx(rows[0].value - rows[1].value)
    assert row.low <= row.value <= row.high
    assert row.value > 0


def test_policy_rows_follow_lambda(evaluated):
  results = evaluated[-1]
  def over_tau(metric, split):
    return [value(results, system='policy', tau=t, metric=metric, split=split,
                  perspective='policy').value for t in (0.0, 0.3, 0.5)]
  for metric, split in (('predicted C', 'held-out lists'), ('true C', 'held-out lists'),
                        ('true eligibility@5', 'cold candidates')):
    values = over_tau(metric, split)
    assert values == sorted(values)
    assert values[0] < values[-1]
  # Calibrated experts that know the truth predict it.
  np.testing.assert_allclose(over_tau('predicted C', 'held-out lists'),
                             over_tau('true C', 'held-out lists'), atol=1e-5)
  assert value(results, metric='monotone true C').value == 1
  assert value(results, metric='|C − τ|', tau=0.3).value == pytest.approx(0.01)
  assert [c.tau for c in results.control] == [0.3, 0.5]
  free = value(results, system='policy', tau=0.0, metric='ndcg@5', split='cold candidates')
  expert = value(results, system=evaluation.PREFERENCE, metric='ndcg@5', against=None,
                 split='cold candidates', perspective='preference')
  assert free.value == pytest.approx(expert.value)


def test_calibration_and_correlations(evaluated):
  results = evaluated[-1]
  calibrated = value(results, system='qualification expert', metric='calibration error')
  raw = value(results, system='qualification expert, uncalibrated', metric='calibration error')
  assert calibrated.value < 1e-5 < 0.02 < raw.value
  own = value(results, system='qualification expert', metric='correlation with Q')
  assert own.value == pytest.approx(1, abs=1e-6)
  assert calibrated.n == own.n == 20 * 24  # every test candidate with every job


def test_the_report_holds_figures_and_fetches_nothing(evaluated, config):
  run, dataset, experts, policies, results = evaluated
  reporting.report(config, run, dataset, experts, policies, results, {'data': 1.0})
  page = (run / 'report.html').read_text()
  assert page.count('<img') == 3  # nothing was trained: no training curves
  assert 'http:' not in page and 'https:' not in page
  assert len(read_results(run / 'results.json')) == len(results.rows)
  assert 'popularity' in (run / 'results.md').read_text()


def test_without_truths_labels_are_ranked(config, market, evaluated):
  dataset, _ = market
  run, _, experts, policies, _ = evaluated
  with pytest.raises(ValueError, match=r'must be made for data \w+ without truth, .* got data'):
    evaluation.evaluate(config, run, dataset, None, experts, CALIBRATION, policies)
  (run / 'evaluation_lists.npz').unlink()
  results = evaluation.evaluate(config, run, dataset, None, experts, CALIBRATION, policies)
  assert {r.split for r in results.rows} == {'test', 'held-out lists', 'stage 2 lists',
                                             'test applicants'}
  assert not any('true' in r.system or 'true' in r.metric for r in results.rows)
  test = dataset.interactions.of('test')
  assert value(results, system='qualification expert', metric='calibration error').n <= (
      test.qualification != UNOBSERVED).sum()
  reporting.report(config, run, dataset, experts, policies, results, {})
  assert (run / 'report.html').read_text().count('<img') == 2


def test_canaries_see_only_the_lists(market):
  dataset, _ = market
  train = dataset.interactions.of('train')
  rows = np.flatnonzero(train.preference == 0)[:1], np.flatnonzero(train.preference == 1)[:1]
  u, j = (np.concatenate([getattr(train, k)[r] for r in rows])[None] for k in ('candidate', 'job'))
  lists = RankingLists('preference', u, j, np.zeros((1, 2), bool), np.ones((1, 2), bool))
  scores = evaluation.canary_scores(dataset, lists)
  assert scores['canary: train negative'].tolist() == [[-1, 0]]
  assert scores['canary: position'].tolist() == [[0, -1]]
  assert np.unique(scores['canary: id hash']).size == 2


def test_blanking_removes_narratives_alone(config, market, evaluated):
  dataset, _ = market
  run = evaluated[0]
  blocks = evaluation.blank_blocks(config, run, dataset)
  full = stages.make_blocks(config, run, dataset)
  assert full.cut['candidate'] == full.cut['job'] == 0
  for blank, whole in ((blocks.candidates, full.candidates), (blocks.jobs, full.jobs)):
    assert blank.shape[1] <= whole.shape[1]
    # A text without its narrative is shorter, and so are the blocks.
    assert ((blank != PAD).sum(1) < (whole != PAD).sum(1)).all()
  assert not any(n in e.attributes for n in evaluation.narratives(dataset.schema)
                 for e in (*blocks._dataset.candidates, *blocks._dataset.jobs))
  before, after = dataset.candidates[0].attributes, blocks._dataset.candidates[0].attributes
  assert set(before) - set(after) == {'student_llm_output', 'extrac_1', 'extrac_2'}


def test_pair_features_look_up_what_was_computed(market):
  dataset, truth = market
  rng = np.random.default_rng(0)
  shape = (3, 5)
  lists = RankingLists('preference', rng.integers(0, 80, shape), rng.integers(0, 24, shape),
                       np.zeros(shape, bool), np.ones(shape, bool))
  seen = evaluation.PairFeatures(TrueExperts(truth), dataset, [lists]).of(lists)
  np.testing.assert_array_equal(seen.preference,
                                logit(truth.preference[lists.candidate, lists.job]))


def test_main_numbers_are_finite(evaluated):
  for r in evaluated[-1].rows:
    if r.metric == 'ndcg@5':
      assert all(map(math.isfinite, (r.value, r.low, r.high))), r
