"""Hugging Face directories in and out: config.json, *.safetensors and tokenizer.json.

Weights stay in memory-mapped files until a device needs them: each parameter is read shard by
shard, layer by layer, and no other copy of it is made. Pickled weights are refused.

A tokenizer encodes each block of a prompt for itself, without special tokens, so the ids of a block
never depend on what stands before it. At a border between blocks no merge spans both sides, and
decoding shows what the family does there: byte-level tokenizers (Llama 3, Qwen, SmolLM2) run the
texts together, those with a prefix space (Llama 2, Mistral) put a space between them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
from pathlib import Path
import re
import shutil
from typing import Any

from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
import tokenizers

from jobrec_jax.models.decoder import DecoderConfig
from jobrec_jax.schema.files import expanded, read_object, whole_folder, write_json
from jobrec_jax.weights.families import config_json
from jobrec_jax.weights.places import (
  HEAD,
  UNUSED,
  Place,
  Spans,
  check_layers,
  decoder_places,
  differences,
  flat_shardings,
  listed,
  parameter_dtype,
  usual_names,
)

PyTree = Any

_SINGLE, _INDEX = 'model.safetensors', 'model.safetensors.index.json'
# Not *.safetensors: some repositories carry a second copy of the weights in another layout.
_WANTED = ('config.json', 'model*.safetensors', _INDEX, 'tokenizer*')
_PICKLES = ('*.bin', '*.pt', '*.pth', '*.ckpt', '*.pkl')
_DTYPES = ('F32', 'BF16', 'F16')


@dataclasses.dataclass(frozen=True)
class Directory:
  """An opened directory: nothing of the weights has been read but the files' headers.

  Attributes:
    path: where it lies.
    config: content of config.json; its embeddings are tied where no tensor is another head.
    tensors: the opened file of every tensor, and its name there, by its usual name.
  """

  path: Path
  config: Mapping[str, Any]
  tensors: Mapping[str, tuple[Any, str]]

  def _slice(self, name: str) -> Any:
    file, stored = self.tensors[name]
    return file.get_slice(stored)

  def shape(self, name: str) -> tuple[int, ...]:
    return tuple(self._slice(name).get_shape())

  def dtype(self, name: str) -> str:
    """As the file names it, such as 'BF16'."""
    return self._slice(name).get_dtype()

  def read(self, name: str, spans: Spans) -> np.ndarray:
    """Copies one rectangle of a tensor out of its memory-mapped file."""
    return self._slice(name)[spans]


def open_directory(place: str | Path, revision: str | None = None) -> Directory:
  """Opens a local directory, or fetches one from the Hugging Face hub.

  Args:
    place: a directory, where `~` is the user's home, or a hub name 'owner/model'; access is what
      the environment of huggingface_hub grants.
    revision: branch, tag or commit on the hub.

  Raises:
    ValueError: it is not there, has no safetensors or more than one choice of them, or a file in it
      is malformed.
  """
  path = expanded(place)
  if not path.is_dir():
    if not re.fullmatch(r'[A-Za-z0-9][\w.-]*/[\w.-]+', str(place)):
      raise ValueError(f"weights must be a directory or a hub name 'owner/model', got {place!s}")
    path = _fetch(str(place), revision)
  config = read_object(path / 'config.json')
  files = {}
  for file, names in _weight_files(path).items():
    try:
      opened = safe_open(path / file, 'np')
    except (SafetensorError, OSError) as error:
      raise ValueError(f'{path / file}: must be a safetensors file, got {error}') from error
    there = set(opened.keys())
    if names is not None and not names <= there:
      raise ValueError(f'{path / _INDEX}: weight_map must name tensors that lie in their file, got '
                       f'{listed(names - there)} in {file}')
    files |= dict.fromkeys(there if names is None else names, opened)
  names = usual_names(path, files)
  tensors = {usual: (files[name], name) for usual, name in names.items()}
  if HEAD not in tensors:
    config = {**config, 'tie_word_embeddings': True}
  return Directory(path, config, tensors)


def load_decoder(
  directory: Directory,
  config: DecoderConfig,
  shardings: PyTree | None = None,
  dtype: Any = jnp.bfloat16,
  then: Callable[[str, jax.Array], PyTree] = lambda name, x: x,
) -> PyTree:
  """Reads a decoder's parameters, one shard after another.

  A device holds its shards alone. The host holds the shard being read and one tensor's part of it
  (and the last shards, until JAX lets go of them), never the model.

  Args:
    directory: see `open_directory`.
    config: see `families.decoder_config`.
    shardings: a sharding for every parameter; None for the default device.
    dtype: of the parameters, float32 or bfloat16.
    then: applied to each parameter and its name ('layers/mlp/up/kernel') before the next is read,
      such as `models.quantized.quantizer`.

  Returns:
    Parameters in the layout of `models.decoder`.

  Raises:
    ValueError: names or shapes differ from the decoder's (all of them in one message), the weights
      are quantised, or the shardings do not fit.
  """
  dtype = parameter_dtype(dtype)
  places = check(directory, config)
  if config.tie_embeddings and HEAD in directory.tensors and not _same(
      directory, HEAD, places['embedding'].name):
    raise ValueError(f'{directory.path}: {HEAD} must be absent or the embedding where '
                     'tie_word_embeddings is true, got another matrix; pass tie_embeddings=False '
                     'to use it')
  flat = flat_shardings(shardings, places)
  return unflatten_dict(
    {key: then(key, _load(directory, key, place, flat[key], dtype))
     for key, place in places.items()}, sep='/')


def save_decoder(
  directory: str | Path,
  params: PyTree,
  config: DecoderConfig,
  family: str,
  tokenizer_files: Iterable[str | Path] = (),
  max_shard_bytes: int = 5 * 10**9,
  **changes: Any,
) -> None:
  """Writes a directory that transformers' AutoModelForCausalLM loads; it appears when complete.

  Args:
    directory: a new or empty one.
    params: the decoder's, with any adapters merged; they keep their dtype.
    config: of the decoder.
    family: a key of `families.FAMILIES`.
    tokenizer_files: copied beside the weights, such as tokenizer.json.
    max_shard_bytes: weights beyond this are split over several files.
    **changes: keys of config.json set otherwise, see `families.config_json`.

  Raises:
    ValueError: something lies there, the family cannot express the decoder, or the parameters are
      not those of the decoder.
  """
  places, params = decoder_places(config), flatten_dict(params, sep='/')
  wrong = differences({key: place.stacked for key, place in places.items()},
                       {key: x.shape for key, x in params.items()})
  if wrong:
    raise ValueError(f'parameters do not fit the decoder{wrong}')
  changes = {'torch_dtype': str(params['embedding'].dtype), **changes}
  written = config_json(config, family, **changes)
  with whole_folder(directory) as temporary:
    write_json(temporary / 'config.json', written, indent=2)
    _write_weights(temporary, _tensors(params, places), max_shard_bytes)
    for file in map(Path, tokenizer_files):
      if (temporary / file.name).exists():
        raise ValueError(f'tokenizer_files must have names other than {file.name}, got {file}')
      shutil.copyfile(file, temporary / file.name)


def load_tokenizer(directory: str | Path) -> tokenizers.Tokenizer:
  """Reads tokenizer.json; text that spells a special token stays text, nothing is cut or padded.

  Args:
    directory: that holds the file, such as `Directory.path`.

  Raises:
    ValueError: there is none, or it is malformed.
  """
  path = Path(directory) / 'tokenizer.json'
  if not path.is_file():
    raise ValueError(f'{path}: must be a tokenizer, got none; transformers writes one from a '
                     'sentencepiece model: '
                     'AutoTokenizer.from_pretrained(...).save_pretrained(...)')
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
  except Exception as error:  # The library raises nothing narrower.
    raise ValueError(f'{path}: must be a tokenizer, got {error}') from error
  tokenizer.encode_special_tokens = True
  tokenizer.no_padding()
  tokenizer.no_truncation()
  return tokenizer


def _fetch(name: str, revision: str | None) -> Path:
  try:
    return Path(huggingface_hub.snapshot_download(
      name, revision=revision, allow_patterns=list(_WANTED)))
  except (OSError, ValueError) as error:
    raise ValueError(f'{name}: must be a directory here or a model that the hub gives us, got: '
                     f'{error}') from error


def _weight_files(path: Path) -> dict[str, set[str] | None]:
  """Names of the weight files, and of the tensors in each that count (None for all)."""
  single, index = (path / name for name in (_SINGLE, _INDEX))
  if single.is_file() and index.is_file():
    raise ValueError(f'{path}: must hold {_SINGLE} or {_INDEX}, got both; remove the one that is '
                     'left from another save')
  if single.is_file():
    return {_SINGLE: None}
  if not (path / _INDEX).is_file():
    pickles = sorted(f.name for pattern in _PICKLES for f in path.glob(pattern))
    why = ('pickles run code when they are read; convert weights that you trust with transformers: '
           'AutoModelForCausalLM.from_pretrained(...).save_pretrained(...), or use a safetensors '
           'revision of the model')
    other = sorted(f.name for f in path.glob('*.safetensors'))
    raise ValueError(f'{path}: must hold {_SINGLE} or {_INDEX}, got '
                     + (f'{listed(pickles)} ({why})' if pickles else listed(other)))
  files = {}
  weight_map = read_object(path / _INDEX).get('weight_map')
  if not isinstance(weight_map, dict) or not weight_map:
    raise ValueError(f'{path / _INDEX}: weight_map must be tensor names with their files, got '
                     f'{weight_map!r}')
  for name, file in weight_map.items():
    # A plain name cannot lead out of the directory.
    if not isinstance(file, str) or not re.fullmatch(r'[\w][\w.-]*\.safetensors', file):
      raise ValueError(f'{path / _INDEX}: weight_map: {name} must be the name of a safetensors '
                       f'file in the same directory, got {file!r}')
    files.setdefault(file, set()).add(name)
  stray = {f.name for f in path.glob('model*.safetensors')} - set(files)
  if stray:
    logging.warning('%s: names no tensor of %s; they are not read', path / _INDEX, listed(stray))
  return files


def check(directory: Directory, config: DecoderConfig) -> dict[str, Place]:
  """The place of every parameter, once the tensors are known to be the decoder's.

  Raises:
    ValueError: names or shapes differ from the decoder's (all of them in one message), or the
      weights are quantised.
  """
  check_layers(directory.path, config, directory.tensors)
  places = decoder_places(config)
  expected = {n: place.tensor_shape for place in places.values() for n in place.names}
  actual = {n: directory.shape(n) for n in directory.tensors if not UNUSED.search(n)}
  if config.tie_embeddings:
    actual.pop(HEAD, None)
  wrong = differences(expected, actual)
  if wrong:
    raise ValueError(f'{directory.path}: its tensors do not fit the decoder{wrong}')
  for name in expected:
    if directory.dtype(name) not in _DTYPES:
      raise ValueError(f'{directory.path}: {name} must be of type {_DTYPES}, got '
                       f'{directory.dtype(name)}')
  return places


def _same(directory: Directory, one: str, other: str) -> bool:
  shape = directory.shape(one)
  if shape != directory.shape(other):
    return False
  starts = range(0, shape[0], 1024)
  parts = [(slice(i, min(i + 1024, shape[0])), slice(0, shape[1])) for i in starts]
  return all(np.array_equal(directory.read(one, p), directory.read(other, p)) for p in parts)


def _load(
  directory: Directory,
  key: str,
  place: Place,
  sharding: jax.sharding.Sharding | None,
  dtype: np.dtype,
) -> jax.Array:
  shape = place.stacked

  def part(spans: Spans) -> np.ndarray:
    out = np.empty([s.stop - s.start for s in spans], dtype)
    if place.layers is None:
      _copy(out, place.ours(functools.partial(directory.read, place.name), spans))
      return out
    for row, name in enumerate(place.names[spans[0]]):
      _copy(out[row], place.ours(functools.partial(directory.read, name), spans[1:]))
    return out

  if sharding is None:
    return jnp.asarray(part(tuple(slice(0, n) for n in shape)))
  try:
    indices = sharding.addressable_devices_indices_map(shape)
  except ValueError as error:
    raise ValueError(f'parameter {key} of shape {shape} does not divide: {error}') from error
  spans = {d: tuple(slice(*s.indices(n)[:2]) for s, n in zip(index, shape))
           for d, index in indices.items()}
  # Equal shards one after another: each is read once and let go before the next.
  shards, last = [], None
  for device in sorted(spans, key=lambda d: [s.start for s in spans[d]]):
    if last is None or last[0] != spans[device]:
      last = None  # Before reading the next, not after.
      last = spans[device], part(spans[device])
    shards.append(jax.device_put(last[1], device))
  return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _copy(out: np.ndarray, x: np.ndarray) -> None:
  """out[...] = x, in blocks that fit a cache: large transposed kernels take half as long."""
  axis = int(np.argmax(x.strides))
  out, x = np.moveaxis(out, axis, 0), np.moveaxis(x, axis, 0)
  step = max(1, 2**19 * len(x) // x.nbytes)
  for i in range(0, len(x), step):
    out[i : i + step] = x[i : i + step].astype(out.dtype, copy=False)


def _tensors(
  params: Mapping[str, jax.Array], places: Mapping[str, Place]
) -> Iterator[tuple[str, np.ndarray]]:
  for key, place in places.items():
    for i, name in enumerate(place.names):
      yield name, place.theirs(np.asarray(params[key] if place.layers is None else params[key][i]))


def _write_weights(
  path: Path, tensors: Iterator[tuple[str, np.ndarray]], max_shard_bytes: int
) -> None:
  files, held, size, total = [], {}, 0, 0

  def flush() -> None:
    save_file(held, path / f'{len(files)}.part', metadata={'format': 'pt'})
    files.append(list(held))
    held.clear()

  for name, x in tensors:
    if held and size + x.nbytes > max_shard_bytes:
      flush()
      size = 0
    held[name] = x
    size, total = size + x.nbytes, total + x.nbytes
  flush()
  if len(files) == 1:
    (path / '0.part').rename(path / _SINGLE)
    return
  weight_map = {}
  for i, names in enumerate(files):
    file = f'model-{i + 1:05d}-of-{len(files):05d}.safetensors'
    (path / f'{i}.part').rename(path / file)
    weight_map |= dict.fromkeys(names, file)
  index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
  write_json(path / _INDEX, index, indent=2)
