"""A seeded labour market in which preference P and qualification Q are known for every pair.

  ability, fields of work, taste -> attributes and text
  logit P = affine(wishes met, taste x offer)
  logit Q = affine(requirements unmet, evidence in the projects), tied to P by rho_x; see `logits`
  exposed ~ logging policy -> applied ~ P x daring, at least 0.01 -> accepted ~ Q, screening noise

Taste shows in the candidate's narrative alone, evidence in the text of the projects alone. What
counts in a domain is its table's; see `domain`. Candidates are drawn in blocks, pairs where they
are asked for; both depend on the seed and their own index alone.
"""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Annotated, Literal, TypeVar

import numpy as np
from scipy.special import expit, ndtr

from jobrec_jax.data.dataset import (
  ACCEPTED,
  NOT_APPLIED,
  NOT_EXPOSED,
  REJECTED,
  SPLITS,
  Dataset,
  Interactions,
  Truth,
  from_funnel,
)
from jobrec_jax.data.market.columns import Block, Columns, draw_columns, entities
from jobrec_jax.data.market.domain import Domain, load_domain
from jobrec_jax.data.market.draws import bernoulli_positions, pair_normal, pair_uniform
from jobrec_jax.data.market.grammar import Style
from jobrec_jax.data.market.logits import Scales, raw_fit, raw_wishes, tilt_of
from jobrec_jax.data.market.splits import Splits
from jobrec_jax.schema import streams
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.settings import check, within

MIN_APPLICATION = 0.01
MIN_EXPOSURE = 0.1  # of the mean exposure
BLOCK = 4096  # candidates that are drawn together
_PILOT_JOBS = 512  # jobs on which, with the first block, scales and popularity are measured
# Of the first of each, means of the fit are taken, which tell what is an entity's own.
REFERENCE_JOBS, REFERENCE_CANDIDATES = 32, 256
_MOST_SHOWN = 4.0  # of the mean exposure: the most that a recommender shows a pair
T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class MarketConfig:
  """The knobs of the market.

  Attributes:
    domain: a module of `jobrec_jax.data.market.domains`.
    candidates, jobs: how many of each.
    rho_x: correlation of logit P and logit Q over uniform pairs: conflation attributes explain.
    rho_e: correlation of the latent draws given attributes: hidden confounding.
    exposure: mean probability that the logging policy shows a pair, before it is clipped to
      [exposure / 10, 1].
    logging: 'uniform'; 'popularity' (in proportion to a job's mean P); or 'recommender' (in
      proportion to exp of a score whose correlation with logit P is `recommender_quality`).
    recommender_quality: in [0, 1].
    self_censoring: in [0, 1], how much doubt about eligibility keeps a willing candidate away.
    screening_noise: probability that screening reports the opposite of eligibility.
    missing: share of candidates' optional attributes that are blank.
    verbosity: sentences of a narrative that say nothing of taste.
    texts: 'notes', a few words each, of which three in ten say what is not wanted: what a small
      decoder learns to read from a few hundred candidates; or 'sentences', for larger ones.
    syntax: in [0, 1], share of the 'sentences' of taste and of the projects whose words alone do
      not tell what is meant; their order does.
    preference_scale, qualification_scale: standard deviation of logit P and logit Q.
    preference_mean, qualification_mean: mean of logit P and logit Q.
    taste: weight of the tastes that narratives show, beside the wishes, in logit P.
    evidence: weight of the projects' evidence beside the requirements in logit Q.
    qualification_pair: share of the variance of logit Q that is of the pair, neither of the
      candidate alone nor of the job; the nearest where rho_x lets it reach no such share.
    version: '1' draws the first market again, to the bit: it has 'notes' alone and no
      `qualification_pair` (the share is as it comes, about a fifth).

  Raises:
    ValueError: a knob lies outside its range.
  """

  domain: str = 'students'
  candidates: Annotated[int, within(10, 1e8)] = 600
  jobs: Annotated[int, within(10, 1e6)] = 100
  rho_x: Annotated[float, within(-0.9, 0.9)] = 0.2
  rho_e: Annotated[float, within(-0.9, 0.9)] = 0.0
  exposure: Annotated[float, within(1e-5, 1)] = 0.7
  logging: Literal['uniform', 'popularity', 'recommender'] = 'uniform'
  recommender_quality: Annotated[float, within(0, 1)] = 0.5
  self_censoring: Annotated[float, within(0, 1)] = 0.3
  screening_noise: Annotated[float, within(0, 0.5)] = 0.02
  missing: Annotated[float, within(0, 0.9)] = 0.02
  verbosity: Annotated[int, within(0, 20)] = 1
  preference_scale: Annotated[float, within(0.1, 10)] = 2.5
  preference_mean: float = -1.8
  qualification_scale: Annotated[float, within(0.1, 10)] = 2.5
  qualification_mean: float = -0.8
  taste: Annotated[float, within(0, 10)] = 1.2
  evidence: Annotated[float, within(0, 10)] = 1.2
  texts: Literal['notes', 'sentences'] = 'notes'
  syntax: Annotated[float, within(0, 1)] = 0.5
  qualification_pair: Annotated[float, within(0.05, 0.95)] = 0.4
  version: Literal['1', '2'] = '2'

  def __post_init__(self):
    check(self)
    load_domain(self.domain)

  @property
  def table(self) -> Domain:
    """The domain, in the words that its texts are made of."""
    return load_domain(self.domain, 'notes' if self.version == '1' else self.texts)


@dataclasses.dataclass(frozen=True)
class Market:
  """A world. Small: the candidates' side is drawn block by block when it is asked for.

  Attributes:
    config, seed: all else follows from them.
    splits: which split a pair belongs to.
    job_columns: the jobs.
    scales: of the logits, measured on the first block of candidates and up to 512 jobs.
    popularity: [J] mean P of each job over candidates of the first block.
  """

  config: MarketConfig
  seed: int
  splits: Splits
  job_columns: Columns
  scales: Scales
  popularity: np.ndarray

  @property
  def domain(self) -> Domain:
    return self.config.table

  @property
  def blocks(self) -> int:
    return -(-self.config.candidates // BLOCK)

  def columns(self, block: int) -> Columns:
    """The candidates of a block, as columns."""
    first = block * BLOCK
    n = min(BLOCK, self.config.candidates - first)
    columns = draw_columns(self.domain, 'candidate', self.seed, Block(block, first, n),
                           _style(self.config), self.config.missing)
    return self.with_fit(columns)

  def with_fit(self, columns: Columns) -> Columns:
    """Candidates' columns with their mean fit, where the market's version asks for it."""
    if self.config.version == '1':
      return columns
    jobs = range(min(self.config.jobs, REFERENCE_JOBS))
    return dataclasses.replace(columns, fit=sum(
        raw_fit(self.domain, self.config.evidence, columns, np.arange(columns.n), self.job_columns,
                np.array(job)) for job in jobs) / len(jobs))

  def candidates(self, columns: Columns) -> tuple[Entity, ...]:
    """Their records."""
    return entities(self.domain, columns)

  @functools.cached_property
  def jobs(self) -> tuple[Entity, ...]:
    return entities(self.domain, self.job_columns)

  def logits(self, u: Columns, candidate: np.ndarray,
             job: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """logit P and logit Q of pairs: the standardised raw sums, Q mixed with P so that they
    correlate at rho_x.

    Args:
      u: the block that holds the candidates.
      candidate: indices of candidates, of the whole market.
      job: indices of jobs; both broadcast.
    """
    c, s = self.config, self.scales
    p, q = self._raw(u, candidate - u.first, job)
    p, q = (p - s.wish_mean) / s.wish_std, (q - s.fit_mean) / s.fit_std
    # Q keeps what it has beyond P and takes as much of P as the asked correlation needs.
    beyond = (q - s.natural * p) / np.sqrt(1 - s.natural ** 2)
    q = c.rho_x * p + np.sqrt(1 - c.rho_x ** 2) * beyond
    return (c.preference_mean + c.preference_scale * p,
            c.qualification_mean + c.qualification_scale * q)

  def _raw(self, u: Columns, row: np.ndarray, job: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums behind the logits of the pairs (row of u, job), before they are standardised."""
    wishes = raw_wishes(self.domain, self.config.taste, u, row, self.job_columns, job)
    fit = raw_fit(self.domain, self.config.evidence, u, row, self.job_columns, job)
    if self.config.version != '1':
      fit = fit + self.scales.tilt * (u.fit[row] + self.scales.job_fit[job])
    return wishes, fit

  def latents(self, candidate: np.ndarray, job: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard normal draws behind the two outcomes, of correlation rho_e."""
    first = pair_normal(self.seed, 'wants', candidate, job)
    second = pair_normal(self.seed, 'eligible', candidate, job)
    rho = self.config.rho_e
    return first, rho * first + np.sqrt(1 - rho ** 2) * second

  def truth(self, u: Columns, candidate: np.ndarray, job: np.ndarray) -> Truth:
    """The truth of pairs, in their broadcast shape; arguments as in `logits`."""
    P, Q = map(expit, self.logits(u, candidate, job))
    first, second = map(ndtr, self.latents(candidate, job))
    application = 1 - (1 - P * self._daring(Q)) * (1 - MIN_APPLICATION)
    return Truth(P.astype(np.float32), Q.astype(np.float32), first > 1 - P, second > 1 - Q,
                 application.astype(np.float32))

  def grid(self, candidates: np.ndarray, jobs: np.ndarray) -> Truth:
    """The truth of every pair of some candidates and some jobs, [candidates, jobs], on demand."""
    order = np.argsort(candidates, kind='stable')
    parts = []
    for block in np.unique(candidates // BLOCK):
      in_block = candidates[order][candidates[order] // BLOCK == block]
      parts.append(self.truth(self.columns(block), in_block[:, None], jobs))
    back = np.argsort(order, kind='stable')
    return Truth(*(getattr(concatenate(parts), f.name)[back] for f in dataclasses.fields(Truth)))

  def _daring(self, Q: np.ndarray) -> np.ndarray:
    return 1 - self.config.self_censoring * (1 - Q)

  def exposure(self, logit_p: np.ndarray, candidate: np.ndarray, job: np.ndarray) -> np.ndarray:
    """The logging policy's propensity of showing pairs, at least a tenth of the mean exposure."""
    c = self.config
    if c.logging == 'popularity':
      factor = np.broadcast_to((self.popularity / self.popularity.mean())[job], logit_p.shape)
    elif c.logging == 'recommender':
      noise = pair_normal(self.seed, 'recommender', candidate, job)
      score = (c.recommender_quality * (logit_p - c.preference_mean) / c.preference_scale
               + np.sqrt(1 - c.recommender_quality ** 2) * noise)
      factor = np.exp(score - 0.5)
    else:
      factor = np.ones(logit_p.shape)
    return np.clip(c.exposure * factor, MIN_EXPOSURE * c.exposure, self._most_exposure())

  def _most_exposure(self) -> float:
    factor = {'uniform': 1.0, 'recommender': _MOST_SHOWN,
              'popularity': self.popularity.max() / self.popularity.mean()}[self.config.logging]
    return min(1.0, self.config.exposure * factor)

  def log(self, u: Columns) -> Interactions:
    """The observed part of the funnel of a block's candidates, in the order of the pairs."""
    most = self._most_exposure()
    rng = streams.rng(self.seed, 'exposed', u.first // BLOCK)
    row, job = np.divmod(bernoulli_positions(rng, most, u.n * self.config.jobs), self.config.jobs)
    candidate = u.first + row
    split = self.splits.split_of(candidate, job)
    logit_p, logit_q = self.logits(u, candidate, job)
    exposure = self.exposure(logit_p, candidate, job)
    shown = pair_uniform(self.seed, 'shown', candidate, job) * most < exposure
    first, second = map(ndtr, self.latents(candidate, job))
    P, Q = expit(logit_p), expit(logit_q)
    dares = pair_uniform(self.seed, 'dares', candidate, job) < self._daring(Q)
    stray = pair_uniform(self.seed, 'stray', candidate, job) < MIN_APPLICATION
    applied = ((first > 1 - P) & dares) | stray
    misjudged = pair_uniform(self.seed, 'screening', candidate, job) < self.config.screening_noise
    accepted = (second > 1 - Q) ^ misjudged
    state = np.select([~shown, ~applied, ~accepted], [NOT_EXPOSED, NOT_APPLIED, REJECTED], ACCEPTED)
    return from_funnel(candidate, job, state, split, exposure)


def make_market(config: MarketConfig, seed: int,
                shares: tuple[float, ...] = (0.5, 0.1, 0.15, 0.25), cold_jobs: float = 0.2,
                warm_test: float = 0.1) -> Market:
  """Draws the jobs and the splits, and measures the scales of the logits.

  Args:
    config: the knobs.
    seed: every draw follows from it.
    shares: shares of candidates in train, validation, calibration and test.
    cold_jobs: share of jobs that appear in no log but the test's.
    warm_test: share of the training candidates' interactions that the test keeps.
  """
  splits = Splits.draw(seed, config.candidates, config.jobs, shares, cold_jobs, warm_test)
  domain = config.table
  jobs = draw_columns(domain, 'job', seed, Block(0, 0, config.jobs), _style(config), 0.0)
  market = Market(config, seed, splits, jobs, Scales(), np.ones(config.jobs))
  pilot = market.columns(0)
  row = np.arange(pilot.n)[:, None]
  pilot_jobs = np.arange(min(config.jobs, _PILOT_JOBS))
  scales = Scales()
  if config.version != '1':
    people = range(min(pilot.n, REFERENCE_CANDIDATES))
    scales = Scales(job_fit=sum(raw_fit(domain, config.evidence, pilot, np.array(i), jobs,
                                        np.arange(config.jobs)) for i in people) / len(people))
    market = dataclasses.replace(market, scales=scales)
  # The jobs' order is random, so the first are a sample; a chunk of them bounds the memory.
  raw = [market._raw(pilot, row, chunk)
         for chunk in np.array_split(pilot_jobs, -(-len(pilot_jobs) // 64))]
  p, q = (np.concatenate(x, axis=1) for x in zip(*raw))
  if config.version != '1':
    means = pilot.fit, scales.job_fit[pilot_jobs]
    scales = scales._replace(tilt=tilt_of(p, q, means, config.rho_x, config.qualification_pair))
    q = q + scales.tilt * (means[0][:, None] + means[1])
  scales = scales._replace(wish_mean=p.mean(), wish_std=p.std(), fit_mean=q.mean(), fit_std=q.std(),
                           natural=np.corrcoef(p.ravel(), q.ravel())[0, 1])
  market = dataclasses.replace(market, scales=scales)
  if config.logging == 'popularity':
    row = np.arange(min(pilot.n, _PILOT_JOBS))[:, None]
    chunks = np.array_split(np.arange(config.jobs), -(-config.jobs // 64))
    market = dataclasses.replace(market, popularity=np.concatenate(
        [expit(market.logits(pilot, row, chunk)[0]).mean(0) for chunk in chunks]))
  return market


def _style(config: MarketConfig) -> Style:
  return Style(config.verbosity, config.syntax)


def walk(market: Market) -> Iterator[tuple[Columns, Interactions]]:
  """The blocks of a market, one after another, with their logs."""
  for block in range(market.blocks):
    columns = market.columns(block)
    yield columns, market.log(columns)


def simulate(config: MarketConfig, seed: int, **splits) -> tuple[Dataset, Truth]:
  """Draws a whole market at once, its funnel log and the truth of every pair.

  Args:
    config, seed, **splits: as in `make_market`.

  Returns:
    The dataset that models may see, and the truth that only evaluation may.
  """
  market = make_market(config, seed, **splits)
  return _drawn(market, range(market.blocks))


def newcomers(market: Market, count: int) -> tuple[Dataset, Truth]:
  """More candidates of the same world and its jobs: a population that no run has seen.

  They are the blocks after the market's last, so that they share no draw with a candidate that it
  has. All belong to the calibration split.

  Args:
    market: the world; its jobs, scales and popularity stay.
    count: of new candidates.

  Returns:
    What `simulate` returns, of the new candidates alone, their indices from 0.

  Raises:
    ValueError: `count` is below 1.
  """
  if count < 1:
    raise ValueError(f'count must be at least 1, got {count}')
  first = market.blocks * BLOCK
  splits = dataclasses.replace(market.splits, of_candidate=np.full(
      first + count, SPLITS.index('calibration'), np.int8))
  wider = dataclasses.replace(market, splits=splits, config=dataclasses.replace(
      market.config, candidates=first + count))
  dataset, truth = _drawn(wider, range(market.blocks, wider.blocks))
  log = dataset.interactions
  return dataclasses.replace(dataset, interactions=dataclasses.replace(
      log, candidate=log.candidate - first)), truth


def _drawn(market: Market, blocks: range) -> tuple[Dataset, Truth]:
  records, logs, truths = [], [], []
  for columns in map(market.columns, blocks):
    records += market.candidates(columns)
    logs.append(market.log(columns))
    candidate = columns.first + np.arange(columns.n)[:, None]
    truths.append(market.truth(columns, candidate, np.arange(market.config.jobs)))
  return (Dataset(market.domain.schema, tuple(records), market.jobs, concatenate(logs)),
          concatenate(truths))


def concatenate(parts: list[T]) -> T:
  """One dataclass of arrays from those of several blocks."""
  return type(parts[0])(*(np.concatenate([getattr(x, f.name) for x in parts])
                          for f in dataclasses.fields(parts[0])))
