"""A run as one file: run.json, and of its artefacts what recommending needs."""

from pathlib import Path
import zipfile

from jobrec_jax.pipeline.load import RESULTS, find_parts, parts_of, results_file
from jobrec_jax.pipeline.record import FILE, sealed
from jobrec_jax.pipeline.stage import canonical
from jobrec_jax.pipeline.store import ABOUT
from jobrec_jax.schema.files import replacing

DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the same run is packed to the same bytes


def pack(run: str | Path, to: str | Path) -> None:
  """Writes one .zip file, whole or not at all, that `pipeline.load.load` reads on any machine.

  It holds neither candidates nor interactions nor pretrained weights. Of stage 2's inputs, which
  the policy stands on, it holds the identity alone: a key is checked against that.

  Raises:
    ValueError: a part of the run is missing or damaged, or `to` exists already.
  """
  run, to = Path(run), Path(to)
  if to.exists():
    raise ValueError(f'{to}: must not exist yet, got a file or folder; name another')
  parts = find_parts(run, parts_of(run))
  keys = {name: parts.record['artefacts'][name] for name in parts.abouts}
  keys['data'] = parts.record['artefacts']['data']
  files = {f'store/{folder.name}/{path.relative_to(folder).as_posix()}': path
           for folder in parts.folders.values() for path in folder.rglob('*') if path.is_file()}
  files[f"store/{keys['inputs']}/{ABOUT}"] = run / parts.record['store'] / keys['inputs'] / ABOUT
  results = results_file(run, parts.record)
  report = {RESULTS: parts.record['report'][RESULTS]} if results else {}
  files |= {RESULTS: results} if results else {}
  record = {k: v for k, v in parts.record.items() if k != 'digest'}
  record = sealed(record | {'artefacts': keys, 'report': report, 'store': 'store'})
  with replacing(to, 'wb') as out, zipfile.ZipFile(out, 'w') as packed:
    packed.writestr(_entry(FILE), canonical(record))
    for name, path in sorted(files.items()):
      with path.open('rb') as file, packed.open(_entry(name), 'w', force_zip64=True) as entry:
        while block := file.read(1 << 20):
          entry.write(block)


def _entry(name: str) -> zipfile.ZipInfo:
  entry = zipfile.ZipInfo(name, DATE)
  entry.external_attr = 0o100644 << 16
  return entry
