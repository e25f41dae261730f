"""The files that a person opens: results.json, results.md, figures and report.html.

Beside a run's report stand those of single scripts: of `fit_policy`, the policy beside separately
trained heads; of `certify`, certificates checked on a fresh population. report.html shows them too
once they are made.
"""

from collections.abc import Sequence
import dataclasses
import textwrap

from absl import logging
import numpy as np

from jobrec_jax.evaluate.certification import CertifyConfig, ProofRow, wrong_at_most
from jobrec_jax.pipeline import sections
from jobrec_jax.pipeline.certify import Proof
from jobrec_jax.pipeline.evaluate import Evaluation
from jobrec_jax.pipeline.explain import Judged, in_words
from jobrec_jax.pipeline.left_out import left_out
from jobrec_jax.pipeline.measures.subject import ELIGIBILITY, STAGE_2
from jobrec_jax.pipeline.perspectives import check_both
from jobrec_jax.pipeline.road import explained_stage, proof_stage, sweep_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.pipeline.settings import PolicySettings
from jobrec_jax.pipeline.sweep import EXACT, Frontier, not_compared
from jobrec_jax.report import dial, glossary
from jobrec_jax.report.findings import MARKS, findings
from jobrec_jax.report.html import Section, write_report
from jobrec_jax.report.results import (
    Table,
    format_number,
    result_tables,
    to_markdown,
    write_results,
)
from jobrec_jax.schema.files import null_for_nan, write_json, write_text

TITLE = 'Jobs that a candidate wants and can get'


def report(run: Run) -> Evaluation:
  """Makes what is missing of the run, and writes everything; report.html comes last."""
  with run.progress(run.road.evaluation, run.road.certified, run.road.frontier, run.road.dial):
    results = run.get(run.road.evaluation)
    certified = run.get(run.road.certified)
    for shown in (run.road.frontier, run.road.dial):
      run.get(shown)
  logging.info('report: drawing')
  said, left = findings(results.rows), left_out(run)
  for sentence in left:
    logging.warning('report: %s', sentence)
  write_results(run.folder, results.rows, [*(f.text for f in said), *left])
  parts = [Section('What came out', findings=said),
           *([Section('What was left out', '\n\n'.join(left))] if left else []),
           *_of_policy(run, results), sections.comparison_section(run, results),
           *sections.group_section(results),
           *([sections.separation_section(run, results)] if len(results.predicted) else []),
           *sections.certified_section(run.settings.certify, certified), *_made_beside(run),
           sections.training_section(run), Section('Glossary', terms=glossary.RUN),
           sections.provenance_section(run)]
  write_report(run / 'report.html', TITLE, sections.facts(run, results), parts, [dial.script()])
  run.write()
  logging.info('report: %s', run / 'report.html')
  return results


def _of_policy(run: Run, results: Evaluation) -> list[Section]:
  """Nothing where there is no policy."""
  return [] if results.attainable is None else [
      sections.dial_section(run), sections.frontier_section(run, results),
      sections.control_section(run, results)]


def main_tables(results: Evaluation) -> list[Table]:
  """NDCG@5 of every system on the first split, for each perspective, then the policy over tau."""
  rows = results.rows
  return result_tables(
      [r for r in rows if r.split == results.split and r.against is None
       and (r.metric == 'ndcg@5' or (r.tau is not None and r.metric == ELIGIBILITY))]
      + [r for r in rows if r.split == STAGE_2])


def main_text(results: Evaluation) -> str:
  """For the terminal: what came out, then the short tables."""
  said = [textwrap.fill(f'{MARKS[f.verdict]} {f.text}', 100, subsequent_indent='  ')
          for f in findings(results.rows)]
  return '\n'.join(['## What came out\n', *said, '', *map(to_markdown, main_tables(results))])


def _made_beside(run: Run) -> list[Section]:
  """Sections of what other scripts made of this run, where it lies there."""
  found = []
  sweep = sweep_stage(run.settings, run.road)
  if run.store.has(sweep):
    value: Frontier = run.get(sweep)
    found.append(Section('One policy beside a head for each requirement',
                         pictures=[sections.sweep_picture(run, value)],
                         tables=sweep_tables(value)))
  if run.settings.data.source == 'simulated':
    stage = proof_stage(run.settings, run.road)
    if run.store.has(stage):
      proof: Proof = run.get(stage)
      found.append(Section('Certificates on a fresh population',
                           pictures=[sections.proof_picture(run, proof)],
                           tables=proof_tables(proof, run.settings.certify)))
  if run.settings.data.source == 'simulated':
    explained = explained_stage(run.settings, run.road)
    if run.store.has(explained):
      judged: Judged = run.get(explained)
      found.append(Section('Reasons that a model writes', '\n\n'.join([
          'Each claim of held-out pairs is checked against the records, and what a text is said to '
          "speak for against the simulator (✓ true, ✗ not); ★ is of the simulator's greatest "
          'causes.', *map(in_words, judged.examples)]),
          tables=result_tables(judged.rows)))
  return found


def explain_report(run: Run) -> str:
  """Trains the writer, judges its reasons, and writes reasons.json; returns the tables.

  Raises:
    ValueError: the data are not simulated, or lack the labels of a perspective.
  """
  stage = explained_stage(run.settings, run.road)
  check_both(run.get(run.road.data).dataset, 'a writer of reasons')
  found: Judged = run.get(stage)
  write_json(run / 'reasons.json', null_for_nan({
      'rows': [dataclasses.asdict(r) for r in found.rows],
      'examples': [e._asdict() for e in found.examples]}), indent=1)
  return '\n'.join([*map(to_markdown, result_tables(found.rows)), *map(in_words, found.examples)])


def sweep_tables(found: Frontier) -> list[Table]:
  """Every point, then each system's share of the exact dual's hypervolume."""
  points = [Table(f'{name}: every point', ('system at τ', 'C', 'J', 'regret', 'InfoNCE'), tuple(
      (f'{r.system}, τ {r.tau:.4f}', f'{r.reached:.4f}', f'{r.value:.4f}',
       dashed(r.regret, '.2%'), dashed(r.info_nce, '.4f')) for r in rows))
      for name, rows in found.points.items()]
  volumes = [Table(f'{name}: hypervolume', ('system', 'of (J, C)', "of the exact dual's"), tuple(
      (system, dashed(v, '.4f'), dashed(share(v, of.get(EXACT)), '.1%'))
      for system, v in of.items())) for name, of in found.volumes.items()]
  return points + volumes


def sweep_report(run: Run) -> str:
  """Writes frontier.json, frontier.md and figures/frontier.*; returns the tables.

  Of a policy whose C or J is none of the published ones it returns why there are none.

  Raises:
    ValueError: labels of one perspective are missing, before anything is trained.
  """
  check_both(run.get(run.road.data).dataset, 'a frontier')
  p: PolicySettings = run.settings.policy
  if why := not_compared(p):
    run.get(run.road.policy)
    return f'No frontier is written, for {why}.'
  found: Frontier = run.get(sweep_stage(run.settings, run.road))
  text = '\n'.join([
      f'Objective: {p.objective}. Regret is the loss of J against the exact dual at the same C, as '
      'a share of what the range of requirements costs.\n', *map(to_markdown, sweep_tables(found))])
  write_json(run / 'frontier.json', null_for_nan([
      {'lists': name} | r._asdict() for name, rows in found.points.items() for r in rows]))
  write_text(run / 'frontier.md', text)
  sections.sweep_picture(run, found)
  return text


def share(volume: float, exact: float | None) -> float:
  """nan where the exact dual can meet no requirement on these lists, so that it has no volume."""
  return volume / exact if exact else np.nan


def dashed(value: float, form: str) -> str:
  return format(value, form) if np.isfinite(value) else '–'


def certify_report(run: Run) -> str:
  """Writes certificates.json and figures/certificates.*; returns the tables.

  Raises:
    ValueError: the data are not simulated, or lack the labels of a perspective.
  """
  c, stage = run.settings.certify, proof_stage(run.settings, run.road)
  check_both(run.get(run.road.data).dataset, 'certificates')
  proof: Proof = run.get(stage)
  sections.proof_picture(run, proof)
  write_json(run / 'certificates.json', null_for_nan({
      'settings': dataclasses.asdict(c), 'taus': proof.taus.tolist(),
      'certified': [r._asdict() for r in proof.certified],
      'held_back': lists(proof.held_back),
      'population': {'predicted': lists(proof.predicted), 'true': lists(proof.true)},
      'wrong_at_most': wrong_at_most(c), 'proof': [r._asdict() for r in proof.rows]}), indent=1)
  return '\n'.join(map(to_markdown, proof_tables(proof, c)))


def lists(curves: dict) -> dict[str, list[float]]:
  return {name: values.tolist() for name, values in curves.items()}


def proof_tables(proof: Proof, c: CertifyConfig) -> list[Table]:
  """The certificates, and how often they were wrong."""
  return [sections.certified_table(proof.certified, c, 'fresh population')._replace(
      title='Certified eligibility, fresh population'), proof_table(proof.rows, c)]


def proof_table(rows: Sequence[ProofRow], c: CertifyConfig) -> Table:
  title = (f'{c.draws} calibration sets of {c.lists} lists: α {c.alpha:g}, '
           f'learn then test wrong in at most {wrong_at_most(c):.3f} of them')
  header = ('of', 'labels', 'certify', 'wrong', 'risk seen', 'true risk', 'true risk, none as 0')
  return Table(title, header, tuple(
      (f'{r.loss}, {r.method}', r.labels, *map(format_number, r[3:])) for r in rows))
