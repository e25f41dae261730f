"""What fits is found by doubling, with more computed again only where that fits more."""

import json

import jax
import pytest

from jobrec_jax.pipeline import compile_search
from jobrec_jax.pipeline.compile_search import best, rate, read_meshes, search, search_in_words
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.sharding import MeshConfig

COST = {'none': 4, 'selective': 2, 'full': 1}  # memory of a list; 8 fit in what a chip has
WORK = {'none': 3.0, 'selective': 3.5, 'full': 4.0}


class Compiler:
  """Memory rises with the lists of a chip, operations with what is computed again."""

  def __init__(self, room=8):
    self.room, self.asked = room, []

  def __call__(self, settings, topology, file):
    mesh, lists = settings.mesh, settings.cooperative.batch
    assert (settings.warm_up.batch, settings.features.batch) == (lists, lists)
    assert settings.cooperative.qualification_batch == lists
    if mesh.tensor == 8:
      raise ValueError('heads must divide by 8, got 4')
    used = COST[settings.model.remat] * lists / (mesh.data * mesh.fsdp)
    self.asked.append((mesh.tensor, settings.model.remat, lists))
    return {'mesh': {'data': mesh.data, 'fsdp': mesh.fsdp, 'tensor': mesh.tensor},
            'remat': settings.model.remat, 'lists': [lists, lists], 'fits': used <= self.room,
            'memory': {'total': used * 2**30} if used <= self.room else {},
            'seconds_at_peak': WORK[settings.model.remat] * lists / 8, 'seconds_exchanging': 4.0}


@pytest.fixture(autouse=True)
def eight(monkeypatch):
  monkeypatch.setattr(compile_search, 'topology_devices', lambda name: jax.devices())


def test_more_is_computed_again_only_for_more_lists():
  compiler = Compiler()
  search(Settings(), 'v5e:2x4', meshes=['1x8x1'], compiled=compiler)
  assert compiler.asked == [(1, 'none', 8), (1, 'none', 16), (1, 'none', 32),
                            (1, 'selective', 32), (1, 'selective', 64),
                            (1, 'full', 64), (1, 'full', 128)]


def test_a_limit_ends_the_search_on_a_mesh():
  compiler = Compiler()
  search(Settings(), 'v5e:2x4', meshes=['1x8x1', '1x4x2'], most=16, compiled=compiler)
  assert compiler.asked == [(1, 'none', 8), (1, 'none', 16),
                            (2, 'none', 4), (2, 'none', 8), (2, 'none', 16), (2, 'selective', 16)]
  with pytest.raises(ValueError, match=r'--most must leave a list for each chip .*got 4'):
    search(Settings(), 'v5e:2x4', meshes=['1x8x1'], most=4, compiled=compiler)


def test_the_best_is_bound_by_products_or_by_exchanges():
  """Of 8 and 16 lists with nothing computed again a step takes 4 (exchanges) and 6 s; 32 take 14 s
  where something is computed again, which is slower than 16."""
  rows = search(Settings(), 'v5e:2x4', meshes=['1x8x1'], compiled=Compiler())
  assert [rate(row) for row in rows[:4]] == [16 / 4, 32 / 6, 0.0, 64 / 14]
  assert best(rows)['lists'] == [16, 16] and best(rows)['remat'] == 'none'
  words = search_in_words(rows)
  assert words.splitlines()[1].split() == ['1x8x1', 'none', '8', '+', '8', '4.0', 'yes', '3.000',
                                           '4.000', '4']
  assert ('--config.mesh.data=1 --config.mesh.fsdp=8 --config.mesh.tensor=1 --config.model.remat='
          'none --config.cooperative.batch=16 --config.cooperative.qualification_batch=16 '
          '--config.warm_up.batch=16 --config.features.batch=16') in words
  nothing = search(Settings(), 'v5e:2x4', meshes=['1x8x1'], compiled=Compiler(room=0))
  assert best(nothing) is None and 'Nothing fits' in search_in_words(nothing)
  unread = [{k: v for k, v in row.items() if k != 'seconds_exchanging'} for row in rows]
  assert 'exchanges are not known' in search_in_words(unread)


def test_a_mesh_that_the_step_cannot_lie_on_is_left_out(caplog):
  rows = search(Settings(), 'v5e:2x4', meshes=['1x1x8', '1x8x1'], compiled=Compiler())
  assert {tuple(row['mesh'].values()) for row in rows} == {(1, 8, 1)}
  assert 'mesh 1x1x8: heads must divide by 8, got 4' in caplog.text
  with pytest.raises(ValueError, match='heads must divide by 8, got 4'):
    search(Settings(), 'v5e:2x4', meshes=['1x1x8'], compiled=Compiler())


def test_meshes_are_of_all_chips():
  assert read_meshes([], 16) == [MeshConfig(1, 16, 1), MeshConfig(2, 8, 1), MeshConfig(1, 8, 2)]
  assert read_meshes([], 1) == [MeshConfig(1, 1, 1)]
  assert read_meshes(['2x4x2'], 16) == [MeshConfig(2, 4, 2)]
  for wrong in ('1x16', '2x4x4', '16', '0x16x1', 'x1x16', '-1x8x1'):
    with pytest.raises(ValueError, match=r'--meshes must be DATAxFSDPxTENSOR of 16 chips .*got'):
      read_meshes([wrong], 16)


def test_the_same_command_goes_on(tmp_path):
  """Rows of the same settings and compiler are read, of others kept."""
  out, first = tmp_path / 'rows.json', Compiler()
  rows = search(Settings(), 'v5e:2x4', meshes=['1x8x1'], most=16, out=out, compiled=first)
  again = Compiler()
  more = search(Settings(), 'v5e:2x4', meshes=['1x8x1'], most=32, out=out, compiled=again)
  assert more[:2] == rows and again.asked == [(1, 'none', 32), (1, 'selective', 32)]
  search(Settings(seed=1), 'v5e:2x4', meshes=['1x8x1'], most=8, out=out, compiled=again)
  assert again.asked[-1] == (1, 'none', 8) and len(json.loads(out.read_text())) == 5
  out.write_text('{}')
  with pytest.raises(ValueError, match=r'rows\.json: must hold the rows of a search, got someth'):
    search(Settings(), 'v5e:2x4', out=out, compiled=again)
