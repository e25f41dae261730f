"""Which rivals there are: by name, what each learns from, and what it stands on.

Nothing heavy is imported before one is made: settings check names here.
"""

from collections.abc import Callable, Sequence
import dataclasses
import importlib
import importlib.util
from typing import TYPE_CHECKING, Literal

from jobrec_jax.baselines.base import Baseline, Labels, accepted, naive, observed
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.schema.schema import PERSPECTIVES

if TYPE_CHECKING:
  from jobrec_jax.censoring.estimators import Estimator


@dataclasses.dataclass(frozen=True)
class Rival:
  """A rival of the experts.

  Attributes:
    make: one of a data set, not fitted yet.
    needs: of train labels: nothing, positives, or both kinds.
    labels: what it takes for labels.
    logit: whether `score` is the logit of a probability.
    warm_only: whether it knows by their interactions alone whom it ranks for, so that whom training
      has not seen it ranks by popularity.
    perspectives: those that it has a score for.
    package: what must be installed beside the library; '' for nothing.
    encoder: what must be fetched, of `weights.fetch.ENCODERS`; '' for nothing.
  """

  make: Callable[[Dataset], Baseline]
  needs: Literal['nothing', 'positives', 'both'] = 'both'
  labels: Labels = observed
  logit: bool = False
  warm_only: bool = False
  perspectives: tuple[str, ...] = PERSPECTIVES
  package: str = ''
  encoder: str = ''

  def can_learn(self, dataset: Dataset, perspective: str) -> bool:
    """Whether it has a score for the perspective, and the train split the labels it needs."""
    if perspective not in self.perspectives:
      return False
    found = self.labels(dataset, 'train', perspective)
    return (self.needs == 'nothing' or found.both
            or (self.needs == 'positives' and bool(found.label.any())))


def _plain(module: str, name: str) -> Callable[[Dataset], Baseline]:
  return lambda dataset: _class(module, name)()


def _on_schema(module: str, name: str) -> Callable[[Dataset], Baseline]:
  return lambda dataset: _class(module, name)(_features(dataset))


def _with_words(labels: Labels) -> Callable[[Dataset], Baseline]:
  return lambda dataset: _class('words', 'LogisticWords')(_features(dataset), labels)


def _censored(estimator: str) -> Rival:
  def make(dataset: Dataset) -> Baseline:
    from jobrec_jax.censoring.estimators import ESTIMATORS  # here, for it imports SciPy
    return _class('censored', 'Censored')(_features(dataset), ESTIMATORS[estimator])
  return Rival(make, logit=True, perspectives=('qualification',))


def _class(module: str, name: str) -> type:
  return getattr(importlib.import_module(f'jobrec_jax.baselines.{module}'), name)


def _features(dataset: Dataset):
  from jobrec_jax.baselines.alignments import AlignmentFeatures
  return AlignmentFeatures(dataset)


def _collaborative(name: str, package: str = 'implicit') -> Rival:
  return Rival(_plain('collaborative', name), 'positives', warm_only=True, package=package)


# In the order in which they are shown.
RIVALS: dict[str, Rival] = {
    'popularity': Rival(_plain('popularity', 'Popularity')),
    'schema rules': Rival(_on_schema('rules', 'Rules'), 'nothing'),
    'BM25': Rival(_plain('bm25', 'BM25'), 'nothing', package='bm25s'),
    'MiniLM': Rival(_plain('embeddings', 'MiniLM'), 'nothing', encoder='minilm'),
    'ItemKNN': _collaborative('ItemKNN'),
    'EASE': _collaborative('EASE', package=''),
    'WMF': _collaborative('WMF'),
    'BPR': _collaborative('BPR'),
    'conflated': Rival(_with_words(accepted), labels=accepted, logit=True),
    'naive': Rival(_with_words(naive), labels=naive, logit=True),
    'logistic regression': Rival(_on_schema('logistic', 'Logistic'), logit=True),
    'boosted trees with words': Rival(_on_schema('words', 'TreesWords'), logit=True),
    'logistic regression with MiniLM': Rival(_on_schema('embeddings', 'LogisticMiniLM'), logit=True,
                                             encoder='minilm'),
    'logistic regression with words': Rival(_with_words(observed), logit=True),
    'factorization machine with words': Rival(
        _on_schema('factorization', 'FactorizationWords'), logit=True),
    'funnel likelihood': Rival(_on_schema('censored', 'FunnelLikelihood'), logit=True),
}
# What the benchmark of the funnel compares: one learner, and what unseen outcomes are taken for.
CENSORED = ('applicants alone', 'unseen as negatives', 'imputation', 'IPS', 'SNIPS', 'DR', 'DR-JL',
            'MRDR', 'self-normalised DR', 'targeted DR', 'ESMM', 'ESCM2-IPS', 'ESCM2-DR')
RIVALS |= {name: _censored(name) for name in CENSORED}
DEFAULT = ('popularity', 'schema rules', 'logistic regression', 'logistic regression with words')


def enter(name: str, estimator: 'Estimator') -> None:
  """Makes an estimator of what the funnel hides a rival in qualification; see docs/funnel.md.

  What is kept of a rival is found again by its name: one that is changed needs another.

  Args:
    name: one that no rival has.
    estimator: as those of `censoring.estimators.ESTIMATORS`, where it stands from now on.

  Raises:
    ValueError: the name is taken.
  """
  from jobrec_jax.censoring.estimators import ESTIMATORS  # here, for it imports SciPy
  if name in RIVALS:
    raise ValueError(f'the name of an estimator must be new, got {name!r}, which is a rival')
  ESTIMATORS[name] = estimator
  RIVALS[name] = _censored(name)


def check_names(names: Sequence[str]) -> None:
  """Raises ValueError: a name is no rival's, or stands there twice."""
  if not set(names) <= set(RIVALS) or len(set(names)) < len(names):
    raise ValueError(f'rivals must be some of {tuple(RIVALS)}, each once, got {tuple(names)!r}')


def check_installed(names: Sequence[str]) -> None:
  """Raises ValueError: a rival stands on a package or an encoder that is not there."""
  for name in names:
    encoder = RIVALS[name].encoder
    if encoder:
      from jobrec_jax.weights import fetch  # here, for few ask
      if not fetch.has_encoder(encoder):
        raise ValueError('evaluate.rivals must name rivals whose encoder was fetched, got '
                         f'{name!r}; python -m jobrec_jax.weights.fetch {encoder}, or leave it out')
    package = RIVALS[name].package
    if package and importlib.util.find_spec(package) is None:
      raise ValueError(f'evaluate.rivals must name rivals that are installed, got {name!r}, which '
                       f"stands on {package}; pip install 'jobrec_jax[rivals]', or leave it out")


def make_rival(name: str, dataset: Dataset) -> Baseline:
  """A rival, not fitted yet.

  Raises:
    ValueError: there is none of that name, or it is not installed.
  """
  check_names([name])
  check_installed([name])
  return RIVALS[name].make(dataset)
