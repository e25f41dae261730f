"""Stage 2: its lists as the frozen experts see them, and one policy for every requirement."""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from absl import logging
import jax
import jax.numpy as jnp
import numpy as np

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.lists import RankingLists, policy_lists, stage_2_of
from jobrec_jax.evaluate.control import tau_grid
from jobrec_jax.evaluate.off_policy import rising, shrunk_gap
from jobrec_jax.lagrangian.attainable import check_attainable
from jobrec_jax.lagrangian.diagnosis import diagnose
from jobrec_jax.models.policy import PolicyHead, input_statistics
from jobrec_jax.pipeline.artefacts import load_alone, load_policy, save_alone, save_params
from jobrec_jax.pipeline.experts import scorer
from jobrec_jax.pipeline.logged import Logged
from jobrec_jax.pipeline.perspectives import perspectives, why_absent
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.pipeline.stage import Bench, plain
from jobrec_jax.schema import streams
from jobrec_jax.schema.files import load_arrays, save_arrays, write_json
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.policy import (
    NO_TILTS,
    Alone,
    Policy,
    PolicyInputs,
    Tilts,
    eligibility,
    head_scores,
    policy_inputs,
    worth_inputs,
    worth_of,
)
from jobrec_jax.train import speed
from jobrec_jax.train.loop import MetricsWriter
from jobrec_jax.train.policy import (
    PolicyResult,
    PolicyTrial,
    make_policy_trainer,
    policy_trial,
)
from jobrec_jax.train.tilts import align, attainable, exact_start

PyTree = Any
MARGIN = 0.08  # share of the attainable range beyond the outer knots
SETTLED, COURSE = 0.01, 8  # a multiplier has settled so near its tau; fewer epochs say nothing


class TrainedPolicy(NamedTuple):
  """The policy, and what it can be asked for on stage 2's lists.

  Attributes:
    policy: for every tau in its range.
    attainable: the least and greatest C that any policy reaches there.
    history: the course of the means over epochs, [epochs, K] each; empty where nothing is learned.
  """

  policy: Policy
  attainable: tuple[float, float]
  history: dict[str, np.ndarray]


def make_inputs(bench: Bench) -> None:
  """Stage 2's lists and the experts' features of their pairs, computed once.

  A log that teaches one perspective alone has none: what is kept then is why.
  """
  s, dataset = bench.settings, bench.inputs['data'].dataset
  taught = perspectives(dataset)
  if len(taught) == 1:
    (absent,) = set(PERSPECTIVES) - set(taught)
    save_alone(bench.folder, Alone(*taught, why_absent(dataset, absent)))
    return
  lists = stage_2_lists(dataset, s['list_length'], s['lists'], s['seed'])
  score = scorer(bench, bench.inputs['experts'], dataset)
  features = score.features(lists.candidate, lists.job, 'stage 2 features')
  inputs = policy_inputs(features, lists, bench.inputs['calibration'].calibration)
  save_arrays(bench.folder / 'inputs.npz', {
      f.name: np.asarray(getattr(inputs, f.name)) for f in dataclasses.fields(PolicyInputs)})
  save_arrays(bench.folder / 'lists.npz', {
      name: getattr(lists, name) for name in ('candidate', 'job', 'relevance', 'mask')})


def read_inputs(bench: Bench) -> PolicyInputs | Alone:
  return load_alone(bench.folder) or PolicyInputs(**jax.tree.map(
      jnp.asarray, load_arrays(bench.folder / 'inputs.npz')))


def stage_2_lists(dataset: Dataset, items: int, count: int, seed: int) -> RankingLists:
  """The lists that stage 2 is fitted on; see `data.lists.stage_2_of`.

  Args:
    dataset: of the run.
    items, count: policy.list_length and policy.lists.
    seed: of the run.
  """
  jobs, wanted, _ = stage_2_of(dataset)
  return policy_lists(dataset, 'train', items, count, streams.seed32(seed, 'stage 2 lists'), jobs,
                      wanted)


def make_head(p: PolicySettings, outputs: int) -> PolicyHead:
  return PolicyHead(widths=(p.width,), bound=p.bound, outputs=outputs, kind=p.head)


def learns(p: PolicySettings) -> bool:
  """Whether training can better what it starts from.

  The exact dual's policy is the best there is for the expected score on the lists and scores that
  training sees, with any head: from there an optimiser would make steps of rounding alone.
  """
  return p.head != 'off' and not (p.start == 'exact' and p.objective != 'info_nce')


class Fitted(NamedTuple):
  """A trained head, the seconds behind compilation, and its matrix products; see `train.speed`."""

  result: PolicyResult
  seconds: float
  flops: Mapping[str, float]


def fit(p: PolicySettings, inputs: PolicyInputs, taus: np.ndarray, seed: int) -> Fitted:
  """A head with an output for each tau."""
  logging.info('policy: compiling %d epochs for %d requirements as one program', p.epochs,
               len(taus))
  return Fitted(*speed.timed(make_policy_trainer(make_head(p, len(taus)), p), inputs,
                             trial_of(p, inputs, taus, seed)))


def trial_of(p: PolicySettings, inputs: PolicyInputs, taus: np.ndarray, seed: int) -> PolicyTrial:
  start = exact_start(p, inputs, taus) if p.start == 'exact' else ()
  return policy_trial(p, taus, streams.seed32(seed, 'policy') >> 1, *start)  # JAX wants an int32


def unconstrained(p: PolicySettings, inputs: PolicyInputs, seed: int) -> float:
  """The C that comes without any requirement.

  The expected score is greatest at s = a; what serves the applied jobs best is learned, by the
  conditioned head where there is none, so that the grid of tau is that of a policy with one.
  """
  if p.objective != 'info_nce':
    return attainable(inputs, dataclasses.replace(p, constraint='inequality'))[0]
  if p.head == 'off':
    p = dataclasses.replace(p, head='conditioned')
  nothing = np.zeros(1, np.float32)
  free = fit(p, inputs, nothing, seed).result
  scores = head_scores(make_head(p, 1), free.params, inputs, nothing)[0]
  return float(eligibility(scores, inputs.z_qual, inputs.mask, p.temperature).mean())


def requirements(p: PolicySettings, attainable: tuple[float, float]) -> list[float]:
  """The tau to report, ascending: those that were asked for, or a grid over what is attainable.

  Raises:
    ValueError: one cannot be reached. Under 'inequality' a tau below the unconstrained C is
      already met.
  """
  asked = [round(float(t), 4) for t in sorted(p.taus or tau_grid(*attainable, p.grid))]
  for tau in asked:
    check_attainable(max(tau, attainable[0]) if p.constraint == 'inequality' else tau, attainable)
  return asked


def knots_of(p: PolicySettings, attainable: tuple[float, float]) -> np.ndarray:
  """[K] requirements from end to end of what is attainable, a margin inside, and of what is asked.

  An inequality's least C is reached with mu = 0. Any other end is a limit, at an infinite mu.
  """
  (low, high), asked = attainable, requirements(p, attainable)
  # An estimate moves the ends, and the grid must lie between them.
  margin = MARGIN * (high - low) / (2 if p.eligibility == 'estimated' else 1)
  first = low if p.constraint == 'inequality' else min(low + margin, *asked)
  knots = np.linspace(first, max(high - margin, *asked), p.knots, dtype=np.float32)
  if float(knots[0]) > first:  # a rounding above what comes of its own accord would ask for mu > 0
    knots[0] = np.nextafter(knots[0], np.float32(-np.inf))
  return knots


def make_policy(bench: Bench) -> None:
  """One policy for all knots; its range covers whatever `policy.taus` asks for."""
  p: PolicySettings = bench.settings['policy']
  inputs: PolicyInputs | Alone = bench.inputs['inputs']
  if isinstance(inputs, Alone):
    logging.info('policy: none, for %s', inputs.why)
    save_alone(bench.folder, inputs)
    return
  seed = bench.settings['seed']
  inputs = worth_inputs(p.worth, inputs)
  low, high = attainable(inputs, p)
  if p.constraint == 'inequality':
    low = unconstrained(p, inputs, seed)
  logging.info("policy: C can lie in [%.4f, %.4f] on stage 2's lists", low, high)
  knots = knots_of(p, (low, high))
  history, params = {}, input_statistics(inputs.hidden[..., 0, :], inputs.hidden[..., 1, :],
                                         inputs.mask)
  if learns(p):
    fitted = fit(p, inputs, knots, seed)
    history = {k: np.asarray(v) for k, v in fitted.result.history.items()}
    if not all(np.isfinite(x).all() for x in history.values()):
      raise ValueError('policy: the loss must stay finite, got a value that is not; lower '
                       f'policy.learning_rate = {p.learning_rate:g}')
    report_multipliers(p, inputs, history, knots)
    show(bench, fitted, knots)
    params = fitted.result.params
  head = make_head(p if learns(p) else dataclasses.replace(p, head='off'), len(knots))
  tilts = NO_TILTS
  if p.start == 'exact':
    params, tilts, kept = align(head, params, p, inputs, knots)
    if p.eligibility == 'estimated':
      policy = Policy(head, params, knots, p.temperature, p.constraint, tilts, p.top_k, p.worth)
      tilts = estimated(policy, bench.inputs['logged'])
      low, high = float(tilts.taus[0]), float(tilts.taus[-1]) + high - float(knots[-1])
      knots = np.linspace(*tilts.taus[[0, -1]], p.knots, dtype=np.float32)
      if requirements(p, (low, high))[-1] > knots[-1]:
        raise ValueError(f'policy.taus must be at most {knots[-1]:.4f}, as far as the policy is '
                         f'estimated to reach, got {p.taus}')
    logging.info('policy: training betters the exact dual at %d of %d requirements; mu is %.3g to '
                 '%.3g', kept.sum(), len(kept), tilts.mu.min(), tilts.mu.max())
  save_params(bench.folder / 'params.safetensors', jax.device_get(params))
  save_arrays(bench.folder / 'history.npz', history)
  write_json(bench.folder / 'policy.json', {
      'knots': knots.tolist(), 'constraint': p.constraint, 'temperature': p.temperature,
      'head': head.kind, 'width': p.width, 'bound': p.bound, 'attainable': [low, high],
      'top_k': p.top_k, 'worth': p.worth,
      'tilts': [x.tolist() for x in tilts],
      'list_length': round(float(np.asarray(inputs.mask).sum(1).mean()))})


def estimated(policy: Policy, logged: Logged) -> Tilts:
  """The multipliers of a policy by the C that the log of held-out applicants says they have.

  At every requirement, C as it is believed on stage 2's lists is moved by as much as the doubly
  robust estimate on the lists of the log lies above the belief there, as far as that is told from
  nothing; see `evaluate.off_policy.shrunk_gap`.

  Raises:
    ValueError: the log does not tell.
  """
  lists = logged.fitted
  if lists is None:
    raise ValueError("policy.eligibility must be 'believed' where the log has no outcomes of "
                     "candidates whom training does not know, got 'estimated'")
  mask, mu = lists.lists.mask, policy.tilts.mu
  base, believed = worth_of(policy.worth, lists.preference, lists.z_qual), lists.believed
  by_word = lists.outcomes, believed
  found = np.stack([[policy.eligibility(base + m * believed, q, mask) for q in by_word]
                    for m in mu])  # [M, 2, N]
  moved = rising(policy.tilts.taus + shrunk_gap(found[:, 0], found[:, 1]))
  logging.info('policy: by the log of %d candidates C lies %+.4f to %+.4f beside what is believed',
               len(mask), *(f(moved - policy.tilts.taus) for f in (np.min, np.max)))
  return Tilts(moved, mu)


def show(bench: Bench, fitted: Fitted, knots: np.ndarray) -> None:
  """The means of every epoch for whoever watches, and the speed of a step, one of one program.

  A step's tokens are not counted: its inputs are hidden states.
  """
  p: PolicySettings = bench.settings['policy']
  inputs, history = bench.inputs['inputs'], fitted.result.history
  steps, epochs = max(1, len(inputs.preference) // p.batch), len(history['eligibility'])
  total = steps * epochs
  row = speed.scalars(fitted.seconds / total, speed.ideal_seconds(fitted.flops) / total)
  MetricsWriter(bench.folder / 'metrics.jsonl').write(stage='policy', step=total, **row)
  logging.info('policy: %d steps in %.1f s', total, fitted.seconds)
  with bench.resources.watching.stage(bench.folder.name, plain(bench.settings)) as watch:
    for epoch, means in enumerate(zip(*map(np.asarray, history.values())), 1):
      watch.write(epoch * steps, {
          f'policy/{name}/tau={tau:.3f}': float(x) for name, values in zip(history, means)
          for tau, x in zip(knots, values)} | (row if epoch == epochs else {}))
    if watch.folder is not None:  # one epoch, for a trace of all would be too long
      head = make_head(p, len(knots))
      program = jax.jit(make_policy_trainer(head, dataclasses.replace(p, epochs=1)))
      trial = trial_of(p, inputs, knots, bench.settings['seed'])
      watch.trace(lambda: jax.block_until_ready(program(inputs, trial)))


def report_multipliers(p: PolicySettings, inputs: PolicyInputs, history: dict[str, np.ndarray],
                       knots: np.ndarray) -> None:
  """Logs constraints that did not settle. All are within the exact dual's reach."""
  mu, reached = history['multiplier'], history['eligibility']
  if len(mu) < COURSE:
    return
  exact = exact_start(p, inputs, knots).multipliers
  for k, tau in enumerate(knots):
    diagnosis = diagnose(mu[:, k], tau - reached[:, k], tolerance=SETTLED, name=f'C >= {tau:.4f}',
                         met_at=exact[k])
    if diagnosis.verdict != 'settled':
      logging.info('policy: %s', diagnosis.message)


def read_policy(bench: Bench) -> TrainedPolicy | Alone:
  policy, attainable = load_policy(bench.folder)
  if isinstance(policy, Alone):
    return policy
  return TrainedPolicy(policy, attainable, load_arrays(bench.folder / 'history.npz'))
