"""The road: every stage of a run and what each stands on. The one place that wires them."""

import dataclasses
import functools
from pathlib import Path

from jobrec_jax.generate.write import ReasonWriter
from jobrec_jax.pipeline import (
  calibration,
  censoring,
  certify,
  chain,
  data,
  dial,
  evaluate,
  experts,
  explain,
  frontier,
  linear_start,
  logged,
  policy,
  scores,
  selection,
  sweep,
  writer,
)
from jobrec_jax.pipeline.model import ModelSpec
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import Stage
from jobrec_jax.pipeline.store import Resources
from jobrec_jax.pipeline.text import Text
from jobrec_jax.pipeline.tokenizer import make_tokenizer, read_tokenizer
from jobrec_jax.schema.files import expanded
from jobrec_jax.train.watch import Watching

# Settings and sections that no stage's key holds, for they change no result: devices, progress,
# sizes of batches that are scored, where things lie, files for others.
FREE = frozenset({'log_every', 'save_seconds', 'mesh', 'features', 'export', 'data.folder',
                  'backbone.path', 'backbone.adapter'})


@dataclasses.dataclass(frozen=True)
class Road:
  """The stages of a run, in their order.

  Attributes:
    data: records, interactions and truth, audited.
    tokenizer: trained on the train split, or a backbone's, and how long token blocks may be; with
      `experts.chain` the stage that writes reasons behind the verdicts of every pair.
    linear: the regressions of margins and words at which the experts start.
    warm_up: stage 1A, the experts' parameters.
    cooperative: stage 1B, the experts.
    calibration: b and t of p_qual.
    inputs: stage 2's lists as the experts see them.
    policy: one for every requirement.
    catalogue: what recommending needs of the data.
    lists: the held-out lists.
    scores: what the experts and the policy say of them.
    evaluation: every number of the report.
    certified: certificates from held-back labels; only where the truth is known.
    frontier: what the best policies reach on the held-out lists.
    dial: rankings of some held-out candidates at every knot, to look at.
  """

  data: Stage
  tokenizer: Stage
  linear: Stage
  warm_up: Stage
  cooperative: Stage
  calibration: Stage
  inputs: Stage
  policy: Stage
  catalogue: Stage
  lists: Stage
  scores: Stage
  evaluation: Stage
  certified: Stage
  frontier: Stage
  dial: Stage


def resources(settings: Settings, watching: Watching = Watching()) -> Resources:
  """What makes the results of these settings without changing them."""
  return Resources(settings.mesh, settings.features, settings.log_every, settings.save_seconds,
                   settings.backbone.path, str(settings.data.place), watching,
                   settings.backbone.adapter)


def road(settings: Settings) -> Road:
  """Describes all stages; nothing runs but the digests of outside files."""
  s, of_data = settings, data.data_stage(settings)
  trained = _train(s, of_data)
  linear, warm_up, cooperative, calibrated = trained[1:]
  expert = {'data': of_data, 'experts': cooperative, 'tokenizer': trained[0]}
  inputs = Stage('inputs', 4, {'seed': s.seed, 'lists': s.policy.lists,
                               'list_length': s.policy.list_length},
                 expert | {'calibration': calibrated}, policy.make_inputs, policy.read_inputs,
                 divided=True)
  learned = dataclasses.replace(s.policy, grid=2, held_out=1)  # neither changes what is learned
  censored = {k: v for k, v in cooperative.inputs.items() if k == 'censoring'}
  of_log = Stage('logged', 1, {'seed': s.seed, 'list_length': s.policy.list_length},
                 expert | censored | {'calibration': calibrated}, logged.make_logged,
                 logged.read_logged, divided=True)
  driven = {'logged': of_log} if s.policy.eligibility == 'estimated' else {}
  of_policy = Stage('policy', 4, {'seed': s.seed, 'policy': learned}, {'inputs': inputs, **driven},
                    policy.make_policy, policy.read_policy)
  lists = Stage('lists', 3, {
      'seed': s.seed, 'held_out': s.policy.held_out, 'list_length': s.policy.list_length,
      'candidates': s.evaluate.candidates, 'source': s.data.source, 'size': s.data.size,
      'version': s.market.version if s.data.source == 'jobrec_synth' else None},
      {'data': of_data}, scores.make_lists, scores.read_lists)
  shown_by = {'policy': of_policy} if policy.learns(s.policy) else {}
  of_scores = Stage('scores', 2, {'knots': s.policy.knots},
                    expert | shown_by | {'lists': lists, 'logged': of_log},
                    scores.make_scores, scores.read_scores, divided=True)
  blanked = Stage('blanked', 1, {}, expert | {'lists': lists}, scores.make_blanked,
                  scores.read_blanked, divided=True)
  rivals = {name: Stage(scores.rival_stage(name), 2, {'rival': name},
                        {'data': of_data, 'lists': lists}, scores.make_rival,
                        scores.read_list_scores) for name in s.evaluate.rivals}
  canaries = Stage('canaries', 1, {'seed': s.seed}, {'data': of_data, 'lists': lists},
                   scores.make_canaries, scores.read_list_scores)
  evaluation = Stage('evaluation', 10, {'seed': s.seed, 'evaluate': s.evaluate, 'policy': s.policy},
                     {'data': of_data, 'lists': lists, 'policy': of_policy, 'inputs': inputs,
                      'calibration': calibrated, 'scores': of_scores, 'blanked': blanked,
                      'canaries': canaries, 'logged': of_log, **rivals},
                     evaluate.make_evaluation, evaluate.read_evaluation)
  certified = Stage('certified', 1, {
      'seed': s.seed, 'held_out': s.policy.held_out, 'list_length': s.policy.list_length,
      'certify': certify.of_run(s.certify)},
      expert | {'calibration': calibrated, 'policy': of_policy, 'lists': lists,
                'scores': of_scores}, certify.make_certified, certify.read_certified, divided=True)
  shown = {'data': of_data, 'lists': lists, 'scores': of_scores, 'policy': of_policy,
           'calibration': calibrated}
  of_frontier = Stage('frontier', 1, {'objective': s.policy.objective}, shown,
                      frontier.make_frontier, frontier.read_frontier)
  of_dial = Stage('dial', 2, {}, shown, dial.make_dial, dial.read_dial)
  return Road(of_data, trained[0], linear, warm_up, cooperative, calibrated, inputs, of_policy,
              data.catalogue_stage(s, of_data), lists, of_scores, evaluation, certified,
              of_frontier, of_dial)


def sweep_stage(s: Settings, r: Road) -> Stage[sweep.Frontier]:
  """Heads trained one for each requirement, beside the one policy and the exact dual."""
  inputs = dict(r.certified.inputs)
  return Stage('sweep', 2, {'sweep': s.sweep, 'policy': s.policy},
               inputs | {'inputs': r.inputs, 'lists': r.lists}, sweep.make_sweep, sweep.read_sweep,
               divided=True)


def writer_stage(s: Settings, r: Road) -> Stage[ReasonWriter]:
  """Stage 1C: the writer of reasons, on the experts of stage 1B.

  Raises:
    ValueError: the data are not simulated, so that nobody knows the causes.
  """
  if s.data.source != 'simulated':
    raise ValueError("data.source must be 'simulated', where the causes of every pair are known, "
                     f'to learn from them what to write, got {s.data.source!r}')
  inputs = {k: r.certified.inputs[k] for k in ('data', 'experts', 'tokenizer')}
  return Stage('writer', 2, {'seed': s.seed, 'writer': s.writer}, inputs,
               functools.partial(writer.make_writer, market=lambda: data.market_of(s)),
               writer.read_writer, together=True)


def chain_stage(s: Settings) -> Stage[Text]:
  """Reasons of all pairs, by the writer of a run that judges first, for experts who read them."""
  first = dataclasses.replace(s, experts=dataclasses.replace(s.experts, chain=0))
  base = road(first)
  writer = writer_stage(first, base)
  return Stage('chain', 1, {'tokens': s.experts.chain},
               {'data': base.data, 'tokenizer': base.tokenizer, 'writer': writer},
               chain.make_chain, chain.read_chain)


def used_beside(s: Settings, r: Road) -> list[Stage]:
  """Stages that a run need not have, and that recommending uses where it has them."""
  return [writer_stage(s, r)] if s.data.source == 'simulated' else []


def others(s: Settings, r: Road) -> list[Stage]:
  """Stages beside the road that a script makes of a run where it is asked to."""
  if s.data.source != 'simulated':
    return [sweep_stage(s, r)]
  return [sweep_stage(s, r), writer_stage(s, r), explained_stage(s, r), proof_stage(s, r)]


def explained_stage(s: Settings, r: Road) -> Stage[explain.Judged]:
  """Reasons of held-out pairs against their true causes.

  Raises:
    ValueError: as `writer_stage`.
  """
  of_writer = writer_stage(s, r)
  return Stage('explained', 3, {'seed': s.seed, 'explain': s.explain},
               dict(of_writer.inputs) | {'writer': of_writer},
               functools.partial(explain.make_explained, market=lambda: data.market_of(s)),
               explain.read_explained)


def selection_stage(s: Settings, r: Road) -> Stage[dict[str, selection.Selected]]:
  """Labels, and the pairs of them that experts review."""
  return Stage('selection', 2, {'seed': s.seed, 'refine': s.refine}, {'data': r.data},
               selection.make_selection, selection.read_selection)


def proof_stage(s: Settings, r: Road) -> Stage[certify.Proof]:
  """The check of a run's certificates on a fresh population.

  Raises:
    ValueError: the data are not simulated, so that no candidate can be drawn anew.
  """
  if s.data.source != 'simulated':
    raise ValueError("data.source must be 'simulated', where every label is known and candidates "
                     f'can be drawn anew, got {s.data.source!r}')
  return Stage('proof', 1, {'seed': s.seed, 'list_length': s.policy.list_length,
                            'temperature': s.policy.temperature, 'certify': s.certify},
               dict(r.certified.inputs),
               functools.partial(certify.make_proof, market=lambda: data.market_of(s)),
               certify.read_proof, divided=True)


def _train(s: Settings, of_data: Stage) -> tuple[Stage, ...]:
  """Tokenizer, the linear start, stages 1A and 1B, calibration."""
  files = backbone_files(s)
  spec = ModelSpec(s.tokenizer, s.model, s.lora, s.backbone.dtype, bool(s.backbone.path))
  common = {'seed': s.seed, 'spec': spec, 'missing': s.experts.missing}
  tokenizer = Stage('tokenizer', 4, common, {'data': of_data},
                    make_tokenizer, read_tokenizer, files)
  if s.experts.chain:
    tokenizer = chain_stage(s)
  text = {'data': of_data, 'tokenizer': tokenizer}
  linear = Stage('linear', 1, {}, dict(text), linear_start.make_linear, linear_start.read_linear)
  lists = {k: getattr(s.lists, k) for k in ('preference_negatives', 'preference_policy', 'across')}
  common = common | {'beta': s.experts.beta}
  warm_up = Stage('warm_up', 7, common | {'lists': lists, 'stage': s.warm_up},
                  text | {'linear': linear},
                  experts.make_warm_up, experts.read_experts, files + adapter_files(s),
                  together=True)
  inputs, e = text | {'warm_up': warm_up}, s.experts
  choice = {'censoring': e.censoring, 'ips_clip': e.ips_clip, 'self_censoring': e.self_censoring}
  censored = {}
  if (e.censoring, e.self_censoring) != ('none', 'none'):
    censored = {'censoring': Stage('censoring', 4, choice, dict(inputs),
                                   censoring.make_censoring, censoring.read_censoring,
                                   divided=True)}
  cooperative = Stage('cooperative', 6, common | {
      'lists': dataclasses.asdict(s.lists), 'stage': s.cooperative,
      'task_weights': e.task_weights,
      'fixed_weights': e.fixed_weights if e.task_weights == 'fixed' else None},
      inputs | censored | {'linear': linear}, experts.make_cooperative, experts.read_experts,
      files, together=True)
  calibrated = Stage('calibration', 4, {'calibration': e.calibration},
                     {'experts': cooperative, **text}, calibration.make_calibration,
                     calibration.read_calibration, divided=True)
  return tokenizer, linear, warm_up, cooperative, calibrated


def backbone_files(s: Settings) -> tuple[Path, ...]:
  """The pretrained decoder's file or folder, whose content enters the keys."""
  if not s.backbone.path:
    return ()
  from jobrec_jax.weights.backbone import locate  # here, for readers of weights take their time
  return (locate(s.backbone.path),)


def adapter_files(s: Settings) -> tuple[Path, ...]:
  """The folder of the adapters that training starts from."""
  return (expanded(s.backbone.adapter),) if s.backbone.adapter else ()
