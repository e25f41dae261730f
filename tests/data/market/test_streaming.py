"""A market written block by block is the simulated one, whatever the number of workers."""

import dataclasses

import numpy as np
import pytest

from jobrec_jax.data.dataset import Truth
from jobrec_jax.data.files.jsonl import read_jsonl
from jobrec_jax.data.market import simulator
from jobrec_jax.data.market.simulator import MarketConfig, make_market, simulate
from jobrec_jax.data.market.streaming import write_market

CONFIG = MarketConfig(candidates=9000, jobs=40, exposure=0.05, logging='recommender')


def contents(folder):
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_files_do_not_depend_on_the_workers(tmp_path):
  market = make_market(CONFIG, 0)
  assert market.blocks == 3
  for workers in (1, 2, 3):
    write_market(market, tmp_path / f'{workers}/data', tmp_path / f'{workers}/truth', workers)
  for part in ('data', 'truth'):
    one, two, three = (contents(tmp_path / f'{w}/{part}') for w in (1, 2, 3))
    assert one == two == three


def test_what_is_streamed_is_what_is_simulated(tmp_path, monkeypatch):
  monkeypatch.setattr(simulator, 'BLOCK', 64)
  config = dataclasses.replace(CONFIG, candidates=150)
  done = []
  write_market(make_market(config, 1), tmp_path / 'data', tmp_path / 'truth', progress=done.append)
  dataset, truth = simulate(config, 1)
  read = read_jsonl(tmp_path / 'data', dataset.schema)
  assert read.fingerprint() == dataset.fingerprint() and done == [64, 128, 150]
  parts = [np.load(path, allow_pickle=False) for path in sorted((tmp_path / 'truth').iterdir())]
  pairs = tuple(np.concatenate([p[name] for p in parts]) for name in ('candidate', 'job'))
  np.testing.assert_array_equal(pairs[0], dataset.interactions.candidate)
  for field in dataclasses.fields(Truth):
    np.testing.assert_array_equal(np.concatenate([p[field.name] for p in parts]),
                                  getattr(truth, field.name)[pairs])


def test_truth_never_lies_among_the_features(tmp_path):
  market = make_market(CONFIG, 0)
  for inside in (tmp_path, tmp_path / 'truth', tmp_path / '../' / tmp_path.name / 'x'):
    with pytest.raises(ValueError, match='truth_folder must lie outside'):
      write_market(market, tmp_path, inside)
  with pytest.raises(ValueError, match=r'export\.workers must be at least 1, got 0'):
    write_market(market, tmp_path, workers=0)
