"""The files that a person opens: results.json, results.md, figures and report.html."""

from collections.abc import Iterator
import contextlib
import time

from absl import logging
import jax
from ml_collections import ConfigDict

from experiments import evaluation
from experiments.alignment import Policies
from experiments.certification import certified_section
from experiments.evaluation import ELIGIBILITY, HELD_OUT, STAGE_2, Evaluation
from experiments.setup import Run
from experiments.stages import Experts
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.evaluate.eligibility import reliability
from jobrec_jax.evaluate.statistics import Interval
from jobrec_jax.report import figures
from jobrec_jax.report.html import Section, write_report
from jobrec_jax.report.results import ResultRow, Table, result_tables, to_markdown, write_results
from jobrec_jax.train.loop import MetricsWriter


class Clock:
  """Seconds of each stage of a script, logged when the stage ends."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, stage: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    self.seconds[stage] = time.monotonic() - start
    logging.info('%s: done in %.1f s', stage, self.seconds[stage])


def report(config: ConfigDict, run: Run, dataset: Dataset, experts: Experts, policies: Policies,
           results: Evaluation, seconds: dict[str, float]) -> None:
  """Writes everything; report.html comes last, so that its presence means a complete run."""
  write_results(run.folder, results.rows)
  sections = [comparison_section(results), *tradeoff_section(run, results),
              control_section(run, results), calibration_section(run, results),
              *certified_section(config, results.certified), *training_section(run)]
  write_report(run / 'report.html', 'Jobs that a candidate wants and can get',
               facts(config, dataset, experts, policies, seconds), sections)
  logging.info('report: %s', run / 'report.html')


def facts(config: ConfigDict, dataset: Dataset, experts: Experts, policies: Policies,
          seconds: dict[str, float]) -> list[tuple[str, str]]:
  log = dataset.interactions
  parameters = sum(x.size for x in jax.tree.leaves(experts.params))
  low, high = policies.attainable
  return [('data', config.data.source), ('seed', str(config.seed)),
          ('candidates', f'{len(dataset.candidates):,}'), ('jobs', f'{len(dataset.jobs):,}'),
          ('pairs shown', f'{len(log):,}'),
          ('applications', f'{(log.preference == 1).sum():,}'),
          ('acceptances', f'{(log.qualification == 1).sum():,}'),
          ('parameters of the experts', f'{parameters:,}'),
          ('vocabulary', f'{experts.blocks.vocab_size:,}'),
          ("attainable C, stage 2's lists", f'{low:.3f} to {high:.3f}'),
          *((f'{stage}, this run', f'{s:.0f} s') for stage, s in seconds.items())]


def main_tables(results: Evaluation) -> list[Table]:
  """NDCG@5 of every system on the first split, for each perspective, then the policy over tau."""
  rows = [r for r in results.rows if r.against is None]
  return result_tables(
      [r for r in rows if r.split == results.split
       and (r.metric == 'ndcg@5' or (r.tau is not None and r.metric == ELIGIBILITY))]
      + [r for r in rows if r.split == STAGE_2])


def print_main_tables(results: Evaluation) -> None:
  print('\n'.join(map(to_markdown, main_tables(results))))


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
      'cold, the jobs are new as well. Brackets hold bootstrap intervals over lists. Canaries '
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
  shown = ('policy', evaluation.PREFERENCE, evaluation.QUALIFICATION, *evaluation.RIVALS,
           evaluation.CEILINGS['preference'])
  series = {s: [figures.TradeoffPoint(tau, eligibility[s, tau], preference[s, tau])
                for system, tau in eligibility if system == s] for s in shown}
  path = run / 'figures/tradeoff.png'
  figures.save(figures.preference_against_eligibility(series), path)
  return [Section(
      'Recommending under a requirement', text, path,
      f'Preference against true eligibility of the five jobs recommended, {results.split}. Each '
      'point of the policy is a requirement τ: further right its recommendations are more often '
      'truly eligible, further down they please less. The other systems know no requirement and '
      'have one point each. Bars are bootstrap intervals.', tables)]


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
  rows = [r for r in results.rows if r.split in ('uniform test pairs', 'test applicants')]
  return Section(
      'Can predicted eligibility be trusted?',
      'An expert without conflation tracks its own truth, and given that truth not the other.',
      path, 'Observed against predicted eligibility in bins of as many pairs each. On the dashed '
      'line predictions are calibrated; below it they promise too much.', result_tables(rows))


def training_section(run: Run) -> list[Section]:
  rows = [r for r in MetricsWriter(run / 'metrics.jsonl').read() if 'train/loss' in r]
  if not rows:
    return []
  path = run / 'figures/training.png'
  figures.save(figures.training_curves(rows), path)
  return [Section('Training', figure=path, caption='Training loss of the experts over steps: '
                  'faint as measured, bold as a running mean. The stages add up different terms, '
                  'so that only the course within a panel means something.')]
