"""Rivals that read: words of both sides beside the schema's margins, under two usual learners.

  x(u, j) = [margins and verdicts; a_u; a_j; a_u * a_j; |a_u − a_j|; b_u ⊗ b_j]

a are the leading components of tf-idf of the whole rendered blocks, in a space that both sides
share; b those of the free texts alone, in a space of its own for each side. Their outer product
lets a linear model learn that some words of one side go with other words of the other.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.base import Labels, both_classes, observed
from jobrec_jax.baselines.tuning import best_of, log_loss
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.schema.render import is_missing, render_entity, rendered_attributes

Matrix = np.ndarray | sparse.csr_matrix
Embed = Callable[[Sequence[str]], np.ndarray]
SIDES = ('candidate', 'job')
COMPONENTS = 16  # of a, and of b of each side


class LogisticSetting(NamedTuple):
  """What validation chooses.

  Attributes:
    crossed: whether the outer product of the free texts is among the features.
    ngrams: the longest n-gram.
    C: the inverse strength of L2 on standardised features.
  """

  crossed: bool
  ngrams: int
  C: float


class TreesSetting(NamedTuple):
  """What validation chooses; early stopping is its own.

  Attributes:
    crossed, ngrams: as of `LogisticSetting`.
    leaves: of a tree, at most.
  """

  crossed: bool
  ngrams: int
  leaves: int


LOGISTIC = tuple(LogisticSetting(crossed, ngrams, C) for crossed in (True, False)
                 for ngrams in (2, 1) for C in (0.03, 0.3))
TREES = tuple(TreesSetting(crossed, ngrams, leaves) for crossed in (True, False)
              for ngrams in (2, 1) for leaves in (8, 31))


def blocks(dataset: Dataset, side: str) -> list[str]:
  """The rendered block of each record of a side."""
  records = dataset.candidates if side == 'candidate' else dataset.jobs
  return [render_entity(dataset.schema, side, e) for e in records]


def free_texts(dataset: Dataset, side: str) -> list[str]:
  """The free texts of each record of a side, joined; '' where it has none."""
  records = dataset.candidates if side == 'candidate' else dataset.jobs
  names = [a.name for a in rendered_attributes(dataset.schema, side) if a.kind == 'text']
  return ['\n'.join(e[n] for n in names if not is_missing(e[n])) for e in records]


class Reader:
  """tf-idf and its leading components, fitted to some texts and taken of any.

  Args:
    texts: to fit to.
    ngrams: the longest n-gram.
    components: how many, at most.
  """

  def __init__(self, texts: Sequence[str], ngrams: int, components: int = COMPONENTS):
    self._words = TfidfVectorizer(ngram_range=(1, ngrams), sublinear_tf=True)
    read = self._words.build_analyzer()
    self._components = None
    if any(read(text) for text in texts):  # else there is no word to count
      self._components = _components(sparse.csr_matrix(self._words.fit_transform(texts)),
                                     components)

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """[N, width] float64; a width of 0 where the texts to fit to held no word."""
    if self._components is None:
      return np.zeros((len(texts), 0))
    return self._components.transform(self._words.transform(texts))


def _components(x: Matrix, count: int = COMPONENTS) -> TruncatedSVD:
  return TruncatedSVD(min(count, *x.shape), random_state=0).fit(x)


class PairWords:
  """The features x of pairs of a data set; see the module.

  Words and components are those of the records that training sees; others are only read.

  Args:
    dataset: whose pairs are asked for.
    alignments: the schema's part.
    crossed: whether b_u ⊗ b_j is among them.
    ngrams: the longest n-gram.
    embed: [N, D] of free texts, in place of tf-idf; None for tf-idf.

  Attributes:
    products: how many of the features, the last, are of the outer product.
  """

  def __init__(self, dataset: Dataset, alignments: AlignmentFeatures, crossed: bool, ngrams: int,
               embed: Embed | None = None):
    self._alignments = alignments
    train = dataset.interactions.of('train')
    seen = {side: np.unique(getattr(train, side)) for side in SIDES}
    whole = {side: blocks(dataset, side) for side in SIDES}
    shared = Reader([whole[side][i] for side in SIDES for i in seen[side]], ngrams)
    self._a = [shared(whole[side]) for side in SIDES]
    self._b = None
    if crossed:
      self._b = []
      for side in SIDES:
        texts = free_texts(dataset, side)
        if embed is None:
          self._b.append(Reader([texts[i] for i in seen[side]], ngrams)(texts))
        else:
          x = embed(texts)
          there = x[seen[side]].any()
          self._b.append(_components(x[seen[side]]).transform(x) if there else x[:, :0])
    self.products = self._b[0].shape[1] * self._b[1].shape[1] if self._b else 0

  def chunks(self, candidate: np.ndarray, job: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, [n, width] float64 features of theirs), some 65,000 rows at a time."""
    for rows, said in self._alignments.chunks(candidate, job):
      u, j = (a[i[rows]] for a, i in zip(self._a, (candidate, job)))
      parts = [said, u, j, u * j, np.abs(u - j)]
      if self._b is not None:
        b = [b[i[rows]] for b, i in zip(self._b, (candidate, job))]
        parts.append((b[0][:, :, None] * b[1][:, None, :]).reshape(len(u), -1))
      yield rows, np.concatenate(parts, 1, dtype=np.float64)

  def __call__(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N, width] float64."""
    return np.concatenate([x for _, x in self.chunks(candidate, job)])


class _WithWords:
  """What both learners share: the features of each choice, fitted once, and what is tuned.

  Args:
    features: of the data set to fit.
    labels: what is taken for a label, of train and of validation.
  """

  name: str
  settings: Sequence
  _embed: Embed | None = None

  def __init__(self, features: AlignmentFeatures, labels: Labels = observed):
    self._features, self._labels = features, labels

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits to the train labels under the setting of least log-loss on the validation labels.

    Without validation labels of both kinds the first setting is taken. Deterministic.

    Raises:
      ValueError: no train label, or all of one class.
    """
    train = both_classes(dataset, perspective, self._labels)
    self._features.check_made_for(dataset)
    held = self._labels(dataset, 'validation', perspective)
    prepared: dict[tuple[bool, int], tuple] = {}

    def fit(setting):
      key = setting.crossed, setting.ngrams
      if key not in prepared:
        prepared.clear()  # one at a time, for they are wide
        words = PairWords(dataset, self._features, *key, self._embed)
        scaler = StandardScaler(copy=False)
        prepared[key] = words, scaler, scaler.fit_transform(
            words(train.candidate, train.job)), (
                scaler.transform(words(held.candidate, held.job)) if held.both else None)
      words, scaler, x, other = prepared[key]
      return words, scaler, self._learn(setting, x, train.label, other, held.label), other

    def loss(fitted):
      *_, model, other = fitted
      return log_loss(model.decision_function(other), held.label)
    self._words, self._scaler, self._model, _ = best_of(
        f'{self.name}, {perspective}', self.settings, fit, loss if held.both else None)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 logit of the positive class."""
    out = np.empty(len(candidate))
    for rows, x in self._words.chunks(candidate, job):
      out[rows] = self._model.decision_function(self._scaler.transform(x))
    return out


class LogisticWords(_WithWords):
  """L2-regularised logistic regression on the schema's margins and the words of both sides."""

  name, settings = 'logistic regression with words', LOGISTIC

  def _learn(self, setting: LogisticSetting, x: np.ndarray, labels: np.ndarray, *_):
    # Few columns beside the rows: Newton needs a handful of steps where L-BFGS needs dozens.
    return LogisticRegression(C=setting.C, solver='newton-cholesky').fit(x, labels)


class TreesWords(_WithWords):
  """Gradient-boosted trees on the same features, stopped early where validation rises.

  Reference: Ke et al., LightGBM: A Highly Efficient Gradient Boosting Decision Tree, 2017; the
  implementation is scikit-learn's.
  """

  name, settings = 'boosted trees with words', TREES

  def _learn(self, setting: TreesSetting, x: np.ndarray, labels: np.ndarray,
             other: np.ndarray | None, held: np.ndarray):
    stops = other is not None
    model = HistGradientBoostingClassifier(
        max_leaf_nodes=setting.leaves, learning_rate=0.1, max_iter=300 if stops else 60,
        l2_regularization=1.0, max_features=0.3, early_stopping=stops, n_iter_no_change=10,
        random_state=0)
    return model.fit(x, labels, **({'X_val': other, 'y_val': held} if stops else {}))
