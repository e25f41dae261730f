"""Files as the whole project writes and reads them: whole or not at all, strict, and checked.

A writer never leaves half a file: it fills a temporary one in the same folder, which then takes the
place. A reader turns whatever is wrong with a file into one ValueError that names it.
"""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import hashlib
import json
import math
import os
from pathlib import Path
import shutil
import stat
import tempfile
from typing import IO, Any, BinaryIO
import zipfile

import numpy as np

UNFINISHED = '.unfinished'  # ends the name of a file that is being written


@contextlib.contextmanager
def replacing(path: str | Path, mode: str = 'w') -> Iterator[IO]:
  """A temporary file that takes the place of `path` once all is written, and not before.

  Args:
    path: the file; its folder is made.
    mode: 'w' for UTF-8 text, whose line ends are kept as written, or 'wb' for bytes.
  """
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(UNFINISHED, f'.{path.name}.', path.parent)
  text = {} if 'b' in mode else {'encoding': 'utf-8', 'newline': ''}
  try:
    with os.fdopen(handle, mode, **text) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    Path(temporary).unlink(missing_ok=True)
    raise


def remove_unfinished(folder: Path) -> None:
  """Removes what writers that were killed left of files; none may be at work in the folder."""
  for path in folder.rglob(f'.*{UNFINISHED}'):
    path.unlink()


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
  """A temporary folder that takes the place of `path` once all is written, and not before.

  Args:
    path: a new or empty folder; the folder around it is made.

  Raises:
    ValueError: something lies there.
  """
  path = Path(path).absolute()
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise ValueError(f'{path}: must be a new or empty folder, got one that holds something')
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
  try:
    yield temporary
    temporary.chmod(0o755)
    temporary.rename(path)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
  """Writes a whole file of UTF-8 text."""
  with replacing(path) as file:
    file.write(text)


def write_json(path: str | Path, value: Any, indent: int | None = None) -> None:
  """Writes a whole JSON file.

  Raises:
    ValueError: a number is not finite, which JSON cannot hold.
  """
  write_text(path, _encode(path, value, indent) + '\n')


def write_rows(path: str | Path, rows: Iterable[Any]) -> None:
  """Writes a whole JSON file of an array, each of its values on a line; raises as `write_json`."""
  write_text(path, '[\n' + ',\n'.join([_encode(path, row) for row in rows]) + '\n]\n')


def _encode(path: str | Path, value: Any, indent: int | None = None) -> str:
  try:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
  except ValueError as error:
    raise ValueError(f'{path}: must hold finite numbers alone, got {error}') from error


def null_for_nan(value: Any) -> Any:
  """The value with None for numbers that are not finite, in mappings and lists too."""
  if isinstance(value, Mapping):
    return {k: null_for_nan(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [null_for_nan(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def expanded(path: str | Path) -> Path:
  """The path, in which a leading `~` is the user's home.

  Raises:
    ValueError: it is the home of no user, or no path can be so written.
  """
  if '\0' in str(path):
    raise ValueError(f'{str(path)!r}: must be a path, got one with a NUL')
  try:
    return Path(path).expanduser()
  except RuntimeError as error:
    raise ValueError(f'{path}: must begin with the home of a user, got no such user') from error


MOST_BYTES = 1 << 32  # of a file that is read whole


def open_file(path: str | Path, whole: bool = False) -> BinaryIO:
  """Opens a regular file to read bytes from it; `~` is the user's home.

  Args:
    path: the file. A device, a pipe or a folder is none.
    whole: whether all of it will be in memory, so that its size has a limit.

  Raises:
    ValueError: with the path: it cannot be read, is no regular file, or is larger than 4 GiB.
  """
  place = expanded(path)
  try:
    about = place.stat()
    if not stat.S_ISREG(about.st_mode):  # before it is opened: a pipe would wait for ever
      raise ValueError(f'{path}: must be a regular file, got a folder, a device or a pipe')
    if whole and about.st_size > MOST_BYTES:
      raise ValueError(f'{path}: must have at most {MOST_BYTES:,} bytes to be read whole, got '
                       f'{about.st_size:,}; divide it')
    return place.open('rb')
  except OSError as error:
    raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error


def read_text(path: str | Path) -> str:
  """The text of a UTF-8 file, with or without a byte order mark.

  Raises:
    ValueError: with path and, for a bad byte, its line; else as `open_file`.
  """
  with open_file(path, whole=True) as file:
    try:
      data = file.read()
    except OSError as error:
      raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error
  try:
    return data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data[:error.start].count(b'\n') + 1
    raise ValueError(f'{path}:{line}: must be UTF-8, got byte {data[error.start]:#04x}') from error


def _constant(name: str):
  raise ValueError(f'{name} is not a JSON value')


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) != len(pairs):
    names = [name for name, _ in pairs]
    twice = [name for name in value if names.count(name) > 1]
    raise ValueError(f'an object must hold a key once, got {twice} again')
  return value


_decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant).decode


def decode_json(text: str) -> Any:
  """The value of a JSON text that holds no key twice, no NaN and no half of a surrogate pair.

  Raises:
    ValueError: it is none; a json.JSONDecodeError where a line is to blame.
  """
  try:
    value = _decode(text)
    if '\\u' in text:
      json.dumps(value, ensure_ascii=False).encode()
  except RecursionError as error:
    raise ValueError('lists or objects lie too deep in each other') from error
  return value


def read_json(path: str | Path) -> Any:
  """The value of a JSON file; raises a ValueError with path and, where there is one, line."""
  text = read_text(path)
  try:
    return decode_json(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path}:{error.lineno}: must be JSON, got: {error.msg}') from error
  except ValueError as error:
    raise ValueError(f'{path}: must be JSON, got: {error}') from error


def read_object(path: str | Path) -> dict[str, Any]:
  """The object that a JSON file holds; raises a ValueError as `read_json`, or where it is none."""
  value = read_json(path)
  if not isinstance(value, dict):
    raise ValueError(f'{path}: must be a JSON object, got {type(value).__name__}')
  return value


def save_array(path: str | Path, array: np.ndarray) -> None:
  """Writes one .npy file; several processes may write the same."""
  with replacing(path, 'wb') as file:
    np.save(file, array, allow_pickle=False)


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays by name as one .npz file."""
  with replacing(path, 'wb') as file:
    np.savez(file, **arrays)


def load_array(path: str | Path, mapped: bool = False) -> np.ndarray:
  """The array of a .npy file; `mapped`, it stays on disk until it is looked at.

  Raises:
    ValueError: the file is missing, or is no such file.
  """
  try:
    return np.load(path, mmap_mode='r' if mapped else None, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    raise ValueError(f'{path}: must be a NumPy array, got: {error}') from error


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
  """The arrays of a .npz file by name; raises as `load_array`."""
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, TypeError) as error:
    raise ValueError(f'{path}: must hold NumPy arrays, got: {error}') from error


def digest(path: str | Path) -> str:
  """The SHA-256 of a file's content, in hexadecimal digits.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    with open_file(path) as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  except OSError as error:
    raise ValueError(f'{path}: must be a readable file, got {error.strerror}') from error
