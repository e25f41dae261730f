"""The calibration stage: the scale of p_qual."""

from typing import NamedTuple

from absl import logging
import numpy as np

from jobrec_jax.data import lists as listing
from jobrec_jax.data.dataset import SPLITS
from jobrec_jax.pipeline.artefacts import load_calibration, save_calibration
from jobrec_jax.pipeline.censoring import scorer, warn
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema.files import load_array
from jobrec_jax.scoring.calibration import Calibration, fit_calibration, fit_offsets

VALIDATION, CALIBRATION = map(SPLITS.index, ('validation', 'calibration'))


def make_calibration(bench: Bench) -> None:
  """Fits b and t, and each job's shift of z, to applicants whom no step has learned from.

  They are those of the validation split and of half the calibration split: certificates need
  candidates that no fit has used. All count alike. Inverse propensities would make them stand for
  uniform pairs, and leave the worth of less than half of them to a map that has two numbers.

  With `calibration` 'none', or without an applicant, nothing is fitted: b = 0, t = 1 and no shifts,
  p_qual = sigmoid(s_qual). So it is where no label teaches qualification, and nobody reads p_qual.
  """
  dataset, experts = bench.inputs['data'].dataset, bench.inputs['experts']
  log, asked = dataset.interactions, bench.settings['calibration'] != 'none'
  half, _ = listing.calibration_halves(dataset)
  held_out = (log.split == VALIDATION) | (log.split == CALIBRATION) & np.isin(log.candidate, half)
  rows = np.flatnonzero(held_out & (log.qualification >= 0))
  taught = 'qualification' in perspectives(dataset)
  if not (asked and len(rows) and taught):
    if asked and taught:
      logging.warning('calibration: no labelled applicant in the validation split, nor of %d '
                      'candidates in half of the calibration split; p_qual = sigmoid(s_qual), b=0, '
                      't=1', len(half))
    save_calibration(bench.folder, Calibration(0.0, 1.0), np.zeros(len(dataset.jobs)))
    return
  score, job = scorer(bench, experts, dataset), log.job[rows]
  labels, alike = log.qualification[rows], np.ones(len(rows))
  scores = score.scores(log.candidate[rows], job).qualification
  calibration = fit_calibration(scores, labels, alike)
  offsets = fit_offsets(calibration.logit(scores), labels, alike, job, len(dataset.jobs))
  logging.info('calibration: b=%.3f, t=%.3f on %d applicants', *calibration, len(rows))
  warn('calibration', 'applicants', scores, labels)
  save_calibration(bench.folder, calibration, offsets)


class Calibrated(NamedTuple):
  """b and t, and [jobs] shifts of z that evaluation reports beside them."""

  calibration: Calibration
  job_offsets: np.ndarray


def read_calibration(bench: Bench) -> Calibrated:
  return Calibrated(load_calibration(bench.folder), load_array(bench.folder / 'job_offsets.npy'))
