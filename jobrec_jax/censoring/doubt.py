"""How much doubt about eligibility keeps willing candidates from applying.

  P(applied | shown) = sigmoid(x w + b) d(q),   d(q) = 1 - c (1 - q)

x is what speaks to preference, q the chance of being found eligible. The two factors are told apart
by an exclusion that the schema states: what speaks to qualification alone, as a grade does, moves
an application through q and through nothing else.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.pairs import PairAligner, chunks

MOST = 0.95  # c is held below, so that nobody is sure not to apply
EVIDENCE = 1.35  # rise of the log likelihood that c = 0 is given up for: 95%, one-sided
_RIDGE = 1.0  # of w, in columns of unit variance


def fit_self_censoring(features: np.ndarray, q: np.ndarray, applied: np.ndarray) -> float:
  """The most likely c in [0, 0.95]; 0 where applications do not tell it from none.

  Args:
    features: [N, K] x of pairs that were shown.
    q: [N] chance of being found eligible, in [0, 1].
    applied: [N] bool.

  Raises:
    ValueError: shapes differ, or nobody or everybody applied.

  Reference:
    The likelihood-ratio test at the boundary: Self and Liang, Asymptotic properties of maximum
    likelihood estimators and likelihood ratio tests under nonstandard conditions, 1987.
  """
  x, q, y = np.asarray(features, np.float64), np.asarray(q, np.float64), np.asarray(applied, bool)
  if not len(x) == len(q) == len(y) or y.all() or not y.any():
    raise ValueError('features, q and applied must be of the same pairs, of which some applied and '
                     f'some did not, got {x.shape}, {q.shape} and {y.sum()} of {len(y)} applied')
  spread = x.std(0)
  x = np.where(spread > 0, (x - x.mean(0)) / np.where(spread > 0, spread, 1), 0)
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1)

  def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
    w, c = theta[:-1], theta[-1]
    m, d = expit(x @ w), 1 - c * (1 - q)
    p = np.clip(m * d, 1e-12, 1 - 1e-12)
    by_p = np.where(y, -1 / p, 1 / (1 - p))
    slope = np.append(_RIDGE * w[:-1], 0.0)
    return (-np.log(np.where(y, p, 1 - p)).sum() + _RIDGE * (w[:-1] ** 2).sum() / 2,
            np.append(x.T @ (by_p * m * (1 - m) * d) + slope, -(by_p * m * (1 - q)).sum()))

  start = np.zeros(x.shape[1])
  start[-1] = np.log(y.mean() / (1 - y.mean()))
  free = [(None, None)] * len(start)
  none = minimize(loss, np.append(start, 0.0), jac=True, method='L-BFGS-B', bounds=[*free, (0, 0)])
  some = minimize(loss, np.append(none.x[:-1], 0.3), jac=True, method='L-BFGS-B',
                  bounds=[*free, (0, MOST)])
  return float(some.x[-1]) if none.fun - some.fun > EVIDENCE else 0.0


def self_censoring(dataset: Dataset) -> float:
  """How much doubt kept candidates from applying, by the train split; see `fit_self_censoring`.

  The chance of being eligible is that of a logistic regression on the applicants' verdicts and
  margins. 0 where no field speaks to qualification alone, or labels do not tell.
  """
  shown = dataset.interactions.of('train')
  shown = shown.where(shown.preference >= 0)
  aligner = PairAligner(dataset.schema, dataset.candidates, dataset.jobs)
  wished = np.array([f.speaks_to('preference') for f in aligner.fields], bool)
  applied, seen = shown.preference == 1, shown.qualification >= 0
  accepted = shown.qualification[seen]
  if wished.all() or not all(x.any() and not x.all() for x in (applied, accepted)):
    return 0.0
  x = np.concatenate([aligner(shown.candidate[part], shown.job[part]).features()
                      for part in chunks(len(shown))])
  model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
  q = model.fit(x[seen], accepted).predict_proba(x)[:, 1]
  own = np.repeat(wished, x.shape[1] // len(wished))
  return fit_self_censoring(x[:, own], q, applied)
