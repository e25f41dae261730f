"""What a script refuses before it does anything."""

import json

import pytest

from configs import base
from experiments.setup import Run, validate


@pytest.fixture
def begun(tmp_path):
  """A run folder with a tokenizer, and what else a test puts there."""
  run = Run(tmp_path / 'run')
  run.start(base.get_config(), 'test')
  (run / 'tokenizer.json').write_text('{}')
  return run


def changed(key, value):
  config = base.get_config()
  config.update_from_flattened_dict({key: value})
  return config


@pytest.mark.parametrize('made, key, value', [
    ('tokenizer.json', 'tokenizer.vocab_size', 512), ('tokenizer.json', 'seed', 1),
    ('tokenizer.json', 'backbone.path', 'elsewhere'), ('checkpoints/warm_up', 'model.width', 32),
    ('checkpoints/warm_up', 'warm_up.steps', 40), ('checkpoints/policy', 'policy.bound', 5.0),
    ('checkpoints/cooperative', 'cooperative.batch', 1)])
def test_what_lies_there_keeps_its_settings(begun, made, key, value):
  if made != 'tokenizer.json':
    (begun / made).mkdir(parents=True)
    begun.start(changed(key, value), 'test')  # a stage that has saved nothing settles nothing
    begun.start(base.get_config(), 'test')
    (begun / made / '100').mkdir()
  with pytest.raises(ValueError, match=f'{made} was made with {key}=.*this run has {value!r}'):
    begun.start(changed(key, value), 'test')
  assert json.loads((begun / 'config.json').read_text()) == json.loads(base.get_config().to_json())


@pytest.mark.parametrize('key, value', [
    ('features.batch', 2), ('evaluate.resamples', 10), ('policy.grid', 3), ('sweep.seeds', (0, 1))])
def test_what_made_nothing_may_change(begun, key, value):
  (begun / 'checkpoints/policy/7').mkdir(parents=True)
  begun.start(changed(key, value), 'test')
  assert json.loads((begun / 'config.json').read_text()) == json.loads(
      changed(key, value).to_json())


@pytest.mark.parametrize('key, value, message', [
    ('policy.knots', 1, 'policy.knots must be at least 2, got 1'),
    ('policy.bound', 0.0, 'policy.bound must be positive, got 0.0'),
    ('features.batch', 0, 'features.batch must be at least 1, got 0'),
    ('sweep.seeds', (), 'sweep.seeds must name at least one seed'),
    ('lora.rank', 0, 'lora.rank: allowed at least 1, got 0'),
    ('tokenizer.verdicts', 'runes', "tokenizer.verdicts must be one of .*, got 'runes'")])
def test_a_bad_setting_is_named_before_anything_runs(key, value, message):
  with pytest.raises(ValueError, match=message):
    validate(changed(key, value))
