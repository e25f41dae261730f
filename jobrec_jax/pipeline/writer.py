"""Stage 1C: a writer that tells the causes of a pair, beside experts that stay as they are."""

from collections.abc import Callable, Iterator
import dataclasses
import shutil
from typing import Any

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax import processes
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lists import candidates_of, warm_jobs
from jobrec_jax.data.market.causes import Explained
from jobrec_jax.data.market.simulator import Market
from jobrec_jax.data.tokens import PAD, BlockEncoder, count_tokens
from jobrec_jax.generate.automaton import Vocabulary
from jobrec_jax.generate.claims import sayable
from jobrec_jax.generate.market import MarketReasons
from jobrec_jax.generate.write import ReasonWriter, widened
from jobrec_jax.models.writer import Writer, words_of, writer_lora
from jobrec_jax.pipeline.artefacts import load_params, save_params
from jobrec_jax.pipeline.provenance import began
from jobrec_jax.pipeline.stage import Bench, plain
from jobrec_jax.pipeline.training_settings import WriterSettings
from jobrec_jax.schema import streams
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.sharding import init_sharded, make_mesh
from jobrec_jax.train.checkpoint import Checkpoints
from jobrec_jax.train.loop import HELD_OUT, HeldOut, Loop, MetricsWriter, train
from jobrec_jax.train.state import create_state, make_optimizer, make_update, stream_key
from jobrec_jax.train.writer import writer_loss

PyTree = Any
PARAMS = 'params.safetensors'
HELD_OUT_LISTS = 4  # batches of validation candidates


@dataclasses.dataclass(frozen=True)
class Lessons:
  """Lists of jobs of a candidate, and the reasons to be written of each pair.

  Attributes:
    candidate, job: [M] and [M, J] indices.
    texts: of each perspective [M, J, T] int32, the end behind each text and then `PAD`; empty where
      there is no reason.
  """

  candidate: np.ndarray
  job: np.ndarray
  texts: tuple[np.ndarray, ...]

  def batch(self, rows: np.ndarray, blocks: BlockEncoder, experts: Experts) -> PyTree:
    lists = blocks.candidate_lists(self.candidate[rows], self.job[rows])
    return widened(lists, experts) | {'texts': tuple(of[rows] for of in self.texts)}


def lessons(s: WriterSettings, seed: int, dataset: Dataset, split: str, count: int,
            reasons: MarketReasons, experts: Experts) -> Lessons:
  """Draws lists of a split's candidates and warm jobs, and writes their reasons down."""
  rng = streams.rng(seed, f'lessons of {split}')
  people, jobs = candidates_of(dataset, split), warm_jobs(dataset)
  candidate = rng.choice(people, count)
  job = np.stack([rng.choice(jobs, s.list_length, replace=len(jobs) < s.list_length)
                  for _ in range(count)])
  pairs = np.repeat(candidate, s.list_length), job.ravel()
  words = Vocabulary(experts.tokenizer, words_of(experts.model))
  texts = []
  for perspective in PERSPECTIVES:
    parts = reasons.parts(*pairs, perspective)
    said = [reasons.reason(sayable(dataset.schema, dataset.candidates[u], dataset.jobs[j],
                                   perspective), of) for u, j, of in zip(*pairs, parts)]
    ids = [[*row, words.size] if row else [] for row in words.encode(said)]
    longest = -(-max(map(len, ids)) // 8) * 8
    rows = np.full((len(ids), longest), PAD, np.int32)
    for row, i in zip(rows, ids):
      row[:len(i)] = i
    texts.append(rows.reshape(*job.shape, longest))
  return Lessons(candidate, job, tuple(texts))


def make_writer(bench: Bench, market: Callable[[], Market]) -> None:
  """Trains the writer on what frozen experts read; the best on validation candidates is kept."""
  s: WriterSettings = bench.settings['writer']
  dataset, experts = bench.inputs['data'].dataset, bench.inputs['experts']
  seed, blocks = bench.settings['seed'], experts.blocks(dataset)
  reasons = MarketReasons(Explained(market()))
  taught = lessons(s, seed, dataset, 'train', s.lists, reasons, experts)
  model = experts.model
  config = dataclasses.replace(model.config.decoder, lora=writer_lora(s.rank))
  module = Writer(config, len(model.config.experts), model.config.numbers)
  key = stream_key(jax.random.key(seed), 'writer')
  mesh = make_mesh(bench.resources.mesh)
  params = init_sharded(lambda: module.init(
      stream_key(key, 'init'), jnp.zeros((1, config.width)))['params'], mesh)
  loss, tx = writer_loss(model, config), make_optimizer(s)
  held = lessons(s, seed, dataset, 'validation', HELD_OUT_LISTS * s.batch, reasons, experts)
  held_out = HeldOut(
      lambda trainable, frozen, batch: {HELD_OUT: loss(trainable, frozen, batch, key)[0]},
      [held.batch(rows, blocks, experts) for rows in
       np.split(np.arange(len(held.candidate)), HELD_OUT_LISTS)], s.patience)
  r = bench.resources
  with (Checkpoints(bench.folder / 'checkpoints', {'stage': 'writer'}) as kept,
        r.watching.stage(bench.folder.name, plain(bench.settings)) as watch):
    loop = Loop('writer', s.steps, kept, MetricsWriter(bench.folder / 'metrics.jsonl'), r.log_every,
                r.save_seconds, count_tokens, watch, held_out if s.patience else None,
                began=began(bench.folder))
    state = create_state({'writer': params}, {'model': jax.tree.map(jnp.asarray, experts.params)},
                         tx)
    state = train(loop, make_update(loss, tx), state, lambda start: _batches(
        taught, s.batch, seed, blocks, experts, start), key, mesh)
  if processes.is_first():
    save_params(bench.folder / PARAMS, jax.device_get(state.kept['writer']))
    shutil.rmtree(bench.folder / 'checkpoints', ignore_errors=True)
  logging.info('writer: learnt from %d pairs', taught.job.size)


def _batches(taught: Lessons, size: int, seed: int, blocks: BlockEncoder, experts: Experts,
             start: int) -> Iterator[PyTree]:
  """Endless batches, each epoch in an order of its own."""
  each = len(taught.candidate) // size
  step = start
  while True:
    epoch, at = divmod(step, each)
    order = streams.rng(seed, 'order of lessons', epoch).permutation(len(taught.candidate))
    yield taught.batch(order[at * size:(at + 1) * size], blocks, experts)
    step += 1


def read_writer(bench: Bench) -> ReasonWriter:
  """The writer as its stage left it."""
  return ReasonWriter(bench.inputs['experts'], writer_lora(bench.settings['writer'].rank),
                      load_params(bench.folder / PARAMS), bench.inputs['data'].dataset.schema)

