"""What measures look at, and what they give."""

from collections.abc import Iterator
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jobrec_jax.data.dataset import Dataset, Truth
from jobrec_jax.data.lists import RankingLists, candidates_of, warm_jobs
from jobrec_jax.evaluate.statistics import Estimate, Groups, make_groups
from jobrec_jax.pipeline.perspectives import perspectives
from jobrec_jax.pipeline.policy import TrainedPolicy
from jobrec_jax.pipeline.scores import EvaluationLists, KeptScores
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.policy import Alone

PREFERENCE, QUALIFICATION = 'preference expert', 'qualification expert'
BLANKED = f'{PREFERENCE}, narratives blanked'
CEILINGS = {'preference': 'true P (ceiling)', 'qualification': 'true Q (ceiling)'}
STAGE_2, UNIFORM, APPLICANTS = 'stage 2 lists', 'uniform test pairs', 'test applicants'
ELIGIBILITY, TRUE_PREFERENCE = 'true eligibility@5', 'true preference@5'
BOUND = 'true P + μ Q (ceiling)'
# Where policies are compared, between the eligibility of the best five by P and by Q.
SHARES, OF_THE_WAY = (0.1, 0.25, 0.5), ' of the way'
AT_ONCE = 1 << 20  # pairs whose ranking is worked on at a time

Values = dict[str, np.ndarray]  # metric -> [N], one for each list


def of_the_way(metric: str, share: float) -> str:
  """The name of a metric at a share of the way from the truth P to the truth Q."""
  return f'{metric} at {share:.0%}{OF_THE_WAY}'


class Measured(NamedTuple):
  """An estimate and what it is of; the fields are those of `report.results.ResultRow`."""

  system: str
  tau: float | None
  split: str
  perspective: str
  metric: str
  estimate: Estimate
  against: str | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
  """What stages before the evaluation left.

  Attributes:
    inputs: by name, as in `pipeline.road`.
    lists, scores: held-out lists, and what the experts and the policy say of them.
    trained: the policy, or why there is none.
    calibration: of p_qual.
    truth: of the market; None where it is not known.
    groups: of candidates and jobs, by the data alone.
  """

  inputs: Any
  lists: EvaluationLists
  scores: KeptScores
  trained: TrainedPolicy | Alone
  calibration: Calibration
  truth: Truth | None
  groups: Groups

  @classmethod
  def of(cls, bench: Bench) -> 'Subject':
    i = bench.inputs
    return cls(i, i['lists'], i['scores'], i['policy'], i['calibration'].calibration,
               i['data'].truth, groups_of(i['data'].dataset))

  @property
  def taught(self) -> tuple[str, ...]:
    """The perspectives that have an expert."""
    return perspectives(self.inputs['data'].dataset)


def groups_of(dataset: Dataset) -> Groups:
  """The groups that are left out at a time: the same for every run over the same data."""
  seen = (candidates_of(dataset, 'train'), warm_jobs(dataset))
  sizes = len(dataset.candidates), len(dataset.jobs)
  return make_groups(tuple(np.isin(np.arange(n), s) for n, s in zip(sizes, seen)))


def row_slices(lists: RankingLists) -> Iterator[slice]:
  """Some of the lists at a time, so that the work on their pairs stays within memory."""
  rows = max(1, AT_ONCE // lists.job.shape[1])
  for start in range(0, len(lists), rows):
    yield slice(start, start + rows)


def some(lists: RankingLists, at: slice | np.ndarray) -> RankingLists:
  """Some of the lists."""
  return RankingLists(lists.perspective, *(x[at] for x in (
      lists.candidate, lists.job, lists.relevance, lists.mask)), lists.centre)
