"""Stages 1A and 1B and the calibration: warm-up, censoring weights, cooperation."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import shutil
from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from jobrec_jax.data import lists as listing
from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.loader import (
    ListSource,
    iterate,
    list_dataset,
    preference_finisher,
    qualification_finisher,
)
from jobrec_jax.data.missing import MissingLists, Versions
from jobrec_jax.data.tokens import (
    BlockEncoder,
    count_tokens,
    phrase_pieces,
)
from jobrec_jax.models.jobrec import JobRec, phrase_embeddings
from jobrec_jax.objectives.censoring import ips_weights
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.pipeline.artefacts import (
    load_calibration,
    load_params,
    save_calibration,
    save_params,
)
from jobrec_jax.pipeline.data import no_propensity
from jobrec_jax.pipeline.model import (
    ModelSpec,
    make_model,
    open_backbone,
)
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.stage import Bench, plain
from jobrec_jax.pipeline.tokenizer import Text, training_versions
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_array, save_array, write_json
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.calibration import Calibration, doubts, fit_calibration, fit_offsets
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.sharding import init_sharded, make_mesh, param_shardings
from jobrec_jax.train import experts as losses
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.loop import HeldOut, Loop, MetricsWriter, train
from jobrec_jax.train.state import (
    LossFn,
    MeasureFn,
    OptimizerConfig,
    create_state,
    make_optimizer,
    make_update,
    merge_params,
    split_params,
    stream_key,
)

PyTree = Any
TRAIN, CALIBRATION = 0, 2  # indices of the splits
PARAMS = 'params.safetensors'
HELD_OUT_BATCHES = 4  # that measure the held-out loss: some five per cent of a stage's time


def load_experts(spec: ModelSpec, tokenizer, params: PyTree, place: str,
                 mesh: jax.sharding.Mesh) -> Experts:
  """Experts from stored parameters; frozen ones come from the backbone at `place`."""
  backbone = open_backbone(spec, place)
  model = make_model(spec, tokenizer, backbone)
  if backbone is not None:
    params = params | {'decoder': backbone.load(None)}
  return Experts(model, params, tokenizer, spec.tokenizer.form)


def read_experts(bench: Bench) -> Experts:
  """The experts as a training stage left them."""
  text: Text = bench.inputs['tokenizer']
  params = load_params(bench.folder / PARAMS)['model']
  return load_experts(text.spec, text.tokenizer, params, bench.resources.backbone,
                      make_mesh(bench.resources.mesh))


def scorer(bench: Bench, experts: Experts, dataset: Dataset) -> PairScorer:
  """Scores pairs of a data set as the resources say."""
  return PairScorer(experts, experts.blocks(dataset), make_mesh(bench.resources.mesh),
                    bench.resources.scoring)


@dataclasses.dataclass(frozen=True)
class _Trainer:
  """What stages 1A and 1B share: model, blocks, mesh, and how a stage is run in its folder.

  Blocks are of whole records, and behind them of the versions that training lists are made of;
  there are no versions where nothing is to be missing.
  """

  bench: Bench
  model: JobRec
  blocks: BlockEncoder
  versions: Versions | None
  mesh: jax.sharding.Mesh
  backbone: Any

  @classmethod
  def of(cls, bench: Bench) -> '_Trainer':
    tokenizer, spec = bench.inputs['tokenizer']
    backbone = open_backbone(spec, bench.resources.backbone)
    versions = training_versions(bench)
    blocks = BlockEncoder(versions.dataset if versions else bench.inputs['data'].dataset, tokenizer,
                          spec.tokenizer.form)
    logging.info('tokens: vocabulary of %d; not read to the end: %s', blocks.vocab_size,
                 '; '.join(blocks.unread.values()) or 'nothing')
    return cls(bench, make_model(spec, tokenizer, backbone), blocks, versions,
               make_mesh(bench.resources.mesh), backbone)

  def init(self) -> PyTree:
    """The model's parameters with the names of their axes, as Linen makes them."""
    key = stream_key(jax.random.key(self.bench.settings['seed']), 'init')
    candidate = np.zeros((1, self.blocks.candidates.shape[1]), np.int32)
    lists = self.blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
    return self.model.init(key, candidate, lists['job'], lists['alignment'])['params']

  def initial(self) -> PyTree:
    """New parameters, each on its shards; those of a pretrained decoder come from its files."""
    if self.backbone is None:
      return init_sharded(self.init, self.mesh)

    def init_rest():
      return {name: part for name, part in self.init().items() if name != 'decoder'}
    params = init_sharded(init_rest, self.mesh) | {
        'decoder': self.backbone.load(param_shardings(self.init, self.mesh)['decoder'])}
    if self.bench.resources.adapter:
      from jobrec_jax.weights.peft import start_from  # here, for few runs start from one
      c = self.model.config
      rows = start_from(self.bench.resources.adapter, c.decoder, c.experts)
      params['lora'] = {k: jax.device_put(rows[k], v.sharding) for k, v in params['lora'].items()}
    if self.model.config.phrases:
      pieces = phrase_pieces(self.backbone.tokenizer(), self.blocks.tokenizer)
      rows = phrase_embeddings(params['decoder']['embedding'], pieces)
      params['phrases'] = jax.device_put(rows, params['phrases'].sharding)
    return params

  def placed(self, params: PyTree) -> PyTree:
    """Parameters of an earlier stage, each on its shards."""
    where = param_shardings(self.init, self.mesh)
    rest = {k: jax.device_put(v, where[k]) for k, v in params.items() if not self.is_frozen((k,))}
    return params | rest if self.backbone is None else rest | {
        'decoder': self.backbone.load(where['decoder'])}

  def is_frozen(self, path: tuple[str, ...]) -> bool:
    return self.backbone is not None and 'decoder' in path

  @functools.cached_property
  def taught(self) -> tuple[str, ...]:
    """The perspectives that have an expert."""
    return perspectives(self.bench.inputs['data'].dataset)

  def log(self, split: str) -> Interactions:
    return self.bench.inputs['data'].dataset.interactions.of(split)

  def preference(self, split: str) -> listing.PreferenceLists:
    s = self.bench.settings['lists']
    policy = listing.negatives_policy(self.log('train'), s['preference_policy'])
    return listing.PreferenceLists(self.log(split), s['preference_negatives'], policy)

  def qualification(self, split: str,
                    weights: np.ndarray | None = None) -> listing.QualificationLists:
    return listing.QualificationLists(
        self.log(split), self.bench.settings['lists']['qualification_negatives'], weights)

  def finishers(self) -> dict[str, Callable[[dict], dict]]:
    """By perspective, what makes token blocks of lists."""
    factored = self.model.config.attention == 'factored'
    return {'preference': preference_finisher(self.blocks),
            'qualification': qualification_finisher(self.blocks, factored)}

  def data(self, lists: ListSource, stage: str, perspective: str, batch: int):
    """Endless batches of lists of the train split, in the order of the stage's own stream."""
    seed = streams.seed32(self.bench.settings['seed'], f'{stage}, {perspective} lists')
    if self.versions:
      lists = MissingLists(lists, self.versions)
    return list_dataset(lists, self.finishers()[perspective], batch, seed)

  def held_out(self, stage: str, measure: MeasureFn,
               batches: Mapping[str, int]) -> HeldOut | None:
    """Lists of the validation split, drawn once, on which training stops in time.

    Their records are whole, and they have no censoring weights. A perspective without any list
    there is left out.

    Args:
      stage: its name.
      measure: of a batch by perspective.
      batches: lists in a batch, by perspective.
    """
    patience, log = self.bench.settings['stage'].patience, self.log('validation')
    found: list[dict] = [{} for _ in range(HELD_OUT_BATCHES)]
    for perspective, size in batches.items() if patience else ():
      lists = None
      if (getattr(log, perspective) == 1).any():
        seed = streams.seed32(self.bench.settings['seed'], f'{stage}, held-out {perspective} lists')
        lists = listing.fixed_lists(getattr(self, perspective)('validation'),
                                    size * HELD_OUT_BATCHES, seed)
      if lists is None:
        logging.warning('%s: the validation split holds no %s list with a negative; %s; a greater '
                        'share of data.shares, or a split by groups, would give it some', stage,
                        perspective, 'the validation loss leaves it out' if len(batches) > 1 else
                        'all steps are trained')
        continue
      blocks = self.finishers()[perspective](lists)
      for i, batch in enumerate(found):
        batch[perspective] = {k: x[i * size:(i + 1) * size] for k, x in blocks.items()}
    return HeldOut(measure, found, patience) if found[0] else None

  def run(self, stage: str, loss_fn: LossFn, params: PyTree, data: Callable[[int], Iterator],
          frozen: Callable[[tuple[str, ...]], bool], held_out: HeldOut | None) -> None:
    """Trains and keeps the parameters that no backbone holds."""
    trainable, rest = split_params(params, lambda path: self.is_frozen(path) or frozen(path))
    optimizer: OptimizerConfig = self.bench.settings['stage']
    tx = make_optimizer(optimizer)
    folder, r = self.bench.folder, self.bench.resources
    done = folder / PARAMS
    if not done.is_file():  # else the attempt before was stopped behind its last step
      with (Checkpoints(folder / 'checkpoints', {'stage': stage}) as kept,
            r.watching.stage(folder.name, plain(self.bench.settings)) as watch):
        loop = Loop(stage, optimizer.steps, kept, MetricsWriter(folder / 'metrics.jsonl'),
                    r.log_every, r.save_seconds, lambda batch: sum(map(count_tokens, batch)), watch,
                    held_out)
        key = stream_key(jax.random.key(self.bench.settings['seed']), stage)
        state = train(loop, make_update(loss_fn, tx), create_state(trainable, rest, tx), data, key,
                      self.mesh)
      self.keep(merge_params(state.kept, state.frozen))
    shutil.rmtree(folder / 'checkpoints', ignore_errors=True)

  def keep(self, params: PyTree) -> None:
    """Writes the parameters that no backbone holds."""
    model = {k: v for k, v in params['model'].items() if not self.is_frozen((k,))}
    save_params(self.bench.folder / PARAMS, jax.device_get(params | {'model': model}))


def make_warm_up(bench: Bench) -> None:
  """Stage 1A: the preference expert alone; without steps or labels its parameters are new."""
  trainer = _Trainer.of(bench)
  if not bench.settings['stage'].steps or 'preference' not in trainer.taught:
    trainer.keep({'model': trainer.initial()})
    return
  stage = bench.settings['stage']
  batches = trainer.data(trainer.preference('train'), 'warm_up', 'preference', stage.batch)
  held_out = trainer.held_out('warm_up', losses.held_out_loss(trainer.model),
                              {'preference': stage.batch})
  trainer.run('warm_up', losses.warm_up_loss(trainer.model), {'model': trainer.initial()},
              lambda start: iterate(batches, start=start), losses.frozen_in_warm_up, held_out)


def make_cooperative(bench: Bench) -> None:
  """Stage 1B: both experts, from the parameters of stage 1A; or the one that labels teach."""
  trainer, s = _Trainer.of(bench), bench.settings
  stage = s['stage']
  weighting = task_weights(s['task_weights'], 2, s['fixed_weights'])
  params = {'model': trainer.placed(bench.inputs['warm_up'].params)}
  lists = {'preference': lambda: trainer.preference('train'),
           'qualification': lambda: trainer.qualification('train', bench.inputs.get('censoring'))}
  sizes = {'preference': stage.batch, 'qualification': stage.qualification_batch}
  sizes = {name: sizes[name] for name in trainer.taught}
  batches = [trainer.data(lists[name](), 'cooperative', name, size) for name, size in sizes.items()]
  if len(sizes) > 1:
    params['task_weights'] = weighting.init()
    loss = losses.cooperative_loss(trainer.model, weighting, s['beta'])
  elif 'preference' in sizes:
    loss = losses.warm_up_loss(trainer.model)
  else:
    loss = losses.qualification_loss(trainer.model, s['beta'])
  untaught = set(PERSPECTIVES) - set(sizes)
  held_out = trainer.held_out('cooperative', losses.held_out_loss(trainer.model, s['beta']), sizes)
  trainer.run('cooperative', loss, params, lambda start: iterate(*batches, start=start),
              lambda path: bool(untaught & set(path)), held_out)


def application_propensity(score: PairScorer, dataset: Dataset, rows: np.ndarray) -> np.ndarray:
  """The preference expert's estimate that an exposed pair applies, for rows of the log.

  Its logits are put on a scale by the exposed pairs of the validation split.
  """
  log = dataset.interactions
  fit = log.of('validation')
  fit = fit.where(fit.preference >= 0)
  scores = score.scores(fit.candidate, fit.job).preference
  scale = fit_calibration(scores, fit.preference, 1 / fit.exposure)
  warn('the scale of applications', 'shown jobs', scores, fit.preference)
  return np.asarray(scale.probability(score.scores(log.candidate[rows], log.job[rows]).preference))


def applicant_weights(choice: Mapping[str, Any], score: PairScorer, dataset: Dataset,
                      rows: np.ndarray) -> np.ndarray:
  """[rows] inverse propensities of being an applicant, mean 1.

  Ones where they are not asked for, or where the chance of an application cannot be told.
  """
  if choice['censoring'] == 'none' or not len(rows) or no_propensity(dataset):
    return np.ones(len(rows))
  propensity = (application_propensity(score, dataset, rows)
                * dataset.interactions.exposure[rows])
  return np.asarray(ips_weights(propensity, np.ones(len(rows), bool), choice['ips_clip']))


def make_censoring(bench: Bench) -> None:
  """A weight for each row of the train split, from the experts after stage 1A."""
  dataset, experts = bench.inputs['data'].dataset, bench.inputs['warm_up']
  log = dataset.interactions
  of_train = np.flatnonzero(log.split == TRAIN)
  observed = log.qualification[of_train] >= 0
  weights = np.zeros(len(of_train))
  weights[observed] = w = applicant_weights(
      bench.settings, scorer(bench, experts, dataset), dataset, of_train[observed])
  share = w.sum() ** 2 / (len(w) * (w ** 2).sum()) if len(w) else 1.0
  largest = w.max(initial=0.0)
  logging.info('censoring: weights of %d applicants, largest %.2f, effective share %.2f', len(w),
               largest, share)
  save_array(bench.folder / 'weights.npy', weights)
  write_json(bench.folder / 'summary.json', {'applicants': len(w), 'largest': float(largest),
                                             'effective_share': float(share)})


def read_censoring(bench: Bench) -> np.ndarray:
  return load_array(bench.folder / 'weights.npy')


def warn(what: str, of: str, scores: np.ndarray, labels: np.ndarray) -> None:
  """Tells where a fit rests on its prior."""
  found = doubts(scores, labels)
  if found:
    logging.warning('%s: of %d %s %s; it leans on the prior b=0, t=1', what, len(labels), of,
                    ', and '.join(found))


def make_calibration(bench: Bench) -> None:
  """Fits b and t, and each job's shift of z, to applicants weighted to uniform pairs.

  They are those of half the calibration split: certificates need candidates that no fit has used.
  With `calibration` 'none', or without an applicant, nothing is fitted: b = 0, t = 1 and no shifts,
  p_qual = sigmoid(s_qual). So it is where no label teaches qualification, and nobody reads p_qual.
  """
  dataset, experts = bench.inputs['data'].dataset, bench.inputs['experts']
  log = dataset.interactions
  fit, _ = listing.calibration_halves(dataset)
  rows = np.flatnonzero((log.split == CALIBRATION) & (log.qualification >= 0)
                        & np.isin(log.candidate, fit))
  taught = 'qualification' in perspectives(dataset)
  if bench.settings['calibration'] == 'none' or not len(rows) or not taught:
    if bench.settings['calibration'] != 'none' and taught:
      logging.warning('calibration: no labelled applicant of %d candidates in half of the '
                      'calibration split; p_qual = sigmoid(s_qual), b=0, t=1', len(fit))
    save_calibration(bench.folder, Calibration(0.0, 1.0), np.zeros(len(dataset.jobs)))
    return
  score = scorer(bench, experts, dataset)
  weights = applicant_weights(bench.settings, score, dataset, rows)
  job, labels = log.job[rows], log.qualification[rows]
  scores = score.scores(log.candidate[rows], job).qualification
  calibration = fit_calibration(scores, labels, weights)
  offsets = fit_offsets(calibration.logit(scores), labels, weights, job, len(dataset.jobs))
  logging.info('calibration: b=%.3f, t=%.3f on %d applicants', *calibration, len(rows))
  warn('calibration', 'applicants', scores, labels)
  save_calibration(bench.folder, calibration, offsets)


class Calibrated(NamedTuple):
  """b and t, and [jobs] shifts of z that evaluation reports beside them."""

  calibration: Calibration
  job_offsets: np.ndarray


def read_calibration(bench: Bench) -> Calibrated:
  return Calibrated(load_calibration(bench.folder), load_array(bench.folder / 'job_offsets.npy'))
