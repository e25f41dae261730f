"""A process of a job for the tests: few steps of stages 1A and 1B, the tiny stage, a road.

  python -m tests.processes.worker ROLE FOLDER PORT PROCESS     '' for a process alone
"""

from collections.abc import Iterator
import functools
from pathlib import Path
import signal
import sys
import time
from typing import Any

from absl import logging
import flax.linen as nn
from flax.traverse_util import flatten_dict
import jax
import numpy as np
import optax

from jobrec_jax import liveness, processes
from jobrec_jax.command_line import ending
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.loader import finisher, iterate, list_dataset
from jobrec_jax.data.market.simulator import MarketConfig, simulate
from jobrec_jax.data.tokens import BlockEncoder, BlockFormat, corpus, train_tokenizer
from jobrec_jax.data.training_lists import LabelledLists
from jobrec_jax.job import Job
from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.models.jobrec import JobRec, JobRecConfig
from jobrec_jax.objectives.task_weights import task_weights
from jobrec_jax.pipeline.follow import share
from jobrec_jax.pipeline.run import Run
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.sharding import (
  MeshConfig,
  init_sharded,
  layout,
  make_mesh,
  on_host,
  on_mesh,
  own_rows,
  shard_batch,
)
from jobrec_jax.train.experts import Kind, cooperative_loss, frozen_in_warm_up, warm_up_loss
from jobrec_jax.train.signals import raise_on_signals
from jobrec_jax.train.state import create_state, make_update, split_params
from tests.pipeline.tiny import tiny_settings
from tests.train import tiny

STEPS = 4
# Of four devices lists of the one kind divide over 4 and 2 of them, or over 4 alone, or over none.
STAGES = {'1A': {Kind('preference', 'candidate'): 8, Kind('preference', 'job'): 3},
          '1B': {Kind('preference', 'candidate'): 5, Kind('qualification', 'job'): 8}}
HEARTBEAT = 10
FORM = BlockFormat(candidate=40, job=24, alignment=16)
SIGNALLED, LONG = 6, 500  # the step in which a signal comes, and the length of that stage


@functools.cache
def market() -> tuple[Dataset, BlockEncoder]:
  dataset, _ = simulate(MarketConfig(candidates=60, jobs=20, exposure=0.6), seed=3)
  return dataset, BlockEncoder(dataset, train_tokenizer(corpus(dataset, pairs=200), 512),
                               FORM)


def model_of(heads: int) -> JobRec:
  return JobRec(JobRecConfig(head_widths=(16,), head_dropout=0.3, decoder=DecoderConfig(
      vocab_size=512, width=16, layers=1, heads=heads, kv_heads=heads, head_width=8,
      mlp_width=32)))


MODEL, WIDE = model_of(2), model_of(8)
GRIDS = (8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)  # of eight devices


def few_steps(stage: str, mesh: jax.sharding.Mesh,
              model: JobRec = MODEL) -> dict[str, np.ndarray]:
  """Losses of four steps, and what they made of the parameters: sums of gradients.

  Steps are plain descent, since Adam would make a gradient of 1e-9 as large as one of 1.
  """
  kinds, (dataset, blocks) = STAGES[stage], market()
  log = dataset.interactions.of('train')
  data = iterate(*(list_dataset(LabelledLists(log, *kind, 3), finisher(blocks, kind.centre), count,
                                seed, own_rows(mesh, count))
                   for seed, (kind, count) in enumerate(kinds.items())))
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  params = {'model': init_sharded(
      lambda: model.init(jax.random.key(0), *lists.values())['params'], mesh)}
  if stage == '1A':
    loss, frozen = warm_up_loss(model, [*kinds], 1.0), frozen_in_warm_up
  else:
    weighting = task_weights('uncertainty', 2)
    params['task_weights'] = weighting.init()
    loss, frozen = cooperative_loss(model, [*kinds], weighting, 1.0, 0.3), lambda path: False
  tx = optax.sgd(0.5)
  state = on_mesh(create_state(*split_params(params, frozen), tx), mesh)
  step, losses = jax.jit(make_update(loss, tx), donate_argnums=0), []
  with layout(mesh):
    for _ in range(STEPS):
      batch = shard_batch(next(data), mesh, tuple(kinds.values()))
      state, metrics = step(state, batch, jax.random.key(1))
      losses.append(float(metrics['train/loss']))
  return {'losses': np.array(losses)} | flatten_dict(on_host(state.trainable), sep='/')


def meshes() -> dict[str, jax.sharding.Mesh]:
  """Of two processes: lists over all four devices, and a tensor axis from one to the other."""
  one_each = jax.devices()[::2]
  return {'data': make_mesh(MeshConfig(4)), 'tensor': make_mesh(MeshConfig(1, 1, 2), one_each)}


def steps_and_signal(folder: Path) -> None:
  """Few steps; then the tiny stage whole, resumed, and with a signal to process 1."""
  for stage, mesh in (('1A', 'tensor'), ('1B', 'data'), ('1B', 'tensor')):
    found = few_steps(stage, meshes()[mesh])
    np.savez(folder / f'{stage}-{mesh}-{processes.index()}.npz', **found)
  tiny.run(folder / 'clock', 12)  # saves after each step that the clock is looked at
  tiny.run(folder / 'resumed', 12)  # one process left it after 6 steps
  tiny.run(folder / 'signal', LONG, signalled, save_seconds=1e9, log_every=1)


def grids(folder: Path) -> None:
  """Few steps of stage 1B over eight devices, however many processes have them."""
  for grid in GRIDS[2:]:
    found = few_steps('1B', make_mesh(MeshConfig(*grid)), WIDE)
    np.savez(folder / f'{grid}-{processes.index()}.npz', **found)


def signalled(step: int) -> Iterator[np.ndarray]:
  for index, batch in enumerate(tiny.batches(step), step):
    if index == SIGNALLED and processes.index() == 1:
      signal.raise_signal(signal.SIGTERM)
    time.sleep(0.02)
    yield batch


def failing(folder: Path, died: bool = False, asleep: bool = False, which: int = 1) -> None:
  """A process cannot read its data, or is killed, or sleeps, while the others wait for it."""
  def data(step: int) -> Iterator[np.ndarray]:
    for index, batch in enumerate(tiny.batches(step), step):
      if index == 3 and processes.index() == which:
        if died:
          signal.raise_signal(signal.SIGKILL)
        while asleep:
          time.sleep(1)
        raise ValueError('the data of this process are gone')
      yield batch
  liveness.PATIENCE = 3.0  # so that nobody waits for the test
  tiny.run(folder / 'failing', 12, data)


def scoring(folder: Path) -> None:
  """Pairs whose batches process 1 makes until it sleeps, while the other waits for its part."""
  dataset, blocks = market()
  lists = blocks.candidate_lists(np.zeros(1, int), np.zeros((1, 1), int))
  params = nn.unbox(MODEL.init(jax.random.key(0), *lists.values()))['params']
  experts = Experts(MODEL, params, blocks.tokenizer, FORM)
  scorer = PairScorer(experts, blocks, make_mesh(MeshConfig(), jax.local_devices()[:1]),
                      ScoringConfig(5, 2))
  make = scorer._batches

  def batches(pairs: np.ndarray) -> Iterator[Any]:
    for index, batch in enumerate(make(pairs)):
      while index == 3 and processes.index() == 1:
        time.sleep(1)
      yield batch
  scorer._batches = batches
  liveness.PATIENCE = 3.0
  with processes.dividing():
    scorer.scores(*np.divmod(np.arange(400), len(dataset.jobs)))


def road(folder: Path, **changes: Any) -> Run:
  """A run whose stages 1A and 1B have three steps each."""
  return Run(folder, tiny_settings(market={'candidates': 60}, lists={'across': 0.0},
                                   warm_up={'steps': 3, 'warmup': 0, 'patience': 1},
                                   cooperative={'steps': 3, 'warmup': 0}, **changes))


def run_road(folder: Path) -> None:
  """Weights lie over the devices of all, so that no process of several holds any whole."""
  def main(run: Run) -> None:
    for stage in (run.road.evaluation, run.road.certified):
      run.get(stage)
  share(road(folder, mesh={'fsdp': jax.device_count()}), main)


def main(role: str, folder: str, port: str, process: str, count: str = '2') -> None:
  job = Job(f'127.0.0.1:{port}', int(count), int(process), HEARTBEAT) if process else None
  with processes.joined(job, ending):
    raise_on_signals()
    {'steps': steps_and_signal, 'failing': failing, 'road': run_road, 'grids': grids,
     'dying': functools.partial(failing, died=True),
     'first dying': functools.partial(failing, died=True, which=0),
     'sleeping': functools.partial(failing, asleep=True), 'scoring': scoring}[role](Path(folder))


if __name__ == '__main__':
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  main(*sys.argv[1:])
