"""run.json, the one file that says what a run folder is."""

import hashlib
from pathlib import Path
from typing import Any

from jobrec_jax.pipeline.stage import canonical
from jobrec_jax.schema.files import read_json, write_json

FILE = 'run.json'
FORMAT = 1
STUDY = 'study.json'  # beside the runs of a study


def sealed(value: dict[str, Any]) -> dict[str, Any]:
  """The value with a digest of itself, so that a change by hand or by accident is noticed."""
  return value | {'digest': hashlib.sha256(canonical(value).encode()).hexdigest()}


def write_record(folder: Path, **parts: Any) -> None:
  """Writes run.json, where it would change."""
  value = sealed({'format': FORMAT, **parts})
  path = folder / FILE
  try:
    same = read_record(folder) == value
  except ValueError:
    same = False
  if not same:
    write_json(path, value, indent=1)


def read_record(folder: str | Path) -> dict[str, Any]:
  """What run.json of a run folder holds: settings, artefacts, store, report.

  Raises:
    ValueError: there is none, or it is not as it was written.
  """
  path = Path(folder) / FILE
  if (path.parent / STUDY).is_file():
    raise ValueError(f'{path.parent}: must be a run, got a study; its runs are '
                     f'{path.parent}/runs/VARIANT/data-D-seed-S')
  if next(path.parent.glob(f'data-*-seed-*/{FILE}'), None):
    raise ValueError(f'{path.parent}: must be a run, got a variant of a study; its runs are '
                     f'{path.parent}/*')
  if not path.is_file():
    raise ValueError(f'{path}: must be a file, got none; name the folder of a run, or make one '
                     f'first: python -m experiments.quickstart --workdir={folder}')
  value = read_json(path)
  try:
    whole = sealed({k: v for k, v in value.items() if k != 'digest'}) == value
  except (AttributeError, ValueError, TypeError):
    whole = False
  if not whole:
    raise ValueError(f'{path}: must be as it was written, got another content; delete it and start '
                     'the command that made the run again with its settings: what is in the store '
                     'is not made anew')
  if value['format'] != FORMAT:
    raise ValueError(f"{path}: format must be {FORMAT}, got {value['format']}; make the run again "
                     'in another folder')
  return value
