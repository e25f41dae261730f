"""What is measured on held-out candidates and jobs, as tidy rows; the maths is in the library."""

from collections.abc import Iterable
import dataclasses
import hashlib
from typing import Any, NamedTuple

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments.alignment import Policies
from experiments.certification import Scorer, certified_rows
from experiments.setup import Run, section
from experiments.stages import Experts, load_job_offsets
from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.logistic import Logistic
from jobrec_jax.baselines.oracle import Oracle
from jobrec_jax.baselines.popularity import Popularity
from jobrec_jax.baselines.random_scorer import Constant, Random
from jobrec_jax.baselines.rules import Rules
from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.lists import (
  RankingLists,
  candidates_of,
  labelled_lists,
  load_lists,
  policy_lists,
  save_lists,
  truth_lists,
  warm_jobs,
)
from jobrec_jax.data.tokens import BlockEncoder, BlockLengths, load_tokenizer
from jobrec_jax.evaluate.certification import CertifiedRow
from jobrec_jax.evaluate.control import ControlRow, control_rows, is_monotone
from jobrec_jax.evaluate.deconflation import deconflation_rows
from jobrec_jax.evaluate.eligibility import (
  calibration_error,
  calibration_error_by_group,
  expected_eligibility,
  policy_probabilities,
  violation_rate_at_k,
)
from jobrec_jax.evaluate.ranking import ranking_metrics
from jobrec_jax.evaluate.statistics import Interval, bootstrap_mean, paired_difference
from jobrec_jax.report.results import ResultRow
from jobrec_jax.schema.schema import PERSPECTIVES, Schema
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import ExpertFeatures, FeatureExtractor

PREFERENCE, QUALIFICATION = 'preference expert', 'qualification expert'
BLANKED = f'{PREFERENCE}, narratives blanked'
RIVALS = ('popularity', 'schema rules', 'logistic regression')
CEILINGS = {'preference': 'true P (ceiling)', 'qualification': 'true Q (ceiling)'}
HELD_OUT, STAGE_2 = 'held-out lists', 'stage 2 lists'
ELIGIBILITY = 'true eligibility@5'

Case = tuple[str, str]  # split, perspective
Scores = dict[str, np.ndarray]  # system -> [N, J]


class Evaluation(NamedTuple):
  """The rows of results.json, and what the figures show beside them.

  Attributes:
    rows: every number.
    split: where systems are compared first: 'cold candidates', or 'test' without truths.
    control: asked and reached eligibility, one for each requirement.
    predicted, outcome: [pairs] p_qual and the true Q; without truths the applicants' labels.
    certified: certificates of true eligibility; none without truths.
  """

  rows: list[ResultRow]
  split: str
  control: list[ControlRow]
  predicted: np.ndarray
  outcome: np.ndarray
  certified: list[CertifiedRow]


class PairFeatures:
  """The experts' features of all pairs of some lists, computed in one pass and looked up after."""

  def __init__(self, extractor: FeatureExtractor, dataset: Dataset, lists: Iterable[RankingLists]):
    self._jobs = len(dataset.jobs)
    self._codes = np.unique(np.concatenate(
        [self._code(x.candidate, x.job).ravel() for x in lists]))
    self._features = extractor(*np.divmod(self._codes, self._jobs), 'test features')

  def _code(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    return candidate.astype(np.int64) * self._jobs + job

  def of(self, lists: RankingLists) -> ExpertFeatures:
    """[N, J] features of the pairs of lists that were named when this was made."""
    return self._features[np.searchsorted(self._codes, self._code(lists.candidate, lists.job))]


def evaluate(config: ConfigDict, run: Run, dataset: Dataset, truth: Truth | None, experts: Experts,
             calibration: Calibration, policies: Policies) -> Evaluation:
  """Ranks held-out pairs with every system, and measures what the policies reach on them."""
  boot = {'seed': config.seed, 'resamples': config.evaluate.resamples,
          'level': config.evaluate.level}
  cases = frozen_lists(config, run, dataset, truth)
  held_out = cases.pop((HELD_OUT, 'preference'))
  split = next(iter(cases))[0]
  extractor = experts.extractor(config)
  features = PairFeatures(extractor, dataset, [*cases.values(), held_out])

  scores = score_systems(config, dataset, truth, features, cases)
  blank = extractor.with_blocks(blank_blocks(config, run, dataset))
  wanted = cases[split, 'preference']
  scores[split, 'preference'][BLANKED] = blank(wanted.candidate, wanted.job,
                                               'narratives blanked').preference
  rows = ranking_rows(cases, scores, truth, boot)
  policy, control = policy_rows(config, truth, policies, calibration, features, held_out, split,
                                wanted, boot)
  pairs = [cases[c] for c in cases if c[1] == ('qualification' if truth is None else 'preference')]
  predicted, outcome, calibrated = calibration_rows(
      truth, calibration, load_job_offsets(run), features, pairs, boot)
  rows += policy + calibrated
  certified = []
  if truth is not None:
    rows += correlation_rows(truth, features, pairs, boot)
    certified = certified_rows(config, dataset, truth,
                               Scorer(extractor, calibration, policies.policy))
  return Evaluation(rows, split, control, predicted, outcome, certified)


def result(system: str, tau: float | None, split: str, perspective: str, metric: str,
           interval: Interval, against: str | None = None) -> ResultRow:
  return ResultRow(system, tau, split, perspective, metric, *interval, against)


def exact(value: float, n: int) -> Interval:
  """A number without an interval."""
  return Interval(float(value), np.nan, np.nan, n)


def frozen_lists(config: ConfigDict, run: Run, dataset: Dataset,
                 truth: Truth | None) -> dict[Case, RankingLists]:
  """The lists that every system ranks: drawn once for a run, stored in it and checked after.

  Those of jobrec_synth come with the data set; only the policy's held-out lists are drawn here.
  """
  path = run / 'evaluation_lists.npz'
  p = config.policy
  made_for = (f'data {dataset.fingerprint()} {"without" if truth is None else "with"} truth, '
              f'{p.held_out} held-out lists of {p.list_length}, seed {config.seed}')
  if path.exists():
    named = load_lists(path, made_for)
  else:
    unseen = 'test' if truth is None else 'cold_candidates'
    cases = ranked_lists(config, dataset, truth) | {(HELD_OUT, 'preference'): policy_lists(
        dataset, unseen, p.list_length, p.held_out, config.seed + 1)}
    named = {'/'.join(case): lists for case, lists in cases.items()}
    save_lists(path, named, made_for)
  for name, lists in named.items():
    logging.info('evaluation lists %s: %d, fingerprint %s', name, len(lists), lists.fingerprint())
  return {tuple(name.split('/')): lists for name, lists in named.items()}


def ranked_lists(config: ConfigDict, dataset: Dataset,
                 truth: Truth | None) -> dict[Case, RankingLists]:
  """The full ranking of a simulated market, the frozen lists of jobrec_synth, or test labels.

  Returns:
    Lists of each split and perspective. 'cold candidates' crosses test candidates with jobs that
    training has seen, 'both cold' with those that it has not; 'test' holds labelled pairs.
  """
  if config.data.source == 'jobrec_synth':
    # Here, for tensorflow-datasets takes a second to import.
    from jobrec_jax.data.market.jobrec_synth.reader import read_synth_lists
    drawn = read_synth_lists(config.data.folder, config.data.size)
    return {(kind.replace('_', ' '), p): drawn[f'{p}_{kind}']
            for kind in ('cold_candidates', 'warm', 'cold_jobs', 'both_cold') for p in PERSPECTIVES}
  if truth is None:
    return {('test', p): labelled_lists(dataset, 'test', p) for p in PERSPECTIVES}
  candidates, warm = candidates_of(dataset, 'cold_candidates'), warm_jobs(dataset)
  cold = np.unique(dataset.interactions.of('both_cold').job)
  grids = {'cold candidates': warm, 'both cold': cold}
  return {(split, p): truth_lists(truth, p, candidates, jobs)
          for split, jobs in grids.items() if len(jobs) for p in PERSPECTIVES}


def narratives(schema: Schema) -> set[str]:
  """The texts of the layer `narrative`: where a candidate's taste shows, if anywhere."""
  return {name for layer in schema.layers if layer.name == 'narrative' for field in layer.fields
          for side in ('candidate', 'job') for name in field.attributes(side)}


def blank_blocks(config: ConfigDict, run: Run, dataset: Dataset) -> BlockEncoder:
  """Token blocks of the same records without their narratives."""
  texts = narratives(dataset.schema)

  def blank(entities):
    return tuple(dataclasses.replace(e, attributes={
        k: v for k, v in e.attributes.items() if k not in texts}) for e in entities)
  return BlockEncoder(dataclasses.replace(dataset, candidates=blank(dataset.candidates),
                                          jobs=blank(dataset.jobs)),
                      load_tokenizer(run / 'tokenizer.json'),
                      section(BlockLengths, config.tokenizer))


def score_systems(config: ConfigDict, dataset: Dataset, truth: Truth | None,
                  features: PairFeatures, cases: dict[Case, RankingLists]) -> dict[Case, Scores]:
  """Scores of every system for the same lists, in the order in which they are shown."""
  aligned = AlignmentFeatures(dataset)
  scores: dict[Case, Scores] = {case: {} for case in cases}
  for perspective in PERSPECTIVES:
    rivals = dict(zip(RIVALS, (Popularity(), Rules(aligned), Logistic(aligned))))
    rivals |= {'canary: constant': Constant(), 'canary: random': Random(config.seed)}
    if truth is not None:
      rivals = {CEILINGS[perspective]: Oracle(truth)} | rivals
    rivals = {name: rival.fit(dataset, perspective) for name, rival in rivals.items()}
    for case, lists in cases.items():
      if case[1] == perspective:
        seen = features.of(lists)
        scores[case] = {PREFERENCE: seen.preference, QUALIFICATION: seen.qualification}
        scores[case] |= {
            name: rival.score(lists.candidate.ravel(), lists.job.ravel()).reshape(lists.job.shape)
            for name, rival in rivals.items()}
        scores[case] |= canary_scores(dataset, lists)
  return scores


def canary_scores(dataset: Dataset, lists: RankingLists) -> Scores:
  """Canaries that look at the lists alone: a hash of the ids, the position, train negatives."""
  pairs = list(zip(lists.candidate.ravel().tolist(), lists.job.ravel().tolist()))
  digests = b''.join(hashlib.blake2b(
      f'{dataset.candidates[u].id}\0{dataset.jobs[j].id}'.encode(), digest_size=8).digest()
      for u, j in pairs)
  train = dataset.interactions.of('train')
  train = train.where(getattr(train, lists.perspective) == 0)
  negatives = set(zip(train.candidate.tolist(), train.job.tolist()))
  looked_up = np.array([-float(pair in negatives) for pair in pairs])
  shape = lists.job.shape
  return {'canary: id hash': np.frombuffer(digests, '<u8').astype(float).reshape(shape),
          'canary: position': np.broadcast_to(-np.arange(shape[1], dtype=float), shape),
          'canary: train negative': looked_up.reshape(shape)}


def ranking_rows(cases: dict[Case, RankingLists], scores: dict[Case, Scores], truth: Truth | None,
                 boot: dict[str, Any]) -> list[ResultRow]:
  """All ranking metrics of all systems, then the experts' paired differences in NDCG@5."""
  rows, paired = [], []
  for (split, perspective), lists in cases.items():
    ndcg = {}
    for system, values in scores[split, perspective].items():
      metrics = ranking_metrics(values, lists.relevance, lists.mask)
      ndcg[system] = metrics['ndcg@5']
      if truth is not None and perspective == 'preference':
        metrics[ELIGIBILITY] = 1 - violation_rate_at_k(
            values, truth.qualification[lists.candidate, lists.job], lists.mask, 5)
      rows += [result(system, None, split, perspective, name, bootstrap_mean(v, **boot))
               for name, v in metrics.items()]
    expert = PREFERENCE if perspective == 'preference' else QUALIFICATION
    paired += [result(expert, None, split, perspective, 'ndcg@5',
                      paired_difference(ndcg[expert], ndcg[rival], **boot), rival)
               for rival in (*RIVALS, BLANKED) if rival in ndcg]
  return rows + paired


def policy_rows(config: ConfigDict, truth: Truth | None, policies: Policies,
                calibration: Calibration, features: PairFeatures, held_out: RankingLists,
                split: str, wanted: RankingLists,
                boot: dict[str, Any]) -> tuple[list[ResultRow], list[ControlRow]]:
  """What each requirement brings: on held-out lists like stage 2's, and on the lists of `split`."""
  rows, predicted, true, at_5 = [], {}, {}, {}

  def add(tau, where, perspective, metric, values):
    rows.append(result('policy', tau, where, perspective, metric, bootstrap_mean(values, **boot)))
  for tau in policies.taus:
    seen = features.of(held_out)
    values = policies.policy.score(seen, calibration, tau)[0]
    pi = policy_probabilities(values, held_out.mask, config.policy.temperature)
    pairs = held_out.candidate, held_out.job
    predicted[tau] = expected_eligibility(
        pi, np.asarray(calibration.probability(seen.qualification)), held_out.mask)
    add(tau, HELD_OUT, 'policy', 'predicted C', predicted[tau])
    if truth is not None:
      true[tau] = expected_eligibility(pi, truth.qualification[pairs], held_out.mask)
      add(tau, HELD_OUT, 'policy', 'true C', true[tau])
      add(tau, HELD_OUT, 'policy', 'expected true preference',
          expected_eligibility(pi, truth.preference[pairs], held_out.mask))
    add(tau, HELD_OUT, 'preference', 'ndcg@5',
        ranking_metrics(values, held_out.relevance, held_out.mask)['ndcg@5'])

    values = policies.policy.score(features.of(wanted), calibration, tau)[0]
    pairs = wanted.candidate, wanted.job
    add(tau, split, 'preference', 'ndcg@5',
        ranking_metrics(values, wanted.relevance, wanted.mask)['ndcg@5'])
    if truth is not None:
      at_5[tau] = 1 - violation_rate_at_k(values, truth.qualification[pairs], wanted.mask, 5)
      add(tau, split, 'policy', ELIGIBILITY, at_5[tau])
      add(tau, split, 'policy', 'violation@5',
          violation_rate_at_k(values, truth.eligible[pairs], wanted.mask, 5))

  asked = policies.taus[-len(policies.trained):]  # 0 asks for nothing
  control = control_rows(asked, policies.trained, np.stack([predicted[t] for t in asked]),
                         true=np.stack([true[t] for t in asked]) if true else None, **boot)
  lists = policies.trained.shape[1]
  for c in control:
    rows += [result('policy', c.tau, STAGE_2, 'policy', 'predicted C', exact(c.reached, lists)),
             result('policy', c.tau, STAGE_2, 'policy', '|C − τ|', exact(c.gap, lists)),
             result('policy', c.tau, HELD_OUT, 'policy', 'τ in the interval of C',
                    exact(c.covered, len(held_out)))]
  for where, metric, values in ((HELD_OUT, 'true C', true), (split, ELIGIBILITY, at_5)):
    if values:
      rises = is_monotone([v.mean() for v in values.values()])
      rows.append(result('policy', None, where, 'policy', f'monotone {metric}',
                         exact(rises, len(values))))
  return rows, control


def calibration_rows(truth: Truth | None, calibration: Calibration, offsets: np.ndarray,
                     features: PairFeatures, pairs: list[RankingLists], boot: dict[str, Any]
                     ) -> tuple[np.ndarray, np.ndarray, list[ResultRow]]:
  """The error of p_qual beside that of others, over all pairs and by job.

  The others are the raw logit's sigmoid, and p_qual with a shift for each job (`offsets` [jobs]).

  Against the true Q of uniform pairs; without truths against the labels of test applicants, which
  are no uniform pairs.
  """
  def flat(of):
    return np.concatenate([of(lists)[lists.mask] for lists in pairs])
  logits, job = flat(lambda x: features.of(x).qualification), flat(lambda x: x.job)
  if truth is None:
    split, outcome = 'test applicants', flat(lambda x: x.relevance).astype(float)
  else:
    split, outcome = 'uniform test pairs', flat(lambda x: truth.qualification[x.candidate, x.job])
  predicted = np.asarray(calibration.probability(logits))
  rows = []
  shifted = calibration.logit(logits) + offsets[job]
  for system, p in ((QUALIFICATION, predicted),
                    (f'{QUALIFICATION}, recalibrated by job', np.asarray(jax.nn.sigmoid(shifted))),
                    (f'{QUALIFICATION}, uncalibrated', np.asarray(jax.nn.sigmoid(logits)))):
    by_job = bootstrap_mean(calibration_error_by_group(p, outcome, job), **boot)
    rows += [result(system, None, split, 'qualification', 'calibration error',
                    exact(calibration_error(p, outcome), len(p))),
             result(system, None, split, 'qualification', 'calibration error by job', by_job)]
  return predicted, outcome, rows


def correlation_rows(truth: Truth, features: PairFeatures, pairs: list[RankingLists],
                     boot: dict[str, Any]) -> list[ResultRow]:
  """Each expert's correlation with both truths, plain and given the other truth."""
  u, j = (np.concatenate([getattr(x, name).ravel() for x in pairs]) for name in
          ('candidate', 'job'))
  s_pref, s_qual = (np.concatenate([getattr(features.of(x), name).ravel() for x in pairs])
                    for name in PERSPECTIVES)
  letter = {'preference': 'P', 'qualification': 'Q'}
  systems = {'preference': PREFERENCE, 'qualification': QUALIFICATION, 'truth': 'true P'}
  rows = []
  for r in deconflation_rows(s_pref, s_qual, truth.preference[u, j], truth.qualification[u, j], u,
                             **boot):
    given = f' given {letter[r.given]}' if r.given else ''
    rows.append(result(systems[r.expert], None, 'uniform test pairs', 'policy',
                       f'correlation with {letter[r.truth]}{given}', r.correlation))
  return rows
