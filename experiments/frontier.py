"""The policy beside separately trained heads and the exact dual: one table and one figure."""

import json

from absl import logging
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments.alignment import Policies, make_head
from experiments.setup import Run, Settings
from jobrec_jax.evaluate.frontier import (
  FrontierLists,
  FrontierPoint,
  exact_frontier,
  frontier_points,
  frontier_volume,
)
from jobrec_jax.report import figures
from jobrec_jax.schema.files import write_text
from jobrec_jax.scoring.policy import PolicyInputs, head_scores
from jobrec_jax.sharding import make_mesh
from jobrec_jax.train.sweep import make_policy_sweep, policy_grid

CONDITIONED, SEPARATE = 'one policy', 'a head for each τ'


def lists_of(inputs: PolicyInputs) -> FrontierLists:
  return FrontierLists(np.asarray(inputs.preference), np.asarray(jax.nn.sigmoid(inputs.z_qual)),
                       np.asarray(inputs.mask), np.asarray(inputs.positive))


def measure(config: ConfigDict, settings: Settings, policies: Policies,
            lists: dict[str, PolicyInputs]) -> dict[str, list[FrontierPoint]]:
  """Points of every system on each of the named lists; heads train on stage 2's alone.

  The sweep trains a head for each requirement, seed, learning rate and dual rule of `sweep.*`.
  """
  s = config.sweep
  taus = np.array(policies.taus[-len(policies.trained):])
  trials = policy_grid(settings.policy, taus, s.seeds, s.learning_rates, s.rules)
  head = make_head(config, 1)
  logging.info('sweep: %d heads in one program', len(trials.seed))
  swept = make_policy_sweep(head, settings.policy, make_mesh(settings.mesh))(
      policies.inputs, trials)
  scored = jax.jit(jax.vmap(lambda params, inputs: head_scores(head, params, inputs)[0],
                            (0, None)))
  p = settings.policy
  points = {}
  for name, inputs in lists.items():
    systems = [(CONDITIONED, tau, policies.policy.scores_at(inputs, tau)) for tau in taus]
    systems += [(label(config, trials, i), taus[np.argmin(abs(trials.taus[i, 0] - taus))], scores)
                for i, scores in enumerate(np.asarray(scored(swept.params, inputs)))]
    points[name] = frontier_points(systems, lists_of(inputs), taus[-1], objective=p.objective,
                                   constraint=p.constraint, temperature=p.temperature)
  return points


def label(config: ConfigDict, trials, i: int) -> str:
  """The name of a trial, with what the sweep varies."""
  varied = [(k, getattr(trials, k)[i]) for k in ('learning_rate', 'ki', 'kp', 'kd', 'nu')
            if len(np.unique(getattr(trials, k))) > 1]
  if len(config.sweep.seeds) > 1:
    varied.append(('seed', trials.seed[i]))
  return ', '.join([SEPARATE, *(f'{k} {v:g}' for k, v in varied)])


def table(config: ConfigDict, settings: Settings, points: dict[str, list[FrontierPoint]],
          lists: dict[str, PolicyInputs]) -> str:
  """Markdown: every point, then each system's share of the exact dual's hypervolume."""
  p = settings.policy
  lines = [f'Objective: {p.objective}. Regret is the loss of J against the exact dual at the '
           'same C, as a share of what the range of requirements costs.', '',
           '| lists | system | τ | C | J | regret | InfoNCE |',
           '|---|---|---:|---:|---:|---:|---:|']
  volumes = []
  for name, rows in points.items():
    lines += [f'| {name} | {r.system} | {r.tau:.4f} | {r.reached:.4f} | {r.value:.4f} | '
              f'{r.regret:.2%} | {r.info_nce:.4f} |' for r in rows]
    by_system = {}
    for r in rows:
      by_system.setdefault(r.system, []).append(r)
    volume = {s: frontier_volume(v, lists_of(lists[name]), objective=p.objective,
                                 temperature=p.temperature) for s, v in by_system.items()}
    volumes += [f'| {name} | {s} | {v:.4f} | {v / volume["exact dual"]:.1%} |'
                for s, v in volume.items()]
  return '\n'.join([*lines, '', '| lists | system | hypervolume of (J, C) | of the exact dual\'s |',
                    '|---|---|---:|---:|', *volumes]) + '\n'


def report(config: ConfigDict, settings: Settings, run: Run, policies: Policies,
           lists: dict[str, PolicyInputs]) -> str:
  """Writes frontier.json, frontier.md and figures/frontier.png; returns the table."""
  points = measure(config, settings, policies, lists)
  text = table(config, settings, points, lists)
  write_text(run / 'frontier.json', json.dumps(
      [{'lists': name} | r._asdict() for name, rows in points.items() for r in rows]) + '\n')
  write_text(run / 'frontier.md', text)
  p = settings.policy
  curves = {name: exact_frontier(lists_of(lists[name]), min(r.reached for r in rows),
                                 max(r.reached for r in rows), objective=p.objective,
                                 temperature=p.temperature) for name, rows in points.items()}
  figures.save(figures.frontier(points, curves), run / 'figures/frontier.png')
  return text
