"""Certificates of a policy's true eligibility, from lists whose every label is known."""

from typing import NamedTuple

from ml_collections import ConfigDict
import numpy as np

from experiments.setup import section
from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.lists import (
  RankingLists,
  calibration_halves,
  candidates_of,
  uniform_lists,
  warm_jobs,
)
from jobrec_jax.evaluate.certification import (
  CRC,
  LTT,
  CertifiedRow,
  CertifyConfig,
  certify,
  policy_losses,
)
from jobrec_jax.report.html import Section
from jobrec_jax.report.results import Table, format_number
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import FeatureExtractor
from jobrec_jax.scoring.policy import Policy

_HELD_BACK, _TEST, FRESH = 2, 3, 4  # added to the seed: the draws of lists


class Scored(NamedTuple):
  """Lists, one a candidate, and what the policy does on them at each of M values of tau.

  Attributes:
    lists: relevance is eligibility.
    scores: [M, N, J] of the policy.
    p_qual: [N, J] what the expert believes.
    losses, predicted: by name, [N, M] shares of ineligible jobs, by labels and by p_qual.
  """

  lists: RankingLists
  scores: np.ndarray
  p_qual: np.ndarray
  losses: dict[str, np.ndarray]
  predicted: dict[str, np.ndarray]

  def risks(self) -> dict[str, np.ndarray]:
    """[M] mean losses."""
    return {name: values.mean(0) for name, values in self.losses.items()}


class Scorer(NamedTuple):
  """The trained parts, fixed before any label of a certificate is seen."""

  extractor: FeatureExtractor
  calibration: Calibration
  policy: Policy

  def taus(self, points: int) -> np.ndarray:
    return np.linspace(self.policy.knots[0], self.policy.knots[-1], points)

  def __call__(self, config: ConfigDict, truth: Truth, candidates: np.ndarray, jobs: np.ndarray,
               draw: int, name: str) -> Scored:
    lists = uniform_lists(truth.eligible, candidates, jobs, config.policy.list_length,
                          config.seed + draw)
    features = self.extractor(lists.candidate, lists.job, name)
    scores = np.stack([self.policy.score(features, self.calibration, float(tau))[0]
                       for tau in self.taus(config.certify.points)])
    p_qual = np.asarray(self.calibration.probability(features.qualification))
    losses, predicted = (policy_losses(scores, y, lists.mask, config.certify.k,
                                       config.policy.temperature)
                         for y in (lists.relevance, p_qual))
    return Scored(lists, scores, p_qual, losses, predicted)


def held_back(config: ConfigDict, dataset: Dataset, truth: Truth, scorer: Scorer) -> Scored:
  """The half of the calibration split that nothing was fitted to."""
  return scorer(config, truth, calibration_halves(dataset)[1], warm_jobs(dataset), _HELD_BACK,
                'certificate lists')


def certified_rows(config: ConfigDict, dataset: Dataset, truth: Truth,
                   scorer: Scorer) -> list[CertifiedRow]:
  """Certificates from the held-back candidates, beside the labels of the test's."""
  mine = held_back(config, dataset, truth, scorer)
  others = candidates_of(dataset, 'cold_candidates')[:config.policy.held_out]
  test = scorer(config, truth, others, warm_jobs(dataset), _TEST, 'certificate check')
  return certify(mine.losses, mine.predicted, scorer.taus(config.certify.points),
                 section(CertifyConfig, config.certify), test.risks())


def certified_table(rows: list[CertifiedRow], config: ConfigDict, true: str) -> Table:
  """Args: true: whose mean the true column is."""
  level = 1 - config.certify.alpha
  promise = {LTT: f'≥ {level:.3g} with probability {1 - config.certify.delta:.3g}',
             CRC: f'≥ {level:.3g} on average'}

  def number(value):
    return '–' if value is None else format_number(value)
  cells = tuple((f'{r.loss}, {r.method}', number(r.tau), number(r.predicted), number(r.observed),
                 number(r.true), 'none' if r.tau is None else promise[r.method], f'{r.n:,}')
                for r in rows)
  return Table('Certified eligibility',
               ('of', 'τ', 'predicted', 'labels seen', f'true, {true}', 'certified', 'n'), cells)


def certified_section(config: ConfigDict, rows: list[CertifiedRow]) -> list[Section]:
  """Nothing where there are no rows."""
  if not rows:
    return []
  c = config.certify
  return [Section(
      'Certified',
      'The least τ at which labels show, not the expert, that the share of ineligible jobs '
      f'recommended is at most α = {c.alpha:g}: of the whole distribution, and of the top {c.k}. '
      'Learn-then-test is wrong with a probability of at most '
      f'δ = {c.delta:g} over the candidates that it sees; conformal risk control promises the same '
      'on average alone. The lists seen are of calibration candidates that no fit has used, one '
      'each.\n\nBoth assume that candidates to come are like these (exchangeable), and that every '
      'label of a list is known, as in a simulated market: labels of applicants alone show '
      'something else, and certify nothing.',
      tables=[certified_table(rows, config, 'test candidates')])]
