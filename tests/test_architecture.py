"""Imports point one way, and meshes, devices and frameworks stay in their rooms."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    'schema': 0, 'objectives': 1, 'lagrangian': 1, 'data': 1, 'censoring': 2,
    'liveness': 0, 'job': 0, 'processes': 1, 'models': 2, 'sharding': 3,
    'scoring': 4, 'generate': 5, 'weights': 5, 'refine': 4, 'train': 5, 'evaluate': 6,
    'baselines': 6, 'report': 6, 'recommend': 6, 'pipeline': 7, 'command_line': 8, 'experiments': 9,
}
NEIGHBOURS = {('report', 'evaluate')}  # on the same floor
FILES = sorted([*ROOT.glob('jobrec_jax/**/*.py'), *ROOT.glob('experiments/**/*.py')])
MESH_NAMES = {'make_mesh', 'set_mesh', 'Mesh', 'NamedSharding', 'PartitionSpec', 'AxisType'}


def room(parts: tuple[str, ...]) -> str:
  return parts[0] if parts[0] == 'experiments' else Path(parts[1]).stem if len(parts) > 1 else ''


def room_of(path: Path) -> str:
  return room(path.relative_to(ROOT).parts)


def in_rooms(*rooms: str) -> list[Path]:
  return [f for f in FILES if room_of(f) in rooms]


def imported(source: str) -> set[str]:
  """Every module that a source imports, at its top or inside a function, as a dotted name."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'relative imports hide the room they come from'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def rooms_imported(source: str) -> set[str]:
  parts = [tuple(name.split('.')) for name in imported(source)]
  return {room(p) for p in parts if p[0] in ('jobrec_jax', 'experiments')} - {''}


def may_import(importer: str, other: str) -> bool:
  return (importer == other or (importer, other) in NEIGHBOURS
          or FLOORS[other] < FLOORS[importer])


def packages(path: Path) -> set[str]:
  return {name.split('.')[0] for name in imported(path.read_text())}


def names_used(path: Path) -> set[str]:
  tree = ast.parse(path.read_text())
  return ({n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
          | {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
          | {name.split('.')[-1] for name in imported(path.read_text())})


def test_every_room_is_on_a_floor():
  assert FILES
  assert {room_of(f) for f in FILES} - {'__init__'} <= set(FLOORS)


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_never_climb(path):
  if room_of(path) == '__init__':
    # Its names are imported when they are asked for: test_load.
    assert rooms_imported(path.read_text()) <= {'pipeline'}
    return
  climbs = [r for r in rooms_imported(path.read_text()) if not may_import(room_of(path), r)]
  assert not climbs


def test_the_rules_find_a_climb():
  inside_a_function = 'def f():\n  from jobrec_jax.train.loop import train'
  assert rooms_imported(inside_a_function) == {'train'}
  assert not may_import('models', 'train')
  assert not may_import('train', 'evaluate')
  assert not may_import('evaluate', 'report') and may_import('report', 'evaluate')
  assert may_import('experiments', 'schema') and not may_import('recommend', 'experiments')


@pytest.mark.parametrize('name', ['schema', 'lagrangian'])
def test_schema_and_lagrangian_import_nothing_of_ours(name):
  assert in_rooms(name)
  for path in in_rooms(name):
    assert rooms_imported(path.read_text()) <= {name}, path


def test_frameworks_stay_in_their_rooms():
  for path in in_rooms('schema'):
    assert not packages(path) & {'jax', 'flax', 'optax', 'orbax'}, path
  for path in in_rooms('data', 'baselines'):
    assert not packages(path) & {'flax', 'optax', 'orbax'}, path
  for path in FILES:
    assert not packages(path) & {'torch', 'pytest', 'hypothesis'}, path
    if room_of(path) != 'command_line':  # a ConfigDict stops at the command line
      assert 'ml_collections' not in packages(path), path


def test_scripts_share_nothing_but_the_library():
  scripts = {p.stem for p in in_rooms('experiments')}
  assert len(scripts) > 5
  for path in FILES:
    assert 'experiments' not in packages(path), path
    lines = len(path.read_text().splitlines())
    assert room_of(path) != 'experiments' or lines < 100, f'{path}: a script is read at a glance'


def test_meshes_are_made_in_one_place():
  assert MESH_NAMES & names_used(ROOT / 'jobrec_jax/sharding.py')
  # Elsewhere one may be received, and sharding.make_mesh called.
  received = {'Mesh', 'make_mesh'}
  for path in FILES:
    where = room_of(path)
    if where not in ('sharding', 'scoring', 'train', 'evaluate'):
      allowed = received if where in ('recommend', 'pipeline') else set()
      assert not names_used(path) & MESH_NAMES - allowed, path
      assert 'jax.make_mesh' not in path.read_text(), path


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path):
  assert len(path.read_text().splitlines()) <= 400
