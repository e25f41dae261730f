"""The stages of the road, as functions that the scripts share: train, calibrate, align."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments.backbone import Backbone, open_backbone
from experiments.setup import Run, Settings, section
from jobrec_jax.data import lists as listing
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.files.records import write_entities
from jobrec_jax.data.loader import (
  iterate,
  list_dataset,
  preference_finisher,
  qualification_finisher,
)
from jobrec_jax.data.tokens import (
  BlockEncoder,
  BlockLengths,
  add_phrases,
  corpus,
  load_tokenizer,
  phrase_pieces,
  save_tokenizer,
  train_tokenizer,
)
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig, phrase_embeddings
from jobrec_jax.objectives.censoring import ips_weights
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.schema.files import save_array, write_text
from jobrec_jax.scoring.calibration import Calibration, fit_calibration, fit_offsets
from jobrec_jax.scoring.features import FeatureExtractor
from jobrec_jax.scoring.kept_states import BlockStates
from jobrec_jax.sharding import init_sharded, make_mesh, param_shardings
from jobrec_jax.train import experts as stage1
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.loop import Loop, MetricsWriter, train
from jobrec_jax.train.state import (
  create_state,
  make_optimizer,
  make_update,
  merge_params,
  split_params,
  stream_key,
)

PyTree = Any


class Experts(NamedTuple):
  """Trained experts over a data set."""

  model: JobRec
  params: PyTree
  blocks: BlockEncoder
  mesh: jax.sharding.Mesh

  def extractor(self, config: ConfigDict) -> FeatureExtractor:
    f = config.features
    if f.states and self.model.config.attention != 'factored':
      raise ValueError("features.states: allowed with model.attention='factored', whose blocks are "
                       f'read alone, got {f.states!r} with {self.model.config.attention!r}')
    states = BlockStates(Path(f.states).expanduser(), self.model, self.params) if f.states else None
    return FeatureExtractor(self.model, self.params, self.blocks, self.mesh, f.list_length, f.batch,
                            states)


def identity(config: ConfigDict, dataset: Dataset, *sections: str) -> dict[str, Any]:
  """What a checkpoint of these sections depends on."""
  return {'schema': dataset.schema.fingerprint(), 'data': dataset.fingerprint(),
          'seed': config.seed} | {s: config[s].to_json() for s in sections}


def make_blocks(config: ConfigDict, run: Run, dataset: Dataset,
                backbone: Backbone | None = None) -> BlockEncoder:
  """Token blocks; the tokenizer, the backbone's or one trained here, lies in the run folder."""
  path = run / 'tokenizer.json'
  if not path.exists():
    phrases = config.tokenizer.phrases
    if backbone is None or phrases:
      texts = corpus(dataset, seed=config.seed, verdicts=config.tokenizer.verdicts)
    if backbone is None:
      tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size)
    elif phrases:
      tokenizer = add_phrases(backbone.tokenizer(), texts, phrases)
    else:
      tokenizer = backbone.tokenizer()
    save_tokenizer(tokenizer, path)
  tokenizer = load_tokenizer(path)
  blocks = BlockEncoder(dataset, tokenizer, section(BlockLengths, config.tokenizer))
  logging.info('tokens: vocabulary of %d; cut to length: %s', tokenizer.get_vocab_size(),
               {k: v for k, v in blocks.cut.items() if v} or 'none')
  return blocks


def make_model(config: ConfigDict, vocab_size: int, backbone: Backbone | None = None) -> JobRec:
  words = vocab_size
  if config.tokenizer.phrases:
    words = backbone.tokenizer().get_vocab_size()
  if backbone is None:
    decoder = section(DecoderConfig, config.model, vocab_size=vocab_size, tie_embeddings=True,
                      rope_scaling=None, attention_bias=False, qk_norm=False, lora=None)
  elif words > backbone.config.vocab_size:
    raise ValueError(f'backbone.path: the tokenizer has {words} tokens, the embeddings only '
                     f'{backbone.config.vocab_size}')
  else:
    decoder = backbone.config
  lengths = section(BlockLengths, config.tokenizer)
  return JobRec(section(JobRecConfig, config.model, experts=('preference', 'qualification'),
                        job_start=lengths.candidate, pair_start=lengths.candidate + lengths.job,
                        verdicts=lengths.codes, words=words, phrases=vocab_size - words,
                        decoder=decoder))


def train_experts(config: ConfigDict, settings: Settings, run: Run, dataset: Dataset) -> Experts:
  """Stages 1A and 1B, each resumed where it stood."""
  mesh = make_mesh(settings.mesh)
  backbone = open_backbone(config)
  blocks = make_blocks(config, run, dataset, backbone)
  write_entities(run / 'jobs.json', dataset.jobs)
  model = make_model(config, blocks.vocab_size, backbone)
  root = jax.random.key(config.seed)
  metrics = MetricsWriter(run / 'metrics.jsonl')
  log = dataset.interactions.of('train')
  preference = listing.PreferenceLists(log, config.lists.preference_negatives,
                                       config.lists.preference_policy)
  weighting = task_weights(config.experts.task_weights, 2, config.experts.fixed_weights)
  params = {'model': init_model(model, blocks, mesh, stream_key(root, 'init'), backbone),
            'task_weights': weighting.init()}

  def pretrained(path):
    return backbone is not None and 'decoder' in path

  def run_stage(stage, loss_fn, params, frozen, optimizer, *datasets):
    trainable, rest = split_params(params, lambda path: pretrained(path) or frozen(path))
    tx = make_optimizer(optimizer)
    made_with = identity(config, dataset, 'market', 'tokenizer', 'model', 'lists', 'experts',
                         'warm_up', 'backbone', 'lora', stage)
    with Checkpoints(run / f'checkpoints/{stage}', made_with) as checkpoints:
      loop = Loop(stage, optimizer.steps, checkpoints, metrics, config.log_every,
                  config.save_seconds)
      state = train(loop, make_update(loss_fn, tx), create_state(trainable, rest, tx),
                    lambda step: iterate(*datasets, start=step), stream_key(root, stage), mesh)
    return merge_params(state.trainable, state.frozen)

  def preference_data(batch, seed):
    return list_dataset(preference, preference_finisher(blocks), batch, seed,
                        jax.process_index(), jax.process_count())

  params = run_stage('warm_up', stage1.warm_up_loss(model), params, stage1.frozen_in_warm_up,
                     settings.warm_up, preference_data(config.warm_up.batch, config.seed))
  weights = censoring_weights(config, Experts(model, params['model'], blocks, mesh), dataset, run)
  qualification = list_dataset(
      listing.QualificationLists(log, config.lists.qualification_negatives, weights),
      qualification_finisher(blocks, model.config.attention == 'factored'),
      config.cooperative.qualification_batch, config.seed + 2,
      jax.process_index(), jax.process_count())
  params = run_stage('cooperative',
                     stage1.cooperative_loss(model, weighting, config.experts.beta), params,
                     lambda path: False, settings.cooperative,
                     preference_data(config.cooperative.batch, config.seed + 1), qualification)
  return Experts(model, params['model'], blocks, mesh)


def init_model(model: JobRec, blocks: BlockEncoder, mesh: jax.sharding.Mesh, key: jax.Array,
               backbone: Backbone | None = None) -> PyTree:
  """New parameters, each on its shards; those of a pretrained decoder come from its files."""
  candidate = np.zeros((1, blocks.candidates.shape[1]), np.int32)
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))

  def init():
    return model.init(key, candidate, lists['job'], lists['alignment'])['params']

  def init_rest():
    return {name: part for name, part in init().items() if name != 'decoder'}
  if backbone is None:
    return init_sharded(init, mesh)
  params = init_sharded(init_rest, mesh) | {
      'decoder': backbone.load(param_shardings(init, mesh)['decoder'])}
  if model.config.phrases:
    pieces = phrase_pieces(backbone.tokenizer(), blocks.tokenizer)
    rows = phrase_embeddings(params['decoder']['embedding'], pieces)
    params['phrases'] = jax.device_put(rows, params['phrases'].sharding)
  return params


def load_experts(config: ConfigDict, settings: Settings, run: Run, dataset: Dataset) -> Experts:
  """The experts that stage 1B left in the run folder: its training loop finds nothing to do."""
  folder = run / 'checkpoints/cooperative'
  if not folder.is_dir():
    raise ValueError(f'{folder}: not there; run experiments.train_experts with '
                     f'--workdir={run.folder} first')
  return train_experts(config, settings, run, dataset)


def application_propensity(extractor: FeatureExtractor, dataset: Dataset,
                           rows: np.ndarray) -> np.ndarray:
  """The preference expert's estimate that an exposed pair applies, for rows of the log.

  Its logits are put on a scale by the exposed pairs of the validation split.
  """
  log = dataset.interactions
  fit = log.of('validation')
  fit = fit.where(fit.preference >= 0)
  if not len(fit):
    raise ValueError("experts.censoring='ips' needs labelled exposures in the validation split, "
                     "got none; use 'none', or give that split some (data.shares)")
  scores = extractor(fit.candidate, fit.job).preference
  scale = fit_calibration(scores, fit.preference, 1 / fit.exposure)
  return scale.probability(extractor(log.candidate[rows], log.job[rows]).preference)


def censoring_weights(config: ConfigDict, experts: Experts, dataset: Dataset,
                      run: Run) -> np.ndarray | None:
  """A weight for each row of the train split: the inverse propensity of being an applicant.

  Computed once, from the experts after stage 1A, and kept in the run folder.
  """
  if config.experts.censoring not in ('ips', 'none'):
    raise ValueError(f"experts.censoring must be 'ips' or 'none', got "
                     f'{config.experts.censoring!r}')
  log = dataset.interactions
  if config.experts.censoring == 'none' or not (log.preference == 0).any():
    return None
  path = run / 'censoring_weights.npy'
  if not path.exists():
    train_rows = np.flatnonzero(log.split == 0)
    observed = log.qualification[train_rows] >= 0
    rows = train_rows[observed]
    propensity = application_propensity(experts.extractor(config), dataset, rows)
    weights = np.zeros(len(train_rows))
    weights[observed] = applicant_weights(config, propensity * log.exposure[rows])
    save_array(path, weights)
    w = weights[observed]
    logging.info('censoring: weights of %d applicants, largest %.2f, effective share %.2f',
                 len(w), w.max(), w.sum() ** 2 / (len(w) * (w ** 2).sum()))
  return np.load(path)


def applicant_weights(config: ConfigDict, propensity: np.ndarray) -> np.ndarray:
  return np.asarray(ips_weights(propensity, np.ones(len(propensity), bool),
                                config.experts.ips_clip))


class CalibrationLabels(NamedTuple):
  """[N] each: applicants of half the calibration split, weighted to uniform pairs."""

  job: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  weights: np.ndarray


def calibration_labels(config: ConfigDict, dataset: Dataset,
                       extractor: FeatureExtractor) -> CalibrationLabels:
  log = dataset.interactions
  fit, _ = listing.calibration_halves(dataset)  # certificates need candidates that nothing fits
  rows = np.flatnonzero((log.split == 2) & (log.qualification >= 0) & np.isin(log.candidate, fit))
  if not len(rows):
    raise ValueError('calibration needs labelled applicants in the calibration split, got none; '
                     'give that split some (data.shares)')
  weights = np.ones(len(rows))
  if config.experts.censoring == 'ips' and (log.preference == 0).any():
    propensity = application_propensity(extractor, dataset, rows)
    weights = applicant_weights(config, propensity * log.exposure[rows])
  scores = extractor(log.candidate[rows], log.job[rows]).qualification
  return CalibrationLabels(log.job[rows], scores, log.qualification[rows], weights)


def calibrate(config: ConfigDict, run: Run, dataset: Dataset,
              extractor: FeatureExtractor) -> Calibration:
  """Fits b and t, and each job's shift of z, which evaluation reports beside them."""
  seen = calibration_labels(config, dataset, extractor)
  calibration = fit_calibration(seen.scores, seen.labels, seen.weights)
  save_array(run / 'job_offsets.npy', fit_offsets(
      calibration.logit(seen.scores), seen.labels, seen.weights, seen.job, len(dataset.jobs)))
  write_text(run / 'calibration.json', json.dumps(calibration._asdict()) + '\n')
  logging.info('calibration: b=%.3f, t=%.3f on %d applicants', *calibration, len(seen.job))
  return calibration


def load_calibration(run: Run) -> Calibration:
  return Calibration(**run.read_json('calibration.json', 'experiments.train_experts'))


def load_job_offsets(run: Run) -> np.ndarray:
  """[jobs] shifts of z, from the labels that calibration saw; 0 for jobs without any."""
  path = run / 'job_offsets.npy'
  if not path.is_file():
    raise ValueError(f'{path}: not there; run experiments.train_experts with '
                     f'--workdir={run.folder} first')
  return np.load(path)
