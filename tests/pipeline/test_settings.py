"""Every wrong setting is refused when settings are built, and its key is named."""

import dataclasses
import math
from typing import Annotated, Literal, get_args, get_origin

import pytest

from jobrec_jax.pipeline.settings import Settings, check_devices
from jobrec_jax.schema.settings import Range, as_mapping, build, hints


def nested(key: str, value) -> dict:
  *sections, name = key.split('.')
  out = {name: value}
  for section in reversed(sections):
    out = {section: out}
  return out


def leaves(cls: type, prefix: str = ''):
  for name, kind in hints(cls).items():
    if dataclasses.is_dataclass(kind):
      yield from leaves(kind, f'{prefix}{name}.')
    else:
      yield prefix + name, kind


def default(key: str):
  value = Settings()
  for name in key.split('.'):
    value = getattr(value, name)
  return value


def beyond(allowed: Range, whole: bool):
  """Numbers that lie just outside of a range."""
  step = 1 if whole else 1e-9
  if allowed.low > -math.inf:
    yield allowed.low if allowed.open_low and not whole else allowed.low - step
  if allowed.high < math.inf:
    yield allowed.high if allowed.open_high else allowed.high * (1 + 1e-9) + step


def wrong_values(kind):
  """Values that no setting of this type may have."""
  base, allowed = kind, None
  if get_origin(kind) is Annotated:
    base, allowed = get_args(kind)
  if get_origin(base) is Literal:
    yield 'nonsense'
  elif get_origin(base) is tuple:
    yield 'text'
    inner = get_args(base)
    if inner[0] in (int, float) and allowed is not None:
      count = 1 if inner[1:] == (...,) else len(inner)
      for x in beyond(allowed, inner[0] is int):
        yield tuple(inner[0](x) if inner[0] is int else x for _ in range(count))
      yield (math.nan,) * count
  elif base is float:
    yield from (math.nan, math.inf, 'text', True)
    yield from beyond(allowed, False) if allowed else ()
  elif base is int:
    yield from (1.5, True, 'text')
    yield from map(int, beyond(allowed, True)) if allowed else ()
  elif base is bool:
    yield from ('yes', 1)
  elif base is str:
    yield 3


EACH = [(key, value) for key, kind in leaves(Settings) for value in wrong_values(kind)]


@pytest.mark.parametrize('key, value', EACH, ids=lambda x: str(x)[:40])
def test_each_enum_each_range_and_nan(key, value):
  with pytest.raises(ValueError, match=rf'^{key.replace(".", chr(92) + ".")} must'):
    build(Settings, nested(key, value))


# Numbers without a range: any is one, or other checks say which (`test_sizes_and_sections...`).
FREE = {'mesh.data', 'market.preference_mean', 'market.qualification_mean', 'sweep.rules'}


def test_every_number_has_its_range():
  """A number without one is found where it is used, which may be behind the training."""
  def is_number(kind):
    return kind in (int, float) or any(map(is_number, get_args(kind)))
  unbounded = {key for key, kind in leaves(Settings)
               if get_origin(kind) is not Annotated and is_number(kind)
               and get_origin(kind) is not Literal}
  assert unbounded == FREE


def test_the_list_is_long():
  assert len(EACH) > 150 and len({key for key, _ in EACH}) > 90


@pytest.mark.parametrize('changes, key', [
    ({'market.jobs': 10, 'data.cold_jobs': 0.9}, 'market.jobs'),
    ({'market.candidates': 10, 'data.shares': (0.05, 0.3, 0.3, 0.35)}, 'market.candidates'),
    ({'policy.batch': 301}, 'policy.batch'),
    ({'policy.lists': 20}, 'policy.batch'),
    ({'warm_up.warmup': 300}, 'warm_up.warmup'),
    ({'cooperative.steps': 30}, 'cooperative.warmup'),
    ({'warm_up.steps': 0}, 'experts.censoring'),
    ({'certify.k': 51}, 'certify.k'),
    ({'certify.lists': 4001}, 'certify.lists'),
    ({'model.heads': 3}, 'model.kv_heads'),
    ({'model.head_width': 15}, 'model.head_width'),
    ({'data.shares': (0.5, 0.1, 0.1, 0.1)}, 'data.shares'),
    ({'data.source': 'jsonl'}, 'data.folder'),
    ({'tokenizer.phrases': 5}, 'tokenizer.phrases'),
    ({'tokenizer.verdicts': 'vectors', 'tokenizer.alignment': 3}, 'tokenizer.alignment'),
    ({'tokenizer.layout': 'raw', 'tokenizer.verdicts': 'vectors'}, 'tokenizer.verdicts'),
    ({'tokenizer.layout': 'raw', 'tokenizer.verdicts': 'symbols'}, 'tokenizer.verdicts'),
    ({'tokenizer.without_layers': ('interests',)}, 'tokenizer.without_layers'),
    ({'tokenizer.without_layers': (
        'eligibility', 'competence', 'logistics', 'interest', 'narrative')},
     'tokenizer.without_layers'),
    ({'model.readout': 'last_token', 'lora.per_expert': True}, 'model.readout'),
    ({'experts.chain': 8, 'tokenizer.verdicts': 'vectors'}, 'tokenizer.verdicts'),
    ({'experts.chain': 8, 'tokenizer.layout': 'raw'}, 'tokenizer.layout'),
    ({'experts.chain': 8, 'experts.missing': 0.1}, 'experts.missing'),
    ({'experts.chain': 8, 'data.source': 'jsonl', 'data.folder': '/x'}, 'data.source'),
    ({'features.states': '/tmp/x'}, 'features.states'),
    ({'experts.fixed_weights': (0.0, 0.0)}, 'experts.fixed_weights'),
    ({'lora.targets': ('q', 'q')}, 'lora.targets'),
    ({'lora.targets': ()}, 'lora.targets'),
    ({'mesh.data': 0}, 'mesh.data'),
    ({'sweep.seeds': ()}, 'sweep.seeds'),
    ({'sweep.rules': ((1.0, 0.0, 0.0),)}, 'sweep.rules'),
    ({'sweep.rules': ((0.3, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))}, 'sweep.rules'),
    ({'sweep.rules': ((0.3, -0.1, 0.0, 0.0),)}, 'sweep.rules'),
    ({'sweep.rules': ((0.3, 0.0, -0.1, 0.0),)}, 'sweep.rules'),
    ({'sweep.rules': ((0.3, 0.0, 0.0, 1.0),)}, 'sweep.rules'),
    ({'refine.perspectives': ()}, 'refine.perspectives'),
    ({'evaluate.groups': ('skills',)}, 'evaluate.groups'),  # a set
    ({'evaluate.groups': ('no such',)}, 'evaluate.groups'),
    ({'refine.verdicts': 6}, 'refine.verdicts'),
    ({'refine.people': ('a', 'a')}, 'refine.people'),
    ({'market.domain': 'chess'}, 'market.domain')])
def test_sizes_and_sections_that_do_not_fit(changes, key):
  values = as_mapping(Settings())
  for name, value in changes.items():
    section, leaf = name.split('.')
    values[section] = values[section] | {leaf: value}
  with pytest.raises(ValueError, match=rf'^{key}\b'):
    build(Settings, values)


def test_vectors_of_verdicts_need_room_for_the_layers_that_are_read_alone():
  values = {'verdicts': 'vectors', 'alignment': 9}
  with pytest.raises(ValueError, match='10 fields with verdicts'):
    build(Settings, {'tokenizer': values})
  build(Settings, {'tokenizer': values | {'without_layers': ('interest',)}})


@pytest.mark.parametrize('changes, devices, key', [
    ({'mesh.fsdp': 3}, 8, 'mesh.data, mesh.fsdp and mesh.tensor'),
    ({'mesh.data': 4}, 8, 'mesh.data'), ({'warm_up.batch': 12}, 8, 'warm_up.batch'),
    ({'cooperative.batch': 12}, 8, 'cooperative.batch'),
    ({'cooperative.qualification_batch': 4}, 8, 'cooperative.qualification_batch'),
    ({'features.batch': 4}, 8, 'features.batch'),
    ({'mesh.tensor': 4, 'model.heads': 2}, 8, 'model.heads'),
    ({'mesh.tensor': 4}, 8, 'model.kv_heads'),
    ({'mesh.fsdp': 8, 'model.width': 36}, 8, 'model.width')])
def test_what_does_not_divide_by_the_mesh(changes, devices, key):
  values = as_mapping(Settings())
  for name, value in changes.items():
    section, leaf = name.split('.')
    values[section] = values[section] | {leaf: value}
  with pytest.raises(ValueError, match=f'^{key}'):
    check_devices(build(Settings, values), devices)


def test_an_unknown_key_is_named_with_the_nearest():
  with pytest.raises(ValueError, match=r'experts\.bata is no setting; did you mean experts\.beta'):
    build(Settings, {'experts': {'bata': 1.0}})
  with pytest.raises(ValueError, match='policy must be a section'):
    build(Settings, {'policy': 3})


def test_settings_come_back_from_their_mapping():
  settings = build(Settings, {'policy': {'taus': [0.5]}, 'warm_up': {'learning_rate': 1}})
  assert build(Settings, as_mapping(settings)) == settings
  assert settings.policy.taus == (0.5,) and isinstance(settings.warm_up.learning_rate, float)


def test_stage_1a_may_be_left_out_where_no_propensity_is_asked_for():
  settings = build(Settings, {'warm_up': {'steps': 0}, 'experts': {'censoring': 'none'}})
  assert settings.warm_up.steps == 0 < settings.warm_up.warmup
  with pytest.raises(ValueError, match=r"'none' where .*got 'ips'; set experts\.censoring='none'$"):
    build(Settings, {'warm_up': {'steps': 0}})
  with pytest.raises(ValueError, match=r'^cooperative\.steps must be an integer at least 1, got 0'):
    build(Settings, {'cooperative': {'steps': 0}})


def test_sizes_of_lists_are_upper_bounds():
  """What the market holds fewer of is no error: `pipeline.data.check_sizes` says what comes."""
  build(Settings, {'market': {'candidates': 12, 'jobs': 10}, 'policy': {'list_length': 81},
                   'lists': {'preference_negatives': 80, 'qualification_negatives': 70}})


def test_the_defaults_fit_one_device():
  check_devices(Settings(), 1)
