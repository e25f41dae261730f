"""Why a stage would run, and what it may take: nothing is made."""

from collections.abc import Iterable, Mapping, Sequence
import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from jobrec_jax.pipeline.progress import Kept
from jobrec_jax.pipeline.stage import key_of
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.pipeline.tasks import Task
from jobrec_jax.schema.files import read_json

Identity = Mapping[str, Any]
SHOWN = 3  # differences told of a stage, at most
SEED = 'another seed'


@dataclasses.dataclass(frozen=True)
class Reason:
  """One task of a plan.

  Attributes:
    task: the stage and the runs that stand on it.
    there: whether its result is.
    why: what differs from the nearest stage of the same name; where that would be made, too, and
      seeds alone differ, why it would; '' where it is there.
    seconds: what it may take, see `progress.Kept`; None where nothing like it was made.
  """

  task: Task
  there: bool
  why: str
  seconds: float | None


def kept(store: Path) -> list[Identity]:
  """What a store holds, unreadable artefacts left out."""
  found = []
  for path in sorted(store.glob(f'*/{ABOUT}')):
    with contextlib.suppress(ValueError, KeyError, TypeError):
      found.append(read_json(path)['identity'])
  return found


def reasons(store: Path, todo: Sequence[Task]) -> list[Reason]:
  """The plan of some tasks, in their order, whose results would lie in a store."""
  known = Known({key_of(identity): identity for identity in kept(store)})
  there = set(known.identities)
  seconds = Kept(store, ABOUT).estimates([task.stage for task in todo])
  plan, told = [], {}
  for task in todo:
    key = task.stage.key
    if key in there:
      plan.append(Reason(task, True, '', None))
      continue
    known.identities[key] = task.stage.identity
    why, nearest = known.why(key), known.nearest(key)
    if nearest in told and _but_for_seeds(why) == SEED:
      why = told[nearest]
    told[key] = why
    plan.append(Reason(task, False, why, seconds[key]))
  return plan


class Known:
  """Stages that were made or would be, and what tells two of them apart.

  Args:
    identities: by key.
  """

  def __init__(self, identities: dict[str, Identity]):
    self.identities = identities
    self._flat: dict[str, dict[str, Any]] = {}
    self._found: dict[tuple[str, str], list[str]] = {}  # each pair of keys is compared once

  def why(self, key: str) -> str:
    """What differs from the nearest other stage of that name, in itself or in what it stands on."""
    nearest = self.nearest(key)
    if nearest is None:
      return 'none there yet'
    found = self.differences(nearest, key)
    more = f' and {len(found) - SHOWN} more' if len(found) > SHOWN else ''
    return ', '.join(found[:SHOWN]) + more

  def nearest(self, key: str) -> str | None:
    """The other stage of that name that differs in the least; None where there is none."""
    name = self.identities[key]['name']
    like = [k for k, of in self.identities.items() if of['name'] == name and k != key]
    return min(like, key=lambda k: len(self.differences(k, key)), default=None)

  def differences(self, old: str, new: str) -> list[str]:
    """What two stages of one name differ in: settings first, then version and files, then the same
    of their inputs, each once; of an input that is not known, its name."""
    if (old, new) not in self._found:
      was, now = self.identities[old], self.identities[new]
      a, b = self._settings(old), self._settings(new)
      found = [f'{_named(key, now["name"])} {_shown(a.get(key))} → {_shown(b.get(key))}'
               for key in sorted({*a, *b}) if a.get(key) != b.get(key)]
      if was['version'] != now['version']:
        found.append(f"{now['name']} version {was['version']} → {now['version']}")
      if was['files'] != now['files']:
        found.append('files from outside')
      for name in sorted({*was['inputs'], *now['inputs']}):
        left, right = (of['inputs'].get(name) for of in (was, now))
        if left != right:
          both = left in self.identities and right in self.identities
          found += self.differences(left, right) if both else [f'input {name}']
      self._found[old, new] = list(dict.fromkeys(found))
    return self._found[old, new]

  def _settings(self, key: str) -> dict[str, Any]:
    if key not in self._flat:
      self._flat[key] = flat(self.identities[key]['settings'])
    return self._flat[key]


def flat(value: Any, prefix: str = '') -> dict[str, Any]:
  """Nested settings by dotted key."""
  if isinstance(value, Mapping):
    return {k: v for name, inner in value.items()
            for k, v in flat(inner, f'{prefix}{name}.').items()}
  return {prefix.removesuffix('.'): value}


def _named(key: str, stage: str) -> str:
  """A key of a training stage's own section as users know it: 'cooperative.steps'."""
  return f'{stage}.{key.removeprefix("stage.")}' if key.startswith('stage.') else key


def _shown(value: Any) -> str:
  return 'none' if value is None else f'{value:g}' if isinstance(value, float) else str(value)


def total(plan: Iterable[Reason]) -> tuple[float, int]:
  """(seconds of all that would run and can be told, how many cannot)."""
  open_ = [r for r in plan if not r.there]
  return sum(r.seconds for r in open_ if r.seconds is not None), sum(
      r.seconds is None for r in open_)


def plan_text(plan: Sequence[Reason]) -> str:
  """A line for the stages of one name that are there, and for those with one reason to be made."""
  groups: dict[tuple[str, bool, str], list[Reason]] = {}
  for reason in plan:
    groups.setdefault((reason.task.stage.name, reason.there, _but_for_seeds(reason.why)),
                      []).append(reason)
  rows = [('stage', 'how many', 'runs', 'about', 'why')]
  for (name, there, reason), members in groups.items():
    taken = [r.seconds for r in members if r.seconds is not None]
    about = 'there' if there else duration(sum(taken)) if len(taken) == len(members) else '?'
    runs = len({run for r in members for run in r.task.runs})
    rows.append((name, str(len(members)), str(runs), about, reason))
  widths = [max(map(len, column)) for column in list(zip(*rows))[:-1]]
  lines = ['  '.join([*(c.ljust(w) for c, w in zip(row, widths)), row[-1]]).rstrip()
           for row in rows]
  seconds, unknown = total(plan)
  left = sum(not r.there for r in plan)
  cost = [f'about {duration(seconds)}'] if unknown < left else []
  cost += [f'no estimate for {unknown} of them'] if unknown else []
  return '\n'.join([*lines, '', f'{len(plan) - left} stages are there, {left} would be made'
                    + (f": {', '.join(cost)}" if cost else '')])


def _but_for_seeds(why: str) -> str:
  """Reasons that differ in seeds alone are one."""
  parts = [p for p in why.split(', ') if p]
  rest = [p for p in parts if p.split(' ')[0].split('.')[-1] != 'seed']
  return ', '.join(rest) if rest or not parts else SEED


def duration(seconds: float) -> str:
  """'42 s', '3 min 10 s', '2 h 5 min'."""
  whole = round(seconds)
  if whole < 60:
    return f'{whole} s'
  if whole < 3600:
    return f'{whole // 60} min {whole % 60} s'
  return f'{whole // 3600} h {whole % 3600 // 60} min'
