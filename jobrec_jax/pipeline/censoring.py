"""What the log leaves out: whose outcome is seen, and who would have applied but did not dare."""

import dataclasses

from absl import logging
import numpy as np

from jobrec_jax.censoring.doubt import self_censoring
from jobrec_jax.censoring.estimators import effective_share
from jobrec_jax.data.dataset import SPLITS, Dataset
from jobrec_jax.objectives.censoring import ips_weights
from jobrec_jax.pipeline.data import no_propensity
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema.files import load_array, read_object, save_array, write_json
from jobrec_jax.scoring.calibration import doubts, fit_calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.sharding import own_mesh


@dataclasses.dataclass(frozen=True)
class Censoring:
  """What training makes up for.

  Attributes:
    weights: [rows of the log] of applicants in the train split, mean 1 over them, 0 elsewhere; None
      for ones.
    doubt: c of `objectives.self_censoring.application_logit`.
  """

  weights: np.ndarray | None = None
  doubt: float = 0.0

  def of_train(self, dataset: Dataset) -> np.ndarray | None:
    """The weights of the rows of the train split."""
    return None if self.weights is None else self.weights[dataset.interactions.split == TRAIN]


UNCENSORED = Censoring()
TRAIN = SPLITS.index('train')
EFFECTIVE = 0.1  # share of applicants below which few decide


def scorer(bench: Bench, experts: Experts, dataset: Dataset) -> PairScorer:
  """Scores pairs of a data set as the resources say, on the devices of this process."""
  return PairScorer(experts, experts.blocks(dataset), own_mesh(bench.resources.mesh),
                    bench.resources.scoring)


def warn(what: str, of: str, scores: np.ndarray, labels: np.ndarray) -> None:
  """Tells where a fit rests on its prior."""
  found = doubts(scores, labels)
  if found:
    logging.warning('%s: of %d %s %s; it leans on the prior b=0, t=1', what, len(labels), of,
                    ', and '.join(found))


def make_censoring(bench: Bench) -> None:
  """Weights of applicants from the experts after stage 1A, and how much doubt kept others away."""
  dataset, experts = bench.inputs['data'].dataset, bench.inputs['warm_up']
  found = {'doubt': self_censoring(dataset) if bench.settings['self_censoring'] != 'none' else 0.0}
  if found['doubt']:
    logging.info('censoring: an applicant who is sure not to be eligible applies to 1 - %.2f of '
                 'the jobs that are wanted', found['doubt'])
  if bench.settings['censoring'] != 'none' and not no_propensity(dataset):
    score = scorer(bench, experts, dataset)
    weights = applicant_weights(score, dataset, bench.settings['ips_clip'])
    w = weights[weights > 0]
    found |= {'applicants': len(w), 'largest': float(w.max(initial=0.0)),
              'effective_share': effective_share(w)}
    logging.info('censoring: weights of %d applicants, largest %.2f, effective share %.2f',
                 *(found[name] for name in ('applicants', 'largest', 'effective_share')))
    if found['effective_share'] < EFFECTIVE:
      logging.warning('censoring: %d applicants count as %.0f that are weighted alike; a few whose '
                      "application was least likely decide. Lower experts.ips_clip, or "
                      "experts.censoring='none' leaves the weights out", len(w),
                      found['effective_share'] * len(w))
    save_array(bench.folder / 'weights.npy', weights)
  write_json(bench.folder / 'summary.json', found)


def read_censoring(bench: Bench) -> Censoring:
  weights = bench.folder / 'weights.npy'
  return Censoring(load_array(weights) if weights.is_file() else None,
                   read_object(bench.folder / 'summary.json')['doubt'])


def applicant_weights(score: PairScorer, dataset: Dataset, clip: float) -> np.ndarray:
  """[rows of the log] inverse propensities of being an applicant, mean 1 over the train split's.

  The propensity is the chance of having been shown, which is logged, times that of applying, which
  the preference expert estimates: its logits are put on a scale by the exposed pairs of the
  validation split.
  """
  log = dataset.interactions
  fit = log.of('validation')
  fit = fit.where(fit.preference >= 0)
  scores = score.scores(fit.candidate, fit.job).preference
  scale = fit_calibration(scores, fit.preference, 1 / fit.exposure)
  warn('the scale of applications', 'shown jobs', scores, fit.preference)
  weights, rows = np.zeros(len(log)), np.flatnonzero((log.split == TRAIN)
                                                     & (log.qualification >= 0))
  if len(rows):
    applies = scale.probability(score.scores(log.candidate[rows], log.job[rows]).preference)
    weights[rows] = ips_weights(applies, np.ones(len(rows), bool), clip, known=log.exposure[rows])
  return weights
