"""A data set as files: a simulated market of any size, or any source in another layout."""

from collections.abc import Callable
from pathlib import Path
import time

from absl import logging

from jobrec_jax.data.files.jsonl import write_jsonl
from jobrec_jax.data.files.paper_csv import write_published
from jobrec_jax.data.files.recbole import write_atomic
from jobrec_jax.data.market.streaming import write_market
from jobrec_jax.pipeline.data import Source, draw_or_read, market_of
from jobrec_jax.pipeline.run import Run


def export(run: Run) -> Path:
  """Writes the data below RUN/data in the layout of `export.format`; returns their folder.

  A simulated market goes out as JSON lines block by block, within the memory of a few blocks, and
  the truth of its exposed pairs apart, to RUN/truth.
  """
  s, folder = run.settings, run / 'data'
  run.write()
  if s.data.source == 'simulated' and s.export.format == 'jsonl':
    write_market(market_of(s), folder, run / 'truth', s.export.workers,
                 progress(s.market.candidates))
    return folder
  dataset, _ = draw_or_read(Source.of(s))
  match s.export.format:
    case 'jsonl':
      write_jsonl(dataset, folder)
    case 'published':
      write_published(dataset, folder)
    case 'recbole':
      folder = folder / s.data.prefix  # RecBole wants files in a folder of their name
      write_atomic(dataset, folder, s.data.prefix)
  return folder


def progress(candidates: int) -> Callable[[int], None]:
  """Logs how many are written, and how long the rest will take."""
  start = time.monotonic()

  def report(done: int) -> None:
    spent = time.monotonic() - start
    logging.info('%s of %s candidates written, %.0f s left', f'{done:,}', f'{candidates:,}',
                 spent / done * (candidates - done))
  return report
