"""Which mesh, how many lists and how much to compute again: what fits a topology, and the best."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import math
from pathlib import Path
import re
from typing import Any, NamedTuple, get_args, get_type_hints

from absl import logging

from jobrec_jax.pipeline.compile_ahead import GIB, compile_ahead, topology_devices, versions
from jobrec_jax.pipeline.model import ModelSettings
from jobrec_jax.pipeline.provenance import commit
from jobrec_jax.pipeline.settings import Settings
from jobrec_jax.pipeline.stage import canonical, plain
from jobrec_jax.schema.files import digest, read_json, write_rows
from jobrec_jax.schema.settings import override
from jobrec_jax.sharding import MeshConfig

REMAT = get_args(get_type_hints(ModelSettings)['remat'])  # from the least operations on
HEAD = ('mesh', 'remat', 'lists', 'GiB a chip', 'fits', 's computing', 's exchanging',
        'lists a second, at most')


class Try(NamedTuple):
  """A step that may fit: `lists` of each perspective in it."""

  mesh: MeshConfig
  remat: str
  lists: int

  def changes(self) -> dict[str, Any]:
    """Settings by key, those among them that must divide by the mesh."""
    sizes = {f'mesh.{name}': getattr(self.mesh, name) for name in ('data', 'fsdp', 'tensor')}
    batches = ('cooperative.batch', 'cooperative.qualification_batch', 'warm_up.batch',
               'features.batch')
    return sizes | {'model.remat': self.remat} | dict.fromkeys(batches, self.lists)


def read_meshes(words: Sequence[str], chips: int) -> list[MeshConfig]:
  """Meshes as 'DATAxFSDPxTENSOR'; without words those with at least half of the chips on fsdp.

  Raises:
    ValueError: a word is no mesh of so many chips.
  """
  if not words:
    return [MeshConfig(d, chips // (d * t), t) for d, t in ((1, 1), (2, 1), (1, 2))
            if not chips % (d * t)]
  found = []
  for word in words:
    match = re.fullmatch(r'(\d+)x(\d+)x(\d+)', word)
    sizes = [int(size) for size in match.groups()] if match else [0]
    if math.prod(sizes) != chips:
      raise ValueError(f'--meshes must be DATAxFSDPxTENSOR of {chips} chips in all, such as '
                       f'1x{chips}x1, got {word!r}')
    found.append(MeshConfig(*sizes))
  return found


def search(settings: Settings, topology: str, file: Path | None = None,
           meshes: Sequence[str] = (), most: int | None = None, out: Path | None = None,
           compiled: Callable[[Settings, str, Path | None], dict] = compile_ahead) -> list[dict]:
  """Compiles the step on each mesh with twice as many lists until there is no room.

  It begins with one list for each chip of data x fsdp, and nothing computed again. Where that no
  longer fits, the same lists are tried with more computed again: with fewer they fit already, for
  fewer operations. What cannot be laid out on a mesh is told and left out.

  Args:
    settings: of the run; mesh, remat and batches are tried.
    topology, file: as `compile_ahead` takes them.
    meshes: as `read_meshes` takes them.
    most: lists of each perspective in a step, not to be exceeded; None for no limit.
    out: a JSON file of the rows, written after each; rows of the same settings, commit and
      compiler that it holds are not made again.
    compiled: what compiles.

  Returns:
    The rows of `compile_ahead`, each with its `changes`.

  Raises:
    ValueError: no mesh takes the step, or `compile_ahead` does.
  """
  rows = _Rows(out, settings, topology, file)
  refusals = []
  for mesh in read_meshes(meshes, len(topology_devices(topology))):
    try:
      for one in _tries(mesh, most, rows.fits):
        rows.add(one, compiled)
    except ValueError as error:
      refusals.append(error)
      logging.warning('mesh %s: %s', _name(plain(mesh)), error)
  if not rows.asked:
    raise refusals[0] if refusals else ValueError(
        f'--most must leave a list for each chip of data x fsdp, got {most}')
  return list(rows.asked.values())


def _tries(mesh: MeshConfig, most: int | None, fits: Callable[[Try], bool]) -> Iterator[Try]:
  """Each step to be tried; `fits` tells of the last one. A limit that is reached ends it, for what
  fits with little computed again needs no more."""
  lists = mesh.data * mesh.fsdp
  for remat in REMAT:
    while most is None or lists <= most:
      one = Try(mesh, remat, lists)
      yield one
      if not fits(one):
        break
      lists *= 2
    else:
      return


class _Rows:
  """Rows by what was tried; those of other searches in the same file are kept."""

  def __init__(self, out: Path | None, settings: Settings, topology: str, file: Path | None):
    self._out, self._settings, self._topology, self._file = out, settings, topology, file
    self._kept = {}
    if out is not None and out.exists():
      self._kept = {canonical(row['asked']): row for row in _read_rows(out)}
    self.asked: dict[Try, dict] = {}

  def fits(self, one: Try) -> bool:
    return self.asked[one]['fits']

  def add(self, one: Try, compiled: Callable[[Settings, str, Path | None], dict]) -> None:
    settings = override(self._settings, one.changes())
    asked = {'settings': plain(settings), 'topology': self._topology, 'commit': commit(),
             'decoder': digest(self._file) if self._file else '', 'versions': versions()}
    key = canonical(asked)
    if key not in self._kept:
      logging.info('compiling %s, remat %s, %d lists of each perspective', _name(plain(one.mesh)),
                   one.remat, one.lists)
      row = compiled(settings, self._topology, self._file)
      self._kept[key] = row | {'asked': asked, 'changes': one.changes()}
      if self._out is not None:
        write_rows(self._out, list(self._kept.values()))
    self.asked[one] = self._kept[key]


def _read_rows(path: Path) -> list[dict]:
  rows = read_json(path)
  if not isinstance(rows, list) or not all(
      isinstance(row, dict) and isinstance(row.get('asked'), dict) for row in rows):
    raise ValueError(f'{path}: must hold the rows of a search, got something else; name another '
                     'file with --out')
  return rows


def rate(row: Mapping[str, Any]) -> float:
  """Lists a second at most: a step takes at least its matrix products, and its exchanges, each at
  the chip's peak and both at a time. 0 of a step that does not fit."""
  if not row['fits']:
    return 0.0
  return sum(row['lists']) / max(row['seconds_at_peak'], row.get('seconds_exchanging', 0.0))


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
  """The row of the highest `rate`, of equal ones that of the least memory; None if none fits."""
  return max((row for row in rows if row['fits']), default=None,
             key=lambda row: (rate(row), -row['memory']['total']))


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
  """Cells of what was tried, `HEAD` first."""
  cells = [HEAD]
  for row in rows:
    exchanging = row.get('seconds_exchanging')
    cells.append((
        _name(row['mesh']), row['remat'], ' + '.join(map(str, row['lists'])),
        f"{row['memory']['total'] / GIB:.1f}" if row['fits'] else '',
        'yes' if row['fits'] else 'no', f"{row['seconds_at_peak']:.3f}",
        '' if exchanging is None else f'{exchanging:.3f}',
        f'{rate(row):.3g}' if row['fits'] else ''))
  return cells


def _name(mesh: Mapping[str, int]) -> str:
  return 'x'.join(str(mesh[name]) for name in ('data', 'fsdp', 'tensor'))


def search_in_words(rows: Sequence[Mapping[str, Any]]) -> str:
  """What a search found, as a table for people, and the flags of the best."""
  cells = table(rows)
  widths = [max(map(len, column)) for column in zip(*cells)]
  lines = ['  '.join(cell.rjust(width) for cell, width in zip(line, widths)) for line in cells]
  first = best(rows)
  if first is None:
    return '\n'.join([*lines, '', 'Nothing fits: take more chips, shorter lists or blocks.'])
  lines += ['', 'The most lists a second, were neither matrix units nor links ever idle:',
            '  ' + ' '.join(f'--config.{key}={value}' for key, value in first['changes'].items())]
  if 'seconds_exchanging' not in first:
    lines.append('Its exchanges are not known, so that only matrix products count.')
  return '\n'.join(lines)
