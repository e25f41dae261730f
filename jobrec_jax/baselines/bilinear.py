"""Logistic regression with products of the words of two sides, in few directions.

  s = x . w + c + sum_k (l_k . u)(r_k . v),  k = 1..K

u and v, the last of the numbers x, are the words of a candidate and of a job. K is small: what is
wanted of a text goes along few tastes, and some hundred candidates are too few to learn a weight
for each product of two components.

Reference:
  Rendle, Factorization machines, 2010; Srebro, Rennie and Jaakkola, Maximum-margin matrix
  factorization, 2004, for the ridge: its least value over all factors of a matrix is the nuclear
  norm.
  MacKay, The evidence framework applied to classification networks, 1992.
"""

from typing import NamedTuple, Self

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

_NEW = 0.1  # size of a new direction, at which the search starts
_SEARCH = {'maxiter': 1000, 'ftol': 1e-11, 'gtol': 1e-4}
_RIDGES = 0.1, 1e6  # the least and the greatest that evidence may ask for
_ROUNDS, _STEPS = 30, 20


class Pairs(NamedTuple):
  """What is known of pairs.

  Attributes:
    numbers: [N, D + 2 R] of a pair, the words of its candidate and of its job last.
    u, v: [U, R] and [J, R], the words once for each candidate and job.
    row, column: [N] int, the pair's candidate and job among these.
  """

  numbers: np.ndarray
  u: np.ndarray
  v: np.ndarray
  row: np.ndarray
  column: np.ndarray

  @classmethod
  def of(cls, numbers: np.ndarray, rank: int, candidate: np.ndarray, job: np.ndarray) -> Self:
    """From the numbers of pairs, and who they are: R = rank, [N], [N]."""
    sides = []
    for entity, end in ((candidate, -rank), (job, None)):
      _, first, index = np.unique(entity, return_index=True, return_inverse=True)
      sides.append((numbers[first, numbers.shape[1] - rank + (end or 0):end], index))
    (u, row), (v, column) = sides
    return cls(numbers, u, v, row, column)

  def products(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[N, K] of directions [K, R] of either side."""
    return (self.u @ left.T)[self.row] * (self.v @ right.T)[self.column]


class Bilinear(NamedTuple):
  """A fit.

  Attributes:
    weights: [D + 2 R], w.
    intercept: c.
    left, right: [K, R].
  """

  weights: np.ndarray
  intercept: float
  left: np.ndarray
  right: np.ndarray

  @property
  def match(self) -> np.ndarray:
    """[R, R], the weight of each product of two words."""
    return self.left.T @ self.right

  def logits(self, pairs: Pairs) -> np.ndarray:
    """[N]."""
    return (pairs.numbers @ self.weights + self.intercept
            + pairs.products(self.left, self.right).sum(1))


def fit_by_evidence(pairs: Pairs, label: np.ndarray) -> tuple[Bilinear, np.ndarray]:
  """The linear fit without directions, and its ridges [D + 2 R], those of the greatest evidence.

  Numbers, the candidate's words and the job's have a ridge each. With the Hessian H at the fit, in
  Laplace's approximation, and of the n weights of a group g

    ridge_g = gamma_g / |w_g|^2,  gamma_g = n - ridge_g tr (H^-1)_gg.

  Args:
    pairs: N of them.
    label: [N] of 0 and 1, both there.
  """
  width, r = pairs.numbers.shape[1], pairs.u.shape[1]
  group = np.repeat(np.arange(3), (width - 2 * r, r, r))
  x = np.concatenate([pairs.numbers, np.ones((len(label), 1))], 1)
  count = np.bincount(group, minlength=3)
  w, ridges = np.zeros(width + 1), np.ones(3)
  for _ in range(_ROUNDS):
    ridge = np.append(ridges[group], 1e-9)  # the intercept has none
    for _ in range(_STEPS):
      p = expit(x @ w)
      hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(ridge)
      step = np.linalg.solve(hessian, x.T @ (p - label) + ridge * w)
      w = w - step
      if np.abs(step).max() < 1e-6:
        break
    spread = np.diag(np.linalg.inv(hessian))[:-1]
    known = count - ridges * np.bincount(group, spread, minlength=3)
    size = np.bincount(group, w[:-1] ** 2, minlength=3)
    new = np.clip(np.maximum(known, 1e-9) / np.maximum(size, 1e-9), *_RIDGES)
    settled, ridges = np.abs(np.log(new / ridges)).max() < 1e-2, new
    if settled:
      break
  none = np.zeros((0, r))
  return Bilinear(w[:-1], float(w[-1]), none, none), ridges[group]


def widened(model: Bilinear, pairs: Pairs, label: np.ndarray, rank: int) -> tuple[Bilinear, float]:
  """The model with further directions, up to `rank`: those in which the loss falls most steeply.

  Returns:
    The model, and how steeply in the first of them: a ridge as great leaves no direction at all.
  """
  more = rank - len(model.left)
  left, steep, right = np.linalg.svd(
      pairs.u.T @ _grid(pairs, label - expit(model.logits(pairs))) @ pairs.v)
  return model._replace(left=np.concatenate([model.left, _NEW * left.T[:more]]),
                        right=np.concatenate([model.right, _NEW * right[:more]])), float(steep[0])


def fit_bilinear(pairs: Pairs, label: np.ndarray, ridges: np.ndarray, ridge: float,
                 start: Bilinear) -> Bilinear:
  """The fit of the least loss near a start; deterministic.

    sum_n log(1 + exp(-±s_n)) + ridges . w^2 / 2 + ridge sum_k (|l_k|^2 + |r_k|^2) / 2

  Args:
    pairs: N of them.
    label: [N] of 0 and 1.
    ridges: [D + 2 R], of the weights.
    ridge: of the directions.
    start: with as many directions as are wanted.
  """
  width, k, r = pairs.numbers.shape[1], *start.left.shape
  ends = np.cumsum([width, 1, k * r])

  def parted(theta: np.ndarray) -> Bilinear:
    weights, intercept, left, right = np.split(theta, ends)
    return Bilinear(weights, float(intercept[0]), left.reshape(k, r), right.reshape(k, r))

  def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
    model = parted(theta)
    s = model.logits(pairs)
    slope = expit(s) - label
    grid = _grid(pairs, slope)
    left = (grid @ (pairs.v @ model.right.T)).T @ pairs.u
    right = (grid.T @ (pairs.u @ model.left.T)).T @ pairs.v
    directions = np.append(model.left, model.right)
    loss = ((np.logaddexp(0, s) - label * s).sum() + ridges @ model.weights ** 2 / 2
            + ridge / 2 * (directions @ directions))
    return loss, np.concatenate([slope @ pairs.numbers + ridges * model.weights, [slope.sum()],
                                 (left + ridge * model.left).ravel(),
                                 (right + ridge * model.right).ravel()])
  theta = np.concatenate([start.weights, [start.intercept], start.left.ravel(),
                          start.right.ravel()])
  return parted(minimize(objective, theta, jac=True, method='L-BFGS-B', options=_SEARCH).x)


def _grid(pairs: Pairs, value: np.ndarray) -> sparse.csr_array:
  """[U, J], the sum of the pairs' values."""
  return sparse.csr_array((value, (pairs.row, pairs.column)), (len(pairs.u), len(pairs.v)))
