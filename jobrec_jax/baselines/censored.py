"""Rivals that differ in what an outcome that nobody has seen is taken for.

All are one linear model, of the features of `words.PairWords` with phrases of two words; validation
says whether the product of free texts is among them.
"""

from typing import NamedTuple, Self

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.base import both_classes
from jobrec_jax.baselines.tuning import best_of, log_loss
from jobrec_jax.baselines.words import PairWords
from jobrec_jax.censoring.doubt import self_censoring
from jobrec_jax.censoring.estimators import Estimator
from jobrec_jax.censoring.likelihood import Linear, fit_funnel
from jobrec_jax.censoring.linear import Nuisances, Shown, fit_estimator
from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.schema.schema import PERSPECTIVES

PAIRS = 100_000  # that were shown which are fitted to, at most


class Setting(NamedTuple):
  """What validation chooses for each perspective of the funnel's likelihood.

  Attributes:
    width: how many features count, the first.
    C: the inverse strength of L2.
  """

  width: int
  C: float


class _Shown:
  """Pairs that were shown, as standardised features, and a linear model of them.

  Args:
    features: of the data set to fit.
  """

  name: str
  _model: Linear

  def __init__(self, features: AlignmentFeatures):
    self._features = features

  def _read(self, dataset: Dataset) -> list[tuple[Interactions, np.ndarray]]:
    """Of train and validation: the shown pairs and their [N, D] features, scaled by train's."""
    self._features.check_made_for(dataset)
    self._words = PairWords(dataset, self._features, crossed=True, ngrams=2)
    self._scaler, found = StandardScaler(copy=False), []
    for split in ('train', 'validation'):
      log = dataset.interactions.of(split)
      log = log.where(log.preference >= 0)
      log = log.where(np.arange(len(log)) % max(1, -(-len(log) // PAIRS)) == 0)
      if split == 'train':
        x = self._scaler.fit_transform(self._words(log.candidate, log.job))
      elif len(log):
        x = self._scaler.transform(self._words(log.candidate, log.job))
      else:
        x = x[:0]
      found.append((log, x))
    return found

  def _setting(self, read: list[tuple[Interactions, np.ndarray]], perspective: str) -> Setting:
    """That of the regression on the perspective's own labels with the least validation loss.

    Margins of fields that the schema says do not speak to it are left out.
    """
    (x, label), (held, held_label) = (
        (part[seen] * self._features.speaks_to(perspective, part.shape[1]),
         getattr(log, perspective)[seen] == 1)
        for log, part in read for seen in [getattr(log, perspective) >= 0])
    all_but = x.shape[1] - self._words.products
    settings = [Setting(width, C) for width in sorted({all_but, x.shape[1]})
                for C in (0.003, 0.01, 0.03, 0.1)]
    if not 0 < label.sum() < len(label):
      return settings[0]

    def fit(setting: Setting) -> tuple[Setting, LogisticRegression]:
      model = LogisticRegression(C=setting.C, solver='newton-cholesky')
      return setting, model.fit(x[:, :setting.width], label)

    def loss(found: tuple[Setting, LogisticRegression]) -> float:
      setting, model = found
      return log_loss(model.decision_function(held[:, :setting.width]), held_label)
    return best_of(f'{self.name}, {perspective}', settings, fit,
                   loss if len(held) else None)[0]

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 logit of the positive class."""
    out = np.empty(len(candidate))
    for rows, x in self._words.chunks(candidate, job):
      out[rows] = self._model.logits(self._scaler.transform(x)[:, :len(self._model.weights)])
    return out


class Censored(_Shown):
  """Qualification under an estimator of `censoring.estimators`.

  Args:
    features: of the data set to fit.
    estimator: what unseen outcomes are taken for.
  """

  name = 'qualification of shown pairs'

  def __init__(self, features: AlignmentFeatures, estimator: Estimator):
    super().__init__(features)
    self._estimator = estimator

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits to the shown pairs of the train split; ridges are those of least loss on validation.

    Raises:
      ValueError: labels of one class alone.
    """
    both_classes(dataset, perspective)
    read = self._read(dataset)
    width = self._setting(read, perspective).width
    nuisances = Nuisances.fit(*(
        Shown(x[:, :width], log.candidate, log.qualification >= 0,
              np.maximum(log.qualification, 0).astype(np.float64)) for log, x in read))
    self._model = fit_estimator(self._estimator, nuisances)
    return self


class FunnelLikelihood(_Shown):
  """Both perspectives by the likelihood of who applied and who was accepted of them.

  Margins of a field enter the perspectives that the schema says it speaks to. How much doubt keeps
  candidates away is estimated first; see `censoring.doubt`.
  """

  name = 'funnel likelihood'

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits both, each with the ridge and the features of its own regression, and keeps one.

    Raises:
      ValueError: labels of one class alone.
    """
    both_classes(dataset, perspective)
    read = self._read(dataset)
    (train, x), _ = read
    settings = [self._setting(read, name) for name in PERSPECTIVES]
    parts = tuple((x * self._features.speaks_to(name, x.shape[1]))[:, :setting.width]
                  for name, setting in zip(PERSPECTIVES, settings))
    found = fit_funnel(parts, train.preference == 1, train.qualification, self_censoring(dataset),
                       tuple(1 / setting.C for setting in settings))
    self._model = getattr(found, perspective)
    return self
