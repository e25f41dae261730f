"""The sections of a run's report: which rows, figures and words stand together."""

from collections.abc import Sequence
import math
import re

import jax
import numpy as np

from jobrec_jax.evaluate.certification import CRC, LTT, CertifiedRow, CertifyConfig
from jobrec_jax.evaluate.eligibility import reliability
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.pipeline.certify import Proof
from jobrec_jax.pipeline.evaluate import Evaluation
from jobrec_jax.pipeline.frontier import Frontiers, as_points
from jobrec_jax.pipeline.measures.subject import (
    APPLICANTS,
    BOUND,
    CEILINGS,
    ELIGIBILITY,
    OF_THE_WAY,
    PREFERENCE,
    QUALIFICATION,
    STAGE_2,
    UNIFORM,
)
from jobrec_jax.pipeline.measures.tradeoff import KNOTS, POLICY
from jobrec_jax.pipeline.policy import TrainedPolicy
from jobrec_jax.pipeline.provenance import UNKNOWN, told
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.scores import FULL, HELD_OUT, rivals_among, split_of
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import plain
from jobrec_jax.pipeline.store import read_about
from jobrec_jax.pipeline.sweep import Frontier
from jobrec_jax.report import figures
from jobrec_jax.report.canvas import PALETTE, Picture, save
from jobrec_jax.report.dial import dial_html
from jobrec_jax.report.findings import CHANCE, LOGGED, PROPENSITY, REGRET, SURPLUS, WITHIN
from jobrec_jax.report.html import Section
from jobrec_jax.report.results import (
    CANARY,
    CEILING,
    ResultRow,
    Table,
    format_number,
    result_tables,
)
from jobrec_jax.schema.schema import PERSPECTIVES
from jobrec_jax.scoring.policy import Alone
from jobrec_jax.train.loop import MetricsWriter

GROUPS = dict(zip(('experts', 'rivals', 'ceiling', 'canaries'), PALETTE))
STAGES = {'warm_up': 'Stage 1A', 'cooperative': 'Stage 1B'}
LOST = re.compile(r'^loss of|at equal eligibility$')
AT_SHARES = ('\n\nWhatever the grid of τ: the true preference of the five recommended where their '
             'true eligibility has gone a share of the way from the choice of the truth P to that '
             'of the truth Q. – is out of reach.')
AT_EQUAL = ('\n\nThe loss is that of preference against the frontier of the truth, where both are '
            'as eligible as the policy is, the mean over its requirements that a system reaches. A '
            'plug-in ranks by one parameter and learns nothing beyond the experts.')
WORTH = ('\n\nExpected surplus is what a recommended job is worth to the candidate: the gain of '
         'taking it times the chance of being accepted. Its regret is what is missing to the best '
         'five.')
ESTIMATED = ('\n\nThe estimated C needs no truth: of jobs drawn for test candidates it is what the '
             'expert believes, corrected by the outcomes of those who applied, each weighed by the '
             'chance that it was shown and applied to (doubly robust). It is right where these '
             'chances or the beliefs are, and no hidden cause moves both applying and eligibility.')
LOSSES = {'train/loss': 'whole loss', 'train/preference_loss': 'preference',
          'train/qualification_loss': 'qualification',
          'train/preference_bce': 'cross-entropy of P',
          'train/qualification_bce': 'cross-entropy of Q',
          'validation/loss': 'validation'}


def facts(run: Run, results: Evaluation) -> list[tuple[str, str]]:
  """What the run is, in a few numbers."""
  dataset, _ = run.get(run.road.data)
  log, experts = dataset.interactions, run.get(run.road.cooperative)
  parameters = sum(x.size for x in jax.tree.leaves(experts.params))
  attainable = results.attainable and [
      ("attainable C, stage 2's lists", '{:.3f} to {:.3f}'.format(*results.attainable))]
  return [('data', run.settings.data.source),
          ('candidates', f'{len(dataset.candidates):,}'), ('jobs', f'{len(dataset.jobs):,}'),
          ('pairs shown', f'{len(log):,}'),
          ('applications', f'{(log.preference == 1).sum():,}'),
          ('acceptances', f'{(log.qualification == 1).sum():,}'),
          ('parameters of the experts', f'{parameters:,}'), *(attainable or [])]


def find(rows: Sequence[ResultRow], metric: str) -> dict[tuple[str, float | None], Interval]:
  """(system, tau) -> the interval of a metric."""
  return {(r.system, r.tau): Interval(r.value, r.low, r.high, r.n) for r in rows
          if r.metric == metric}


def group_of(system: str) -> str:
  """How a system is drawn."""
  if system.startswith(CANARY):
    return 'canaries'
  return 'ceiling' if CEILING in system else 'rivals' if rivals_among([system]) else 'experts'


def comparison_section(run: Run, results: Evaluation) -> Section:
  rows = [r for r in results.rows
          if r.perspective != 'policy' and r.tau is None
          and split_of(r.split) in (results.split, 'both cold', 'test', FULL)]
  plain_rows = [r for r in rows if r.split == results.split and r.metric == 'ndcg@5'
                and not r.against]
  drawn = {perspective: [
      figures.Estimate(r.system, group_of(r.system), Interval(r.value, r.low, r.high, r.n))
      for r in sorted(plain_rows, key=lambda r: -r.value) if r.perspective == perspective]
      for perspective in PERSPECTIVES}
  drawn = {perspective: of for perspective, of in drawn.items() if of}
  chance = {r.perspective: r.value for r in plain_rows if r.system == CHANCE}
  picture = save(lambda narrow: figures.estimates(drawn, GROUPS, 'NDCG@5', chance, narrow),
                 run / 'figures', 'ranking',
                 f'NDCG@5 of every system, {results.split}, with intervals. The dashed line is '
                 'chance.')
  return Section(
      'Ranking',
      'Every system on the same held-out lists. Preference ranks jobs for a candidate first, '
      'qualification candidates for a job; the same pairs along the other axis stand in tables of '
      'their own. A policy picks jobs of one candidate. Canaries '
      'know nothing of candidates and jobs, and should stand at chance; a ceiling knows the truth. '
      'Paired differences compare two systems list by list: the first is better where the interval '
      'lies above zero.', pictures=[picture], tables=result_tables(rows))


def group_section(results: Evaluation) -> list[Section]:
  """Rankings and eligibility by group of candidates; nothing where no group was asked for."""
  rows = [r for r in results.rows if r.split.startswith(f'{results.split}, ')
          and split_of(r.split) != results.split]
  return [Section(
      'By group of candidates',
      'The jobs of each candidate, for groups of candidates apart. Intervals are those of a group '
      'alone; groups differ in what there is to rank, so that a system is compared with another in '
      'the same group.', tables=result_tables(rows))] if rows else []


def frontier_section(run: Run, results: Evaluation) -> Section:
  """The trade of preference against eligibility, and its bounds."""
  rows = [r for r in results.rows if r.split == results.split and r.against is None]
  bounds: Frontiers = run.get(run.road.frontier)
  policy = run.get(run.road.policy).policy
  points = {HELD_OUT: as_points(bounds.policy, policy.knots, 'the policy at its knots')}
  pictures = [save(
      lambda narrow: figures.frontier(points, {HELD_OUT: bounds.dual}, narrow),
      run / 'figures', 'predicted_frontier',
      'What the policy optimises: its objective J against predicted C, on held-out lists. The line '
      'is the exact dual, the best that these scores allow; no policy lies above it.')]
  kept = [r for r in results.rows if r.metric.endswith(OF_THE_WAY)]
  eligibility = find(rows, ELIGIBILITY)
  preference = find([r for r in rows if r.perspective == 'preference'], 'ndcg@5')
  if eligibility:  # only truths tell how eligible a recommendation is
    systems = dict.fromkeys(system for system, _ in eligibility)
    shown = ('policy', PREFERENCE, QUALIFICATION, *rivals_among(systems), CEILINGS['preference'])
    series = {s: [figures.TradeoffPoint(tau, eligibility[s, tau], preference[s, tau])
                  for system, tau in eligibility if system == s] for s in shown}
    lines = {"truth's bound, P + μ Q": bounds.ranked_truth,
             'exact dual, s_pref + μ p_qual': bounds.ranked_dual}
    pictures.insert(0, save(
        lambda narrow: figures.preference_against_eligibility(series, lines, narrow=narrow),
        run / 'figures', 'tradeoff',
        f'Preference against true eligibility of the five jobs recommended, {results.split}. Each '
        'point of the policy is a requirement τ. The other systems know no requirement and have '
        'one point each. Bars are intervals. No ranking lies far beyond the truth\'s bound, which '
        'knows P and Q.'))
  families = {k: v for k, v in results.families.items() if k != KNOTS}
  if families:
    pictures.append(save(
        lambda narrow: figures.families(families, BOUND, POLICY, narrow), run / 'figures',
        'families', f'Preference and eligibility of the five recommended, {results.split}: the '
        'policy over its requirements, and what needs no training, a line for each parameter. '
        'Nothing lies far above the frontier of the truth.'))
  surplus = [r for r in rows if r.metric in (SURPLUS, REGRET) and r.tau is None]
  return Section(
      'Preference against eligibility',
      'One policy, asked for different requirements τ. At τ 0 nothing is required, and it ranks as '
      'the candidate would like. Further right its recommendations are more often eligible, '
      f'further down they please less.{_rises(rows, ELIGIBILITY)}{AT_SHARES if kept else ""}'
      f'{AT_EQUAL if families else ""}{WORTH if surplus else ""}',
      pictures=pictures, tables=result_tables(
          [*kept, *(r for r in results.rows if LOST.search(r.metric)), *surplus,
           *(r for r in rows if r.system == 'policy' and r.tau is not None)]))


def _rises(rows: Sequence[ResultRow], metric: str) -> str:
  """Whether a metric never falls with tau, as a sentence; '' where it was not measured."""
  name = metric[0].upper() + metric[1:]
  return ''.join(f' {name} never falls from one τ to the next.' if r.value
                 else f' {name} does not rise at every τ.'
                 for r in rows if r.metric == f'monotone {metric}')


def control_section(run: Run, results: Evaluation) -> Section:
  picture = save(lambda narrow: figures.reached_against_asked(results.control, narrow),
                 run / 'figures', 'control',
                 'Eligibility reached against the eligibility asked for. Points on the dashed line '
                 'are as asked. Predicted is what the calibrated qualification expert believes; '
                 'true is what the market knows, where it is simulated: the distance between the '
                 'two is the error of the expert, not of the policy.')
  rows = [r for r in results.rows if r.split in (HELD_OUT, STAGE_2, LOGGED)]
  top_k = run.settings.policy.top_k
  bound = (f'C is the mean p_qual of the {top_k} best of a list.' if top_k else
           'C is the eligibility that the policy expects over a list.')
  told = ESTIMATED if any(r.split == LOGGED for r in rows) else ''
  return Section('Asked and reached', bound + _rises(rows, 'true C') + told, pictures=[picture],
                 tables=result_tables([r for r in rows
                                       if r.tau is not None or r.system == PROPENSITY]))


def dial_section(run: Run) -> Section:
  dial = run.get(run.road.dial)
  return Section(
      'A dial for the requirement',
      f'{len(dial["candidates"])} held-out candidates, each with a list of {dial["length"]} jobs, '
      'and the five that the policy ranks first at every knot of τ. τ binds the mean of C over '
      'lists: for one candidate C may lie beside it.', body=dial_html(dial))


def separation_section(run: Run, results: Evaluation) -> Section:
  """De-conflation and calibration."""
  rows = [r for r in results.rows if r.split in (UNIFORM, APPLICANTS)]
  pictures = []
  found = {(r.system, r.metric): Interval(r.value, r.low, r.high, r.n) for r in rows}
  P, Q = 'correlation with P', 'correlation with Q'
  drawn = []
  for expert, within in ((PREFERENCE, WITHIN), (QUALIFICATION, '')):
    if (expert, P + within) in found:
      between = found[CEILINGS['preference'].removesuffix(f' {CEILING}'), Q + within].value
      drawn.append(figures.Separation(
          expert, (found[expert, P + within], found[expert, Q + within]),
          (found[expert, f'{P} given Q{within}'], found[expert, f'{Q} given P{within}']),
          (1.0, between) if within else (between, 1.0)))
  if drawn:
    pictures.append(save(
        lambda narrow: figures.separation(drawn, narrow), run / 'figures', 'separation',
        'Each expert\'s correlation with both truths: hollow as it is, full given the other truth. '
        'Without conflation the preference expert\'s arrow ends on the horizontal axis and the '
        'qualification expert\'s on the vertical one. Preference is compared within candidates, '
        'qualification over all pairs. Crosses are where the truths themselves stand, for P and Q '
        'correlate.'))
  bins = reliability(results.predicted, results.outcome)
  pictures.append(save(
      lambda narrow: figures.reliability_diagram(bins, results.predicted, narrow),
      run / 'figures', 'reliability',
      'Observed against predicted eligibility in bins of as many pairs each. On the dashed line '
      'predictions are calibrated; below it they promise too much. Beside it, how often each '
      'prediction occurs.'))
  return Section(
      'De-conflation and calibration',
      'An expert without conflation tracks its own truth, and given that truth not the other. A '
      'function of the candidate changes no ranking of jobs and every correlation over pairs, so '
      'that preference is compared after each candidate\'s mean is taken off. The error of a logit '
      'is parted into what candidates share, what jobs share, and the pair\'s own: among the jobs '
      'of one candidate the first costs nothing.',
      pictures=pictures, tables=result_tables(rows))


def certified_table(rows: Sequence[CertifiedRow], c: CertifyConfig, true: str) -> Table:
  """Args: true: whose mean the true column is."""
  level = 1 - c.alpha
  promise = {LTT: f'≥ {level:.3g} with probability {1 - c.delta:.3g}',
             CRC: f'≥ {level:.3g} on average'}

  def number(value):
    return '–' if value is None else format_number(value)
  cells = tuple((f'{r.loss}, {r.method}', number(r.tau), number(r.predicted), number(r.observed),
                 number(r.true), 'none' if r.tau is None else promise[r.method], f'{r.n:,}')
                for r in rows)
  return Table('Certified eligibility',
               ('of', 'τ', 'predicted', 'labels seen', f'true, {true}', 'certified', 'n'), cells)


def certified_section(c: CertifyConfig, rows: Sequence[CertifiedRow]) -> list[Section]:
  """Nothing where there are no rows."""
  if not rows:
    return []
  return [Section(
      'Certified',
      'The least τ at which labels show, not the expert, that the share of ineligible jobs '
      f'recommended is at most α = {c.alpha:g}: of the whole distribution, and of the top {c.k}. '
      'Learn-then-test is wrong with a probability of at most '
      f'δ = {c.delta:g} over the candidates that it sees; conformal risk control promises the same '
      'on average alone. Each certificate is one alone: that both of learn-then-test hold together '
      f'has a probability of at least {max(1 - 2 * c.delta, 0):g}. The lists seen are of '
      'calibration candidates that no fit has used, one each.\n\nBoth methods assume that '
      'candidates to come are like these (exchangeable), and that every label of a list is known, '
      'as in a simulated market: labels of applicants alone show something else, and certify '
      'nothing.',
      tables=[certified_table(rows, c, 'test candidates')])]


def proof_picture(run: Run, proof: Proof) -> Picture:
  """Certificates beside what is true of a fresh population."""
  chosen = {r.loss: r.tau for r in proof.certified if r.method == LTT}
  series = {loss: {'predicted': proof.predicted[loss], 'true': proof.true[loss]}
            for loss in proof.predicted}
  return save(
      lambda narrow: figures.certified_eligibility(proof.taus, series, chosen,
                                                   1 - run.settings.certify.alpha, narrow),
      run / 'figures', 'certificates',
      'Predicted and true eligibility of a fresh population over τ, and from where on it is '
      'certified to be at least what was asked.')


def sweep_picture(run: Run, found: Frontier) -> Picture:
  """The policy beside heads trained one for each requirement."""
  return save(lambda narrow: figures.frontier(found.points, found.curves, narrow),
              run / 'figures', 'frontier',
              'J against predicted C: one policy for every τ, a head trained for each τ, and the '
              'exact dual.')


def training_section(run: Run) -> Section:
  """The course of stages 1A, 1B and 2."""
  road, pictures = run.road, []
  rows = [row | {'stage': STAGES[stage.name]} for stage in (road.warm_up, road.cooperative)
          for row in MetricsWriter(run.store.path(stage) / 'metrics.jsonl').read()]
  if any(LOSSES.keys() & row.keys() for row in rows):
    pictures.append(save(
        lambda narrow: figures.training_curves(rows, LOSSES, narrow), run / 'figures', 'training',
        'Losses of the experts over steps: faint as measured, bold as a running mean. The stages '
        'add up different terms, so that the whole losses of two panels do not compare. Validation '
        'adds up the terms without the weights of the tasks, on lists that no step learns from.'))
  trained: TrainedPolicy | Alone = run.get(road.policy)
  if isinstance(trained, Alone):
    return Section('Training', f'The {trained.perspective} expert alone is trained, for '
                   f'{trained.why}.', pictures=pictures)
  if len(trained.history.get('multiplier', ())):
    pictures.append(save(
        lambda narrow: figures.policy_curves(trained.history, np.asarray(trained.policy.knots),
                                             narrow),
        run / 'figures', 'policy_training',
        'Stage 2 over epochs, a line for each requirement τ from low (blue) to high (orange): C '
        'should settle at its τ, marked at the right, and its multiplier μ should then be still.'))
  return Section('Training', 'Stage 1A trains preference alone, stage 1B both experts together, '
                 'stage 2 the policy on their frozen scores.', pictures=pictures)


def provenance_section(run: Run) -> Section:
  """Where the numbers come from: commit, versions, device, seeds, seconds, changed settings."""
  stages = {s.key: s for end in run.stages() for s in end.walk() if run.store.has(s)}
  about = {s.name: read_about(run.store.path(s))['provenance'] for s in stages.values()}
  versions = dict.fromkeys(k for a in about.values() for k in told(a, 'versions', dict, {}))
  shown = {'seconds': lambda a: f"{told(a, 'seconds', float, math.nan):.1f}",
           'peak MiB': lambda a: f"{told(a, 'peak_memory_mib', int, 0):,}",
           'commit': lambda a: told(a, 'commit', str) or UNKNOWN,
           'device': lambda a: told(a, 'device', str), 'python': lambda a: told(a, 'python', str),
           **{k: lambda a, k=k: told(told(a, 'versions', dict, {}), k, str) for k in versions}}
  found = {k: {get(a) for a in about.values()} for k, get in shown.items()}
  common = {k: values.pop() for k, values in found.items() if len(values) == 1}
  columns = {k: get for k, get in shown.items() if k not in common}
  made = Table('Stages', ('stage', *columns), tuple(
      (name, *(get(a) for get in columns.values())) for name, a in about.items()))
  settings = changed(run.settings)
  tables = [Table('The same of every stage', ('what', 'value'), tuple(common.items())), made]
  if settings:
    tables.insert(0, Table('Settings that differ from the defaults',
                           ('setting', 'here', 'default'), tuple(settings)))
  text = (f'Seed of training {run.settings.seed}, of the data {run.settings.data.seed}. '
          f'{sum(a["seconds"] for a in about.values()):.0f} s in all when the stages were made '
          '(peak memory is that of the process until then). '
          + ('' if settings else 'All settings are the defaults. ')
          + 'run.json names the artefact of every stage; each holds the digests of its files.')
  return Section('Provenance', text, tables=tables)


def changed(settings: Settings) -> list[tuple[str, str, str]]:
  """(key, value, default) of every setting that is not the default."""
  here, default = _leaves(plain(settings)), _leaves(plain(Settings()))
  return [(key, str(value), str(default.get(key, '–'))) for key, value in here.items()
          if value != default.get(key)]


def _leaves(values: dict, prefix: str = '') -> dict:
  found = {}
  for key, value in values.items():
    found |= (_leaves(value, f'{prefix}{key}.') if isinstance(value, dict)
              else {f'{prefix}{key}': value})
  return found
