"""A seeded labour market in which preference P and qualification Q are known for every pair.

  ability, taste -> attributes and text
  logit P = affine(interest, skill coverage, mode, taste x offer)
  logit Q = affine(unmet requirements, skill coverage, evidence in the projects), tied to P by rho_x
  exposed ~ logging policy -> applied ~ P x daring, at least 0.01 -> accepted ~ Q, screening noise

Taste shows in the candidate's narrative alone, evidence in the text of the projects alone.
"""

import dataclasses

import numpy as np
from scipy.special import expit, logit, ndtr

from jobrec_jax.data import grammar
from jobrec_jax.data.dataset import (
    ACCEPTED,
    NOT_APPLIED,
    NOT_EXPOSED,
    REJECTED,
    Dataset,
    Truth,
    from_funnel,
)
from jobrec_jax.data.splits import split_pairs
from jobrec_jax.schema.schema import Entity
from jobrec_jax.schema.students import INDUSTRIES, LEVELS, MAJORS, MODES, STUDENTS

MIN_APPLICATION = 0.01
MIN_EXPOSURE = 0.01
_SKILLS = tuple(s for industry in INDUSTRIES for s in grammar.SKILLS[industry])
_CULTURE = (0.3, 0.15, 0.1, 0.15, 0.3)  # of 0 to 4 builder's phrases: most people lean one way
_PER_INDUSTRY = len(grammar.SKILLS[INDUSTRIES[0]])


@dataclasses.dataclass(frozen=True)
class MarketConfig:
  """The knobs of the market.

  Attributes:
    candidates, jobs: how many of each.
    rho_x: correlation of logit P and logit Q over uniform pairs: conflation attributes explain.
    rho_e: correlation of the latent draws given attributes: hidden confounding.
    exposure: mean probability that the logging policy shows a pair.
    logging: 'uniform', or 'popularity' (jobs are shown in proportion to their mean P).
    self_censoring: in [0, 1], how much doubt about eligibility keeps a willing candidate away.
    screening_noise: probability that screening reports the opposite of eligibility.
    missing: share of candidates' optional attributes that are blank.
    preference_scale, qualification_scale: standard deviation of logit P and logit Q.
    preference_mean, qualification_mean: mean of logit P and logit Q.
    taste: weight of the culture that narratives show, beside interest (1), in logit P.
    evidence: weight of the projects' evidence beside a whole unmet requirement (1) in logit Q.

  Raises:
    ValueError: a knob lies outside its range.
  """

  candidates: int = 600
  jobs: int = 100
  rho_x: float = 0.2
  rho_e: float = 0.0
  exposure: float = 0.7
  logging: str = 'uniform'
  self_censoring: float = 0.3
  screening_noise: float = 0.02
  missing: float = 0.02
  preference_scale: float = 2.5
  preference_mean: float = -1.8
  qualification_scale: float = 2.5
  qualification_mean: float = -0.8
  taste: float = 1.2
  evidence: float = 1.2

  def __post_init__(self):
    ranges = {'candidates': (10, 1e6), 'jobs': (10, 1e5), 'rho_x': (-0.9, 0.9),
              'rho_e': (-0.9, 0.9), 'exposure': (MIN_EXPOSURE, 1), 'self_censoring': (0, 1),
              'screening_noise': (0, 0.5), 'missing': (0, 0.9), 'preference_scale': (0.1, 10),
              'qualification_scale': (0.1, 10), 'taste': (0, 10), 'evidence': (0, 10)}
    for name, (low, high) in ranges.items():
      if not low <= getattr(self, name) <= high:
        raise ValueError(f'market.{name} must lie in [{low:g}, {high:g}], '
                         f'got {getattr(self, name)!r}')
    if self.logging not in ('uniform', 'popularity'):
      raise ValueError(f"market.logging must be 'uniform' or 'popularity', got {self.logging!r}")


def simulate(config: MarketConfig, seed: int,
             shares: tuple[float, ...] = (0.5, 0.1, 0.15, 0.25),
             cold_jobs: float = 0.2) -> tuple[Dataset, Truth]:
  """Draws a market, its funnel log and its ground truth.

  Args:
    config: the knobs.
    seed: every draw follows from it.
    shares: shares of candidates in train, validation, calibration and test.
    cold_jobs: share of jobs that appear in no log but the test's.

  Returns:
    The dataset that models may see, and the truth that only evaluation may.
  """
  streams = np.random.default_rng(seed).spawn(4)
  people = _draw_candidates(streams[0], config)
  posts = _draw_jobs(streams[1], config)
  logit_p, logit_q = _logits(config, people, posts)
  truth, state, exposure = _funnel(streams[2], config, logit_p, logit_q)
  split = split_pairs(streams[3], config.candidates, config.jobs, shares, cold_jobs)
  dataset = Dataset(STUDENTS, _candidate_records(people), _job_records(posts),
                    from_funnel(state, split, exposure))
  return dataset, truth


def _draw_candidates(rng: np.random.Generator, config: MarketConfig) -> dict:
  n = config.candidates
  ability = rng.normal(size=n)
  level = rng.choice(6, size=n, p=(0.1, 0.15, 0.2, 0.2, 0.2, 0.15))
  taste = rng.choice(grammar.PHRASES + 1, size=n, p=_CULTURE)
  interests = np.argsort(rng.random((n, 6)), axis=1) < rng.integers(1, 3, size=(n, 1))
  familiar = np.repeat(interests, _PER_INDUSTRY, axis=1)
  # Each industry of interest brings most of its skills; the able know more of them.
  known = rng.random((n, len(_SKILLS))) < np.where(familiar, expit(-0.6 + 0.5 * ability)[:, None],
                                                   0.02)
  grade = np.clip(np.round(2 + 0.9 * ability[:, None] + 0.5 * rng.normal(size=(n, 3))), 0, 4)
  return {
      'rng': rng, 'ability': ability, 'taste': taste, 'interests': interests, 'skills': known,
      'level': level, 'grade': grade.astype(int),
      'majors': np.stack([rng.integers(0, 7, n), np.where(level >= 4, rng.integers(0, 7, n), 7),
                          np.where(rng.random(n) < 0.25, rng.integers(0, 7, n), 7)], 1),
      'gpa': np.clip(3.05 + 0.25 * ability + 0.35 * rng.normal(size=n), 2, 4).round(2),
      'months': np.clip(np.round(6 * level + 6 * rng.gumbel(size=n)), 0, 60).astype(int),
      'papers': np.clip(rng.poisson(np.exp(-1 + 0.35 * level)), 0, 4),
      'hours': rng.integers(1, 41, n), 'terms': rng.integers(1, 5, n),
      'mode': rng.integers(0, 4, n),
      # Fields that may be blank: gpa, months, papers, hours, terms, mode.
      'missing': rng.random((n, 6)) < config.missing,
  }


def _draw_jobs(rng: np.random.Generator, config: MarketConfig) -> dict:
  n = config.jobs
  industry = rng.permutation(np.arange(n) % 6)
  order = np.argsort(rng.random((n, _PER_INDUSTRY)), axis=1)
  skills = np.zeros((n, len(_SKILLS)), bool)
  for j in range(n):
    skills[j, industry[j] * _PER_INDUSTRY + order[j, :rng.integers(5, 9)]] = True
  offer = rng.choice(grammar.PHRASES + 1, size=n, p=_CULTURE)
  return {
      'rng': rng, 'industry': industry, 'skills': skills, 'offer': offer,
      'majors': np.argsort(rng.random((n, 7)), axis=1) < rng.integers(2, 6, size=(n, 1)),
      'level': rng.choice(5, size=n, p=(0.3, 0.25, 0.2, 0.15, 0.1)),
      'gpa': rng.uniform(2.0, 3.4, n).round(2), 'months': rng.integers(0, 25, n),
      'papers': rng.choice(3, size=n, p=(0.6, 0.3, 0.1)), 'hours': rng.integers(5, 26, n),
      'terms': rng.integers(1, 4, n), 'mode': rng.integers(0, 4, n),
  }


def _logits(config: MarketConfig, u: dict, j: dict) -> tuple[np.ndarray, np.ndarray]:
  """logit P and logit Q, [candidates, jobs]; both rest on what the records and texts show."""
  coverage = (u['skills'].astype(float) @ j['skills'].T) / j['skills'].sum(1)
  interest = u['interests'][:, j['industry']].astype(float)
  free = MODES.index('No Preference')
  mode = ((u['mode'][:, None] == j['mode']) | (u['mode'][:, None] == free) | (j['mode'] == free))
  # Builders want builders' jobs, scholars scholars': the product of two centred counts in [-1, 1].
  half = grammar.PHRASES / 2
  taste = np.outer(u['taste'] / half - 1, j['offer'] / half - 1)
  want = interest + 0.8 * coverage + 0.5 * mode + config.taste * taste

  major = np.zeros((len(u['level']), len(j['level'])), bool)
  for column in u['majors'].T:
    major |= np.pad(j['majors'], ((0, 0), (0, 1)))[:, column].T
  gpa_gap = np.clip(j['gpa'] - u['gpa'][:, None], 0, None)
  months_gap = np.clip(j['months'] - u['months'][:, None], 0, None) / 12
  # A paper more than asked makes up for part of a missing grade, and never for a missing level.
  spare_papers = np.clip(u['papers'][:, None] - j['papers'], 0, 2)
  unmet = (1.5 * (u['level'][:, None] < j['level']) + 1.2 * ~major
           + 2.0 * np.clip(gpa_gap - 0.2 * spare_papers, 0, 1) + 0.8 * np.clip(months_gap, 0, 1.5)
           + 0.8 * (u['papers'][:, None] < j['papers']) + 0.6 * (u['hours'][:, None] < j['hours'])
           + 0.5 * (u['terms'][:, None] < j['terms']) + 0.5 * ~mode)
  evidence = (u['grade'].mean(1) - 2)[:, None]
  fit = -unmet + 2.0 * coverage + config.evidence * evidence

  p, q = (_standardise(x) for x in (want, fit))
  # Q keeps what it has beyond P and takes as much of P as the asked correlation needs.
  natural = np.mean(p * q)
  beyond = (q - natural * p) / np.sqrt(1 - natural ** 2)
  q = config.rho_x * p + np.sqrt(1 - config.rho_x ** 2) * beyond
  return (config.preference_mean + config.preference_scale * p,
          config.qualification_mean + config.qualification_scale * q)


def _standardise(x: np.ndarray) -> np.ndarray:
  return (x - x.mean()) / x.std()


def _funnel(rng: np.random.Generator, config: MarketConfig, logit_p: np.ndarray,
            logit_q: np.ndarray) -> tuple[Truth, np.ndarray, np.ndarray]:
  """The latent outcomes, the log's states and the exposure propensities, each [U, J]."""
  shape = logit_p.shape
  preference, qualification = expit(logit_p), expit(logit_q)
  first, second = rng.normal(size=(2, *shape))
  second = config.rho_e * first + np.sqrt(1 - config.rho_e ** 2) * second
  wants = logit_p + logit(np.clip(ndtr(first), 1e-12, 1 - 1e-12)) > 0
  eligible = logit_q + logit(np.clip(ndtr(second), 1e-12, 1 - 1e-12)) > 0

  exposure = np.full(shape, config.exposure)
  if config.logging == 'popularity':
    popularity = preference.mean(0)
    exposure = np.broadcast_to(config.exposure * popularity / popularity.mean(), shape)
  exposure = np.clip(exposure, MIN_EXPOSURE, 1)
  exposed = rng.random(shape) < exposure
  daring = 1 - config.self_censoring * (1 - qualification)
  stray = rng.random(shape) < MIN_APPLICATION
  applied = exposed & ((wants & (rng.random(shape) < daring)) | stray)
  application = 1 - (1 - preference * daring) * (1 - MIN_APPLICATION)
  accepted = eligible ^ (rng.random(shape) < config.screening_noise)
  state = np.select([~exposed, ~applied, ~accepted], [NOT_EXPOSED, NOT_APPLIED, REJECTED], ACCEPTED)
  truth = Truth(preference.astype(np.float32), qualification.astype(np.float32), wants, eligible,
                application.astype(np.float32))
  return truth, state, exposure.astype(np.float32)


def _candidate_records(u: dict) -> tuple[Entity, ...]:
  rng, names = u['rng'], (*MAJORS, 'None')
  records = []
  for i in range(len(u['level'])):
    blank = dict(zip(('gpa', 'months_experience', 'num_publications', 'hours_per_week',
                      'length_of_commitment', 'in_person_commitment'), u['missing'][i]))
    known = rng.permutation(np.flatnonzero(u['skills'][i]))
    used = rng.choice(known, 3) if len(known) else rng.integers(len(_SKILLS), size=3)
    attributes = {
        'academic_level': LEVELS[u['level'][i]],
        'undergrad_major': names[u['majors'][i, 0]],
        'masters_major': names[u['majors'][i, 1]],
        'second_major': names[u['majors'][i, 2]],
        'gpa': float(u['gpa'][i]),
        'undergrad_gpa': float(np.clip(u['gpa'][i] + 0.2 * rng.normal(), 2, 4).round(2)),
        'months_experience': int(u['months'][i]),
        'num_publications': int(u['papers'][i]),
        'skills': tuple(_SKILLS[s] for s in known),
        'hours_per_week': int(u['hours'][i]),
        'length_of_commitment': int(u['terms'][i]),
        'in_person_commitment': MODES[u['mode'][i]],
        'commit_to_summer': bool(rng.random() < 0.4),
        'interests': tuple(INDUSTRIES[k]
                           for k in rng.permutation(np.flatnonzero(u['interests'][i]))),
        'student_llm_output': grammar.narrative(rng, 'candidate', u['taste'][i]),
        'extrac_1': grammar.pastime(rng),
        'extrac_2': grammar.pastime(rng),
    }
    attributes |= {f'proj_{k + 1}': grammar.project(rng, _SKILLS[s], u['grade'][i, k])
                   for k, s in enumerate(used)}
    attributes = {k: v for k, v in attributes.items() if not blank.get(k)}
    records.append(STUDENTS.validate('candidate', Entity(f'S{i + 1:04d}', attributes)))
  return tuple(records)


def _job_records(j: dict) -> tuple[Entity, ...]:
  rng = j['rng']
  records = []
  for i in range(len(j['level'])):
    attributes = {
        'min_academic_level': LEVELS[j['level'][i]],
        'acceptable_majors': tuple(MAJORS[k] for k in np.flatnonzero(j['majors'][i])),
        'min_gpa': float(j['gpa'][i]),
        'min_months_experience': int(j['months'][i]),
        'min_num_publications': int(j['papers'][i]),
        'required_skills': tuple(_SKILLS[s]
                                 for s in rng.permutation(np.flatnonzero(j['skills'][i]))),
        'min_hours_per_week': int(j['hours'][i]),
        'min_length_of_commitment': int(j['terms'][i]),
        'job_in_person_commitment': MODES[j['mode'][i]],
        'industry': INDUSTRIES[j['industry'][i]],
        'job_llm_output': grammar.narrative(rng, 'job', j['offer'][i]),
    }
    records.append(STUDENTS.validate('job', Entity(f'J{i + 1:04d}', attributes)))
  return tuple(records)
