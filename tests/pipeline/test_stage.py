"""A stage's key hashes all that its result depends on, and nothing else."""

import dataclasses

import numpy as np
import pytest

from jobrec_jax.pipeline.stage import Stage, canonical, content, plain


@dataclasses.dataclass(frozen=True)
class Knobs:
  rate: float = 0.5
  names: tuple[str, ...] = ('a', 'b')


def stage(name='one', version=1, settings=None, inputs=None, files=()):
  return Stage(name, version, Knobs() if settings is None else settings, inputs or {},
               lambda bench: None, lambda bench: None, files)


def test_equal_descriptions_have_equal_keys():
  assert stage().key == stage(settings={'names': ['a', 'b'], 'rate': 0.5}).key
  assert stage().key.startswith('one-') and len(stage().key) == len('one-') + 16


@pytest.mark.parametrize('other', [
    {'name': 'two'}, {'version': 2}, {'settings': Knobs(0.25)}, {'settings': Knobs(names=('a',))},
    {'inputs': {'x': stage('other')}}])
def test_whatever_differs_makes_another_key(other):
  assert stage(**other).key != stage().key


def test_a_version_makes_what_follows_new_and_nothing_before_it():
  def road(version):
    first = stage('first')
    second = stage('second', version, inputs={'x': first})
    return first, second, stage('third', inputs={'x': second})
  (a1, b1, c1), (a2, b2, c2) = road(1), road(2)
  assert a1.key == a2.key and b1.key != b2.key and c1.key != c2.key


def test_inputs_count_by_name_and_not_by_order():
  a, b = stage('a'), stage('b')
  assert stage(inputs={'x': a, 'y': b}).key == stage(inputs={'y': b, 'x': a}).key
  assert stage(inputs={'x': a, 'y': b}).key != stage(inputs={'x': b, 'y': a}).key


def test_files_count_by_content_and_not_by_place(tmp_path):
  for folder in ('here', 'there'):
    (tmp_path / folder / 'sub').mkdir(parents=True)
    (tmp_path / folder / 'sub' / 'a.csv').write_text('1\n')
  here, there = (stage(files=(tmp_path / f,)).key for f in ('here', 'there'))
  assert here == there
  (tmp_path / 'there/sub/a.csv').write_text('2\n')
  assert stage(files=(tmp_path / 'there',)).key != here
  (tmp_path / 'here/sub/a.csv').rename(tmp_path / 'here/sub/b.csv')
  assert content(tmp_path / 'here') != content(tmp_path / 'there')
  with pytest.raises(ValueError, match=r'gone: must be a readable file'):
    content(tmp_path / 'gone')


@pytest.mark.parametrize('value, error', [
    (np.float32(1), TypeError), (np.ones(2), TypeError), ({1: 2}, TypeError), (object(), TypeError),
    ({'a'}, TypeError), (float('nan'), ValueError), ({'x': [float('inf')]}, ValueError)])
def test_what_cannot_be_hashed_by_content_is_refused(value, error):
  with pytest.raises(error):
    plain(value)


def test_canonical_text_is_one():
  assert canonical({'b': 1, 'a': [1, 2]}) == canonical({'a': [1, 2], 'b': 1})
  assert canonical(1) != canonical(1.0)
