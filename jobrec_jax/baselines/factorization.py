"""A factorization machine on the schema's margins and the words of both sides.

The form of model that the experts start at (`bilinear`), with words and labels as all rivals read
them: what a label says of one perspective, and nothing of the funnel that it came through.
"""

from typing import NamedTuple, Self

import numpy as np
from sklearn.preprocessing import StandardScaler

from jobrec_jax.baselines.alignments import AlignmentFeatures
from jobrec_jax.baselines.base import Labelled, both_classes, observed
from jobrec_jax.baselines.bilinear import Bilinear, Pairs, fit_bilinear, fit_by_evidence, widened
from jobrec_jax.baselines.tuning import best_of, log_loss
from jobrec_jax.baselines.words import SIDES, Reader, blocks
from jobrec_jax.data.dataset import Dataset

_SHARE = 0.03  # of the ridge that leaves no direction


class FactorizationSetting(NamedTuple):
  """What validation chooses.

  Attributes:
    components: of each side's words, at most.
    ngrams: the longest n-gram.
    rank: in how many directions the words of both sides are multiplied; 0 for none.
  """

  components: int
  ngrams: int
  rank: int


SETTINGS = tuple(FactorizationSetting(components, ngrams, rank) for components in (64, 128)
                 for ngrams in (2, 1) for rank in (1, 0))


class FactorizationWords:
  """Logistic regression with products of words in few directions, its ridges of the greatest
  evidence.

  Args:
    features: of the data set to fit.
  """

  name, settings = 'factorization machine with words', SETTINGS

  def __init__(self, features: AlignmentFeatures):
    self._features = features

  def fit(self, dataset: Dataset, perspective: str) -> Self:
    """Fits to the train labels under the setting of least log-loss on the validation labels.

    Without validation labels of both kinds the first setting is taken. Deterministic.

    Raises:
      ValueError: no train label, or all of one class.
    """
    train = both_classes(dataset, perspective)
    self._features.check_made_for(dataset)
    held = observed(dataset, 'validation', perspective)
    read: dict[tuple[int, int], _Words] = {}

    def fit(setting: FactorizationSetting) -> tuple[_Words, Bilinear]:
      key = setting.components, setting.ngrams
      if key not in read:
        read[key] = _Words(dataset, self._features, train, *key)
      words = read[key]
      if not setting.rank:
        return words, words.linear
      model, steep = widened(words.linear, words.pairs, train.label, setting.rank)
      return words, fit_bilinear(words.pairs, train.label, words.ridges, _SHARE * steep, model)

    def loss(fitted: tuple[_Words, Bilinear]) -> float:
      words, model = fitted
      return log_loss(model.logits(words.of(held.candidate, held.job)), held.label)
    self._words, self._model = best_of(f'{self.name}, {perspective}', self.settings, fit,
                                       loss if held.both else None)
    return self

  def score(self, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N] float64 logit of the positive class."""
    return self._model.logits(self._words.of(candidate, job))


class _Words:
  """Numbers of pairs, the train pairs in them, and the linear fit to these."""

  def __init__(self, dataset: Dataset, features: AlignmentFeatures, train: Labelled,
               components: int, ngrams: int):
    self._features, self._sides, self._rank = features, [], components
    for side in SIDES:
      texts, seen = blocks(dataset, side), np.unique(getattr(train, side))
      found = Reader([texts[i] for i in seen], ngrams, components)(texts)
      wide = np.zeros((len(texts), components))
      wide[:, :found.shape[1]] = StandardScaler().fit(found[seen]).transform(found) if (
          found.shape[1]) else 0
      self._sides.append(wide)
    self._scaler = StandardScaler().fit(features.features(train.candidate, train.job))
    self.pairs = self.of(train.candidate, train.job)
    self.linear, self.ridges = fit_by_evidence(self.pairs, train.label)

  def of(self, candidate: np.ndarray, job: np.ndarray) -> Pairs:
    said = self._scaler.transform(self._features.features(candidate, job))
    numbers = np.concatenate([said, *(x[i] for x, i in zip(self._sides, (candidate, job)))], 1)
    return Pairs.of(numbers, self._rank, candidate, job)
