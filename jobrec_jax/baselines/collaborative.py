"""Collaborative filtering: who applied to, or was accepted by, the same as others did.

X [queries, items] is 1 where train has a positive label: candidates × jobs for preference, jobs ×
candidates for qualification, so that a row's items are what a perspective ranks. Texts and
attributes are not read. A query without a positive in train, such as a candidate that training has
not seen, is ranked by `Popularity`; an item without one scores 0.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self
import warnings

import numpy as np
from scipy import sparse

from jobrec_jax.baselines.base import check_perspective, observed
from jobrec_jax.baselines.popularity import Popularity
from jobrec_jax.baselines.tuning import best_of
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.schema import streams

HIDDEN = 0.1  # share of train labels that tuning hides: validation's candidates have no history


class Factored(NamedTuple):
  """Scores as a product: query · item, [Q, K] and [I, K]."""

  query: np.ndarray
  item: np.ndarray

  def score(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    return np.einsum('nk,nk->n', self.query[query], self.item[item], dtype=np.float64)


class Similar(NamedTuple):
  """Scores of what a query has, through likeness of items: X B, [Q, I] and [I, I]."""

  has: sparse.csr_matrix
  like: np.ndarray

  def score(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    out = np.empty(len(query))
    order = np.argsort(query, kind='stable')
    distinct, starts = np.unique(query[order], return_index=True)
    for q, rows in zip(distinct, np.split(order, starts[1:])):
      mine = self.has.indices[self.has.indptr[q]:self.has.indptr[q + 1]]
      out[rows] = self.like[mine].sum(0)[item[rows]]
    return out


class Fitted(Protocol):
  """What a collaborative model leaves behind."""

  def score(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
    """[N] float64 of pairs of indices, [N] each."""
    ...


class Collaborative:
  """What the models share; see the module. `settings` are tuned by the mean AUC within a query of a
  hidden tenth of the train labels, then fitted to all of them."""

  name: str
  settings: Sequence

  def _learn(self, setting, x: sparse.csr_matrix) -> Fitted:
    raise NotImplementedError

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits to the positives of train.

    Raises:
      ValueError: an unknown perspective, or no positive label.
    """
    self._by_candidate = check_perspective(perspective) == 'preference'
    train = observed(dataset, 'train', perspective)
    if not train.label.any():
      raise ValueError(f'the train split must hold positive labels of {perspective}, got none')
    query, item = self._sides(train.candidate, train.job)
    shape = self._sides(len(dataset.candidates), len(dataset.jobs))

    def matrix(keep):
      kept = keep & train.label
      return sparse.csr_matrix((np.ones(kept.sum(), np.float32), (query[kept], item[kept])), shape)
    hidden = streams.rng(0, 'labels hidden for tuning').random(len(query)) < HIDDEN
    few, everything = matrix(~hidden), np.ones(len(query), bool)
    held = _within_queries(query[hidden], item[hidden], train.label[hidden])
    setting = best_of(f'{self.name}, {perspective}', self.settings,
                      lambda s: (s, self._learn(s, few)) if held else (s, None),
                      (lambda found: -_auc(found[1], held)) if held else None)[0]
    whole = matrix(everything)
    self._fitted = self._learn(setting, whole)
    self._warm = np.diff(whole.indptr) > 0
    self._known = np.bincount(whole.indices, minlength=shape[1]) > 0
    self._popular = Popularity().fit(dataset, perspective)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64; of queries that training has no positive of, their `Popularity`."""
    query, item = self._sides(candidate, job)
    out, warm = self._popular.score(candidate, job), self._warm[query]
    out[warm] = self._fitted.score(query[warm], item[warm]) * self._known[item[warm]]
    return out

  def _sides(self, candidate, job):
    return (candidate, job) if self._by_candidate else (job, candidate)


class ItemKNN(Collaborative):
  """Cosine of items' columns, each item keeping its nearest; by implicit.

  Reference: Sarwar et al., Item-based Collaborative Filtering Recommendation Algorithms, 2001.
  """

  name, settings = 'ItemKNN', (20, 5, 10, 40, 80, 160, 320, 640)  # neighbours

  def _learn(self, setting: int, x: sparse.csr_matrix) -> Similar:
    from implicit.nearest_neighbours import CosineRecommender  # here, for it takes a second
    model = CosineRecommender(K=min(setting, x.shape[1]), num_threads=1)
    with warnings.catch_warnings():  # of a conversion inside of it
      warnings.simplefilter('ignore')
      model.fit(x, show_progress=False)
    return Similar(x, model.similarity.toarray())


class EASE(Collaborative):
  """Linear, item to item, no item explaining itself: B = I − P / diag(P), P = (XᵀX + λ I)⁻¹.

  Reference: Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019.
  """

  name, settings = 'EASE', (100.0, 3.0, 10.0, 30.0, 300.0, 1e3, 3e3, 1e4)  # λ

  def _learn(self, setting: float, x: sparse.csr_matrix) -> Similar:
    gram = (x.T @ x).toarray().astype(np.float64)
    inverse = np.linalg.inv(gram + setting * np.eye(len(gram)))
    like = np.eye(len(gram)) - inverse / np.diag(inverse)
    return Similar(x, like)


class Factors(NamedTuple):
  """What is tuned of factor models.

  Attributes:
    factors: K.
    regularization: L2.
  """

  factors: int
  regularization: float


class WMF(Collaborative):
  """Weighted matrix factorisation by alternating least squares; by implicit.

  Reference: Hu, Koren and Volinsky, Collaborative Filtering for Implicit Feedback Datasets, 2008.
  """

  name = 'WMF'
  settings = tuple(Factors(k, r) for k in (16, 8, 32, 64) for r in (1.0, 10.0))

  def _learn(self, setting: Factors, x: sparse.csr_matrix) -> Factored:
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits
    with threadpool_limits(1, 'blas'):  # its own threads divide the rows
      model = AlternatingLeastSquares(**setting._asdict(), alpha=10.0, iterations=15,
                                      random_state=0, num_threads=1)
      model.fit(x, show_progress=False)
    return Factored(model.user_factors, model.item_factors)


class BPR(Collaborative):
  """Matrix factorisation that ranks what a query has above what it has not; by implicit.

  Reference: Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, 2009.
  """

  name = 'BPR'
  settings = tuple(Factors(k, r) for k in (16, 8, 32, 64) for r in (0.01, 0.1))

  def _learn(self, setting: Factors, x: sparse.csr_matrix) -> Factored:
    from implicit.bpr import BayesianPersonalizedRanking
    model = BayesianPersonalizedRanking(**setting._asdict(), learning_rate=0.05, iterations=100,
                                        random_state=0, num_threads=1)
    model.fit(x, show_progress=False)
    return Factored(model.user_factors, model.item_factors)


Held = list[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _within_queries(query: np.ndarray, item: np.ndarray, label: np.ndarray) -> Held:
  """Rows of each query that has both labels: (query, item, label)."""
  order = np.argsort(query, kind='stable')
  starts = np.unique(query[order], return_index=True)[1]
  parts = np.split(order, starts[1:]) if len(order) else []
  return [(query[rows], item[rows], label[rows]) for rows in parts
          if label[rows].any() and not label[rows].all()]


def _auc(model: Fitted, held: Held) -> float:
  """The mean over queries of the share of (positive, negative) pairs that stand in that order."""
  scored = [(model.score(q, i), y) for q, i, y in held]
  return float(np.mean([(np.sign(s[y][:, None] - s[~y]).mean() + 1) / 2 for s, y in scored]))
