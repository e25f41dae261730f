"""The policy beside separately trained heads and the exact dual: the points of each system."""

from typing import Any, NamedTuple

from absl import logging
import jax
import numpy as np

from jobrec_jax.evaluate.frontier import (
  FrontierLists,
  FrontierPoint,
  exact_frontier,
  frontier_points,
  frontier_volume,
)
from jobrec_jax.pipeline.experts import scorer
from jobrec_jax.pipeline.measures.subject import STAGE_2
from jobrec_jax.pipeline.policy import make_head, requirements
from jobrec_jax.pipeline.scores import HELD_OUT
from jobrec_jax.pipeline.settings import PolicySettings, SweepSettings
from jobrec_jax.pipeline.stage import Bench
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import (
  load_arrays,
  null_for_nan,
  read_json,
  save_arrays,
  write_json,
)
from jobrec_jax.scoring.policy import PolicyInputs, head_scores, policy_inputs
from jobrec_jax.sharding import own_mesh
from jobrec_jax.train.policy import PolicyTrial
from jobrec_jax.train.sweep import make_policy_sweep, policy_grid

CONDITIONED, SEPARATE, EXACT = 'one policy', 'a head for each τ', 'exact dual'


class Frontier(NamedTuple):
  """What came out, for each kind of lists.

  Attributes:
    points: every system at every requirement.
    volumes: the hypervolume of (J, C) of each system.
    curves: [N, 2] (C, J) of the exact dual between the least and the greatest C of the points.
  """

  points: dict[str, list[FrontierPoint]]
  volumes: dict[str, dict[str, float]]
  curves: dict[str, np.ndarray]


def not_compared(p: PolicySettings) -> str:
  """Why a policy does not stand beside heads apart, whose C and J are the published ones; '' where
  it does."""
  if (p.top_k, p.worth, p.eligibility) == (0, 'preference', 'believed'):
    return ''
  return ('heads apart and the frontier are of the believed expectation: policy.top_k must be 0, '
          "policy.eligibility 'believed' and policy.objective not 'expected_surplus', got "
          f'{p.top_k}, {p.eligibility!r} and {p.objective!r}')


def make_sweep(bench: Bench) -> None:
  """Trains the heads on stage 2's lists, and measures all systems there and on held-out lists."""
  p: PolicySettings = bench.settings['policy']
  if why := not_compared(p):
    raise ValueError(why)
  score = scorer(bench, bench.inputs['experts'], bench.inputs['data'].dataset)
  held_out = bench.inputs['lists'].held_out
  features = score.features(held_out.candidate, held_out.job, 'held-out features')
  inputs = {STAGE_2: bench.inputs['inputs'],
            HELD_OUT: policy_inputs(features, held_out, bench.inputs['calibration'].calibration)}
  points = measure(bench, p, inputs)
  kinds = {name: lists_of(x) for name, x in inputs.items()}
  how = {'objective': p.objective, 'temperature': p.temperature}
  volumes = {name: {system: frontier_volume([r for r in rows if r.system == system], kinds[name],
                                            **how)
                    for system in dict.fromkeys(r.system for r in rows)}
             for name, rows in points.items()}
  save_arrays(bench.folder / 'curves.npz', {
      name: exact_frontier(kinds[name], min(r.reached for r in rows),
                           max(r.reached for r in rows), **how) for name, rows in points.items()})
  write_json(bench.folder / 'frontier.json', null_for_nan({
      'points': {name: [r._asdict() for r in rows] for name, rows in points.items()},
      'volumes': volumes}))


def read_sweep(bench: Bench) -> Frontier:
  about = read_json(bench.folder / 'frontier.json')

  def number(x: Any) -> Any:
    return np.nan if x is None else x
  points = {name: [FrontierPoint(**{k: number(v) for k, v in row.items()}) for row in rows]
            for name, rows in about['points'].items()}
  volumes = {name: {k: number(v) for k, v in of.items()} for name, of in about['volumes'].items()}
  return Frontier(points, volumes, load_arrays(bench.folder / 'curves.npz'))


def lists_of(inputs: PolicyInputs) -> FrontierLists:
  return FrontierLists(np.asarray(inputs.preference), np.asarray(jax.nn.sigmoid(inputs.z_qual)),
                       np.asarray(inputs.mask), np.asarray(inputs.positive))


def measure(bench: Bench, p: PolicySettings,
            inputs: dict[str, PolicyInputs]) -> dict[str, list[FrontierPoint]]:
  """Points of every system on each of the named lists; heads train on stage 2's alone."""
  s: SweepSettings = bench.settings['sweep']
  policy, attainable, _ = bench.inputs['policy']
  taus = np.array(requirements(p, attainable))
  seeds = {streams.seed32(seed, 'policy') >> 1: seed for seed in s.seeds}  # JAX wants int32
  trials = policy_grid(p, taus, list(seeds), s.learning_rates, s.rules)
  names = [label(trials, seeds, i) for i in range(len(trials.seed))]
  head = make_head(p, 1)
  logging.info('sweep: compiling one program for %d heads', len(trials.seed))
  swept = make_policy_sweep(head, p, own_mesh(bench.resources.mesh))(inputs[STAGE_2], trials)
  scored = jax.jit(jax.vmap(
      lambda params, x: head_scores(head, params, x, np.zeros(1, np.float32))[0], (0, None)))
  asked = [taus[np.argmin(abs(t[0] - taus))] for t in trials.taus]
  points = {}
  for kind, x in inputs.items():
    systems = [(CONDITIONED, tau, policy.scores_at(x, tau)) for tau in taus]
    systems += list(zip(names, asked, np.asarray(scored(swept.params, x))))
    points[kind] = frontier_points(systems, lists_of(x), taus[-1], objective=p.objective,
                                   constraint=p.constraint, temperature=p.temperature)
  return points


def label(trials: PolicyTrial, seeds: dict[int, int], i: int) -> str:
  """The name of a trial, with what the sweep varies."""
  varied = [(k, getattr(trials, k)[i]) for k in ('learning_rate', 'ki', 'kp', 'kd', 'nu')
            if len(np.unique(getattr(trials, k))) > 1]
  if len(seeds) > 1:
    varied.append(('seed', seeds[int(trials.seed[i])]))
  return ', '.join([SEPARATE, *(f'{k} {v:g}' for k, v in varied)])
