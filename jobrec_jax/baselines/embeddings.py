"""Sentence embeddings of a real encoder, all-MiniLM-L6-v2: a BERT of six layers, forward alone.

  e(text) = n(sum over tokens of the last layer),   n(x) = x / |x|

Plain NumPy: some ten million weights and texts of some fifty words need no device.

Reference: Devlin et al., BERT, 2018; Reimers and Gurevych, Sentence-BERT, 2019; Wang et al.,
MiniLM, 2020.
"""

from collections.abc import Sequence
import functools
import math
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file
from scipy.special import erf
import tokenizers

from jobrec_jax.baselines.base import check_perspective
from jobrec_jax.baselines.words import SIDES, LogisticWords, free_texts
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.schema.files import read_json
from jobrec_jax.weights.fetch import fetch_encoder

LENGTH = 256  # tokens of a text that are read, as the model was trained
BATCH = 32  # texts of like length at a time


class Encoder:
  """A BERT from a folder in Hugging Face's layout.

  Args:
    folder: with config.json, tokenizer.json and model.safetensors.
  """

  def __init__(self, folder: str | Path):
    folder = Path(folder)
    config = read_json(folder / 'config.json')
    self._weights = {k.removeprefix('bert.'): v.astype(np.float32)
                     for k, v in load_file(folder / 'model.safetensors').items()}
    self._layers, self._heads = config['num_hidden_layers'], config['num_attention_heads']
    self._epsilon, self.width = config['layer_norm_eps'], config['hidden_size']
    self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))
    self._tokenizer.no_padding()
    self._tokenizer.enable_truncation(LENGTH)
    self._known: dict[str, np.ndarray] = {}  # both perspectives and all settings ask for the same

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """[N, D] float32 of length 1; zeros for a text without a letter. Each distinct one once."""
    new = sorted({t for t in texts if t.strip()} - self._known.keys())
    read = sorted(zip((e.ids for e in self._tokenizer.encode_batch(new)), new),
                  key=lambda pair: len(pair[0]))
    for start in range(0, len(read), BATCH):
      rows, names = zip(*read[start:start + BATCH])
      lengths = np.array([len(ids) for ids in rows])
      tokens = np.zeros((len(rows), lengths[-1]), np.int64)
      mask = np.arange(lengths[-1]) < lengths[:, None]
      tokens[mask] = np.concatenate(rows)
      total = (self.states(tokens, mask) * mask[..., None]).sum(1)
      self._known |= zip(names, total / np.linalg.norm(total, axis=1, keepdims=True))
    nothing = np.zeros(self.width, np.float32)
    return np.stack([self._known.get(t, nothing) for t in texts])

  def states(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[B, L, D] the last layer's states of [B, L] tokens, where `mask` is true."""
    w, (b, l) = self._weights, tokens.shape
    x = (w['embeddings.word_embeddings.weight'][tokens]
         + w['embeddings.position_embeddings.weight'][:l]
         + w['embeddings.token_type_embeddings.weight'][0])
    x = self._norm(x, 'embeddings.LayerNorm')
    hidden = np.where(mask, 0.0, -np.inf).astype(np.float32)[:, None, None]  # [B, 1, 1, S]
    for i in range(self._layers):
      at = f'encoder.layer.{i}'
      q, k, v = (self._dense(x, f'{at}.attention.self.{n}').reshape(b, l, self._heads, -1)
                 .transpose(0, 2, 1, 3) for n in ('query', 'key', 'value'))  # [B, N, L, H]
      s = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1]) + hidden
      s = np.exp(s - s.max(-1, keepdims=True))
      read = (s / s.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(b, l, -1)
      x = self._norm(x + self._dense(read, f'{at}.attention.output.dense'),
                     f'{at}.attention.output.LayerNorm')
      h = self._dense(x, f'{at}.intermediate.dense')
      h = h * 0.5 * (1 + erf(h / math.sqrt(2)))
      x = self._norm(x + self._dense(h, f'{at}.output.dense'), f'{at}.output.LayerNorm')
    return x

  def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
    return x @ self._weights[f'{name}.weight'].T + self._weights[f'{name}.bias']

  def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
    x = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + self._epsilon)
    return x * scale * self._weights[f'{name}.weight'] + self._weights[f'{name}.bias']


@functools.cache
def minilm() -> Encoder:
  """all-MiniLM-L6-v2, fetched where it is not there yet; one for a process."""
  return Encoder(fetch_encoder('minilm'))


class MiniLM:
  """The cosine of both sides' free texts; no label is read."""

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Embeds the texts."""
    check_perspective(perspective)
    self._candidate, self._job = (minilm()(free_texts(dataset, side)) for side in SIDES)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 in [-1, 1]; 0 where a side has no text."""
    return np.einsum('nd,nd->n', self._candidate[candidate], self._job[job], dtype=np.float64)


class LogisticMiniLM(LogisticWords):
  """`LogisticWords` whose b are components of free texts' embeddings, in place of tf-idf's."""

  name = 'logistic regression with MiniLM'

  def _embed(self, texts: Sequence[str]) -> np.ndarray:
    return minilm()(texts)
