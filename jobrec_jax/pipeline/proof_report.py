"""Certificates of a run and their check on a fresh population, for people and programs."""

import dataclasses

from jobrec_jax.evaluate.certification import LTT, CertifyConfig, ProofRow, wrong_at_most
from jobrec_jax.pipeline.certify import Proof
from jobrec_jax.pipeline.report import certified_table
from jobrec_jax.pipeline.road import proof_stage
from jobrec_jax.pipeline.run import Run
from jobrec_jax.report import figures
from jobrec_jax.report.results import Table, format_number, to_markdown
from jobrec_jax.schema.files import null_for_nan, write_json


def proof_report(run: Run) -> str:
  """Writes certificates.json and figures/certificates.png; returns the tables.

  Raises:
    ValueError: the data are not simulated.
  """
  c = run.settings.certify
  proof: Proof = run.get(proof_stage(run.settings, run.road))
  chosen = {r.loss: r.tau for r in proof.certified if r.method == LTT}
  figures.save(figures.certified_eligibility(proof.taus, proof.predicted, proof.true, chosen,
                                             1 - c.alpha), run / 'figures/certificates.png')
  write_json(run / 'certificates.json', null_for_nan({
      'settings': dataclasses.asdict(c), 'taus': proof.taus.tolist(),
      'certified': [r._asdict() for r in proof.certified],
      'held_back': lists(proof.held_back),
      'population': {'predicted': lists(proof.predicted), 'true': lists(proof.true)},
      'wrong_at_most': wrong_at_most(c), 'proof': [r._asdict() for r in proof.rows]}), indent=1)
  return '\n'.join([to_markdown(certified_table(proof.certified, c, 'fresh population')),
                    to_markdown(proof_table(proof.rows, c))])


def lists(curves: dict) -> dict[str, list[float]]:
  return {name: values.tolist() for name, values in curves.items()}


def proof_table(rows: list[ProofRow], c: CertifyConfig) -> Table:
  title = (f'{c.draws} calibration sets of {c.lists} lists: α {c.alpha:g}, '
           f'learn then test wrong in at most {wrong_at_most(c):.3f} of them')
  header = ('of', 'labels', 'certify', 'wrong', 'risk seen', 'true risk', 'true risk, none as 0')
  return Table(title, header, tuple(
      (f'{r.loss}, {r.method}', r.labels, *map(format_number, r[3:])) for r in rows))
