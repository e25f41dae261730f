"""A candidate, a catalogue and an eligibility requirement in; ranked jobs with reasons out."""

from collections.abc import Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import tokenizers

from jobrec_jax.data.dataset import Dataset, Interactions
from jobrec_jax.data.tokens import BlockEncoder, BlockLengths
from jobrec_jax.models.jobrec import JobRec
from jobrec_jax.schema.align import align
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.features import FeatureExtractor
from jobrec_jax.scoring.policy import Policy

PyTree = Any


@dataclasses.dataclass(frozen=True)
class TrainedExperts:
  """Trained experts, their text encoding and the scale of their qualification logits.

  Attributes:
    model: the decoder and its experts.
    params: their parameters.
    tokenizer: the one they were trained with.
    lengths: static lengths of the token blocks they were trained with.
    calibration: b and t of `z_qual = (s_qual - b) / t`.
  """

  model: JobRec
  params: PyTree
  tokenizer: tokenizers.Tokenizer
  lengths: BlockLengths
  calibration: Calibration


@dataclasses.dataclass(frozen=True)
class Recommendation:
  """One job of a ranking.

  Attributes:
    job_id: its id in the catalogue.
    score: the policy's logit `s = s_pref + lam z_qual`; jobs are ranked by it.
    preference: s_pref, a logit.
    qualification: p_qual, the calibrated probability of being qualified.
    lam: how far eligibility counts for this pair.
    reasons: for each layer of the schema with verdicts, its fields in words: met, unmet by how
      much, or unknown.
  """

  job_id: str
  score: float
  preference: float
  qualification: float
  lam: float
  reasons: dict[str, list[str]]


class RankedJobs(NamedTuple):
  """The best jobs, best first, and `C = sum_j pi_j p_qual_j` over the whole catalogue.

  `cut` counts the candidate, job and alignment blocks that were longer than the experts' lengths
  and lost tokens.
  """

  jobs: tuple[Recommendation, ...]
  eligibility: float
  cut: dict[str, int]


def recommend(schema: Schema, candidate: Entity, catalogue: Sequence[Entity],
              experts: TrainedExperts, policy: Policy, tau: float, mesh: jax.sharding.Mesh,
              top_k: int = 5, temperature: float = 1.0, items: int = 20,
              batch: int = 16) -> RankedJobs:
  """Ranks a catalogue for a candidate, neither of which training need have seen.

  Args:
    schema: the domain's table.
    candidate: whom to recommend to.
    catalogue: the jobs to rank, at least one.
    experts: what stage 1 and calibration left.
    policy: what stage 2 left.
    tau: the eligibility asked for.
    mesh: the mesh to score on.
    top_k: how many jobs to return, at most.
    temperature: T of the softmax `pi = softmax(s / T)` over the catalogue.
    items: jobs that share one reading of the candidate.
    batch: at most this many lists of `items` jobs are scored at a time.

  Raises:
    ValueError: the catalogue is empty, a record does not fit the schema, a setting is not
      positive, or tau lies beyond what the policy was trained for.
  """
  for name, value in (('top_k', top_k), ('temperature', temperature), ('items', items),
                      ('batch', batch)):
    if value <= 0:
      raise ValueError(f'{name} must be positive, got {value}')
  policy.check(tau)
  if not catalogue:
    raise ValueError('the catalogue must hold at least one job, got none')
  schema.validate('candidate', candidate)
  for job in catalogue:
    schema.validate('job', job)
  none = np.zeros(0, np.int32)
  dataset = Dataset(schema, (candidate,), tuple(catalogue), Interactions(*[none] * 6))
  parts = mesh.shape['data'] * mesh.shape['fsdp']
  lists = min(batch, -(-len(catalogue) // items))
  blocks = BlockEncoder(dataset, experts.tokenizer, experts.lengths)
  extract = FeatureExtractor(experts.model, experts.params, blocks, mesh, items,
                             -(-lists // parts) * parts)
  index = np.arange(len(catalogue))
  features = extract(np.zeros_like(index), index)
  scores, lam = policy.score(features, experts.calibration, tau)
  p_qual = np.asarray(experts.calibration.probability(features.qualification))
  pi = np.asarray(jax.nn.softmax(scores / temperature))

  def reasons(job: Entity) -> dict[str, list[str]]:
    layers = align(schema, candidate, job).layers
    return {l.layer.name: l.reasons() for l in layers if l.reasons()}

  best = np.argsort(-np.asarray(scores), kind='stable')[:top_k]
  return RankedJobs(tuple(
      Recommendation(catalogue[j].id, float(scores[j]), float(features.preference[j]),
                     float(p_qual[j]), float(lam[j]), reasons(catalogue[j])) for j in best),
      float(pi @ p_qual), dict(blocks.cut))
