"""A market of any size to disk, block by block: records, exposed pairs, and their truth apart.

Worker processes draw and render blocks; the parent appends them in order, so the files are the same
bytes whatever the number of workers. Memory is that of a few blocks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
import dataclasses
import multiprocessing
from pathlib import Path
from typing import NamedTuple

from jobrec_jax.data.files.jsonl import JsonlWriter, render_entities, render_interactions
from jobrec_jax.data.market.simulator import Market
from jobrec_jax.schema.files import save_arrays

_AHEAD = 2  # blocks in flight for each worker: enough to keep it busy, few enough to fit


class Block(NamedTuple):
  """A rendered block: lines of candidates.jsonl and interactions.jsonl, and how many."""

  candidates: bytes
  count: int
  interactions: bytes
  shown: int


def render_block(market: Market, block: int, truths: Path | None) -> Block:
  """Draws and renders one block; writes the truth of its exposed pairs below `truths`, if given."""
  columns = market.columns(block)
  records, log = market.candidates(columns), market.log(columns)
  ids = {columns.first + i: record.id for i, record in enumerate(records)}
  if truths is not None:
    truth = market.truth(columns, log.candidate, log.job)
    save_arrays(truths / f'block-{block:05d}.npz', {
        'candidate': log.candidate, 'job': log.job,
        **{f.name: getattr(truth, f.name) for f in dataclasses.fields(truth)}})
  schema = market.domain.schema
  return Block(render_entities(schema, 'candidate', records), columns.n,
               render_interactions(log, ids, [job.id for job in market.jobs]), len(log))


def write_market(market: Market, folder: str | Path, truth_folder: str | Path | None = None,
                 workers: int = 1, progress: Callable[[int], None] = lambda done: None) -> None:
  """Writes a market as `read_jsonl` reads it, in time linear in its candidates.

  Args:
    market: what to write.
    folder: of the JSON lines; made if absent.
    truth_folder: for one .npz file of arrays for each block, the truth of the exposed pairs; it may
      not lie in `folder`. None for no truth.
    workers: processes; the result does not depend on it.
    progress: called with the number of candidates written.

  Raises:
    ValueError: the truth would lie among the features, or there is no worker.
  """
  if workers < 1:
    raise ValueError(f'export.workers must be at least 1, got {workers}')
  truths = None
  if truth_folder is not None:
    truths = Path(truth_folder)
    if truths.resolve().is_relative_to(Path(folder).resolve()):
      raise ValueError(f'truth_folder must lie outside {folder}, got {truths}')
    truths.mkdir(parents=True, exist_ok=True)
  with JsonlWriter(folder, market.domain.schema) as writer:
    writer.write_entities('job', market.jobs)
    for block in _rendered(market, truths, workers):
      writer.append('candidates', block.candidates, block.count)
      writer.append('interactions', block.interactions, block.shown)
      progress(writer.counts['candidates'])


def _rendered(market: Market, truths: Path | None, workers: int) -> Iterator[Block]:
  """The blocks in order, a few of them ahead in the workers."""
  if workers == 1:
    yield from (render_block(market, block, truths) for block in range(market.blocks))
    return
  # Spawned, not forked: the parent may hold threads that a fork would copy half-way.
  with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
    waiting: deque[Future[Block]] = deque()
    for block in range(market.blocks):
      # The market goes along each time: a hundredth of the work that a block is.
      waiting.append(pool.submit(render_block, market, block, truths))
      if len(waiting) > _AHEAD * workers:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
