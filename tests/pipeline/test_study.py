"""A study names its runs, makes what they share once, tells what fails and goes on."""

import json
import logging
from pathlib import Path

import pytest

from jobrec_jax.pipeline import study_run, tasks
from jobrec_jax.pipeline.progress import Kept
from jobrec_jax.pipeline.reasons import Known, plan_text, reasons
from jobrec_jax.pipeline.record import read_record, write_record
from jobrec_jax.pipeline.road import road
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.pipeline.study import Study, Variant, members, read_study, shard, unread
from jobrec_jax.pipeline.study_results import study_origin
from jobrec_jax.pipeline.tasks import Task, make_here, runs_that_failed
from jobrec_jax.schema.files import write_json
from tests.pipeline.tiny import tiny_settings

VARIANTS = {'base': Variant('as it is'), 'beta-3': Variant('more', {'experts.beta': 3.0})}


def stage(name, inputs=(), value=0, make=None):
  def write(bench):
    write_json(bench.folder / 'value.json', bench.settings['value'])
  return Stage(name, 1, {'value': value}, {s.name: s for s in inputs}, make or write,
               lambda bench: json.loads((bench.folder / 'value.json').read_text()))


def test_members_are_all_variants_of_a_seed_before_the_next_seed():
  runs = members(Study('?', VARIANTS), tiny_settings(seed=3), 2, 2)
  assert [(m.variant, m.data_seed, m.seed) for m in runs] == [
      (v, d, s) for d in (5, 6) for s in (3, 4) for v in ('base', 'beta-3')]
  for m in runs:
    assert m.settings == tiny_settings(seed=m.seed, data={'seed': m.data_seed}, experts={
        'beta': 3.0 if m.variant == 'beta-3' else 0.7})
  assert runs[3].place == 'runs/beta-3/data-5-seed-4'


def test_shards_divide_the_runs():
  runs = members(Study('?', VARIANTS), tiny_settings(), 3)
  parts = [shard(runs, f'{i}/4') for i in range(4)]
  assert [m for i in range(6) for m in [parts[i % 4][i // 4]]] == runs
  for wrong in ('4/4', '1', '-1/4', 'a/b', '0/0'):
    with pytest.raises(ValueError, match=r"shard must be 'i/n'.*got"):
      shard(runs, wrong)


@pytest.mark.parametrize('variants, message', [
    ({}, 'at least one variant, got none'),
    ({'Base': Variant('x')}, "lower-case letters.*got 'Base'"),
    ({'../x': Variant('x')}, 'lower-case letters'),
    ({'base': Variant(' ')}, 'must have a line of purpose'),
    ({'base': {'experts.beta': 1}}, 'base must be a Variant, got dict'),
    ({'base': Variant('x', {'data.seed': 1})}, 'base must leave seeds to --seeds'),
])
def test_a_study_refuses_what_names_no_runs(variants, message):
  with pytest.raises(ValueError, match=message):
    Study('?', variants)


@pytest.mark.parametrize('changes, message', [
    ({'experts.betta': 1.0}, 'variant b: experts.betta is no setting; did you mean experts.beta'),
    ({'experts.beta': -1.0}, 'variant b: experts.beta must be .*got -1.0'),
    ({'seed.x': 1}, 'variant b: seed must be a section'),
    ({'experts.beta': 0.7}, 'variant b must differ from the others, got the settings of a'),
])
def test_changes_are_settings(changes, message):
  study = Study('?', {'a': Variant('as it is'), 'b': Variant('other', changes)})
  with pytest.raises(ValueError, match=message):
    members(study, tiny_settings(), 1)


def test_data_that_are_read_have_no_seeds_to_draw():
  settings = tiny_settings(data={'source': 'jsonl', 'folder': 'somewhere'})
  with pytest.raises(ValueError, match=r'data_seeds must be 1 for data that are read.*got 2'):
    members(Study('?', VARIANTS), settings, 1, 2)


def test_what_runs_share_is_one_task_and_inputs_come_first():
  late = VARIANTS | {'beta-3': Variant('half each', {'experts.task_weights': 'fixed'})}
  todo = study_run.todo(members(Study('?', late), tiny_settings(), 1))
  count = {}
  for i, task in enumerate(todo):
    keys = [t.stage.key for t in todo[:i]]
    assert all(s.key in keys for s in task.stage.inputs.values())
    assert task.stage.key not in keys
    count.setdefault(task.stage.name, []).append(len(task.runs))
  assert count['warm_up'] == count['data'] == count['lists'] == [2]
  assert count['cooperative'] == count['evaluation'] == [1, 1]


def test_variants_on_the_same_results_are_refused():
  study = Study('?', VARIANTS | {'batch': Variant('no stage holds it', {'features.batch': 4})})
  with pytest.raises(ValueError, match='got the results of base: no stage'):
    study_run.todo(members(study, tiny_settings(), 1))


def test_a_failure_is_told_and_the_rest_is_made(tmp_path):
  def refuse(bench):
    raise ValueError('value must be\nbetter, got 1')

  def fault(bench):
    raise ZeroDivisionError('no')
  first = stage('first')
  bad, worse = stage('bad', [first], make=refuse), stage('worse', [first], make=fault)
  todo = [Task(s, tiny_settings(), runs) for s, runs in (
      (first, ('a', 'b')), (bad, ('a',)), (stage('on-bad', [bad]), ('a',)),
      (worse, ('b',)), (stage('last', [first]), ('c',)))]
  made = []
  failures = make_here(tmp_path, todo, lambda task: made.append(task.stage.name))
  assert made == ['first', 'last']
  assert [f.stage.name for f in failures] == ['bad', 'on-bad', 'worse']
  assert failures[0].message == 'value must be better, got 1'
  assert failures[1].cause == bad.key
  assert failures[2].message.startswith('ZeroDivisionError: no\nTraceback')
  assert dict(runs_that_failed(failures, todo)) == {'a': bad.key, 'b': worse.key}


def test_an_interrupt_stops_a_study(tmp_path):
  def stop(bench):
    raise KeyboardInterrupt
  with pytest.raises(KeyboardInterrupt):
    make_here(tmp_path, [Task(stage('x', make=stop), tiny_settings(), ('a',))])


def test_what_the_data_do_not_allow_is_told_before_training(tmp_path, monkeypatch):
  def check(settings, data):
    raise ValueError(f'{len(data.dataset.jobs)} jobs are too few')
  monkeypatch.setattr(tasks, 'check_sizes', check)
  settings = tiny_settings()
  todo = tasks.tasks([('a', settings, [road(settings).cooperative])])
  failures = make_here(tmp_path, todo)
  assert [f.stage.name for f in failures] == ['warm_up', 'censoring', 'cooperative']
  assert failures[0].message == '20 jobs are too few'


def test_a_plan_says_why(tmp_path):
  first = stage('first')
  make_here(tmp_path, [Task(s, tiny_settings(), ('a',)) for s in (first, stage('second', [first]))])
  other = stage('first', value=2)
  todo = [Task(s, tiny_settings(), ('b',)) for s in (
      first, other, stage('second', [other]), stage('third'))]
  plan = reasons(tmp_path, todo)
  assert [r.there for r in plan] == [True, False, False, False]
  assert [r.why for r in plan] == ['', 'value 0 → 2', 'value 0 → 2', 'none there yet']
  assert plan[1].seconds is not None and plan[3].seconds is None
  text = plan_text(plan)
  assert '1 stages are there, 3 would be made' in text and 'value 0 → 2' in text
  origin = study_origin([Task(first, tiny_settings(), ('a', 'b', 'c'))], tmp_path)
  assert origin['alone'] == pytest.approx(3 * origin['once']) and origin['once'] >= 0
  assert origin['stages'] == {'first': [1, pytest.approx(origin['once'], abs=0.06)]}


def test_the_nearest_stage_tells_why(tmp_path):
  make_here(tmp_path, [Task(stage('slow', value={'a': v, 'b': v}), tiny_settings(), ('x',))
                       for v in (0, 7)])
  (plan,) = reasons(tmp_path, [Task(stage('slow', value={'a': 7, 'b': 8}), tiny_settings(), ())])
  assert plan.why == 'value.b 7 → 8' and plan.seconds is not None


def test_versions_and_files_are_reasons():
  was = {'name': 'a', 'settings': {}, 'version': 1, 'files': [], 'inputs': {}}
  known = Known({'was': was, 'newer': was | {'version': 2, 'files': ['x']},
                 'else': was | {'inputs': {'x': 'x-1'}}})
  assert known.differences('was', 'newer') == ['a version 1 → 2', 'files from outside']
  assert known.differences('was', 'else') == ['input x']


def test_what_differs_in_seeds_alone_would_be_made_for_the_same_reason(tmp_path):
  def task(seed, missing):
    made = stage('x', value={'seed': seed, 'missing': missing})
    return Task(made, tiny_settings(), (f'{missing}-{seed}',))
  todo = [task(s, m) for s in (0, 1) for m in (0, 0.2)]
  assert [r.why for r in reasons(tmp_path, todo)] == ['none there yet', 'value.missing 0 → 0.2'] * 2
  rows = plan_text(reasons(tmp_path, todo)).splitlines()
  assert [r.split() for r in rows[1:3]] == [['x', '2', '2', '?', 'none', 'there', 'yet'],
                                            ['x', '2', '2', '?', 'value.missing', '0', '→', '0.2']]
  make_here(tmp_path, todo[:1])
  assert 'another seed' in plan_text(reasons(tmp_path, [task(1, 0)]))  # of what is there


def test_progress_of_a_study_pauses_between_its_lines(tmp_path, caplog):
  caplog.set_level(logging.INFO, 'absl')
  todo = [Task(stage(f's{i}'), tiny_settings(), ('a',)) for i in range(4)]
  now = [0.0]
  told = study_run._Progress(todo, Kept(tmp_path, ABOUT), clock=lambda: now[0])
  for task, seconds in zip(todo, (1, study_run.PAUSE, 1, 1)):
    now[0] += seconds
    told.done(task)
  lines = [r.getMessage() for r in caplog.records]
  assert lines == ['study: 2 of 4 stages made in 6 s (last: s1), no estimate yet',
                   'study: 4 of 4 stages made in 8 s (last: s3), done']


@pytest.mark.parametrize('changes, keys', [
    ({'experts.beta': 3.0}, []),
    ({'experts.beta': 3.0, 'certify.draws': 7}, ['certify.draws']),
    ({'experts.beta': 3.0, 'experts.ips_clip': 3.0}, ['experts.ips_clip']),  # as it is already
    ({'experts.fixed_weights': (0.2, 0.8)}, ['experts.fixed_weights']),
    ({'experts.fixed_weights': (0.2, 0.8), 'experts.task_weights': 'fixed'}, []),
    ({'warm_up.steps': 0, 'warm_up.warmup': 0, 'experts.censoring': 'none'}, []),
    ({'experts.beta': 3.0, 'mesh.data': 1, 'log_every': 3, 'data.folder': 'x'}, []),
])
def test_changes_that_change_nothing_are_told(changes, keys):
  study = Study('?', VARIANTS | {'new': Variant('other', changes)})
  told = unread(study, tiny_settings())
  assert [t.split(' changes no result')[0] for t in told] == [f'variant new: {k}' for k in keys]


def test_two_training_stages_are_told_apart_by_the_names_of_their_settings():
  def made(name, steps, **inputs):
    return {'name': name, 'settings': {'stage': {'steps': steps}}, 'version': 1, 'files': [],
            'inputs': inputs}
  known = Known({'w4': made('warm_up', 4), 'w1': made('warm_up', 1),
                 'old': made('cooperative', 4, warm_up='w4'),
                 'new': made('cooperative', 7, warm_up='w1')})
  assert known.why('new') == 'cooperative.steps 4 → 7, warm_up.steps 4 → 1'


def test_a_record_keeps_the_runs_of_other_shards(tmp_path):
  study = Study('?', VARIANTS)
  runs = members(study, tiny_settings(), 2)
  for i in range(2):
    study_run.write_record(study, shard(runs, f'{i}/2'), tmp_path, tmp_path / 'store')
  assert set(json.loads((tmp_path / 'study.json').read_text())['runs']) == {m.place for m in runs}


@pytest.mark.parametrize('text, message', [
    (None, 'must be a Python file with get_study.., got no file'),
    ('x = 1', 'get_study.. must give a Study, got NoneType'),
    ('def get_study(): return 3', 'get_study.. must give a Study, got int'),
])
def test_a_file_without_a_study_is_told(tmp_path, text, message):
  path = tmp_path / 'mine.py'
  if text:
    path.write_text(text)
  with pytest.raises(ValueError, match=message):
    read_study(str(path))


@pytest.mark.parametrize('name', sorted(
    path.stem for path in Path('configs/studies').glob('*.py') if path.stem != '__init__'))
def test_shipped_studies_are_studies(name):
  study = read_study(f'configs/studies/{name}.py')
  from jobrec_jax.pipeline.settings import Settings
  assert study_run.todo(members(study, Settings(), 1))


def test_the_folder_of_a_variant_names_its_runs(tmp_path):
  write_record(tmp_path / 'runs/base/data-0-seed-1', settings={})
  with pytest.raises(ValueError, match=r'got a variant of a study; its runs are .*/runs/base/\*'):
    read_record(tmp_path / 'runs/base')


def test_a_damaged_record_is_told(tmp_path):
  study = Study('?', VARIANTS)
  runs = members(study, tiny_settings(), 1)
  study_run.write_record(study, runs, tmp_path, tmp_path / 'elsewhere')
  assert study_run.store_of(tmp_path) == tmp_path / 'elsewhere'
  path = tmp_path / 'study.json'
  path.write_text(path.read_text().replace('elsewhere', 'nowhere'))
  with pytest.raises(ValueError, match=r'study\.json: must be as it was written'):
    study_run.store_of(tmp_path)
