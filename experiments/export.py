"""Writes a data set to files: a simulated market of any size, or any source in another layout.

  python -m experiments.export --workdir=runs/world --config.market.candidates=1000000 \\
      --config.market.jobs=10000 --config.market.exposure=0.001 --config.export.workers=8
  python -m experiments.export --workdir=runs/recbole --config.export.format=recbole

The files are in WORKDIR/data. A simulated market is written as JSON lines block by block, within
the memory of a few blocks, and the truth of its exposed pairs lies apart, in WORKDIR/truth.
"""

import time

from absl import logging
from ml_collections import ConfigDict

from experiments import setup
from jobrec_jax.data.files.jsonl import write_jsonl
from jobrec_jax.data.files.paper_csv import write_published
from jobrec_jax.data.files.recbole import write_atomic
from jobrec_jax.data.market.simulator import make_market
from jobrec_jax.data.market.streaming import write_market

FORMATS = ('jsonl', 'published', 'recbole')


def main(config: ConfigDict, workdir: str) -> None:
  settings, run = setup.validate(config), setup.Run(workdir)
  if config.export.format not in FORMATS:
    raise ValueError(f'export.format must be one of {FORMATS}, got {config.export.format!r}')
  folder = run / 'data'
  if config.data.source == 'simulated' and config.export.format == 'jsonl':
    run.start(config, 'export')
    write_market(make_market(settings.market, config.seed, **setup.split_shares(config)), folder,
                 run / 'truth', config.export.workers, progress(settings.market.candidates))
  else:
    dataset, _ = setup.read_data(config, settings.market)
    run.start(config, 'export')
    match config.export.format:
      case 'jsonl':
        write_jsonl(dataset, folder)
      case 'published':
        write_published(dataset, folder)
      case 'recbole':
        folder = folder / config.data.prefix  # RecBole wants files in a folder of their name
        write_atomic(dataset, folder, config.data.prefix)
  print(f'The data set is in {folder}')


def progress(candidates: int):
  start = time.monotonic()

  def report(done: int) -> None:
    spent = time.monotonic() - start
    logging.info('%s of %s candidates written, %.0f s left', f'{done:,}', f'{candidates:,}',
                 spent / done * (candidates - done))
  return report


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py')
