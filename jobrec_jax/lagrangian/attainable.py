"""What constraint value a bounded score can reach at all."""

import numpy as np

ROUNDING = 5.1e-5  # a limit that was read with four digits may lie so far outside


def attainable_range(low_scores: np.ndarray, high_scores: np.ndarray, q: np.ndarray,
                     mask: np.ndarray, temperature: float = 1.0) -> tuple[float, float]:
  """The least and greatest E_lists[sum_j pi_j q_j], pi = softmax(s / T), with s_j in its interval.

  Exact. Within a list the value is a ratio of functions linear in each weight exp(s_j / T), so it
  rises in s_j where q_j is above the value and falls where below: at the greatest value v every
  item with q_j > v takes its highest score and every item with q_j < v its lowest (the reverse at
  the least). Only J + 1 thresholds of the items sorted by q can be optimal; each is evaluated.

  Args:
    low_scores, high_scores: [N, J] bounds of each score, low <= high. For scores s_pref + lambda z
      with |lambda| <= m they are s_pref - m |z| and s_pref + m |z|.
    q: [N, J] what the constraint averages, e.g. qualification probabilities.
    mask: [N, J] bool, False where a short list is padded.
    temperature: T > 0.

  Returns:
    (least, greatest): means over the lists. Every value between is attainable too.

  Raises:
    ValueError: shapes differ, a list is empty, a bound is not finite or crossed, or T is not above
      0.

  Reference:
    Charnes and Cooper, Programming with linear fractional functionals, 1962.
  """
  low, high, q = (np.asarray(a, np.float64) for a in (low_scores, high_scores, q))
  mask = np.asarray(mask, bool)
  if not (low.ndim == 2 and low.shape == high.shape == q.shape == mask.shape):
    raise ValueError('low_scores, high_scores, q and mask must be [N, J] alike; got '
                     f'{low.shape}, {high.shape}, {q.shape} and {mask.shape}')
  if not (len(mask) and mask.any(axis=1).all()):
    raise ValueError('there must be lists, each with an unmasked item; '
                     f'{np.sum(~mask.any(axis=1))} of {len(mask)} have none')
  if not (np.isfinite(low[mask]).all() and np.isfinite(high[mask]).all()
          and np.isfinite(q[mask]).all() and (low <= high)[mask].all()):
    raise ValueError('scores and q must be finite, with low_scores <= high_scores')
  if not temperature > 0:
    raise ValueError(f'temperature must be above 0, got {temperature}')
  low = np.where(mask, low / temperature, -np.inf)
  high = np.where(mask, high / temperature, -np.inf)
  q = np.where(mask, q, q[mask].min())
  return float(-_greatest(low, high, -q).mean()), float(_greatest(low, high, q).mean())


def _greatest(low: np.ndarray, high: np.ndarray, q: np.ndarray) -> np.ndarray:
  """[N] the greatest mean of q in each list. Scores are logits, -inf where masked."""
  order = np.argsort(-q, axis=1, kind='stable')
  low, high, q = (np.take_along_axis(a, order, axis=1) for a in (low, high, q))
  # Shifted to be non-negative, q has a logarithm and the sums of q-weighted terms are stable too.
  least = q.min()
  with np.errstate(divide='ignore'):
    log_q = np.log(q - least)
  total = _log_sums(low, high)                                                     # [N, J + 1]
  weighted = _log_sums(low + log_q, high + log_q)                                  # [N, J + 1]
  return np.exp(weighted - total).max(axis=1) + least


def _log_sums(low: np.ndarray, high: np.ndarray) -> np.ndarray:
  """[N, J + 1] log(sum_{j<k} exp(high_j) + sum_{j>=k} exp(low_j)) for k = 0..J."""
  none = np.full((len(low), 1), -np.inf)
  prefix = np.logaddexp.accumulate(high, axis=1)
  suffix = np.logaddexp.accumulate(low[:, ::-1], axis=1)[:, ::-1]
  return np.logaddexp(np.concatenate([none, prefix], axis=1),
                      np.concatenate([suffix, none], axis=1))


def check_attainable(tau: float, attainable: tuple[float, float]) -> None:
  """Raises a ValueError that names tau and the range where tau lies outside of it.

  A limit rounded to four digits is taken for the limit itself.
  """
  least, greatest = attainable
  if not least - ROUNDING <= tau <= greatest + ROUNDING:
    raise ValueError(f'tau must lie in [{least:.6g}, {greatest:.6g}], all that any policy '
                     f'reaches on these lists and scores, got {tau:g}')
