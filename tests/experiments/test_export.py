import json

import numpy as np
import pytest

from configs import base
from experiments import export, setup
from jobrec_jax.data.market.simulator import MarketConfig


def config_for(**changes):
  c = base.get_config()
  c.market.candidates, c.market.jobs = 60, 20
  for key, value in changes.items():
    section, name = key.split('__')
    c[section][name] = value
  return c


def read(config):
  return setup.read_data(config, setup.section(MarketConfig, config.market))


@pytest.mark.parametrize('domain', ['students', 'nursing'])
@pytest.mark.parametrize('layout', export.FORMATS)
def test_a_market_goes_out_and_comes_back(tmp_path, layout, domain, capsys):
  config = config_for(market__domain=domain, export__format=layout)
  dataset, truth = read(config)
  export.main(config, str(tmp_path))
  folder = tmp_path / 'data' / ('jobrec' if layout == 'recbole' else '')
  assert str(folder) in capsys.readouterr().out
  back, none = read(config_for(market__domain=domain, data__source=layout,
                               data__folder=str(folder)))
  assert none is None and back.candidates == dataset.candidates and back.jobs == dataset.jobs
  log, again = dataset.interactions, back.interactions
  order = np.lexsort((again.job, again.candidate))
  for name in ('candidate', 'job', 'preference', 'qualification', 'split'):
    np.testing.assert_array_equal(getattr(again, name)[order], getattr(log, name))
  if layout != 'published':  # its columns have no place for the propensity
    np.testing.assert_array_equal(again.exposure[order], log.exposure)
  if layout == 'jsonl':
    block = np.load(tmp_path / 'truth/block-00000.npz', allow_pickle=False)
    np.testing.assert_array_equal(block['preference'], truth.preference[log.candidate, log.job])
  assert json.loads((tmp_path / 'config.json').read_text())['export']['format'] == layout


def test_an_unknown_format_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"export\.format must be one of .*'recbole'.*got 'parquet'"):
    export.main(config_for(export__format='parquet'), str(tmp_path))


@pytest.mark.parametrize('source', ['jobrec_synth', 'jsonl', 'published', 'recbole'])
def test_files_need_a_folder(source):
  with pytest.raises(ValueError, match=r'data\.folder must name the folder'):
    setup.validate(config_for(data__source=source))
