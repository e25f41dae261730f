"""Which machine labels are probably wrong, who judges them, and what their verdicts change.

  machine label = true label, flipped at some rate
  P(machine label 1 | record) = flip + (1 - 2 flip) P(true label 1 | record)
  P(true label 1 | record, machine label) by Bayes -> the most doubtful pairs -> verdicts
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.pairs import PairAligner
from jobrec_jax.refine.aggregation import NONE, Aggregate, check_verdicts, dawid_skene
from jobrec_jax.schema.comparators import Semantic
from jobrec_jax.schema.schema import Entity

FOLDS = 5
TOPICS = 12  # directions in which the texts of a side differ most


class Suspicion(NamedTuple):
  """What the machine labels, taken together, say against each of them.

  Attributes:
    posterior: [N] P(true label = 1 | record, machine label).
    wrong: [N] P(machine label is wrong | record, machine label).
    flip: estimated share of flipped labels.
  """

  posterior: np.ndarray
  wrong: np.ndarray
  flip: float


class Refined(NamedTuple):
  """Labels after the review of some pairs.

  Attributes:
    label: [N] bool, of the reviewed pairs.
    changed: [N] bool, where it is not the machine's.
    aggregate: posteriors and experts' error rates.
  """

  label: np.ndarray
  changed: np.ndarray
  aggregate: Aggregate


def pair_features(dataset: Dataset, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """Numbers that speak of both sides of each pair, for a linear model.

  Verdicts and margins of the schema's fields, standardised, and, for each field of free text, the
  leading directions of the candidates' and of the jobs' words, alone and multiplied.

  Args:
    dataset: the records.
    candidate, job: [N] int indices.

  Returns:
    [N, features] float32.
  """
  schema = dataset.schema
  aligner = PairAligner(schema, dataset.candidates, dataset.jobs)
  aligned = aligner(candidate, job).features()
  columns = [StandardScaler().fit_transform(aligned)]
  for field in schema.fields:
    if isinstance(field.comparator, Semantic):
      left = _topics(dataset.candidates, field.candidate)[candidate]
      right = _topics(dataset.jobs, (field.job,))[job]
      crossed = (left[:, :, None] * right[:, None, :]).reshape(len(left), -1)
      columns += [left, right, crossed]
  return np.concatenate(columns, 1)


def _topics(entities: Sequence[Entity], names: Sequence[str]) -> np.ndarray:
  """[entities, at most TOPICS] float32, principal directions of weighted counts of words.

  They keep their relative size, so that a penalty on weights tells topics from noise: a direction
  in which texts hardly differ needs a great weight to matter. Two words count as one where they
  follow each other, as 'not quiet' is not 'quiet'.
  """
  texts = [' '.join(e[name] for name in names if e[name]) for e in entities]
  try:
    words = TfidfVectorizer(min_df=2, ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts)
  except ValueError:  # no text, or no word that two of them share
    return np.zeros((len(texts), 0), np.float32)
  found = TruncatedSVD(min(TOPICS, *words.shape), random_state=0).fit_transform(words)
  found -= found.mean(0)
  found /= max(np.sqrt((found ** 2).sum(1).mean()), 1e-6)
  found[np.abs(found) < 1e-6] = 0  # products of rounding errors are too small for fast arithmetic
  return found.astype(np.float32)


def suspect(features: np.ndarray, machine: np.ndarray, seed: int) -> Suspicion:
  """The probability of each machine label being wrong, from nothing but records and labels.

  A logistic regression predicts each label from those of the other folds. Its logit f is then
  calibrated by maximum likelihood of P(machine 1) = flip + (1 - 2 flip) sigmoid(a + b f), which
  tells flips (they stay where f is extreme) from outcomes that are open given the record (they do
  not); Bayes' rule adds the pair's own label.

  Args:
    features: [N, features], see `pair_features`.
    machine: [N] bool, the noisy labels.
    seed: of the folds.

  Raises:
    ValueError: fewer labels of a class than there are folds.
  """
  machine = np.asarray(machine, bool)
  if min(machine.sum(), (~machine).sum()) < FOLDS:
    raise ValueError(f'machine labels must hold at least {FOLDS} of each class to be cross-checked,'
                     f' got {machine.sum()} of 1 and {(~machine).sum()} of 0')
  model = LogisticRegression(solver='newton-cholesky')
  folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
  logits = cross_val_predict(model, features, machine, cv=folds, method='decision_function')
  a, b, flip = _fit_flips(logits, machine)
  true = expit(a + b * logits)
  posterior = posterior_of(true, machine, flip)
  return Suspicion(posterior, np.where(machine, 1 - posterior, posterior), flip)


def _fit_flips(logits: np.ndarray, machine: np.ndarray) -> tuple[float, float, float]:
  """a, b and flip in (0, 1/2) of `suspect`'s calibration; the best of two starts."""
  def loss(theta: np.ndarray) -> float:
    flip = expit(theta[2]) / 2
    p = flip + (1 - 2 * flip) * expit(theta[0] + theta[1] * logits)
    return -np.log(np.clip(np.where(machine, p, 1 - p), 1e-12, 1)).mean()
  found = min((minimize(loss, (0.0, 1.0, start)) for start in (-3.0, -1.0)), key=lambda r: r.fun)
  return float(found.x[0]), float(found.x[1]), float(expit(found.x[2]) / 2)


def posterior_of(probability: np.ndarray, machine: np.ndarray, flip: float) -> np.ndarray:
  """[N] P(true label 1 | record, machine label) by Bayes' rule for uniform flips.

  Args:
    probability: [N] P(true label 1 | record).
    machine: [N] bool.
    flip: probability that a machine label is the opposite of the true one.
  """
  one = probability * np.where(machine, 1 - flip, flip)
  zero = (1 - probability) * np.where(machine, flip, 1 - flip)
  return one / np.maximum(one + zero, 1e-300)


def budget_size(pairs: int, budget: float) -> int:
  """How many of `pairs` a budget in (0, 1] pays for: at least one."""
  return max(1, round(pairs * budget))


def most_doubtful(wrong: np.ndarray, count: int) -> np.ndarray:
  """[count] int, the pairs whose labels are most probably wrong, the most doubtful first."""
  return np.argsort(-wrong, kind='stable')[:count]


def assign(pairs: int, experts: int, verdicts: int, rng: np.random.Generator) -> np.ndarray:
  """Deals each pair to `verdicts` different experts, to all of them alike.

  Returns:
    [pairs, experts] bool; the experts' numbers of pairs differ by at most one.

  Raises:
    ValueError: more verdicts are asked for than there are experts.
  """
  if not 1 <= verdicts <= experts:
    raise ValueError(f'each pair needs between 1 and {experts} verdicts (that many experts), '
                     f'got {verdicts}')
  dealt, load = np.zeros((pairs, experts), bool), np.zeros(experts, int)
  for row, luck in zip(dealt, rng.random((pairs, experts))):
    row[np.lexsort((luck, load))[:verdicts]] = True
    load += row
  return dealt


def simulate_verdicts(truth: np.ndarray, dealt: np.ndarray, error_rates: Sequence[float],
                      rng: np.random.Generator) -> np.ndarray:
  """Verdicts of experts who err independently, each at a rate of their own.

  Args:
    truth: [N] bool.
    dealt: [N, E] bool, who judges what.
    error_rates: E probabilities of saying the opposite of the truth.
    rng: draws the errors.

  Returns:
    [N, E] int8: 1 yes, 0 no, -1 not asked.
  """
  errs = rng.random(dealt.shape) < np.asarray(error_rates)
  return np.where(dealt, truth[:, None] ^ errs, NONE).astype(np.int8)


def refine(machine: np.ndarray, posterior: np.ndarray, verdicts: np.ndarray) -> Refined:
  """The label of each reviewed pair: the more probable one, given all that is known.

  A label changes only where an expert asked for it: without a verdict against it the machine's
  stands, however doubtful.

  Args:
    machine: [N] bool, the machine's labels.
    posterior: [N] P(true label 1 | record, machine label), see `suspect`.
    verdicts: [N, E] int8: 1 yes, 0 no, -1 none.
  """
  machine, verdicts = np.asarray(machine, bool), check_verdicts(verdicts)
  aggregate = dawid_skene(verdicts, posterior, machine.astype(int))
  against = (verdicts == np.where(machine, 0, 1)[:, None]).any(1)
  changed = against & ((aggregate.posterior > 0.5) != machine)
  return Refined(machine ^ changed, changed, aggregate)
