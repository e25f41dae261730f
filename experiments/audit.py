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

import sys

from jobrec_jax import command_line
from jobrec_jax.pipeline.audit import audit_report
from jobrec_jax.pipeline.run import Run


def main(run: Run) -> None:
  text, passed = audit_report(run)
  print(text)
  if not passed:
    sys.exit(1)


if __name__ == '__main__':
  command_line.start(main, 'configs/base.py', 'runs/audit', devices=False)
