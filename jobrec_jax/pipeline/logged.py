"""Held-out candidates as the log shows them: what tells how eligible a policy's jobs are in truth.

Two populations: those whose applicants p_qual was scaled on, by which a policy may be made to keep
its requirement, and those of the test, which judge it.
"""

import dataclasses
from typing import NamedTuple

from absl import logging
import numpy as np

from jobrec_jax.data.dataset import SPLITS, Dataset, pair_code
from jobrec_jax.data.lists import (
    RankingLists,
    candidates_of,
    uniform_lists,
    unseen_candidates,
    warm_jobs,
)
from jobrec_jax.evaluate.off_policy import LoggedLists
from jobrec_jax.objectives.self_censoring import application_logit
from jobrec_jax.pipeline.censoring import UNCENSORED, scorer
from jobrec_jax.pipeline.data import no_propensity
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_arrays, save_arrays
from jobrec_jax.scoring.calibration import Calibration, fit_calibration
from jobrec_jax.scoring.features import PairScorer

FITTED, TEST = 'fitted', 'test'
_ARRAYS = ('preference', 'z_qual', 'applies', 'exposure', 'label')


class Logged(NamedTuple):
  """Both populations; None where the log does not tell enough of it.

  Attributes:
    fitted: validation, and half the calibration split.
    test: candidates whom nothing was fitted to.
  """

  fitted: LoggedLists | None
  test: LoggedLists | None


def make_logged(bench: Bench) -> None:
  """Draws jobs for the candidates of both populations, and keeps scores and what the log says."""
  s, dataset = bench.settings, bench.inputs['data'].dataset
  why = no_propensity(dataset)
  if why or len(perspectives(dataset)) < 2:
    logging.info('logged: no estimate of C from the log, for %s',
                 why or 'it teaches one perspective alone')
    save_arrays(bench.folder / 'logged.npz', {})
    return
  score = scorer(bench, bench.inputs['experts'], dataset)
  calibration = bench.inputs['calibration'].calibration
  doubt = bench.inputs.get('censoring', UNCENSORED).doubt
  scale = application_scale(score, dataset, calibration, doubt)
  known = candidates_of(dataset, 'train')
  people = {FITTED: unseen_candidates(dataset), TEST: candidates_of(dataset, 'test')}
  arrays = {}
  for name, candidates in people.items():
    candidates = np.setdiff1d(candidates, known)  # else some of their jobs stand in train
    if len(candidates) < 2:
      logging.info('logged: %d candidates of %s have no row in train; no estimate of C from them',
                   len(candidates), name)
      continue
    nothing = np.zeros((len(dataset.candidates), len(dataset.jobs)), bool)
    lists = uniform_lists(nothing, candidates, warm_jobs(dataset), s['list_length'],
                          streams.seed32(s['seed'], f'logged lists, {name}'))
    found = look_up(score, dataset, lists, calibration, doubt, scale)
    if not (found.label >= 0).any():  # as where whole groups are held out, of jobs too
      logging.info('logged: no outcome of %s is of a job that training knows; no estimate of C '
                   'from them', name)
      continue
    arrays |= {f'{name}|{key}': getattr(found, key) for key in _ARRAYS}
    arrays |= {f'{name}|{key}': getattr(found.lists, key) for key in
               ('candidate', 'job', 'relevance', 'mask')}
  save_arrays(bench.folder / 'logged.npz', arrays)


def application_scale(score: PairScorer, dataset: Dataset, calibration: Calibration,
                      doubt: float) -> Calibration:
  """The scale of the logit of applying, by the pairs shown in the validation split."""
  fit = dataset.interactions.of('validation')
  fit = fit.where(fit.preference >= 0)
  found = score.scores(fit.candidate, fit.job)
  logits = application_logit(found.preference, calibration.logit(found.qualification), doubt)
  return fit_calibration(np.asarray(logits), fit.preference, np.ones(len(fit)))


def look_up(score: PairScorer, dataset: Dataset, lists: RankingLists, calibration: Calibration,
            doubt: float, scale: Calibration) -> LoggedLists:
  """What experts and log say of the pairs of some lists."""
  found = score.scores(lists.candidate, lists.job)
  z_qual = np.asarray(calibration.logit(found.qualification), np.float32)
  applies = scale.probability(np.asarray(application_logit(found.preference, z_qual, doubt)))
  log = dataset.interactions
  log = log.where((log.split != SPLITS.index('train')) & (log.preference >= 0))
  codes, first = np.unique(pair_code(log.candidate, log.job), return_index=True)
  asked = pair_code(lists.candidate, lists.job)
  at = np.minimum(np.searchsorted(codes, asked), max(len(codes) - 1, 0))
  shown = codes[at] == asked
  rows = first[at]
  exposure = np.where(shown, log.exposure[rows], np.nan)
  if np.all(exposure[shown] == 1) and not shown.all():
    exposure[shown] = shown.mean()
    logging.info('logged: the log names no exposure; what was shown, %.0f%% of the pairs, is taken '
                 'for a random part', 100 * shown.mean())
  lists = dataclasses.replace(lists, relevance=shown & (log.preference[rows] == 1))
  label = np.where(lists.relevance, log.qualification[rows], -1).astype(np.int8)
  return LoggedLists(lists, found.preference, z_qual, applies.astype(np.float32),
                     exposure.astype(np.float32), label)


def read_logged(bench: Bench) -> Logged:
  arrays = load_arrays(bench.folder / 'logged.npz')

  def population(name: str) -> LoggedLists | None:
    if f'{name}|label' not in arrays:
      return None
    lists = RankingLists('preference', *(arrays[f'{name}|{key}'] for key in (
        'candidate', 'job', 'relevance', 'mask')))
    return LoggedLists(lists, *(arrays[f'{name}|{key}'] for key in _ARRAYS))
  return Logged(population(FITTED), population(TEST))
