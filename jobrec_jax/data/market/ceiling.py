"""What a reader of words without their order can reach at most: a bag of words' ceiling.

The words of a turned statement say nothing of its meaning (see `grammar`); those of a plain one say
all. So the best that can be known of an axis from a bag of words is what its plain statements say:
of M statements with b for the first pole, k of them plain and f of these for the first pole,

  P(b | k, f) = P(b) C(b, f) C(M - b, k - f) / sum over b'

logit P is linear in each entity's tastes, and nothing but narratives tells of them, so that its
expectation given all bags of words is the logit at the expected tastes: no reader without order,
however clever, has a smaller squared error. Of a project the bag of words tells the grade where it
is plain; where it is turned the grade is, by symmetry, the middle one in expectation.
"""

import dataclasses
from math import comb

import numpy as np

from jobrec_jax.data.market.columns import Columns
from jobrec_jax.data.market.domain import Narrative
from jobrec_jax.data.market.grammar import Grammar
from jobrec_jax.data.market.simulator import Market


def statement_auc(syntax: float) -> float:
  """AUC of a bag of words that tells for which pole a statement speaks: turned ones are ties."""
  return 1 - syntax ** 2 / 2


def taste_share(grammar: Grammar, syntax: float) -> float:
  """Share of the variance of a taste that a narrative's bag of words explains at most."""
  M, prior = grammar.statements, np.array(grammar.lean)
  b = np.arange(M + 1)
  known = 0.0
  for k in range(M + 1):
    drawn = comb(M, k) * (1 - syntax) ** k * syntax ** (M - k)
    for f in range(k + 1):
      joint = drawn * prior * _ways(M, k, f) / comb(M, k)
      if joint.sum():
        known += (joint @ b) ** 2 / joint.sum()
  mean = prior @ b
  return float((known - mean ** 2) / (prior @ b ** 2 - mean ** 2))


def evidence_share(syntax: float) -> float:
  """Share of the variance of a grade that a project's bag of words explains at most."""
  return 1 - syntax


def _ways(M: int, k: int, f: int) -> np.ndarray:
  """[M + 1] of b: in how many ways k of the M statements hold f of the b for the first pole."""
  return np.array([comb(b, f) * comb(M - b, k - f) for b in range(M + 1)])


def _expected_leanings(grammar: Grammar) -> np.ndarray:
  """[M + 1, M + 1] of k and f: the expected number of statements for the first pole."""
  M, prior = grammar.statements, np.array(grammar.lean)
  out = np.zeros((M + 1, M + 1))
  for k in range(M + 1):
    for f in range(k + 1):
      weight = prior * _ways(M, k, f)
      out[k, f] = weight @ np.arange(M + 1) / max(weight.sum(), 1e-300)
  return out


def expected_leanings(columns: Columns) -> np.ndarray:
  """[n, axes] the tastes that are expected given the narratives as bags of words."""
  grammar, side = columns.domain.grammar, columns.side
  name = next(name for name, source in getattr(columns.domain, side).items()
              if isinstance(source, Narrative))
  rows, table = columns.codes[name], grammar.statement_tables[side]
  talk = [-1] * len(grammar.small_talk_tables[side])  # neither of an axis nor turned nor plain
  axis, pole, turned = (np.array(talk + [getattr(s, of) for s in table])[rows]
                        for of in ('axis', 'pole', 'turned'))
  expected = _expected_leanings(grammar)
  plain = [(axis == k) & (turned == 0) for k in range(len(grammar.axes))]
  return np.stack([expected[p.sum(1), (p & (pole == 0)).sum(1)] for p in plain], axis=1)


def expected_preference(market: Market, u: Columns, candidate: np.ndarray,
                        job: np.ndarray) -> np.ndarray:
  """logit P as the best reader without order expects it, who knows every other attribute.

  Args:
    market: whose texts are sentences.
    u, candidate, job: as in `Market.logits`.
  """
  u, jobs = (dataclasses.replace(c, latents=c.latents._replace(leanings=expected_leanings(c)))
             for c in (u, market.job_columns))
  return dataclasses.replace(market, job_columns=jobs).logits(u, candidate, job)[0]
