"""The policy: one ranking rule for every requirement, and the eligibility C that it expects."""

import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.models.policy import PolicyHead, at_requirement, policy_scores
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import ExpertFeatures

PyTree = Any


@struct.dataclass
class PolicyInputs:
  """Stage 2's lists as the frozen experts see them, computed once.

  Attributes:
    hidden: [N, J, E, D] readout states.
    preference: [N, J] s_pref.
    z_qual: [N, J] calibrated qualification logit.
    positive: [N] int32 index of each list's applied job.
    mask: [N, J] bool.
  """

  hidden: jax.Array
  preference: jax.Array
  z_qual: jax.Array
  positive: jax.Array
  mask: jax.Array


def policy_inputs(features: ExpertFeatures, lists: RankingLists,
                  calibration: Calibration) -> PolicyInputs:
  return PolicyInputs(
      jnp.asarray(features.hidden), jnp.asarray(features.preference),
      jnp.asarray(calibration.logit(features.qualification), jnp.float32),
      jnp.asarray(lists.relevance.argmax(1), jnp.int32), jnp.asarray(lists.mask))


def eligibility(scores: jax.Array, z_qual: jax.Array, mask: jax.Array,
                temperature: float) -> jax.Array:
  """`C_l = sum_j pi_j p_qual_j` of each list, `pi = softmax(s / T)`: [N, J] -> [N]."""
  pi = jax.nn.softmax(jnp.where(mask, scores / temperature, -jnp.inf), axis=-1)
  return (pi * jax.nn.sigmoid(z_qual)).sum(-1)


def head_scores(head: PolicyHead, params: PyTree, inputs: PolicyInputs) -> jax.Array:
  """[K, N, J] policy scores at each requirement of the head."""
  lam = head.apply({'params': params}, inputs.hidden[..., 0, :], inputs.hidden[..., 1, :])
  return jax.vmap(policy_scores, (None, -1, None))(inputs.preference, lam, inputs.z_qual)


@dataclasses.dataclass(frozen=True)
class Policy:
  """One policy for every requirement: s = s_pref + lambda(tau) z_qual.

  Attributes:
    head, params: a head of K outputs.
    knots: [K] the requirements that it was trained for, ascending. The first asks for nothing under
      'inequality': there lambda is what it is for every smaller tau.
    constraint: 'inequality' or 'equality'.
  """

  head: PolicyHead
  params: PyTree
  knots: np.ndarray
  constraint: str = 'inequality'

  def check(self, tau: float) -> None:
    """Raises a ValueError that names tau and the trained range where tau lies outside of it."""
    low = self.knots[0] if self.constraint == 'equality' else -np.inf
    if not low <= tau <= self.knots[-1]:
      raise ValueError(f'tau must lie in the range that the policy was trained for, '
                       f'[{self.knots[0]:.4g}, {self.knots[-1]:.4g}]'
                       + (', or below it to ask for nothing' if low < 0 else '')
                       + f'; got {tau:.6g}')

  def score(self, features: ExpertFeatures, calibration: Calibration,
            tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Policy scores and lambda of pairs of any shape [...], on the host.

    Raises:
      ValueError: tau lies beyond what the policy was trained for.
    """
    self.check(tau)
    lam = np.asarray(at_requirement(
        self.head.apply({'params': self.params}, features.hidden[..., 0, :],
                        features.hidden[..., 1, :]), jnp.asarray(self.knots, jnp.float32), tau))
    return policy_scores(features.preference, lam, calibration.logit(features.qualification)), lam

  def scores_at(self, inputs: PolicyInputs, tau: float) -> jax.Array:
    """[N, J] policy scores of stage 2's lists."""
    scores = head_scores(self.head, self.params, inputs)
    # s is linear in lambda, so that it may be read between the knots itself.
    return at_requirement(jnp.moveaxis(scores, 0, -1), jnp.asarray(self.knots, jnp.float32), tau)
