"""Stages 1A and 1B: warm-up and cooperation."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import math
import shutil
from typing import Any

from absl import logging
import grain
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax import processes
from jobrec_jax.data import lists as listing, training_lists as training
from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.missing import MissingLists, Versions
from jobrec_jax.data.phrases import phrase_pieces
from jobrec_jax.data.tokens import BlockEncoder, count_tokens
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.phrases import phrase_embeddings
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.pipeline.artefacts import load_params, save_params
from jobrec_jax.pipeline.censoring import UNCENSORED, Censoring, scorer
from jobrec_jax.pipeline.linear_start import (
  LinearFits,
  Move,
  doubt_moves,
  linear_start,
  moved,
)
from jobrec_jax.pipeline.model import make_model, open_backbone
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.provenance import began
from jobrec_jax.pipeline.settings import StageSettings
from jobrec_jax.pipeline.shrinkage import kept_shares, shrunk, some_labelled
from jobrec_jax.pipeline.stage import Bench, plain
from jobrec_jax.pipeline.text import Text
from jobrec_jax.pipeline.tokenizer import training_versions
from jobrec_jax.schema import streams
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.experts import Experts, PairScores
from jobrec_jax.sharding import (
  divides,
  init_sharded,
  laid_out,
  make_mesh,
  on_host,
  own_mesh,
  own_rows,
  param_shardings,
)
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
PARAMS, START = 'params.safetensors', 'start.safetensors'
HELD_OUT_BATCHES = 4  # that measure the held-out loss: some five per cent of a stage's time


def read_experts(bench: Bench) -> Experts:
  """The experts as a training stage left them; a pretrained decoder comes from its files."""
  text: Text = bench.inputs['tokenizer']
  params = load_params(bench.folder / PARAMS)['model']
  backbone = open_backbone(text.spec, bench.resources.backbone)
  if backbone is not None:
    params = params | {'decoder': backbone.load(None)}
  return text.experts(make_model(text.spec, text.tokenizer, backbone), params)


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
    text: Text = bench.inputs['tokenizer']
    spec = text.spec
    backbone = open_backbone(spec, bench.resources.backbone)
    versions = training_versions(bench)
    blocks = text.blocks(versions.dataset if versions else bench.inputs['data'].dataset)
    logging.info('tokens: vocabulary of %d; not read to the end: %s', blocks.vocab_size,
                 '; '.join(blocks.unread.values()) or 'nothing')
    return cls(bench, make_model(spec, text.tokenizer, backbone), blocks, versions,
               make_mesh(bench.resources.mesh), backbone)

  @property
  def alone(self) -> '_Trainer':
    """The trainer on the devices of this process."""
    return dataclasses.replace(self, mesh=own_mesh(self.bench.resources.mesh))

  def init(self) -> PyTree:
    """The model's parameters with the names of their axes, as Linen makes them."""
    key = stream_key(jax.random.key(self.bench.settings['seed']), 'init')
    candidate = np.zeros((1, self.blocks.candidates.shape[1]), np.int32)
    lists = self.blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
    return self.model.init(key, candidate, lists['job'], lists['alignment'],
                           lists.get('numbers'))['params']

  def linear(self) -> PyTree:
    """New parameters that no backbone holds, each on its shards: those of the linear models."""
    def own():
      return {name: part for name, part in self.init().items() if not self.is_frozen((name,))}
    params = init_sharded(own, self.mesh)
    fits: LinearFits | None = self.bench.inputs['linear']
    return params if fits is None else linear_start(params, fits)

  def initial(self) -> PyTree:
    """New parameters, each on its shards; those of a pretrained decoder come from its files."""
    params = self.linear()
    if self.backbone is None:
      return params
    params['decoder'] = self.backbone.load(param_shardings(self.init, self.mesh)['decoder'])
    if self.bench.resources.adapter:
      from jobrec_jax.weights.peft import start_from  # here, for few runs start from one
      c = self.model.config
      rows = start_from(self.bench.resources.adapter, c.decoder, c.experts)
      params['lora'] = {k: jax.device_put(rows[k], v.sharding) for k, v in params['lora'].items()}
    if self.model.config.phrases:
      pieces = phrase_pieces(self.backbone.tokenizer(), self.blocks.tokenizer)
      rows = phrase_embeddings(params['decoder']['embedding'], pieces)
      rows = jnp.pad(rows, ((0, self.model.config.phrases - len(rows)), (0, 0)))
      params['phrases'] = jax.device_put(rows, params['phrases'].sharding)
    return params

  def started(self, make: Callable[['_Trainer'], PyTree]) -> PyTree:
    """What `make` makes of a trainer, each on its shards.

    Of several processes the first makes it, alone, for fits may come out otherwise on another host;
    the others find it in the folder.
    """
    if not processes.several():
      return make(self)
    if processes.is_first():
      self.keep({'model': make(self.alone)}, START)
    processes.meet()
    return self.placed(load_params(self.bench.folder / START)['model'])

  def placed(self, params: PyTree) -> PyTree:
    """Parameters of an earlier stage, each on its shards."""
    where = param_shardings(self.init, self.mesh)
    rest = {k: jax.tree.map(laid_out, v, where[k]) for k, v in params.items()
            if not self.is_frozen((k,))}
    return params | rest if self.backbone is None else rest | {
        'decoder': self.backbone.load(where['decoder'])}

  def is_frozen(self, path: tuple[str, ...]) -> bool:
    return self.backbone is not None and 'decoder' in path

  @functools.cached_property
  def taught(self) -> tuple[str, ...]:
    """The perspectives that have an expert."""
    return perspectives(self.bench.inputs['data'].dataset)

  @property
  def dataset(self) -> Dataset:
    return self.bench.inputs['data'].dataset

  def log(self, split: str) -> Interactions:
    return self.dataset.interactions.of(split)

  def kinds(self, stage: StageSettings, perspectives: Iterable[str]) -> dict[losses.Kind, int]:
    """How many lists of each kind a batch has.

    Most are around the candidate for preference, around the job for qualification; a share is
    around the other side, so that scores compare along both axes.
    """
    across = self.bench.settings['lists']['across']
    return kinds_of({p: (stage.batch if p == 'preference' else stage.qualification_batch,
                         0.0 if self.sampled(p) else across) for p in perspectives})

  def sampled(self, perspective: str) -> bool:
    """Whether negatives have no label: nobody knows what was shown, or wants to."""
    asked = self.bench.settings['lists']['preference_policy']
    return perspective == 'preference' and (
        training.negatives_policy(self.log('train'), asked) == 'uniform')

  def lists(self, kind: losses.Kind, split: str,
            weights: np.ndarray | None = None) -> training.TrainingLists:
    """The lists of a kind; `weights` [rows of the split] of applicants."""
    negatives, log = self.bench.settings['lists'][f'{kind.perspective}_negatives'], self.log(split)
    if self.sampled(kind.perspective):
      return training.SampledLists(log, negatives)
    return training.LabelledLists(log, *kind, negatives,
                                 weights if kind.perspective == 'qualification' else None)

  def finisher(self, kind: losses.Kind) -> Callable[[dict], dict]:
    return finisher(self.blocks, kind.centre, self.model.config.attention == 'factored')

  def data(self, stage: str, kinds: Mapping[losses.Kind, int],
           weights: np.ndarray | None = None) -> list[grain.MapDataset]:
    """Of each kind endless batches of lists of the train split, in the order of its own stream."""
    found = []
    for kind, batch in kinds.items():
      if not divides(self.mesh, batch):
        logging.warning(
            '%s: a batch has %d %s lists of one %s, which do not divide by the mesh\'s data %d x '
            'fsdp %d, so that each device computes all of them; see lists.across and the batches',
            stage, batch, *kind, self.mesh.shape['data'], self.mesh.shape['fsdp'])
      lists = self.lists(kind, 'train', weights)
      seed = streams.seed32(self.bench.settings['seed'],
                            f'{stage}, {kind.perspective} lists of one {kind.centre}')
      found.append(list_dataset(MissingLists(lists, self.versions) if self.versions else lists,
                                self.finisher(kind), batch, seed, own_rows(self.mesh, batch)))
    return found

  def held_out(self, stage: str, measure: Callable[[Sequence[losses.Kind]], MeasureFn],
               kinds: Mapping[losses.Kind, int]) -> HeldOut | None:
    """Lists of the validation split, drawn once, on which training stops in time.

    Their records are whole, and they have no censoring weights. A kind without any contrast there
    is left out.

    Args:
      stage: its name.
      measure: of batches of some kinds.
      kinds: lists in a batch, by kind.
    """
    patience, log = self.bench.settings['stage'].patience, self.log('validation')
    found: dict[losses.Kind, dict[str, np.ndarray]] = {}
    for kind, size in kinds.items() if patience else ():
      lists = None
      if (getattr(log, kind.perspective) == 1).any():
        seed = streams.seed32(self.bench.settings['seed'],
                              f'held-out {stage}, {kind.perspective} lists of one {kind.centre}')
        lists = training.fixed_lists(self.lists(kind, 'validation'), size * HELD_OUT_BATCHES, seed)
      if lists is not None:
        found[kind] = self.finisher(kind)(lists)
    missing = [] if not patience else [
        p for p in dict.fromkeys(k.perspective for k in kinds) if p not in {
            k.perspective for k in found}]
    for perspective in missing:
      logging.warning('%s: the validation split holds no %s list with a negative; %s; a greater '
                      'share of data.shares, or a split by groups, would give it some', stage,
                      perspective, 'the validation loss leaves it out' if found else
                      'all steps are trained')
    batches = [tuple({name: x[i * kinds[kind]:(i + 1) * kinds[kind]] for name, x in lists.items()}
                     for kind, lists in found.items()) for i in range(HELD_OUT_BATCHES)]
    return HeldOut(measure([*found]), batches, patience) if found else None

  def run(self, stage: str, loss_fn: LossFn, params: PyTree, data: Callable[[int], Iterator],
          lists: Iterable[int], frozen: Callable[[tuple[str, ...]], bool],
          held_out: HeldOut | None,
          finish: Callable[[PyTree], PyTree] = lambda params: params) -> None:
    """Trains, and keeps what `finish` makes of the parameters that no backbone holds.

    Of several processes the first finishes and keeps, alone.
    """
    lists = tuple(lists)

    def tokens(batch: Sequence[PyTree]) -> float:  # of all processes, as many as here in each list
      return sum(count_tokens(part) * (count / len(part['mask']))
                 for part, count in zip(batch, lists))
    trainable, rest = split_params(params, lambda path: self.is_frozen(path) or frozen(path))
    optimizer: OptimizerConfig = self.bench.settings['stage']
    tx = make_optimizer(optimizer)
    folder, r = self.bench.folder, self.bench.resources
    done = folder / PARAMS
    if not processes.told(done.is_file):  # else the attempt before was stopped behind its last step
      with (Checkpoints(folder / 'checkpoints', {'stage': stage}) as kept,
            r.watching.stage(folder.name, plain(self.bench.settings)) as watch):
        loop = Loop(stage, optimizer.steps, kept, MetricsWriter(folder / 'metrics.jsonl'),
                    r.log_every, r.save_seconds, tokens, watch, held_out, lists,
                    began(folder))
        key = stream_key(jax.random.key(self.bench.settings['seed']), stage)
        state = train(loop, make_update(loss_fn, tx), create_state(trainable, rest, tx), data, key,
                      self.mesh)
      trained = merge_params(state.kept, state.frozen)
      if processes.several():
        trained = on_host(trained)
        processes.meet()  # the others have closed their checkpoints
      if processes.is_first():
        self.keep(finish(jax.tree.map(jnp.asarray, trained)))  # on its devices, or as they lie
    if processes.is_first():
      shutil.rmtree(folder / 'checkpoints', ignore_errors=True)
      (folder / START).unlink(missing_ok=True)

  def keep(self, params: PyTree, name: str = PARAMS) -> None:
    """Writes the parameters that no backbone holds."""
    model = {k: v for k, v in params['model'].items() if not self.is_frozen((k,))}
    save_params(self.bench.folder / name, jax.device_get(params | {'model': model}))


def kinds_of(counts: Mapping[str, tuple[int, float]]) -> dict[losses.Kind, int]:
  """How many lists of each kind.

  Args:
    counts: of a perspective, its lists and the share of them that is around the other side.
  """
  found = {}
  for perspective, (count, share) in counts.items():
    centre = listing.CENTRES[perspective]
    across = 'job' if centre == 'candidate' else 'candidate'
    other = math.floor(share * count)
    found |= {losses.Kind(perspective, centre): count - other} | (
        {losses.Kind(perspective, across): other} if other else {})
  return found


def make_warm_up(bench: Bench) -> None:
  """Stage 1A: the preference expert alone; without steps or labels its parameters are new."""
  trainer = _Trainer.of(bench)
  if not bench.settings['stage'].steps or 'preference' not in trainer.taught:
    if processes.is_first():
      trainer.keep({'model': trainer.alone.initial()})
    return
  beta = bench.settings['beta']
  kinds = trainer.kinds(bench.settings['stage'], ['preference'])
  batches = trainer.data('warm_up', kinds)
  held_out = trainer.held_out(
      'warm_up', lambda found: losses.held_out_loss(trainer.model, found, beta), kinds)
  trainer.run('warm_up', losses.warm_up_loss(trainer.model, [*kinds], beta),
              {'model': trainer.started(_Trainer.initial)},
              lambda start: iterate(*batches, start=start), kinds.values(),
              losses.frozen_in_warm_up, held_out)


def make_cooperative(bench: Bench) -> None:
  """Stage 1B: both experts, from the parameters of stage 1A; or the one that labels teach."""
  trainer, s = _Trainer.of(bench), bench.settings
  censored: Censoring = bench.inputs.get('censoring', UNCENSORED)
  weighting = task_weights(s['task_weights'], 2, s['fixed_weights'])
  kinds = trainer.kinds(s['stage'], trainer.taught)
  batches = trainer.data('cooperative', kinds, censored.of_train(trainer.dataset))
  both = len(trainer.taught) > 1
  doubt = censored.doubt if both else 0.0
  moves: Sequence[Move] = ()  # among several processes the first alone knows them

  def start(own: _Trainer) -> PyTree:
    nonlocal moves
    params = own.placed(bench.inputs['warm_up'].params)
    fits: LinearFits | None = bench.inputs['linear']
    if fits is not None:
      moves = doubt_moves(fits, own.blocks, own.log('train'), doubt)
    return moved(params, moves)
  params = {'model': trainer.started(start)}
  if both:
    params['task_weights'] = weighting.init()
    loss = losses.cooperative_loss(trainer.model, [*kinds], weighting, s['beta'], doubt)
  else:
    loss = losses.warm_up_loss(trainer.model, [*kinds], s['beta'])
  untaught = set(PERSPECTIVES) - set(trainer.taught)
  held_out = trainer.held_out(
      'cooperative', lambda found: losses.held_out_loss(trainer.model, found, s['beta'], doubt),
      kinds)
  trainer.run('cooperative', loss, params, lambda start: iterate(*batches, start=start),
              kinds.values(), lambda path: bool(untaught & set(path)), held_out,
              lambda trained: trained | {'model': _shrunk(
                  trainer.alone, trained['model'], doubt, moves)})


def _shrunk(trainer: _Trainer, trained: PyTree, doubt: float, moves: Sequence[Move]) -> PyTree:
  """Trained experts as far from their linear start as validation bears out; see `shrinkage`."""
  validation = trainer.log('validation')
  rows = some_labelled(validation, trainer.taught)
  if not trainer.model.config.numbers or not len(rows):
    return trained
  start = moved(trainer.linear(), moves)
  text: Text = trainer.bench.inputs['tokenizer']

  def scores(params: PyTree) -> PairScores:
    score = scorer(trainer.bench, text.experts(trainer.model, params), trainer.dataset)
    return score.scores(rows.candidate, rows.job)
  shares = kept_shares(scores(shrunk(start, trained, dict.fromkeys(trainer.taught, 0.0))),
                       scores(trained), rows, trainer.taught, doubt)
  logging.info('cooperative: validation keeps %s of what training added to the linear models',
               ', '.join(f'{share:.2f} in {name}' for name, share in shares.items()))
  return shrunk(start, trained, shares)
