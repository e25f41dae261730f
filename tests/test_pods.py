"""The presets of machines are settings that their machines allow, and BUILD.md shows their rows."""

import math

import pytest

from benchmarks import ahead
from configs import pods
from jobrec_jax.pipeline.compile_ahead import TOPOLOGIES
from jobrec_jax.pipeline.settings import Settings, check_devices
from jobrec_jax.schema.settings import build


@pytest.mark.parametrize('name', pods.PODS)
def test_a_preset_divides_over_its_machine(name):
  topology, mesh, lists = pods.PODS[name]
  settings = build(Settings, pods.get_config(name).to_dict())
  check_devices(settings, math.prod(mesh))
  assert settings.cooperative.batch == lists
  if topology:
    chips = math.prod(map(int, topology.split(':')[1].split('x')))
    assert topology in TOPOLOGIES and math.prod(mesh) == chips == int(name.split('-')[1])


def test_an_unknown_preset_is_refused():
  with pytest.raises(ValueError, match=r'followed by one of gpu, gpu-8, .*got .tpu.'):
    pods.get_config('tpu')


def test_the_page_shows_the_kept_rows():
  page = ahead.PAGE.read_text()
  assert ahead.MARK.search(page) and ahead.render(page) == page
  rows = ahead.kept()
  assert {f'{name}.json' for name in rows} == {p.name for p in ahead.KEPT.iterdir()}
  for name, row in rows.items():
    topology, mesh, lists = pods.PODS[name.removesuffix(ahead.PLAIN)]
    assert row['topology'] == topology and row['lists'] == [lists, lists]
    assert tuple(row['mesh'].values()) == mesh
    assert not row.get('gathers_all_layers'), 'BUILD.md says otherwise'
    assert math.prod(mesh) == row['chips']


def test_a_row_that_does_not_fit_says_so():
  row = ahead.kept()['v5e-16-plain'] | {'fits': False, 'refused': '(20G) exceeds (15G)'}
  del row['collectives']
  line = ahead.table({'big': row}).splitlines()[-1]
  assert '| no: (20G) exceeds (15G) |' in line and line.count('|') == len(ahead.HEAD) + 1
