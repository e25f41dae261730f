"""The words of a record as a few numbers: latent semantic analysis of its token block.

  x_t = (1 + log n_t) idf_t,  b = (x / |x| - m) W

n_t counts token t in the block, idf weighs rare tokens up, and W has the leading principal
components of the training records' x / |x|, whose mean is m, each divided by its standard deviation
there: over the training records every number of b has mean 0 and variance 1. Each side has its own.

Reference:
  Deerwester et al., Indexing by latent semantic analysis, 1990.
"""

from collections.abc import Mapping
from typing import Self

import numpy as np
from scipy import sparse

SIDES = ('candidate', 'job')
_LEAST = 1e-6  # of the first standard deviation: below, a component is rounding


class Components:
  """The components of both sides.

  Args:
    arrays: of each side `idf` [V], `weights` [V, R] and `offset` [R], float32.
  """

  def __init__(self, arrays: Mapping[str, Mapping[str, np.ndarray]]):
    self.arrays = arrays

  @classmethod
  def fit(cls, blocks: Mapping[str, np.ndarray], vocab_size: int, rank: int) -> Self:
    """Of the training records' blocks; deterministic.

    Args:
      blocks: of each side [N, L] int32 token ids, negative at padding.
      vocab_size: above every id.
      rank: R; further components than the records have are zeros.
    """
    return cls({side: _fitted(blocks[side], vocab_size, rank) for side in SIDES})

  @property
  def rank(self) -> int:
    """R."""
    return self.arrays[SIDES[0]]['weights'].shape[1]

  def __call__(self, side: str, block: np.ndarray) -> np.ndarray:
    """b of records: tokens [N, L] -> [N, R] float32; zeros where a record has no token."""
    a = self.arrays[side]
    x = _normed(_log_counts(block, len(a['idf'])).multiply(a['idf'][None]).tocsr())
    there = np.asarray(x.getnnz(1) > 0)[:, None]
    return np.where(there, x @ a['weights'] - a['offset'], 0).astype(np.float32)


def _fitted(block: np.ndarray, vocab_size: int, rank: int) -> dict[str, np.ndarray]:
  # Here, for who reads with components that were fitted needs none of it.
  from sklearn.decomposition import PCA
  from sklearn.feature_extraction.text import TfidfTransformer
  counts = _log_counts(block, vocab_size)
  idf = (TfidfTransformer().fit(counts).idf_ if len(block) else np.ones(vocab_size)).astype(
      np.float32)
  x = _normed(counts.multiply(idf[None]).tocsr())
  found = min(rank, min(x.shape) - 1)
  weights, offset = np.zeros((vocab_size, rank), np.float32), np.zeros(rank, np.float32)
  if found > 0 and abs(x - x[[0] * x.shape[0]]).max() > _LEAST:  # else all say the same
    pca = PCA(found, svd_solver='arpack', random_state=0).fit(x)
    size = np.sqrt(np.maximum(pca.explained_variance_, 0))
    there = size > _LEAST * size[0]
    scale = np.where(there, 1 / np.where(there, size, 1), 0)[:, None]
    weights[:, :found] = (pca.components_ * scale).T
    offset[:found] = scale[:, 0] * (pca.components_ @ pca.mean_)
  return {'idf': idf, 'weights': weights, 'offset': offset}


def _log_counts(block: np.ndarray, vocab_size: int) -> sparse.csr_matrix:
  """[N, V] of 1 + log n, 0 where a token is not there."""
  rows, columns = np.nonzero(block >= 0)
  ids = block[rows, columns]
  counts = sparse.csr_matrix((np.ones(len(rows)), (rows, ids)), (len(block), vocab_size))
  counts.sum_duplicates()
  counts.data = 1 + np.log(counts.data)
  return counts


def _normed(x: sparse.csr_matrix) -> sparse.csr_matrix:
  size = np.sqrt(np.asarray(x.multiply(x).sum(1)).ravel())
  return sparse.diags(1 / np.where(size > 0, size, 1)) @ x
