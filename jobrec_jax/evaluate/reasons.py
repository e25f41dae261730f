"""Does a reason tell the truth? Each text of a pair is read claim by claim, and told in numbers.

  true claims      share of claims that the records bear out
  contradictions   share of claims that say 'met' of what is not met, or the other way round
  readable         share of texts whose every claim names a field of the schema
  causal recall    share of a pair's greatest true causes that its reason names
  faithfulness     by how much more the expert's score moves without a named field than without
                   another that might have been named, in logits
  right judgements share of texts said to speak for or against the job that do so in truth
  claims           how many a reason has

A claim that is not true names nothing: neither a cause nor a field.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jobrec_jax.evaluate.statistics import Estimate, Groups, jackknife, summed
from jobrec_jax.generate.causes import telling
from jobrec_jax.generate.claims import Sayable, read
from jobrec_jax.schema.schema import Schema

METRICS = ('true claims', 'contradictions', 'readable', 'causal recall', 'faithfulness',
           'right judgements', 'claims')


class Case(NamedTuple):
  """A pair, and what is known of it under a perspective.

  Attributes:
    said: what may be said of it.
    causes: by field, its part of the true logit.
    moved: by field of `said`, by how much the expert's score falls without it.
  """

  said: tuple[Sayable, ...]
  causes: Mapping[str, float]
  moved: Mapping[str, float]


def ratios(texts: Sequence[str], cases: Sequence[Case], schema: Schema) -> np.ndarray:
  """[2, metrics, N]: of each pair what a metric counts, and out of how many."""
  out = np.zeros((2, len(METRICS), len(texts)))
  for n, (text, case) in enumerate(zip(texts, cases)):
    claims = read(text, schema, case.said)
    named = {c.field for c in claims if c.true}
    top = telling(case.said, case.causes)
    moved = {s.field: abs(case.moved[s.field]) for s in case.said}
    cited = [x for field, x in moved.items() if field in named]
    others = [x for field, x in moved.items() if field not in named]
    judged = [c for c in claims if c.true and c.side]
    right = [(c.side == 'for') == (case.causes[c.field] > 0) for c in judged]
    both = bool(cited and others)
    out[:, :, n] = np.transpose([
        (sum(c.true for c in claims), len(claims)),
        (sum(c.contradicts for c in claims), len(claims)),
        (bool(claims) and all(c.field for c in claims), 1),
        (len(named & set(top)), len(top)),
        (np.mean(cited) - np.mean(others) if both else 0.0, both),
        (sum(right), len(judged)), (len(claims), 1)])
  return out


def estimates(found: np.ndarray, groups: Groups) -> dict[str, Estimate]:
  """Each metric over pairs, as the sum of what it counts over the sum of out of how many.

  Args:
    found: [2, metrics, N] of `ratios`.
    groups: of the pairs' candidates and jobs.
  """
  moments = summed([*found[0], *found[1]], groups)

  def shares(sums: np.ndarray) -> np.ndarray:
    counted, total = np.split(sums, 2, axis=1)
    return np.where(total > 0, counted / np.where(total > 0, total, 1), np.nan)
  return dict(zip(METRICS, jackknife(moments, shares, found.shape[2])))
