"""Candidates, a catalogue and an eligibility requirement in; ranked jobs with reasons out."""

from collections.abc import Collection, Iterator, Sequence
import dataclasses
from typing import Literal, NamedTuple

import jax
import numpy as np

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.tokens import BlockEncoder
from jobrec_jax.schema.copies import copies
from jobrec_jax.schema.explain import missing, reasons, unmet_requirements
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.schema.unmatched import unmatched, vocabulary
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.catalogue import ReadCatalogue
from jobrec_jax.scoring.experts import Experts, PairScores
from jobrec_jax.scoring.features import PairScorer, ScoringConfig
from jobrec_jax.scoring.policy import Alone, Policy
from jobrec_jax.scoring.shortlist import Asked, FirstStage, retrieve

DOUBTED = 0.5  # a greater p_qual contradicts a requirement that is not met
MISSED = 0.05  # a greater share of the best that a shortlist likely misses is told
_REMEMBERED = 4  # catalogues beside a recommender's own
_PAIRS = 2**20  # that `recommend` scores at a time
_HALVINGS = 30  # of the range of tau, where one is looked for


@dataclasses.dataclass(frozen=True)
class Recommendation:
  """One job of a ranking.

  Attributes:
    job_id: its id in the catalogue.
    title: what people know it by; its id where it has no title.
    score: the policy's logit, such as `s = s_pref + mu p_qual + lam z_qual`; jobs are ranked by it.
    preference: s_pref, a logit.
    qualification: p_qual, the calibrated probability of being qualified.
    lam: what stage 2 learned of this pair beside mu, which is alike for all; 0 where nothing. It is
      nan where one expert was trained alone, as is what the other would say.
    reasons: for each layer of the schema with verdicts, its fields in words: met, unmet by how
      much, or unknown, and which words are missing.
    copies: ids of the jobs of the catalogue that equal it in every attribute.
    contradicted: requirements of the schema that are unmet although p_qual is above `DOUBTED`.
  """

  job_id: str
  title: str
  score: float
  preference: float
  qualification: float
  lam: float
  reasons: dict[str, list[str]]
  copies: list[str]
  contradicted: list[str]


class RankedJobs(NamedTuple):
  """The best jobs, best first, and C, what tau binds in the mean; see `scoring.policy.Policy`.

  C is over the jobs that are left, each posting once; nan where none is, or no policy. `unread`
  names, by block, what the experts did not read to its end, over all candidates that were scored
  together. `notes` say what to know of the candidate. `scored` is how many of the jobs left were
  scored in full, and of how many; where they are not all, C is an estimate.
  """

  jobs: tuple[Recommendation, ...]
  eligibility: float
  unread: dict[str, str]
  notes: tuple[str, ...] = ()
  scored: tuple[int, int] = (0, 0)


@dataclasses.dataclass(frozen=True)
class RankedCandidate:
  """One candidate for a job.

  Attributes:
    candidate_id: its id.
    qualification: p_qual.
    preference: s_pref, a logit. It is learnt among the jobs of one candidate: between candidates it
      compares loosely.
    reasons, contradicted: as of a `Recommendation`.
    notes, unread: as of `RankedJobs`.
  """

  candidate_id: str
  qualification: float
  preference: float
  reasons: dict[str, list[str]]
  contradicted: list[str]
  notes: list[str]
  unread: dict[str, str]


class CandidateScores(NamedTuple):
  """N candidates against J jobs.

  Attributes:
    s_pref: [N, J] float32 preference logit.
    p_qual: [N, J] float32, the calibrated probability of being qualified.
    z_qual: [N, J] float32, its logit.
    lam: [N, J, K] float32, the policy's lambda at each of its knots; see `Policy.at`.
    unread: as in `RankedJobs`.
  """

  s_pref: np.ndarray
  p_qual: np.ndarray
  z_qual: np.ndarray
  lam: np.ndarray
  unread: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Recommender:
  """Ranks catalogues for candidates, neither of which training need have seen.

  A catalogue is validated, rendered and tokenised once (with factored attention also encoded) and
  serves any number of candidates: the recommender's own, and the last few others by their content.
  A posting that stands in it under several ids is ranked once, and counts once in C.

  Attributes:
    schema: the domain's table.
    experts: what stage 1 left.
    calibration: b and t of `z_qual = (s_qual - b) / t`.
    policy: what stage 2 left; or which expert was trained alone, whose order is then the ranking.
    jobs: its own catalogue, which calls rank that bring none; its records must not change.
    mesh: the mesh to score on.
    settings: sizes of lists and batches.
    missing: how many attributes 99% of the candidates lack at most as training saw them; None for
      no warning of those who lack more.

  Raises:
    ValueError: from its calls: the catalogue is empty, a record does not fit the schema, a setting
      is out of range, tau lies beyond what the policy was trained for, or a score is not finite.
  """

  schema: Schema
  experts: Experts
  calibration: Calibration
  policy: Policy | Alone
  jobs: tuple[Entity, ...]
  mesh: jax.sharding.Mesh
  settings: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
  missing: int | None = None
  _catalogues: dict[str, ReadCatalogue] = dataclasses.field(
      default_factory=dict, init=False, repr=False, compare=False)

  def recommend(self, candidates: Entity | Sequence[Entity], tau: float | None = None,
                top_k: int = 5, jobs: Sequence[Entity] | None = None,
                without: Sequence[Collection[str]] | None = None,
                shortlist: int | None = None) -> list[RankedJobs]:
    """The best jobs for each candidate under the requirement `C >= tau`.

    Args:
      candidates: one or many; one is a list of one.
      tau: the eligibility asked for, a probability; None where there is no policy.
      top_k: how many jobs to return for each, at most.
      jobs: the catalogue to rank; its own without it.
      without: of each candidate, ids of jobs to leave out, such as those applied to. Other ids
        than the catalogue's say nothing.
      shortlist: score so many jobs of each candidate in full, see `scoring.shortlist`; all without
        it, or where there are no more.

    Returns:
      The ranking of each candidate, in their order.
    """
    self._check_count(top_k)
    if shortlist is not None and not (isinstance(shortlist, int) and shortlist >= max(top_k, 2)):
      raise ValueError(f'shortlist must be an integer of at least top_k and 2, got {shortlist!r} '
                       f'with top_k {top_k}')
    if np.ndim(tau):
      raise ValueError(f'tau must be one number, got {tau!r}')
    self.policy.check(tau)
    candidates, catalogue = self._validated(candidates), self._catalogue(jobs)
    kept = catalogue.kept(without, len(candidates))
    if shortlist is not None and shortlist < len(catalogue.jobs):
      return list(self._retrieved(candidates, catalogue, kept, tau, top_k, shortlist))
    return [ranked for part in self._parts(len(candidates), len(catalogue.jobs))
            for ranked in self._ranked(candidates[part], catalogue, kept[part], tau, top_k)]

  def score(self, candidates: Entity | Sequence[Entity],
            jobs: Sequence[Entity] | None = None) -> CandidateScores:
    """Scores of every candidate with every job of the catalogue, for any requirement."""
    catalogue = self._catalogue(jobs)
    found = self._scored(self._validated(candidates), catalogue)
    if len(catalogue.at) == len(catalogue.jobs):  # no copies
      return found
    return CandidateScores(*(x[:, catalogue.at] for x in found[:4]), found.unread)

  def candidates_for(self, job_id: str, candidates: Entity | Sequence[Entity], top_k: int = 5,
                     jobs: Sequence[Entity] | None = None,
                     by: Literal['qualification', 'preference'] | None = None,
                     ) -> list[RankedCandidate]:
    """The best candidates for one job, best first.

    Args:
      job_id: which job of the catalogue.
      candidates: whom to rank.
      top_k: how many to return, at most.
      jobs: the catalogue that holds the job; its own without it.
      by: what ranks them, qualification without it, where that is trained; the policy has no say,
        for it ranks the jobs of a candidate.
    """
    self._check_count(top_k)
    by = self.policy.ranks_by(by)
    candidates, catalogue = self._validated(candidates), self._catalogue(jobs)
    j = catalogue.index_of(job_id)
    parts = [self._scored(candidates[part], catalogue, np.array([j]))
             for part in self._parts(len(candidates), 1)]
    unread = [part.unread for part in parts for _ in part.p_qual]
    pref, p_qual = (np.concatenate([getattr(p, name)[:, 0] for p in parts])
                    for name in ('s_pref', 'p_qual'))
    best = np.argsort(-(p_qual if by == 'qualification' else pref), kind='stable')[:top_k]
    job = catalogue.jobs[j]
    return [RankedCandidate(c.id, float(p_qual[u]), float(pref[u]), reasons(self.schema, c, job),
                            self._contradicted(c, job, p_qual[u]), list(self._notes(c, catalogue)),
                            unread[u])
            for u, c in ((u, candidates[u]) for u in best)]

  def resolve(self, candidates: Entity | Sequence[Entity], tau: float,
              jobs: Sequence[Entity] | None = None,
              without: Sequence[Collection[str]] | None = None) -> float:
    """The requirement at which the mean C of these candidates over this catalogue is tau.

    The policy's requirements are those of stage 2's lists. C moves with the length of a list, so
    that over another catalogue another of them reaches tau: it is found by halving their range.

    Args:
      candidates: of the population that tau is asked of; of very many, every so manieth is taken.
      tau: the mean C asked for.
      jobs, without: as of `recommend`.

    Returns:
      What to ask `recommend` for; 0 where C is tau or more without any requirement.

    Raises:
      ValueError: as from any call; or there is no policy, or its requirements do not reach tau.
    """
    if isinstance(self.policy, Alone):
      raise ValueError(f'a requirement can be resolved of a policy alone, and {self.policy}')
    candidates, catalogue = self._validated(candidates), self._catalogue(jobs)
    kept = catalogue.kept(without, len(candidates))
    some = np.linspace(0, len(candidates) - 1,
                       min(len(candidates), max(1, _PAIRS // len(catalogue.jobs)))).astype(int)
    some = some[kept[some].any(1)]
    if not len(some):
      raise ValueError('candidates must have jobs that are not left out, got none')
    found = self._scored(tuple(candidates[u] for u in some), catalogue)

    def reached(requirement: float) -> float:
      scores, _ = self.policy.at(found.lam, found.s_pref, found.z_qual, requirement)
      return float(self.policy.eligibility(scores, found.p_qual, kept[some]).mean())
    low, high = (float(knot) for knot in (self.policy.knots[0], self.policy.knots[-1]))
    least, most = reached(low), reached(high)
    if least >= tau and self.policy.constraint == 'inequality':
      return 0.0
    if not least <= tau <= most:
      raise ValueError(f'tau must lie in [{least:.4g}, {most:.4g}], what the policy reaches in the '
                       f'mean of {len(some)} candidates over {len(catalogue.jobs)} jobs, got {tau}')
    for _ in range(_HALVINGS):
      middle = (low + high) / 2
      low, high = (middle, high) if reached(middle) < tau else (low, middle)
    return high

  def _notes(self, candidate: Entity, catalogue: ReadCatalogue) -> tuple[str, ...]:
    """What to know before a candidate's scores are believed, in sentences."""
    notes, names = [], missing(self.schema, candidate)
    if self.missing is not None and len(names) > self.missing:
      notes.append(f'{len(names)} attributes are missing, and 99% of the candidates in training '
                   f'lack at most {self.missing}, so that the scores mean little: '
                   f'{", ".join(names)}')
    own = vocabulary(self.schema, 'candidate', [candidate])
    for field, words in unmatched(self.schema, candidate, catalogue.words).items():
      notes.append(f'{len(words)} of {len(own[field])} {field} meet no word of the jobs: '
                   f'{", ".join(words)}')
    return tuple(notes)

  def _validated(self, candidates: Entity | Sequence[Entity]) -> tuple[Entity, ...]:
    candidates = (candidates,) if isinstance(candidates, Entity) else tuple(candidates)
    if not candidates:
      raise ValueError('candidates must hold at least one candidate, got none')
    return tuple(self.schema.validate('candidate', candidate) for candidate in candidates)

  def _check_count(self, top_k: int) -> None:
    if not (isinstance(top_k, int) and top_k > 0):
      raise ValueError(f'top_k must be an integer of at least 1, got {top_k!r}')

  def _parts(self, count: int, jobs: int) -> list[slice]:
    """Of that many candidates, who are scored together."""
    size = max(1, _PAIRS // jobs)
    return [slice(start, start + size) for start in range(0, count, size)]

  def _catalogue(self, jobs: Sequence[Entity] | None) -> ReadCatalogue:
    # By what is in it, for a list may be changed between calls, and 1 is rendered unlike 1.0.
    key = '' if jobs is None else repr([(j.id, dict(j.attributes)) for j in jobs])
    found = self._catalogues.pop(key, None) or self._read(self.jobs if jobs is None else jobs)
    self._catalogues[key] = found  # the last one used stands last
    others = [k for k in self._catalogues if k]
    for old in others[:-_REMEMBERED]:
      del self._catalogues[old]
    return found

  def _read(self, jobs: Sequence[Entity]) -> ReadCatalogue:
    jobs = tuple(self.schema.validate('job', job) for job in jobs)
    if not jobs:
      raise ValueError('the catalogue must hold at least one job, got none')
    first = np.arange(len(jobs))
    for rows in copies(self.schema, 'job', jobs):
      first[list(rows)] = rows[0]
    kept, at = np.unique(first, return_inverse=True)
    ids: list[list[str]] = [[] for _ in kept]
    for job, d in zip(jobs, at):
      ids[d].append(job.id)
    jobs = tuple(jobs[i] for i in kept)
    none = np.zeros(0, np.int32)
    blocks = self.experts.blocks(Dataset(self.schema, (), jobs, Interactions(*[none] * 6)))
    found = ReadCatalogue(jobs, ids, at, vocabulary(self.schema, 'job', jobs))
    for other in self._catalogues.values():  # with the same parameters on the device
      return found._replace(scorer=other.scorer.with_blocks(blocks))
    return found._replace(scorer=PairScorer(self.experts, blocks, self.mesh, self.settings))

  def _scored(self, candidates: tuple[Entity, ...], catalogue: ReadCatalogue,
              which: np.ndarray | None = None) -> CandidateScores:
    """Scores with the distinct jobs of the catalogue, or with those of them in `which`."""
    blocks: BlockEncoder = catalogue.scorer.blocks.with_candidates(candidates)
    scorer = catalogue.scorer.with_blocks(blocks)
    which = np.arange(len(catalogue.jobs)) if which is None else which
    pairs = np.meshgrid(np.arange(len(candidates)), which, indexing='ij')
    found = self.policy.scored(scorer, *pairs)
    z_qual = np.asarray(self.calibration.logit(found.qualification), np.float32)
    with np.errstate(invalid='ignore'):  # nan without that expert
      p_qual = self.calibration.probability(found.qualification)
    return CandidateScores(found.preference, p_qual, z_qual, found.lam, dict(blocks.unread))

  def _ranked(self, candidates: tuple[Entity, ...], catalogue: ReadCatalogue, kept: np.ndarray,
              tau: float, top_k: int) -> Iterator[RankedJobs]:
    found = self._scored(candidates, catalogue)
    scores, lam = self.policy.at(found.lam, found.s_pref, found.z_qual, tau)
    for u, candidate in enumerate(candidates):
      left = np.flatnonzero(kept[u])
      yield RankedJobs(
          self._best(candidate, catalogue, left, top_k, scores[u], found.s_pref[u],
                     found.p_qual[u], lam[u]),
          self._expected(scores[u, left], found.p_qual[u, left]), found.unread,
          self._notes(candidate, catalogue), (len(left),) * 2)

  def _retrieved(self, candidates: tuple[Entity, ...], catalogue: ReadCatalogue, kept: np.ndarray,
                 tau: float, top_k: int, shortlist: int) -> Iterator[RankedJobs]:
    blocks = catalogue.scorer.blocks.with_candidates(candidates)
    scorer = catalogue.scorer.with_blocks(blocks)
    for u, candidate in enumerate(candidates):
      if kept[u].sum() <= shortlist:  # nothing to choose
        yield from self._ranked((candidate,), catalogue, kept[[u]], tau, top_k)
        continue

      def score(jobs: np.ndarray, u: int = u) -> PairScores:
        return self.policy.scored(scorer, np.full(len(jobs), u), jobs)
      found = retrieve(FirstStage(self.experts, blocks, u), kept[u],
                       Asked(self.policy, self.calibration, tau), shortlist, top_k, score)
      full, notes = np.flatnonzero(found.full), self._notes(candidate, catalogue)
      if found.missed > MISSED * top_k:
        notes += (f'of the best {top_k} jobs about {found.missed:.1f} may be among those that were '
                  'not scored in full',)
      yield RankedJobs(
          self._best(candidate, catalogue, full, top_k, found.scores, found.preference,
                     found.p_qual, found.lam),
          found.eligibility, dict(blocks.unread), notes, (len(full), int(kept[u].sum())))

  def _best(self, candidate: Entity, catalogue: ReadCatalogue, left: np.ndarray, top_k: int,
            scores: np.ndarray, s_pref: np.ndarray, p_qual: np.ndarray,
            lam: np.ndarray) -> tuple[Recommendation, ...]:
    """The best of the jobs `left`; scores and the like are [D] of one candidate."""
    best = left[np.argsort(-scores[left], kind='stable')[:top_k]]
    return tuple(self._recommendation(candidate, catalogue, j, score=scores[j],
                                      preference=s_pref[j], qualification=p_qual[j], lam=lam[j])
                 for j in best)

  def _recommendation(self, candidate: Entity, catalogue: ReadCatalogue, j: int,
                      **numbers: float) -> Recommendation:
    job = catalogue.jobs[j]
    numbers = {name: float(x) for name, x in numbers.items()}
    return Recommendation(
        job.id, self.schema.title_of(job), reasons=reasons(self.schema, candidate, job),
        copies=catalogue.ids[j][1:],
        contradicted=self._contradicted(candidate, job, numbers['qualification']), **numbers)

  def _contradicted(self, candidate: Entity, job: Entity, p_qual: float) -> list[str]:
    return unmet_requirements(self.schema, candidate, job) if p_qual > DOUBTED else []

  def _expected(self, scores: np.ndarray, p_qual: np.ndarray) -> float:
    """C of one candidate's list [J]; nan of an empty one."""
    if not len(scores) or isinstance(self.policy, Alone):
      return float('nan')
    return float(self.policy.eligibility(scores[None], p_qual[None],
                                         np.ones((1, len(scores)), bool))[0])
