"""Audits a data set as it lies: what splits share, what records and lists give away.

  python -m experiments.audit --config=configs/base.py --workdir=runs/audit
  python -m experiments.audit --config=configs/published.py --config.data.folder=FOLDER \\
      --workdir=runs/audit

Prints a table and writes it to audit.txt, with every finding as a row of audit.json. Where splits
share negatives, a second table audits the lists rebuilt without them, as training gets them with
data.drop_shared_negatives. Without a file of all users: --config.data.allow_unknown_users=True.

Exit status: 0 if there is no error in the data as they lie but those that data.known_faults names,
1 if there is, 2 if the config or a file is wrong.
"""

import json
import sys

from ml_collections import ConfigDict

from experiments import setup
from jobrec_jax.data.dataset import Dataset
from jobrec_jax.data.repair import deal_shared_negatives
from jobrec_jax.evaluate.audit import AuditReport, audit
from jobrec_jax.schema.files import write_text

AS_IT_LIES, REBUILT = 'as it lies', 'rebuilt without shared negatives'


def audit_all(dataset: Dataset, seed: int) -> dict[str, tuple[Dataset, AuditReport]]:
  """The data as they lie, and rebuilt where splits share negatives, each with its audit."""
  audited = {AS_IT_LIES: (dataset, audit(dataset, seed))}
  if any(name.startswith('shared_negatives/') for name in audited[AS_IT_LIES][1].failed()):
    rebuilt = deal_shared_negatives(dataset, seed)
    audited[REBUILT] = rebuilt, audit(rebuilt, seed)
  return audited


def render(audited: dict[str, tuple[Dataset, AuditReport]], known: tuple[str, ...]) -> str:
  """A table for each version of the data, and the verdict in the last line."""
  parts = []
  for title, (dataset, report) in audited.items():
    size = (f'{len(dataset.candidates):,} candidates, {len(dataset.jobs):,} jobs, '
            f'{len(dataset.interactions):,} rows')
    notes = [f'note: {note}' for note in dataset.notes]
    parts.append('\n'.join([f'== The data {title}: {size}', *notes, report.table(known)]))
  verdicts = [f'{title}, {report.verdict(known)}' for title, (_, report) in audited.items()]
  return '\n\n'.join([*parts, f'Verdict: {" | ".join(verdicts)}'])


def main(config: ConfigDict, workdir: str) -> None:
  settings, run, known = setup.validate(config), setup.Run(workdir), tuple(config.data.known_faults)
  dataset, _ = setup.read_data(config, settings.market)
  audited = audit_all(dataset, config.seed)
  text = render(audited, known)
  rows = [json.dumps({'data': title, **row}, ensure_ascii=False)
          for title, (_, report) in audited.items() for row in report.rows]
  write_text(run / 'audit.json', '[\n' + ',\n'.join(rows) + '\n]\n')
  write_text(run / 'audit.txt', text + '\n')
  print(text)
  if audited[AS_IT_LIES][1].failed(known):
    sys.exit(1)


if __name__ == '__main__':
  setup.run_main(main, 'configs/base.py', 'runs/audit')
