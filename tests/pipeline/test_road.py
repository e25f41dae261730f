"""What enters a stage's key: every setting has its place, and none is forgotten.

`OWN` says of each setting which stages hold it among their own; what stands on these follows. What
no key holds must change no result, and stands in `pipeline.road.FREE`.
"""

import dataclasses
from typing import Annotated, Literal, get_args, get_origin

import pytest

from jobrec_jax.baselines.rivals import DEFAULT
from jobrec_jax.pipeline.road import (
    FREE,
    explained_stage,
    proof_stage,
    road,
    selection_stage,
    sweep_stage,
)
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.schema.settings import as_mapping, build, hints
from tests.pipeline.tiny import tiny_settings

SPEC = {'tokenizer', 'warm_up', 'cooperative'}
OWN_POLICY = {'policy', 'evaluation', 'sweep'}
# By section, or by setting where a section's differ.
OWN = {
    'seed': {*SPEC, 'inputs', 'policy', 'lists', 'logged', 'canaries', 'evaluation', 'certified',
             'proof', 'selection', 'writer', 'explained'},
    'data': {'data'}, 'market': {'data'}, 'tokenizer': SPEC, 'model': SPEC, 'lora': SPEC,
    'backbone.dtype': SPEC,
    'data.source': {'data', 'lists'}, 'data.size': {'data', 'lists'},
    'lists.preference_negatives': {'warm_up', 'cooperative'},
    'lists.preference_policy': {'warm_up', 'cooperative'},
    'lists.qualification_negatives': {'cooperative'},
    'lists.across': {'warm_up', 'cooperative'},
    'experts.missing': {*SPEC, 'catalogue'},
    'experts.beta': {'warm_up', 'cooperative'}, 'experts.task_weights': {'cooperative'},
    'experts.fixed_weights': {'cooperative'},
    'experts.censoring': {'censoring'}, 'experts.ips_clip': {'censoring'},
    'experts.self_censoring': {'censoring'},
    'experts.calibration': {'calibration'}, 'experts.chain': {'chain'},
    'warm_up': {'warm_up'}, 'cooperative': {'cooperative'}, 'policy': OWN_POLICY,
    'policy.lists': {'inputs', *OWN_POLICY},
    'policy.list_length': {'inputs', 'lists', 'logged', 'certified', 'proof', *OWN_POLICY},
    'policy.knots': {'scores', *OWN_POLICY},
    'policy.held_out': {'lists', 'certified', 'evaluation', 'sweep'},
    'policy.grid': {'evaluation', 'sweep'}, 'policy.objective': {'frontier', *OWN_POLICY},
    'policy.temperature': {'proof', *OWN_POLICY},
    'sweep': {'sweep'}, 'evaluate': {'evaluation'}, 'evaluate.candidates': {'lists', 'evaluation'},
    'certify': {'certified', 'proof'}, 'refine': {'selection'},
    'writer': {'writer'}, 'explain': {'explained'},
    **{f'certify.{name}': {'proof'} for name in ('population', 'draws', 'lists')},
}
# Values that the range alone would not find, as the other settings bound them.
OTHER = {'data.shares': (0.3, 0.2, 0.3, 0.2), 'data.source': 'jsonl', 'market.domain': 'nursing',
         'market.rho_x': 0.3, 'model.kv_heads': 2, 'model.head_width': 18, 'lora.targets': ('q',),
         'model.heads': 4, 'sweep.rules': ((0.1, 0.0, 0.0, 0.0),), 'policy.taus': (0.4,),
         'tokenizer.vocab_size': 700, 'tokenizer.phrases': None, 'data.folder': '/another',
         'evaluate.rivals': ('schema rules', 'EASE'), 'sweep.seeds': (4,),
         'sweep.learning_rates': (0.1,), 'data.known_faults': ('a',),
         'refine.perspectives': ('preference',), 'refine.people': ('x', 'y', 'z', 'w'),
         'refine.error_rates': (0.1, 0.2, 0.3), 'experts.fixed_weights': (0.2, 0.8),
         'features.states': None, 'backbone.path': None,
         'backbone.adapter': None, 'tokenizer.alignment': 30,
         'model.head_widths': (16,), 'tokenizer.without_layers': ('interest',),
         'mesh.data': 1, 'data.schema': None, 'evaluate.groups': ('gpa',)}
UNBUILT = {key for key, value in OTHER.items() if value is None}  # need what is not there
WITH = {'experts.chain': {'experts': {'chain': 4}},
        'experts.fixed_weights': {'experts': {'task_weights': 'fixed'}},
        'policy.top_k': {'policy': {'start': 'exact'}},
        'policy.eligibility': {'policy': {'start': 'exact'}}}


def leaves(cls: type = Settings, prefix: str = ''):
  for name, kind in hints(cls).items():
    if dataclasses.is_dataclass(kind):
      yield from leaves(kind, f'{prefix}{name}.')
    else:
      yield prefix + name, kind


def place(key: str, table):
  """A setting's own entry, or its section's."""
  return key if key in table else key.split('.')[0] if key.split('.')[0] in table else None


def other_value(key: str, settings: Settings):
  """Another value that is allowed."""
  if key in OTHER:
    return OTHER[key]
  kind, value = ALL[key], settings
  for part in key.split('.'):
    value = getattr(value, part)
  base = get_args(kind)[0] if get_origin(kind) is Annotated else kind
  if get_origin(base) is Literal:
    return next(x for x in get_args(base) if x != value)
  if base is bool:
    return not value
  if base is str:
    return f'{value}x'
  candidates = (value + 1, value - 1) if base is int else (value * 1.01, value + 0.01, value / 2)
  allowed = get_args(kind)[1] if get_origin(kind) is Annotated else None
  return next(x for x in candidates if x != value and (allowed is None or x in allowed))


def changed(key: str, value, settings: Settings) -> Settings:
  tree = as_mapping(settings)
  *sections, name = key.split('.')
  node = tree
  for section in sections:
    node = node[section]
  node[name] = value
  return build(Settings, tree)


def stages(settings: Settings) -> dict[str, Stage]:
  """Every stage that there is, by name."""
  r = road(settings)
  ends = [getattr(r, f.name) for f in dataclasses.fields(r)]
  ends += [sweep_stage(settings, r), selection_stage(settings, r)]
  if settings.data.source == 'simulated':
    ends += [proof_stage(settings, r), explained_stage(settings, r)]
  return {s.name: s for end in ends for s in end.walk()}


ALL = dict(leaves())
FREED = sorted(key for key in ALL if place(key, FREE) and key not in UNBUILT)
KEYED = [key for key in ALL if not place(key, FREE) and key not in UNBUILT]


def test_every_setting_has_its_place_and_no_place_is_left_over():
  without = [key for key in ALL if not place(key, FREE) and not place(key, OWN)]
  assert not without, f'name the stages of {without} in OWN, or FREE if it changes no result'
  assert {*OWN, *FREE} == {place(key, FREE) or place(key, OWN) for key in ALL}
  assert len(KEYED) > 90
  assert {'tokenizer.phrases', 'features.states', 'backbone.path', 'backbone.adapter',
          'data.schema'} == UNBUILT


@pytest.mark.parametrize('key', KEYED)
def test_a_setting_enters_the_stages_that_it_changes(key, tmp_path):
  base = changed('data.folder', str(tmp_path), tiny_settings(**WITH.get(key, {})))
  new = changed(key, other_value(key, base), base)
  a, b = stages(base), stages(new)
  own = {name for name in a if name not in b or any(
      a[name].identity[part] != b[name].identity[part] for part in ('settings', 'files'))}
  gone = {'data.source': {'proof', 'writer', 'explained'}, 'experts.censoring': {'censoring'},
          'evaluate.rivals': {
      'rival-popularity', 'rival-logistic-regression',
      'rival-logistic-regression-with-words'}}.get(key, set())
  assert own == OWN[place(key, OWN)] | gone
  later = {name for name in a if name in b and a[name].key != b[name].key}
  for name, stage in b.items():  # and whatever stands on these is another one
    if name in a and {s.name for s in stage.walk()} & own:
      assert name in later, name


@pytest.mark.parametrize('key', FREED)
def test_what_changes_no_result_enters_no_key(key):
  base = tiny_settings()
  new = changed(key, other_value(key, base), base)
  assert new != base
  assert {n: s.key for n, s in stages(base).items()} == {n: s.key for n, s in stages(new).items()}


STANDS_ON = {
    'tokenizer': 'data', 'linear': 'data tokenizer', 'warm_up': 'data tokenizer linear',
    'censoring': 'data tokenizer warm_up',
    'cooperative': 'data tokenizer linear warm_up censoring',
    'calibration': 'data tokenizer experts',
    'inputs': 'data experts tokenizer calibration', 'policy': 'inputs', 'catalogue': 'data',
    'lists': 'data', 'scores': 'data experts tokenizer policy lists logged',
    'logged': 'data experts tokenizer calibration censoring',
    'blanked': 'data experts tokenizer lists', 'canaries': 'data lists',
    'rival-popularity': 'data lists', 'rival-schema-rules': 'data lists',
    'rival-logistic-regression': 'data lists',
    'rival-logistic-regression-with-words': 'data lists', 'selection': 'data',
    'certified': 'data experts tokenizer calibration policy lists scores',
    'proof': 'data experts tokenizer calibration policy lists scores',
    'sweep': 'data experts tokenizer calibration policy lists scores inputs',
    'writer': 'data experts tokenizer', 'explained': 'data experts tokenizer writer',
    'frontier': 'data calibration policy lists scores',
    'dial': 'data calibration policy lists scores',
}


def test_censoring_is_a_stage_where_either_part_of_it_is_asked_for():
  for ips in ('ips', 'none'):
    for doubt in ('estimated', 'none'):
      found = stages(tiny_settings(experts={'censoring': ips, 'self_censoring': doubt}))
      asked = (ips, doubt) != ('none', 'none')
      assert ('censoring' in found['cooperative'].inputs) == ('censoring' in found) == asked


def test_policies_that_learn_nothing_share_their_scores():
  changes = ({}, {'top_k': 3}, {'objective': 'expected_surplus'}, {'head': 'off'},
             {'eligibility': 'estimated'})
  found = [stages(tiny_settings(policy={'start': 'exact', **c})) for c in changes]
  assert len({x['scores'].key for x in found}) == 1
  assert len({x['policy'].key for x in found}) == len(found)
  assert ['logged' in x['policy'].inputs for x in found] == [False] * 4 + [True]
  learned = stages(tiny_settings(policy={'start': 'exact', 'objective': 'info_nce'}))
  assert 'policy' in learned['scores'].inputs


def test_every_stage_stands_on_what_it_names():
  """By name, and that the experts are those of stage 1B wherever stages ask for them."""
  found = stages(tiny_settings())
  assert set(found) == {*STANDS_ON, 'data', 'evaluation'}
  for name, wanted in STANDS_ON.items():
    assert set(found[name].inputs) == set(wanted.split()), name
  for name, stage in found.items():
    for what, other in stage.inputs.items():
      if what not in DEFAULT:
        assert other.name == {'experts': 'cooperative'}.get(what, what), (name, what)
      assert other.key == found[other.name].key
