"""The audit of a run's data as they lie, before any repair, for people and programs."""

from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.evaluate.audit import AuditReport, audit
from jobrec_jax.pipeline.data import Source, draw_or_read
from jobrec_jax.pipeline.run import Run
from jobrec_jax.schema.files import write_json, write_text

AS_IT_LIES, REBUILT = 'as it lies', 'rebuilt without shared negatives'


def audit_all(dataset: Dataset, seed: int) -> dict[str, tuple[Dataset, AuditReport]]:
  """The data as they lie, and rebuilt where splits share negatives, each with its audit."""
  audited = {AS_IT_LIES: (dataset, audit(dataset, seed))}
  if any(name.startswith('shared_negatives/') for name in audited[AS_IT_LIES][1].failed()):
    rebuilt = deal_shared_negatives(dataset, seed)
    audited[REBUILT] = rebuilt, audit(rebuilt, seed)
  return audited


def in_words(audited: dict[str, tuple[Dataset, AuditReport]], known: tuple[str, ...]) -> str:
  """A table for each version of the data, and the verdict in the last line."""
  parts = []
  for title, (dataset, report) in audited.items():
    size = (f'{len(dataset.candidates):,} candidates, {len(dataset.jobs):,} jobs, '
            f'{len(dataset.interactions):,} rows')
    notes = [f'note: {note}' for note in dataset.notes]
    parts.append('\n'.join([f'== The data {title}: {size}', *notes, report.table(known)]))
  verdicts = [f'{title}, {report.verdict(known)}' for title, (_, report) in audited.items()]
  return '\n\n'.join([*parts, f'Verdict: {" | ".join(verdicts)}'])


def audit_report(run: Run) -> tuple[str, bool]:
  """Writes audit.json and audit.txt; returns the text, and whether the data as they lie pass."""
  data, known = run.settings.data, run.settings.data.known_faults
  audited = audit_all(draw_or_read(Source.of(run.settings))[0], data.seed)
  text = in_words(audited, known)
  write_json(run / 'audit.json', [{'data': title, **row} for title, (_, report) in audited.items()
                                  for row in report.rows], indent=1)
  write_text(run / 'audit.txt', text + '\n')
  return text, not audited[AS_IT_LIES][1].failed(known)
