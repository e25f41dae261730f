"""Every setting is read somewhere, nothing unknown is read, and a misspelled override fails."""

import ast
import dataclasses
import importlib
from pathlib import Path

from ml_collections import ConfigDict
import pytest

from configs import base

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(ROOT.glob('experiments/*.py'))
CONFIGS = sorted(p.stem for p in ROOT.glob('configs/*.py') if p.stem != '__init__')


def leaves(config: ConfigDict, prefix: str = '') -> set[str]:
  found = set()
  for key, value in config.items():
    inside = isinstance(value, ConfigDict)
    found |= leaves(value, f'{prefix}{key}.') if inside else {prefix + key}
  return found


def chain(node: ast.AST, aliases: dict[str, str]) -> str | None:
  """'policy.grid' for config.policy.grid, '' for config itself, None for anything else."""
  if isinstance(node, ast.Name):
    return '' if node.id == 'config' else aliases.get(node.id)
  if isinstance(node, ast.Attribute):
    start = chain(node.value, aliases)
    return None if start is None else f'{start}.{node.attr}'.lstrip('.')
  return None


def functions(tree: ast.Module) -> list[ast.AST]:
  return [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]


def section_fields(call: ast.Call, module) -> set[str]:
  """The keys that section(Class, values, given=...) reads."""
  cls = getattr(module, call.args[0].id)
  return {f.name for f in dataclasses.fields(cls)} - {k.arg for k in call.keywords}


def reads(source: str, module) -> set[str]:
  """Dotted keys that a script reads, and what it takes a whole section for."""
  found = set()
  for function in functions(ast.parse(source)):
    aliases = {}
    for node in ast.walk(function):
      if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        path = chain(node.value, {})
        if path and '.' not in path:
          aliases[node.targets[0].id] = path
    inner = {id(n.value) for n in ast.walk(function) if isinstance(n, ast.Attribute)}
    for node in ast.walk(function):
      if isinstance(node, ast.Attribute) and id(node) not in inner:
        path = chain(node, aliases)
        if path:
          found.add(path)
      named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
      if named and node.func.id == 'section':
        path = chain(node.args[1], aliases)
        if path is not None:
          found |= {f'{path}.{field}' for field in section_fields(node, module)}
  return found


@pytest.fixture(scope='module')
def all_reads() -> dict[str, set[str]]:
  return {p.name: reads(p.read_text(), importlib.import_module(f'experiments.{p.stem}'))
          for p in SCRIPTS}


def test_every_key_is_read(all_reads):
  unread = leaves(base.get_config()) - set().union(*all_reads.values())
  assert not unread


def test_no_unknown_key_is_read(all_reads):
  config = base.get_config()
  known = leaves(config)
  known |= {key for key in config if isinstance(config[key], ConfigDict)}
  methods = {'to_json', 'update', 'lock', 'unlocked', 'items'}
  for name, found in all_reads.items():
    unknown = {path for path in found if path not in known
               and not (path.split('.')[-1] in methods and path.count('.') == 0)}
    assert not unknown, name


def test_the_reader_sees_chains_aliases_and_sections():
  class Module:
    @dataclasses.dataclass
    class Pair:
      a: int
      b: int

  source = '''
def f(config, other):
  p = config.policy
  use(config.seed, p.list_length, other.seed, section(Pair, config.mesh, b=1))
'''
  assert reads(source, Module) == {'seed', 'policy', 'policy.list_length', 'mesh', 'mesh.a'}


def test_keys_are_read_as_attributes_never_by_get():
  for path in SCRIPTS:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute) and node.attr == 'get':
        assert chain(node.value, {}) is None, path


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build_and_are_locked(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  assert config.is_locked
  assert leaves(config) == leaves(base.get_config())
  with pytest.raises(AttributeError, match='polcy'):
    config.polcy = 1
  with pytest.raises((AttributeError, KeyError), match='stepz'):
    config.cooperative.stepz = 1
  with pytest.raises(KeyError, match='bata'):
    config.update({'experts': {'bata': 2.0}})
  with pytest.raises(TypeError, match='float'):
    config.cooperative.learning_rate = 'fast'
