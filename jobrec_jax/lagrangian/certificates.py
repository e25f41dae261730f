"""Which operating point's true risk is certified by a calibration set.

An operating point m = 0..M-1 (a value of tau, ascending, so the last is the safest) has a loss
l[i, m] in [0, 1] on list i: the share of ineligible jobs recommended, of the whole distribution,
sum_j pi_j (1 - y_j), or of the top k. Its risk is R_m = E[l[i, m]] over lists; lower is safer.

All of it assumes: the policies and the M points were fixed before the calibration lists were seen;
those lists and the lists at use are exchangeable, for the tests even i.i.d. from the population
whose risk is certified; a row is one candidate's list; and every label of a list is known.
Labels seen only for applicants (censoring) break it: where the eligible apply more, the lists show
who applied, the losses are too low, and a certificate from them means nothing.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import rel_entr
from scipy.stats import binom

METHODS = ('betting', 'hoeffding_bentkus')
# The most of the wealth that one list can lose. Below 1, so no single list is ruinous; near 1,
# because losses of lists vary little and then the bet that grows fastest is large.
_MAX_STAKE = 0.9


class Certificate(NamedTuple):
  """P(R_chosen > alpha) <= delta over calibration sets; chosen is None where nothing is certified.

  Attributes:
    chosen: index of the least demanding certified operating point.
    p_values: [M] of the hypotheses R_m > alpha, each alone.
    mean_losses: [M] over the calibration lists.
    n: number of lists.
    alpha: risk certified.
    delta: probability of certifying a risk above alpha.
  """
  chosen: int | None
  p_values: np.ndarray
  mean_losses: np.ndarray
  n: int
  alpha: float
  delta: float


def hoeffding_bentkus(mean_loss: np.ndarray | float, n: int, alpha: float) -> np.ndarray:
  """p-value of the hypothesis R > alpha from the mean of n losses; small speaks for R <= alpha.

  p = min(exp(-n h(min(r, alpha), alpha)), e P(Bin(n, alpha) <= ceil(n r)), 1), where r is the mean
  loss and h(a, b) = a log(a / b) + (1 - a) log((1 - a) / (1 - b)) >= 0; p is 1 from r = alpha on.
  The first bound (Hoeffding) is the sharper for r near 0 or alpha, the second (Bentkus) between.
  Both know of the losses only that they lie in [0, 1], hence allow for the variance of 0/1 losses.

  Args:
    mean_loss: mean loss(es) in [0, 1], any shape.
    n: number of lists, at least 1.
    alpha: risk level in (0, 1).

  Returns:
    p-values, shaped like mean_loss, float64.

  Raises:
    ValueError: an argument is outside of its range.

  Reference:
    Bates et al., Distribution-free, risk-controlling prediction sets, 2021; Angelopoulos et al.,
    Learn then test, 2021, arXiv:2110.01052.
  """
  r = _unit_interval('mean_loss', mean_loss)
  _check_open_unit('alpha', alpha)
  if n < 1:
    raise ValueError(f'n must be at least 1, got {n}')
  below = np.minimum(r, alpha)
  hoeffding = np.exp(-n * (rel_entr(below, alpha) + rel_entr(1 - below, 1 - alpha)))
  # Rounded, so that noise in n r does not lift a whole number of losses to the next.
  bentkus = np.e * binom.cdf(np.ceil(np.round(n * r, 9)), n, alpha)
  return np.minimum(hoeffding, bentkus)


def betting(losses: np.ndarray, alpha: float, delta: float) -> np.ndarray:
  """p-value of the hypothesis R > alpha from the losses themselves; small speaks for R <= alpha.

  A gambler stakes on each list in turn that its loss is below alpha: the wealth is
  K_t = prod_{i<=t} (1 + nu_i (alpha - l_i)), nu_i >= 0, which cannot grow on average where
  R >= alpha, whatever nu_i, as long as it depends on lists before i only. So max_t K_t exceeds 1/p
  with probability at most p (Ville), and p = 1 / max(1, max_t K_t).

  The bet nu_i = sqrt(2 log(1/delta) / (n v_{i-1})), at most 0.9 / (1 - alpha), is large where the
  losses so far vary little: v_i = (1/4 + sum_{j<=i} (l_j - m_j)^2) / (i + 1), with
  m_i = (1/2 + sum_{j<=i} l_j) / (i + 1). This is what Hoeffding-Bentkus forgoes.

  Args:
    losses: [N, M] in [0, 1], rows in an order that says nothing of the losses.
    alpha: risk level in (0, 1).
    delta: level in (0, 1) at which the bets are meant to reject; p is valid at any level.

  Returns:
    [M] p-values.

  Raises:
    ValueError: losses are not [N, M] in [0, 1], or alpha or delta is not in (0, 1).

  Reference:
    Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2023,
    arXiv:2010.09686 (the predictable plug-in); Ville, Etude critique de la notion de collectif,
    1939.
  """
  losses = _check_losses(losses)
  _check_open_unit('alpha', alpha)
  _check_open_unit('delta', delta)
  n, points = losses.shape
  count = np.arange(2, n + 2)[:, None]
  mean = (0.5 + losses.cumsum(axis=0)) / count
  variance = (0.25 + ((losses - mean) ** 2).cumsum(axis=0)) / count
  before = np.concatenate([np.full((1, points), 0.25), variance[:-1]])
  bets = np.minimum(np.sqrt(-2 * np.log(delta) / (n * before)), _MAX_STAKE / (1 - alpha))
  log_wealth = np.log1p(bets * (alpha - losses)).cumsum(axis=0)
  return np.exp(-np.maximum(log_wealth.max(axis=0), 0))


def learn_then_test(losses: np.ndarray, alpha: float, delta: float, *, method: str = 'betting',
                    seed: int = 0) -> Certificate:
  """The least demanding operating point certified to have risk at most alpha.

  Fixed-sequence testing: R_m > alpha is tested at level delta from the safest point (the last)
  down, and the first that is not rejected ends it. The order is fixed before the data, so to
  certify any point wrongly, the first point of the sequence whose R_m > alpha must be rejected, and
  that has probability at most delta: no correction for M is due, and R need not be monotone.

  Args:
    losses: [N, M] in [0, 1], all labels of each list known; column M - 1 is the safest.
    alpha: risk level in (0, 1).
    delta: probability in (0, 1) allowed for a chosen point with R > alpha.
    method: 'betting' uses the losses' variance and certifies more; 'hoeffding_bentkus' uses their
      mean only, so that the order of the lists has no part in it.
    seed: of the shuffle before betting, in case the rows come sorted (the guarantee is then over
      shuffles too). Fix it before the data are seen.

  Returns:
    The certificate.

  Raises:
    ValueError: losses are not [N, M] in [0, 1], alpha or delta is not in (0, 1), or method is
      unknown.

  Reference:
    Angelopoulos et al., Learn then test, 2021, arXiv:2110.01052.
  """
  losses = _check_losses(losses)
  _check_open_unit('alpha', alpha)
  _check_open_unit('delta', delta)
  if method not in METHODS:
    raise ValueError(f'method must be one of {METHODS}, got {method!r}')
  n, points = losses.shape
  means = losses.mean(axis=0)
  if method == 'betting':
    p_values = betting(np.random.default_rng(seed).permutation(losses), alpha, delta)
  else:
    p_values = hoeffding_bentkus(means, n, alpha)
  certified = int(np.cumprod(p_values[::-1] <= delta).sum())
  return Certificate(points - certified if certified else None, p_values, means, n, alpha, delta)


def certify_groups(losses: np.ndarray, groups: np.ndarray, alpha: float, delta: float, *,
                   method: str = 'betting', seed: int = 0) -> dict[object, Certificate]:
  """learn_then_test in each group at level delta / G, G groups (Bonferroni).

  With probability at least 1 - delta no group's chosen point has a risk above alpha in that group.

  Args:
    losses: [N, M] as in learn_then_test.
    groups: [N] the group of each list, defined without its losses.
    alpha, delta, method, seed: as in learn_then_test; delta is for all groups together.

  Returns:
    {group: Certificate}, each with its own n and delta / G.

  Raises:
    ValueError: groups are not [N], or as learn_then_test.
  """
  losses = _check_losses(losses)
  _check_open_unit('delta', delta)
  groups = np.asarray(groups)
  if groups.shape != losses.shape[:1]:
    raise ValueError(f'groups must be [N] = {losses.shape[:1]}, got {groups.shape}')
  names = np.unique(groups)
  return {name.item(): learn_then_test(losses[groups == name], alpha, delta / len(names),
                                       method=method, seed=seed) for name in names}


def conformal_risk_control(losses: np.ndarray, alpha: float) -> int | None:
  """The least demanding m with n/(n+1) mean_i l[i, m] + 1/(n+1) <= alpha; None if there is none.

  A weaker promise than learn_then_test: E[l[n+1, chosen]] <= alpha, on average over calibration
  sets and the next list (None counted as no loss). R_chosen itself is above alpha for a large share
  of calibration sets, towards half of them for many lists and closely spaced points.

  The bound needs losses that do not rise towards the safe side. Others are made so first, by each
  list's greatest loss at m or at any safer point, which bounds its loss from above.

  Args:
    losses: [N, M] in [0, 1], all labels of each list known; column M - 1 is the safest.
    alpha: bound on the expected loss, in (0, 1).

  Returns:
    The index m, or None.

  Raises:
    ValueError: losses are not [N, M] in [0, 1], or alpha is not in (0, 1).

  Reference:
    Angelopoulos et al., Conformal risk control, 2022, arXiv:2208.02814.
  """
  losses = _check_losses(losses)
  _check_open_unit('alpha', alpha)
  monotone = np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]
  meets = monotone.sum(axis=0) + 1 <= alpha * (len(losses) + 1)
  return int(meets.argmax()) if meets.any() else None


def _check_losses(losses: np.ndarray) -> np.ndarray:
  losses = np.asarray(losses)
  if losses.ndim != 2 or 0 in losses.shape:
    raise ValueError(f'losses must be [N, M] with N, M >= 1, got shape {losses.shape}')
  return _unit_interval('losses', losses)


def _unit_interval(name: str, values: np.ndarray | float) -> np.ndarray:
  """In float64, clipped: probabilities in float32 may sum to a hair above 1."""
  values = np.asarray(values, np.float64)
  fits = (values >= -1e-6) & (values <= 1 + 1e-6)
  if not fits.all():
    raise ValueError(f'{name} must be in [0, 1] without nan, got {values[~fits][0]:g} '
                     f'({np.sum(~fits)} of {fits.size} lie outside)')
  return values.clip(0, 1)


def _check_open_unit(name: str, value: float) -> None:
  if not 0 < value < 1:
    raise ValueError(f'{name} must be in (0, 1), got {value}')
