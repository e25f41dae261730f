"""Results in an object store, too, for machines whose disks do not outlive them.

  URL/.mirror             says what it is
  URL/NAME-KEY/           a finished result, as in the store; artefact.json is written last
  URL/.making/NAME-KEY/   what an unfinished attempt at training needs to go on: whole checkpoints,
                          metrics, and the clock

Work is done on the disk; a copy goes up when a result is whole, and one comes down, checked, where
the disk has none. Credentials are those that the environment gives to gcsfs, s3fs or adlfs.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
from pathlib import Path
import shutil
import threading
from typing import Any

from absl import logging
import fsspec

from jobrec_jax.pipeline.provenance import CLOCK
from jobrec_jax.pipeline.store import ABOUT, check_whole
from jobrec_jax.train.checkpoint import RECORD

# What a URL may begin with -> the package that reads it; '' where fsspec itself does. 'memory' is
# gone with the process: it is for tests.
PACKAGES = {'gs': 'gcsfs', 's3': 's3fs', 'az': 'adlfs', 'file': '', 'memory': ''}
EVERY = 60.0  # seconds between two copies of an unfinished attempt
METRICS = 'metrics.jsonl'
MARK = '.mirror'  # in an object store there is no folder without a file


class Mirror:
  """A folder of an object store, such as gs://BUCKET/FOLDER.

  Args:
    url: begins with one of `PACKAGES`.

  Raises:
    ValueError: the URL is of another kind or holds credentials, its package is not installed, or
      its server does not answer.
  """

  def __init__(self, url: str):
    kind, _, place = url.partition('://')
    if kind not in PACKAGES or not place.strip('/') or '@' in place or '?' in place:
      kinds = ', '.join(f'{k}://' for k in PACKAGES if k != 'memory')
      raise ValueError(f'--mirror must be a folder of one of {kinds} without credentials, such as '
                       f'gs://BUCKET/FOLDER, got {url.split("@")[-1].split("?")[0]!r}')
    self.url = url.rstrip('/')
    try:
      options = {'auto_mkdir': True} if kind == 'file' else {'use_listings_cache': False}
      self._files, self._root = fsspec.url_to_fs(self.url, **options)
    except ImportError as error:
      raise ValueError(f'--mirror={self.url} needs the package {PACKAGES[kind]}, got none; pip '
                       f'install {PACKAGES[kind]}') from error
    with self._asking('must be a folder that can be listed, and written where it is empty'):
      names = self._names('')
      if not names:  # so that a bucket that is not there is told before anything is made
        self._files.pipe_file(f'{self._root}/{MARK}', b'Results of jobrec_jax by key.\n')
      self._there = {name for name in names if self._has(f'{name}/{ABOUT}')}

  def sync(self, folder: Path, keys: Sequence[str]) -> None:
    """Brings down what the store of a folder lacks of these keys, and up what only it has.

    Raises:
      ValueError: what comes down is not what was made, or the server does not answer.
    """
    for key in dict.fromkeys(keys):
      if (folder / key).is_dir():
        self.push(folder / key)
      elif key in self._there:
        self._pull(folder, key)

  def push(self, result: Path) -> None:
    """Copies a finished result up, where it is not there; that this failed is a warning, for the
    result is on the disk, and the next command tries again."""
    if result.name in self._there or not (result / ABOUT).is_file():
      return
    try:
      for path in _files(result):
        if path.name != ABOUT or path.parent != result:
          self._up(path, f'{result.name}/{path.relative_to(result).as_posix()}')
      self._up(result / ABOUT, f'{result.name}/{ABOUT}')
      self._there.add(result.name)
      self._remove(f'.making/{result.name}')
    except Exception as error:  # servers raise all kinds
      logging.warning('%s/%s: not copied (%s); the next command with this --mirror tries again',
                      self.url, result.name, _phrase(error))

  @contextlib.contextmanager
  def making(self, folder: Path) -> Iterator[None]:
    """Inside, what an attempt needs to go on is copied up once in `EVERY` seconds, and at its end.

    An attempt of which this disk holds nothing goes on with what another machine left.

    Args:
      folder: in which a result is made.
    """
    begun = f'.making/{folder.name}'
    if not any(p.name != CLOCK for p in folder.iterdir()):
      with self._asking('must be an attempt that can be read'):
        self._resume(folder, begun)
    ended, sent = threading.Event(), {}

    def copies() -> None:
      while not ended.wait(EVERY):
        self._send(folder, begun, sent)
    thread = threading.Thread(target=copies, name='mirror', daemon=True)
    thread.start()
    try:
      yield
    except BaseException:
      ended.set()
      thread.join()
      self._send(folder, begun, sent)
      raise
    finally:
      ended.set()
    thread.join()

  def _send(self, folder: Path, place: str, sent: dict[str, Any]) -> None:
    """Copies up what changed since the last time; `record.json` of a checkpoint is its last file.

    Args:
      folder: of the attempt.
      place: of its copy.
      sent: relative path -> size and time of what is there.
    """
    try:
      steps = [p.parent for p in sorted((folder / 'checkpoints').glob(f'*/{RECORD}'))
               if p.parent.name.isdecimal()]
      if not steps:
        return
      for path in [*(p for step in steps for p in _files(step, last=RECORD)),
                   *(folder / name for name in (METRICS, CLOCK))]:
        name = path.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # a newer checkpoint took its place
          state = path.stat()
          if sent.get(name) != (state.st_size, state.st_mtime_ns):
            self._up(path, f'{place}/{name}')
            sent[name] = state.st_size, state.st_mtime_ns
      kept = {step.name for step in steps}
      for name in self._names(f'{place}/checkpoints'):
        if name not in kept:
          self._remove(f'{place}/checkpoints/{name}')
    except Exception as error:
      logging.warning('%s/%s: not copied (%s)', self.url, place, _phrase(error))

  def _resume(self, folder: Path, place: str) -> None:
    for step in self._names(f'{place}/checkpoints'):
      if self._has(f'{place}/checkpoints/{step}/{RECORD}'):
        self._down(f'{place}/checkpoints/{step}', folder / 'checkpoints' / step)
    if (folder / 'checkpoints').is_dir():  # else it begins anew, without the metrics of before
      for name in (METRICS, CLOCK):
        if self._has(f'{place}/{name}'):
          self._files.get_file(f'{self._root}/{place}/{name}', str(folder / name))
      logging.info('%s: goes on with what lies in %s/%s', folder.name, self.url, place)

  def _pull(self, folder: Path, key: str) -> None:
    coming = folder / '.pulling' / key
    shutil.rmtree(coming, ignore_errors=True)
    with self._asking(f'{key} must be a result that can be read'):
      self._down(key, coming)
    try:
      check_whole(coming)
    except ValueError as error:
      shutil.rmtree(coming.parent, ignore_errors=True)
      raise ValueError(f'{self.url}/{key}: must be as it was made, got another content ({error}); '
                       'delete that folder there, and the result is made again') from error
    os.replace(coming, folder / key)
    with contextlib.suppress(OSError):
      coming.parent.rmdir()
    logging.info('%s: read from %s', key, self.url)

  def _down(self, place: str, folder: Path) -> None:
    """Copies a folder, whatever is in it."""
    start = f'{self._root}/{place}/'
    for path in self._files.find(start):
      target = folder / path.removeprefix(start)
      if not path.startswith(start) or '..' in target.parts:
        raise ValueError(f'{self.url}/{place}: must hold files of its own alone, got {path!r}')
      target.parent.mkdir(parents=True, exist_ok=True)
      self._files.get_file(path, str(target))

  def _up(self, path: Path, place: str) -> None:
    self._files.put_file(str(path), f'{self._root}/{place}')

  def _has(self, place: str) -> bool:
    return self._files.isfile(f'{self._root}/{place}')

  def _names(self, place: str) -> list[str]:
    """Of what lies in a folder; nothing where it is not there."""
    try:
      found = self._files.ls(f'{self._root}/{place}'.rstrip('/'), detail=False)
    except FileNotFoundError:
      return []
    return sorted({path.rstrip('/').rsplit('/', 1)[-1] for path in found})

  def _remove(self, place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
      self._files.rm(f'{self._root}/{place}', recursive=True)

  @contextlib.contextmanager
  def _asking(self, must: str) -> Iterator[None]:
    """Turns whatever a server or its package raises into one ValueError."""
    try:
      yield
    except ValueError:
      raise
    except Exception as error:
      raise ValueError(f'{self.url}: {must}, got {_phrase(error)}; see that the bucket is there, '
                       'and the environment has credentials for it') from error


def _files(folder: Path, last: str = '') -> list[Path]:
  """All files of a folder, that of this name behind the others."""
  return sorted((p for p in folder.rglob('*') if p.is_file()),
                key=lambda p: (p.name == last and p.parent == folder, p))


def _phrase(error: Exception) -> str:
  text = ' '.join(f'{type(error).__name__} {error}'.split())
  return text if len(text) <= 200 else f'{text[:90]} ... {text[-90:]}'
