"""Where a result comes from: commit, versions, device, seconds, memory."""

from collections.abc import Mapping
import functools
from importlib import metadata
from pathlib import Path
import platform
import subprocess
import sys
import time
from typing import Any

from jobrec_jax.schema.files import read_json, write_json
from jobrec_jax.schema.progress import peak_memory

UNKNOWN = 'unknown'
CLOCK = '.seconds.json'  # in the folder of a result that is being made
PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'tokenizers')


class Clock:
  """Seconds of work on a folder, those of interrupted attempts among them.

  What earlier attempts took lies in the folder, so that a resumed result does not seem cheap.
  """

  def __init__(self, folder: Path):
    self._path = folder / CLOCK
    kept = _clock(folder)
    self._before, self._began = kept.get('seconds', 0.0), kept.get('began', time.time())
    self._start = time.monotonic()
    self.save()  # at once, for no kill gives notice

  def drop(self) -> None:
    """Forgets the work, where nothing came of it."""
    self._path.unlink(missing_ok=True)

  def save(self) -> None:
    write_json(self._path, {'seconds': self._before + time.monotonic() - self._start,
                            'began': self._began})

  def stop(self) -> dict[str, Any]:
    """What is known of this process and its work."""
    seconds = self._before + time.monotonic() - self._start
    self.drop()
    return {'seconds': round(seconds, 3), 'peak_memory_mib': peak_memory(), 'commit': commit(),
            'versions': versions(), 'python': platform.python_version(), 'device': device()}


def _clock(folder: Path) -> dict[str, float]:
  """What an unfinished attempt left of its clock; {} where that is nothing, or damaged."""
  try:
    kept = read_json(folder / CLOCK)
    return {name: float(kept[name]) for name in ('seconds', 'began')}
  except (ValueError, KeyError, TypeError):
    return {}


def began(folder: Path) -> float:
  """When the first attempt at a result began, in seconds since 1970; now where none has."""
  return _clock(folder).get('began', time.time())


@functools.cache
def commit() -> str:
  """The commit of the source tree, with '+' where it was changed; '' outside of one."""
  root = Path(__file__).parents[2]
  if not (root / '.git').exists():
    return ''

  def git(*words: str) -> str:
    return subprocess.run(['git', '-C', str(root), *words], capture_output=True, text=True,
                          check=True, timeout=10).stdout.strip()
  try:
    return git('rev-parse', '--short', 'HEAD') + ('+' if git('status', '--porcelain') else '')
  except (OSError, subprocess.SubprocessError):
    return ''


@functools.cache
def versions() -> dict[str, str]:
  """Versions of what results depend on."""
  return {name: metadata.version(name) for name in PACKAGES}


def device() -> str:
  """The devices that JAX found, if it was asked for any."""
  if 'jax' not in sys.modules:
    return platform.machine()
  import jax  # here, for not every stage needs it
  kind = jax.devices()[0].device_kind
  return f'{jax.device_count()} x {kind} ({platform.machine()})'


def told(about: Mapping[str, Any], key: str, kind: type, otherwise: Any = UNKNOWN) -> Any:
  """What a kept provenance says, which no digest protects; `otherwise` where it is damaged."""
  return about[key] if isinstance(about.get(key), kind) else otherwise
