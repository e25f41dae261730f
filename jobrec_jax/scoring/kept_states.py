"""Block states of candidates and jobs, encoded once and kept on disk, for factored attention."""

import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from jobrec_jax.data.tokens import PAD
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.models.list_attention import States
from jobrec_jax.schema.files import save_array

PyTree = Any


@functools.partial(jax.jit, static_argnums=(0, 3))
def encode_blocks(model: JobRec, params: PyTree, tokens: jax.Array, side: str) -> States:
  """`JobRec.encode` of tokens [U, L], compiled: states [P, layers, U, K, L, H]."""
  return model.apply({'params': params}, tokens, side, method='encode')


class BlockStates:
  """States by weights and text: a block that was read before, in any run, is not read again.

  `FOLDER/WEIGHTS/SIDE/TEXT.npy` holds one block: [2, P, layers, K, L, H], keys and values of its L
  real tokens as bfloat16 (the bits of uint16). WEIGHTS is a fingerprint of decoder, adapters,
  phrases and model config; TEXT one of the tokens. Files are memory-mapped and written atomically,
  so several processes of one machine may share a folder.

  Args:
    folder: where the states lie; made if missing.
    model, params: the experts.
    batch: blocks that are encoded at a time.

  Attributes:
    encoded: how many blocks this object had to encode.

  Raises:
    ValueError: the weights are spread over several processes.
  """

  def __init__(self, folder: Path, model: JobRec, params: PyTree, batch: int = 16):
    if not all(x.is_fully_addressable for x in jax.tree.leaves(params) if isinstance(x, jax.Array)):
      raise ValueError('block states must be encoded by one process, which sees all weights, got '
                       f'weights spread over {jax.process_count()}')
    self._model, self._params, self._batch = model, params, batch
    self._folder = Path(folder) / _fingerprint(model, params)
    self.encoded = 0

  def __call__(self, tokens: np.ndarray, side: str) -> States:
    """States [P, layers, U, K, L, H] of blocks [U, L], bfloat16 bit patterns; zeros at padding."""
    paths = self.encode(tokens, side)
    decoder = self._model.config.decoder
    own = decoder.lora is not None and decoder.lora.per_expert
    lead = 2, len(self._model.config.experts) if own else 1, decoder.layers
    out = np.zeros((*lead, len(tokens), decoder.kv_heads, tokens.shape[1], decoder.head_width),
                   np.uint16)
    for i, path in enumerate(paths):
      real = np.flatnonzero(tokens[i] != PAD)
      wanted = (*lead, decoder.kv_heads, len(real), decoder.head_width)
      try:
        block = np.load(path, mmap_mode='r', allow_pickle=False)
        actual = f'{block.dtype} {block.shape}'
      except (ValueError, OSError, EOFError) as error:
        actual = f'no array ({error})'
      if actual != f'uint16 {wanted}':
        raise ValueError(f'{path}: must be uint16 {wanted}, got {actual}; delete it, and it will '
                         'be encoded again')
      out[:, :, :, i, :, real] = np.moveaxis(block, 4, 0)
    return States(*out)

  def _path(self, row: np.ndarray, side: str) -> Path:
    text = hashlib.sha256(row[row != PAD].astype('<i4').tobytes()).hexdigest()[:32]
    return self._folder / side / f'{text}.npy'

  def encode(self, tokens: np.ndarray, side: str) -> list[Path]:
    """Encodes what of blocks [U, L] has no file yet, a whole batch at a time; their files."""
    paths = [self._path(row, side) for row in tokens]
    todo = list({path: i for i, path in enumerate(paths) if not path.exists()}.items())
    for start in range(0, len(todo), self._batch):
      files, rows = zip(*todo[start:start + self._batch])
      # Whole batches, so that one program serves every call.
      batch = tokens[np.resize(rows, self._batch)]
      states = jax.device_get(encode_blocks(self._model, self._params, batch, side))
      for i, (path, row) in enumerate(zip(files, rows)):
        real = np.flatnonzero(tokens[row] != PAD)
        block = np.stack([states.k[:, :, i][..., real, :], states.v[:, :, i][..., real, :]])
        save_array(path, block.astype(ml_dtypes.bfloat16).view(np.uint16))
      self.encoded += len(rows)
    return paths


def _fingerprint(model: JobRec, params: PyTree) -> str:
  digest = hashlib.sha256(repr(model.config).encode())
  read = {name: params[name] for name in ('decoder', 'lora', 'phrases') if name in params}
  for path, leaf in jax.tree.leaves_with_path(read):
    digest.update(f'{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}'.encode())
    digest.update(np.ascontiguousarray(jax.device_get(leaf)).view(np.uint8).data)
  return digest.hexdigest()[:16]
