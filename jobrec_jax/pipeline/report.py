"""The files that a person opens: results.json, results.md, figures and report.html."""

from collections.abc import Mapping

from absl import logging
import jax

from jobrec_jax.evaluate.certification import CRC, LTT, CertifiedRow, CertifyConfig
from jobrec_jax.evaluate.eligibility import reliability
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.pipeline.evaluate import Evaluation
from jobrec_jax.pipeline.measures.subject import (
    APPLICANTS,
    CEILINGS,
    ELIGIBILITY,
    PREFERENCE,
    QUALIFICATION,
    STAGE_2,
    UNIFORM,
)
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.scores import HELD_OUT, RIVALS
from jobrec_jax.pipeline.store import read_about
from jobrec_jax.report import figures
from jobrec_jax.report.html import Section, write_report
from jobrec_jax.report.results import (
    ResultRow,
    Table,
    format_number,
    result_tables,
    to_markdown,
    write_results,
)
from jobrec_jax.train.loop import MetricsWriter


def report(run: Run) -> Evaluation:
  """Makes what is missing of the run, and writes everything; report.html comes last."""
  with run.progress(run.road.evaluation, run.road.certified):
    results = run.get(run.road.evaluation)
    certified = run.get(run.road.certified)
  write_results(run.folder, results.rows)
  sections = [comparison_section(results), *tradeoff_section(run, results),
              control_section(run, results), calibration_section(run, results),
              *certified_section(run.settings.certify, certified), *training_section(run)]
  write_report(run / 'report.html', 'Jobs that a candidate wants and can get',
               facts(run, results), sections)
  run.write()
  logging.info('report: %s', run / 'report.html')
  return results


def facts(run: Run, results: Evaluation) -> list[tuple[str, str]]:
  """What the run is, in a few numbers."""
  dataset, _ = run.get(run.road.data)
  log, experts = dataset.interactions, run.get(run.road.cooperative)
  parameters = sum(x.size for x in jax.tree.leaves(experts.params))
  low, high = results.attainable
  return [('data', run.settings.data.source), ('seed of training', str(run.settings.seed)),
          ('seed of the data', str(run.settings.data.seed)),
          ('candidates', f'{len(dataset.candidates):,}'), ('jobs', f'{len(dataset.jobs):,}'),
          ('pairs shown', f'{len(log):,}'),
          ('applications', f'{(log.preference == 1).sum():,}'),
          ('acceptances', f'{(log.qualification == 1).sum():,}'),
          ('parameters of the experts', f'{parameters:,}'),
          ('vocabulary', f'{experts.tokenizer.get_vocab_size():,}'),
          ("attainable C, stage 2's lists", f'{low:.3f} to {high:.3f}'),
          *((f'{name}, when it was made', f'{s:.0f} s') for name, s in seconds(run).items())]


def seconds(run: Run) -> Mapping[str, float]:
  """What the longest stages took when they were made."""
  taken = {s.name: read_about(run.store.path(s))['provenance']['seconds']
           for s in run.road.evaluation.walk() if run.store.has(s)}
  longest = sorted(taken, key=taken.get, reverse=True)[:5]
  return {name: taken[name] for name in taken if name in longest}


def main_tables(results: Evaluation) -> list[Table]:
  """NDCG@5 of every system on the first split, for each perspective, then the policy over tau."""
  rows = [r for r in results.rows if r.against is None]
  return result_tables(
      [r for r in rows if r.split == results.split
       and (r.metric == 'ndcg@5' or (r.tau is not None and r.metric == ELIGIBILITY))]
      + [r for r in rows if r.split == STAGE_2])


def main_text(results: Evaluation) -> str:
  return '\n'.join(map(to_markdown, main_tables(results)))


def find(rows: list[ResultRow], metric: str) -> dict[tuple[str, float | None], Interval]:
  """(system, tau) -> the interval of a metric."""
  return {(r.system, r.tau): Interval(r.value, r.low, r.high, r.n) for r in rows
          if r.metric == metric}


def comparison_section(results: Evaluation) -> Section:
  rows = [r for r in results.rows
          if r.system != 'policy' and r.split in (results.split, 'both cold', 'test')]
  return Section(
      'Ranking: every system on the same held-out lists',
      'Preference ranks jobs for a candidate, qualification ranks candidates for a job. Cold '
      'candidates are candidates that training has not seen, with jobs that it has; with both '
      'cold, the jobs are new as well. Brackets hold intervals over candidates and jobs. Canaries '
      'know nothing of candidates and jobs, and should stand at chance; a ceiling knows the '
      "truth.\n\nPaired differences compare two systems list by list: the first is better where "
      'the interval lies above zero.', tables=result_tables(rows))


def tradeoff_section(run: Run, results: Evaluation) -> list[Section]:
  rows = [r for r in results.rows if r.split == results.split and r.against is None]
  eligibility = find(rows, ELIGIBILITY)
  preference = find([r for r in rows if r.perspective == 'preference'], 'ndcg@5')
  text = ('One policy, asked for different requirements τ. At τ 0 nothing is required, and it '
          'ranks as the candidate would like.')
  tables = result_tables([r for r in rows if r.system == 'policy'])
  if not eligibility:  # only truths tell how eligible a recommendation is
    return [Section('Recommending under a requirement', text, tables=tables)]
  shown = ('policy', PREFERENCE, QUALIFICATION, *RIVALS,
           CEILINGS['preference'])
  series = {s: [figures.TradeoffPoint(tau, eligibility[s, tau], preference[s, tau])
                for system, tau in eligibility if system == s] for s in shown}
  path = run / 'figures/tradeoff.png'
  figures.save(figures.preference_against_eligibility(series), path)
  return [Section(
      'Recommending under a requirement', text, path,
      f'Preference against true eligibility of the five jobs recommended, {results.split}. Each '
      'point of the policy is a requirement τ: further right its recommendations are more often '
      'truly eligible, further down they please less. The other systems know no requirement and '
      'have one point each. Bars are intervals.', tables)]


def control_section(run: Run, results: Evaluation) -> Section:
  path = run / 'figures/control.png'
  figures.save(figures.reached_against_asked(results.control), path)
  rows = [r for r in results.rows if r.split in (HELD_OUT, STAGE_2)]
  return Section(
      'Asked and reached', 'C is the eligibility that the policy expects over a list.', path,
      'Eligibility reached against the eligibility asked for. Points on the dashed line are as '
      'asked. Predicted is what the calibrated qualification expert believes; true is what the '
      'market knows, where it is simulated: the distance between the two is the error of the '
      'expert, not of the policy.', result_tables(rows))


def calibration_section(run: Run, results: Evaluation) -> Section:
  path = run / 'figures/reliability.png'
  bins = reliability(results.predicted, results.outcome)
  figures.save(figures.reliability_diagram(bins, results.predicted), path)
  rows = [r for r in results.rows if r.split in (UNIFORM, APPLICANTS)]
  return Section(
      'Can predicted eligibility be trusted?',
      'An expert without conflation tracks its own truth, and given that truth not the other.',
      path, 'Observed against predicted eligibility in bins of as many pairs each. On the dashed '
      'line predictions are calibrated; below it they promise too much.', result_tables(rows))


def training_section(run: Run) -> list[Section]:
  """The course of stages 1A and 1B."""
  rows = [r for stage in (run.road.warm_up, run.road.cooperative)
          for r in MetricsWriter(run.store.path(stage) / 'metrics.jsonl').read()]
  if not rows:
    return []
  path = run / 'figures/training.png'
  figures.save(figures.training_curves(rows), path)
  return [Section('Training', figure=path, caption='Training loss of the experts over steps: '
                  'faint as measured, bold as a running mean. The stages add up different terms, '
                  'so that only the course within a panel means something.')]


def certified_table(rows: list[CertifiedRow], c: CertifyConfig, true: str) -> Table:
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


def certified_section(c: CertifyConfig, rows: list[CertifiedRow]) -> list[Section]:
  """Nothing where there are no rows."""
  if not rows:
    return []
  return [Section(
      'Certified',
      'The least τ at which labels show, not the expert, that the share of ineligible jobs '
      f'recommended is at most α = {c.alpha:g}: of the whole distribution, and of the top {c.k}. '
      'Learn-then-test is wrong with a probability of at most '
      f'δ = {c.delta:g} over the candidates that it sees; conformal risk control promises the same '
      'on average alone. The lists seen are of calibration candidates that no fit has used, one '
      'each.\n\nBoth assume that candidates to come are like these (exchangeable), and that every '
      'label of a list is known, as in a simulated market: labels of applicants alone show '
      'something else, and certify nothing.',
      tables=[certified_table(rows, c, 'test candidates')])]
