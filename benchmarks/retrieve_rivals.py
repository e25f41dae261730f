"""First stages that `benchmarks.retrieve` compares: a dense embedding, codes with a trie, BM25.

  dense   s'_e = y_u^T M_e y_j, y = (1, the words' components, pooled states of the block)
  codes   y_j as a path of residual k-means; beam search over the trie of paths
  bm25    the candidate's text as a query to the jobs' texts

Whatever is fitted is fitted to half of the jobs: the others get embeddings and codes as new ones.
"""

from collections.abc import Callable
from typing import NamedTuple

import bm25s
import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from jobrec_jax.baselines.words import blocks as texts
from jobrec_jax.data.tokens import PAD
from jobrec_jax.scoring.kept_states import encode_blocks

Scores = np.ndarray  # [..., 2] of both experts
Rank = Callable[[Scores], np.ndarray]  # under mu(tau)
POOLED = 32  # principal components of the pooled states
WIDTHS = 32, 32, 32  # codes of each level
_RIDGES = (1.0, 10.0, 100.0, 1000.0)
_AT_A_TIME = 512


def pooled(experts, tokens: np.ndarray, side: str) -> np.ndarray:
  """[U, D] means over the tokens of the values of a side's block states."""
  out = []
  for start in range(0, len(tokens), _AT_A_TIME):
    part = tokens[start:start + _AT_A_TIME]
    states = encode_blocks(experts.model, experts.params, np.resize(
        part, (_AT_A_TIME, part.shape[1])), side)
    values = np.asarray(states.v, np.float32)[:, :, :len(part)]      # [P, layers, U, K, L, H]
    real = (part != PAD)[None, None, :, None, :, None]
    mean = (values * real).sum(4) / np.maximum(real.sum(4), 1)
    out.append(np.moveaxis(mean, 2, 0).reshape(len(part), -1))
  return np.concatenate(out)


class Embedding:
  """y of one side: standardised, its components fitted to `known` rows."""

  def __init__(self, states: np.ndarray, known: np.ndarray):
    self._pca = PCA(min(POOLED, states.shape[1]), whiten=True, random_state=0).fit(states[known])

  def __call__(self, states: np.ndarray, words: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(states), 1)), np.clip(words, -5, 5),
                           self._pca.transform(states)], 1).astype(np.float32)


def fit_dense(left: np.ndarray, right: np.ndarray, scores: Scores) -> np.ndarray:
  """M [2, A, B] by ridge regression on the experts' scores of pairs.

  Args:
    left: [U, A] embeddings of candidates.
    right: [U, n, B] of the jobs that each was scored with.
    scores: [U, n, 2]. The ridge is that of the last fifth of the candidates.
  """
  x = (left[:, None, :, None] * right[:, :, None, :]).reshape(len(left), right.shape[1], -1)
  fit = len(left) * 4 // 5
  a, y = x[:fit].reshape(-1, x.shape[2]), scores[:fit].reshape(-1, 2)
  square, with_y, mean = a.T @ a, a.T @ (y - y.mean(0)), y.mean(0)
  ways = [np.linalg.solve(square + ridge * np.eye(len(square)), with_y) for ridge in _RIDGES]
  errors = [((x[fit:] @ way + mean - scores[fit:]) ** 2).mean((0, 1)) for way in ways]
  best = np.stack([ways[i][:, e] for e, i in enumerate(np.argmin(errors, 0))])
  best = best.reshape(2, left.shape[1], right.shape[2])
  best[:, 0, 0] += mean
  return best


class Trie(NamedTuple):
  """Codes of jobs as a tree: children of node i of a level are row[i] to row[i + 1] of the next.

  Attributes:
    rows: of each level [nodes + 1].
    vectors: of each level's nodes, the sum of centroids on the way to them.
    jobs: in the order of the leaves.
    leaves: [leaves + 1] where the jobs of each leaf start.
  """

  rows: list[np.ndarray]
  vectors: list[np.ndarray]
  jobs: np.ndarray
  leaves: np.ndarray


def make_trie(y: np.ndarray, known: np.ndarray) -> Trie:
  """The trie of jobs [J, B], whose codebooks are fitted to the `known` ones."""
  rest, path = y.astype(np.float64), np.zeros(len(y), np.int64)
  books, codes = [], []
  for width in WIDTHS:
    some = rest[known][:20_000]
    means = KMeans(min(width, len(some)), n_init=1, random_state=0).fit(some)
    code = means.predict(rest)
    rest = rest - means.cluster_centers_[code]
    path = path * width + code
    books.append(means.cluster_centers_)
    codes.append(path.copy())
  order = np.argsort(path, kind='stable')
  rows, vectors, above, summed = [], [], np.zeros(1, np.int64), np.zeros((1, y.shape[1]))
  for width, book, code in zip(WIDTHS, books, codes):
    nodes = np.unique(code)
    rows.append(np.append(np.searchsorted(nodes // width, above), len(nodes)))
    summed = summed[np.searchsorted(above, nodes // width)] + book[nodes % width]
    vectors.append(summed.astype(np.float32))
    above = nodes
  leaves = np.append(np.searchsorted(path[order], above), len(path))
  return Trie(rows, vectors, order, leaves)


def beam_search(trie: Trie, query: np.ndarray, rank: Rank, count: int) -> np.ndarray:
  """At least `count` jobs, those of the best leaves first; the beam is as wide as they are many.

  Args:
    trie: of the jobs.
    query: [2, B], of both experts: scores of a node are query . its vector.
    rank: makes one number of both, so that the requirement acts at every level.
    count: how many jobs.
  """
  beam = np.zeros(1, np.int64)
  for rows, vectors in zip(trie.rows, trie.vectors):
    sizes = rows[beam + 1] - rows[beam]
    start = np.repeat(rows[beam] - (np.cumsum(sizes) - sizes), sizes)
    children = start + np.arange(sizes.sum())
    order = np.argsort(-rank(vectors[children] @ query.T), kind='stable')
    beam = children[order[:count]]
  return np.concatenate([trie.jobs[trie.leaves[i]:trie.leaves[i + 1]] for i in beam])[:count]


class Lexical:
  """BM25 of the jobs' texts."""

  def __init__(self, dataset):
    self._index = bm25s.BM25()
    self._index.index(self._words(dataset, 'job'), show_progress=False)
    self._queries = self._words(dataset, 'candidate')

  def _words(self, dataset, side: str):
    return bm25s.tokenize(texts(dataset, side), stopwords=None, return_ids=False,
                          show_progress=False)

  def __call__(self, candidate: int) -> np.ndarray:
    return self._index.get_scores(self._queries[candidate])
