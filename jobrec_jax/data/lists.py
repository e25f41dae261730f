"""Lists to rank: drawn once, hashed, and given to every system alike."""

import dataclasses
import hashlib

import numpy as np



@dataclasses.dataclass(frozen=True)
class RankingLists:
  """N lists of up to J pairs. Candidate-centred for preference, job-centred for qualification.

  Attributes:
    perspective: 'preference' or 'qualification'.
    candidate, job: [N, J] int32 indices of each pair.
    relevance: [N, J] bool, which pairs are positives.
    mask: [N, J] bool, False where a short list is padded.
  """

  perspective: str
  candidate: np.ndarray
  job: np.ndarray
  relevance: np.ndarray
  mask: np.ndarray

  def __len__(self) -> int:
    return len(self.candidate)

  def fingerprint(self) -> str:
    arrays = (self.candidate, self.job, self.relevance, self.mask)
    return hashlib.sha256(b''.join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()[:16]
