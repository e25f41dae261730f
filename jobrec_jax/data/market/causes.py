"""Why a simulated pair is as it is: what each aligned field adds to its logit P and its logit Q.

Both logits are sums; see `logits`. A field's part is its terms, against their mean over reference
candidates and jobs, so that what is so of everybody is no cause of anything:

  logit = mean + sum over fields of the field's part

Taste is the part of the field whose candidates' text is the narrative, evidence of the one whose
texts are the projects. A market knows, too, which sentence says what.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from jobrec_jax.data.market.columns import Columns
from jobrec_jax.data.market.domain import GRADE, Domain, Narrative, Project
from jobrec_jax.data.market.logits import raw_fit, raw_wishes
from jobrec_jax.data.market.simulator import (
  BLOCK,
  REFERENCE_CANDIDATES,
  REFERENCE_JOBS,
  Market,
)
from jobrec_jax.schema.comparators import Semantic
from jobrec_jax.schema.schema import PERSPECTIVES

MEAN_JOBS = 256  # over which a term's mean is taken, and the reference candidates


class Causes(NamedTuple):
  """Of pairs [...], what moves their logits.

  Attributes:
    fields: names, F of them, in the schema's order.
    parts: perspective -> [..., F] each field's part of the logit.
    mean: perspective -> the logit of a pair whose parts are all 0.
  """

  fields: tuple[str, ...]
  parts: dict[str, np.ndarray]
  mean: dict[str, float]

  def logit(self, perspective: str) -> np.ndarray:
    """The sum of it all: the market's logit, [...]."""
    return self.mean[perspective] + self.parts[perspective].sum(-1)


@dataclasses.dataclass(frozen=True)
class Explained:
  """A market and the terms of its logits, each by the field that it belongs to."""

  market: Market

  @functools.cached_property
  def terms(self) -> dict[str, tuple[Domain, float, float]]:
    """By field: the domain with that field's terms alone, and the weights of taste and evidence."""
    domain, c = self.market.domain, self.market.config
    texts = {Narrative: '', Project: ''}
    for field in domain.schema.fields:
      if isinstance(field.comparator, Semantic):
        kinds = {type(domain.candidate[name]) for name in field.candidate}
        texts |= dict.fromkeys(kinds & texts.keys(), field.name)
    names = [f.name for f in domain.schema.fields]
    return {name: (dataclasses.replace(
        domain, wishes={k: w for k, w in domain.wishes.items() if k == name},
        requirements=tuple(r for r in domain.requirements if r.field == name)),
        c.taste * (texts[Narrative] == name), c.evidence * (texts[Project] == name))
        for name in names}

  def _wishes(self, u: Columns, row: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[..., F] of each field, its raw terms of the wishes."""
    return np.stack([raw_wishes(d, taste, u, row, self.market.job_columns, job)
                     for d, taste, _ in self.terms.values()], -1)

  def _fit(self, u: Columns, row: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[..., F] of each field, its raw terms of the fit, before the tilt."""
    return np.stack([raw_fit(d, evidence, u, row, self.market.job_columns, job)
                     for d, _, evidence in self.terms.values()], -1)

  @functools.cached_property
  def _first(self) -> Columns:
    return self.market.columns(0)

  @functools.cached_property
  def _job_fit(self) -> np.ndarray:
    """[J, F] mean terms of each job, over the candidates over which `Scales.job_fit` is."""
    rows = np.arange(min(self._first.n, REFERENCE_CANDIDATES))[:, None]
    return self._fit(self._first, rows, np.arange(self.market.config.jobs)).mean(0)

  def _tilted(self, u: Columns, row: np.ndarray, job: np.ndarray) -> np.ndarray:
    """[N, F] terms of the fit with those of the tilt, of flat pairs."""
    fit = self._fit(u, row, job)
    if self.market.config.version == '1':
      return fit
    rows, at = np.unique(row, return_inverse=True)
    jobs = np.arange(min(self.market.config.jobs, REFERENCE_JOBS))
    own = self._fit(u, rows[:, None], jobs).mean(1)
    return fit + self.market.scales.tilt * (own[at] + self._job_fit[job])

  @functools.cached_property
  def _means(self) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(min(self._first.n, REFERENCE_CANDIDATES))
    pairs = [x.ravel() for x in np.meshgrid(rows, np.arange(self.market.config.jobs)[:MEAN_JOBS])]
    return (self._wishes(self._first, *pairs).mean(0), self._tilted(self._first, *pairs).mean(0))

  def causes(self, candidate: np.ndarray, job: np.ndarray) -> Causes:
    """What moves pairs (candidate, job), indices of one shape [...] into the market."""
    candidate, job = np.broadcast_arrays(candidate, job)
    flat = np.empty((candidate.size, 2, len(self.terms)))
    for block in np.unique(candidate // BLOCK):
      at = np.flatnonzero(candidate.ravel() // BLOCK == block)
      u = self.market.columns(block) if block else self._first
      pairs = candidate.ravel()[at] - u.first, job.ravel()[at]
      terms = self._wishes(u, *pairs), self._tilted(u, *pairs)
      flat[at] = np.stack(self._weighed(*(x - m for x, m in zip(terms, self._means))), 1)
    parts = flat.reshape(*candidate.shape, *flat.shape[1:])
    c, s = self.market.config, self.market.scales
    wishes, fit = (x.sum() for x in self._means)
    level = self._weighed(wishes - s.wish_mean, fit - s.fit_mean)
    means = c.preference_mean + level[0], c.qualification_mean + level[1]
    return Causes(tuple(self.terms), {p: parts[..., i, :] for i, p in enumerate(PERSPECTIVES)},
                  dict(zip(PERSPECTIVES, map(float, means))))

  def _weighed(self, wishes: np.ndarray, fit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What raw terms, above their means, add to logit P and to logit Q; see `Market.logits`."""
    c, s = self.market.config, self.market.scales
    p, q = wishes / s.wish_std, fit / s.fit_std
    beyond = (q - s.natural * p) / np.sqrt(1 - s.natural ** 2)
    q = c.rho_x * p + np.sqrt(1 - c.rho_x ** 2) * beyond
    return c.preference_scale * p, c.qualification_scale * q

  @functools.cached_property
  def leanings(self) -> dict[str, dict[str, tuple[int, int]]]:
    """By side, each sentence that states a taste: its axis and the pole that it speaks for."""
    return {side: self.market.domain.grammar.leaning_of(side) for side in ('candidate', 'job')}

  @functools.cached_property
  def grades(self) -> dict[str, float]:
    """Each sentence on a project: its grade above the mean."""
    graded = self.market.domain.grammar.grade_of(self.market.domain.skills)
    return {text: grade - GRADE[0] for text, grade in graded.items()}
