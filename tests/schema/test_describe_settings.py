"""Settings found by a word, with what the code beside them says."""

import dataclasses
from typing import Annotated, Literal

import pytest

from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.schema.describe_settings import Described, described, settings_with
from jobrec_jax.schema.settings import at_least


@dataclasses.dataclass(frozen=True)
class Inner:
  """How it learns.

  Attributes:
    rate, decay: of the optimiser,
      from step to step.
    old: said here and below.

  Raises:
    ValueError: never.
  """

  rate: Annotated[float, at_least(0)] = 0.5
  decay: float = 0.1
  old: int = 1


@dataclasses.dataclass(frozen=True)
class Later(Inner):
  """A later one.

  In two paragraphs.
  """

  old: int = 2  # with a # inside
  # What it is
  # made of.
  first: Literal['a', 'b'] = 'a'
  second: tuple[Literal['x'], ...] = ()  # here, too
  third: int = 3

  fourth: int = 4


@dataclasses.dataclass(frozen=True)
class Tree:
  """All."""

  inner: Later = Later()
  top: str = 'it'  # above all


def test_every_setting_is_described():
  assert list(described(Tree)) == [
      Described('inner.rate', 0.5, 'at least 0', 'of the optimiser, from step to step.'),
      Described('inner.decay', 0.1, '', 'of the optimiser, from step to step.'),
      Described('inner.old', 2, '', 'with a # inside'),
      Described('inner.first', 'a', "one of 'a', 'b'", 'What it is made of.'),
      Described('inner.second', (), "one of 'x'", 'here, too'),
      Described('inner.third', 3, '', 'A later one.'),
      Described('inner.fourth', 4, '', 'A later one.'),
      Described('top', 'it', '', 'above all')]


def test_a_word_finds_keys_and_comments():
  assert settings_with(Tree, 'FIRST') == (
      "inner.first = 'a'   one of 'a', 'b'\n    What it is made of.")
  assert settings_with(Tree, 'optimiser').count('\n') == 3
  with pytest.raises(ValueError, match=r"WORD must be part of .*got 'nowhere', which is in none"):
    settings_with(Tree, 'nowhere')


def test_inherited_settings_of_a_run_are_found():
  found = settings_with(Settings, 'temperature')
  assert 'policy.temperature = 1.0   above 0\n    T of the softmax over a list.' in found
  assert 'model.layers = 2   at least 1' in settings_with(Settings, 'layers')
  assert {'lora.dropout', 'model.head_dropout'} <= {
      line.split(' = ')[0] for line in settings_with(Settings, 'dropout').splitlines()}
  assert all(d.text for d in described(Settings))
