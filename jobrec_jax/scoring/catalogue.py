"""A catalogue as it is scored: distinct jobs, and what has been read of them."""

from collections.abc import Collection, Sequence
import difflib
from typing import NamedTuple

import numpy as np

from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.unmatched import Vocabulary
from jobrec_jax.scoring.features import PairScorer


class ReadCatalogue(NamedTuple):
  """Jobs, and a scorer that has read them.

  Attributes:
    jobs: [D] distinct ones.
    ids: of each, its own and those of its copies.
    at: [J] which of them each job that was given is.
    words: of the jobs, by field.
    scorer: of the distinct jobs.
  """

  jobs: tuple[Entity, ...]
  ids: list[list[str]]
  at: np.ndarray
  words: Vocabulary
  scorer: PairScorer | None = None

  def _known(self) -> dict[str, int]:
    return {name: j for j, names in enumerate(self.ids) for name in names}

  def index_of(self, job_id: str) -> int:
    known = self._known()
    if job_id not in known:
      near = difflib.get_close_matches(job_id, known, 1)
      raise ValueError(f'job must be one of the {len(self.at)} of the catalogue, got {job_id!r}'
                       + (f'; did you mean {near[0]!r}?' if near else ''))
    return known[job_id]

  def kept(self, without: Sequence[Collection[str]] | None, count: int) -> np.ndarray:
    """[count, D] bool, which jobs are not left out; with a copy goes the posting."""
    kept = np.ones((count, len(self.jobs)), bool)
    if without is not None and len(without) != count:
      raise ValueError(f'without must hold ids for each of {count} candidates, got {len(without)}')
    known = self._known()
    for u, names in enumerate(without or ()):
      kept[u, [known[name] for name in names if name in known]] = False
    return kept
