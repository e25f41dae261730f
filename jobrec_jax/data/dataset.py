"""What every source of data becomes: entities, interactions labelled by perspective, splits.

Ground truth (`Truth`) is an object of its own, so that nothing that reads a `Dataset` can see it.
"""

import dataclasses
import hashlib

import numpy as np

from jobrec_jax.schema.schema import Entity, Schema

SPLITS = ('train', 'validation', 'calibration', 'test')
TEST_KINDS = ('warm', 'cold_candidates', 'cold_jobs', 'both_cold')  # cold: not in train's log
UNOBSERVED = -1
NOT_EXPOSED, NOT_APPLIED, REJECTED, ACCEPTED = range(4)
FUNNEL = ('not_exposed', 'exposed_not_applied', 'applied_rejected', 'applied_accepted')


@dataclasses.dataclass(frozen=True)
class Interactions:
  """Observed candidate-job pairs. All arrays are [N].

  Attributes:
    candidate, job: int32 indices into the dataset's entities.
    preference: int8; 1 wanted (applied), 0 exposed and not applied, -1 unobserved.
    qualification: int8; 1 accepted, 0 rejected, -1 unobserved (never a rejection).
    split: int8 index into `SPLITS`.
    exposure: float32 propensity with which the logging policy showed the pair; 1 where unknown.
  """

  candidate: np.ndarray
  job: np.ndarray
  preference: np.ndarray
  qualification: np.ndarray
  split: np.ndarray
  exposure: np.ndarray

  def __len__(self) -> int:
    return len(self.candidate)

  def where(self, keep: np.ndarray) -> 'Interactions':
    return Interactions(*(getattr(self, f.name)[keep] for f in dataclasses.fields(self)))

  def of(self, split: str) -> 'Interactions':
    """The rows of a split, or those of the test that are of one of `TEST_KINDS`."""
    if split in SPLITS:
      return self.where(self.split == SPLITS.index(split))
    train = self.split == SPLITS.index('train')
    cold_candidate, cold_job = (~np.isin(x, x[train]) for x in (self.candidate, self.job))
    kind = cold_candidate + 2 * cold_job
    return self.where((self.split == SPLITS.index('test')) & (kind == TEST_KINDS.index(split)))


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Entities, interactions and the splits of a domain.

  Attributes:
    schema: the domain's table.
    candidates, jobs: records; interactions refer to them by index.
    interactions: the log, each row in exactly one split.
    notes: what a reader skipped or changed, in words, with counts.
  """

  schema: Schema
  candidates: tuple[Entity, ...]
  jobs: tuple[Entity, ...]
  interactions: Interactions
  notes: tuple[str, ...] = ()

  def fingerprint(self) -> str:
    """A hash of records and interactions, so that cached or frozen things know their data."""
    h = hashlib.sha256(self.schema.fingerprint().encode())
    for side, entities in (('candidate', self.candidates), ('job', self.jobs)):
      names = [a.name for a in self.schema.attributes(side)]
      for entity in entities:
        h.update(repr((entity.id, [entity[name] for name in names])).encode())
    for field in dataclasses.fields(self.interactions):
      h.update(np.ascontiguousarray(getattr(self.interactions, field.name)).tobytes())
    return h.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Truth:
  """What only a simulator knows. All arrays are [candidates, jobs], or of the pairs asked for.

  Attributes:
    preference, qualification: float32 probabilities P and Q given the attributes.
    wants, eligible: bool, the latent outcomes drawn from them.
    application: float32 probability that an exposed candidate applies.
  """

  preference: np.ndarray
  qualification: np.ndarray
  wants: np.ndarray
  eligible: np.ndarray
  application: np.ndarray


def pair_code(candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
  """One int64 for each pair, in the order of (candidate, job); indices lie in [0, 2^31)."""
  return np.asarray(candidate, np.int64) << 32 | job


def from_funnel(candidate: np.ndarray, job: np.ndarray, state: np.ndarray, split: np.ndarray,
                exposure: np.ndarray) -> Interactions:
  """The observed part of a funnel: exposed pairs that belong to a split.

  Args:
    candidate, job: [N] indices of pairs.
    state: [N] index into `FUNNEL`.
    split: [N] index into `SPLITS`, -1 for none.
    exposure: [N] propensity of exposure.

  Returns:
    Interactions with preference = applied, and qualification = accepted for applicants alone.
  """
  qualification = np.select([state == REJECTED, state == ACCEPTED], [0, 1], UNOBSERVED)
  log = Interactions(candidate.astype(np.int32), job.astype(np.int32),
                     (state >= REJECTED).astype(np.int8), qualification.astype(np.int8),
                     split.astype(np.int8), exposure.astype(np.float32))
  return log.where((state != NOT_EXPOSED) & (split >= 0))
