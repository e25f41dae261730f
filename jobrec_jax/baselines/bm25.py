"""BM25: the words of one side as a query to the texts of the other."""

from typing import Self

import bm25s
import numpy as np

from jobrec_jax.baselines.base import check_perspective
from jobrec_jax.baselines.words import blocks
from jobrec_jax.data.dataset import Dataset


class BM25:
  """BM25 of whole rendered blocks, by bm25s (Lucene's variant, k1 1.5, b 0.75).

  What a perspective ranks are the documents: jobs by the candidate's text for preference,
  candidates by the job's text for qualification. No label is read. Word statistics are those of
  all documents, as in any catalogue; scores of different queries do not compare.

  Reference: Lù, BM25S: Orders of magnitude faster lexical search via eager sparse scoring, 2024.
  """

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Indexes the documents."""
    self._by_candidate = check_perspective(perspective) == 'preference'
    sides = ('candidate', 'job') if self._by_candidate else ('job', 'candidate')
    queries, documents = (bm25s.tokenize(blocks(dataset, side), stopwords=None,
                                         return_ids=False, show_progress=False) for side in sides)
    self._queries = queries
    self._index = bm25s.BM25()
    self._index.index(documents, show_progress=False)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64, at least 0."""
    query, document = (candidate, job) if self._by_candidate else (job, candidate)
    out = np.zeros(len(query))
    order = np.argsort(query, kind='stable')
    distinct, starts = np.unique(query[order], return_index=True)
    for q, rows in zip(distinct, np.split(order, starts[1:])):
      words = self._queries[q]
      if words:
        out[rows] = self._index.get_scores(words)[document[rows]]
    return out
