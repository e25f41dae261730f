"""Candidates, a catalogue and an eligibility requirement in; ranked jobs with reasons out."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.schema.align import align
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.scoring.policy import Policy, eligibility

COLUMNS = ('rank', 'job', 'score', 'preference', 'p_qual', 'lambda')  # of `ranking_table`
_REMEMBERED = 4  # catalogues beside a recommender's own
_PAIRS = 2**20  # that `recommend` scores at a time
_eligibility = jax.jit(eligibility)


@dataclasses.dataclass(frozen=True)
class Recommendation:
  """One job of a ranking.

  Attributes:
    job_id: its id in the catalogue.
    score: the policy's logit `s = s_pref + lam z_qual`; jobs are ranked by it.
    preference: s_pref, a logit.
    qualification: p_qual, the calibrated probability of being qualified.
    lam: how far eligibility counts for this pair.
    reasons: for each layer of the schema with verdicts, its fields in words: met, unmet by how
      much, or unknown.
  """

  job_id: str
  score: float
  preference: float
  qualification: float
  lam: float
  reasons: dict[str, list[str]]


class RankedJobs(NamedTuple):
  """The best jobs, best first, and `C = sum_j pi_j p_qual_j` over the whole catalogue.

  `cut` counts the candidate, job and alignment blocks that were longer than the experts' lengths
  and lost tokens, over all candidates that were scored together.
  """

  jobs: tuple[Recommendation, ...]
  eligibility: float
  cut: dict[str, int]


class CandidateScores(NamedTuple):
  """N candidates against J jobs.

  Attributes:
    s_pref: [N, J] float32 preference logit.
    p_qual: [N, J] float32, the calibrated probability of being qualified.
    z_qual: [N, J] float32, its logit.
    lam: [N, J, K] float32, the policy's lambda at each of its knots; see `Policy.at`.
    cut: as in `RankedJobs`.
  """

  s_pref: np.ndarray
  p_qual: np.ndarray
  z_qual: np.ndarray
  lam: np.ndarray
  cut: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Recommender:
  """Ranks catalogues for candidates, neither of which training need have seen.

  A catalogue is validated, rendered and tokenised once (with factored attention also encoded) and
  serves any number of candidates: the recommender's own, and the last few others by their content.

  Attributes:
    schema: the domain's table.
    experts: what stage 1 left.
    calibration: b and t of `z_qual = (s_qual - b) / t`.
    policy: what stage 2 left.
    jobs: its own catalogue, which calls rank that bring none; its records must not change.
    mesh: the mesh to score on.
    settings: sizes of lists and batches.

  Raises:
    ValueError: from its calls: the catalogue is empty, a record does not fit the schema, a setting
      is out of range, tau lies beyond what the policy was trained for, or a score is not finite.
  """

  schema: Schema
  experts: Experts
  calibration: Calibration
  policy: Policy
  jobs: tuple[Entity, ...]
  mesh: jax.sharding.Mesh
  settings: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
  _catalogues: dict[str, '_Catalogue'] = dataclasses.field(
      default_factory=dict, init=False, repr=False, compare=False)

  def recommend(self, candidates: Entity | Sequence[Entity], tau: float, top_k: int = 5,
                jobs: Sequence[Entity] | None = None) -> list[RankedJobs]:
    """The best jobs for each candidate under the requirement `C >= tau`.

    Args:
      candidates: one or many; one is a list of one.
      tau: the eligibility asked for, a probability.
      top_k: how many jobs to return for each, at most.
      jobs: the catalogue to rank; its own without it.

    Returns:
      The ranking of each candidate, in their order.
    """
    if not (isinstance(top_k, int) and top_k > 0):
      raise ValueError(f'top_k must be an integer of at least 1, got {top_k!r}')
    if np.ndim(tau):
      raise ValueError(f'tau must be one number, got {tau!r}')
    self.policy.check(tau)
    candidates, catalogue = self._validated(candidates), self._catalogue(jobs)
    size = max(1, _PAIRS // len(catalogue.jobs))
    return [ranked for start in range(0, len(candidates), size)
            for ranked in self._ranked(candidates[start:start + size], catalogue, tau, top_k)]

  def score(self, candidates: Entity | Sequence[Entity],
            jobs: Sequence[Entity] | None = None) -> CandidateScores:
    """Scores of every candidate with every job of the catalogue, for any requirement."""
    return self._scored(self._validated(candidates), self._catalogue(jobs))

  def _validated(self, candidates: Entity | Sequence[Entity]) -> tuple[Entity, ...]:
    candidates = (candidates,) if isinstance(candidates, Entity) else tuple(candidates)
    if not candidates:
      raise ValueError('candidates must hold at least one candidate, got none')
    for candidate in candidates:
      self.schema.validate('candidate', candidate)
    return candidates

  def _catalogue(self, jobs: Sequence[Entity] | None) -> '_Catalogue':
    # By what is in it, for a list may be changed between calls, and 1 is rendered unlike 1.0.
    key = '' if jobs is None else repr([(j.id, dict(j.attributes)) for j in jobs])
    found = self._catalogues.pop(key, None) or self._read(self.jobs if jobs is None else jobs)
    self._catalogues[key] = found  # the last one used stands last
    others = [k for k in self._catalogues if k]
    for old in others[:-_REMEMBERED]:
      del self._catalogues[old]
    return found

  def _read(self, jobs: Sequence[Entity]) -> '_Catalogue':
    jobs = tuple(jobs)
    if not jobs:
      raise ValueError('the catalogue must hold at least one job, got none')
    for job in jobs:
      self.schema.validate('job', job)
    none = np.zeros(0, np.int32)
    blocks = self.experts.blocks(Dataset(self.schema, (), jobs, Interactions(*[none] * 6)))
    for other in self._catalogues.values():  # with the same parameters on the device
      return _Catalogue(jobs, other.scorer.with_blocks(blocks))
    return _Catalogue(jobs, PairScorer(self.experts, blocks, self.mesh, self.settings))

  def _scored(self, candidates: tuple[Entity, ...], catalogue: '_Catalogue') -> CandidateScores:
    blocks: BlockEncoder = catalogue.scorer.blocks.with_candidates(candidates)
    scorer = catalogue.scorer.with_blocks(blocks)
    found = scorer.policy_scores(self.policy, *np.indices((len(candidates), len(catalogue.jobs))))
    z_qual = np.asarray(self.calibration.logit(found.qualification), np.float32)
    return CandidateScores(found.preference, self.calibration.probability(found.qualification),
                           z_qual, found.lam, dict(blocks.cut))

  def _ranked(self, candidates: tuple[Entity, ...], catalogue: '_Catalogue', tau: float,
              top_k: int) -> Iterator[RankedJobs]:
    found = self._scored(candidates, catalogue)
    scores, lam = self.policy.at(found.lam, found.s_pref, found.z_qual, tau)
    for u, candidate in enumerate(candidates):
      best = np.argsort(-scores[u], kind='stable')[:top_k]
      yield RankedJobs(tuple(
          Recommendation(catalogue.jobs[j].id, float(scores[u, j]), float(found.s_pref[u, j]),
                         float(found.p_qual[u, j]), float(lam[u, j]),
                         _reasons(self.schema, candidate, catalogue.jobs[j])) for j in best),
          self._expected(scores[u], found.z_qual[u]), found.cut)

  def _expected(self, scores: np.ndarray, z_qual: np.ndarray) -> float:
    """C of one candidate's list [J]."""
    # As long as a power of two, so that catalogues share few programs.
    J = len(scores)
    rows = np.zeros((2, 1, 1 << (J - 1).bit_length()), np.float32)
    rows[0, 0, :J], rows[1, 0, :J] = scores, z_qual
    return float(_eligibility(*rows, np.arange(rows.shape[2])[None] < J,
                              self.policy.temperature)[0])


class _Catalogue(NamedTuple):
  """Jobs, and a scorer that has read them."""

  jobs: tuple[Entity, ...]
  scorer: PairScorer


def _reasons(schema: Schema, candidate: Entity, job: Entity) -> dict[str, list[str]]:
  layers = align(schema, candidate, job).layers
  return {l.layer.name: l.reasons() for l in layers if l.reasons()}


def ranking_table(ranked: RankedJobs, tau: float, policy: Policy) -> str:
  """The ranking as aligned text, each job's reasons below it, and what of tau the policy heeds."""
  rows = [(str(i + 1), j.job_id, f'{j.score:.3f}', f'{j.preference:.3f}',
           f'{j.qualification:.3f}', f'{j.lam:.3f}') for i, j in enumerate(ranked.jobs)]
  widths = [max(map(len, column)) for column in zip(COLUMNS, *rows)]

  def line(cells: Sequence[str]) -> str:
    return '  '.join(c.ljust(w) if name == 'job' else c.rjust(w)
                     for name, c, w in zip(COLUMNS, cells, widths))
  lines = [line(COLUMNS)]
  for row, job in zip(rows, ranked.jobs):
    lines.append(line(row))
    name_width = max(map(len, job.reasons), default=0)
    lines += [f'{"":{widths[0]}}  {name.ljust(name_width)}  {", ".join(words)}'
              for name, words in job.reasons.items()]
  asked = f'asked for {tau:.6g}' if tau else 'no requirement'
  if 0 < tau < policy.knots[0] and policy.constraint == 'inequality':
    asked += f', but below {policy.knots[0]:.4g} nothing is required'
  lines.append(f'Eligibility C of the whole list: {ranked.eligibility:.3f} ({asked})')
  return '\n'.join(lines)
