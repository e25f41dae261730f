"""Records without some of their attributes, so that training learns what missing means.

  r ~ Beta(a, 1), a = share / (1 - share)     of each version of a record; E[r] = share
  an attribute is missing with probability r

Most versions lack nothing or little, and a few lack nearly everything: records come like this, and
with one r for all, no model would ever see an empty one. A version is a record of its own behind
the others of its side. Whatever reads records, texts and alignments alike, sees the same one.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.dataset import SPLITS, Dataset
from jobrec_jax.data.training_lists import TrainingLists
from jobrec_jax.schema.schema import Attribute, Entity

VERSIONS = 8  # of a record; at a share of 0.1 some seven in ten lack nothing and take no room


class Versions(NamedTuple):
  """Versions of the records that training meets.

  Attributes:
    dataset: the whole records in their old places, and behind them the versions that lack some
      attribute. Each row of its train split is of some version; other rows are of whole records.
    candidate, job: [VERSIONS, records] int32, the place of each version in `dataset`; that of the
      whole record where it lacks nothing, and everywhere for records that training does not meet.
  """

  dataset: Dataset
  candidate: np.ndarray
  job: np.ndarray


def with_missing(dataset: Dataset, share: float, rng: np.random.Generator) -> Versions:
  """Draws what versions of the records lack; required attributes may be missing, too.

  Args:
    dataset: of which the records of the train split get versions.
    share: of the attributes, in [0, 1), that are missing in the mean of versions.
    rng: of all draws.
  """
  log = dataset.interactions
  train = log.split == SPLITS.index('train')
  entities, places, drawn = {}, {}, {}
  for side, whole in (('candidate', dataset.candidates), ('job', dataset.jobs)):
    seen = np.unique(getattr(log, side)[train])
    attributes = dataset.schema.attributes(side)
    gone = missing_at_random((VERSIONS, len(seen), len(attributes)), share, rng)
    entities[side] = list(whole)
    places[side] = np.tile(np.arange(len(whole), dtype=np.int32), (VERSIONS, 1))
    for v, row, version in _thinned(attributes, whole, seen, gone):
      places[side][v, row] = len(entities[side])
      entities[side].append(version)
    drawn[side] = getattr(log, side).copy()
    drawn[side][train] = places[side][rng.integers(VERSIONS, size=train.sum()), drawn[side][train]]
  return Versions(
      dataclasses.replace(dataset, candidates=tuple(entities['candidate']),
                          jobs=tuple(entities['job']),
                          interactions=dataclasses.replace(log, **drawn)),
      places['candidate'], places['job'])


def missing_at_random(shape: tuple[int, ...], share: float,
                      rng: np.random.Generator) -> np.ndarray:
  """Which attributes are missing: bool of a shape whose last axis are those of a version."""
  if not share:
    return np.zeros(shape, bool)
  rate = rng.random(shape[:-1]) ** ((1 - share) / share)  # Beta(a, 1) by its quantiles
  return rng.random(shape) < rate[..., None]


def missing_at_most(lacked: Sequence[int], attributes: int, share: float, part: float) -> int:
  """How many attributes a part of versions lack at most.

  Args:
    lacked: of each whole record, how many it lacks by itself.
    attributes: that there are.
    share: as of `with_missing`; 0: the records stay whole.
    part: of all versions, in (0, 1).
  """
  if not share or not len(lacked):
    return int(np.quantile(lacked if len(lacked) else [0], part, method='higher'))
  from scipy.stats import betabinom  # here, for it takes half a second to import
  own, records = np.unique(lacked, return_counts=True)
  more = np.arange(attributes + 1)[:, None] - own  # [at most so many in all, records alike]
  reached = betabinom.cdf(more, attributes - own, share / (1 - share), 1) @ records / len(lacked)
  return int(np.searchsorted(reached, part))


def _thinned(attributes: Sequence[Attribute], whole: Sequence[Entity], seen: np.ndarray,
             gone: np.ndarray) -> Iterator[tuple[int, int, Entity]]:
  """(version, record, what is left of it) of those versions that lack what the record has.

  Args:
    attributes, whole: of the side.
    seen: [N] places of the records that have versions.
    gone: [VERSIONS, N, attributes] bool.
  """
  for v, n in np.argwhere(gone.any(-1)).tolist():
    entity = whole[seen[n]]
    names = [attributes[a].name for a in np.flatnonzero(gone[v, n])]
    lost = {name: None for name in names if entity[name] is not None}
    if lost:
      yield v, int(seen[n]), Entity(entity.id, {**entity.attributes, **lost})


@dataclasses.dataclass(frozen=True)
class MissingLists:
  """Training lists of versions: each draws one version number for candidates and one for jobs.

  An entity thus lacks the same in every pair of a list. Numbers are drawn behind the list itself,
  which stays the same as without them.

  Attributes:
    lists: of whole records.
    versions: of these.
  """

  lists: TrainingLists
  versions: Versions

  @property
  def anchors(self) -> np.ndarray:
    return self.lists.anchors

  def draw(self, anchor: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """What the lists draw, with places of versions for candidates and jobs."""
    drawn = self.lists.draw(anchor, rng)
    which = dict(zip(('candidate', 'job'), rng.integers(VERSIONS, size=2)))
    return drawn | {side: getattr(self.versions, side)[v][drawn[side]]
                    for side, v in which.items()}
