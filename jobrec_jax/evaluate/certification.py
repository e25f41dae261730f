"""Certified eligibility: the least demanding tau whose true share of ineligible jobs is bounded.

Predicted eligibility is what an expert believes. A certificate rests on labels instead, and assumes
what `lagrangian.certificates` assumes of them: the lists and the lists at use are exchangeable, one
list a candidate, of candidates that neither experts nor calibration nor policy were fitted to; and
every label of a list is known. Labels of applicants alone break it: who doubts their eligibility
applies less, and what was applied to is not what is recommended, so that the losses seen are those
of something else. `prove` measures both.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Annotated, NamedTuple

import numpy as np

from jobrec_jax.evaluate.eligibility import (
    expected_eligibility,
    policy_probabilities,
    violation_rate_at_k,
)
from jobrec_jax.evaluate.values import probability
from jobrec_jax.lagrangian.certificates import (
    certify_groups,
    conformal_risk_control,
    learn_then_test,
)
from jobrec_jax.schema.settings import at_least, check, within

WHOLE = 'whole distribution'
LTT, CRC = 'learn then test', 'conformal risk control'


@dataclasses.dataclass(frozen=True)
class CertifyConfig:
  """What is certified, and how certificates are checked.

  Attributes:
    alpha: greatest risk, the share of ineligible jobs, in (0, 1).
    delta: probability in (0, 1) that a certificate is wrong, of each loss alone.
    k: jobs recommended, certified beside the whole distribution.
    points: values of tau that are tested.
    population: fresh candidates on whom certificates are checked.
    draws: calibration sets drawn from them.
    lists: lists in each set, one a candidate.

  Raises:
    ValueError: a setting lies outside its range.
  """

  alpha: Annotated[float, within(0, 1, open_low=True, open_high=True)] = 0.5
  delta: Annotated[float, within(0, 1, open_low=True, open_high=True)] = 0.1
  k: Annotated[int, at_least(1)] = 5
  points: Annotated[int, at_least(1)] = 20
  population: Annotated[int, at_least(1)] = 4000
  draws: Annotated[int, at_least(1)] = 200
  lists: Annotated[int, at_least(1)] = 200

  def __post_init__(self):
    check(self)
    if self.lists > self.population:
      raise ValueError(f'lists must be at most population = {self.population}, got {self.lists}')


def policy_losses(scores: np.ndarray, eligible: np.ndarray, mask: np.ndarray, k: int,
                  temperature: float = 1.0) -> dict[str, np.ndarray]:
  """The share of ineligible jobs in each list at each operating point.

  sum_j pi_j (1 - y_j), pi = softmax(s / T), for the whole distribution; for the top k the mean of
  1 - y_j, in expectation over random tie-breaking.

  Args:
    scores: [M, N, J] policy scores, M values of tau, ascending.
    eligible: [N, J] labels y, bool; or p_qual, for what the expert predicts of the same loss.
    mask: [N, J] bool, False where a list is padded.
    k: cut-off; a shorter list is judged on all of its items.
    temperature: T > 0.

  Returns:
    {'whole distribution': [N, M], 'top k': [N, M]} float64 in [0, 1].

  Raises:
    ValueError: shapes differ, a list has no item, eligible is not in [0, 1], k is below 1, T is not
      positive, or a score is not finite.
  """
  scores, eligible, mask = np.asarray(scores), np.asarray(eligible), np.asarray(mask, bool)
  if scores.ndim != 3 or not scores.shape[1:] == eligible.shape == mask.shape:
    raise ValueError('scores must be [M, N, J], eligible and mask [N, J], got '
                     f'{scores.shape}, {eligible.shape} and {mask.shape}')
  if not mask.any(1).all():
    raise ValueError(f'every list must have an item, got none in list {mask.any(1).argmin()}')
  probability('eligible', eligible, mask)
  whole = [1 - expected_eligibility(policy_probabilities(s, mask, temperature), eligible, mask)
           for s in scores]
  top = [violation_rate_at_k(s, eligible, mask, k) for s in scores]
  return {WHOLE: np.stack(whole, 1).clip(0, 1), f'top {k}': np.stack(top, 1).clip(0, 1)}


class CertifiedRow(NamedTuple):
  """One certificate. Eligibilities are 1 - loss at the chosen tau; None where none was chosen.

  Attributes:
    loss: 'whole distribution' or 'top k'.
    method: 'learn then test' or 'conformal risk control'.
    tau: the least demanding that is certified; None where none is.
    predicted: mean eligibility that the expert predicts on the calibration lists.
    observed: mean of their labels.
    true: of a population that the certificate has not seen; None where unknown.
    n: calibration lists.
  """

  loss: str
  method: str
  tau: float | None
  predicted: float | None
  observed: float | None
  true: float | None
  n: int


def certify(losses: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray],
            taus: np.ndarray, config: CertifyConfig,
            risks: Mapping[str, np.ndarray] | None = None) -> list[CertifiedRow]:
  """Certificates of every loss, by learn-then-test and by conformal risk control.

  The first holds for R(tau) with probability 1 - delta over calibration sets, of each loss alone:
  of two losses both hold with probability 1 - 2 delta at least (Bonferroni). The second bounds the
  expected loss of the next list alone, often at a smaller tau; see `lagrangian.certificates`.

  Args:
    losses: by name, [N, M] with all labels, from `policy_losses`; one list a candidate.
    predicted: by name, [N, M], the same with p_qual for labels.
    taus: [M] ascending, fixed before the lists were seen.
    config: alpha and delta.
    risks: by name, [M] true risks, where known.

  Returns:
    A row for each loss and method.
  """
  rows = []
  for loss, values in losses.items():
    for method in (LTT, CRC):
      m = _choose(method, values, config)
      risk = None if m is None or risks is None else float(risks[loss][m])
      chosen = (None,) * 3 if m is None else (
          float(taus[m]), 1 - float(predicted[loss][:, m].mean()), 1 - float(values[:, m].mean()))
      rows.append(CertifiedRow(loss, method, *chosen, None if risk is None else 1 - risk,
                               len(values)))
  return rows


class ProofRow(NamedTuple):
  """What many certificates of one kind came to, against a risk that is known.

  Attributes:
    loss, method: as in `CertifiedRow`.
    labels: whose labels the certificates saw, or the group that they are about.
    certified: share of draws that chose a tau.
    wrong: share of draws whose chosen tau has a true risk above alpha.
    claimed: mean loss seen at the chosen tau, over draws that chose; nan without any.
    true: mean true risk there.
    expected: mean true risk over all draws, 0 where none was chosen.
  """

  loss: str
  method: str
  labels: str
  certified: float
  wrong: float
  claimed: float
  true: float
  expected: float


def prove(losses: Mapping[str, np.ndarray], risks: Mapping[str, np.ndarray], config: CertifyConfig,
          seed: int, labels: str = 'all labels') -> list[ProofRow]:
  """Certifies many calibration sets, and compares what is promised with the known risk.

  Args:
    losses: by name, [N, M] of a population, as the certificates see them.
    risks: by name, [M] true risks of that population.
    config: draws sets of `lists` rows without replacement, at most N.
    seed: of the draws; the same ones for every loss and method.
    labels: named in the rows.

  Returns:
    A row for each loss and method.
  """
  rows = []
  for loss, values in losses.items():
    for method in (LTT, CRC):
      found = [(_choose(method, values[at], config), values[at].mean(0))
               for at in _draws(len(values), config, seed)]
      rows.append(_summary(loss, method, labels, found, risks[loss], config.alpha))
  return rows


def prove_groups(losses: np.ndarray, groups: np.ndarray, config: CertifyConfig, seed: int,
                 loss: str = WHOLE) -> list[ProofRow]:
  """`prove` for learn-then-test in every group at once, at level delta for all of them together.

  Args:
    losses: [N, M] of a population.
    groups: [N] group of each list, defined without its labels.
    config, seed: as in `prove`.
    loss: named in the rows.

  Returns:
    A row for each group, and 'any group', wrong where a draw is wrong for one of them.
  """
  risks = {g: losses[groups == g].mean(0) for g in np.unique(groups).tolist()}
  found = {g: [] for g in risks}
  for at in _draws(len(losses), config, seed):
    for g, c in certify_groups(losses[at], groups[at], config.alpha, config.delta).items():
      found[g].append((c.chosen, c.mean_losses))
  rows = [_summary(loss, LTT, g, found[g], risks[g], config.alpha) for g in risks]
  wrong = [any(m is not None and risks[g][m] > config.alpha for g, (m, _) in zip(risks, of_draw))
           for of_draw in zip(*found.values())]
  some = [any(m is not None for m, _ in of_draw) for of_draw in zip(*found.values())]
  return [*rows, ProofRow(loss, LTT, 'any group', float(np.mean(some)), float(np.mean(wrong)),
                          *(np.nan,) * 3)]


def wrong_at_most(config: CertifyConfig) -> float:
  """The share of wrong draws that a promise kept allows: delta and two standard errors."""
  return config.delta + 2 * np.sqrt(config.delta * (1 - config.delta) / config.draws)


def _choose(method: str, losses: np.ndarray, config: CertifyConfig) -> int | None:
  if method == LTT:
    return learn_then_test(losses, config.alpha, config.delta).chosen
  return conformal_risk_control(losses, config.alpha)


def _draws(n: int, config: CertifyConfig, seed: int) -> list[np.ndarray]:
  rng = np.random.default_rng(seed)
  return [rng.permutation(n)[:config.lists] for _ in range(config.draws)]


def _summary(loss: str, method: str, labels: str, found: Sequence[tuple[int | None, np.ndarray]],
             risks: np.ndarray, alpha: float) -> ProofRow:
  """Args: found: of each draw, the chosen point and the [M] mean losses that it saw."""
  chosen = [(seen[m], risks[m]) for m, seen in found if m is not None]
  seen, true = np.array(chosen).reshape(-1, 2).T
  claimed, mean = (seen.mean(), true.mean()) if chosen else (np.nan, np.nan)
  numbers = (len(chosen) / len(found), (true > alpha).sum() / len(found), claimed, mean,
             true.sum() / len(found))
  return ProofRow(loss, method, labels, *map(float, numbers))
