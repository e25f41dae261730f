"""A data set goes out in each layout and comes back the same."""

import json
from typing import get_args

import numpy as np
import pytest

from experiments import export
from jobrec_jax.pipeline.data import Source, draw_or_read
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import ExportSettings, Settings
from jobrec_jax.schema.settings import build, hints

FORMATS = get_args(hints(ExportSettings)['format'])


def settings(**sections):
  return build(Settings, {'market': {'candidates': 60, 'jobs': 20} | sections.pop('market', {}),
                          'policy': {'list_length': 10}} | sections)


def read(s):
  return draw_or_read(Source.of(s))


@pytest.mark.parametrize('domain', ['students', 'nursing'])
@pytest.mark.parametrize('layout', FORMATS)
def test_a_market_goes_out_and_comes_back(tmp_path, layout, domain, capsys):
  config = settings(market={'domain': domain}, export={'format': layout})
  dataset, truth = read(config)
  export.main(Run(tmp_path, config))
  folder = tmp_path / 'data' / ('jobrec' if layout == 'recbole' else '')
  assert str(folder) in capsys.readouterr().out
  back, none = read(settings(market={'domain': domain},
                             data={'source': layout, 'folder': str(folder)}))
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
  assert json.loads((tmp_path / 'run.json').read_text())['settings']['export']['format'] == layout


def test_an_unknown_format_is_named():
  with pytest.raises(ValueError, match=r"export\.format must be one of .*'recbole'.*got 'parquet'"):
    settings(export={'format': 'parquet'})


@pytest.mark.parametrize('source', ['jobrec_synth', 'jsonl', 'published', 'recbole'])
def test_files_need_a_folder(source):
  with pytest.raises(ValueError, match=r'data\.folder must name the folder'):
    settings(data={'source': source})
