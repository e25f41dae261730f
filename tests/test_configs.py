"""Configs are the settings, locked; every setting is read somewhere, a misspelled one fails."""

import ast
import dataclasses
import importlib
from pathlib import Path

from ml_collections import ConfigDict
import pytest

from configs import base
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.settings import build, hints

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p.stem for p in ROOT.glob('configs/*.py') if p.stem != '__init__')
# Where a setting is declared and checked; reading it there is no use of it.
DECLARED = ('jobrec_jax/pipeline/settings.py',)
# Whole sections that are handed on field by field, so that their keys appear nowhere by name.
HANDED_ON = ('model.',)


def leaves(cls: type, prefix: str = '') -> dict[str, type]:
  """Dotted key -> the dataclass that declares it."""
  found = {}
  for name, kind in hints(cls).items():
    found |= leaves(kind, f'{prefix}{name}.') if dataclasses.is_dataclass(kind) else {
        prefix + name: cls}
  return found


def keys(config: ConfigDict, prefix: str = '') -> set[str]:
  found = set()
  for key, value in config.items():
    found |= keys(value, f'{prefix}{key}.') if isinstance(value, ConfigDict) else {prefix + key}
  return found


def attributes_read(path: Path, own: bool) -> set[str]:
  """Names read as attributes or by text keys; `own`: also `self.x` outside of __post_init__."""
  tree = ast.parse(path.read_text())
  checks = {id(inner) for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.name == '__post_init__'
            for inner in ast.walk(node)}
  found = set()
  for node in ast.walk(tree):
    if id(node) in checks:
      continue
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
      by_self = isinstance(node.value, ast.Name) and node.value.id == 'self'
      found |= {node.attr} if own or not by_self else set()
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      found.add(node.value)
  return found


@pytest.fixture(scope='module')
def read() -> set[str]:
  files = [p for p in ROOT.glob('jobrec_jax/**/*.py') if str(p.relative_to(ROOT)) not in DECLARED]
  settings = ROOT / DECLARED[0]
  return set().union(*(attributes_read(p, own=True) for p in files)) | {
      name for name in attributes_read(settings, own=True) if name in ('error_rates', 'people')}


def test_every_setting_is_read(read):
  known = leaves(Settings)
  assert len(known) > 100
  unread = {key for key in known if key.split('.')[-1] not in read
            and not key.startswith(HANDED_ON)}
  assert not unread


def test_handed_on_sections_reach_the_model():
  from jobrec_jax.models.decoder import DecoderConfig
  from jobrec_jax.models.jobrec import JobRecConfig
  takes = {f.name for cls in (DecoderConfig, JobRecConfig) for f in dataclasses.fields(cls)}
  assert {key.split('.')[1] for key in leaves(Settings) if key.startswith('model.')} <= takes


def test_a_setting_that_nobody_reads_would_be_found(tmp_path):
  path = tmp_path / 'x.py'
  path.write_text('class A:\n  def __post_init__(self):\n    self.checked\n\n'
                  'def f(s):\n  s.written = 1\n  return s.used, s["named"]\n')
  assert attributes_read(path, own=True) == {'used', 'named'}


def test_settings_of_one_name_mean_one_thing_in_a_section():
  for key in leaves(Settings):
    assert key.count('.') <= 1, key


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build_and_are_locked(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  assert config.is_locked
  assert keys(config) == keys(base.get_config()) == set(leaves(Settings))
  with pytest.raises(AttributeError, match='polcy'):
    config.polcy = 1
  with pytest.raises((AttributeError, KeyError), match='stepz'):
    config.cooperative.stepz = 1
  with pytest.raises(KeyError, match='bata'):
    config.update({'experts': {'bata': 2.0}})
  with pytest.raises(TypeError, match='float'):
    config.cooperative.learning_rate = 'fast'


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_are_settings(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  with config.unlocked():
    if config.data.source == 'tables':
      config.data.schema = str(Path(__file__).parents[1] / 'examples/shifts/schema.toml')
    elif config.data.source != 'simulated':
      config.data.folder = 'somewhere'
  build(Settings, config.to_dict())


def test_base_is_the_default():
  assert build(Settings, base.get_config().to_dict()) == Settings()


def test_keys_are_read_as_attributes_never_by_get():
  for path in ROOT.glob('configs/*.py'):
    for node in ast.walk(ast.parse(path.read_text())):
      assert not (isinstance(node, ast.Attribute) and node.attr == 'get'), path
