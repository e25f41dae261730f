"""GGUF files of llama.cpp: their metadata, and their tensors' numbers.

A file is mapped, not read: only the tensor at hand is ever held dequantised. What the numbers mean
is `gguf_decoder`'s and `gguf_tokenizer`'s.
"""

from collections.abc import Mapping
import dataclasses
import math
import mmap
from pathlib import Path
import struct
from typing import Any

import gguf
from gguf import GGMLQuantizationType as TensorType
import numpy as np

TYPES = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q2_K', 'Q3_K', 'Q4_K',
         'Q5_K', 'Q6_K', 'IQ4_NL', 'IQ4_XS')
_SCALARS = {0: 'B', 1: 'b', 2: 'H', 3: 'h', 4: 'I', 5: 'i', 6: 'f', 7: '?', 10: 'Q', 11: 'q',
            12: 'd'}  # struct's name of each kind of metadata
_STRING, _ARRAY = 8, 9


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies.

  Attributes:
    kind: its type's name in GGUF, such as 'Q4_1'.
    shape: sizes of its axes, rows first (GGUF writes them in the opposite order).
    start: of its bytes in the file.
  """

  kind: str
  shape: tuple[int, ...]
  start: int

  def byte_shape(self) -> tuple[int, ...]:
    """The shape of its bytes; a ValueError where rows are not whole blocks."""
    return gguf.quant_shape_to_byte_shape(self.shape, TensorType[self.kind])


@dataclasses.dataclass(frozen=True)
class GgufFile:
  """An open file: its metadata by key, its tensors by name, and its mapped bytes."""

  path: Path
  metadata: Mapping[str, Any]
  tensors: Mapping[str, Tensor]
  data: np.ndarray

  def require(self, ok: bool, key: str, allowed: str, got: object) -> None:
    """Raises a ValueError with the file, unless all is well."""
    _require(ok, self.path, key, allowed, got)

  def dequantize(self, name: str) -> np.ndarray:
    """The tensor's numbers, fp32, in its own shape."""
    tensor = self.tensors[name]
    shape = tensor.byte_shape()
    raw = self.data[tensor.start : tensor.start + math.prod(shape)].reshape(shape)
    return gguf.dequantize(raw, TensorType[tensor.kind])


def _require(ok: bool, path: Path, key: str, allowed: str, got: object) -> None:
  if not ok:
    raise ValueError(f'{path}: {key} must be {allowed}, got {got!r}')


class _Cursor:
  """Reads the header's values in turn; struct.error or EOFError beyond the end."""

  def __init__(self, data: mmap.mmap):
    self.data, self.at = data, 0

  def unpack(self, kinds: str) -> tuple:
    values = struct.unpack_from(f'<{kinds}', self.data, self.at)
    self.at += struct.calcsize(f'<{kinds}')
    return values

  def string(self) -> str:
    (length,) = self.unpack('Q')
    if length > len(self.data) - self.at:
      raise EOFError
    self.at += length
    return self.data[self.at - length : self.at].decode()

  def value(self) -> Any:
    (kind,) = self.unpack('I')
    if kind != _ARRAY:
      return self._of_kind(kind, 1)[0]
    kind, count = self.unpack('IQ')
    return self._of_kind(kind, count)

  def _of_kind(self, kind: int, count: int) -> list:
    if count > len(self.data) - self.at:  # Every value takes a byte at least.
      raise EOFError
    if kind == _STRING:
      return [self.string() for _ in range(count)]
    if kind not in _SCALARS:
      raise ValueError(f'unknown kind of metadata {kind}')
    return list(self.unpack(f'{count}{_SCALARS[kind]}'))


def open_gguf(path: str | Path) -> GgufFile:
  """Maps a file and reads its header.

  Args:
    path: a GGUF file, version 2 or 3, little-endian.

  Raises:
    ValueError: it cannot be read, is none, is cut, or is a part of a split model; with the file and
      what came.
  """
  path = Path(path)
  try:
    with path.open('rb') as file:
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except (OSError, ValueError) as error:  # a ValueError: it is empty
    raise ValueError(f'{path}: must be a readable GGUF file, got {error}') from error
  _require(data[:4] == b'GGUF', path, 'the start', "b'GGUF'", data[:4])
  try:
    metadata, tensors = _read_header(path, data)
  except (EOFError, struct.error) as error:
    raise ValueError(f'{path}: its header must be whole; the file ends within it: it is cut, '
                     f'{len(data)} bytes') from error
  except UnicodeDecodeError as error:
    raise ValueError(f'{path}: names and texts must be UTF-8, got {error}') from error
  parts = metadata.get('split.count', 0)
  _require(parts in (0, 1), path, 'the model', 'in one file (to join its parts: llama-gguf-split '
           '--merge FIRST-PART.gguf WHOLE.gguf)', f'one of {parts} parts')
  return GgufFile(path, metadata, tensors, np.frombuffer(data, np.uint8))


def _read_header(path: Path, data: mmap.mmap) -> tuple[dict[str, Any], dict[str, Tensor]]:
  cursor = _Cursor(data)
  cursor.at = 4
  (version,) = cursor.unpack('I')
  _require(version in (2, 3), path, 'GGUF version', '2 or 3, little-endian', version)
  tensor_count, key_count = cursor.unpack('QQ')
  metadata, entries = {}, []
  for _ in range(key_count):
    key = cursor.string()
    _require(key not in metadata, path, key, 'given once', 'it twice')
    try:
      metadata[key] = cursor.value()
    except ValueError as error:
      raise ValueError(f'{path}: {key}: {error}') from error
  for _ in range(tensor_count):
    name = cursor.string()
    (axes,) = cursor.unpack('I')
    _require(1 <= axes <= 4, path, name, 'of 1 to 4 axes', axes)
    shape = cursor.unpack(f'{axes}Q')[::-1]
    entries.append((name, shape, *cursor.unpack('IQ')))
  alignment = metadata.get('general.alignment', 32)
  _require(isinstance(alignment, int) and alignment > 0, path, 'general.alignment',
           'a positive integer', alignment)
  first = -(-cursor.at // alignment) * alignment
  names = {kind.value: kind.name for kind in TensorType}
  tensors = {name: Tensor(names.get(kind, f'type {kind}'), shape, first + start)
             for name, shape, kind, start in entries}
  _require(len(tensors) == len(entries), path, 'tensors', 'of different names',
           [name for name, *_ in entries])
  _require_whole(path, tensors, len(data))
  return metadata, tensors


def _require_whole(path: Path, tensors: Mapping[str, Tensor], size: int) -> None:
  """Raises a ValueError where tensors reach beyond the file's end; types not read are not asked."""
  cut = []
  for name, tensor in tensors.items():
    if tensor.kind in TYPES:
      try:
        end = tensor.start + math.prod(tensor.byte_shape())
      except ValueError as error:
        raise ValueError(f'{path}: {name}: {error}') from error
      if end > size:
        cut.append(name)
  _require(not cut, path, 'the file', f'whole; with {size} bytes it is cut within its tensors', cut)
