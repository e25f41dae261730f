"""A study: named variants of one run, each at several training seeds and data seeds.

  STUDY/store/                     the artefacts; what runs have in common is made once
  STUDY/runs/VARIANT/data-0-seed-1/run.json    each run, to be loaded, reported, compared

A study only says which runs there are. `pipeline.tasks` turns them into stages to be made, once
each; `pipeline.study_report` compares what came out.
"""

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
from pathlib import Path
import re
import runpy
from typing import Any

from jobrec_jax.pipeline.road import FREE, Road, road
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.schema.settings import override

NAME = re.compile(r'[a-z0-9][a-z0-9_.-]*')


@dataclasses.dataclass(frozen=True)
class Variant:
  """Settings that differ from those of the study.

  Attributes:
    purpose: a line that says what the variant asks.
    changes: dotted key -> value, such as {'experts.beta': 0.3}; empty for the settings as they are.
  """

  purpose: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
  """Variants to compare; the first is what the others are compared with.

  Attributes:
    question: what the study asks, in a line.
    variants: by name: lower-case letters, digits, '_', '.' and '-', for each names a folder.

  Raises:
    ValueError: there is no variant, or a name or a purpose is not allowed.
  """

  question: str
  variants: Mapping[str, Variant]

  def __post_init__(self):
    if not self.variants:
      raise ValueError('variants must name at least one variant, got none')
    for name, variant in self.variants.items():
      if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError("variants: a name must consist of lower-case letters, digits, '_', '.' "
                         f"and '-', and start with a letter or digit, got {name!r}")
      if not isinstance(variant, Variant):
        raise ValueError(f'variants: {name} must be a Variant, got {type(variant).__name__}')
      if not isinstance(variant.purpose, str) or not variant.purpose.strip():
        raise ValueError(f'variants: {name} must have a line of purpose first, got '
                         f'{variant.purpose!r}')
      for key in variant.changes:
        if key.split('.')[-1] == 'seed':
          raise ValueError(f'variants: {name} must leave seeds to --seeds and --data_seeds, got '
                           f'{key}')

  @property
  def reference(self) -> str:
    return next(iter(self.variants))


@dataclasses.dataclass(frozen=True)
class Member:
  """One run of a study.

  Attributes:
    variant: its name.
    data_seed, seed: of the data and of training.
    settings: the whole settings of the run.
  """

  variant: str
  data_seed: int
  seed: int
  settings: Settings

  @property
  def place(self) -> str:
    """The run's folder inside the study's."""
    return f'runs/{self.variant}/data-{self.data_seed}-seed-{self.seed}'

  def run(self, folder: Path, store: Path) -> Run:
    return Run(folder / self.place, self.settings, store)


def members(study: Study, settings: Settings, seeds: int, data_seeds: int = 1) -> list[Member]:
  """The runs of a study, all variants of a seed before the next seed.

  Args:
    study: its variants.
    settings: what they change; training seeds count up from `seed`, data seeds from `data.seed`.
    seeds: training seeds for each data seed.
    data_seeds: of the data.

  Raises:
    ValueError: a change is no setting or is not allowed, with the variant; or two variants are
      the same.
  """
  for name, value in (('seeds', seeds), ('data_seeds', data_seeds)):
    if value < 1:
      raise ValueError(f'{name} must be at least 1, got {value}')
  if data_seeds > 1 and settings.data.source not in ('simulated', 'jobrec_synth'):
    raise ValueError('data_seeds must be 1 for data that are read and not drawn, got '
                     f'{data_seeds} with data.source {settings.data.source!r}')
  changed = {}
  for name, variant in study.variants.items():
    try:
      changed[name] = override(settings, variant.changes)
    except ValueError as error:
      raise ValueError(f'variant {name}: {error}') from error
    same = next((n for n, s in changed.items() if n != name and s == changed[name]), None)
    if same:
      raise ValueError(f'variant {name} must differ from the others, got the settings of {same}')
  return [Member(name, d, s, override(own, {'data.seed': d, 'seed': s}))
          for d in range(settings.data.seed, settings.data.seed + data_seeds)
          for s in range(settings.seed, settings.seed + seeds)
          for name, own in changed.items()]


def goals(r: Road) -> Sequence[Stage]:
  """What a study needs of each run: its numbers, and what recommending needs beside the policy."""
  return r.evaluation, r.catalogue


def unread(study: Study, settings: Settings) -> list[str]:
  """A sentence for each change of a variant without which its results would be the same.

  Settings that are meant to change none (`pipeline.road.FREE`) are passed over, and so are changes
  without which the others are not allowed.
  """
  def keys(changes: Mapping[str, Any]) -> list[str]:
    return [stage.key for stage in goals(road(override(settings, changes)))]

  found = []
  for name, variant in study.variants.items():
    for key in variant.changes:
      if {key, key.split('.')[0]} & FREE:
        continue
      with contextlib.suppress(ValueError):
        if keys({k: v for k, v in variant.changes.items() if k != key}) == keys(variant.changes):
          found.append(f'variant {name}: {key} changes no result of this study: it has that value '
                       'already, or no stage reads it beside the others')
  return found


def shard(runs: Sequence[Member], part: str) -> list[Member]:
  """Every n-th run from the i-th on, for 'i/n' with i from 0 to n - 1.

  Raises:
    ValueError: `part` is not of that form.
  """
  match = re.fullmatch(r'(\d+)/(\d+)', part)
  if not match or not int(match[1]) < int(match[2]):
    raise ValueError(f"shard must be 'i/n' with i from 0 to n - 1, such as '0/4', got {part!r}")
  return list(runs[int(match[1])::int(match[2])])


def road_of(member: Member) -> Road:
  """The stages of a run; an error names the variant."""
  try:
    return road(member.settings)
  except ValueError as error:
    raise ValueError(f'variant {member.variant}: {error}') from error


def read_study(path: str) -> Study:
  """The study that `get_study` of a Python file describes.

  Raises:
    ValueError: there is no such file, or it describes none.
  """
  place = Path(path)
  if not place.is_file():
    raise ValueError(f'study must be a Python file with get_study(), got no file {path!r}')
  try:
    names = runpy.run_path(str(place))
  except SyntaxError as error:
    raise ValueError(f'{path}: must be Python, got {error.msg} in line {error.lineno}') from error
  study = names['get_study']() if callable(names.get('get_study')) else None
  if not isinstance(study, Study):
    raise ValueError(f'{path}: get_study() must give a Study, got {type(study).__name__}')
  return study
