"""Certificates of a policy's true eligibility, from lists whose every label is known.

A run certifies with the half of the calibration split that no fit has used. `make_proof` checks the
promise on a fresh population of a simulated market, candidates that no stage has seen.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jobrec_jax.data.dataset import UNOBSERVED, Dataset, Truth
from jobrec_jax.data.lists import (
  RankingLists,
  calibration_halves,
  candidates_of,
  uniform_lists,
  warm_jobs,
)
from jobrec_jax.data.market.simulator import Market, newcomers
from jobrec_jax.evaluate.certification import (
  WHOLE,
  CertifiedRow,
  CertifyConfig,
  ProofRow,
  certify,
  policy_losses,
  prove,
  prove_groups,
)
from jobrec_jax.pipeline.experts import scorer
from jobrec_jax.pipeline.scores import KeptScores
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_arrays, null_for_nan, read_json, save_arrays, write_json
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import PairScorer
from jobrec_jax.scoring.policy import Alone, Policy

THIRDS = ('lowest third of p_qual', 'middle third', 'highest third of p_qual')
RUN = ('alpha', 'delta', 'k', 'points')  # what a run's own certificates depend on


class Scored(NamedTuple):
  """Lists, one a candidate, and what the policy does on them at each of M values of tau.

  Attributes:
    lists: relevance is eligibility.
    scores: [M, N, J] of the policy.
    p_qual: [N, J] what the expert believes.
    losses, predicted: by name, [N, M] shares of ineligible jobs, by labels and by p_qual.
  """

  lists: RankingLists
  scores: np.ndarray
  p_qual: np.ndarray
  losses: dict[str, np.ndarray]
  predicted: dict[str, np.ndarray]

  def risks(self) -> dict[str, np.ndarray]:
    """[M] mean losses."""
    return {name: values.mean(0) for name, values in self.losses.items()}


@dataclasses.dataclass(frozen=True)
class Operator:
  """The trained parts, fixed before any label of a certificate is seen."""

  pairs: PairScorer
  calibration: Calibration
  policy: Policy
  k: int
  points: int

  @classmethod
  def of(cls, bench: Bench, dataset: Dataset) -> 'Operator':
    """The operator of a stage, for a data set's records."""
    settings = bench.settings['certify']
    k, points = (settings[name] if isinstance(settings, dict) else getattr(settings, name)
                 for name in ('k', 'points'))
    return cls(scorer(bench, bench.inputs['experts'], dataset),
               bench.inputs['calibration'].calibration, bench.inputs['policy'].policy, k, points)

  @property
  def taus(self) -> np.ndarray:
    return np.linspace(self.policy.knots[0], self.policy.knots[-1], self.points)

  def __call__(self, lists: RankingLists, name: str, kept: KeptScores | None = None) -> Scored:
    """Args: kept: scores that may hold the pairs of the lists already."""
    found = kept and kept.with_policy(lists)
    if found is None:
      found = self.pairs.policy_scores(self.policy, lists.candidate, lists.job, name)
    z = self.calibration.logit(found.qualification)
    scores = np.stack([self.policy.at(found.lam, found.preference, z, float(tau))[0]
                       for tau in self.taus])
    p_qual = np.asarray(self.calibration.probability(found.qualification))
    losses, predicted = (policy_losses(scores, y, lists.mask, self.k, self.policy.temperature)
                         for y in (lists.relevance, p_qual))
    return Scored(lists, scores, p_qual, losses, predicted)


def of_run(settings: CertifyConfig) -> dict[str, Any]:
  return {name: getattr(settings, name) for name in RUN}


def draw_lists(s: dict[str, Any], truth: Truth, candidates: np.ndarray, jobs: np.ndarray,
               stream: str) -> RankingLists:
  """One list a candidate, with every label; s: settings of the stage."""
  return uniform_lists(truth.eligible, candidates, jobs, s['list_length'],
                       streams.seed32(s['seed'], stream))


def held_back(bench: Bench, operator: Operator) -> Scored:
  """The half of the calibration split that nothing was fitted to.

  Raises:
    ValueError: there is nobody in it.
  """
  dataset, truth = bench.inputs['data']
  _, candidates = calibration_halves(dataset)
  if not len(candidates):
    raise ValueError('the calibration split must hold 2 candidates or more to certify, got '
                     f"{len(candidates_of(dataset, 'calibration'))} (data.shares)")
  lists = draw_lists(bench.settings, truth, candidates, warm_jobs(dataset), 'certificate lists')
  return operator(lists, 'certificate lists')


def make_certified(bench: Bench) -> None:
  """Certificates from the held-back candidates, beside the labels of the test's."""
  dataset, truth = bench.inputs['data']
  s, rows = bench.settings, []
  promises = truth is not None and not isinstance(bench.inputs['policy'], Alone)
  if promises and len(calibration_halves(dataset)[1]):
    operator = Operator.of(bench, dataset)
    mine = held_back(bench, operator)
    others = np.unique(bench.inputs['lists'].wanted.candidate)[:s['held_out']]
    lists = draw_lists(s, truth, others, warm_jobs(dataset), 'certificate check')
    test = operator(lists, 'certificate check', bench.inputs['scores'])
    rows = certify(mine.losses, mine.predicted, operator.taus, CertifyConfig(**s['certify']),
                   test.risks())
  write_json(bench.folder / 'certified.json', [row._asdict() for row in rows])


def read_certified(bench: Bench) -> list[CertifiedRow]:
  return [CertifiedRow(**row) for row in read_json(bench.folder / 'certified.json')]


class Proof(NamedTuple):
  """Certificates and what a fresh population says of the promise.

  Attributes:
    taus: [M] that were tested.
    certified: the certificates of the run, checked on the population.
    held_back: loss -> [M] eligibility by the labels seen.
    predicted, true: loss -> [M] eligibility of the population, as believed and as it is.
    rows: how often calibration sets drawn from the population certify wrongly.
  """

  taus: np.ndarray
  certified: list[CertifiedRow]
  held_back: dict[str, np.ndarray]
  predicted: dict[str, np.ndarray]
  true: dict[str, np.ndarray]
  rows: list[ProofRow]


def make_proof(bench: Bench, market: Callable[[], Market]) -> None:
  """Draws the population of a market, scores its lists, and draws calibration sets from it."""
  dataset, _ = bench.inputs['data']
  s: dict[str, Any] = bench.settings
  certificate: CertifyConfig = s['certify']
  operator = Operator.of(bench, dataset)
  mine = held_back(bench, operator)
  people, truth = newcomers(market(), certificate.population)
  lists = draw_lists(s, truth, np.arange(len(people.candidates)), warm_jobs(dataset),
                     'fresh population')
  population = Operator.of(bench, people)(lists, 'population')
  rows = certify(mine.losses, mine.predicted, operator.taus, certificate, population.risks())
  proof = prove_all(s, people, population)
  arrays = {'taus': operator.taus}
  arrays |= {f'held_back|{k}': 1 - v.mean(0) for k, v in mine.losses.items()}
  arrays |= {f'predicted|{k}': 1 - v.mean(0) for k, v in population.predicted.items()}
  arrays |= {f'true|{k}': 1 - v for k, v in population.risks().items()}
  save_arrays(bench.folder / 'curves.npz', arrays)
  write_json(bench.folder / 'proof.json', {'certified': [row._asdict() for row in rows],
                                           'rows': [null_for_nan(row._asdict()) for row in proof]})


def read_proof(bench: Bench) -> Proof:
  arrays, about = load_arrays(bench.folder / 'curves.npz'), read_json(bench.folder / 'proof.json')

  def curves(kind: str) -> dict[str, np.ndarray]:
    return {k.split('|')[1]: v for k, v in arrays.items() if k.startswith(f'{kind}|')}
  return Proof(arrays['taus'], [CertifiedRow(**row) for row in about['certified']],
               curves('held_back'), curves('predicted'), curves('true'),
               [ProofRow(**{k: np.nan if v is None else v for k, v in row.items()})
                for row in about['rows']])


def prove_all(s: dict[str, Any], people: Dataset, population: Scored) -> list[ProofRow]:
  """With all labels, with those of applicants, and by thirds of candidates."""
  certificate, seed = s['certify'], streams.seed32(s['seed'], 'calibration sets')
  risks = population.risks()
  return [*prove(population.losses, risks, certificate, seed),
          *prove(applicants_losses(s, people, population), risks, certificate, seed,
                 "applicants' labels"),
          *prove_groups(population.losses[WHOLE], thirds(population.p_qual), certificate, seed)]


def applicants_losses(s: dict[str, Any], people: Dataset,
                      population: Scored) -> dict[str, np.ndarray]:
  """What a log shows: losses over the jobs of each list that its candidate applied to.

  Lists without an application show nothing, and are left out.
  """
  log, lists = people.interactions, population.lists
  label = np.full((len(people.candidates), len(people.jobs)), UNOBSERVED, np.int8)
  label[log.candidate, log.job] = log.qualification
  seen = label[lists.candidate, lists.job]
  kept = (seen != UNOBSERVED).any(1)
  seen = seen[kept]
  return policy_losses(population.scores[:, kept], seen == 1, seen != UNOBSERVED,
                       s['certify'].k, s['temperature'])


def thirds(p_qual: np.ndarray) -> np.ndarray:
  """[N] the third of candidates to which each belongs by the mean p_qual of its list: no label."""
  belief = p_qual.mean(1)
  return np.array(THIRDS)[np.searchsorted(np.quantile(belief, (1 / 3, 2 / 3)), belief)]
