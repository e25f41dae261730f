"""The policy: one ranking rule for every requirement, and the eligibility C that it expects."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit, softmax

from jobrec_jax.data.lists import RankingLists
from jobrec_jax.lagrangian.attainable import ROUNDING
from jobrec_jax.lagrangian.top_k import mean_of_best
from jobrec_jax.models.policy import HeadKind, PolicyHead, at_requirement, policy_scores
from jobrec_jax.objectives.expected_surplus import expected_surplus
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import ExpertFeatures, PairScores

if TYPE_CHECKING:
  from jobrec_jax.scoring.features import PairScorer

PyTree = Any
CONSTRAINTS = ('inequality', 'equality')
WORTHS = ('preference', 'surplus')


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


def probabilities(scores: jax.Array, mask: jax.Array, temperature: float) -> jax.Array:
  """`pi = softmax(s / T)` over the real pairs of each list: [..., J] -> [..., J], 0 at padding."""
  return jax.nn.softmax(jnp.where(mask, scores / temperature, -jnp.inf), axis=-1)


def eligibility(scores: jax.Array, z_qual: jax.Array, mask: jax.Array,
                temperature: float) -> jax.Array:
  """`C_l = sum_j pi_j p_qual_j` of each list, `pi = softmax(s / T)`: [N, J] -> [N]."""
  return (probabilities(scores, mask, temperature) * jax.nn.sigmoid(z_qual)).sum(-1)


def worth_of(worth: str, preference: np.ndarray, z_qual: np.ndarray) -> np.ndarray:
  """a of pairs [...], what a policy's score has beside its requirement; see `Policy.worth`."""
  if worth == 'preference':
    return preference
  return expected_surplus(preference, expit(np.asarray(z_qual, np.float64)))


def worth_inputs(worth: str, inputs: PolicyInputs) -> PolicyInputs:
  """Stage 2's lists with a in the place of s_pref."""
  if worth == 'preference':
    return inputs
  worths = worth_of(worth, np.asarray(inputs.preference), np.asarray(inputs.z_qual))
  return inputs.replace(preference=jnp.asarray(worths, jnp.float32))


def head_scores(head: PolicyHead, params: PyTree, inputs: PolicyInputs,
                tilts: jax.Array) -> jax.Array:
  """[K, N, J] policy scores at each requirement of the head, whose mu are `tilts` [K]."""
  lam = head_lambda(head, params, inputs.hidden)
  return jax.vmap(policy_scores, (None, -1, None, 0))(inputs.preference, lam, inputs.z_qual, tilts)


def head_lambda(head: PolicyHead, params: PyTree, hidden: jax.Array) -> jax.Array:
  """lambda at each requirement of the head: hidden [..., E, D] -> [..., K]."""
  return head.apply({'params': params}, hidden[..., 0, :], hidden[..., 1, :])


compiled_lambda = jax.jit(head_lambda, static_argnums=0)


class Tilts(NamedTuple):
  """mu(tau), the multiplier of p_qual in the policy's score, linear between requirements.

  Attributes:
    taus: [M] requirements, ascending.
    mu: [M] of each.
  """

  taus: np.ndarray
  mu: np.ndarray

  def at(self, tau: float | np.ndarray) -> np.ndarray:
    """mu at requirements of any shape; beyond an end it is that end's."""
    return np.interp(tau, self.taus, self.mu)


NO_TILTS = Tilts(np.zeros(1), np.zeros(1))


@dataclasses.dataclass(frozen=True)
class Policy:
  """One policy for every requirement tau: s = a + mu p_qual + lambda z_qual, of pairs.

  a is s_pref, or the surplus that both experts expect. mu and lambda depend on tau; mu alone is the
  exact dual's policy, lambda alone (mu = 0) the published one. tau binds C, the mean over lists of
  `sum_j pi_j p_qual_j` with `pi = softmax(s / T)`, or of the mean p_qual of the `top_k` best.

  Attributes:
    head, params: a head of K outputs, for lambda.
    knots: [K] the requirements that it was trained for, ascending. The first asks for nothing under
      'inequality': there lambda is what it is for every smaller tau.
    temperature: T, as in training; C is what was asked for at this T alone.
    constraint: 'inequality' or 'equality'.
    tilts: mu at every requirement, solved so that C is what was asked for on stage 2's lists.
    top_k: how many jobs of a list tau binds; 0 for all, by their chance.
    worth: of 'preference', a = s_pref, or 'surplus', a = p_qual log(1 + exp(s_pref)).

  Raises:
    ValueError: a field holds what is not allowed.
  """

  head: PolicyHead
  params: PyTree
  knots: np.ndarray
  temperature: float
  constraint: str = 'inequality'
  tilts: Tilts = NO_TILTS
  top_k: int = 0
  worth: str = 'preference'

  def __post_init__(self):
    knots = np.asarray(self.knots)
    if knots.shape != (self.head.outputs,) or not (np.isfinite(knots).all()
                                                   and (np.diff(knots) > 0).all()):
      raise ValueError(f'knots must be {self.head.outputs} finite numbers, ascending, one for each '
                       f'output of the head; got {knots.tolist()}')
    if self.head.kind not in get_args(HeadKind):
      raise ValueError(f'head must be one of {get_args(HeadKind)}, got {self.head.kind!r}')
    T = self.temperature
    if isinstance(T, str) or not 0 < T < math.inf:
      raise ValueError(f'temperature must be a finite number above 0, got {T!r}')
    if self.constraint not in CONSTRAINTS:
      raise ValueError(f'constraint must be one of {CONSTRAINTS}, got {self.constraint!r}')
    if self.worth not in WORTHS:
      raise ValueError(f'worth must be one of {WORTHS}, got {self.worth!r}')
    if not (isinstance(self.top_k, int) and self.top_k >= 0):
      raise ValueError(f'top_k must be an integer of at least 0, got {self.top_k!r}')
    taus, mu = map(np.asarray, self.tilts)
    if not (taus.ndim == 1 and taus.shape == mu.shape and len(taus)
            and np.isfinite([taus, mu]).all() and (np.diff(taus) > 0).all()):
      raise ValueError('tilts must be ascending requirements and a finite multiplier for each, got '
                       f'{taus.tolist()} and {mu.tolist()}')

  def check(self, tau: float | np.ndarray | None) -> None:
    """Raises a ValueError that names tau and the trained range where a tau lies outside of it.

    A limit rounded to four digits, as it is printed, is taken for the limit itself.
    """
    if tau is None:
      raise ValueError('tau must be the eligibility asked for, a probability, got none')
    free = self.constraint == 'inequality'
    low = 0.0 if free else self.knots[0] - ROUNDING
    for t in np.ravel(tau):
      if t < 0:
        raise ValueError(f'tau must be at least 0, which asks for nothing, got {t:.6g}')
      if not low <= t <= self.knots[-1] + ROUNDING:
        raise ValueError(f'tau must lie in the range that the policy was trained for, '
                         f'[{self.knots[0]:.4g}, {self.knots[-1]:.4g}]'
                         + (', or below it to ask for nothing' if free else '')
                         + f'; got {t:.6g}')

  def at(self, lam: np.ndarray, preference: np.ndarray, z_qual: np.ndarray,
         tau: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Policy scores and lambda of pairs at one requirement or at several, on the host.

    `s = a + mu p_qual + lambda z_qual` with lambda linear in tau between the two knots around it,
    as `models.policy.at_requirement` reads it.

    Args:
      lam: [..., K] lambda at the knots, e.g. of `PairScorer.policy_scores`.
      preference: [...] s_pref.
      z_qual: [...] calibrated qualification logit.
      tau: a number, or [T] of them.

    Returns:
      s and lambda, float32: [...] each, or [T, ...] for [T] requirements.

    Raises:
      ValueError: a tau lies beyond what the policy was trained for, or an input is not finite.
    """
    self.check(tau)
    lam, preference, z_qual = (np.asarray(x, np.float32) for x in (lam, preference, z_qual))
    for name, x in (('lam', lam), ('preference', preference), ('z_qual', z_qual)):
      if not np.isfinite(x).all():
        raise ValueError(f'{name} must be finite, got {np.sum(~np.isfinite(x))} of {x.size} '
                         'numbers that are not')
    corners = np.eye(len(self.knots))
    weights = np.stack([np.interp(tau, self.knots, c) for c in corners], -1)       # [K] or [T, K]
    lam = np.tensordot(weights.astype(np.float32), lam, (-1, -1))
    mu = self.tilts.at(tau).reshape(np.shape(tau) + (1,) * preference.ndim)
    # In float64, for mu may be great.
    scores = worth_of(self.worth, preference, z_qual) + (
        lam * z_qual + mu * expit(z_qual.astype(np.float64)))
    return scores.astype(np.float32), lam

  def eligibility(self, scores: np.ndarray, q: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """C of each list, what tau binds: believed where q is p_qual, true where it is Q.

    Args:
      scores: [N, J] of the policy.
      q: [N, J] probabilities.
      mask: [N, J] bool, False where a list is padded; each list has an item.

    Returns:
      [N] float64.
    """
    if self.top_k:
      return mean_of_best(scores, q, mask, self.top_k)
    logits = np.where(mask, np.asarray(scores, np.float64) / self.temperature, -np.inf)
    return (softmax(logits, axis=-1) * np.where(mask, q, 0.0)).sum(-1)

  def score(self, features: ExpertFeatures, calibration: Calibration,
            tau: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `at`, from hidden states; the head runs once, whatever the number of requirements."""
    self.check(tau)
    lam = np.asarray(compiled_lambda(self.head, self.params, features.hidden))
    return self.at(lam, features.preference, calibration.logit(features.qualification), tau)

  def scores_at(self, inputs: PolicyInputs, tau: float) -> jax.Array:
    """[N, J] policy scores of stage 2's lists."""
    inputs = worth_inputs(self.worth, inputs)
    lam = at_requirement(head_lambda(self.head, self.params, inputs.hidden),
                         jnp.asarray(self.knots, jnp.float32), tau)
    return policy_scores(inputs.preference, lam, inputs.z_qual, float(self.tilts.at(tau)))

  def scored(self, scorer: 'PairScorer', candidate: np.ndarray, job: np.ndarray) -> PairScores:
    """What a scorer says of pairs [...], with lambda at every knot."""
    return scorer.policy_scores(self, candidate, job)

  def ranks_by(self, by: str | None) -> str:
    """Which expert ranks candidates for a job: the one asked for, else qualification.

    Raises:
      ValueError: there is no such expert.
    """
    if by not in (None, *PERSPECTIVES):
      raise ValueError(f"by must be 'qualification' or 'preference', got {by!r}")
    return by or 'qualification'


@dataclasses.dataclass(frozen=True)
class Alone:
  """What stands in a policy's place where the log teaches one expert alone: its order is the rank.

  Attributes:
    perspective: of the expert.
    why: what the log lacks for the other one, as a clause.
  """

  perspective: str
  why: str

  def __str__(self) -> str:
    return f'the {self.perspective} expert alone was trained and no policy, for {self.why}'

  def check(self, tau: float | None) -> None:
    """Raises ValueError: something is required."""
    if tau is not None and not tau == 0:
      raise ValueError(f'tau must be left out, for {self}; got {tau:.6g}')

  def at(self, lam: np.ndarray, preference: np.ndarray, z_qual: np.ndarray,
         tau: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The expert's logits [...], and nan for lambda; as `Policy.at`."""
    self.check(tau)
    scores = np.asarray(preference if self.perspective == 'preference' else z_qual, np.float32)
    return scores, np.full(scores.shape, np.nan, np.float32)

  def scored(self, scorer: 'PairScorer', candidate: np.ndarray, job: np.ndarray) -> PairScores:
    """What a scorer says of pairs [...]; nan for the other expert, which knows nothing."""
    found = scorer.scores(candidate, job)
    nothing = {name: np.full(found.preference.shape, np.nan, np.float32) for name in PERSPECTIVES
               if name != self.perspective}
    return dataclasses.replace(found, lam=np.zeros((*found.preference.shape, 0), np.float32),
                               **nothing)

  def ranks_by(self, by: str | None) -> str:
    """The one expert; raises as `Policy.ranks_by`."""
    if by not in (None, self.perspective):
      raise ValueError(f'by must be {self.perspective!r}, for {self}; got {by!r}')
    return self.perspective
