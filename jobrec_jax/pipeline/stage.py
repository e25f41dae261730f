"""A stage of a run as a description: what it is made from, and the functions that make and read it.

Nothing runs here. A stage's key is a hash of all that its result depends on: name, version,
settings, the keys of its inputs, and the content of files that it reads from outside. Whatever is
not in the key (devices, how often progress is logged) must not change the result.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib
import json
import math
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from jobrec_jax.schema.files import digest

T = TypeVar('T')
LETTERS = 16  # of a key: 64 bits


class Bench(Protocol):
  """What a stage works with while it is made or read.

  Attributes:
    folder: its own, empty or with what an interrupted attempt left.
    settings: the stage's.
    inputs: name -> the value of an input stage.
    resources: what makes results and does not change them; see `pipeline.store.Resources`.
  """

  folder: Path
  settings: Any
  inputs: Mapping[str, Any]
  resources: Any


@dataclasses.dataclass(frozen=True)
class Stage(Generic[T]):
  """What a result is made from.

  Attributes:
    name: short, for people and folders.
    version: raised when the same settings and inputs give another result than before.
    settings: a frozen dataclass, or a mapping of plain values and such dataclasses.
    inputs: name -> the stages whose values `make` or `read` asks for.
    make: fills the folder of a `Bench`; resumes where an interrupted attempt left it.
    read: the value that a finished folder holds.
    files: files and folders from outside; their content enters the key.
    together: whether all processes of a job call `make` at once, as computations on devices of all
      need it.
    divided: whether it scores pairs, which the processes of a job divide: all call `make`, the
      others in a folder that nobody keeps. What is neither is made by process 0 alone.
  """

  name: str
  version: int
  settings: Any
  inputs: Mapping[str, 'Stage']
  make: Callable[[Bench], None]
  read: Callable[[Bench], T]
  files: tuple[Path, ...] = ()
  together: bool = False
  divided: bool = False

  @functools.cached_property
  def identity(self) -> dict[str, Any]:
    """What the key is a hash of, as plain JSON."""
    return {'name': self.name, 'version': self.version, 'settings': plain(self.settings),
            'inputs': {name: stage.key for name, stage in sorted(self.inputs.items())},
            'files': [content(path) for path in self.files]}

  @functools.cached_property
  def key(self) -> str:
    return key_of(self.identity)

  def walk(self) -> list['Stage']:
    """The stages that this one stands on, and itself last; each once."""
    seen: dict[str, Stage] = {}
    for stage in self.inputs.values():
      seen |= {s.key: s for s in stage.walk()}
    return list((seen | {self.key: self}).values())


def key_of(identity: Mapping[str, Any]) -> str:
  """The name and a hash of an identity: 'policy-0123456789abcdef'."""
  return f'{identity["name"]}-{hashlib.sha256(canonical(identity).encode()).hexdigest()[:LETTERS]}'


def canonical(value: Any) -> str:
  """JSON in which equal values have equal text.

  Raises:
    TypeError, ValueError: something that JSON cannot hold, or a number that is not finite.
  """
  return json.dumps(value, sort_keys=True, separators=(',', ':'), allow_nan=False,
                    ensure_ascii=True)


def plain(value: Any) -> Any:
  """Settings as JSON holds them: dataclasses as objects, tuples as arrays.

  Raises:
    TypeError: a value of another kind, which could not be hashed by its content.
    ValueError: a number that is not finite.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
  if isinstance(value, Mapping):
    if not all(isinstance(k, str) for k in value):
      raise TypeError(f'keys of settings must be text, got {list(value)}')
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, tuple | list):
    return [plain(v) for v in value]
  if isinstance(value, float) and not math.isfinite(value):
    raise ValueError(f'settings must be finite, got {value}')
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise TypeError('settings must be numbers, text, booleans, None, tuples, mappings or dataclasses '
                  f'of these, got {type(value).__name__}')


def content(path: str | Path) -> str:
  """The digest of a file, or of all files below a folder by name; where it lies says nothing.

  Raises:
    ValueError: there is nothing, or it cannot be read.
  """
  path = Path(path)
  if path.is_dir():
    inside = sorted(p for p in path.rglob('*') if p.is_file())
    listing = {str(p.relative_to(path)): digest(p) for p in inside}
    return hashlib.sha256(canonical(listing).encode()).hexdigest()
  return digest(path)
