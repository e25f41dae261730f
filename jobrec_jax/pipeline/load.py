"""Loading a finished run for use: nothing of training is imported, no data of the run are needed.

    loaded = jobrec_jax.load('runs/quickstart')       # or a file that pack wrote
    loaded.recommend(candidate, tau=0.6)[0].jobs

The artefacts are those that run.json names. Each is read only when it is what was made, and the
keys of what it was made from lead to the others: parts of different runs do not pass as one.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
from pathlib import Path, PurePosixPath
import stat
import tempfile
from typing import Any, NamedTuple
import zipfile

import jax

from jobrec_jax.data.tokens import load_tokenizer
from jobrec_jax.pipeline.artefacts import (
    load_calibration,
    load_catalogue,
    load_params,
    load_policy,
)
from jobrec_jax.pipeline.model import ModelSpec, make_model, open_backbone
from jobrec_jax.pipeline.record import FILE, read_record
from jobrec_jax.pipeline.stage import content
from jobrec_jax.pipeline.store import ABOUT, check_whole, read_about
from jobrec_jax.recommend import CandidateScores, RankedJobs, Recommender
from jobrec_jax.report.results import ResultRow, read_results
from jobrec_jax.schema.files import digest
from jobrec_jax.schema.schema import Entity, Schema
from jobrec_jax.schema.settings import build
from jobrec_jax.scoring.calibration import Calibration
from jobrec_jax.scoring.experts import Experts
from jobrec_jax.scoring.features import ScoringConfig
from jobrec_jax.scoring.policy import Policy
from jobrec_jax.sharding import MeshConfig, make_mesh

PARTS = ('tokenizer', 'cooperative', 'calibration', 'policy', 'catalogue')  # read whole
# Which input of which artefact is which other one. Of `inputs` the identity is needed alone.
CHAIN = (('cooperative', 'tokenizer', 'tokenizer'), ('cooperative', 'data', 'data'),
         ('calibration', 'experts', 'cooperative'), ('policy', 'inputs', 'inputs'),
         ('inputs', 'experts', 'cooperative'), ('inputs', 'calibration', 'calibration'),
         ('catalogue', 'data', 'data'))
RESULTS = 'results.json'


class Parts(NamedTuple):
  """The artefacts of a run that recommending needs, found whole and of one run.

  Attributes:
    record: what run.json holds.
    folders: of `PARTS` by name.
    abouts: what artefact.json says of these, and of 'inputs'.
  """

  record: dict[str, Any]
  folders: dict[str, Path]
  abouts: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """A finished run, ready to recommend.

  Attributes:
    settings: the run's, as run.json holds them: sections of plain values.
    recommender: schema, experts, calibration, policy and the run's own jobs.
    results: the rows of its report; empty where none was written.
    tokenizer_file: tokenizer.json of the experts, as text.
  """

  settings: Mapping[str, Any]
  recommender: Recommender
  results: tuple[ResultRow, ...]
  tokenizer_file: str = dataclasses.field(repr=False)

  @property
  def schema(self) -> Schema:
    return self.recommender.schema

  @property
  def experts(self) -> Experts:
    return self.recommender.experts

  @property
  def calibration(self) -> Calibration:
    return self.recommender.calibration

  @property
  def policy(self) -> Policy:
    return self.recommender.policy

  @property
  def jobs(self) -> tuple[Entity, ...]:
    return self.recommender.jobs

  def recommend(self, candidates: Entity | Sequence[Entity], tau: float, top_k: int = 5,
                jobs: Sequence[Entity] | None = None) -> list[RankedJobs]:
    """The best jobs for each candidate under `C >= tau`; see `Recommender.recommend`."""
    return self.recommender.recommend(candidates, tau, top_k, jobs)

  def score(self, candidates: Entity | Sequence[Entity],
            jobs: Sequence[Entity] | None = None) -> CandidateScores:
    """Scores of every candidate with every job, for any requirement; see `Recommender.score`."""
    return self.recommender.score(candidates, jobs)


def load(path: str | Path, backbone: str | None = None) -> LoadedRun:
  """Loads a run for use, on all devices there are.

  Args:
    path: a run folder, or a file that `pipeline.pack.pack` wrote.
    backbone: where the pretrained decoder lies, if not where it lay when the run was made.

  Raises:
    ValueError: a part is missing, is not what was made, or is of another run; it names the part.
  """
  with opened(path) as folder:
    parts = find_parts(folder)
    settings = parts.record['settings']
    schema, jobs = load_catalogue(parts.folders['catalogue'])
    policy, _ = load_policy(parts.folders['policy'])
    tokenizer_file = parts.folders['tokenizer'] / 'tokenizer.json'
    experts = _load_experts(parts, settings['backbone']['path'] if backbone is None else backbone)
    features = {k: v for k, v in settings['features'].items() if k != 'states'}
    recommender = Recommender(
        schema, experts, load_calibration(parts.folders['calibration']), policy, jobs,
        make_mesh(_fitting(build(MeshConfig, settings['mesh']))), build(ScoringConfig, features))
    return LoadedRun(settings, recommender, tuple(_results(folder, parts.record)),
                     tokenizer_file.read_text(encoding='utf-8'))


def find_parts(folder: Path) -> Parts:
  """The artefacts that a run folder names.

  Raises:
    ValueError: one is missing, is not what was made, or was made from those of another run.
  """
  record = read_record(folder)
  keys, store = record['artefacts'], folder / record['store']
  abouts, folders = {}, {}
  for name in (*PARTS, 'inputs'):
    if name not in keys:
      raise ValueError(f'{folder / FILE}: must name the artefact {name}, got {sorted(keys)}; finish '
                       f'the run: python -m experiments.fit_policy --workdir={folder}')
    place = store / keys[name]
    if not (place / ABOUT).is_file():
      raise ValueError(f'{place}: must be the artefact {name}, got no such folder; make it again: '
                       f'python -m experiments.fit_policy --workdir={folder}')
    abouts[name] = read_about(place) if name == 'inputs' else check_whole(place)
    folders[name] = place
  for name, of, other in CHAIN:
    was = abouts[name]['identity']['inputs'].get(of)
    if was != keys.get(other):
      raise ValueError(f'{store / keys[name]}: must be made from {keys.get(other)}, which '
                       f'{folder / FILE} names, got {was}')
  return Parts(record, {name: folders[name] for name in PARTS}, abouts)


def _load_experts(parts: Parts, place: str) -> Experts:
  """Raises ValueError: the backbone at `place` is not the one that the experts were trained on."""
  identity = parts.abouts['cooperative']['identity']
  spec = build(ModelSpec, identity['settings']['spec'])
  tokenizer = load_tokenizer(parts.folders['tokenizer'] / 'tokenizer.json')
  backbone = None
  if spec.pretrained:
    from jobrec_jax.weights.backbone import locate  # here, for readers of weights take their time
    if [content(locate(place))] != identity['files']:
      raise ValueError(f'backbone.path must name the decoder that the experts were trained on, got '
                       f'another one in {place}')
    backbone = open_backbone(spec, place)
  params = load_params(parts.folders['cooperative'] / 'params.safetensors')['model']
  if backbone is not None:
    params = params | {'decoder': backbone.load(None)}
  return Experts(make_model(spec, tokenizer, backbone), params, tokenizer, spec.tokenizer.lengths)


def _fitting(mesh: MeshConfig) -> MeshConfig:
  """The run's mesh where it covers this machine's devices, else all of them as data."""
  inner, count = mesh.fsdp * mesh.tensor, jax.device_count()
  covers = count % inner == 0 and mesh.data in (-1, count // inner)
  return mesh if covers else MeshConfig()


def _results(folder: Path, record: Mapping[str, Any]) -> list[ResultRow]:
  """Raises ValueError: they are not what was written."""
  if RESULTS not in record['report']:
    return []
  if digest(folder / RESULTS) != record['report'][RESULTS]:
    raise ValueError(f'{folder / RESULTS}: must be as it was written, got another content; write '
                     f'it again: python -m experiments.evaluate --workdir={folder}')
  return read_results(folder / RESULTS)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Path]:
  """The run folder itself, or a temporary one with what a packed file holds."""
  path = Path(path)
  if path.is_dir() or not path.exists():
    yield path
    return
  with tempfile.TemporaryDirectory(prefix='jobrec-') as folder:
    _extract(path, Path(folder))
    yield Path(folder)


def _extract(path: Path, folder: Path) -> None:
  """Unpacks plain files below `folder` alone.

  Raises:
    ValueError: the file is none that pack wrote.
  """
  try:
    with zipfile.ZipFile(path) as packed:
      entries = packed.infolist()
      for entry in entries:
        if problem := _problem(entry):
          raise ValueError(f'{path}: must hold plain files that are stored, got {problem}: '
                           f'{entry.filename!r}')
      size = sum(e.file_size for e in entries)
      if size > path.stat().st_size:
        raise ValueError(f'{path}: must hold what its size allows, got entries of {size} bytes')
      packed.extractall(folder)
  except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
    raise ValueError(f'{path}: must be a run folder or a packed run, got: {error}') from error


def _problem(entry: zipfile.ZipInfo) -> str | None:
  """What is wrong with an entry, if anything is."""
  name = PurePosixPath(entry.filename)
  if name.is_absolute() or '..' in name.parts or '\\' in entry.filename or ':' in entry.filename:
    return 'a path that leads out'
  if entry.is_dir() or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
    return 'no plain file'
  if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
    return 'a compressed or encrypted one'
  return None
