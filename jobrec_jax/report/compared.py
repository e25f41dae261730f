"""A metric of a system beside a baseline's: what comparisons give, and tables and pages show."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Verdict = Literal['the baseline', 'better', 'worse', 'not different', 'the same', 'another τ',
                  'not reached', 'no test']
BASELINE: Verdict = 'the baseline'
BETTER: Verdict = 'better'
WORSE: Verdict = 'worse'
OPEN: Verdict = 'not different'
SAME: Verdict = 'the same'
OTHER: Verdict = 'another τ'
UNREACHED: Verdict = 'not reached'
UNTESTED: Verdict = 'no test'
SIGNS: dict[Verdict, str] = {BETTER: '▲', WORSE: '▼', OPEN: '≈', SAME: '=', OTHER: 'τ',
                             UNREACHED: '∅'}
TESTED = (BETTER, WORSE, OPEN)


class ComparedRow(NamedTuple):
  """A metric of a system, beside the baseline's.

  Attributes:
    system: its name.
    metric: what was measured, in words.
    short: the same for the head of a column, where the split is plain.
    mean, sd: over all of the system's runs; sd is nan with one, both where a run has no value.
    diff, low, high: system − baseline on the data seeds of both, with its interval.
    p, p_holm: of the test that they are equal; the second corrected for all tests of the call.
    n_seeds, n_data_seeds: training seeds of a data seed, and data seeds, behind the difference.
    verdict: 'better', 'worse' (p_holm < 1 − level) or 'not different'; what is lower or nearer to 0
      is better where the metric says so. Nothing is tested, and counted by Holm, where it is 'the
      baseline' itself, 'the same' (both stand on the same results), 'another τ' (the two were not
      asked for the same at this rank of their grids), 'not reached' (a run of either has no value)
      or 'no test' (no data seed in common).
  """

  system: str
  metric: str
  short: str
  mean: float
  sd: float
  diff: float
  low: float
  high: float
  p: float
  p_holm: float
  n_seeds: int
  n_data_seeds: int
  verdict: Verdict


def sampled(rows: Sequence[ComparedRow]) -> str:
  """What the intervals of all tested rows are over, such as 'candidates, jobs'."""
  tested = [r for r in rows if r.verdict in TESTED]
  over = ['candidates', 'jobs']
  if tested and all(r.n_seeds > 1 or r.n_data_seeds > 1 for r in tested):
    over.append('training seeds')
  if tested and all(r.n_data_seeds > 1 for r in tested):
    over.append('data seeds')
  return f'{", ".join(over[:-1])} and {over[-1]}'
